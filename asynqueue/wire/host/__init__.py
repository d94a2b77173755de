"""
The host's end: names to callables, and calls to a queue.
"""
