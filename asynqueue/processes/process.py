"""
One child of a pool, from its start to its end, as its parent sees it.

::

    call ─▶ batch ─▶ flush: one frame ─▶ Channel ─▶ child
    delegate ◀─ returned, raised, iterating ◀─ frames ◀─┘
    delegate ◀─ ended: what was begun, what was not ◀─ its death

A hot path, plain on purpose; C{benchmarks/} guards it.
"""

from __future__ import annotations

import marshal
import os
import pickle
import select
import signal
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any

from twisted.python.failure import Failure

from asynqueue.channels import Channel
from asynqueue.codec import decode, encodeCall
from asynqueue.errors import OPEN_ITERATOR, FrameError
from asynqueue.failures import failureOf
from asynqueue.forks import isParents, tellForks
from asynqueue.framing import Frame, checkSize
from asynqueue.loops.adapters import LoopAdapter, Timer
from asynqueue.mainmodule import described
from asynqueue.outcome import Raised, cannotDecode, describeCall, inWords
from asynqueue.processes.callables import Callables
from asynqueue.processes.guard import harmless, report
from asynqueue.processes.iterators import ChildIterator
from asynqueue.processes.protocol import CALLS, INTERRUPT_SIGNAL, RETURNED, Kind
from asynqueue.processes.replay import replay
from asynqueue.processes.roles import (
    CallDelegate,
    CallTuple,
    ExitReport,
    LifeDelegate,
    Reader,
    Setup,
)
from asynqueue.processes.spawn import Spawned
from asynqueue.processes.surroundings import Surroundings
from asynqueue.program import Told
from asynqueue.salvage import Lost, loadItems

# A call with more bytes travels by itself; the others in frames of about so many,
# which need no shared memory.
_LARGE = 1 << 14
_BATCH_BYTES = 1 << 15

