"""
One child process, from its start to its end, as its parent sees it.

::

    Spawned ─▶ works ─▶ was told to end, or is being ended ─▶ is gone
    ProcessCalls ◀─ receive ◀─┘                                  │
    delegate ◀─ ended: what was begun, what was not ◀────────────┘
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from enum import Enum
from functools import partial

from twisted.python.failure import Failure

from asynqueue.channels import Channel
from asynqueue.errors import OPEN_ITERATOR, FrameError
from asynqueue.forks import isParents, tellForks
from asynqueue.framing import Frame
from asynqueue.loops.adapters import LoopAdapter, Timer
from asynqueue.outcome import inWords
from asynqueue.processes.calls import ProcessCalls
from asynqueue.processes.guard import harmless, report
from asynqueue.processes.outlet import Outlet
from asynqueue.processes.protocol import INTERRUPT_SIGNAL
from asynqueue.processes.roles import (
    CallDelegate,
    ExitReport,
    LifeDelegate,
    Reader,
    Setup,
)
from asynqueue.processes.spawn import Spawned
from asynqueue.processes.tidying import Tidying

# The seconds that a child has to end after it was told to, before it is killed; and
# then those in which SIGKILL must have ended it, before it is given up.
PATIENCE = 5.0

# Those that one that cannot even be prepared has.
_ABANDON_SECONDS = 1.0

# Those between looks at a process whose end nothing tells.
_LOOK_SECONDS = 0.02


class _Life(Enum):
    WORKING = "works"
    FINISHING = "was told to end"
    DYING = "is being ended"
    GONE = "is gone"


class ChildProcess:
    """
    One child.

    What an event loop calls here raises nothing, except C{KeyboardInterrupt}: a fault of
    what is called within, or of the system, is logged and is the loss of this child.

    @ivar pid: its process ID.
    @ivar calls: the calls that it has.
    """

    def __init__(
        self,
        loop: LoopAdapter,
        delegate: CallDelegate[ChildProcess],
        life: LifeDelegate[ChildProcess],
        setup: Setup,
        reader: Reader[ChildProcess] | None = None,
        *,
        spawn: Callable[[int], Spawned] = Spawned,
    ) -> None:
        """
        Start a child.

        @param reader: who reads what it sends; C{None}: the child itself.
        @param spawn: starts a process; it is given the largest number of bytes that a
            message may have.
        @raise OSError: it cannot be started.
        @raise Exception: whatever the pickling of its preparations raises.
        """
        self._loop = loop
        self._delegate = life
        self._parent = os.getpid()
        self._spawned = spawn(setup.limit)
        self.pid = self._spawned.pid
        self._channel = self._spawned.channel
        segments = self._channel.segments
        segments.most = setup.kept
        self._shared = self._spawned.shared
        self._life = _Life.WORKING
        self._reason = ""
        # Whether what it sends can be read no more.
        self._isSpoilt = False
        self._patience: Timer | None = None
        self._look: Timer | None = None
        self._outlet = Outlet(loop, self._channel, self.guarded)
        self._tidying = Tidying(segments, self._outlet, self._callLater)
        self.calls = ProcessCalls(
            self, loop, self._outlet, self._shared, setup.limit, delegate, life
        )
        tellForks(self)
        if reader is None:
            loop.watch(self._channel.fileno(), self._readable)
        else:
            reader.add(self._channel.fileno(), self)
        loop.watch(self._spawned.stderr, partial(self.guarded, self._stderrReadable))
        self._watchEnd()
        try:
            self.calls.prepare(setup)
        except BaseException:
            self.abandon()
            raise

    # Work

    @property
    def accepts(self) -> bool:
        """
        Whether calls may be given to it.
        """
        return self._life is _Life.WORKING and not self.calls.preparing

    @property
    def resident(self) -> int:
        """
        How many bytes of memory it has; 0 if it is gone.
        """
        return self._spawned.resident

    @property
    def isGone(self) -> bool:
        """
        Whether its process has ended, and all that it left is settled.
        """
        return self._life is _Life.GONE

    @property
    def hasNews(self) -> bool:
        """
        Whether something can be read that it has sent, or its end.
        """
        return _isReadable(self._channel)

    # The end

    def finish(self) -> None:
        """
        Have the child end by itself. It holds nothing.
        """
        if self._life is _Life.WORKING:
            self._become(_Life.FINISHING)
            for descriptor in self._channel.descriptors:
                self._loop.unwatch(descriptor)
            self._channel.close()
            self._expectEnd()

    def kill(self, reason: str) -> None:
        """
        End the child at once, whatever it does. L{LifeDelegate.ended} is called when its
        process is gone, or has not gone for L{PATIENCE} seconds.

        @param reason: why.
        """
        if self._life in (_Life.WORKING, _Life.FINISHING):
            self._become(_Life.DYING)
            self._reason = reason
            self.signal(signal.SIGKILL)
            self._expectEnd()

    def signal(self, number: int) -> None:
        """
        Send the child a signal.
        """
        if self._life is not _Life.GONE:
            self._spawned.signal(number)

    def forked(self) -> None:
        """
        Lose, in a fork, the calls that have begun, whose outcomes the parent has, and have the
        others made by another child.
        """
        if self._life is _Life.GONE:
            return
        self._become(_Life.DYING)
        self._reason = isParents(self._parent)
        self._shared.detach()
        try:
            for descriptor in self._descriptors:
                self._loop.letGo(descriptor)
        finally:
            self._spawned.forked()
        self._loop.callLater(0, self._exited)

    def abandon(self) -> None:
        """
        End the child now, and tell nobody: nobody knows of it yet, or any more.
        """
        self._become(_Life.GONE)
        self._spawned.signal(signal.SIGKILL)
        self._spawned.awaitEnd(_ABANDON_SECONDS)
        self._close()

    def _close(self) -> None:
        self._tidying.stop()
        for descriptor in self._descriptors:
            self._loop.unwatch(descriptor)
        self._spawned.close()
        self._shared.close()

    @property
    def _descriptors(self) -> list[int]:
        """
        All that the loop may watch.
        """
        others = self._spawned.stderr, self._spawned.pidfd
        return [*self._channel.descriptors, *(each for each in others if each != -1)]

    def _become(self, life: _Life) -> None:
        self._life = life
        self._outlet.close()

    def _watchEnd(self) -> None:
        if self._spawned.pidfd != -1:
            self._loop.watch(self._spawned.pidfd, partial(self.guarded, self.checkEnded))

    def _expectEnd(self) -> None:
        """
        Expect the end of the child, which is near, or shall be brought about.
        """
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self._callLater(PATIENCE, self._outOfPatience)
        # Somebody may have taken all readers out of the reactor, as trial does after tests.
        self._watchEnd()
        if self._spawned.pidfd == -1 and self._look is None:
            self._look = self._callLater(_LOOK_SECONDS, self._lookAgain)

    def _lookAgain(self) -> None:
        """
        Look for the end of a process where nothing tells of it.
        """
        self._look = None
        self.checkEnded()
        if not self.isGone:
            self._look = self._callLater(_LOOK_SECONDS, self._lookAgain)

    def _outOfPatience(self) -> None:
        self._patience = None
        if self._life is _Life.FINISHING:
            self.kill(f"it did not end within {PATIENCE:g} s")
        elif self._life is _Life.DYING:
            also = f"{self._reason}; " if self._reason else ""
            self._reason = f"{also}SIGKILL has not ended it within {PATIENCE:g} s"
            self._exited()

    def _closed(self, reason: str = "") -> None:
        """
        Expect the end of the child, whose connection is at its end: it is ending, or of no use any
        more.

        @param reason: why what it sends can be read no more; empty if it sends no more.
        """
        if reason:
            self._isSpoilt = True
            self._reason = reason
        self._loop.unwatch(self._channel.fileno())
        if self._life is _Life.WORKING:
            # A process that is ending, ends as it was about to: this has no effect.
            self._become(_Life.DYING)
            self._spawned.signal(signal.SIGKILL)
            self._expectEnd()

    def checkEnded(self) -> None:
        """
        Look whether the process has ended.
        """
        # A reactor that stops calls this, too.
        if not self.isGone and self._spawned.hasEnded():
            self._exited()

    def _exited(self) -> None:
        """
        Settle what a process leaves that has ended, or is given up. What it sent before is still
        there.
        """
        while not (self.isGone or self._isSpoilt) and _isReadable(self._channel):
            try:
                self.receive()
            except EOFError:
                break
        if self.isGone:
            return
        self._become(_Life.GONE)
        self.calls.stopTimers()
        for timer in (self._patience, self._look):
            if timer is not None:
                timer.cancel()
        spawned = self._spawned
        code = spawned.exitCode
        while spawned.readStderr() > 0:
            pass
        if code == -INTERRUPT_SIGNAL and not self._reason:
            self._reason = (
                f"limits and cancellations interrupt calls by {INTERRUPT_SIGNAL.name}, and a call"
                " has changed what that does"
            )
        begun = self._shared.begun
        held = self.calls.held
        ending = ExitReport(
            self.pid,
            code if code is not None and code >= 0 else None,
            -code if code is not None and code < 0 else None,
            self._reason,
            spawned.tail.decode(errors="replace"),
            [job for number, job in held.items() if number <= begun],
            [job for number, job in held.items() if number > begun],
            self.calls.isUp,
            self.calls.suspects,
        )
        # Whatever fails here, all are told.
        harmless("closing what led to a child", self._close)
        held.clear()
        sources = list(self.calls.streams.values())
        self.calls.streams.clear()
        # First this: who hears of a failure may have the next call made at once.
        harmless("the end of a child", self._delegate.ended, self, ending)
        for source in sources:
            failure = Failure(ending.lost(OPEN_ITERATOR))
            harmless("the end of an iterator", source.lost, failure)

    # What comes

    def _readable(self) -> None:
        """
        Read what the child has sent.
        """
        try:
            self.receive()
        except EOFError:
            # What follows from that is done.
            pass

    def receive(self) -> list[Frame]:
        """
        Take what is there, and tell it. A hot path.

        @return: the messages that were told.
        @raise EOFError: the child has closed its end, or what it sends can be read no
            more: there is no more to come.
        """
        try:
            frames = self._channel.receive()
        except EOFError:
            self._closed()
            raise
        except FrameError as error:
            # What came before is as good as ever.
            self.calls.deliver(error.before)
            self._closed(f"it sent what is no message: {error}")
            raise EOFError(self._reason) from error
        except BaseException as error:
            # The system has no room for it, or refuses what it never should.
            self._closed(f"what it sent cannot be read: {inWords(error)}")
            report(error, f"reading what process {self.pid} sends")
            raise EOFError(self._reason) from error
        self.calls.deliver(frames)
        self._tidying.look()
        return frames

    def _callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        return self._loop.callLater(seconds, partial(self.guarded, f))

    def guarded(self, f: Callable[[], None]) -> None:
        """
        Do what an event loop calls.
        """
        try:
            f()
        except BaseException as error:
            # The seam to all that follows from it.
            self.fault(error)

    def fault(self, error: BaseException) -> None:
        """
        Give the child up: something failed on this side, and nobody knows what it has left undone.
        """
        self.kill(f"what it told could not be dealt with: {inWords(error)}")
        report(error, f"dealing with what process {self.pid} tells")

    def _stderrReadable(self) -> None:
        if not self._spawned.readStderr():
            # It has ended, or has closed it.
            self._loop.unwatch(self._spawned.stderr)


def _isReadable(channel: Channel) -> bool:
    if channel.fileno() < 0:
        # It was told to end.
        return False
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    return bool(poller.poll(0))
