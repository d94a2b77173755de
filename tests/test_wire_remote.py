"""
L{RemoteWorker}, before a host that is only pretended.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue.errors import (
    FrameTooLarge,
    MaybeEncodingError,
    NoSuchCallable,
    RemoteProtocolError,
    WorkerLost,
)
from asynqueue.scheduling.options import CallOptions
from asynqueue.testing import (
    MemoryQueue,
    MemoryTask,
    MemoryWorker,
    RecordingConsumer,
    RecordingObserver,
)
from asynqueue.wire.client.remote import RemoteWorker
from asynqueue.wire.protocol.messages import CallFlag, MessageKind, packedFault
from asynqueue.workers.held import IDLE_SECONDS
from tests.connections import MemoryConnection, failed, items, returned
from tests.doubles import Heard, errorOf, resultOf


class Stage:
    """
    A worker with a connection and a clock, and no queue.

    @ivar back: the tasks that it has handed back.
    @ivar resigned: how often it resigned.
    """

    def __init__(self, *, rtt: float | None = None, queue: bool = True, **options: Any) -> None:
        about = {name: options.pop(name) for name in ("slots", "series") if name in options}
        self.clock = Clock()
        self.worker = RemoteWorker("a host", reactor=self.clock, **options)
        self.connection = MemoryConnection(self.worker, rtt, **about)
        self.back: list[MemoryTask] = []
        self.resigned = 0
        if queue:
            self.worker.setReturner(self.back.extend)
            self.worker.setResignator(self._resign)
        self.connection.open()

    def run(self, f: Any = "f", *args: Any, **kw: Any) -> MemoryTask:
        """
        Have it run a task.

        @param kw: options of a C{MemoryTask} among them.
        """
        task = MemoryTask(f, *args, **kw)
        task.ready = self.worker.run(task)  # type: ignore[attr-defined]
        return task

    def several(self, count: int) -> list[MemoryTask]:
        """
        Have it run so many tasks.
        """
        return [self.run() for _ in range(count)]

    def fill(self) -> list[MemoryTask]:
        """
        Have it run as many tasks as it is ready for.
        """
        tasks = [self.run()]
        while tasks[-1].ready.called:  # type: ignore[attr-defined]
            tasks.append(self.run())
        return tasks

    def _resign(self) -> None:
        self.resigned += 1
        self.left = self.worker.crash()
        self.notBegun = list(self.worker.takeBack())


# Calls


def test_aCallIsSentAtOnce() -> None:
    """
    A task is sent as it is given, with its name and its arguments, and ends with what the
    host returns.
    """
    stage = Stage()
    task = stage.run("method", 1, two=2)
    assert stage.connection.calls() == [(1, 0, "method", ((1,), {"two": 2}))]
    stage.connection.end(1, value=[3])
    assert resultOf(task.d) == [3]


def test_numbersGoUp() -> None:
    """
    Each call has a number higher than the last, also after one that could not be sent.
    """
    stage = Stage(slots=5)
    stage.run()
    stage.run("f", Stage)
    stage.run("f", lambda: 0, Clock().callLater(0, lambda: None))
    stage.run()
    numbers = stage.connection.told(MessageKind.CALL)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("worker", "task", "kw", "flags"),
    [
        ({}, {}, {}, 0),
        ({"raw": True}, {}, {}, CallFlag.RAW),
        ({"raw": True}, {"raw": False}, {}, 0),
        ({}, {"raw": True}, {}, CallFlag.RAW),
        ({"thread": True}, {}, {}, CallFlag.THREAD),
        ({}, {}, {"thread": True}, CallFlag.THREAD),
        ({"thread": True}, {}, {"thread": False}, 0),
        ({}, {"doNext": True}, {}, CallFlag.URGENT),
        ({}, {"timeout": 1}, {"watched": True}, CallFlag.WATCHED),
    ],
)
def test_optionsAreFlags(
    worker: dict[str, Any], task: dict[str, Any], kw: dict[str, Any], flags: int
) -> None:
    """
    What the worker and the call want is told to the host, and no argument.
    """
    stage = Stage(**worker)
    stage.run("f", options=CallOptions(**task), **kw)
    assert stage.connection.calls() == [(1, flags, "f", ((), {}))]


def test_failures() -> None:
    """
    What the host says was raised fails the task, with its own type and its place.
    """
    stage = Stage()
    task = stage.run()
    try:
        raise LookupError("over there")
    except LookupError as error:
        stage.connection.say(failed(MessageKind.RAISED, 1, error))
    failure = Heard(task.d).result
    assert failure.check(LookupError)
    assert "test_failures" in failure.getTraceback()


def test_beginningsAreTold() -> None:
    """
    The worker tells of the beginning of tasks that are watched, when the host does.
    """
    stage = Stage()
    task = stage.run(watched=True)
    assert not task.begun
    stage.connection.say((MessageKind.BEGUN, 1))
    assert task.begun


def test_aResultThatCannotBeMadeHere() -> None:
    """
    A result that cannot be decoded fails its task, and no other.
    """
    stage = Stage(slots=2)
    first, second = stage.several(2)
    stage.connection.say((MessageKind.RETURNED, 1, b"no pickle"), returned(2, 5))
    assert isinstance(errorOf(first.d), MaybeEncodingError)
    assert resultOf(second.d) == 5


@pytest.mark.parametrize("what", ["name", "argument", "size"])
def test_whatCannotBeSent(what: str) -> None:
    """
    A task that cannot be sent fails with the reason, after C{run} has returned, and the
    worker serves on.
    """
    stage = Stage(names=["f"])
    stage.connection.largest = 1000
    f, argument = {
        "name": ("g", 0),
        "argument": ("f", (number for number in [])),
        "size": ("f", bytes(2000)),
    }[what]
    task = stage.run(f, argument)
    assert not task.ended
    stage.clock.advance(0)
    errors = {"name": NoSuchCallable, "argument": TypeError, "size": FrameTooLarge}
    assert isinstance(errorOf(task.d), errors[what])
    assert task.ready.called  # type: ignore[attr-defined]
    assert stage.connection.sent == []
    stage.run()
    assert stage.connection.names() == ["f"]


def test_seriesOfTheHost() -> None:
    """
    The worker is qualified for what it was given and for what its host says.
    """
    worker = Stage(series=["maps", "maps", 5]).worker
    assert worker.iQualified == ["maps"]


def test_seriesOfAnEarlierHost() -> None:
    """
    After a new connection the worker is qualified for what it was given and for what the
    host says now, and not for what the one before it said.
    """
    stage = Stage(series=["old", "both", "given"])
    worker = stage.worker
    worker.iQualified.append("later")
    stage.connection.lose()
    MemoryConnection(worker, series=["both", "new"]).open()
    assert set(worker.iQualified) == {"later", "both", "new"}


# The window


def test_readyForTheSlots() -> None:
    """
    The worker is ready for as many tasks as the host runs at once, and again as one ends.
    """
    stage = Stage(slots=3)
    tasks = stage.fill()
    assert len(tasks) == 3
    stage.connection.end(2)
    assert tasks[-1].ready.called  # type: ignore[attr-defined]


@pytest.mark.bulk
def test_aheadOverALongWay() -> None:
    """
    Over a long way a fast host is sent calls ahead.
    """
    stage = Stage(slots=3, rtt=0.05)
    tasks = stage.fill()
    for _ in range(40):
        stage.clock.advance(0.05)
        stage.connection.end(*[number + 1 for number, task in enumerate(tasks) if not task.ended])
        while tasks[-1].ready.called:  # type: ignore[attr-defined]
            tasks.append(stage.run())
    assert stage.worker.statistics().held > 100


def test_neverMoreThanGiven() -> None:
    """
    With C{N_concurrent} no more calls than that are with the host.
    """
    stage = Stage(slots=30, rtt=0.05, N_concurrent=2)
    assert len(stage.fill()) == 2
    for number in (0, True, 1.5):
        with pytest.raises(ValueError, match="N_concurrent must be a whole number"):
            RemoteWorker("a host", N_concurrent=number)  # type: ignore[arg-type]


def test_largeCallsAreFewer() -> None:
    """
    Calls with very many bytes fill the window before there are many of them; one of them,
    whatever its size, does not keep small ones.
    """
    stage = Stage(slots=100, mostBytes=1 << 20)
    large = bytearray(2 << 20)
    tasks = [stage.run("f", large), stage.run(), stage.run("f", large)]
    assert [task.ready.called for task in tasks] == [True, True, False]  # type: ignore[attr-defined]
    stage.connection.end(1)
    assert tasks[-1].ready.called  # type: ignore[attr-defined]


def test_capacityChanges() -> None:
    """
    The host says when it can run more calls at once, or fewer, or none.
    """
    stage = Stage(slots=1)
    (task,) = stage.fill()
    stage.connection.say((MessageKind.CAPACITY, 3))
    assert task.ready.called  # type: ignore[attr-defined]
    more = stage.fill()
    assert len(more) == 2
    stage.connection.say((MessageKind.CAPACITY, 0))
    stage.connection.end(1, 2, 3)
    assert not more[-1].ready.called  # type: ignore[attr-defined]
    stage.connection.say((MessageKind.CAPACITY, 1))
    assert more[-1].ready.called  # type: ignore[attr-defined]


def test_aHostWithoutWorkersGetsNothing() -> None:
    """
    A task for a host that can run none is handed back.
    """
    stage = Stage(slots=0)
    task = stage.run()
    assert stage.back == [task]
    assert stage.connection.sent == []
    assert not task.ready.called  # type: ignore[attr-defined]


def fault(reason: str = "no room", isHopeless: bool = False) -> tuple[Any, ...]:
    """
    The message that a host can run nothing.
    """
    return MessageKind.CAPACITY, 0, packedFault(reason, isHopeless)


def test_aHostThatCanRunNothing() -> None:
    """
    It is given nothing until it says that it can: others have what it gives back, and
    C{why} says what it said.
    """
    stage = Stage(queue=False, series=["disk"])
    other = MemoryWorker()
    queue = MemoryQueue(stage.worker, other)
    d, disk = queue.call(abs, -1), queue.call(abs, -2, series="disk")
    queue.call(abs, -3)
    stage.connection.say(fault("no\nroom"), (MessageKind.GIVEN_BACK, 1))
    other.step()
    other.step()
    assert resultOf(d) == 1
    assert queue.why(disk).endswith(
        "RemoteWorker 1 (host 10.0.0.2:4000) can run nothing for now: no room"
    )
    queue.clock.advance(1)
    stage.clock.advance(1)
    assert len(stage.connection.told(MessageKind.CALL)) == 1
    stage.connection.say((MessageKind.CAPACITY, 1))
    assert stage.connection.told(MessageKind.CALL) == [1, 2]
    stage.connection.end(2, value=2)
    assert resultOf(disk) == 2


@pytest.mark.parametrize("hasQueue", [True, False])
def test_aHostWithoutHope(hasQueue: bool) -> None:
    """
    What it gives back fails, and so does what was queued since when it says so again; both
    with its reason. Without a queue, what it gives back.
    """
    stage = Stage(queue=False)
    if hasQueue:
        queue = MemoryQueue(stage.worker)
        heard = [Heard(queue.call(abs, -1))]
    else:
        heard = [Heard(stage.run().d)]
    stage.connection.say(fault(isHopeless=True), (MessageKind.GIVEN_BACK, 1))
    if hasQueue:
        heard.append(Heard(queue.call(abs, -2)))
        assert not heard[-1].results
        stage.connection.say(fault(isHopeless=True))
    for each in heard:
        assert isinstance(each.error, WorkerLost)
        assert not each.error.begun
        assert "no room" in str(each.error)


def test_aFaultIsThatOfOneConnection() -> None:
    """
    What a host said is forgotten when there is another connection.
    """
    stage = Stage()
    stage.worker.setReporter(lambda *told: reported.append(told))
    reported: list[Any] = []
    stage.connection.say((MessageKind.CAPACITY, 2))
    assert reported == []
    stage.connection.say((MessageKind.CAPACITY, 0, bytes([1])))
    assert reported == [("it does not say why", (), True)]
    stage.connection.lose()
    again = MemoryConnection(stage.worker)
    stage.worker._tasks.revive()
    again.open()
    again.say((MessageKind.CAPACITY, 2))
    assert len(reported) == 1


# Freshness


def test_whatDoesNotMoveIsRecalled() -> None:
    """
    When nothing ends for a while, what the host has not begun is called back, and handed
    on; until something ends the host is sent no more than it runs.
    """
    stage = Stage(slots=3)
    first, second, third = stage.fill()
    stage.clock.pump([0.011, 0.001])
    assert [(kind, number) for kind, number, _, _ in stage.connection.sent[3:]] == [
        (MessageKind.RECALL, 3)
    ]
    stage.connection.say((MessageKind.GIVEN_BACK, 2), (MessageKind.GIVEN_BACK, 3))
    assert stage.back == [second, third]
    assert not third.ready.called  # type: ignore[attr-defined]
    stage.connection.end(1)
    assert first.ended
    assert third.ready.called  # type: ignore[attr-defined]


@pytest.mark.parametrize("queue", [True, False])
def test_callsDoNotGoToAndFro(queue: bool) -> None:
    """
    A host that gives back whatever it is sent is tried again only some times a second.
    """
    stage = Stage(slots=3, queue=queue)
    task = stage.run()
    ready = task.ready  # type: ignore[attr-defined]
    for number in range(1, 11):
        stage.connection.say((MessageKind.GIVEN_BACK, number))
        assert len(stage.connection.told(MessageKind.CALL)) == number
        if queue:
            stage.run()
            assert len(stage.connection.told(MessageKind.CALL)) == number
        stage.clock.advance(0.021)
        if queue:
            stage.run()
    assert len(stage.connection.told(MessageKind.CALL)) == 11
    assert ready.called
    assert not task.ended


def test_aBusyHostIsLeftAlone() -> None:
    """
    As long as calls end nothing is called back.
    """
    stage = Stage(slots=3)
    stage.fill()
    for number in range(1, 20):
        stage.clock.advance(0.006)
        stage.connection.end(number)
        stage.run()
    assert stage.connection.told(MessageKind.RECALL) == []


def test_whatHasComeIsReadBeforeARecall() -> None:
    """
    An outcome that is there when the time is up, and was not read, prevents a recall.
    """
    stage = Stage(slots=3)
    stage.fill()
    stage.clock.advance(0.011)
    stage.connection.end(1)
    stage.clock.advance(0.001)
    assert stage.connection.told(MessageKind.RECALL) == []


def test_whileNothingMovesNothingIsSent() -> None:
    """
    A task that is given while nothing moves is handed back at once.
    """
    stage = Stage(slots=4)
    stage.several(3)
    stage.clock.pump([0.011, 0.001])
    stage.connection.say((MessageKind.GIVEN_BACK, 3), (MessageKind.GIVEN_BACK, 2))
    late = stage.run()
    assert stage.back[-1] is late
    assert len(stage.connection.told(MessageKind.CALL)) == 3


def test_aLongWayNeedsPatience() -> None:
    """
    Calls are recalled after four round trips, not before.
    """
    stage = Stage(slots=3, rtt=0.06)
    stage.fill()
    stage.clock.pump([0.2, 0.001])
    assert stage.connection.told(MessageKind.RECALL) == []
    stage.clock.pump([0.05, 0.001])
    assert stage.connection.told(MessageKind.RECALL) == [3]


def test_theHostIsAskedAgain() -> None:
    """
    What the host's own workers had ahead, it may have to give back later: it is asked some
    times, and ever more seldom.
    """
    stage = Stage(slots=3)
    stage.fill()
    times = []
    for _ in range(5000):
        before = len(stage.connection.told(MessageKind.RECALL))
        stage.clock.advance(0.001)
        if len(stage.connection.told(MessageKind.RECALL)) > before:
            times.append(stage.clock.seconds())
    assert len(times) == 8
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    assert stage.clock.getDelayedCalls() == []


def test_idleIsFree() -> None:
    """
    Without tasks, or with one that runs long, no timer runs.
    """
    stage = Stage(slots=3)
    assert stage.clock.getDelayedCalls() == []
    stage.run()
    assert stage.clock.getDelayedCalls() == []
    stage.run()
    stage.connection.end(2)
    stage.clock.pump([0.011, 0.001])
    assert stage.clock.getDelayedCalls() == []


# Early ends


@pytest.mark.parametrize("about", [{"slots": -1}, {"slots": "x"}, {"series": 7}, {"series": [[]]}])
def test_absurdHosts(about: dict[str, Any]) -> None:
    """
    What a host says of itself and cannot be is not believed.
    """
    stage = Stage(**about)
    assert len(stage.fill()) == 1
    assert stage.worker.iQualified == []


def test_cancelling() -> None:
    """
    The host is told to end a call that nobody wants; its place is free when the host says
    that it is over, by whatever message.
    """
    for end in ((MessageKind.CANCELLED, 1), returned(1, 5), (MessageKind.GIVEN_BACK, 1)):
        stage = Stage()
        task = stage.run()
        task.errback(Failure(CancelledError()))
        stage.worker.cancel(task)
        assert stage.connection.told(MessageKind.CANCEL) == [1]
        assert not task.ready.called  # type: ignore[attr-defined]
        stage.connection.say(end)
        assert task.ready.called  # type: ignore[attr-defined]
        assert isinstance(errorOf(task.d), CancelledError)
        assert stage.back == []


def test_cancellingWhatIsSentMeanwhile() -> None:
    """
    Each call is cancelled by its number, whatever has ended or was sent since the last.
    """
    stage = Stage(slots=9)
    tasks = stage.several(3)
    stage.worker.cancel(tasks[1])
    stage.connection.end(1)
    tasks += stage.several(2)
    for task in tasks:
        stage.worker.cancel(task)
    tasks.append(stage.run())
    stage.worker.cancel(tasks[-1])
    assert stage.connection.told(MessageKind.CANCEL) == [2, 2, 3, 4, 5, 6]


def test_cancellingTheUnknown() -> None:
    """
    A task that the worker does not hold is ignored.
    """
    stage = Stage()
    stage.worker.cancel(MemoryTask("f"))
    assert stage.connection.sent == []


def test_theHostMayEndACall() -> None:
    """
    A call that the host has cancelled by itself fails.
    """
    stage = Stage()
    task = stage.run()
    stage.connection.say((MessageKind.CANCELLED, 1))
    assert isinstance(errorOf(task.d), CancelledError)


# Iterators


def started(stage: Stage, *first: Any, **options: Any) -> Deferred[Any]:
    """
    A call that returns an iterator, of which some items have come.
    """
    task = stage.run(options=CallOptions(**options))
    number = stage.connection.told(MessageKind.CALL)[-1]
    stage.connection.say((MessageKind.ITERATOR, number, b"numbers"))
    if first:
        stage.connection.say(items(number, *first))
    return task.d


def test_iterators() -> None:
    """
    An iterator becomes a Deferator, as soon as something has come of it.
    """
    stage = Stage()
    d = started(stage)
    assert stage.connection.credits() == [2]
    assert not d.called
    stage.connection.say(items(1, 0, 1), (MessageKind.END, 1))
    deferator = resultOf(d)
    assert "numbers" in repr(deferator)
    assert [resultOf(each) for each in deferator] == [0, 1]


def test_iteratorsLeaveTheirPlace() -> None:
    """
    A call whose iterator is here leaves its place to another.
    """
    stage = Stage()
    task = stage.run()
    stage.connection.say((MessageKind.ITERATOR, 1, b"numbers"), items(1, 0))
    assert task.ready.called  # type: ignore[attr-defined]


def test_emptyIterators() -> None:
    """
    An iterator without items is an iteration without any.
    """
    stage = Stage()
    d = started(stage)
    stage.connection.say((MessageKind.END, 1))
    assert list(resultOf(d)) == []


def test_iteratorsThatFail() -> None:
    """
    What was raised in the place of an item fails that.
    """
    stage = Stage()
    d = started(stage, 0)
    stage.connection.say(
        failed(MessageKind.ITEM_FAILED, 1, LookupError("bad")), (MessageKind.END, 1)
    )
    deferator = resultOf(d)
    assert resultOf(next(deferator)) == 0
    assert isinstance(errorOf(next(deferator)), LookupError)
    assert list(deferator) == []


def test_itemsThatCannotBeMadeHere() -> None:
    """
    Items that cannot be decoded end the iteration with an error, on both sides.
    """
    stage = Stage()
    d = started(stage, 0)
    deferator = resultOf(d)
    stage.connection.say((MessageKind.ITEMS, 1, b"no pickle"))
    assert stage.connection.told(MessageKind.CLOSE) == [1]
    assert resultOf(next(deferator)) == 0
    assert isinstance(errorOf(next(deferator)), MaybeEncodingError)
    stage.connection.say(items(1, 1), (MessageKind.END, 1))
    assert list(deferator) == []


def test_consumers() -> None:
    """
    With a consumer the items are written to it, and the task ends with the last.
    """
    stage = Stage()
    consumer = RecordingConsumer()
    d = started(stage, 0, 1, consumer=consumer)
    assert not d.called
    stage.connection.say(items(1, 2), (MessageKind.END, 1))
    assert resultOf(d) is consumer
    assert consumer.items == [0, 1, 2]


def test_stoppedIteratorsAreClosed() -> None:
    """
    The host closes an iterator that nobody takes from any more, and may have sent some
    items until it hears that.
    """
    stage = Stage()
    resultOf(started(stage, 0)).stop()
    assert stage.connection.told(MessageKind.CLOSE) == [1]
    stage.connection.say(items(1, 1), (MessageKind.END, 1))


@pytest.mark.parametrize("when", ["before it is one", "before an item", "later"])
def test_cancelledIteratorsAreClosed(when: str) -> None:
    """
    The iterator of a call that is cancelled is closed, whenever that is.
    """
    stage = Stage()
    consumer = RecordingConsumer()
    task = stage.run(options=CallOptions(consumer=consumer))
    ends = Heard(task.d)

    def cancel() -> None:
        task.errback(Failure(CancelledError()))
        stage.worker.cancel(task)

    acts: dict[str, Callable[[], Any]] = {
        "before it is one": lambda: stage.connection.say((MessageKind.ITERATOR, 1, b"numbers")),
        "before an item": lambda: stage.connection.credits() and stage.connection.say(items(1, 0)),
        "later": lambda: None,
    }
    for name, act in acts.items():
        if name == when:
            cancel()
        act()
    assert stage.connection.told(MessageKind.CLOSE) == [1]
    stage.connection.say((MessageKind.END, 1))
    assert isinstance(ends.error, CancelledError)
    assert stage.worker.statistics().held == 0


# What makes no sense


@pytest.mark.parametrize(
    "message",
    [
        (MessageKind.RETURNED, 7, b"\x80\x05N."),
        (MessageKind.RAISED, 7),
        (MessageKind.GIVEN_BACK, 7),
        (MessageKind.CANCELLED, 7),
        (MessageKind.BEGUN, 7),
        (MessageKind.ITERATOR, 7),
        (MessageKind.ITEMS, 7, b"\x80\x05]."),
        (MessageKind.ITEM_FAILED, 1),
        (MessageKind.END, 1),
        (MessageKind.CALL, 1),
        (99, 1),
    ],
)
def test_nonsenseIsRefused(message: tuple[Any, ...]) -> None:
    """
    What a host cannot mean is its fault, and said so.
    """
    stage = Stage()
    stage.run()
    with pytest.raises(RemoteProtocolError):
        stage.connection.say(message)


@pytest.mark.parametrize("body", [returned(1, 5)[2], items(1, *range(3))[2]])
def test_nonsenseOfIteratorsIsRefused(body: bytes) -> None:
    """
    Items that are no list, or more than were asked for, are refused, too.
    """
    stage = Stage()
    started(stage)
    with pytest.raises(RemoteProtocolError):
        stage.connection.say((MessageKind.ITEMS, 1, body))


def test_anOutcomeOfAnIteratorIsRefused() -> None:
    """
    A call has one outcome: one that returned an iterator has returned.
    """
    stage = Stage()
    started(stage)
    with pytest.raises(RemoteProtocolError):
        stage.connection.say(returned(1, 5))


# The end of the connection


def test_lossIsResignation() -> None:
    """
    When the connection is lost the worker resigns, and says why; it leaves what was sent.
    """
    stage = Stage(slots=3)
    tasks = stage.several(2)
    stage.connection.lose()
    assert stage.resigned == 1
    assert stage.left == tasks
    assert stage.notBegun == []
    assert "cut by the test" in stage.worker.loss
    assert stage.worker.host == "host 10.0.0.2:4000"
    assert not tasks[0].ended


def test_withoutAQueueLossIsAnError() -> None:
    """
    A worker that nobody dismisses ends its tasks itself.
    """
    stage = Stage(queue=False)
    task = stage.run()
    stage.connection.lose()
    error = errorOf(task.d)
    assert isinstance(error, WorkerLost)
    assert error.begun
    assert "host 10.0.0.2:4000" in str(error)


def test_lossEndsIterators() -> None:
    """
    Iterators end with the connection: after what has come, with an error.
    """
    stage = Stage()
    deferator = resultOf(started(stage, 0, 1))
    stage.connection.lose()
    assert [resultOf(next(deferator)) for _ in range(2)] == [0, 1]
    assert isinstance(errorOf(next(deferator)), WorkerLost)
    assert list(deferator) == []


def test_lossBetween() -> None:
    """
    A task that is given when the connection can send no more, and is not lost yet, was
    surely not begun.
    """
    stage = Stage(slots=2)
    stage.connection.isOpen = False
    task = stage.run()
    stage.connection.lose()
    assert stage.notBegun == [task]


def test_crashCutsTheConnection() -> None:
    """
    A worker that crashes ends its connection, and hears nothing more of it.
    """
    stage = Stage(slots=3)
    tasks = stage.several(2)
    assert stage.worker.crash() == tasks
    assert stage.connection.acts == ["abort"]
    stage.connection.end(1, 2)
    stage.connection.lose()
    assert [task.ends for task in tasks] == [0, 0]
    assert stage.resigned == 0


def test_crashWithinAnOutcome() -> None:
    """
    Where the callback of one outcome makes the worker crash, the others of the same
    moment are not told.
    """
    stage = Stage(slots=3)
    tasks = stage.several(3)
    left: list[Any] = []
    tasks[0].d.addCallback(lambda _: left.extend(stage.worker.crash()))
    stage.connection.end(1, 2, 3)
    assert left == tasks[1:]
    assert [task.ends for task in tasks] == [1, 0, 0]


def test_nonsenseAfterGivingBack() -> None:
    """
    What was given back just before the connection broke is not forgotten.
    """
    stage = Stage(slots=3, queue=False)
    tasks = stage.several(2)
    with pytest.raises(RemoteProtocolError):
        stage.connection.say((MessageKind.GIVEN_BACK, 1), (MessageKind.END, 7))
    stage.connection.lose()
    assert all(isinstance(errorOf(task.d), WorkerLost) for task in tasks)


def test_givenBackTwice() -> None:
    """
    A call can be given back once; where it is given back twice, no task is forgotten.
    """
    stage = Stage(slots=3)
    tasks = stage.several(2)
    with pytest.raises(RemoteProtocolError):
        stage.connection.say((MessageKind.GIVEN_BACK, 1), (MessageKind.GIVEN_BACK, 1))
    assert stage.worker.crash() == tasks


def test_crashEndsIterators() -> None:
    """
    Iterators end with the worker.
    """
    stage = Stage()
    deferator = resultOf(started(stage, 0))
    stage.worker.crash()
    assert resultOf(next(deferator)) == 0
    assert isinstance(errorOf(next(deferator)), WorkerLost)


def test_stoppingEndsAll() -> None:
    """
    A worker that stops waits for its tasks, then says goodbye and closes the connection;
    it has stopped when that is gone.
    """
    stage = Stage(slots=3)
    tasks = stage.several(2)
    stopped = Heard(stage.worker.stop())
    stage.connection.end(1)
    assert stage.connection.acts == []
    stage.connection.end(2)
    assert stage.connection.acts == ["goodbye", "close"]
    assert all(task.ended for task in tasks)
    assert stopped.results == []
    stage.connection.lose()
    assert stopped.result is None
    assert stage.resigned == 0
    assert stage.clock.getDelayedCalls() == []


def test_stoppingDoesNotWaitForEver() -> None:
    """
    A connection that does not end is cut, and then the worker has stopped.
    """
    stage = Stage()
    stage.connection.endsAtOnce = True
    stopped = Heard(stage.worker.stop())
    stage.clock.advance(6)
    assert stage.connection.acts == ["goodbye", "close", "abort"]
    assert stopped.result is None


def test_stoppingWaitsForIterators() -> None:
    """
    Iterators may be read to their ends; one that nobody reads is closed soon, with an error.
    """
    stage = Stage()
    deferator = resultOf(started(stage, *range(2)))
    stage.worker.stop()
    assert resultOf(next(deferator)) == 0
    assert stage.connection.acts == []
    stage.clock.advance(IDLE_SECONDS)
    assert stage.connection.told(MessageKind.CLOSE) == []
    stage.worker.stop()
    stage.clock.advance(IDLE_SECONDS)
    assert stage.connection.told(MessageKind.CLOSE) == [1]
    stage.connection.say((MessageKind.END, 1))
    assert stage.connection.acts == ["goodbye", "close"]
    assert resultOf(next(deferator)) == 1
    assert isinstance(errorOf(next(deferator)), WorkerLost)


@pytest.mark.parametrize("crash", [False, True])
def test_stoppingTwice(crash: bool) -> None:
    """
    Each C{stop} has its end, also after a crash.
    """
    stage = Stage()
    first = Heard(stage.worker.stop())
    second = Heard(stage.worker.stop())
    if crash:
        stage.worker.crash()
    else:
        stage.connection.lose()
    third = Heard(stage.worker.stop())
    assert [first.result, second.result, third.result] == [None] * 3


def test_crashWhileIteratorsAreWaitedFor() -> None:
    """
    Of a worker that crashes while it waits for those who read iterators nothing is left.
    """
    stage = Stage()
    deferator = resultOf(started(stage, 0))
    reading = next(deferator)
    stopped = Heard(stage.worker.stop())
    stage.clock.advance(IDLE_SECONDS)
    stage.worker.crash()
    assert stopped.result is None
    assert resultOf(reading) == 0
    assert stage.clock.getDelayedCalls() == []


def test_lossWhileIteratorsAreWaitedFor() -> None:
    """
    A worker that waits for those who read iterators has stopped when the connection is lost,
    and the iterations end with that.
    """
    stage = Stage()
    deferator = resultOf(started(stage, 0))
    stopped = Heard(stage.worker.stop())
    assert not stopped.results
    stage.connection.lose()
    assert stopped.result is None
    assert resultOf(next(deferator)) == 0
    assert isinstance(errorOf(next(deferator)), WorkerLost)
    assert stage.clock.getDelayedCalls() == []


# A host that leaves


def test_aHostThatLeavesClosesWhatNobodyReads() -> None:
    """
    An iterator that nobody reads does not keep a host from leaving: it is closed, and says
    why. One that is read does.
    """
    stage = Stage(slots=2)
    held, read = [resultOf(started(stage, 0, 1)) for _ in range(2)]
    reading = [next(read), next(read)]
    stage.worker.leaving(stage.connection, "to be updated")
    stage.clock.advance(IDLE_SECONDS)
    assert stage.connection.told(MessageKind.CLOSE) == [1]
    stage.connection.say((MessageKind.END, 1))
    assert stage.connection.acts == []
    stage.connection.say(items(2, 2), (MessageKind.END, 2))
    assert stage.connection.acts == ["close"]
    assert [resultOf(d) for d in [*reading, next(read)]] == [0, 1, 2]
    assert [resultOf(next(held)) for _ in range(2)] == [0, 1]
    assert "its host leaves" in str(errorOf(next(held)))


def test_aHostThatLeaves() -> None:
    """
    A host that says goodbye is sent nothing more; what it gives back is handed on, and
    when the rest has ended the connection is closed, and the worker resigns.
    """
    stage = Stage(slots=5)
    tasks = stage.several(3)
    stage.worker.leaving(stage.connection, "to be updated")
    late = stage.run()
    assert stage.back == [late]
    assert not late.ready.called  # type: ignore[attr-defined]
    stage.connection.say((MessageKind.GIVEN_BACK, 2), (MessageKind.GIVEN_BACK, 3))
    assert stage.back == [late, *tasks[1:]]
    assert stage.connection.acts == []
    stage.connection.end(1)
    assert stage.connection.acts == ["close"]
    stage.connection.lose()
    assert (stage.resigned, stage.left) == (1, [])
    assert stage.worker.loss == "the host left"
    assert len(stage.connection.told(MessageKind.CALL)) == 3


def test_anIdleHostThatLeaves() -> None:
    """
    A host that has nothing left to do may go at once.
    """
    stage = Stage()
    stage.worker.leaving(stage.connection, "")
    assert stage.connection.acts == ["close"]


# With a queue


class Play:
    """
    A queue with a worker before a pretended host.
    """

    def __init__(self, slots: int = 2, **options: Any) -> None:
        self.queue = MemoryQueue(**options)
        self.queue.detachWorker(self.queue.workers()[0])
        self.worker = RemoteWorker("a host", reactor=self.queue.clock)
        self.connection = MemoryConnection(self.worker, slots=slots)
        self.connection.open()
        self.queue.attachWorker(self.worker)

    def call(self, f: str = "f", *args: Any, **kw: Any) -> Heard:
        """
        Make a call.
        """
        return Heard(self.queue.call(f, *args, series="wire", **kw))

    def substitute(self) -> MemoryWorker:
        """
        Attach another worker for the same.
        """
        worker = MemoryWorker(series=["wire"], window=100)
        self.queue.attachWorker(worker)
        return worker


def test_lossFailsWhatWasSent() -> None:
    """
    Calls that were sent to a host that is lost fail with its name, and say that they may
    have begun; calls that wait in the queue go elsewhere (G2).
    """
    play = Play()
    sent = [play.call() for _ in range(2)]
    waiting = play.call()
    play.connection.lose()
    other = play.substitute()
    for heard in sent:
        assert isinstance(heard.error, WorkerLost)
        assert heard.error.begun
        assert "host 10.0.0.2:4000" in str(heard.error)
        assert "cut by the test" in str(heard.error)
    assert len(other.tasks) == 1
    other.end(other.tasks[0], 5)
    assert waiting.result == 5


def test_retriesGoElsewhere() -> None:
    """
    With retries they are run again, by another worker.
    """
    play = Play()
    heard = play.call(retries=1)
    other = play.substitute()
    play.connection.lose()
    other.end(other.tasks[0], 6)
    assert heard.result == 6


def test_recalledCallsGoElsewhere() -> None:
    """
    A call that is stuck behind a long one is given to an idle worker, and its caller does
    not notice (G6).
    """
    play = Play()
    play.call("long")
    stuck = play.call("short")
    other = play.substitute()
    play.queue.clock.pump([0.011, 0.001])
    assert play.connection.told(MessageKind.RECALL) == [2]
    play.connection.say((MessageKind.GIVEN_BACK, 2))
    (task,) = other.tasks
    assert task.callTuple[0] == "short"
    other.end(task, 7)
    assert stuck.result == 7


def test_whatIsStuckIsNotSentAgain() -> None:
    """
    Without another worker, calls that were given back wait in the queue until one has
    ended.
    """
    play = Play(slots=10)
    for _ in range(5):
        play.call()
    play.queue.clock.pump([0.011, 0.001])
    play.connection.say(*[(MessageKind.GIVEN_BACK, number) for number in range(2, 6)])
    play.queue.clock.pump([0.011, 0.001] * 10)
    assert len(play.connection.told(MessageKind.CALL)) == 5
    play.connection.end(1)
    assert len(play.connection.told(MessageKind.CALL)) == 7


def test_timeoutsBeginWithTheRun() -> None:
    """
    The time of a call begins when the host says that it runs; then it is cancelled there.
    """
    play = Play()
    heard = play.call(timeout=1.0)
    play.queue.clock.advance(5)
    assert heard.results == []
    play.connection.say((MessageKind.BEGUN, 1))
    play.queue.clock.advance(1.5)
    assert play.connection.told(MessageKind.CANCEL) == [1]
    assert "1" in str(heard.error)


def test_eventsOfALife() -> None:
    """
    An observer hears of the hire, the beginnings, and of the departure when the
    connection is lost.
    """
    play = Play()
    observer = RecordingObserver()
    play.queue.addObserver(observer)
    play.call()
    play.connection.say((MessageKind.BEGUN, 1))
    play.connection.end(1)
    play.connection.lose()
    assert observer.names() == ["queued", "begun", "done", "left"]


@pytest.mark.bulk
def test_manyAtOnce() -> None:
    """
    Thousands of calls have each its own result, whatever order the host ends them in.
    """
    play = Play(slots=50)
    heard = [play.call("f", number) for number in range(3000)]
    while batch := play.connection.calls():
        play.connection.sent.clear()
        play.connection.say(
            *[returned(number, args[0]) for number, _, _, (args, _) in reversed(batch)]
        )
        play.queue.clock.advance(0.001)
    assert [each.result for each in heard] == list(range(3000))


def test_shutdown() -> None:
    """
    The queue is down when the worker has ended its calls and the connection is gone.
    """
    play = Play()
    heard = play.call()
    down = Heard(play.queue.shutdown())
    play.connection.end(1, value=8)
    assert heard.result == 8
    assert down.results == []
    play.connection.lose()
    assert down.result is None
