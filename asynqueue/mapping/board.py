"""
How far chunks of calls have come, in memory that the process that makes the calls shares with the
one that wants them.

::

    slot: begun, done, closed, record, record, ...

Before each call the child writes how many items it has begun, and after it, a record of what
came of the item: so all records but that of the last item begun are there. The parent reads that
also when the child is dead, and may write that no more are to be begun.

Neither side has a fence between what it writes and what it reads then, which would cost more than
a call. The parent waits instead, as it asks what was begun: what a process writes, others see as
soon as its processor has it in the cache, in less than a microsecond, or as it leaves the
processor. So after a hundred times as long an item is begun, as far as the parent sees, or the
child has seen that it must not be (as in A. Morrison and Y. Afek, Temporally Bounding TSO for
Fence-Free Asymmetric Synchronization, 2015).

This module imports no Twisted.
"""

from __future__ import annotations

import marshal
import mmap
import os
import pickle
from io import BytesIO
from itertools import count
from time import sleep
from typing import Any

from asynqueue.descriptors import holdStandard
from asynqueue.outcome import Raised, Returned, cannotDecode

# The most chunks that can be under way at once, and the most bytes of the pickled results of
# each: a chunk whose slot is full ends.
_SLOTS = 128
SLOT_BYTES = 1 << 16

# Where in a slot which word is: how many items were begun; how many have a record, which is
# written as the chunk ends; and whether no more may be begun.
BEGUN, DONE, CLOSED = range(3)
_WORD_BYTES = 8
HEADER_BYTES = 4 * _WORD_BYTES
SLOT_WORDS = SLOT_BYTES // _WORD_BYTES

# How long the parent waits until each side surely sees what the other one wrote, in seconds.
_SEEN_AFTER = 0.0001

# How many boards a child keeps at hand: one for each map.
_KEPT = 8

Outcome = Returned | Raised


class Memory:
    """
    The memory of a board, on either side.
    """

    def __init__(self, descriptor: int) -> None:
        self.map = mmap.mmap(descriptor, _SLOTS * SLOT_BYTES)
        self._bytes = memoryview(self.map)
        self.words = self._bytes.cast("Q")

    def close(self) -> None:
        """
        Give the memory back.
        """
        self.words.release()
        self._bytes.release()
        self.map.close()


class ProgressBoard:
    """
    The parent's side: how far chunks have come.

    @ivar name: by which children find it.
    """

    _numbers = count(1)

    def __init__(self) -> None:
        """
        @raise OSError: there is no room for it.
        """
        holdStandard()
        self._descriptor = os.memfd_create("asynqueue board")
        os.ftruncate(self._descriptor, _SLOTS * SLOT_BYTES)
        self._memory = Memory(self._descriptor)
        # With a number, since descriptors are used again.
        path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        self.name = (path, next(self._numbers))
        self._free = list(range(_SLOTS - 1, -1, -1))

    @staticmethod
    def isPossible() -> bool:
        """
        Tell whether this system lets children find the memory of their parent.
        """
        return hasattr(os, "memfd_create") and os.path.exists("/proc/self/fd")

    def take(self) -> int | None:
        """
        Take a slot for another chunk, if there is one.
        """
        if not self._free:
            return None
        slot = self._free.pop()
        start = slot * SLOT_WORDS
        for word in (BEGUN, DONE, CLOSED):
            self._memory.words[start + word] = 0
        return slot

    def give(self, slot: int) -> None:
        """
        Take a slot back: its chunk has ended, and has been read.
        """
        self._free.append(slot)

    def begun(self, slot: int) -> int:
        """
        Return how many items a chunk has begun.
        """
        return self._memory.words[slot * SLOT_WORDS + BEGUN]

    def warn(self, slot: int) -> None:
        """
        Have a chunk begin no more items, soon.
        """
        self._memory.words[slot * SLOT_WORDS + CLOSED] = 1

    def close(self, slot: int) -> int:
        """
        Have a chunk begin no more items. This blocks for a moment.

        @return: how many it has begun, or was about to begin in this moment and
            will not.
        """
        self.warn(slot)
        sleep(_SEEN_AFTER)
        return self.begun(slot)

    def outcomes(self, slot: int, start: int = 0) -> list[Outcome]:
        """
        Return what is written down of a chunk that has ended or was closed, from an item on.

        @raise Exception: never: what cannot be unpickled is an outcome, too.
        """
        memory = self._memory
        first = slot * SLOT_WORDS
        done = max(memory.words[first + DONE], memory.words[first + BEGUN] - 1)
        place = slot * SLOT_BYTES
        records = BytesIO(memory.map[place + HEADER_BYTES : place + SLOT_BYTES])
        told = [marshal.load(records) for _ in range(done)]
        return [outcomeOf(record) for record in told[start:]]

    def shut(self) -> None:
        """
        Give the memory back. It may be called more than once.
        """
        if self._descriptor != -1:
            self._memory.close()
            os.close(self._descriptor)
            self._descriptor = -1


def recordOf(failed: bool, pickled: bytes) -> bytes:
    """
    Return the record of a failure, or of a value that is not plain. That of a plain one is
    made of the value itself.
    """
    return marshal.dumps((failed, pickled))


def outcomeOf(told: Any) -> Outcome:
    """
    Return an outcome, from what its record holds.
    """
    if type(told) is not tuple:
        return Returned(told)
    failed, pickled = told
    try:
        value = pickle.loads(pickled)
    except BaseException as error:
        # Somebody's objects: whatever their unpickling raises.
        return cannotDecode(error)
    if failed:
        outcome: Raised = value
        return outcome
    return Returned(value)


_memories: dict[tuple[str, int], Memory] = {}


def memoryOf(name: tuple[str, int]) -> Memory:
    """
    Return the memory of a board of the parent, in a child.

    @raise OSError: it is not there, or not for this process.
    """
    memory = _memories.get(name)
    if memory is None:
        descriptor = os.open(name[0], os.O_RDWR)
        try:
            memory = Memory(descriptor)
        finally:
            os.close(descriptor)
        while len(_memories) >= _KEPT:
            _memories.pop(next(iter(_memories))).close()
        _memories[name] = memory
    return memory
