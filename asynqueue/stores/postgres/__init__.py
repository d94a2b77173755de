"""
A store in PostgreSQL, which several programs on several machines share.
"""
