"""
A store: the one door between a reactor and an engine that may block.

::

    reactor:  do ─▶ asked (under a lock) ──┐              ┌─▶ listeners, then Deferreds
              one job for all that gathers ▼              │
    thread:         take what has gathered ─▶ execute: one transaction ─▶ take again

While the engine commits, operations gather; the next transaction has all of them. So there is no
timer: an operation that is alone is done at once, and many share what a commit costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from enum import Enum
from threading import Lock
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from zope.interface import implementer

from asynqueue.forks import tellForks
from asynqueue.reactors import checkedReactor, theReactor
from asynqueue.stores.errors import (
    OperationFailed,
    StoreClosed,
    StoreError,
    StoreLost,
    StoreUnavailable,
)
from asynqueue.stores.interfaces import Engine, IStore, TellingEngine
from asynqueue.stores.operations import Add, End, Ended, Operation
from asynqueue.stores.records import StoreEvent
from asynqueue.stores.thread import Runner, ThreadRunner
from asynqueue.timers import Timer, later

_log = Logger()

T = TypeVar("T")

# The most operations, and about the most bytes, of one transaction. An operation that has more
# bytes has a transaction of its own.
_MOST_OPERATIONS = 1_000
_MOST_BYTES = 8_000_000

# After how many seconds a store that is being closed is given up.
_PATIENCE = 30.0

_NOTHING = StoreEvent()


class _Life(Enum):
    """
    How far a store has come. One that is stuck was given up as it was closed: its thread has not
    come back.
    """

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    STUCK = "stuck"


@frozen
class StoreStatistics:
    """
    How a store stands.

    @ivar state: C{"closed"}, C{"opening"}, C{"open"}, C{"closing"} or C{"stuck"}.
    @ivar asked: how many operations wait for an answer.
    @ivar done: how many have had one.
    @ivar transactions: in how many transactions that was.
    """

    state: str
    asked: int
    done: int
    transactions: int


class _Asked:
    """
    An operation, and whom to tell.
    """

    __slots__ = ("d", "operation")

    def __init__(self, operation: Operation[Any]) -> None:
        self.operation = operation
        self.d: Deferred[Any] = Deferred()


_Batch = list[_Asked]


@implementer(IStore)
class Store:
    """
    Has an engine do operations, many in one transaction, without blocking the reactor.

    When one of them makes the engine fail with all, they are done again one by one, so that the
    others do not suffer.
    """

    def __init__(
        self,
        engine: Engine,
        runner: Runner | None = None,
        *,
        reactor: Any = None,
        patience: float = _PATIENCE,
    ) -> None:
        """
        @param engine: what does the operations. It belongs to this store.
        @param runner: what calls the engine; C{None}: a thread.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when the store
            is opened.
        @param patience: after how many seconds L{close} gives up an engine that does not come
            back.
        """
        self.name = engine.name
        self.isShared = engine.isShared
        self._engine = engine
        self._reactor = checkedReactor(reactor)
        self._runner = runner or ThreadRunner(f"asynqueue {engine.name}", reactor)
        self._patience = patience
        self._life = _Life.CLOSED
        self._lock = Lock()
        # Under the lock: what waits for a transaction, and whether the runner looks after it.
        self._asked: deque[_Asked] = deque()
        self._isServed = False
        # What the runner has taken, and the reactor has not heard of.
        self._taken: deque[_Batch] = deque()
        self._listeners: tuple[Callable[[StoreEvent], Any], ...] = ()
        self._opening: list[Deferred[None]] = []
        self._closing: list[Deferred[None]] = []
        self._givingUp = Timer(lambda seconds, f: later(theReactor(self._reactor), seconds, f))
        self._done = self._transactions = 0
        tellForks(self)
        if isinstance(engine, TellingEngine):
            engine.subscribe(lambda event: self._runner.answer(self._toldByOthers, event))

    def __repr__(self) -> str:
        return f"<Store {self.name}: {self._life.value}>"

    def forked(self) -> None:
        """
        Let go of what is the parent's; the store can be opened anew. Those who wait are the
        parent's, too.
        """
        self._lock = Lock()
        self._isServed = False
        self._asked, self._taken = deque(), deque()
        self._opening, self._closing = [], []
        self._life = _Life.CLOSED

    def statistics(self) -> StoreStatistics:
        """
        Return how the store stands.
        """
        with self._lock:
            waiting = len(self._asked) + sum(map(len, self._taken))
        return StoreStatistics(self._life.value, waiting, self._done, self._transactions)

    # In the reactor's thread.

    def open(self) -> Deferred[None]:
        """
        Open the store. One that is open already stays so; one that is being closed is opened after
        that.
        """
        if self._life is _Life.OPEN:
            return succeed(None)
        if self._life is _Life.STUCK:
            return fail(
                StoreUnavailable(self.name, "what it did when it was closed has not come back yet")
            )
        d: Deferred[None] = Deferred()
        if self._life is _Life.CLOSING:
            closed: Deferred[None] = Deferred()
            self._closing.append(closed)
            closed.addCallback(lambda _: self.open()).chainDeferred(d)
            return d
        self._opening.append(d)
        if self._life is _Life.CLOSED:
            self._life = _Life.OPENING
            try:
                self._runner.do(self._openEngine)
            except RuntimeError as error:
                self._opened(StoreUnavailable(self.name, str(error)))
        return d

    def do(self, operation: Operation[T]) -> Deferred[T]:
        if self._life is not _Life.OPEN:
            return fail(StoreClosed(self.name))
        asked = _Asked(operation)
        with self._lock:
            self._asked.append(asked)
            isServed, self._isServed = self._isServed, True
        if not isServed:
            self._runner.do(self._serve)
        return asked.d

    def listen(self, listener: Callable[[StoreEvent], Any]) -> None:
        self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Callable[[StoreEvent], Any]) -> None:
        self._listeners = tuple(each for each in self._listeners if each != listener)

    def tell(self, event: StoreEvent) -> None:
        """
        Call the listeners, with something that was learned in another way.
        """
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                # The seam to their code: what one raises harms neither the others nor the store.
                _log.failure("a listener of {store} has failed", store=self.name)

    def _toldByOthers(self, event: StoreEvent) -> None:
        if self._life in (_Life.OPENING, _Life.OPEN, _Life.CLOSING):
            self.tell(event)

    def close(self) -> Deferred[None]:
        """
        Close the store. Where the engine does not come back in time, what it was doing fails with
        L{StoreLost}, what waited for that with L{StoreUnavailable}, and its thread is left alone.
        """
        if self._life in (_Life.CLOSED, _Life.STUCK):
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._closing.append(d)
        if self._life is not _Life.CLOSING:
            self._life = _Life.CLOSING
            # The runner makes its calls in order: what was asked before is done then.
            self._runner.do(self._closeEngine)
            if not d.called:
                self._givingUp.start(self._patience, self._giveUp)
        return d

    def _opened(self, error: StoreError | None) -> None:
        if self._life is _Life.STUCK:
            return
        if self._life is _Life.OPENING:
            self._life = _Life.OPEN if error is None else _Life.CLOSED
            if error is not None:
                self._runner.stop()
        elif error is None:
            # It is closed already.
            error = StoreClosed(self.name)
        self._fireOpening(error)

    def _fireOpening(self, error: StoreError | None) -> None:
        opening, self._opening = self._opening, []
        for d in opening:
            if error is None:
                d.callback(None)
            else:
                d.errback(copy(error))

    def _answer(self, batch: _Batch, answers: Sequence[Any], event: StoreEvent) -> None:
        if not self._taken or self._taken[0] is not batch:
            # It has failed as the store was given up, or belongs to a parent.
            return
        self._taken.popleft()
        self._transactions += 1
        self._done += len(batch)
        if event != _NOTHING:
            self.tell(event)
        for asked, answer in zip(batch, answers, strict=True):
            if isinstance(answer, StoreError):
                # Each has its own, as a traceback is added where it is raised.
                asked.d.errback(copy(answer))
            else:
                asked.d.callback(answer)

    def _closed(self) -> None:
        self._givingUp.stop()
        self._life = _Life.CLOSED
        self._runner.stop()
        self._fireClosing()

    def _fireClosing(self) -> None:
        closing, self._closing = self._closing, []
        for d in closing:
            d.callback(None)

    def _giveUp(self) -> None:
        self._life = _Life.STUCK
        reason = f"it did not come back in the {self._patience:g} s it had to close"
        lost, unavailable = StoreLost(self.name, reason), StoreUnavailable(self.name, reason)
        with self._lock:
            taken, self._taken = self._taken, deque()
            asked, self._asked = self._asked, deque()
        self._fireOpening(unavailable)
        for batch in taken:
            for each in batch:
                each.d.errback(copy(lost))
        for each in asked:
            each.d.errback(copy(unavailable))
        self._fireClosing()

    # Where the runner calls it.

    def _openEngine(self) -> None:
        error: StoreError | None = None
        try:
            self._engine.open()
        except StoreError as raised:
            error = raised
        except BaseException as raised:
            # The seam to the engine: who opens the store hears of it, and the thread lives on.
            _log.failure("{store} has failed as it was opened", store=self.name)
            error = StoreUnavailable(self.name, _inWords(raised))
        if error is not None:
            self._release()
        self._runner.answer(self._opened, error)

    def _closeEngine(self) -> None:
        self._release()
        self._runner.answer(self._closed)

    def _release(self) -> None:
        try:
            self._engine.close()
        except BaseException:
            # The seam to the engine: who closes the store has no use for its error.
            _log.failure("{store} has failed as it was closed", store=self.name)

    def _serve(self) -> None:
        """
        Do what gathers, until there is nothing more.
        """
        while batch := self._take():
            self._runner.answer(self._answer, batch, *self._executed(batch))

    def _take(self) -> _Batch:
        batch: _Batch = []
        size = 0
        with self._lock:
            while self._asked and len(batch) < _MOST_OPERATIONS:
                size += _bytesOf(self._asked[0].operation)
                if batch and size > _MOST_BYTES:
                    break
                batch.append(self._asked.popleft())
            if batch:
                self._taken.append(batch)
            else:
                self._isServed = False
        return batch

    def _executed(self, batch: _Batch) -> tuple[Sequence[Any], StoreEvent]:
        try:
            return self._engine.execute([asked.operation for asked in batch])
        except StoreUnavailable as error:
            return [error] * len(batch), _NOTHING
        except StoreLost as error:
            return [error] * len(batch), StoreEvent(isUnknown=True)
        except Exception as error:
            # The seam to the engine: nothing was done, because of one of the operations.
            if len(batch) == 1:
                return [self._refusal(batch[0].operation, error)], _NOTHING
        except BaseException as error:
            # The same, in the midst of anything.
            _log.failure("{store} was interrupted", store=self.name)
            lost = StoreLost(self.name, _inWords(error))
            return [lost] * len(batch), StoreEvent(isUnknown=True)
        return self._oneByOne(batch)

    def _oneByOne(self, batch: _Batch) -> tuple[Sequence[Any], StoreEvent]:
        """
        Give each operation a transaction of its own, so that only that one fails which cannot be
        done. Once the engine is away, the rest does not wait until it is back.
        """
        answers: list[Any] = []
        events = []
        for asked in batch:
            [answer], event = self._executed([asked])
            answers.append(answer)
            events.append(event)
            if isinstance(answer, StoreUnavailable | StoreLost):
                away = StoreUnavailable(self.name, answer.reason)
                answers += [away] * (len(batch) - len(answers))
                break
        return answers, _merged(events)

    def _refusal(self, operation: Operation[Any], error: Exception) -> StoreError:
        if isinstance(error, StoreError):
            return error
        _log.failure(
            "{store} cannot do {operation}", store=self.name, operation=type(operation).__name__
        )
        return OperationFailed(self.name, type(operation).__name__, _inWords(error))


def _inWords(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _bytesOf(operation: Operation[Any]) -> int:
    """
    Return about how many bytes an operation has to store.
    """
    match operation:
        case Add(jobs):
            return sum(len(job.payload) for job in jobs)
        case End(_, ends):
            return sum(
                len(end.outcome.value or b"") + len(end.outcome.error or b"")
                for end in ends
                if isinstance(end, Ended)
            )
    return 0


def _merged(events: Sequence[StoreEvent]) -> StoreEvent:
    """
    Return one event that says what several say.
    """
    return StoreEvent(
        tuple(dict.fromkeys(flow for event in events for flow in event.flows)),
        tuple(id for event in events for id in event.ended),
        tuple(id for event in events for id in event.stopping),
        any(event.hasLater for event in events),
        any(event.isUnknown for event in events),
    )
