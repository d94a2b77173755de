"""
Child processes: what runs in one, and how its parent sees it.

::

    protocol, spawn:  how a child starts, and what is said to it
    child:            the loop that runs there; it knows no Twisted. With it: running,
                      streaming, reporting, printing, surroundings
    process:          one child, from its start to its end
    calls:            what it is to do, and what comes of it. With it: callables, outlet,
                      iterators, replay, passing
    supervisor:       keeps one place filled with a child, whatever becomes of those before
    limits, starts:   when a child is replaced, and how soon another one is started
    roles:            who is told of a child, and what is told
"""
