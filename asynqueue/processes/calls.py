"""
The calls of a child process: sent to it in batches, taken back, and settled by what it
sends.

::

    make ─▶ batch ─▶ flush: one frame ─▶ Outlet ─▶ child
    delegate ◀─ returned, raised, iterating ◀─ deliver ◀─ frames ◀─┘

A hot path, plain on purpose; C{benchmarks/} guards it.
"""

from __future__ import annotations

import marshal
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from asynqueue.codec import Closed, ClosedCall, encodeCall
from asynqueue.framing import Frame, checkSize
from asynqueue.loops.adapters import LoopAdapter, Timer
from asynqueue.mainmodule import described
from asynqueue.outcome import cannotDecode, describeCall
from asynqueue.processes.callables import HASHABLE, Callables
from asynqueue.processes.messages import OpenStreams, raisedThere
from asynqueue.processes.outlet import Outlet
from asynqueue.processes.protocol import (
    CALLS,
    CLOSED,
    INTERRUPT_SIGNAL,
    RAW,
    RETURNED,
    Kind,
    SharedState,
)
from asynqueue.processes.replay import replay
from asynqueue.processes.roles import (
    CallDelegate,
    CallsDelegate,
    CallTuple,
    LifeDelegate,
    Setup,
)
from asynqueue.processes.surroundings import Surroundings
from asynqueue.program import Told

# A call with more bytes travels by itself; the others in frames of about as many as this,
# which need no shared memory.
_LARGE = 1 << 14
_BATCH_BYTES = 1 << 15

# How many calls are collected before they are sent, while more come.
_BATCH = 64

_NO_BUFFERS: Sequence[pickle.PickleBuffer] = ()


_Child = TypeVar("_Child", bound=CallsDelegate)


