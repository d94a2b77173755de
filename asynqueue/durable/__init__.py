"""
Jobs: calls that outlive programs, in a store. L{asynqueue.durable.queue} has the queue.
"""
