"""
What is said on a connection: bytes in, events out. No I/O, no reactor.
"""
