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

# After so many steps of so many seconds each look is over, however long it was put off.
_LOOKS, _LONG = 12, 2**9 * STALE_SECONDS


class Prefetching(RuleBasedStateMachine):
    """
    No task is held twice or lost, and each is ended or handed back once. The worker is ready
    exactly as its window has room, has stopped exactly when nothing is left, and hands back
    what is lined up exactly if nothing moves.

    @ivar tasks: all tasks that there were.
    @ivar returned: those that the queue has, since they were handed back, taken back or left.
    @ivar cancelled: those that the queue has ended.
    @ivar unsendable: those that are about to end.
    @ivar wrong: what was seen within a callback, where no error would be heard of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.worker = Holder()
        self.tasks: list[MemoryTask] = []
        self.returned: list[ITask] = []
        self.cancelled: set[ITask] = set()
        self.unsendable: set[ITask] = set()
        self.wrong: list[str] = []
        self.ready: Deferred[None] | None = None
        self.stops: list[Heard] = []
        # How many tasks there were as the present life of the worker began.
        self.since = 0
        self.hasQueue = self.isEager = self.recalls = self.isQuiet = False
        self.recalled = self.lives = 0

    @initialize(
        slots=st.integers(1, 3),
        most=st.sampled_from([0, 4, 8, 20]),
        hasQueue=st.sampled_from([True, True, False]),
        isEager=st.booleans(),
        recalls=st.sampled_from([False, False, True]),
    )
    def hire(self, slots: int, most: int, hasQueue: bool, isEager: bool, recalls: bool) -> None:
        """
        @param isEager: whether the queue gives another task as soon as the worker is ready.
        @param recalls: whether the worker can only ask for what is lined up.
        """
        options: dict[str, Any] = {"recall": self.noteRecall} if recalls else {}
        self.worker = Holder(slots, most, **options)
        self.worker.isGone = True
        self.hasQueue, self.isEager, self.recalls = hasQueue, isEager, recalls
        # Tasks were short before.
        self.worker.tasks.window.measured(1, 0.0001)
        if hasQueue:
            self.worker.tasks.returner = self.returned.extend

    # What is seen from outside

    @property
    def life(self) -> Life:
        return self.worker.tasks.life

    @property
    def count(self) -> int:
        """
        How many tasks count for the window.
        """
        return len(self.worker.tasks.held) + len(self.worker.tasks.waiting)

    @property
    def hasRoom(self) -> bool:
        return self.count < self.worker.tasks.window.size

    @property
    def isReady(self) -> bool:
        return self.life is Life.SERVING and (self.ready is None or self.ready.called)

    @property
    def mayEnd(self) -> bool:
        """
        Whether this life was long enough for something to happen in it.
        """
        return len(self.tasks) - self.since >= 6 and self.life is not Life.CRASHED

    @property
    def isLeft(self) -> bool:
        """
        Whether there is something that keeps the worker from stopping.
        """
        return bool(self.count or self.unsendable or self.worker.areOpen)

    @property
    def unbegun(self) -> list[ITask]:
        """
        Those that no one has begun, and that are not about to end.
        """
        tasks = self.worker.tasks
        held = [task for number, task in tasks.held.items() if number not in self.worker.begun]
        return [task for task in (*held, *tasks.waiting) if not task.ended]

    @property
    def isLinedUp(self) -> bool:
        return self.count > self.worker.slots

    def noteRecall(self) -> None:
        self.recalled += 1

    def expect(self, isTrue: bool, what: str) -> None:
        if not isTrue:
            self.wrong.append(what)

    # What the queue does

    def newTask(self) -> MemoryTask:
        task = MemoryTask(int)
        task.d.addErrback(lambda failure: None)
        self.tasks.append(task)
        return task

    def taken(self, ready: Deferred[None]) -> None:
        """
        Hear of what the worker returned as it took a task.
        """
        self.expect(ready.called is self.hasRoom, "it said wrongly that it was ready, or not")
        self.ready = ready
        self.isQuiet = False
        if not ready.called:
            ready.addCallback(lambda _: self.becameReady())

    def becameReady(self) -> None:
        self.expect(self.hasRoom, "it was ready without room")
        if self.isEager and self.life is Life.SERVING:
            self.run(self.newTask())

    def run(self, task: ITask) -> None:
        tasks = self.worker.tasks
        window = tasks.window
        isFull = len(tasks.held) >= window.size
        isAway = self.hasQueue and isFull and (window.isClosed or not window.size)
        before = len(self.returned)
        ready = self.worker.run(task)
        if isAway:
            assert self.returned[before:] == [task]
            assert not ready.called
            self.ready = ready
            ready.addCallback(lambda _: self.becameReady())
        else:
            assert len(self.returned) == before
            assert task in tasks.held.values()
            self.taken(ready)

    @precondition(lambda self: self.isReady)
    @rule(again=st.booleans(), count=st.sampled_from([1, 2, 4, 25]))
    def give(self, again: bool, count: int) -> None:
        while count and self.isReady:
            count -= 1
            back = [task for task in self.returned if not task.ended] if again else []
            if back:
                self.returned.remove(back[0])
            self.run(back[0] if back else self.newTask())

    @precondition(lambda self: self.life is Life.SERVING and self.unbegun)
    @rule()
    def takeBack(self) -> None:
        expected = self.unbegun
        back = list(self.worker.tasks.takeBack())
        assert back == expected
        assert not self.worker.tasks.waiting
        self.returned += back
        self.worker.tasks.checkReady()

    @precondition(lambda self: any(not task.ended for task in self.tasks))
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.finish(data.draw(st.sampled_from([task for task in self.tasks if not task.ended])))

    def finish(self, task: ITask) -> None:
        if not task.ended:
            self.cancelled.add(task)
            task.callback("cancelled")

    @precondition(lambda self: self.mayEnd or self.life is Life.BROKEN)
    @rule(
        how=st.sampled_from(["stop", "stop", "crash", "break"]),
        isFirst=st.booleans(),
        isStuck=st.booleans(),
    )
    def leave(self, how: str, isFirst: bool, isStuck: bool) -> None:
        """
        @param isFirst: whether it is given one before that cannot be sent, and one that it
            holds has its outcome.
        @param isStuck: whether nothing moves from then on.
        """
        if isFirst and self.isReady:
            self.giveAnother(1, isSendable=False)
        if isFirst and self.worker.tasks.held:
            self.finish(next(iter(self.worker.tasks.held.values())))
        if how == "stop":
            d = self.worker.tasks.stop()
            d.addCallback(lambda _: self.hasStopped())
            self.stops.append(Heard(d))
            if isStuck and self.isLinedUp:
                self.nothingMoves(0, isGiven=False)
        elif how == "crash":
            self.crash()
        elif self.life is Life.SERVING:
            self.worker.tasks.life = Life.BROKEN

    def hasStopped(self) -> None:
        isLeft = self.count or self.worker.areOpen or any(not t.ended for t in self.unsendable)
        isOver = self.life is Life.CRASHED or (self.worker.isGone and not isLeft)
        self.expect(isOver, "it has stopped with something left")

    def crash(self) -> None:
        tasks = self.worker.tasks
        notBegun = {task for task in (*self.unbegun, *self.unsendable) if not task.ended}
        expected = notBegun | {task for task in tasks.held.values() if not task.ended}
        left, keys = tasks.crash()
        self.unsendable.clear()
        self.worker.areOpen = False
        tasks.sayStopped()
        assert set(keys) <= self.worker.begun
        assert len(left) == len(expected)
        assert set(left) == expected
        assert set(tasks.takeBack()) == notBegun
        self.returned += left
        self.ready = None

    @precondition(lambda self: self.life in (Life.CRASHED, Life.LEAVING) and self.worker.isGone)
    @rule()
    def revive(self) -> None:
        self.since = len(self.tasks)
        assert self.worker.letGone - self.lives <= 1
        self.lives = self.worker.letGone
        self.worker.tasks.revive()
        assert not self.worker.tasks.window.isClosed
        assert not self.worker.tasks.takeBack()

    # What the worker does

    @precondition(lambda self: self.worker.tasks.held)
    @rule(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.worker.begun.update(list(self.worker.tasks.held)[:count])

    @precondition(lambda self: self.worker.tasks.held)
    @rule(
        count=st.sampled_from([1, 1, 2, 25]),
        last=st.booleans(),
        seconds=st.sampled_from([0.0001, 0.002, 1.0]),
        isLost=st.sampled_from([False, False, True]),
    )
    def end(self, count: int, last: bool, seconds: float, isLost: bool) -> None:
        held = list(self.worker.tasks.held)
        numbers = held[-count:] if last else held[:count]
        if isLost:
            self.lose(numbers[0])
        else:
            self.settle(numbers, seconds)

    def lose(self, number: int) -> None:
        tasks = self.worker.tasks
        task = tasks.held.pop(number)
        tasks.lose([task], "it is lost")
        assert task.ended
        tasks.checkReady()
        tasks.checkStopped()

    def settle(self, numbers: list[int], seconds: float) -> None:
        self.worker.begun.update(numbers)
        self.worker.settle(numbers, lambda task: task.callback("done"), seconds)

    @precondition(lambda self: self.isReady)
    @rule(count=st.sampled_from([1, 3, 25]), isSendable=st.booleans())
    def giveAnother(self, count: int, isSendable: bool) -> None:
        """
        Some that wait for somebody who can run them, or one that cannot be sent.
        """
        while count and self.isReady:
            task = self.newTask()
            if isSendable:
                count -= 1
                self.worker.tasks.waiting[task] = None
            else:
                count = 0
                self.unsendable.add(task)
                self.worker.tasks.cannotSend(task, LookupError("it stays here"))
                assert not task.ended
            self.taken(self.worker.tasks.taken())

    @precondition(lambda self: self.worker.tasks.waiting)
    @rule()
    def hold(self) -> None:
        tasks = self.worker.tasks
        for task in tasks.takeWaiting():
            self.worker.last += 1
            tasks.held[self.worker.last] = task

    @precondition(lambda self: self.mayEnd or self.life is not Life.SERVING)
    @rule(areOpen=st.booleans(), isGone=st.booleans())
    def change(self, areOpen: bool, isGone: bool) -> None:
        """
        Iterators end, or what runs the tasks is gone. New ones come while it serves only. The
        worker looks at all of it, as it may at any time.
        """
        serves = self.life in (Life.SERVING, Life.BROKEN)
        self.worker.areOpen = areOpen and (serves or self.worker.areOpen)
        self.worker.isGone = isGone or (not serves and self.worker.isGone)
        self.worker.tasks.checkReady()
        self.worker.tasks.checkStopped()

    @precondition(lambda self: self.recalls and self.worker.tasks.held)
    @rule(count=st.integers(1, 4), isCancelled=st.booleans())
    def answer(self, count: int, isCancelled: bool) -> None:
        """
        Hand back some of what was asked for, of which the first may have its outcome.
        """
        tasks = self.worker.tasks
        numbers = [number for number in tasks.held if number not in self.worker.begun][:count]
        if isCancelled and numbers:
            self.finish(tasks.held[numbers[0]])
        back = [tasks.held.pop(number) for number in numbers]
        unended = [task for task in back if not task.ended]
        before = len(self.returned)
        kept = tasks.handBack(back)
        assert (self.returned[before:], kept) == ((unended, []) if self.hasQueue else ([], unended))
        self.returned += kept
        tasks.checkReady()
        tasks.checkStopped()

    # Time

    def pass_(self, seconds: float) -> None:
        self.worker.clock.advance(seconds)
        # Whatever was about to end has ended, as the reactor had a turn.
        unsendable, self.unsendable = self.unsendable, set()
        assert all(task.ended for task in unsendable)

    @precondition(lambda self: self.worker.clock.getDelayedCalls())
    @rule(times=st.sampled_from([0, 1, 3, 100]))
    def advance(self, times: int) -> None:
        if times == 100 and self.isLinedUp:
            self.nothingMoves(self.worker.slots - 1, isGiven=True)
        else:
            self.pass_(times * STALE_SECONDS)

    @precondition(lambda self: self.isLinedUp and self.life is not Life.CRASHED)
    @rule(begun=st.integers(0, 4), isGiven=st.booleans())
    def nothingMoves(self, begun: int, isGiven: bool) -> None:
        """
        Others have what is lined up, after a while; what the queue gives then, too.
        """
        self.begin(begun)
        recalled, before = self.recalled, self.count
        for _ in range(_LOOKS):
            self.pass_(_LONG)
        if self.hasQueue and self.recalls:
            # It asks some times only, until it has taken another task.
            assert self.isQuiet or self.recalled > recalled
            self.isQuiet = True
        elif self.hasQueue:
            assert self.unbegun == [] or not self.isLinedUp
            window = self.worker.tasks.window
            # A task that ends after its last look opens the window, until it has taken another.
            assert self.isQuiet or (window.isClosed, window.size) == (True, self.worker.slots)
            self.isQuiet = True
        else:
            assert (self.count, self.recalled) == (before, recalled)
        if isGiven and self.isReady:
            self.give(again=False, count=4)

    @precondition(lambda self: self.isLinedUp and self.worker.tasks.held)
    @rule()
    def allMoves(self) -> None:
        """
        While tasks end, those behind them stay.
        """
        tasks = self.worker.tasks
        self.settle([next(iter(tasks.held))], 0.001)
        before = list(self.returned), self.recalled
        for _ in range(5):
            if not tasks.held:
                break
            self.pass_(0.9 * STALE_SECONDS)
            assert (self.returned, self.recalled) == before
            self.settle([next(iter(tasks.held))], 0.001)

    # What is always true

    @invariant()
    def nothingWasWrong(self) -> None:
        assert self.wrong == []

    @invariant()
    def eachTaskIsInOnePlace(self) -> None:
        tasks = self.worker.tasks
        places = [*tasks.held.values(), *tasks.waiting, *self.unsendable, *self.returned]
        assert len(places) == len(set(places))
        assert {task for task in self.tasks if not task.ended} <= set(places)

    @invariant()
    def eachTaskEndsOnce(self) -> None:
        assert all(task.ends <= 1 + (task in self.cancelled) for task in self.tasks)
        assert all(
            task.ended is (task in self.cancelled)
            for task in (
                *self.worker.tasks.held.values(),
                *self.worker.tasks.waiting,
                *self.returned,
            )
        )

    @invariant()
    def isReadyWhileThereIsRoom(self) -> None:
        if self.ready is not None and not self.ready.called and self.life is Life.SERVING:
            assert not self.hasRoom
            assert self.worker.tasks.isWaiting

    @invariant()
    def hasStoppedWhenNothingIsLeft(self) -> None:
        waits = any(not heard.results for heard in self.stops)
        if self.life in (Life.SERVING, Life.BROKEN):
            assert self.worker.letGone == self.lives
        if self.life is Life.STOPPING:
            assert self.isLeft
            assert waits
        if self.life is Life.LEAVING:
            assert not self.isLeft
            assert waits is not self.worker.isGone
            assert self.worker.letGone == self.lives + 1
        if self.life is Life.CRASHED:
            assert not self.isLeft
            assert not waits

    @invariant()
    def looksWhileTasksAreLinedUpOnly(self) -> None:
        clock = self.worker.clock
        if self.life in (Life.LEAVING, Life.CRASHED):
            # What was about to end may have been left by a crash.
            assert all(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls())

    @invariant()
    def tellsItsState(self) -> None:
        expected = self.life.value
        if self.life in (Life.STOPPING, Life.LEAVING):
            waits = any(not heard.results for heard in self.stops)
            expected = "stopping" if waits else "stopped"
        assert self.worker.tasks.state() == expected

    def teardown(self) -> None:
        """
        Everything comes to its end, and nothing is left.
        """
        worker, tasks = self.worker, self.worker.tasks
        if self.life is not Life.CRASHED:
            self.stops.append(Heard(tasks.stop()))
            self.hold()
        if tasks.held:
            self.settle(list(tasks.held), 0.001)
        self.pass_(0)
        self.change(areOpen=False, isGone=True)
        assert all(heard.results == [None] for heard in self.stops)
        assert {task for task in self.tasks if not task.ended} <= set(self.returned)
        assert not worker.clock.getDelayedCalls()


TestPrefetching = Prefetching.TestCase
TestPrefetching.settings = settings(
    max_examples=2 * settings().max_examples, stateful_step_count=50, phases=[Phase.generate]
)
