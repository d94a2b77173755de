"""
The queue's end: workers whose calls are made by hosts.
"""