# While more calls come, so many are collected before they are sent.
_BATCH = 32

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
    @ivar held: the jobs without outcome, by the numbers of their calls, in order.
    @ivar streams: the iterators that are open, by the numbers of their calls.
    @ivar calls: how many calls it was given, with those that prepare it.
    @ivar prepared: how many of them prepare it.
    @ivar isUp: whether it is set up and prepared.
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
        self._delegate = delegate
        self._parent = os.getpid()
        self._lifeDelegate = life
        self._spawned = spawn(setup.limit)
        self._surroundings = Surroundings()
        self.pid = self._spawned.pid
        self._channel = self._spawned.channel
        self._shared = self._spawned.shared
        self.held: dict[int, Any] = {}
        self.streams: dict[int, ChildIterator] = {}
        self.calls = 0
        self.prepared = len(setup.preparations)
        self.isUp = False
        self._takenBack = 0
        self._life = _Life.WORKING
        self._reason = ""
        # Whether what it sends can be read no more.
        self._isSpoilt = False
        self._told = Told(self._tell)
        self._callables = Callables(
            lambda name, pickled: self._send(Kind.DEFINE, name, pickled),
            lambda name: self._send(Kind.FORGET, name, b""),
            self._told,
        )
        self._limit = setup.limit
        self._large = min(_LARGE, setup.limit)
        self._batch: list[tuple[int, bytes | None, bool]] = []
        self._first = 0
        self._batchBytes = 0
        self._collecting = False
        self._flushing: Timer | None = None
        self._patience: Timer | None = None
        self._look: Timer | None = None
        # By the numbers of the calls that were interrupted.
        self._graces: dict[int, Timer] = {}
        # Jobs that were taken back before it had begun any; it may be about to end by one of
        # them, until it sends back the last echo.
        self._suspects: list[Any] = []
        self._echo = 0
        self._measured = (0, 0.0)
        tellForks(self)
        if reader is None:
            loop.watch(self._channel.fileno(), self._readable)
        else:
            reader.add(self._channel.fileno(), self)
        loop.watch(self._spawned.stderr, partial(self._guarded, self._stderrReadable))
        self._watchEnd()
        self._send(Kind.SETUP, 0, pickle.dumps({"main": described()}))
        # By the numbers of their calls; those are not held.
        self._preparations: dict[int, CallTuple] = {}
        try:
            for callTuple in setup.preparations:
                self._preparations[self.call(None, *callTuple)] = callTuple
        except BaseException:
            self.abandon()
            raise
        self.flush()
        self.held.clear()

    # Work

    @property
    def accepts(self) -> bool:
        """
        Whether calls may be given to it.
        """
        return self._life is _Life.WORKING and not self._preparations

    @property
    def made(self) -> int:
        """
        How many calls it has begun, or is to begin, without those that prepare it.
        """
        return self.calls - self.prepared - self._takenBack

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

    def call(self, job: Any, f: Callable[..., Any], args: Any, kw: Any, raw: bool = False) -> int:
        """
        Have a call made, after those that were given before. A hot path.

        @param raw: whether an iterator is returned as it is, and not streamed.
        @return: the number of the call.
        @raise Exception: whatever the pickling of somebody's objects raises. Nothing
            was sent then.
        """
        held = self.held
        number = self.calls + 1
        packed, buffers = encodeCall(args, kw, self._told)
        name = self._callables.nameOf(f, number, next(iter(held)) if held else number)
        size = 0 if packed is None else len(packed)
        if buffers or size > self._large:
            checkSize(size + sum(buffer.raw().nbytes for buffer in buffers), self._limit)
            self.flush()
            self._tellSurroundings()
            self._send(Kind.CALL, number, marshal.dumps((name, raw)), [packed, *buffers])
            self.calls = number
            held[number] = job
            return number
        self.calls = number
        held[number] = job
        batch = self._batch
        if not batch:
            self._first = number
        batch.append((name, packed, raw))
        self._batchBytes += size
        if len(held) == 1 or len(batch) >= _BATCH or self._batchBytes > _BATCH_BYTES:
            self.flush()
        elif not self._collecting and self._flushing is None:
            self._flushing = self._callLater(0, self._flushLater)
        return number

    def _tell(self, names: bytes) -> None:
        # It holds for the calls that follow.
        checkSize(len(names), self._limit)
        self.flush()
        self._tellSurroundings()
        self._send(Kind.NAMES, 0, names)

    def _tellSurroundings(self) -> None:
        news = self._surroundings.news()
        if news is not None:
            self._send(Kind.SURROUNDINGS, 0, pickle.dumps(news))

    def flush(self) -> None:
        """
        Send what was collected. A hot path.
        """
        batch = self._batch
        if batch:
            self._tellSurroundings()
            self._send(CALLS, self._first, marshal.dumps(batch))
            self._batch = []
            self._batchBytes = 0

    def takeBack(self) -> list[Any]:
        """
        Take back all calls that have not begun: they are never made.

        @return: their jobs, in order.
        """
        sent = self._first - 1 if self._batch else self.calls
        self._batch = []
        self._batchBytes = 0
        held = self.held
        if not held:
            return []
        begun = self._shared.revoke(self.calls)
        numbers = [number for number in held if number > begun]
        suspects = [held[number] for number in numbers if number <= sent]
        jobs = [held.pop(number) for number in numbers]
        self._takenBack += len(jobs)
        if suspects and not held:
            self._suspects += suspects
            self._echo += 1
            self._send(Kind.ECHO, self._echo, b"")
        return jobs

    @property
    def begun(self) -> int:
        """
        The number of the last call that has begun, or may have. Of one that is gone it is
        not to be asked.
        """
        return self._shared.begun

    @property
    def isBetween(self) -> bool:
        """
        Whether it is up and has calls, and has begun none of them.
        """
        return self.isUp and bool(self.held) and not self.hasBegun(next(iter(self.held)))

    @property
    def hasNews(self) -> bool:
        """
        Whether something can be read that it has sent, or its end.
        """
        return _isReadable(self._channel)

    def hasBegun(self, number: int) -> bool:
        """
        Whether a call has begun, or may have.
        """
        return number <= self._shared.begun

    def interrupt(self, number: int, limit: float = 0.0) -> None:
        """
        Raise an exception in a call that runs.

        @param limit: the soft limit in seconds that it has exceeded; 0: it was
            cancelled.
        """
        if self._life is not _Life.GONE:
            self._shared.interrupt(number, limit)
            self._spawned.signal(INTERRUPT_SIGNAL)

    def end(self, number: int, grace: float, what: str) -> None:
        """
        Interrupt a call that runs, or the iterator that it has returned. If that does not end,
        kill the child.

        @param grace: the seconds that it has for that.
        @param what: what is to end, in words.
        """
        if self._life is _Life.GONE:
            return
        self.interrupt(number)

        def checkEnded() -> None:
            del self._graces[number]
            if number in self.held or number in self.streams:
                self.kill(f"{what} did not end within {grace:g} s")

        if number not in self._graces:
            self._graces[number] = self._callLater(grace, checkEnded)

    def isDeaf(self, number: int) -> bool:
        """
        Whether a call was to be interrupted, and the signal has not come there.
        """
        return self._life is not _Life.GONE and self._shared.isUnheard(number)

    def measure(self) -> tuple[int, float]:
        """
        How many calls have ended since this was asked last, and how many seconds
        they ran, all together.
        """
        tasks, seconds = self._measured
        if self._life is not _Life.GONE:
            self._measured = self._shared.measured()
        return self._measured[0] - tasks, self._measured[1] - seconds

    # The end

    def finish(self) -> None:
        """
        Have the child end by itself. It holds nothing.
        """
        if self._life is _Life.WORKING:
            self._life = _Life.FINISHING
            self._loop.unwatch(self._channel.fileno())
            self._channel.close()
            self._expectEnd()

    def kill(self, reason: str) -> None:
        """
        End the child at once, whatever it does. L{LifeDelegate.ended} is called when its
        process is gone, or has not gone for L{PATIENCE} seconds.

        @param reason: why.
        """
        if self._life in (_Life.WORKING, _Life.FINISHING):
            self._life = _Life.DYING
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
        The child is the parent's, which has the outcomes of its calls. Here those that have
        begun are lost, and the others are made by another child.
        """
        if self._life is _Life.GONE:
            return
        self._life = _Life.DYING
        self._reason = isParents(self._parent)
        self._shared.detach()
        try:
            for descriptor in (self._channel.fileno(), self._spawned.stderr, self._spawned.pidfd):
                if descriptor != -1:
                    self._loop.letGo(descriptor)
        finally:
            self._spawned.forked()
        self._loop.callLater(0, self._exited)

    def abandon(self) -> None:
        """
        End the child now, and tell nobody: nobody knows of it yet, or any more.
        """
        self._life = _Life.GONE
        self._spawned.signal(signal.SIGKILL)
        self._spawned.awaitEnd(_ABANDON_SECONDS)
        self._close()

    def _close(self) -> None:
        spawned = self._spawned
        for descriptor in (self._channel.fileno(), spawned.stderr, spawned.pidfd):
            if descriptor != -1:
                self._loop.unwatch(descriptor)
        spawned.close()
        self._shared.close()

    def _watchEnd(self) -> None:
        if self._spawned.pidfd != -1:
            self._loop.watch(self._spawned.pidfd, partial(self._guarded, self.checkEnded))

    def _expectEnd(self) -> None:
        """
        Its end is near, or shall be brought about.
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
        Where nothing tells of the end of a process, look for it.
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

    def _closed(self) -> None:
        """
        The connection is at its end: the child is ending, or of no use any more.
        """
        self._loop.unwatch(self._channel.fileno())
        if self._life is _Life.WORKING:
            # A process that is ending, ends as it was about to: this has no effect.
            self._life = _Life.DYING
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
        The process has ended, or is given up. What it sent before is still there.
        """
        while not (self.isGone or self._isSpoilt) and _isReadable(self._channel):
            try:
                self.receive()
            except EOFError:
                break
        if self.isGone:
            return
        self._life = _Life.GONE
        for timer in (self._patience, self._look, self._flushing, *self._graces.values()):
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
        held = self.held
        ending = ExitReport(
            self.pid,
            code if code is not None and code >= 0 else None,
            -code if code is not None and code < 0 else None,
            self._reason,
            spawned.tail.decode(errors="replace"),
            [job for number, job in held.items() if number <= begun],
            [job for number, job in held.items() if number > begun],
            self.isUp,
            self._suspects,
        )
        # Whatever fails here, all are told.
        harmless("closing what led to a child", self._close)
        held.clear()
        streams, self.streams = self.streams, {}
        # First this: who hears of a failure may have the next call made at once.
        harmless("the end of a child", self._lifeDelegate.ended, self, ending)
        for source in streams.values():
            failure = Failure(ending.lost(OPEN_ITERATOR))
            harmless("the end of an iterator", source.failed, failure)
            harmless("the end of an iterator", source.ended)

    # What comes

    def _readable(self) -> None:
        """
        The child has sent something.
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
            self._deliver(error.before)
            self._spoil(f"it sent what is no message: {error}")
            raise EOFError(self._reason) from error
        except BaseException as error:
            # The system has no room for it, or refuses what it never should.
            self._spoil(f"what it sent cannot be read: {inWords(error)}")
            report(error, f"reading what process {self.pid} sends")
            raise EOFError(self._reason) from error
        self._deliver(frames)
        return frames

    def _deliver(self, frames: Sequence[Frame]) -> None:
        """
        Tell what has come. A hot path.
        """
        held = self.held
        delegate = self._delegate
        self._collecting = True
        for frame in frames:
            kind, number, body, buffers = frame
            job = None
            try:
                if kind == RETURNED:
                    if number in held:
                        job = held.pop(number)
                        try:
                            value = pickle.loads(body, buffers=buffers)
                        except BaseException as error:
                            # Somebody's objects: whatever their unpickling raises.
                            delegate.raised(self, job, cannotDecode(error))
                        else:
                            delegate.returned(self, job, value)
                    elif self._preparations:
                        self._prepared(number)
                else:
                    job = held.get(number)
                    self._heard(frame)
            except BaseException as error:
                # The seam to all that follows from a message.
                if job is not None:
                    # It may not have been told: then it ends with this child.
                    held.setdefault(number, job)
                self._fault(error)
        self._collecting = False
        if self._life is not _Life.GONE:
            self._guarded(self._collected)

    def _collected(self) -> None:
        self._delegate.onBatchRead(self)
        self.flush()

    def _callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        return self._loop.callLater(seconds, partial(self._guarded, f))

    def _guarded(self, f: Callable[[], None]) -> None:
        """
        Do what an event loop calls.
        """
        try:
            f()
        except BaseException as error:
            # The seam to all that follows from it.
            self._fault(error)

    def _fault(self, error: BaseException) -> None:
        """
        Something failed on this side, and nobody knows what it has left undone: the child
        is lost.
        """
        self.kill(f"what it told could not be dealt with: {inWords(error)}")
        report(error, f"dealing with what process {self.pid} tells")

    def _spoil(self, reason: str) -> None:
        """
        What it sends can be read no more.
        """
        self._isSpoilt = True
        self._reason = reason
        self._closed()

    def _heard(self, frame: Frame) -> None:
        kind, number, body, buffers = frame
        match kind:
            case Kind.RAISED:
                if number in self.held:
                    self._delegate.raised(self, self.held.pop(number), _raisedThere(body, buffers))
                elif number in self._preparations:
                    what = describeCall(*self._preparations[number])
                    self._lifeDelegate.unfit(self, what, _raisedThere(body, buffers))
            case Kind.SKIPPED:
                if number in self.held:
                    self._takenBack += 1
                    self._delegate.givenBack(self, self.held.pop(number))
            case Kind.ITERATOR:
                self._iterating(number, decode(body), buffers)
            case Kind.ITEMS:
                source = self.streams.get(number)
                if source is not None:
                    self._items(source, body, buffers)
            case Kind.ITEM_FAILED:
                source = self.streams.get(number)
                if source is not None:
                    source.failed(failureOf(_raisedThere(body, buffers)))
            case Kind.END:
                source = self.streams.pop(number, None)
                if source is not None:
                    source.ended()
            case Kind.UP:
                self._prepared(0)
            case Kind.ECHO:
                if number == self._echo:
                    self._suspects.clear()
            case Kind.LOGGED | Kind.WARNED | Kind.PRINTED | Kind.TRACKED:
                replay(kind, body)
            case _:
                self._reason = f"it sent a frame of the unknown kind {kind}"
                self._spawned.signal(signal.SIGKILL)

    def _prepared(self, number: int) -> None:
        """
        It is set up, or has made one of the calls that prepare it.
        """
        self._preparations.pop(number, None)
        if not self._preparations and not self.isUp:
            self.isUp = True
            self._lifeDelegate.up(self)

    def _iterating(self, number: int, text: str, first: Any) -> None:
        job = self.held.pop(number, None)
        if job is None:
            # A preparation: nobody takes its items.
            self._send(Kind.STOP, number, b"")
            self._prepared(number)
            return
        items: list[Any] = []
        failure = None
        if first:
            try:
                items = decode(first[0], first[1:])
            except BaseException as error:
                # Somebody's objects, as above.
                failure = failureOf(cannotDecode(error))
        source = self.streams[number] = ChildIterator(
            lambda count: self._send(Kind.CREDIT, number, marshal.dumps(count)),
            lambda: self._send(Kind.STOP, number, b""),
            items,
            sum(len(part) for part in first),
        )
        self._delegate.iterating(self, job, source, text)
        if failure is not None:
            source.failed(failure)

    def _items(self, source: ChildIterator, body: Any, buffers: Any) -> None:
        try:
            items = loadItems(body, buffers)
        except BaseException as error:
            # They are not here, or what came is something else.
            source.failed(failureOf(cannotDecode(error)))
        else:
            for run in items:
                if isinstance(run, Lost):
                    source.failed(failureOf(cannotDecode(run.error)))
                else:
                    source.receive(run)

    def _stderrReadable(self) -> None:
        if not self._spawned.readStderr():
            # It has ended, or has closed it.
            self._loop.unwatch(self._spawned.stderr)

    # Sending

    def _send(self, kind: int, number: int, body: bytes, buffers: Any = ()) -> None:
        if self._life is not _Life.WORKING:
            return
        try:
            if not self._channel.send(kind, number, body, buffers):
                self._awaitWritable()
        except (BrokenPipeError, ConnectionResetError):
            # It is gone, and what it left there is read first.
            pass

    def _writable(self) -> None:
        if self._life is _Life.WORKING:
            try:
                if not self._channel.flush():
                    self._awaitWritable()
            except (BrokenPipeError, ConnectionResetError):
                # As above.
                pass

    def _awaitWritable(self) -> None:
        self._loop.awaitWritable(self._channel.fileno(), partial(self._guarded, self._writable))

    def _flushLater(self) -> None:
        self._flushing = None
        self.flush()


def _isReadable(channel: Channel) -> bool:
    if channel.fileno() < 0:
        # It was told to end.
        return False
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    return bool(poller.poll(0))


def _raisedThere(body: Any, buffers: Any) -> Raised:
    try:
        outcome: Raised = decode(body, buffers)
    except BaseException as error:
        # It was tried out where it was raised; but here may be another world.
        return cannotDecode(error)
    return outcome
