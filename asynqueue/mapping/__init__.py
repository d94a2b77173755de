"""
One function over many arguments: items that travel together, and what becomes of each.
"""
