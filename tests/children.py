"""
Child processes that are none: they speak the protocol of a pool when the test says so, and a
reactor that reads what they say when the test says so.
"""

from __future__ import annotations

import marshal
import os
import pickle
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from zope.interface import implementer

from asynqueue.channels import Channel
from asynqueue.codec import encode
from asynqueue.errors import TaskInterrupted
from asynqueue.outcome import raised
from asynqueue.processes.protocol import INTERRUPT_SIGNAL, SMALLEST, Kind, SharedState
from asynqueue.segments import anonymousFile

# No process of this machine has such an ID.
_FIRST_PID = 1 << 23


@implementer(IReactorFDSet)
class ReadingClock(Clock):
    """
    A clock that watches descriptors, too, and looks at them in L{turn} only.
    """

    def __init__(self) -> None:
        super().__init__()
        # In the order in which they were added, so that a run can be repeated.
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def addReader(self, reader: Any) -> None:
        self._readers[reader] = None

    def removeReader(self, reader: Any) -> None:
        self._readers.pop(reader, None)

    def addWriter(self, writer: Any) -> None:
        self._writers[writer] = None

    def removeWriter(self, writer: Any) -> None:
        self._writers.pop(writer, None)

    def removeAll(self) -> list[Any]:
        readers, self._readers = self._readers, {}
        return list(readers)

    def getReaders(self) -> list[Any]:
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        return list(self._writers)

    def turn(self, isBackwards: bool = False) -> None:
        """
        Read what there is, once from each.

        @param isBackwards: whether the readers that were added last are read first: then the
            end of a child is seen before what it has sent.
        """
        poll = select.poll()
        for reader in self._readers:
            poll.register(reader.fileno(), select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(0)}
        readers = [each for each in self._readers if each.fileno() in ready]
        for reader in reversed(readers) if isBackwards else readers:
            if reader in self._readers:
                reader.doRead()


