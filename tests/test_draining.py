"""
What a queue promises from when its reactor was told to stop until it has stopped.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.interfaces import IConnectingWorker
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import MemoryQueue, MemoryWorker
from tests.doubles import Heard, readingLogs, resultOf


class Worker(MemoryWorker):
    """
    Stops when the test lets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crashes = 0
        self.leaving: Deferred[None] | None = None
        self.lingers = False

    def stop(self) -> Deferred[None]:
        """
        As a L{MemoryWorker}, unless it lingers.
        """
        if self.lingers:
            self.leaving = Deferred()
            return self.leaving
        return super().stop()

    def crash(self) -> list[Any]:
        """
        Counts.
        """
        self.crashes += 1
        return super().crash()


@implementer(IConnectingWorker)
class Connecting(Worker):
    """
    Connects when the test says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host = "the host"
        self.loss = ""
        self.dialing = "dialing the host"
        self.connected: Deferred[None] = Deferred()

    def whenConnected(self) -> Deferred[None]:
        """
        Fires when the test fires it.
        """
        self.connected = Deferred()
        return self.connected


class Reactor(MemoryReactorClock):
    """
    One that can be told to stop by signals.
    """

    def sigInt(self, number: int, frame: Any) -> None:
        """
        It stops already.
        """
        raise AssertionError("it was told so")

    sigTerm = sigInt

    def callFromThread(self, f: Any, *args: Any) -> None:
        """
        Here and now.
        """
        f(*args)


class Ending:
    """
    A queue with one worker, and a reactor that is told to stop.
    """

    def __init__(self, worker: Worker | None = None, timeout: float | None = None) -> None:
        self.reactor: Any = Reactor()
        self.worker = worker or Worker()
        self.queue = TaskQueue(self.worker, timeout=timeout, reactor=self.reactor)

    def fire(self, phase: str) -> list[Any]:
        """
        Call the triggers of a phase.
        """
        triggers = self.reactor.triggers.get(phase, {}).pop("shutdown", [])
        return [f(*args, **kw) for f, args, kw in triggers]

    def begin(self) -> Heard:
        """
        The reactor is told to stop.

        @return: what it waits for.
        """
        (waits,) = self.fire("before")
        return Heard(waits)

    def stop(self) -> None:
        """
        It stops.
        """
        self.fire("during")

    def turn(self) -> None:
        """
        It has a turn.
        """
        self.reactor.advance(0)

    @property
    def isQuiet(self) -> bool:
        """
        Whether no timer is left.
        """
        return not self.reactor.getDelayedCalls()


@pytest.fixture
def ending() -> Ending:
    """
    A queue whose reactor will be told to stop.
    """
    return Ending()


def test_reactorIsHeldUntilAllIsDone(ending: Ending) -> None:
    """
    The reactor waits for what was accepted, and for what follows from that; the workers
    are gone then.
    """
    calls = [ending.queue.call(abs, -1)]
    calls[0].addCallback(lambda _: calls.append(ending.queue.call(abs, -2)))
    held = ending.begin()
    for _ in range(2):
        ending.turn()
        assert (held.results, len(ending.queue)) == ([], 1)
        ending.worker.step()
    ending.turn()
    assert (held.result, len(ending.queue)) == (None, 0)
    assert resultOf(calls[1]) == 2
    assert ending.isQuiet


def test_callsAreTakenUntilTheReactorHasStopped(ending: Ending) -> None:
    """
    While others go on, their calls are made, each time there are some; then no more.
    """
    held = ending.begin()
    ending.turn()
    assert held.result is None
    for number in range(3):
        assert ending.queue.isRunning()
        call = ending.queue.call(abs, -number)
        ending.turn()
        ending.worker.step()
        assert resultOf(call) == number
        ending.turn()
        assert len(ending.queue) == 0
    ending.stop()
    assert not ending.queue.isRunning()
    with pytest.raises(QueueRunError):
        ending.queue.call(abs, 1)
    assert (ending.worker.crashes, ending.isQuiet) == (0, True)


@pytest.mark.parametrize("what", ["map", "update", "attach"])
def test_whatElseIsAskedIsDone(ending: Ending, what: str) -> None:
    """
    A map, an update and another worker are as good as a call.
    """
    ending.begin()
    ending.turn()
    if what == "map":
        mapped = ending.queue.map(abs, [-1])
        asked = Heard(next(mapped))
    elif what == "update":
        asked = Heard(ending.queue.update(abs, -1))
    else:
        asked = Heard(ending.queue.attachWorker(Worker()))
    ending.turn()
    while ending.worker.step():
        ending.turn()
    assert asked.result in (1, [1], 3)
    ending.stop()


def test_callWhileTheWorkersGo(ending: Ending) -> None:
    """
    A call that is made while the workers are on their way is made when they are back, and
    the reactor waits for it.
    """
    ending.worker.lingers = True
    held = ending.begin()
    ending.turn()
    call = ending.queue.call(abs, -1)
    ending.worker.lingers = False
    assert ending.worker.leaving is not None
    ending.worker.leaving.callback(None)
    ending.turn()
    assert held.results == []
    ending.worker.step()
    assert resultOf(call) == 1
    ending.turn()
    assert held.result is None


def test_callThatNoWorkerCanTake(ending: Ending) -> None:
    """
    What waits for a worker that is not there fails in the next turn: nobody is held up.
    """
    ending.begin()
    ending.turn()
    call = Heard(ending.queue.call(abs, -1, series="rare"))
    ending.turn()
    assert isinstance(call.error, QueueRunError)


@pytest.mark.parametrize("comes", [True, False])
def test_workerThatDialsAgain(comes: bool) -> None:
    """
    A worker that had a connection is waited for, as long as the grace allows.
    """
    worker = Connecting()
    ending = Ending(worker)
    ending.turn()
    worker.connected.callback(None)
    ending.begin()
    ending.turn()
    call = Heard(ending.queue.call(abs, -1))
    ending.turn()
    assert call.results == []
    if comes:
        worker.connected.callback(None)
        worker.step()
        assert call.result == 1
    else:
        worker.connected.addErrback(lambda failure: failure.trap(CancelledError))
        ending.reactor.advance(10)
        assert isinstance(call.error, QueueRunError)
    ending.stop()


def test_noMoreCallsAfterTheGrace() -> None:
    """
    When something was not done in time the workers crash, and no more calls are taken.
    """
    ending = Ending(timeout=3)
    call = Heard(ending.queue.call(abs, -1))
    held = ending.begin()
    ending.reactor.advance(2.9)
    assert held.results == []
    ending.reactor.advance(0.1)
    ending.turn()
    assert held.result is None
    assert isinstance(call.error, WorkerLost)
    assert not ending.queue.isRunning()
    with pytest.raises(QueueRunError):
        ending.queue.call(abs, -1)
    assert Heard(ending.queue.shutdown()).result is None
    ending.stop()
    assert ending.isQuiet


def test_shutdownAtTheEndOfTheGrace() -> None:
    """
    Whoever shuts the queue down because a call was not done in time is told when its
    worker is gone, and not before.
    """
    worker = Worker()
    ending = Ending(worker, timeout=3)
    ended: list[Heard] = []
    gone: list[bool] = []

    def shutdown(failure: Failure) -> None:
        d = ending.queue.shutdown()
        d.addCallback(lambda _: gone.append(not ending.queue.workers()))
        ended.append(Heard(d))

    # One fails when the queue is closed, the other when its worker crashes.
    for series in ("rare", None):
        ending.queue.call(abs, -1, series=series).addErrback(shutdown)
    held = ending.begin()
    ending.reactor.advance(3)
    ending.turn()
    assert [each.result for each in (held, *ended)] == [None] * 3
    assert gone == [True, True]
    ending.stop()
    assert ending.isQuiet


@pytest.fixture
def signals() -> Iterator[None]:
    """
    Handlers of signals are as before, after the test.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rests", [False, True])
