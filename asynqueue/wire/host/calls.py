"""
The calls and iterators of one connection: a queue of this process makes the calls, and what
comes of them goes back::

    HostSession ── heard ──▶ HostCalls ── Intake ──▶ TaskQueue ─▶ its workers
                ◀── send ───           ◀─ callReturned, callFailed ─┘
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from twisted.python.failure import Failure

from asynqueue.codec import Closed, ClosedCall
from asynqueue.errors import (
    FrameInvalid,
    LocalProtocolError,
    NoSuchCallable,
    QueueRunError,
    RemoteProtocolError,
)
from asynqueue.failures import caught
from asynqueue.framing import Frame
from asynqueue.intake import Call, Intake, isQualified
from asynqueue.outcome import VALUES, cannotSend
from asynqueue.scheduling.options import CallOptions
from asynqueue.status import STATUS
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.catalog import Catalog, Definitions
from asynqueue.wire.host.items import checkedCredit, sendRaised
from asynqueue.wire.host.iterations import Iterations
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import CallFlag, MessageKind, unpackedCall, unpackedCount
from asynqueue.wire.transport.connection import Connection

# For hot paths: members of an enumeration are slow to look up.
CALL, RETURNED, RAISED = (
    int(kind) for kind in (MessageKind.CALL, MessageKind.RETURNED, MessageKind.RAISED)
)
_RAW, _THREAD, _WATCHED, _URGENT, _DEFINED = (
    int(flag)
    for flag in (CallFlag.RAW, CallFlag.THREAD, CallFlag.WATCHED, CallFlag.URGENT, CallFlag.DEFINED)
)
_FLAGS = _RAW | _THREAD | _WATCHED | _URGENT | _DEFINED

# While more bytes wait to be sent, no call begins, and no iterator gives items.
_MOST_BACKLOG = 64 << 20
_MOST_ITEMS_BACKLOG = 4 << 20

# Results of fewer bytes than this do not matter for that.
_WEIGHTY = 1 << 12


class HostCalls:
    """
    Makes the calls that come over one connection, which it answers, in a queue.

    @ivar connection: the open connection; C{None} before that, and when it is lost.
    @ivar isClosed: whether all calls that come are given back.
    @ivar isFaulty: whether those are that want no thread, since no worker can run them.
    """

    def __init__(
        self,
        queue: TaskQueue,
        catalog: Catalog,
        codec: Codec,
        *,
        series: str | None,
        threadSeries: str,
        most: int,
        status: Callable[[], Any],
        ended: Callable[[], None],
        reactor: Any,
    ) -> None:
        """
        @param queue: makes the calls.
        @param catalog: says what may be called.
        @param codec: reads and writes what is called with, and what comes of it.
        @param series: the series of the calls in the queue.
        @param threadSeries: the series of those that want a thread.
        @param most: how many calls without outcome, and iterators, there may be.
        @param status: gives what is answered to C{asynqueue status}.
        @param ended: is called when a call or an iterator may have been the last.
        @param reactor: the reactor; C{None} is the installed one.
        @raise ValueError: the catalog trusts code, and the codec sends none.
        """
        if catalog.trust == "code" and codec.name != "pickle":
            raise ValueError(f"trust='code' needs codec='pickle', not {codec.name!r}")
        self.connection: Connection | None = None
        self.isClosed = False
        self.isFaulty = False
        self._queue = queue
        self._catalog = catalog
        self._codec = codec
        # Pickles are opened where the call is made; what others write is harmless.
        self._isClosed = codec.name == "pickle"
        self._series = series
        self._threadSeries = threadSeries
        self._most = most
        self._status = status
        self._ended = ended
        self._definitions = Definitions(catalog.trust == "code")
        self._options = {flags: self._optionsOf(flags) for flags in range(_FLAGS + 1)}
        # The calls up to here were wanted back. A large one may come later than that.
        self._recalled = -1
        # The calls without outcome ...
        self._calls = Intake(queue, self)
        # ... the credit that their iterators will have, if they return such ...
        self._credits: dict[int, int] = {}
        # ... and the iterators that there are.
        self._iterations = Iterations(codec, self.say, ended, self._areItemsHeld, reactor)
        self._areCallsHeld = False

    def __len__(self) -> int:
        """
        Return how many calls without outcome, and iterators, there are.
        """
        return len(self._calls) + len(self._iterations)

    def heard(self, frames: Sequence[Frame]) -> None:
        """
        Take messages of the other side. A hot path.

        @raise RemoteProtocolError: it must not say that, or nobody understands it.
        """
        self._calls.unobserve()
        try:
            for kind, number, body, buffers in frames:
                if kind == CALL:
                    self._call(number, body, buffers)
                else:
                    self._control(kind, number, body, buffers)
        except FrameInvalid as error:
            raise RemoteProtocolError(str(error)) from error

    def say(self, kind: int, number: int, body: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """
        Send a message, if the connection is open.
        """
        if self.connection is None:
            return
        try:
            self.connection.send(kind, number, body, buffers)
        except LocalProtocolError:
            # It is being closed, and nobody hears of this; L{stop} follows.
            pass

    def giveBack(self, last: float = inf) -> None:
        """
        Give back those calls that the queue has not begun.

        @param last: the highest number of them.
        """
        for number in sorted(number for number in self._calls.keys if number <= last):
            if self._calls.takeBack(number):
                self._credits.pop(number, None)
                self.say(MessageKind.GIVEN_BACK, number)
        self._ended()

    def stop(self) -> None:
        """
        End all calls and iterators, and say nothing: the connection is lost.
        """
        self.connection = None
        self._calls.stop()
        self._iterations.stop()

    # Calls

    def _optionsOf(self, flags: int) -> CallOptions:
        return CallOptions(
            raw=bool(flags & _RAW),
            doNext=bool(flags & _URGENT),
            series=self._threadSeries if flags & _THREAD else self._series,
            returnFailure=True,
        )

    def _call(self, number: int, body: Any, buffers: Sequence[Any]) -> None:
        """
        Have a call made. A hot path.
        """
        if number in self._calls or number in self._iterations:
            raise RemoteProtocolError(f"two calls have the number {number}")
        flags, name, packed = unpackedCall(body)
        options = self._options.get(flags)
        if options is None:
            raise RemoteProtocolError(f"a call with flags {flags:#x}")
        if name == STATUS:
            self._tellStatus(number)
            return
        if self.isClosed or number <= self._recalled or (self.isFaulty and not flags & _THREAD):
            self.say(MessageKind.GIVEN_BACK, number)
            return
        if len(self._calls) + len(self._iterations) >= self._most:
            raise RemoteProtocolError(
                f"more than {self._most:,} calls and iterators at once are too many"
            )
        try:
            if flags & _DEFINED:
                f: Callable[..., Any] = self._definitions.defined(name)
            else:
                f = self._catalog.resolve(name)
            if flags & _THREAD:
                self._checkThreads(name)
            isWatched = bool(flags & _WATCHED)
            if self._isClosed:
                call = Call(ClosedCall(f, packed, buffers), (), {}, options, isWatched)
            else:
                call = Call(f, *self._codec.decodeCall(packed, buffers), options, isWatched)
            self._calls.make(number, call)
        except BaseException as error:
            # The seam to user code: what its arguments raise as they are read is an
            # outcome, an exit included.
            self.callRefused(number, error)

    def _checkThreads(self, name: str) -> None:
        workers = self._queue.workers(dialing=False)
        if not any(isQualified(worker, self._threadSeries) for worker in workers):
            raise NoSuchCallable(name, "this host has no threads: call it without thread=True")

    def _tellStatus(self, number: int) -> None:
        """
        Answer what C{asynqueue status} asks, without the queue.
        """
        try:
            self.say(RETURNED, number, *self._codec.encode(self._status()))
        except Exception:
            # Whatever the machine does not tell, or somebody's workers raise.
            sendRaised(self.say, self._codec, RAISED, number, Failure())

    # IntakeDelegate

    def callReturned(self, number: int, value: Any) -> None:
        """
        Say what a call has returned. A hot path.
        """
        isClosed = type(value) is Closed
        if type(value) not in VALUES and not isClosed:
            credit = self._credits.pop(number, 0)
            if self._iterations.begin(number, value, credit):
                return
        try:
            body, buffers = value if isClosed else self._codec.encode(value)
            self.say(RETURNED, number, body, buffers)
        except BaseException as error:
            # Somebody's objects, or too many of them: whatever that raises.
            failure = Failure(cannotSend(error, value))
            sendRaised(self.say, self._codec, RAISED, number, failure)
        else:
            if buffers or len(body) > _WEIGHTY:
                self._checkBacklog()
        if self._credits:
            self._credits.pop(number, None)
        if self.isClosed:
            self._ended()

    def callFailed(self, number: int, failure: Failure) -> None:
        """
        Say that a call has failed.
        """
        self._credits.pop(number, None)
        sendRaised(self.say, self._codec, RAISED, number, failure)
        self._checkBacklog()
        self._ended()

    def callRefused(self, number: int, error: BaseException) -> None:
        """
        Give a call back that cannot be made if the queue takes none, and else say why.
        """
        if isinstance(error, QueueRunError) and not self._queue.isRunning():
            self.say(MessageKind.GIVEN_BACK, number)
        else:
            sendRaised(self.say, self._codec, RAISED, number, caught(error))

    def callBegun(self, number: int) -> None:
        """
        Say that a call begins whose beginning the other side wants to know.
        """
        self.say(MessageKind.BEGUN, number)

    # What else the other side says

    def _control(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> None:
        match kind:
            case MessageKind.CREDIT:
                self._grant(number, unpackedCount(body))
            case MessageKind.CLOSE:
                self._close(number)
            case MessageKind.CANCEL:
                self._cancel(number)
            case MessageKind.RECALL:
                self._recalled = max(self._recalled, number)
                self.giveBack(number)
            case MessageKind.DEFINE:
                self._definitions.define(number, bytes(body))
            case MessageKind.FORGET:
                self._definitions.forget(number)
            case _:
                raise RemoteProtocolError(f"a queue does not send messages of kind {kind}")

    def _grant(self, number: int, count: int) -> None:
        if not self._iterations.grant(number, count) and number in self._calls:
            self._credits[number] = checkedCredit(self._credits.get(number, 0) + count)

    def _close(self, number: int) -> None:
        if self._iterations.close(number):
            self._ended()

    def _cancel(self, number: int) -> None:
        if self._calls.cancel(number):
            self._credits.pop(number, None)
            self.say(MessageKind.CANCELLED, number)
            self._ended()
        else:
            self._close(number)

    # What waits until the other side reads

    def _checkBacklog(self) -> None:
        """
        Results that nobody reads must not fill the memory: begin no calls meanwhile.
        """
        connection = self.connection
        if self._areCallsHeld or connection is None or connection.backlog <= _MOST_BACKLOG:
            return
        self._areCallsHeld = True
        self._calls.hold()
        connection.whenEased(_MOST_BACKLOG // 2, self._goOn)

    def _goOn(self) -> None:
        self._areCallsHeld = False
        if self.connection is not None:
            self._calls.admit(max(1, self._queue.slots(self._series)))

    def _areItemsHeld(self, goOn: Callable[[], None]) -> bool:
        """
        Tell whether iterators must give nothing now. If so, C{goOn} is called when they may.
        """
        connection = self.connection
        if connection is None or connection.backlog <= _MOST_ITEMS_BACKLOG:
            return False
        connection.whenEased(_MOST_ITEMS_BACKLOG // 2, goOn)
        return True
