"""
What a pool and its children say to each other.

::

    parent ── SETUP, SURROUNDINGS, NAMES, DEFINE, FORGET, CALLS, CALL, CREDIT, STOP, ECHO ──▶ child
           ◀── UP, RETURNED, RAISED, SKIPPED, ITERATOR, ITEMS, ITEM_FAILED, END,
               LOGGED, WARNED, PRINTED, ECHO ──

Besides, both look at a few words of shared memory. There the child notes, without
a system call, which call it begins, and the parent, up to which number it has taken
calls back. So at the death of a child it is known which call was begun, and a call is
taken back at once whatever the child is doing.

This module imports no Twisted.
"""

from __future__ import annotations

import mmap
import os
import signal
from enum import IntEnum
from threading import Lock


class Kind(IntEnum):
    """
    What a frame is for. Its number is that of the call or of the callable.
    """

    # From the parent.
    SETUP = 1
    """The first of all: how the child is to be, pickled."""
    DEFINE = 2
    """From now on this number is a callable, pickled."""
    FORGET = 3
    """The callable of this number is not used any more."""
    CALLS = 4
    """Calls with this number and those after it: marshalled tuples of the number of
    the callable, the pickled (args, kw) or None, and L{RAW} or L{CLOSED}, or both."""
    CALL = 5
    """One call like those, with args and kw in the buffers."""
    CREDIT = 6
    """The iterator of this call may give more items: as many as it says."""
    STOP = 7
    """Nobody takes more items of the iterator of this call."""
    NAMES = 8
    """For the calls that follow, names of the main program stand for these objects: as
    L{learn<asynqueue.mainmodule.learn>} takes them."""
    SURROUNDINGS = 9
    """What has changed around the program, pickled: as
    L{follow<asynqueue.processes.surroundings.follow>} takes it."""
    ECHO = 10
    """Is sent back as it is: all that was sent before has been read."""
    TIDY = 11
    """No large message has gone for a while: no memory is to be kept for one."""

    # From the child.
    UP = 16
    """It is set up."""
    RETURNED = 17
    """The value that a call returned, pickled; C{None} in no bytes."""
    RAISED = 18
    """The L{Raised<asynqueue.outcome.Raised>} of a call, pickled."""
    SKIPPED = 19
    """A call had been taken back when it was about to begin."""
    ITERATOR = 20
    """A call returned an iterator: its representation, pickled, and in a buffer a
    list of its first item, pickled, unless it has none."""
    ITEMS = 21
    """A list of items of an iterator, pickled."""
    ITEM_FAILED = 22
    """The L{Raised<asynqueue.outcome.Raised>} of an item, pickled."""
    END = 23
    """An iterator has no more items, or was closed."""
    LOGGED = 24
    """A record of C{logging}: its attributes, pickled."""
    WARNED = 25
    """A warning: message, category, file name and line, pickled."""
    PRINTED = 26
    """What calls have printed while C{sys.stdout} of the parent is redirected: text in
    UTF-8."""
    TRACKED = 27
    """What the resource tracker of the parent is to be told: command, name and kind of a
    resource, marshalled."""
    CLOSED_RETURNED = 28
    """The value that a L{CLOSED} call returned, pickled for who has made it."""
    CLOSED_RAISED = 29
    """What one has raised: the name of its type, what it says, its traceback, and what
    L{packedRaised<asynqueue.outcome.packedRaised>} gives, marshalled."""
    CLOSED_ITERATOR = 30
    """One returned an iterator: as ITERATOR."""
    CLOSED_ITEMS = 31
    """Items of such: how many, marshalled, and in the buffers what ITEMS has, pickled for who
    has made the call."""
    CLOSED_ITEM_FAILED = 32
    """In the place of an item of such: as CLOSED_RAISED."""


# For hot paths: children of an enumeration are slow to look up and to compare.
CALLS, RETURNED, SKIPPED, CLOSED_RETURNED = (
    int(kind) for kind in (Kind.CALLS, Kind.RETURNED, Kind.SKIPPED, Kind.CLOSED_RETURNED)
)

# How a call is made: an iterator is returned as it is; and the arguments were pickled by
# another program, which is to have what comes of them: the parent passes it on.
RAW = 1
CLOSED = 2

