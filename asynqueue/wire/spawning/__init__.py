"""
Hosts on this machine that this process starts, in processes of their own.
"""
