"""
What the C{asynqueue} command is made of: one module for each thing that it
watches, while L{asynqueue.cli} only reads its options.
"""
