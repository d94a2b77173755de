"""
L{Prefetch}, with whatever a worker and its queue may do, in any order.
"""

from __future__ import annotations

from typing import Any

from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred

from asynqueue.interfaces import ITask
from asynqueue.testing import MemoryTask
from asynqueue.workers.prefetch import Life
from asynqueue.workers.stale import STALE_SECONDS
from tests.doubles import Heard
from tests.prefetching import Holder


class Prefetching(RuleBasedStateMachine):
    """
    No task is held twice or lost; the worker is ready exactly while its window has room, and
    has stopped exactly when nothing is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.worker = Holder()
        self.tasks: list[MemoryTask] = []
        # Those that the queue has, since they were handed back, taken back or left.
        self.returned: list[ITask] = []
        self.ready: Deferred[None] | None = None
        self.stops: list[Heard] = []
        # How many tasks there were as the present life of the worker began.
        self.since = 0

    @initialize(slots=st.integers(1, 3), most=st.sampled_from([0, 4, 20]), queue=st.booleans())
    def hire(self, slots: int, most: int, queue: bool) -> None:
        self.worker = Holder(slots, most)
        self.worker.isGone = True
        if queue:
            self.worker.tasks.returner = self.returned.extend

    @property
    def isServing(self) -> bool:
        return self.worker.tasks.life is Life.SERVING

    @property
    def isReady(self) -> bool:
        return self.isServing and (self.ready is None or self.ready.called)

    @property
    def mayEnd(self) -> bool:
        """
        Whether this life was long enough for something to happen in it.
        """
        return len(self.tasks) - self.since >= 10

    @property
    def isLeft(self) -> bool:
        """
        Whether there is something that keeps the worker from stopping.
        """
        tasks = self.worker.tasks
        return bool(tasks.held or tasks.waiting or tasks._unsendable or self.worker.areOpen)

    # What the queue does

    @precondition(lambda self: self.isReady)
    @rule(again=st.booleans(), count=st.integers(1, 12))
    def give(self, again: bool, count: int) -> None:
        while count and self.isReady:
            count -= 1
            if again and self.returned:
                task: Any = self.returned.pop(0)
            else:
                task = MemoryTask(int)
                self.tasks.append(task)
            self.ready = self.worker.run(task)

    @precondition(lambda self: self.isServing)
    @rule()
    def takeBack(self) -> None:
        self.returned += self.worker.tasks.takeBack()
        self.worker.tasks.checkReady()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        data.draw(st.sampled_from(self.tasks)).callback("cancelled")

    @precondition(lambda self: self.mayEnd and self.worker.tasks.life is not Life.CRASHED)
    @rule()
    def stop(self) -> None:
        self.stops.append(Heard(self.worker.tasks.stop()))

    @precondition(lambda self: self.mayEnd and self.worker.tasks.life is not Life.CRASHED)
    @rule()
    def crash(self) -> None:
        tasks = self.worker.tasks
        left, keys = tasks.crash()
        tasks.sayStopped()
        assert set(keys) <= self.worker.begun
        assert set(tasks.takeBack()) <= set(left)
        assert not any(task.ended for task in left)
        self.returned += left
        self.worker.areOpen = False
        self.ready = None

    @precondition(lambda self: self.worker.tasks.life in (Life.CRASHED, Life.LEAVING))
    @rule()
    def revive(self) -> None:
        if self.worker.isGone:
            self.since = len(self.tasks)
            self.worker.tasks.revive()

    # What the worker does

    @precondition(lambda self: self.worker.tasks.held)
    @rule(data=st.data())
    def begin(self, data: Any) -> None:
        self.worker.begun.add(data.draw(st.sampled_from(list(self.worker.tasks.held))))

    @precondition(lambda self: self.worker.tasks.held)
    @rule(data=st.data(), seconds=st.sampled_from([0.0001, 0.002, 1.0]))
    def end(self, data: Any, seconds: float) -> None:
        held = list(self.worker.tasks.held)
        numbers = data.draw(st.lists(st.sampled_from(held), min_size=1, unique=True))
        self.worker.settle(numbers, lambda task: task.callback("done"), seconds)

    @precondition(lambda self: self.worker.tasks.held)
    @rule(data=st.data())
    def lose(self, data: Any) -> None:
        tasks = self.worker.tasks
        number = data.draw(st.sampled_from(list(tasks.held)))
        task: Any = tasks.held.pop(number)
        isNew = not task.ended
        tasks.lose([task], "it is lost")
        if isNew:
            task.d.addErrback(lambda failure: None)
        tasks.checkReady()
        tasks.checkStopped()

    @precondition(lambda self: self.isReady)
    @rule()
    def giveUnsendable(self) -> None:
        task = MemoryTask(int)
        task.d.addErrback(lambda failure: None)
        self.tasks.append(task)
        self.worker.tasks.cannotSend(task, LookupError("it stays here"))
        self.ready = self.worker.tasks.taken()

    @precondition(lambda self: self.isReady)
    @rule()
    def giveWaiting(self) -> None:
        task = MemoryTask(int)
        self.tasks.append(task)
        self.worker.tasks.waiting[task] = None
        self.ready = self.worker.tasks.taken()

    @rule()
    def seat(self) -> None:
        tasks = self.worker.tasks
        if tasks.life is not Life.CRASHED:
            for task in tasks.takeWaiting():
                self.worker.last += 1
                tasks.held[self.worker.last] = task

    @precondition(lambda self: self.isServing)
    @rule(areOpen=st.booleans())
    def open(self, areOpen: bool) -> None:
        self.worker.areOpen = areOpen

    @rule(isGone=st.booleans())
    def go(self, isGone: bool) -> None:
        tasks = self.worker.tasks
        if isGone or tasks.life is Life.SERVING:
            self.worker.isGone = isGone
            tasks.checkStopped()

    @rule()
    def close(self) -> None:
        self.worker.areOpen = False
        self.worker.tasks.checkStopped()

    @rule(times=st.sampled_from([0, 1, 3]))
    def advance(self, times: int) -> None:
        self.worker.clock.advance(times * STALE_SECONDS)

    # What is always true

    @invariant()
    def eachTaskIsInOnePlace(self) -> None:
        tasks = self.worker.tasks
        places = [*tasks.held.values(), *tasks.waiting, *tasks._unsendable, *self.returned]
        assert len(places) == len(set(places))
        assert {task for task in self.tasks if not task.ended} <= set(places)

    @invariant()
    def isReadyWhileThereIsRoom(self) -> None:
        tasks = self.worker.tasks
        if self.ready is not None and not self.ready.called:
            assert tasks.count >= tasks.window.size or tasks.life is not Life.SERVING

    @invariant()
    def hasStoppedWhenNothingIsLeft(self) -> None:
        tasks = self.worker.tasks
        waits = any(not heard.results for heard in self.stops)
        if tasks.life is Life.STOPPING:
            assert self.isLeft
            assert waits
        if tasks.life is Life.LEAVING:
            assert not self.isLeft
            assert waits is not self.worker.isGone
        if tasks.life is Life.CRASHED:
            assert not self.isLeft
            assert not waits

    @invariant()
    def looksWhileTasksAreLinedUpOnly(self) -> None:
        tasks = self.worker.tasks
        if tasks.life in (Life.LEAVING, Life.CRASHED):
            assert not tasks._stale.isRunning

    def teardown(self) -> None:
        """
        Everything comes to its end, and nothing is left.
        """
        worker, tasks = self.worker, self.worker.tasks
        if tasks.life is not Life.CRASHED:
            self.stop()
        self.seat()
        if tasks.held:
            worker.settle(list(tasks.held), lambda task: task.callback("done"), 0.001)
        worker.clock.advance(0)
        self.close()
        self.go(True)
        assert all(heard.results == [None] for heard in self.stops)
        assert {task for task in self.tasks if not task.ended} <= set(self.returned)
        assert not worker.clock.getDelayedCalls()


TestPrefetching = Prefetching.TestCase
TestPrefetching.settings = settings(stateful_step_count=50, phases=[Phase.generate])
