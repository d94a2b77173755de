"""
Segments of shared memory, through which messages of many bytes go, and which are used again.

::

    fill: a free segment of ours, or a new one ─▶ its descriptor ─▶ claim: it is theirs now
    it is ours again, when one comes that is theirs ◀─ fill, or release ◀─ nobody looks at it

A segment is an anonymous file, whose descriptor is sent along. It has no name, so nothing is
left of it when its last user is gone, however that ended. To allocate its pages takes longer
than to fill them. Therefore both ends keep some that they have mapped. Each belongs to
one end at a time: to the one that has received it last, which may write to it when nothing
there refers to its memory any longer. As the descriptor comes with each message, either end
may forget a segment without telling.

This module imports no Twisted.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from asynqueue.descriptors import aboveStandard
from asynqueue.errors import FrameInvalid

# The bytes that Linux maps where one of them is read; MAP_POPULATE takes longer.
_AROUND = 1 << 16

# Until Python 3.13 memory that is mapped keeps a descriptor. With this many in use,
# what comes is copied: programs may keep more arrays than they may have open files.
_TRACKED = sys.version_info < (3, 13)
_MOST_MAPPED = 128 if _TRACKED else sys.maxsize
_MAP_OPTIONS: dict[str, Any] = {} if _TRACKED else {"trackfd": False}
_mapped: WeakSet[mmap.mmap] = WeakSet()

# The segments that are kept by one end.
_MOST_KEPT = 6

# One that is this many times as large as needed is not used.
_WASTE = 4

# The references to a mapping that is only kept: the attribute, and the argument that asks.
_ONLY_KEPT = 2


def anonymousFile() -> int:
    """
    Return the descriptor of a new file that has no name, in memory where the system has that. It is
    not inherited.
    """
    if hasattr(os, "memfd_create"):
        return aboveStandard(os.memfd_create("asynqueue"))
    with tempfile.TemporaryFile() as file:
        return aboveStandard(os.dup(file.fileno()))


def _new(parts: Sequence[Any], offsets: Sequence[int], size: int) -> int:
    """
    Return a new segment with these contents.
    """
    descriptor = anonymousFile()
    try:
        os.ftruncate(descriptor, size)
        for part, offset in zip(parts, offsets, strict=True):
            view = memoryview(part)
            while view:
                written = os.pwrite(descriptor, view, offset)
                view = view[written:]
                offset += written
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _copied(descriptor: int, size: int) -> memoryview:
    """
    Return what is in a segment, in memory that has no descriptor.
    """
    memory = bytearray(size)
    with open(descriptor, "rb", closefd=False) as file:
        file.readinto(memory)
    return memoryview(memory)


def _mapping(descriptor: int, size: int) -> mmap.mmap | None:
    """
    Map a segment.

    @return: C{None}: no descriptor is free to go with it, or too much is mapped.
    """
    if len(_mapped) >= _MOST_MAPPED:
        return None
    try:
        memory = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, **_MAP_OPTIONS)
    except OSError:
        return None
    _mapped.add(memory)
    return memory


def _makePresent(memory: mmap.mmap) -> None:
    """
    Have the pages of a segment here, before they are read or written one after the other.
    """
    memory[::_AROUND]


class _Kept:
    """
    A segment that is kept.

    @ivar isOurs: whether it belongs to this end.
    @ivar isPresent: whether all its pages were here.
    """

    __slots__ = ("descriptor", "isOurs", "isPresent", "memory", "size")

    def __init__(self, descriptor: int, memory: mmap.mmap, size: int) -> None:
        self.descriptor = descriptor
        self.memory = memory
        self.size = size
        self.isOurs = False
        self.isPresent = False

    @property
    def isFree(self) -> bool:
        """
        Whether it may be written to: it is ours, and nothing refers to its memory.
        """
        return self.isOurs and sys.getrefcount(self.memory) <= _ONLY_KEPT


class Segments:
    """
    The segments of one end of a channel.

    @ivar most: how many bytes may be kept; 0: each message has a new segment.
    @ivar made: how many new ones were made here.
    @ivar wereUsed: whether one was used since this was set to be false.
    @ivar returning: the keys of free ones that are to be given back: messages come in them,
        and none go.
    """

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.made = 0
        self.wereUsed = False
        self.returning: list[int] = []
        # By their keys; what was used last comes last.
        self._kept: dict[int, _Kept] = {}
        # Whether one was filled since the latest that came.
        self._hasFilled = True
        _all.add(self)

    def __del__(self) -> None:
        self.clear()

    def fill(self, parts: Sequence[Any], offsets: Sequence[int], size: int) -> tuple[int, int]:
        """
        Write a message into a segment, which belongs to the other end then.

        @param parts: what it consists of, as bytes.
        @param offsets: where each part is to be.
        @return: the key of the segment, 0 if it is not kept, and a descriptor to be sent
            and closed.
        @raise OSError: there is no room for it.
        """
        self.wereUsed = self._hasFilled = True
        fitting = [
            (kept.size, key)
            for key, kept in list(self._kept.items())
            if size <= kept.size <= _WASTE * size and kept.isFree
        ]
        if not fitting:
            return self._fillNew(parts, offsets, size)
        _, key = min(fitting)
        kept = self._kept.pop(key)
        self._kept[key] = kept
        descriptor = aboveStandard(os.dup(kept.descriptor))
        kept.isOurs = False
        if not kept.isPresent:
            _makePresent(kept.memory)
            kept.isPresent = True
        with memoryview(kept.memory) as memory:
            for part, offset in zip(parts, offsets, strict=True):
                memory[offset : offset + part.nbytes] = part
        return key, descriptor

    def _fillNew(self, parts: Sequence[Any], offsets: Sequence[int], size: int) -> tuple[int, int]:
        descriptor = _new(parts, offsets, size)
        self.made += 1
        if 0 < size <= self.most:
            memory = _mapping(descriptor, size)
            if memory is not None:
                key = int.from_bytes(os.urandom(8), "little")
                if self._keep(key, descriptor, memory, size) is not None:
                    return key, descriptor
        return 0, descriptor

    def claim(self, key: int, size: int, descriptor: int) -> memoryview:
        """
        Take the segment of a message, which belongs to this end then.

        @param key: its key, 0 if it is not to be kept.
        @param descriptor: it is closed.
        @return: the message. It may be written to.
        @raise FrameInvalid: it is not what was announced.
        @raise OSError: it cannot be read.
        @raise MemoryError: there is no room for it.
        """
        self.wereUsed = True
        if not self._hasFilled:
            self.returning = [key for key, kept in list(self._kept.items()) if kept.isFree]
        self._hasFilled = False
        try:
            there = os.fstat(descriptor).st_size
            if there < size or (there > size and not key):
                raise FrameInvalid(f"a segment of {there:,} bytes, where {size:,} were announced")
            if not size:
                return memoryview(bytearray())
            kept = self._kept.pop(key, None)
            if kept is not None:
                self._kept[key] = kept
                if not kept.isPresent:
                    _makePresent(kept.memory)
            else:
                memory = _mapping(descriptor, there)
                if memory is None:
                    return _copied(descriptor, size)
                _makePresent(memory)
                if not key or there > self.most:
                    return memoryview(memory)
                kept = self._keep(key, descriptor, memory, there)
                if kept is None:
                    return memoryview(memory)[:size]
        finally:
            os.close(descriptor)
        kept.isOurs = kept.isPresent = True
        return memoryview(kept.memory)[:size]

    def release(self) -> list[int]:
        """
        Give free segments back to the other end, where messages come in them and none go.

        @return: the keys of segments that belong to the other end from now on.
        """
        keys = [key for key in self.returning if key in self._kept and self._kept[key].isFree]
        for key in keys:
            self._kept[key].isOurs = False
        self.returning = []
        return keys

    def regain(self, keys: Sequence[int]) -> None:
        """
        Take segments that the other end has released.
        """
        for key in keys:
            if key in self._kept:
                self._kept[key].isOurs = True

    def forked(self) -> None:
        """
        Give up what is looked at here: a fork of this process that begins now looks at it, too.
        """
        for key, kept in list(self._kept.items()):
            if kept.isOurs and not kept.isFree:
                self._forget(key)

    def clear(self) -> None:
        """
        Keep none of those that there are.
        """
        self.returning = []
        for key in list(self._kept):
            self._forget(key)

    def _keep(self, key: int, descriptor: int, memory: mmap.mmap, size: int) -> _Kept | None:
        """
        Keep a segment, and for it those no more that were not used for longest.

        @return: C{None}: no descriptor is free for it.
        """
        try:
            kept = _Kept(aboveStandard(os.dup(descriptor)), memory, size)
        except OSError:
            return None
        self._kept[key] = kept
        while len(self._kept) > _MOST_KEPT or self._bytes() > self.most:
            self._forget(next(iter(self._kept)))
        return kept

    def _bytes(self) -> int:
        return sum(kept.size for kept in self._kept.values())

    def _forget(self, key: int) -> None:
        os.close(self._kept.pop(key).descriptor)


def _beforeFork() -> None:
    for segments in list(_all):
        segments.forked()


_all: WeakSet[Segments] = WeakSet()

os.register_at_fork(before=_beforeFork)
