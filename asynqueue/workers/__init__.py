"""
The workers: providers of L{IWorker<asynqueue.interfaces.IWorker>}.
"""
