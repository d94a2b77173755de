"""
Pools of child processes.

::

    protocol, spawn: how a child starts, and what is said to it
    child:           what runs there; it knows no Twisted
    member:          one child, from its start to its end
    seat:            keeps one place filled with a child, whatever becomes of it
    taskpool:        many places, for programs with any event loop or with none

As the package itself, this one imports nothing until a name is asked for.
"""