def test_secondSignalEndsAtOnce(
    ending: Ending, number: signal.Signals, rests: bool, signals: None
) -> None:
    """
    A signal while the reactor stops ends all that is done, by name and with a warning; then
    signals do again what they did.
    """
    handlers = ending.reactor.sigInt, ending.reactor.sigTerm
    signal.signal(signal.SIGINT, handlers[0])
    signal.signal(signal.SIGTERM, handlers[1])
    call = None if rests else Heard(ending.queue.call(abs, -1))
    other = TaskQueue(MemoryWorker(), reactor=ending.reactor)
    held = [Heard(d) for d in ending.fire("before")]
    ending.turn()
    with readingLogs() as logs:
        signal.raise_signal(number)
    assert not ending.queue.isRunning()
    assert not other.isRunning()
    assert [each.result for each in held] == [None, None]
    if call is not None:
        assert f"{number.name} came while the reactor stopped" in str(call.error)
    assert logs.said() == [f"{number.name} while the reactor stops: its queues end at once"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert ending.isQuiet


def test_handlersOfOthersStay(ending: Ending, signals: None) -> None:
    """
    A program that handles signals itself goes on to do so while its reactor stops.
    """
    caught: list[int] = []

    def handler(number: int, frame: Any) -> None:
        caught.append(number)

    signal.signal(signal.SIGINT, handler)
    ending.begin()
    assert signal.getsignal(signal.SIGINT) is handler
    ending.stop()
    assert signal.getsignal(signal.SIGINT) is handler


def test_reactorOfAnotherThreadHearsNoSignals(ending: Ending, signals: None) -> None:
    """
    A reactor that does not run in the main thread has nothing to do with signals.
    """
    signal.signal(signal.SIGINT, ending.reactor.sigInt)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            ending.begin()
            ending.turn()
            ending.stop()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join(30)
    assert errors == []
    assert signal.getsignal(signal.SIGINT) == ending.reactor.sigInt


def test_whatIsNotDoneWhenTheReactorStops(ending: Ending) -> None:
    """
    When the reactor stops, what others did not wait for fails by name, and the workers
    crash.
    """
    ending.begin()
    ending.turn()
    calls = [Heard(ending.queue.call(abs, -number)) for number in range(2)]
    ending.stop()
    assert [type(call.error) for call in calls] == [WorkerLost, QueueRunError]
    assert "the reactor has stopped" in str(calls[0].error)
    assert (ending.worker.crashes, len(ending.queue), ending.isQuiet) == (1, 0, True)


@pytest.mark.parametrize("stage", ["serving", "leaving", "wanted", "resting"])
def test_shutdownEndsIt(ending: Ending, stage: str) -> None:
    """
    Whoever shuts the queue down meanwhile has it end then, and is told when it has.
    """
    call = None
    ending.worker.lingers = stage in ("leaving", "wanted")
    if stage == "serving":
        call = Heard(ending.queue.call(abs, -1))
    held = ending.begin()
    ending.turn()
    if stage == "wanted":
        call = Heard(ending.queue.call(abs, -1))
    ended = [Heard(ending.queue.shutdown()) for _ in range(2)]
    assert not ending.queue.isRunning()
    with pytest.raises(QueueRunError):
        ending.queue.call(abs, -1)
    if stage == "serving":
        assert (held.results, ended[0].results) == ([], [])
        ending.worker.step()
        assert call is not None
        assert call.result == 1
    elif stage == "wanted":
        assert call is not None
        assert isinstance(call.error, QueueRunError)
    if ending.worker.leaving is not None:
        assert (held.results, ended[0].results) == ([], [])
        ending.worker.leaving.callback(None)
    assert [each.result for each in (held, *ended)] == [None] * 3
    ending.stop()
    assert ending.isQuiet


def test_shutdownKeepsToTheGrace(ending: Ending) -> None:
    """
    Shutting down takes no longer than the reactor would have waited.
    """
    call = Heard(ending.queue.call(abs, -1))
    ending.begin()
    ending.reactor.advance(4)
    ended = Heard(ending.queue.shutdown())
    ending.reactor.advance(5.9)
    assert ended.results == []
    ending.reactor.advance(0.2)
    assert ended.result is None
    assert isinstance(call.error, WorkerLost)


def test_loadEndsWithTheReactor(ending: Ending) -> None:
    """
    Who listens hears of late calls, too.
    """
    heard: list[str] = []
    end = ending.queue.watchWorkers(lambda: heard.append(f"{len(ending.queue)} workers"))
    ending.begin()
    ending.turn()
    ending.queue.call(abs, -1)
    ending.worker.step()
    ending.turn()
    ending.stop()
    end()
    assert heard == ["0 workers", "1 workers", "0 workers"]


# Without a reactor that stops


def test_drainWaitsForWhatIsQueuedNow() -> None:
    """
    It waits for the calls that are queued or run, whatever comes of them, and not for later
    ones; who waits for the calls themselves hears of them first.
    """
    queue = MemoryQueue()
    calls = [Heard(queue.call(divmod, 1, n)) for n in range(3)]
    drained = Heard(queue.drain())
    drained.d.addCallback(lambda _: [len(call.results) for call in calls])
    later = queue.call(abs, -1)
    calls[2].d.cancel()
    worker = queue.workers()[0]
    worker.step()
    assert drained.results == []
    worker.step()
    assert drained.results == []
    queue.clock.advance(0)
    assert resultOf(drained.d) == [1, 1, 1]
    assert not later.called
    queue.finish()


def test_drainOfNothingFires() -> None:
    """
    Where nothing is queued there is nothing to wait for.
    """
    queue = MemoryQueue()
    assert queue.drain().called
    queue.shutdown()
    assert queue.drain().called


def test_drainCountsACallThatIsTriedAgainOnce() -> None:
    """
    A call that is lost and tried again has ended when it has its outcome. An update counts,
    too.
    """
    queue = MemoryQueue()
    call = Heard(queue.call(abs, -1, retries=1))
    update = Heard(queue.update(abs, -2, ephemeral=True))
    drained = Heard(queue.drain())
    queue.workers()[0].resign()
    queue.attachWorker(MemoryWorker())
    queue.clock.advance(0)
    assert isinstance(update.error, WorkerLost)
    assert drained.results == []
    queue.finish()
    queue.clock.advance(0)
    assert (call.result, drained.result) == (1, None)


@pytest.mark.parametrize("when", ["at once", "when the last call has ended"])
def test_drainThatIsCancelledWaitsNoMore(when: str) -> None:
    """
    To cancel it harms no call.
    """
    queue = MemoryQueue()
    call = Heard(queue.call(abs, -1))
    drained = Heard(queue.drain())
    if when == "at once":
        drained.d.cancel()
        queue.finish()
        queue.clock.advance(0)
    else:
        queue.workers()[0].step()
        drained.d.cancel()
        queue.clock.advance(0)
    assert isinstance(drained.error, CancelledError)
    assert call.result == 1


def test_drainEndsWithTheQueue() -> None:
    """
    Calls that are dropped have ended.
    """
    queue = MemoryQueue()
    calls = [Heard(queue.call(abs, -1)) for _ in range(2)]
    drained = Heard(queue.drain())
    queue.shutdown()
    queue.finish()
    queue.clock.advance(0)
    assert drained.result is None
    assert isinstance(calls[1].error, QueueRunError)


def test_shutdownMayMakeWhatIsQueuedFirst() -> None:
    """
    With C{drain} no more calls are taken, those that are queued are made, by workers that
    are attached meanwhile, too, and lost ones are tried again; then the queue ends.
    """
    queue = MemoryQueue()
    calls = [Heard(queue.call(abs, -n, retries=1)) for n in range(3)]
    ended = [Heard(queue.shutdown(drain=True)) for _ in range(2)]
    assert not queue.isRunning()
    with pytest.raises(QueueRunError):
        queue.call(abs, -1)
    with pytest.raises(QueueRunError):
        queue.update(abs, -1)
    queue.workers()[0].resign()
    worker = MemoryWorker()
    queue.attachWorker(worker)
    for _ in calls:
        worker.step()
    assert [call.result for call in calls] == [0, 1, 2]
    assert [each.results for each in ended] == [[], []]
    queue.clock.advance(0)
    assert [each.result for each in ended] == [None, None]
    assert Heard(queue.shutdown(drain=True)).result is None
    assert not queue.clock.getDelayedCalls()


def test_shutdownEndsADrain() -> None:
    """
    Who shuts down without C{drain} meanwhile waits for no queued call.
    """
    queue = MemoryQueue()
    calls = [Heard(queue.call(abs, -1)) for _ in range(2)]
    drained = Heard(queue.shutdown(drain=True))
    ended = Heard(queue.shutdown())
    assert isinstance(calls[1].error, QueueRunError)
    queue.finish()
    assert (drained.result, ended.result) == (None, None)
    assert not queue.clock.getDelayedCalls()


@pytest.mark.parametrize("stage", ["before", "serving", "leaving", "wanted", "resting"])
def test_drainWhileTheReactorStops(ending: Ending, stage: str) -> None:
    """
    At whatever stage of the reactor's end it is asked for, what is queued is made, no call is
    taken any more, and both ends are told.
    """
    calls = [Heard(ending.queue.call(abs, -1))]
    ended = [Heard(ending.queue.shutdown(drain=True))] if stage == "before" else []
    ending.worker.lingers = stage in ("leaving", "wanted")
    held = ending.begin()
    if stage in ("leaving", "wanted", "resting"):
        ending.worker.step()
        ending.turn()
        ending.turn()
    if stage == "wanted":
        calls.append(Heard(ending.queue.call(abs, -1)))
    if stage != "before":
        ended.append(Heard(ending.queue.shutdown(drain=True)))
    assert not ending.queue.isRunning()
    with pytest.raises(QueueRunError):
        ending.queue.call(abs, -1)
    ending.worker.lingers = False
    if ending.worker.leaving is not None:
        ending.worker.leaving.callback(None)
    for _ in range(4):
        ending.turn()
        while ending.worker.tasks:
            ending.worker.step()
    assert [call.result for call in calls] == [1] * len(calls)
    assert [each.result for each in (held, *ended)] == [None, None]
    ending.stop()
    assert ending.isQuiet
