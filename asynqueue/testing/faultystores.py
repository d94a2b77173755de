"""
A store with the faults that a test asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.stores.errors import StoreClosed, StoreError, StoreLost, StoreUnavailable
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.operations import Operation
from asynqueue.stores.records import StoreEvent

T = TypeVar("T")

_REASON = "the test wants it so"


class _Fault(Enum):
    """
    What becomes of an operation.
    """

    REFUSED = "refused"
    LOST = "lost"
    DELAYED = "delayed"
    UNANSWERED = "unanswered"


@define
class _Rule:
    """
    Which operations have a fault.

    @ivar left: how many more; C{None}: all, until L{FaultyStore.release}.
    """

    fault: _Fault
    kind: type[Operation[Any]]
    left: int | None


@implementer(IStore)
class FaultyStore:
    """
    Does what another store does, but for the faults that the test has asked for::

        store = FaultyStore(MemoryStore(clock))
        store.lose(Add)       # the next one is stored, and who has asked does not know

    What is said of operations applies to those of a kind, or to all. Of several faults that one
    could have, it has the one that was asked for first.

    @ivar asked: all operations that it was asked for, in their order.
    """

    def __init__(self, store: IStore) -> None:
        """
        @param store: what does the operations. It belongs to this one.
        """
        self.name: str = store.name
        self.isShared: bool = store.isShared
        self.asked: list[Operation[Any]] = []
        self._store = store
        self._rules: list[_Rule] = []
        self._isAway = False
        self._isStuck = False
        self._openings: list[StoreError] = []
        # What goes on when it is released.
        self._held: list[Callable[[], object]] = []
        # How many operations are being done whose answers will be lost.
        self._losing = 0
        self._listeners: tuple[Callable[[StoreEvent], Any], ...] = ()
        store.listen(self._relay)

    # What a test asks for

    def refuse(self, kind: type[Operation[Any]] = Operation, count: int = 1) -> None:
        """
        Have the next operations fail with L{StoreUnavailable}: they are not done, as if the
        connection was lost before the commit.
        """
        self._rules.append(_Rule(_Fault.REFUSED, kind, count))

    def lose(self, kind: type[Operation[Any]] = Operation, count: int = 1) -> None:
        """
        Have the next operations fail with L{StoreLost}, though they are done, as if the connection
        was lost after the commit. Listeners hear that anything may have changed.
        """
        self._rules.append(_Rule(_Fault.LOST, kind, count))

    def delay(self, kind: type[Operation[Any]] = Operation) -> None:
        """
        Have operations not be done before L{release}.
        """
        self._rules.append(_Rule(_Fault.DELAYED, kind, None))

    def hold(self, kind: type[Operation[Any]] = Operation) -> None:
        """
        Have operations be done, but not be answered before L{release}.
        """
        self._rules.append(_Rule(_Fault.UNANSWERED, kind, None))

    def holdClosing(self) -> None:
        """
        Have the store not be closed before L{release}.
        """
        self._isStuck = True

    def release(self) -> None:
        """
        Let what was delayed or held go on, in its order, and delay and hold no more.
        """
        self._rules = [rule for rule in self._rules if rule.left is not None]
        self._isStuck = False
        held, self._held = self._held, []
        for goOn in held:
            goOn()

    def goAway(self) -> None:
        """
        Have all fail with L{StoreUnavailable}, also to open the store, until L{comeBack}.
        """
        self._isAway = True

    def comeBack(self) -> None:
        """
        Be there again. Listeners hear that anything may have changed.
        """
        self._isAway = False
        self._tell(StoreEvent(isUnknown=True))

    def refuseToOpen(self, error: StoreError | None = None) -> None:
        """
        Have the store not be opened the next time.

        @param error: what that fails with; C{None}: L{StoreUnavailable}.
        """
        self._openings.append(self._unavailable() if error is None else error)

    # What a store does

    def open(self) -> Deferred[None]:
        """
        Open the store, unless that is to fail.
        """
        if self._isAway:
            return fail(self._unavailable())
        if self._openings:
            return fail(self._openings.pop(0))
        opened: Deferred[None] = self._store.open()
        return opened

    def do(self, operation: Operation[T]) -> Deferred[T]:
        """
        Do an operation, with the first fault that applies to it.
        """
        self.asked.append(operation)
        match _Fault.REFUSED if self._isAway else self._faultOf(operation):
            case _Fault.REFUSED:
                return fail(self._unavailable())
            case _Fault.LOST:
                self._losing += 1
                return self._asked(operation).addBoth(self._lost)
            case _Fault.DELAYED:
                delayed: Deferred[T] = Deferred()
                self._held.append(lambda: self._asked(operation).chainDeferred(delayed))
                return delayed
            case _Fault.UNANSWERED:
                unanswered: Deferred[T] = Deferred()
                done = self._asked(operation)
                self._held.append(lambda: done.chainDeferred(unanswered))
                return unanswered
        return self._asked(operation)

    def listen(self, listener: Callable[[StoreEvent], Any]) -> None:
        self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Callable[[StoreEvent], Any]) -> None:
        self._listeners = tuple(each for each in self._listeners if each != listener)

    def close(self) -> Deferred[None]:
        """
        Close the store, after all that is delayed or held.
        """
        closed: Deferred[None] = Deferred()
        if self._isStuck or self._held:
            self._held.append(lambda: self._store.close().chainDeferred(closed))
        else:
            self._store.close().chainDeferred(closed)
        return closed

    def _asked(self, operation: Operation[T]) -> Deferred[T]:
        done: Deferred[T] = self._store.do(operation)
        return done

    def _faultOf(self, operation: Operation[Any]) -> _Fault | None:
        for rule in self._rules:
            if isinstance(operation, rule.kind):
                if rule.left is not None:
                    rule.left -= 1
                    if rule.left == 0:
                        self._rules.remove(rule)
                return rule.fault
        return None

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(self.name, _REASON)

    def _lost(self, result: Any) -> Failure:
        self._losing -= 1
        if isinstance(result, Failure) and result.check(StoreClosed, StoreUnavailable):
            # It was not done.
            return result
        self._tell(StoreEvent(isUnknown=True))
        return Failure(StoreLost(self.name, _REASON))

    def _relay(self, event: StoreEvent) -> None:
        """
        Tell of a change, but not of which if it may belong to an answer that will be lost.
        """
        self._tell(StoreEvent(isUnknown=True) if self._losing else event)

    def _tell(self, event: StoreEvent) -> None:
        for listener in self._listeners:
            listener(event)