# Where the arguments and results of calls may have less, messages may still have so
# many bytes: a number of small ones, and what is wrong with a large one, must fit.
SMALLEST = 1 << 17

# The bytes of shared memory that either side keeps in segments, if nothing else is said.
KEPT = 256 << 20

# The signal by which a running call is interrupted.
INTERRUPT_SIGNAL = signal.SIGUSR1

# Where each of the shared words is.
_BEGUN, _REVOKED, _INTERRUPTED, _ENDED, _HEARD = range(5)
_SECONDS, _LIMIT = range(5, 7)
_SIZE = mmap.PAGESIZE


class SharedState:
    """
    The shared words of a child and its parent. A hot path: the child writes some
    of them with each call.

    Each word has one writer, and is written and read as a whole.
    """

    def __init__(self, descriptor: int) -> None:
        """
        @param descriptor: an empty file, which is given its size.
        """
        os.ftruncate(descriptor, _SIZE)
        self._map = mmap.mmap(descriptor, _SIZE)
        self.numbers = memoryview(self._map).cast("Q")
        self.floats = memoryview(self._map).cast("d")
        self._fence = Lock()
        self._fence.acquire()

    # The child's.

    def begin(self, number: int) -> bool | None:
        """
        Note that the child is about to begin a call.

        @return: whether it may; if not, it was taken back in the same moment. C{None}: it was
            taken back before, and nothing was noted.
        """
        numbers = self.numbers
        if number <= numbers[_REVOKED]:
            return None
        numbers[_BEGUN] = number
        # The later of the two, this or L{revoke}, sees what the other wrote:
        # each writes before it reads, and no processor may change that order around
        # a release and an acquisition of a lock (Dekker's algorithm).
        self._fence.release()
        self._fence.acquire()
        return number > numbers[_REVOKED]

    def ended(self, seconds: float) -> None:
        """
        Note how long a call ran.
        """
        # In this order: the parent, which reads them in the other one, then has the seconds of
        # all the calls that it counts.
        self.floats[_SECONDS] += seconds
        self.numbers[_ENDED] += 1

    def isInterrupted(self, number: int) -> bool:
        """
        Tell whether the parent wants the run of a call to end.
        """
        return self.numbers[_INTERRUPTED] == number

    def hear(self) -> None:
        """
        Note that the signal by which the parent interrupts a call has come.
        """
        self.numbers[_HEARD] = self.numbers[_INTERRUPTED]

    @property
    def softLimit(self) -> float:
        """
        The limit in seconds that the interrupted call has exceeded; 0 if it was
        cancelled.
        """
        return self.floats[_LIMIT]

    # The parent's.

    def detach(self) -> None:
        """
        Have a copy, in a fork of the parent, which nobody else sees.
        """
        copy = bytearray(self._map)
        self.close()
        self.numbers = memoryview(copy).cast("Q")
        self.floats = memoryview(copy).cast("d")
        # Another thread of the parent may have been about to acquire it.
        self._fence = Lock()
        self._fence.acquire()

    @property
    def begun(self) -> int:
        """
        The number of the latest call that the child has begun, or was about to.
        """
        return self.numbers[_BEGUN]

    def revoke(self, number: int) -> int:
        """
        Take back all calls that have not begun, up to this number.

        @return: the number of the latest that has begun, or is about to and will
            be skipped.
        """
        self.numbers[_REVOKED] = number
        self._fence.release()
        self._fence.acquire()
        return self.numbers[_BEGUN]

    def interrupt(self, number: int, limit: float) -> None:
        """
        Say which call is meant by the signal that is sent next.
        """
        self.floats[_LIMIT] = limit
        self.numbers[_INTERRUPTED] = number

    def isUnheard(self, number: int) -> bool:
        """
        Tell whether the signal that was to interrupt a call has not come there.
        """
        return self.isInterrupted(number) and self.numbers[_HEARD] != number

    def measured(self) -> tuple[int, float]:
        """
        Return how many calls the child has ended, and how many seconds they ran, all together.
        """
        return self.numbers[_ENDED], self.floats[_SECONDS]

    def close(self) -> None:
        """
        Give the memory back.
        """
        self.numbers.release()
        self.floats.release()
        self._map.close()