class ChildDouble:
    """
    Stands for a L{Spawned<asynqueue.processes.spawn.Spawned>}, and for the process behind it, which
    makes a call in steps, and never calls anything.

    @ivar resident: how many bytes of memory it has.
    @ivar ended: the arguments of the calls that have returned.
    @ivar made: how many calls it has begun, without those that prepare it.
    @ivar poised: the number and the arguments of the call that it is about to begin.
    @ivar running: those of the call that it has begun.
    @ivar isKilled: whether SIGKILL was sent to it.
    @ivar hasExited: whether it has ended.
    @ivar isReleased: whether its parent has closed all that led to it.
    """

    tail = b""

    def __init__(self, limit: int, number: int, begins: Callable[[ChildDouble, Any], None]) -> None:
        """
        @param number: tells it from others.
        @param begins: is called as it begins a call, with the arguments of that.
        """
        here, there = socket.socketpair()
        here.setblocking(False)
        there.setblocking(False)
        memory = anonymousFile()
        reading, self._lifeline = os.pipe()
        self.channel = Channel(here, max(limit, SMALLEST))
        self.shared = SharedState(memory)
        self.pid = _FIRST_PID + number
        self.pidfd = reading
        self.stderr = os.dup(reading)
        self.exitCode: int | None = None
        self.resident = 1
        self.ended: list[Any] = []
        self.made = 0
        self.poised: tuple[int, Any] | None = None
        self.running: tuple[int, Any] | None = None
        self.isKilled = False
        self.hasExited = False
        self.isReleased = False
        self._begins = begins
        self._connection = Channel(there, max(limit, SMALLEST))
        self._shared = SharedState(memory)
        os.close(memory)
        self._calls: deque[tuple[int, Any]] = deque()
        self._streams: set[int] = set()

    # What the parent asks

    def readStderr(self) -> int:
        """
        It never writes there.
        """
        return 0 if self.hasExited else -1

    def signal(self, number: int) -> None:
        """
        SIGKILL ends it when the test lets it L{exit}.
        """
        if number == signal.SIGKILL:
            self.isKilled = True
        elif number == INTERRUPT_SIGNAL and self.isAlive:
            self._shared.hear()

    def hasEnded(self) -> bool:
        """
        Whether it has ended.
        """
        return self.hasExited

    def awaitEnd(self, seconds: float) -> bool:
        """
        It does not take long.
        """
        self.exit()
        return True

    def close(self) -> None:
        """
        Close all descriptors of the parent.
        """
        if not self.isReleased:
            self.isReleased = True
            self.channel.close()
            os.close(self.pidfd)
            os.close(self.stderr)

    # What the test says

    @property
    def isAlive(self) -> bool:
        """
        Whether it does anything more.
        """
        return not self.isKilled and not self.hasExited

    @property
    def isInterrupted(self) -> bool:
        """
        Whether the parent wants the call that runs to end.
        """
        return self.running is not None and self._shared.isInterrupted(self.running[0])

    def exit(self, code: int = 0) -> None:
        """
        End now.

        @param code: its exit code, or minus the number of a signal; if SIGKILL was sent to it,
            it ends by that.
        """
        if not self.hasExited:
            self.hasExited = True
            self.exitCode = -signal.SIGKILL if self.isKilled else code
            self._connection.close()
            self._shared.close()
            os.close(self._lifeline)

    def step(self, how: str = "returns", seconds: float = 0.001) -> None:
        """
        Do what comes next: end the call that runs, begin the one that it is about to begin,
        be about to begin the next one; or take what has come.

        @param how: what a call does that ends: returns its arguments, raises, iterates, or
            stops, if it was interrupted.
        @param seconds: how long it ran.
        """
        if not self.isAlive:
            return
        if self.running is not None:
            number, args = self.running
            if how == "stops" and not self._shared.isInterrupted(number):
                return
            self.running = None
            self._shared.ended(seconds)
            self._end(number, args, how)
        elif self.poised is not None:
            (number, args), self.poised = self.poised, None
            # Again: what it writes is the same, and it sees what was taken back since.
            if self._shared.begin(number):
                self.running = number, args
                self._begins(self, args)
            else:
                self._send(Kind.SKIPPED, number, b"")
        elif self._calls:
            number, args = self._calls.popleft()
            if self._shared.begin(number) is not None:
                self.poised = number, args
        else:
            self._hear()

    def _end(self, number: int, args: Any, how: str) -> None:
        match how:
            case "returns":
                self.ended.append(args)
                self._send(Kind.RETURNED, number, pickle.dumps(args))
            case "iterates":
                self._streams.add(number)
                self._send(Kind.ITERATOR, number, pickle.dumps("an iterator"), [pickle.dumps([1])])
            case _:
                error = TaskInterrupted() if how == "stops" else LookupError(args)
                self._send(Kind.RAISED, number, *encode(raised(error)))

    def _hear(self) -> None:
        try:
            frames = self._connection.receive()
        except EOFError:
            self.exit()
            return
        for kind, number, body, buffers in frames:
            match kind:
                case Kind.SETUP:
                    self._send(Kind.UP, self.pid, b"")
                case Kind.CALLS:
                    for _, packed, _ in marshal.loads(body):
                        self._take(number, packed)
                        number += 1
                case Kind.CALL:
                    self._take(number, buffers[0])
                case Kind.ECHO:
                    self._send(kind, number, b"")
                case Kind.CREDIT | Kind.STOP if number in self._streams:
                    # It has no other item.
                    self._streams.remove(number)
                    self._send(Kind.END, number, b"")

    def _take(self, number: int, packed: Any) -> None:
        self._calls.append((number, () if packed is None else pickle.loads(packed)[0]))

    def _send(self, kind: int, number: int, body: Any, buffers: Any = ()) -> None:
        if self.hasExited:
            return
        try:
            self._connection.send(kind, number, body, buffers)
        except (BrokenPipeError, ConnectionResetError):
            self.exit()


def f(*args: Any) -> None:
    """
    Is never called.
    """


class Unsendable:
    """
    Cannot be pickled.
    """

    def __reduce__(self) -> Any:
        raise LookupError("it stays here")
