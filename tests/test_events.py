"""
What L{asynqueue.scheduling.events} promises.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.failure import Failure

from asynqueue.errors import ImplementationError
from asynqueue.interfaces import IQueueObserver
from asynqueue.scheduling.events import Announcer, CallLogger, LoadProducer, SilentObserver
from asynqueue.testing import MemoryQueue, RecordingConsumer, RecordingObserver
from tests.doubles import errorOf, readingLogs, resultOf


class Clumsy(SilentObserver):
    """
    Raises whenever it hears of a task.
    """

    def taskQueued(self, task: Any) -> None:
        raise KeyError("clumsy")


def test_observerThatRaisesHarmsNobody() -> None:
    """
    What an observer raises is logged, and the next one hears all the same.
    """
    announcer = Announcer()
    other = RecordingObserver()
    announcer.add(Clumsy())
    announcer.add(other)
    with readingLogs() as logs:
        announcer.announce("taskQueued", "a task")
    assert [type(error) for error in logs.errors()] == [KeyError]
    assert other.events == [("queued", "a task")]


def test_silentObserverHearsAndDoesNothing() -> None:
    """
    It provides the whole interface, and answers nothing.
    """
    observer = SilentObserver()
    assert IQueueObserver.providedBy(observer)
    queue = MemoryQueue()
    queue.addObserver(observer)
    queue.call(abs, -1)
    queue.call(abs, -1, retries=1)
    queue.finish()
    queue.detachWorker(1, crash=True)
    queue.shutdown()


def test_observerIsToldOnce() -> None:
    """
    An observer that is added twice hears once, and can be removed.
    """
    announcer = Announcer()
    observer = RecordingObserver()
    announcer.add(observer)
    announcer.add(observer)
    announcer.announce("taskQueued", 1)
    announcer.remove(observer)
    announcer.remove(observer)
    announcer.announce("taskQueued", 2)
    assert observer.events == [("queued", 1)]
    assert not announcer


def test_onlyObserversAreTaken() -> None:
    """
    What is no IQueueObserver is refused.
    """
    with pytest.raises(ImplementationError, match="IQueueObserver"):
        Announcer().add(object())


def producer(load: int = 0) -> tuple[LoadProducer, RecordingConsumer, list[Any]]:
    consumer = RecordingConsumer()
    stopped: list[Any] = []
    return LoadProducer(consumer, load, stopped.append), consumer, stopped


def test_loadIsWrittenAtEveryChange() -> None:
    """
    A task that is queued is one more, a task that is done is one less.
    """
    loads, consumer, _ = producer(3)
    loads.taskQueued(None)
    loads.taskDone(None, None)
    loads.taskDone(None, None)
    assert consumer.items == [4, 3, 2]


def test_pausedConsumerHearsOnlyTheLast() -> None:
    """
    While it is paused nothing is written, and then the last figure, once.
    """
    loads, consumer, _ = producer()
    loads.pauseProducing()
    for _ in range(5):
        loads.taskQueued(None)
    assert consumer.items == []
    loads.resumeProducing()
    loads.resumeProducing()
    assert consumer.items == [5]


def test_consumerMayStop() -> None:
    """
    A consumer that stops its producer is taken off the list.
    """
    loads, _, stopped = producer()
    loads.stopProducing()
    assert stopped == [loads]


def test_consumerIsLetGoAtTheEnd() -> None:
    """
    At the end of the queue the producer is unregistered.
    """
    loads, consumer, stopped = producer()
    loads.end()
    assert consumer.producer is None
    assert stopped == [loads]


def test_consumerThatRaisesAtTheEndHarmsNobody() -> None:
    """
    A consumer that cannot let go of its producer does not hold the queue up.
    """

    class Sticky(RecordingConsumer):
        def unregisterProducer(self) -> None:
            raise KeyError("sticky")

    queue = MemoryQueue()
    queue.subscribe(Sticky())
    with readingLogs() as logs:
        assert queue.shutdown().called
    assert [type(error) for error in logs.errors()] == [KeyError]


def test_loadIsForConsumersOnly() -> None:
    """
    What is no IConsumer is refused.
    """
    with pytest.raises(ImplementationError, match="IConsumer"):
        LoadProducer(object(), 0, print)


def said(error: Any = None, **kw: Any) -> list[str]:
    """
    What is logged of one call.
    """
    queue = MemoryQueue(**kw)
    with readingLogs() as logs:
        d = queue.call(divmod, 7, 0 if error else 2)
        queue.finish()
    if error:
        assert isinstance(errorOf(d), error)
    return logs.said()


def test_warnLogsErrors() -> None:
    """
    With C{warn} errors are logged, without what was called.
    """
    assert said(warn=True) == []
    assert said(ZeroDivisionError, warn=True) == ["task 1 failed"]


def test_verboseSaysWhatWasCalled() -> None:
    """
    With C{verbose} errors are logged with the call.
    """
    assert said(verbose=True) == []
    assert said(ZeroDivisionError, verbose=True) == ["divmod(7, 0) failed"]


def test_spewLogsEveryCall() -> None:
    """
    With C{spew} every call is logged.
    """
    assert said(spew=True) == ["divmod(7, 2) returned"]
    assert said(ZeroDivisionError, spew=True) == ["divmod(7, 0) failed"]


@pytest.mark.parametrize("kw", [{"warn": True}, {"verbose": True}, {"spew": True}])
def test_errorThatIsNotReturnedIsLoggedOnce(kw: Any) -> None:
    """
    Without C{returnFailure} an error is logged once, whatever else the queue logs.
    """
    queue = MemoryQueue(returnFailure=False, **kw)
    with readingLogs() as logs:
        d = queue.call(divmod, 7, 0)
        queue.finish()
    assert resultOf(d) is None
    assert logs.said() == ["divmod(7, 0) failed"]


def test_quietQueueLogsNothing() -> None:
    """
    Without any of them nothing is logged: the error is the caller's.
    """
    assert said(ZeroDivisionError) == []


def test_callLoggerIsAnObserver() -> None:
    """
    It takes failures as they come.
    """
    with readingLogs() as logs:
        CallLogger(False, False).taskDone(MemoryQueue().call(abs).task, Failure(KeyError()))
    assert [type(error) for error in logs.errors()] == [KeyError]
