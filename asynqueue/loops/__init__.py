"""
Event loops, as those see them who drive child processes.

::

    adapters:  what they want of a loop, and how a reactor and an asyncio loop give it
    own:       a loop of our own, for programs that have none
"""