class ProcessCalls(Generic[_Child]):
    """
    The calls of one child. That makes one after the other, in the order of their numbers.

    @ivar held: the jobs without outcome, by the numbers of their calls, in order.
    @ivar streams: the iterators that are open, by the numbers of their calls.
    @ivar given: how many calls it was given, with those that prepare it.
    @ivar preparing: those of its calls that prepare it, by their numbers; they are not held.
    @ivar isUp: whether it is set up and prepared.
    @ivar suspects: jobs that were taken back before it had begun any; it may be about to
        end by one of them, until it sends back the last echo.
    """

    def __init__(
        self,
        child: _Child,
        loop: LoopAdapter,
        outlet: Outlet,
        shared: SharedState,
        limit: int,
        delegate: CallDelegate[_Child],
        life: LifeDelegate[_Child],
    ) -> None:
        """
        @param outlet: the way to the child. Who reads what it sends calls L{deliver}.
        @param limit: how many bytes the arguments or the result of a call may have.
        @param delegate: is told what comes of calls.
        @param life: is told when the child is prepared.
        """
        self._child = child
        self._loop = loop
        self._send = outlet.send
        self._shared = shared
        self._limit = limit
        self._delegate = delegate
        self._life = life
        self.held: dict[int, Any] = {}
        self._open = OpenStreams(self._send)
        self.streams = self._open.sources
        self.given = 0
        self.isUp = False
        self.suspects: list[Any] = []
        self.preparing: dict[int, CallTuple] = {}
        self._prepared = 0
        self._takenBack = 0
        self._surroundings = Surroundings()
        self._told = Told(self._tell)
        self._callables = Callables(
            lambda name, pickled: self._send(Kind.DEFINE, name, pickled),
            lambda name: self._send(Kind.FORGET, name, b""),
            self._told,
        )
        self._known = self._callables.known
        self._large = min(_LARGE, limit)
        self._batch: list[tuple[int, bytes | None, int]] = []
        self._batchBytes = 0
        self._collecting = False
        self._flushing: Timer | None = None
        # By the numbers of the calls that were interrupted.
        self._graces: dict[int, Timer] = {}
        self._echo = 0
        self._measured = (0, 0.0)

    def prepare(self, setup: Setup) -> None:
        """
        Set the child up, and have it make calls before any other.

        @raise Exception: whatever the pickling of these raises.
        """
        self._send(Kind.SETUP, 0, pickle.dumps({"main": described(), "kept": setup.kept}))
        for callTuple in setup.preparations:
            self.preparing[self.make(None, *callTuple)] = callTuple
        self._prepared = len(setup.preparations)
        self.flush()
        self.held.clear()

    @property
    def made(self) -> int:
        """
        How many calls it has begun, or is to begin, without those that prepare it.
        """
        return self.given - self._prepared - self._takenBack

    def make(self, job: Any, f: Callable[..., Any], args: Any, kw: Any, raw: bool = False) -> int:
        """
        Have a call made, after those that were given before. A hot path.

        @param raw: whether an iterator is returned as it is, and not streamed.
        @return: the number of the call.
        @raise Exception: whatever the pickling of somebody's objects raises. Nothing
            was sent then.
        """
        held = self.held
        flags = RAW if raw else 0
        packed, buffers = None, _NO_BUFFERS
        if args or kw:
            packed, buffers = encodeCall(args, kw, self._told)
        known = self._known.get(f) if type(f) in HASHABLE else None
        if known is None or known.closure is not None:
            if type(f) is ClosedCall:
                flags |= CLOSED
                packed, buffers = f.packed, f.buffers
                f = f.f
            known = self._callables.find(f, next(iter(held)) if held else self.given + 1)
        # Only now: what pickles somebody's objects may have had another call made.
        number = known.lastUse = self.given + 1
        isDue = not held
        if packed is not None:
            size = len(packed)
            if buffers or size > self._large:
                checkSize(size + sum(buffer.raw().nbytes for buffer in buffers), self._limit)
                self.flush()
                self._tellSurroundings()
                self._send(
                    Kind.CALL, number, marshal.dumps((known.name, flags)), [packed, *buffers]
                )
                self.given = number
                held[number] = job
                return number
            self._batchBytes += size
            isDue = isDue or self._batchBytes > _BATCH_BYTES
        self.given = number
        held[number] = job
        batch = self._batch
        batch.append((known.name, packed, flags))
        if isDue or len(batch) >= _BATCH:
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
            self._send(CALLS, self.given - len(batch) + 1, marshal.dumps(batch))
            self._batch = []
            self._batchBytes = 0

    def takeBack(self) -> list[Any]:
        """
        Take back all calls that have not begun: they are never made.

        @return: their jobs, in order.
        """
        sent = self.given - len(self._batch)
        self._batch = []
        self._batchBytes = 0
        held = self.held
        if not held:
            return []
        begun = self._shared.revoke(self.given)
        numbers = [number for number in held if number > begun]
        suspects = [held[number] for number in numbers if number <= sent]
        jobs = [held.pop(number) for number in numbers]
        self._takenBack += len(jobs)
        if suspects and not held:
            self.suspects += suspects
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

    def hasBegun(self, number: int) -> bool:
        """
        Tell whether a call has begun, or may have.
        """
        return number <= self._shared.begun

    def interrupt(self, number: int, limit: float = 0.0) -> None:
        """
        Raise an exception in a call that runs.

        @param limit: the soft limit in seconds that it has exceeded; 0: it was
            cancelled.
        """
        if not self._child.isGone:
            self._shared.interrupt(number, limit)
            self._child.signal(INTERRUPT_SIGNAL)

    def end(self, number: int, grace: float, what: str) -> None:
        """
        Interrupt a call that runs, or the iterator that it has returned. If that does not end,
        kill the child.

        @param grace: the seconds that it has for that.
        @param what: what is to end, in words.
        """
        if self._child.isGone:
            return
        self.interrupt(number)

        def checkEnded() -> None:
            del self._graces[number]
            if number in self.held or number in self.streams:
                self._child.kill(f"{what} did not end within {grace:g} s")

        if number not in self._graces:
            self._graces[number] = self._callLater(grace, checkEnded)

    def isDeaf(self, number: int) -> bool:
        """
        Tell whether a call was to be interrupted, and the signal has not come there.
        """
        return not self._child.isGone and self._shared.isUnheard(number)

    def measure(self, measured: Callable[[int, float], None]) -> None:
        """
        Tell how many calls have ended since this was asked last, if any, and how many seconds
        they ran, all together. A hot path.
        """
        if not self._child.isGone:
            tasks, seconds = self._measured
            now = self._shared.measured()
            if now[0] != tasks:
                self._measured = now
                measured(now[0] - tasks, now[1] - seconds)

    # What comes

    def deliver(self, frames: Sequence[Frame]) -> None:
        """
        Tell what has come. A hot path.
        """
        held = self.held
        child = self._child
        returned = self._delegate.returned
        self._collecting = True
        for kind, number, body, buffers in frames:
            job = held.get(number)
            try:
                if kind == RETURNED and job is not None:
                    del held[number]
                    try:
                        value = pickle.loads(body, buffers=buffers) if body else None
                    except BaseException as error:
                        # Somebody's objects: whatever their unpickling raises.
                        self._delegate.raised(child, job, cannotDecode(error))
                    else:
                        returned(child, job, value)
                else:
                    self._heard(kind, number, body, buffers)
            except BaseException as error:
                # The seam to all that follows from a message.
                if job is not None:
                    # It may not have been told: then it ends with this child.
                    held.setdefault(number, job)
                child.fault(error)
        self._collecting = False
        if not self._child.isGone:
            self._child.guarded(self._batchRead)

    def _batchRead(self) -> None:
        self._delegate.onBatchRead(self._child)
        self.flush()

    def _heard(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> None:
        match kind:
            case Kind.RETURNED:
                if self.preparing:
                    self._notePrepared(number)
            case Kind.CLOSED_RETURNED:
                if number in self.held:
                    self._delegate.returned(
                        self._child, self.held.pop(number), Closed(body, buffers)
                    )
            case Kind.RAISED | Kind.CLOSED_RAISED:
                if number in self.held:
                    outcome = raisedThere(kind, body, buffers)
                    self._delegate.raised(self._child, self.held.pop(number), outcome)
                elif number in self.preparing:
                    what = describeCall(*self.preparing[number])
                    self._life.unfit(self._child, what, raisedThere(kind, body, buffers))
            case Kind.SKIPPED:
                if number in self.held:
                    self._takenBack += 1
                    self._delegate.handedBack([self.held.pop(number)])
            case Kind.ITERATOR | Kind.CLOSED_ITERATOR:
                self._iterating(kind, number, body, buffers)
            case (
                Kind.ITEMS
                | Kind.CLOSED_ITEMS
                | Kind.ITEM_FAILED
                | Kind.CLOSED_ITEM_FAILED
                | Kind.END
            ):
                self._open.heard(kind, number, body, buffers)
            case Kind.UP:
                self._notePrepared(0)
            case Kind.ECHO:
                if number == self._echo:
                    self.suspects.clear()
            case Kind.LOGGED | Kind.WARNED | Kind.PRINTED | Kind.TRACKED:
                replay(kind, body)
            case _:
                self._child.kill(f"it sent a frame of the unknown kind {kind}")

    def _notePrepared(self, number: int) -> None:
        """
        Note that the child is set up, or has made one of the calls that prepare it.
        """
        self.preparing.pop(number, None)
        if not self.preparing and not self.isUp:
            self.isUp = True
            self._life.up(self._child)

    def _iterating(self, kind: int, number: int, body: Any, first: Sequence[Any]) -> None:
        job = self.held.pop(number, None)
        if job is None:
            # A preparation: nobody takes its items.
            self._open.closeItems(number)
            self._notePrepared(number)
        else:
            source = self._open.open(kind, number, body, first)
            self._delegate.iterating(self._child, job, source)

    # The end

    def stopTimers(self) -> None:
        """
        Have nothing happen later.
        """
        for timer in (self._flushing, *self._graces.values()):
            if timer is not None:
                timer.cancel()

    # Within

    def _callLater(self, seconds: float, f: Callable[[], None]) -> Timer:
        return self._loop.callLater(seconds, partial(self._child.guarded, f))

    def _flushLater(self) -> None:
        self._flushing = None
        self.flush()
