"""
How far chunks of calls have come, in memory that the process that makes the calls shares with the
one that wants them.

::

    slot: begun, done, closed, record, record, ...

The child writes how many items it has begun and, behind a fence, what came of each. The parent
reads that at any time, also when the child is dead, and may write that no more are to be begun.
Each writes before it reads what the other one writes (Dekker's algorithm): an item is begun, or
it is not and never will be.

This module imports no Twisted.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
from itertools import count
from threading import Lock
from typing import Any

from asynqueue.descriptors import holdStandard
from asynqueue.outcome import Raised, Returned, cannotDecode

# The most chunks that can be under way at once, and the most bytes of the pickled results of
# each: a chunk whose slot is full ends.
_SLOTS = 128
SLOT_BYTES = 1 << 16

# Where in a slot which word is: how many items were begun, how many of these are
# written down, and whether no more may be begun.
BEGUN, DONE, CLOSED = range(3)
_WORD_BYTES = 8
HEADER_BYTES = 4 * _WORD_BYTES
SLOT_WORDS = SLOT_BYTES // _WORD_BYTES

# A record is its length, doubled, plus 1 if it is of a failure, and a pickle.
LENGTH = struct.Struct("<I")

# How many boards a child keeps at hand: one for each map.
_KEPT = 8

Outcome = Returned | Raised


class Memory:
    """
    The memory of a board, on either side.
    """

    def __init__(self, descriptor: int) -> None:
        self.map = mmap.mmap(descriptor, _SLOTS * SLOT_BYTES)
        self.bytes = memoryview(self.map)
        self.words = self.bytes.cast("Q")
        self.lock = Lock()
        self.lock.acquire()

    def fence(self) -> None:
        """
        Have others see what was written before this before what is written after it, and
        read what is read after this after that was written.
        """
        self.lock.release()
        self.lock.acquire()

    def close(self) -> None:
        """
        Give the memory back.
        """
        self.words.release()
        self.bytes.release()
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

    def close(self, slot: int) -> int:
        """
        Have a chunk begin no more items.

        @return: how many it has begun, or was about to begin in this moment and
            will not.
        """
        memory = self._memory
        memory.words[slot * SLOT_WORDS + CLOSED] = 1
        # The later of the two, this or the child, sees what the other has
        # written.
        memory.fence()
        return memory.words[slot * SLOT_WORDS + BEGUN]

    def outcomes(self, slot: int, start: int = 0) -> list[Outcome]:
        """
        Return what is written down of a chunk, from an item on.

        @raise Exception: never: what cannot be unpickled is an outcome, too.
        """
        memory = self._memory
        done = memory.words[slot * SLOT_WORDS + DONE]
        memory.fence()
        outcomes: list[Outcome] = []
        place = slot * SLOT_BYTES + HEADER_BYTES
        for number in range(done):
            (length,) = LENGTH.unpack_from(memory.bytes, place)
            place += LENGTH.size
            end = place + (length >> 1)
            if number >= start:
                outcomes.append(outcomeOf(bool(length & 1), bytes(memory.bytes[place:end])))
            place = end
        return outcomes

    def shut(self) -> None:
        """
        Give the memory back. It may be called more than once.
        """
        if self._descriptor != -1:
            self._memory.close()
            os.close(self._descriptor)
            self._descriptor = -1


def outcomeOf(failed: bool, pickled: Any) -> Outcome:
    """
    Return an outcome, from what was written down of it.
    """
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
