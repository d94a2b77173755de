"""
The host's side of a connection: calls that come are made by a queue of this process, and
what comes of them goes back::

    connection ── received ──▶ Host ── callWith ──▶ TaskQueue ─▶ its workers
               ◀──── send ────      ◀── Deferred ──
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

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
from asynqueue.status import STATUS, statusOf
from asynqueue.taskqueue import TaskQueue
from asynqueue.wire.host.catalog import Catalog, Definitions
from asynqueue.wire.host.iterations import Iterations, checkedCredit, sendRaised
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import Flag, Kind, packedFault, unpackedCall, unpackedCount
from asynqueue.workers.waiters import Waiters

_log = Logger()

# For hot paths: members of an enumeration are slow to look up.
CALL, RETURNED, RAISED = (int(kind) for kind in (Kind.CALL, Kind.RETURNED, Kind.RAISED))
_RAW, _THREAD, _WATCHED, _URGENT, _DEFINED = (
    int(flag) for flag in (Flag.RAW, Flag.THREAD, Flag.WATCHED, Flag.URGENT, Flag.DEFINED)
)
_FLAGS = _RAW | _THREAD | _WATCHED | _URGENT | _DEFINED

# While so many bytes wait to be sent, no call begins; and no iterator gives items while
# there are so many.
_MOST_BACKLOG = 64 << 20
_MOST_ITEMS_BACKLOG = 4 << 20

# Results of fewer bytes than this do not matter for that.
_WEIGHTY = 1 << 12


# What is said of workers that can run calls.
_WELL = ("", False)


class _Life(Enum):
    SERVING = "takes calls"
    LEAVING = "takes none, and the other side may not know that yet"
    PARTED = "gets none any more"
    CLOSING = "has nothing left to do"
    GONE = "has no connection"


# By a name, for each call: see L{asynqueue.outcome.ITERATOR}.
_SERVING = _Life.SERVING


class Host:
    """
    Makes the calls that come over one connection, which it owns, in a queue.

    @ivar error: why the connection was lost, once it was.
    """

    def __init__(
        self,
        queue: TaskQueue,
        catalog: Catalog,
        *,
        codec: Codec,
        ended: Callable[[Host], None],
        series: str | None = None,
        threadSeries: str = "thread",
        qualified: Sequence[str] = (),
        most: int = 10_000,
        reactor: Any = None,
    ) -> None:
        """
        @param queue: makes the calls.
        @param catalog: says what may be called.
        @param codec: reads and writes what is called with, and what comes of it.
        @param ended: is called with this host when its connection is lost and nothing
            of it is left.
        @param series: the series of the calls in the queue.
        @param threadSeries: the series of those that want a thread.
        @param qualified: for which series the queue on the other side may take this
            host, besides C{None}.
        @param most: how many calls without outcome, and iterators, the other side may
            have here; with more, the connection is aborted.
        @param reactor: the reactor; C{None} is the installed one.
        @raise ValueError: the catalog trusts code, and the codec sends none.
        """
        if catalog.trust == "code" and codec.name != "pickle":
            raise ValueError(f"trust='code' needs codec='pickle', not {codec.name!r}")
        self.error: Exception | None = None
        self._queue = queue
        self._catalog = catalog
        self._codec = codec
        self._ended = ended
        self._series = series
        self._threadSeries = threadSeries
        self._qualified = list(qualified)
        self._most = most
        self._definitions = Definitions(catalog.trust == "code", codec.decode)
        self._options = {flags: self._optionsOf(flags) for flags in range(_FLAGS + 1)}
        self._connection: Any = None
        self._life = _Life.SERVING
        # The calls up to here were wanted back. A large one may come later than that.
        self._recalled = -1
        self._slots: int | None = None
        # Why the workers can run nothing, and whether there is no hope, as was said.
        self._fault = _WELL
        # The calls without outcome ...
        self._calls = Intake(queue, self)
        # ... the credit that their iterators will have, if they return such ...
        self._credits: dict[int, int] = {}
        # ... and the iterators that there are.
        self._iterations = Iterations(
            codec, self._say, self._checkLeft, self._areItemsHeld, reactor
        )
        self._areCallsHeld = False
        self._drained = Waiters()
        self._unwatch: Callable[[], None] = lambda: None

    # For who has the connection

    @property
    def held(self) -> int:
        """
        How many calls without outcome, and iterators, there are.
        """
        return len(self._calls) + len(self._iterations)

    def about(self) -> dict[str, Any]:
        """
        What the other side is told of this host as the connection opens.
        """
        self._slots = self._queue.slots(self._series)
        return {
            "slots": self._slots,
            "trust": self._catalog.trust,
            "series": list(self._qualified),
            "names": list(self._catalog.names),
        }

    def capacityChanged(self) -> None:
        """
        Workers of the queue came or went, or one runs more at once than before: tell the
        other side, if that changes how many calls can run at once. The host looks by
        itself when workers come and go, and whenever messages come.
        """
        slots = self._queue.slots(self._series)
        if slots and slots == self._slots:
            return
        fault = _WELL if slots else self._queue.faultOf(self._series)
        if self._connection is not None and (slots, fault) != (self._slots, self._fault):
            self._slots = slots
            self._fault = fault
            self._say(Kind.CAPACITY, slots, packedFault(*fault))
            if fault[0]:
                # Others may run them meanwhile.
                self._giveBack(sorted(self._calls.keys))

    def _workersChanged(self) -> None:
        """
        Workers of the queue came or went, or can run nothing for now, or can again. That
        there is no hope is said each time: for calls that the other side has queued since.
        """
        if self._fault[1]:
            self._fault = _WELL
        self.capacityChanged()

    def drain(self, reason: str = "") -> Deferred[None]:
        """
        Take no more calls, give back those that have not begun, and end the rest. It is
        the other side that closes the connection, when it has heard of all its calls: some
        may be on their way here. May be called more than once.

        @param reason: what the other side is told.
        @return: a Deferred that fires when the connection is gone.
        """
        if self._life is _Life.GONE:
            return succeed(None)
        waiter = self._drained.wait()
        if self._life is _Life.SERVING:
            self._life = _Life.LEAVING
            if self._connection is not None:
                self._connection.goodbye(reason)
                self._giveBack(sorted(self._calls.keys))
        return waiter

    # ConnectionOwner

    def opened(self, connection: Any) -> None:
        """
        The other side is proven, and may call.
        """
        self._connection = connection
        self._unwatch = self._queue.watchWorkers(self._workersChanged)
        if self._life is _Life.LEAVING:
            connection.goodbye("")
        else:
            self.capacityChanged()

    def received(self, connection: Any, frames: Sequence[Frame]) -> None:
        """
        Messages have come. A hot path.

        @raise RemoteProtocolError: the other side says what it must not say, or what nobody
            understands.
        """
        if connection is not self._connection:
            return
        self._calls.unobserve()
        try:
            for kind, number, body, buffers in frames:
                if kind == CALL:
                    self._call(number, body, buffers)
                else:
                    self._control(kind, number, body, buffers)
        except FrameInvalid as error:
            raise RemoteProtocolError(str(error)) from error
        self.capacityChanged()

    def leaving(self, connection: Any, reason: str) -> None:
        """
        The other side sends no more calls.
        """
        if self._life in (_Life.SERVING, _Life.LEAVING):
            self._life = _Life.PARTED
        self._checkLeft()

    def lost(self, connection: Any, error: Exception) -> None:
        """
        Nobody will hear of what is done here: end it.
        """
        if self._life is _Life.GONE:
            return
        self._life = _Life.GONE
        self._connection = None
        self._unwatch()
        self.error = error
        self._calls.stop()
        self._iterations.stop()
        self._drained.fire()
        self._ended(self)

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
        if (
            self._life is not _SERVING
            or number <= self._recalled
            or (self._fault[0] and not flags & _THREAD)
        ):
            self._say(Kind.GIVEN_BACK, number)
            return
        if len(self._calls) + len(self._iterations) >= self._most:
            raise RemoteProtocolError(
                f"more than {self._most:,} calls and iterators at once are too many"
            )
        try:
            if flags & _DEFINED:
                f = self._definitions.defined(name)
            else:
                f = self._catalog.resolve(name)
            if flags & _THREAD:
                self._checkThreads(name)
            args, kw = self._codec.decodeCall(packed, buffers)
            isWatched = bool(flags & _WATCHED)
            self._calls.make(number, Call(f, args, kw, options, isWatched))
        except BaseException as error:
            # The seam to user code: what its arguments raise as they are read is an
            # outcome, an exit included.
            self.callRefused(number, error)

    def _checkThreads(self, name: str) -> None:
        workers = self._queue.workers(dialing=False)
        if not any(isQualified(worker, self._threadSeries) for worker in workers):
            raise NoSuchCallable(name, "this host has no threads: thread=True is not for it")

    def _tellStatus(self, number: int) -> None:
        """
        Answer what C{asynqueue status} asks, without the queue.
        """
        try:
            status = statusOf(
                self._queue,
                slots=self._queue.slots(self._series),
                series=self._qualified,
                trust=self._catalog.trust,
                held=self.held,
                names=self._catalog.names,
            )
            self._say(RETURNED, number, *self._codec.encode(status))
        except Exception:
            # Whatever the machine does not tell, or somebody's workers raise.
            sendRaised(self._say, self._codec, RAISED, number, Failure())

    # IntakeDelegate

    def callReturned(self, number: int, value: Any) -> None:
        """
        A call has returned: say what. A hot path.
        """
        if type(value) not in VALUES:
            credit = self._credits.pop(number, 0)
            if self._iterations.begin(number, value, credit):
                return
        try:
            body, buffers = self._codec.encode(value)
            self._say(RETURNED, number, body, buffers)
        except BaseException as error:
            # Somebody's objects, or too many of them: whatever that raises.
            failure = Failure(cannotSend(error, value))
            sendRaised(self._say, self._codec, RAISED, number, failure)
        else:
            if buffers or len(body) > _WEIGHTY:
                self._checkBacklog()
        if self._credits:
            self._credits.pop(number, None)
        if self._life is not _SERVING:
            self._checkLeft()

    def callFailed(self, number: int, failure: Failure) -> None:
        """
        A call has failed.
        """
        self._credits.pop(number, None)
        sendRaised(self._say, self._codec, RAISED, number, failure)
        self._checkBacklog()
        self._checkLeft()

    def callRefused(self, number: int, error: BaseException) -> None:
        """
        A call cannot be made: give it back if the queue takes none, and else say why.
        """
        if isinstance(error, QueueRunError) and not self._queue.isRunning():
            self._say(Kind.GIVEN_BACK, number)
        else:
            sendRaised(self._say, self._codec, RAISED, number, caught(error))

    def callBegun(self, number: int) -> None:
        """
        A call begins whose beginning the other side wants to know.
        """
        self._say(Kind.BEGUN, number)

    # What else the other side says

    def _control(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> None:
        match kind:
            case Kind.CREDIT:
                self._grant(number, unpackedCount(body))
            case Kind.CLOSE:
                self._close(number)
            case Kind.CANCEL:
                self._cancel(number)
            case Kind.RECALL:
                self._recalled = max(self._recalled, number)
                self._giveBack(sorted(n for n in self._calls.keys if n <= number))
            case Kind.DEFINE:
                self._definitions.define(number, bytes(body))
            case Kind.FORGET:
                self._definitions.forget(number)
            case _:
                raise RemoteProtocolError(f"a queue does not send messages of kind {kind}")

    def _grant(self, number: int, count: int) -> None:
        if not self._iterations.grant(number, count) and number in self._calls:
            self._credits[number] = checkedCredit(self._credits.get(number, 0) + count)

    def _close(self, number: int) -> None:
        if self._iterations.close(number):
            self._checkLeft()

    def _cancel(self, number: int) -> None:
        if self._calls.cancel(number):
            self._credits.pop(number, None)
            self._say(Kind.CANCELLED, number)
            self._checkLeft()
        else:
            self._close(number)

    def _giveBack(self, numbers: list[int]) -> None:
        """
        Give back those of these calls that the queue has not begun.
        """
        for number in numbers:
            if self._calls.takeBack(number):
                self._credits.pop(number, None)
                self._say(Kind.GIVEN_BACK, number)
        self._checkLeft()

    # What waits until the other side reads

    def _checkBacklog(self) -> None:
        """
        Results that nobody reads must not fill the memory: begin no calls meanwhile.
        """
        connection = self._connection
        if self._areCallsHeld or connection is None or connection.backlog <= _MOST_BACKLOG:
            return
        self._areCallsHeld = True
        self._calls.hold()
        connection.whenEased(_MOST_BACKLOG // 2, self._goOn)

    def _goOn(self) -> None:
        self._areCallsHeld = False
        if self._life is not _Life.GONE:
            self._calls.admit(max(1, self._queue.slots(self._series)))

    def _areItemsHeld(self, goOn: Callable[[], None]) -> bool:
        """
        Whether iterators must give nothing now. If so, C{goOn} is called when they may.
        """
        connection = self._connection
        if connection is None or connection.backlog <= _MOST_ITEMS_BACKLOG:
            return False
        connection.whenEased(_MOST_ITEMS_BACKLOG // 2, goOn)
        return True

    # Within

    def _say(self, kind: int, number: int, body: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        if self._connection is None:
            return
        try:
            self._connection.send(kind, number, body, buffers)
        except LocalProtocolError:
            # It is being closed, and nobody hears of this; L{lost} follows.
            pass

    def _checkLeft(self) -> None:
        """
        The other side sends no more calls: close the connection when all have ended.
        """
        if self._life is _Life.PARTED and self._connection is not None and not self.held:
            self._life = _Life.CLOSING
            self._connection.close()
