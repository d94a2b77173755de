"""
Stores: where durable calls, called jobs, outlive the programs that enqueue and run them.
"""
