"""
L{Prefetch}: the side of a worker that is towards its queue.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.failure import Failure

from asynqueue.errors import WorkerLost
from asynqueue.testing import MemoryTask
from asynqueue.workers.prefetch import Life
from asynqueue.workers.stale import STALE_SECONDS
from tests.doubles import Heard, errorOf
from tests.prefetching import Holder


def handing(worker: Holder) -> list[list[MemoryTask]]:
    """
    What a worker hands back to a queue from now on.
    """
    handed: list[list[Any]] = []
    worker.tasks.returner = lambda tasks: handed.append(list(tasks))
    return handed


def test_isReadyWhileTheWindowHasRoom() -> None:
    """
    A worker is ready at once while it holds fewer tasks than its window has room for, and
    else when enough of them have ended.
    """
    worker = Holder()
    ready = worker.run(MemoryTask(int))
    assert not ready.called
    worker.end(1)
    assert ready.called
    assert worker.run(MemoryTask(int)).called


def test_whatWaitsCounts() -> None:
    """
    A task that waits for somebody who can run it takes a place in the window.
    """
    worker = Holder()
    worker.tasks.waiting[MemoryTask(int)] = None
    ready = worker.tasks.wait()
    worker.tasks.checkReady()
    assert worker.tasks.isWaiting
    worker.tasks.waiting.clear()
    worker.tasks.checkReady()
    assert ready.called


def test_whatDoesNotMoveIsHandedBack() -> None:
    """
    While no task ends, others have what is lined up, and a task that comes then is turned
    away, until one has ended (G6).
    """
    worker = Holder()
    handed = handing(worker)
    tasks = worker.give(3)
    worker.begun.add(1)
    worker.clock.advance(STALE_SECONDS)
    assert handed == [tasks[1:]]
    late = MemoryTask(int)
    ready = worker.run(late)
    assert handed[1:] == [[late]]
    worker.end(1)
    assert ready.called
    assert worker.run(MemoryTask(int)).called
    assert len(worker.tasks.held) == 1


def test_whatMovesStays() -> None:
    """
    While tasks end, those behind them are not handed back.
    """
    worker = Holder()
    handed = handing(worker)
    worker.give(5)
    for number in range(1, 5):
        worker.clock.advance(STALE_SECONDS / 2)
        worker.end(number)
    worker.clock.advance(STALE_SECONDS)
    assert not handed
    assert not worker.clock.getDelayedCalls()


def test_stopsWhereAllWasHandedBack() -> None:
    """
    If a worker that stops had begun none of the tasks that it hands back as nothing moves,
    nothing is left to do: it has stopped.
    """
    worker = Holder()
    worker.isGone = True
    handed = handing(worker)
    given = worker.give(2)
    stopped = Heard(worker.tasks.stop())
    assert stopped.results == []
    worker.clock.advance(STALE_SECONDS)
    assert (handed, stopped.results) == ([given], [None])


def test_isReadyWhereAllWasHandedBack() -> None:
    """
    A worker that has handed back all that it held is ready: no end of a task will say so.
    """
    worker = Holder()
    handing(worker)
    worker.give(1)
    ready = worker.run(MemoryTask(int))
    worker.clock.advance(STALE_SECONDS)
    assert ready.called


def test_withoutAQueueNothingIsTakenBack() -> None:
    """
    What is lined up stays, where there is nobody to hand it back to.
    """
    worker = Holder()
    worker.give(3)
    worker.clock.advance(STALE_SECONDS)
    assert len(worker.tasks.held) == 3
    assert worker.tasks.handBack(tasks := worker.give(1)) == tasks


def test_isRecalledAgainAfterLongerTimes() -> None:
    """
    A worker that can only ask for what is lined up asks again, after twice the time each.
    """
    asked: list[float] = []
    worker = Holder(recall=lambda: asked.append(worker.clock.seconds()))
    handing(worker)
    worker.give(3)
    worker.clock.pump([STALE_SECONDS] * 8)
    assert asked == pytest.approx([STALE_SECONDS, 3 * STALE_SECONDS, 7 * STALE_SECONDS])
    worker.clock.pump([STALE_SECONDS * 100] * 20)
    assert len(asked) == 8


def test_waitsForWhatMayHaveMoved() -> None:
    """
    Nothing is handed back while there is a reason to believe that something moves.
    """
    worker = Holder(patience=lambda looks: 1.0 if looks < 2 else 0.0)
    handed = handing(worker)
    worker.give(3)
    worker.clock.pump([STALE_SECONDS, 1.0])
    assert not handed
    worker.clock.advance(1.0)
    assert handed


def test_whatCannotBeSentEndsLater() -> None:
    """
    A task that cannot be sent fails in the reactor's next turn; the worker has not stopped
    before that.
    """
    worker = Holder()
    worker.isGone = True
    task = MemoryTask(int)
    worker.tasks.cannotSend(task, LookupError("it stays here"))
    stopped = worker.tasks.stop()
    assert not task.ended
    assert not stopped.called
    worker.clock.advance(0)
    assert isinstance(errorOf(task.d), LookupError)
    assert stopped.called


def test_stopsWhenNothingIsLeft() -> None:
    """
    A worker lets go of what runs its tasks, once, when no task and no iterator is left, and
    has stopped when that is gone.
    """
    worker = Holder()
    worker.give(1)
    worker.areOpen = True
    stopped = worker.tasks.stop()
    assert not worker.asked
    worker.end(1)
    assert worker.asked == 1
    assert not worker.letGone
    worker.areOpen = False
    worker.tasks.checkStopped()
    worker.tasks.checkStopped()
    assert worker.letGone == 1
    assert not stopped.called
    worker.isGone = True
    worker.tasks.checkStopped()
    assert stopped.called
    assert worker.tasks.stop().called


def test_crashLeavesWhatHasNoOutcome() -> None:
    """
    A crash gives the tasks without outcome, and tells later which of them had not begun.
    """
    worker = Holder()
    begun, lined, ended = worker.give(3)
    worker.begun.update((1, 3))
    ended.callback(None)
    waiting, unsendable = MemoryTask(int), MemoryTask(int)
    worker.tasks.waiting[waiting] = None
    worker.tasks.cannotSend(unsendable, LookupError())
    left, keys = worker.tasks.crash()
    assert set(left) == {begun, lined, waiting, unsendable}
    assert keys == [1, 3]
    assert set(worker.tasks.takeBack()) == {lined, waiting, unsendable}
    worker.clock.advance(1)
    assert not unsendable.ended
    assert worker.tasks.isIdle
    assert worker.tasks.stop().called


def test_crashLooksNoMore() -> None:
    """
    Nothing is due for a worker that has crashed while tasks were lined up.
    """
    worker = Holder()
    worker.give(3)
    assert worker.clock.getDelayedCalls()
    worker.tasks.crash()
    assert not worker.clock.getDelayedCalls()


def test_findsTasksByTheirKeys() -> None:
    """
    The key of a task is found while the task is held.
    """
    worker = Holder()
    tasks = worker.give(2)
    assert [worker.tasks.keyOf(task) for task in tasks] == [1, 2]
    worker.end(1)
    assert worker.tasks.keyOf(tasks[0]) is None


def test_beginsAnew() -> None:
    """
    A worker that has crashed serves again: what it is given then moves, as far as is known.
    """
    worker = Holder()
    handed = handing(worker)
    worker.give(3)
    worker.begun.add(1)
    worker.clock.advance(STALE_SECONDS)
    worker.tasks.crash()
    worker.tasks.revive()
    assert worker.tasks.life is Life.SERVING
    assert not worker.tasks.takeBack()
    worker.give(2)
    assert len(worker.tasks.held) == 2
    assert len(handed) == 1


@pytest.mark.parametrize("begun", [False, True])
def test_lostTasksNameTheirWorker(begun: bool) -> None:
    """
    A task that nobody will end fails with the worker, the reason, and whether it had begun.
    """
    worker = Holder()
    heard = Heard((task := MemoryTask(int)).d)
    worker.tasks.lose([task], "it is full", begun)
    (failure,) = heard.results
    assert isinstance(failure, Failure)
    error = failure.value
    assert isinstance(error, WorkerLost)
    assert (error.worker, error.reason, error.begun) == ("Holder 3", "it is full", begun)


def test_theNameMayBeAnother() -> None:
    """
    A worker may have a name of its own in messages.
    """
    assert Holder(name=lambda: "the third").tasks.name() == "the third"
