"""
L{Store}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue.stores.errors import (
    OperationFailed,
    StoreClosed,
    StoreError,
    StoreLost,
    StoreUnavailable,
)
from asynqueue.stores.operations import Add, End, Ended, Nodes, Operation, Pause
from asynqueue.stores.records import Attempt, Flow, JobState, NewJob, Outcome, StoreEvent
from asynqueue.stores.store import Store
from asynqueue.stores.thread import DirectRunner
from tests.doubles import Heard, errorOf, readingLogs, resultOf
from tests.engines import TellingToldEngine, ToldEngine

CHANGE = StoreEvent(flows=(Flow("a"),), ended=("1",))


class Held:
    """
    A store whose engine does something only when the test lets it.
    """

    def __init__(self) -> None:
        self.engine = ToldEngine()
        self.runner = DirectRunner()
        self.clock = Clock()
        self.store = Store(self.engine, self.runner, reactor=self.clock, patience=30)

    def opened(self) -> Held:
        """
        Open the store, and hold what it does next.
        """
        self.runner.isHeld = False
        resultOf(self.store.open())
        self.runner.isHeld = True
        return self

    def do(self, *names: str) -> list[Heard]:
        """
        Ask for something for each name.
        """
        return [Heard(self.store.do(Pause(name))) for name in names]


def refusing(
    name: str, error: Exception, then: Callable[[Operation[Any]], Any] = lambda operation: operation
) -> Callable[[Any], Any]:
    """
    What fails a transaction that has the pause of a series.
    """

    def answer(operation: Any) -> Any:
        if operation.series == name:
            raise error
        return then(operation)

    return answer


def test_answersOneOperation() -> None:
    """
    An operation is done, and its Deferred fires with the answer.
    """
    held = Held().opened()
    [heard] = held.do("a")
    held.runner.step()
    assert heard.result == Pause("a")


def test_gathersWhatComesMeanwhile() -> None:
    """
    What is asked before the engine is free is one transaction, in the order in which it was asked.
    """
    held = Held().opened()
    heard = held.do("a", "b", "c")
    held.runner.step()
    assert held.engine.transactions == [[Pause("a"), Pause("b"), Pause("c")]]
    assert [each.result for each in heard] == [Pause("a"), Pause("b"), Pause("c")]


def test_doesNextWhatComesAsOneIsAnswered() -> None:
    """
    What is asked when an answer comes is done without being asked for again.
    """
    held = Held().opened()
    later: list[Heard] = []
    held.store.do(Pause("a")).addCallback(lambda _: later.extend(held.do("b")))
    held.runner.step()
    assert later[0].result == Pause("b")


def test_transactionsHaveBoundedCounts() -> None:
    """
    A transaction has at most 1,000 operations.
    """
    held = Held().opened()
    held.do(*["a"] * 2_100)
    held.runner.step()
    assert [len(each) for each in held.engine.transactions] == [1000, 1000, 100]


@pytest.mark.parametrize(
    "operation",
    [
        Add((NewJob(id="1", name="a:b", payload=bytes(3_000_000)),)),
        End("n", (Ended(Attempt("1", 1), Outcome(kind=JobState.DONE, value=bytes(3_000_000))),)),
        End("n", (Ended(Attempt("1", 1), Outcome(kind=JobState.FAILED, error=bytes(3_000_000))),)),
    ],
    ids=["payload", "value", "error"],
)
def test_transactionsHaveBoundedBytes(operation: Operation[Any]) -> None:
    """
    A transaction has at most about 8 MB to store.
    """
    held = Held().opened()
    heard = [Heard(held.store.do(operation)) for _ in range(5)]
    held.runner.step()
    assert [len(each) for each in held.engine.transactions] == [2, 2, 1]
    assert all(each.results for each in heard)


def test_anOperationOfAnySizeIsDone() -> None:
    """
    One with more bytes than a transaction should have has one of its own.
    """
    held = Held().opened()
    held.store.do(Add((NewJob(id="1", name="a:b", payload=bytes(9_000_000)),)))
    held.do("a")
    held.runner.step()
    assert [len(each) for each in held.engine.transactions] == [1, 1]


def test_listenersHearFirst() -> None:
    """
    A listener hears of a change before the Deferred fires.
    """
    held = Held().opened()
    held.engine.event = CHANGE
    order: list[Any] = []
    held.store.listen(order.append)
    held.store.do(Pause("a")).addCallback(order.append)
    held.runner.step()
    assert order == [CHANGE, Pause("a")]


def test_listenersHearOfChangesOnly() -> None:
    """
    Who listens hears nothing of a transaction that has changed nothing.
    """
    held = Held().opened()
    heard: list[StoreEvent] = []
    held.store.listen(heard.append)
    held.do("a")
    held.runner.step()
    assert heard == []


def test_unlistened() -> None:
    """
    Who listens no more hears nothing; the others do.
    """
    held = Held().opened()
    heard: list[StoreEvent] = []
    others: list[StoreEvent] = []
    held.store.listen(heard.append)
    held.store.listen(others.append)
    held.store.unlisten(heard.append)
    held.store.tell(CHANGE)
    assert (heard, others) == ([], [CHANGE])


def test_aFailingListenerHarmsNobody() -> None:
    """
    What a listener raises is logged; the others hear, and the Deferred fires.
    """
    held = Held().opened()
    held.engine.event = CHANGE
    heard: list[StoreEvent] = []

    def failing(event: StoreEvent) -> None:
        raise ZeroDivisionError

    held.store.listen(failing)
    held.store.listen(heard.append)
    [asked] = held.do("a")
    with readingLogs() as logs:
        held.runner.step()
    assert (heard, asked.result) == ([CHANGE], Pause("a"))
    assert [type(error) for error in logs.errors()] == [ZeroDivisionError]


def test_anErrorAsAnAnswer() -> None:
    """
    An operation that the engine refuses fails; the others of its transaction do not.
    """
    held = Held().opened()
    error = StoreError("no")
    held.engine.answer = lambda operation: error if operation == Pause("a") else operation
    a, b = held.do("a", "b")
    held.runner.step()
    assert isinstance(a.error, StoreError)
    assert b.result == Pause("b")


def test_theCulpritFailsAlone() -> None:
    """
    When one operation fails a whole transaction, only that one fails, and its event is not told.
    """
    held = Held().opened()
    held.engine.event = CHANGE
    held.engine.answer = refusing("b", OverflowError("too large"))
    events: list[StoreEvent] = []
    held.store.listen(events.append)
    a, b, c = held.do("a", "b", "c")
    with readingLogs() as logs:
        held.runner.step()
    assert (a.result, c.result) == (Pause("a"), Pause("c"))
    assert isinstance(b.error, OperationFailed)
    assert str(b.error) == "told cannot do Pause: OverflowError: too large"
    assert [type(error) for error in logs.errors()] == [OverflowError]
    assert events == [StoreEvent(flows=(Flow("a"),), ended=("1", "1"))]


def test_aRefusalKeepsItsType() -> None:
    """
    A store's error that fails a whole transaction reaches who asked for what caused it.
    """
    held = Held().opened()
    held.engine.answer = refusing("b", StoreError("no"))
    a, b = held.do("a", "b")
    held.runner.step()
    assert a.result == Pause("a")
    assert type(b.error) is StoreError


@pytest.mark.parametrize("error", [StoreUnavailable("told", "away"), StoreLost("told", "away")])
def test_allFailWithAStoreThatIsAway(error: StoreError) -> None:
    """
    When the engine cannot be reached, all of a transaction fail so, each with its own exception.
    """
    held = Held().opened()
    held.engine.answer = refusing("b", error)
    a, b = held.do("a", "b")
    held.runner.step()
    assert len(held.engine.transactions) == 1
    assert type(a.error) is type(b.error) is type(error)
    assert str(a.error) == str(error)
    assert a.error is not b.error


def test_whatMayHaveChangedIsUnknownWhenAStoreIsLost() -> None:
    """
    Listeners hear that anything may have changed when it is unknown what was done.
    """
    held = Held().opened()
    held.engine.answer = refusing("a", StoreLost("told", "away"))
    events: list[StoreEvent] = []
    held.store.listen(events.append)
    [a] = held.do("a")
    held.runner.step()
    assert isinstance(a.error, StoreLost)
    assert events == [StoreEvent(isUnknown=True)]


def test_theRestDoesNotWaitForAStoreThatIsAway() -> None:
    """
    If the engine goes away as operations are done one by one, the rest was surely not done.
    """
    held = Held().opened()
    held.engine.answer = refusing(
        "a", OverflowError(), refusing("b", StoreLost("told", "the cable"))
    )
    a, b, c, d = held.do("a", "b", "c", "d")
    with readingLogs():
        held.runner.step()
    assert [type(each.error) for each in (a, b, c, d)] == [
        OperationFailed,
        StoreLost,
        StoreUnavailable,
        StoreUnavailable,
    ]
    assert [len(each) for each in held.engine.transactions] == [4, 1, 1]


def test_anInterruptedTransactionIsUnknown() -> None:
    """
    What an engine leaves with an exit may be done or not; the store serves on.
    """
    held = Held().opened()
    held.engine.answer = refusing("a", SystemExit(3))  # type: ignore[arg-type]
    a, b = held.do("a", "b")
    with readingLogs() as logs:
        held.runner.step()
    assert isinstance(a.error, StoreLost)
    assert isinstance(b.error, StoreLost)
    assert [type(error) for error in logs.errors()] == [SystemExit]
    [c] = held.do("c")
    held.runner.step()
    assert c.result == Pause("c")


def test_cancelUndoesNothing() -> None:
    """
    An operation whose Deferred is cancelled is done, and its answer dropped.
    """
    held = Held().opened()
    [heard] = held.do("a")
    heard.d.cancel()
    held.runner.step()
    assert held.engine.transactions == [[Pause("a")]]
    assert len(heard.results) == 1


def test_whatIsNotOpenRefuses() -> None:
    """
    A store does nothing before it is open, and nothing after it is being closed.
    """
    held = Held()
    assert isinstance(errorOf(held.store.do(Nodes())), StoreClosed)
    held.opened()
    held.store.close()
    assert isinstance(errorOf(held.store.do(Nodes())), StoreClosed)
    held.runner.step()
    assert isinstance(errorOf(held.store.do(Nodes())), StoreClosed)
    assert held.engine.calls == ["open", "close"]


def test_openedOnce() -> None:
    """
    To open a store that is being opened, or is open, is to open it once.
    """
    held = Held()
    held.runner.isHeld = True
    a, b = Heard(held.store.open()), Heard(held.store.open())
    held.runner.step()
    assert (a.result, b.result, resultOf(held.store.open())) == (None, None, None)
    assert held.engine.calls == ["open"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreUnavailable("told", "away"), StoreUnavailable),
        (StoreError("told"), StoreError),
        (ZeroDivisionError("division"), StoreUnavailable),
    ],
)
def test_whatFailsToOpenCanBeOpenedAgain(error: Exception, kind: type[StoreError]) -> None:
    """
    An engine that does not open is closed, and may be opened again.
    """
    held = Held()

    def failing() -> None:
        held.engine.onOpen = lambda: None
        raise error

    held.engine.onOpen = failing
    with readingLogs():
        assert type(errorOf(held.store.open())) is kind
    resultOf(held.store.open())
    assert held.engine.calls == ["open", "close", "open"]


def test_closesAfterWhatWasAsked() -> None:
    """
    What was asked before is done before the store is closed.
    """
    held = Held().opened()
    order: list[Any] = []
    held.store.do(Pause("a")).addCallback(order.append)
    held.store.close().addCallback(order.append)
    held.store.close().addCallback(order.append)
    held.runner.step()
    assert order == [Pause("a"), None, None]
    assert held.engine.calls == ["open", [Pause("a")], "close"]
    assert held.clock.getDelayedCalls() == []


def test_closeOfAClosedStore() -> None:
    """
    To close a store that is not open is to do nothing.
    """
    held = Held()
    assert resultOf(held.store.close()) is None
    assert held.engine.calls == []


def test_closedWhileItOpens() -> None:
    """
    A store that is closed before it has opened says so to who opens it.
    """
    held = Held()
    held.runner.isHeld = True
    opened, closed = Heard(held.store.open()), Heard(held.store.close())
    held.runner.step()
    assert isinstance(opened.error, StoreClosed)
    assert closed.result is None
    assert held.engine.calls == ["open", "close"]


def test_openedWhileItCloses() -> None:
    """
    A store that is to be opened while it is being closed is opened after that.
    """
    held = Held().opened()
    closed, opened = Heard(held.store.close()), Heard(held.store.open())
    held.runner.step()
    assert (closed.result, opened.result) == (None, None)
    assert held.engine.calls == ["open", "close", "open"]


def test_closeFiresWhateverIsRaised() -> None:
    """
    An error of an engine that is being closed is logged, and the store is closed.
    """
    held = Held().opened()

    def failing() -> None:
        raise SystemExit

    held.engine.onClose = failing
    closed = Heard(held.store.close())
    with readingLogs() as logs:
        held.runner.step()
    assert closed.result is None
    assert [type(error) for error in logs.errors()] == [SystemExit]


def hanging(held: Held) -> tuple[Heard, Heard, Heard]:
    """
    Close a store whose engine hangs for longer than the store waits, in the midst of a transaction.

    @return: what was in the transaction, what waited for the next, and the close.
    """
    [a] = held.do("a")
    rest: list[Heard] = []

    def hang(operation: Any) -> Any:
        rest.extend([*held.do("b"), Heard(held.store.close())])
        held.clock.advance(30)
        rest.append(Heard(held.store.open()))
        return operation

    held.engine.answer = hang
    held.runner.step()
    b, closed, opened = rest
    assert isinstance(opened.error, StoreUnavailable)
    return a, b, closed


def test_closeGivesUpAnEngineThatHangs() -> None:
    """
    When the engine does not come back in time, the store is closed, and says of each operation
    whether it may have been done.
    """
    a, b, closed = hanging(Held().opened())
    assert isinstance(a.error, StoreLost)
    assert isinstance(b.error, StoreUnavailable)
    assert closed.result is None


def test_closeGivesUpAnEngineThatHangsAsItOpens() -> None:
    """
    When the engine does not come back as it is opened the store can be closed all the same, and
    the engine is closed when it is back.
    """
    held = Held()
    fired: list[Heard] = []

    def hang() -> None:
        fired.append(Heard(held.store.close()))
        held.clock.advance(30)
        assert [each.result for each in fired] == [None]

    held.engine.onOpen = hang
    assert isinstance(errorOf(held.store.open()), StoreUnavailable)
    assert held.engine.calls == ["open", "close"]
    assert held.store.statistics().state == "closed"


def test_anEngineThatHasComeBackCanBeOpened() -> None:
    """
    An engine that was given up is closed when it comes back, and the store can be opened then.
    """
    held = Held().opened()
    hanging(held)
    assert held.engine.calls == ["open", [Pause("a")], "close"]
    resultOf(held.store.close())
    held.opened()
    held.engine.answer = lambda operation: operation
    [c] = held.do("c")
    held.runner.step()
    assert c.result == Pause("c")


def test_statistics() -> None:
    """
    The statistics say how far the store is, and how many operations wait and were done.
    """
    held = Held()
    assert held.store.statistics().state == "closed"
    held.opened()
    held.do("a", "b")
    before = held.store.statistics()
    held.runner.step()
    after = held.store.statistics()
    assert (before.state, before.asked, before.done, before.transactions) == ("open", 2, 0, 0)
    assert (after.asked, after.done, after.transactions) == (0, 2, 1)


def test_aForkIsClosed() -> None:
    """
    In a fork a store is closed; it fires nothing of the parent's, and can be opened.
    """
    held = Held().opened()
    [a] = held.do("a")
    held.store.forked()
    held.runner.step()
    assert a.results == []
    assert isinstance(errorOf(held.store.do(Nodes())), StoreClosed)
    held.opened()
    [b] = held.do("b")
    held.runner.step()
    assert b.result == Pause("b")


def test_tellsOfOthersWhileItIsOpen() -> None:
    """
    What an engine hears of other programs the listeners of a store are told, from when it is
    being opened until it is closed.
    """
    engine = TellingToldEngine()
    store = Store(engine, DirectRunner())
    heard: list[StoreEvent] = []
    store.listen(heard.append)
    engine.tell(StoreEvent(ended=("before",)))
    engine.onOpen = lambda: engine.tell(StoreEvent(ended=("as it opens",)))
    resultOf(store.open())
    engine.tell(StoreEvent(ended=("open",)))
    engine.onClose = lambda: engine.tell(StoreEvent(ended=("as it closes",)))
    resultOf(store.close())
    engine.tell(StoreEvent(ended=("after",)))
    assert [event.ended for event in heard] == [("as it opens",), ("open",), ("as it closes",)]
