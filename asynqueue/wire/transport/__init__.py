"""
Connections: what carries a session, who listens and dials, and with which proof of identity.
"""
