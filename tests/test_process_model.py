"""
Process workers on a clock, with children that do as the test wants, in any order.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from hypothesis import Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from asynqueue import ProcessWorker
from asynqueue.errors import ImplementationError, QueueRunError, WorkerLost
from asynqueue.iteration.deferator import Deferator
from asynqueue.taskqueue import TaskQueue
from tests.children import ChildDouble, ReadingClock, Unsendable, f
from tests.doubles import Heard

# The name of what an update calls: it is made as often as there are children.
UPDATE = "update"


class Children(RuleBasedStateMachine):
    """
    Whatever children do, and whatever is asked of their workers, each call has one outcome,
    none begins again that may not, and nothing is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = ReadingClock()
        self.queue = TaskQueue(reactor=self.clock, timeout=20)
        self.workers: list[ProcessWorker] = []
        self.children: list[ChildDouble] = []
        self.ofWorkers: dict[int, list[ChildDouble]] = {}
        self.limits: dict[ChildDouble, int | None] = {}
        self.isRefused = False
        self.calls: dict[int, Heard] = {}
        self.others: list[Heard] = []
        self.isShut = False
        # Whether a worker may have crashed, before it read what its child had sent.
        self.mayCrash = False
        # How often each call may begin, has begun, and was about to.
        self.allowed: Counter[Any] = Counter()
        self.begun: Counter[Any] = Counter()
        self.failures: list[Any] = []
        globalLogPublisher.addObserver(self.logged)

    def logged(self, event: LogEvent) -> None:
        """
        Nothing here raises what is only logged.
        """
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    # What the doubles tell

    def spawn(self, worker: int, maxTasks: int | None, limit: int) -> ChildDouble:
        """
        Start a child, unless the system has no room.
        """
        if self.isRefused:
            raise OSError("no room")
        child = ChildDouble(limit, len(self.children), self.begins)
        self.children.append(child)
        self.ofWorkers.setdefault(worker, []).append(child)
        self.limits[child] = maxTasks
        return child

    def begins(self, child: ChildDouble, args: Any) -> None:
        """
        A child begins a call.
        """
        (name, *_) = args
        if name != UPDATE:
            child.made += 1
            self.begun[name] += 1

    # What is asked of the queue

    @initialize(maxTasks=st.sampled_from([None, 2]))
    def begin(self, maxTasks: Any) -> None:
        self.attach(maxTasks, None, None, False)
        self.call(3, (), retries=0)

    @rule(
        retries=st.sampled_from([0, 0, 0, 1, 2]),
        timeout=st.sampled_from([None, None, 3]),
        doNext=st.booleans(),
        more=st.sampled_from([(), (), (), (Unsendable(),)]),
        count=st.integers(1, 4),
    )
    def call(self, count: int, more: Any, **options: Any) -> None:
        for _ in range(count):
            self.ask(more, **options)

    def ask(self, more: tuple[Any, ...], **options: Any) -> None:
        """
        Have a call made.
        """
        name = len(self.calls)
        try:
            d = self.queue.call(f, name, *more, **options)
        except QueueRunError:
            assert self.isShut
            return
        self.allowed[name] = 1 + options.get("retries", 0)
        self.calls[name] = Heard(d)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), steps=st.integers(0, 6))
    def cancel(self, data: Any, steps: int) -> None:
        self.moves(steps)
        waiting = [name for name, heard in self.calls.items() if not heard.results]
        if waiting:
            name = data.draw(st.sampled_from(waiting))
            self.calls[name].d.cancel()
            for child in self.living():
                if child.isAlive and child.running is not None and child.running[1][0] == name:
                    assert child.isInterrupted

    @rule(ephemeral=st.booleans())
    def update(self, ephemeral: bool) -> None:
        if not self.isShut:
            self.others.append(Heard(self.queue.update(f, UPDATE, ephemeral=ephemeral)))

    @precondition(lambda self: len(self.workers) < 3 and not self.isShut)
    @rule(
        maxTasks=st.sampled_from([None, None, 1, 2]),
        maxMemory=st.sampled_from([None, None, 100]),
        idleTimeout=st.sampled_from([None, None, 2]),
        isStarted=st.booleans(),
    )
    def attach(self, maxTasks: Any, maxMemory: Any, idleTimeout: Any, isStarted: bool) -> None:
        spawn: Any = partial(self.spawn, len(self.workers), maxTasks)
        worker = ProcessWorker(
            maxTasks=maxTasks,
            maxMemory=maxMemory,
            idleTimeout=idleTimeout,
            reactor=self.clock,
            spawn=spawn,
            now=self.clock.seconds,
        )
        self.workers.append(worker)
        if isStarted:
            worker.start()
        self.others.append(Heard(self.queue.attachWorker(worker)))

    @precondition(lambda self: self.workers and not self.isShut)
    @rule(data=st.data())
    def attachAgain(self, data: Any) -> None:
        try:
            d = self.queue.attachWorker(data.draw(st.sampled_from(self.workers)))
        except ImplementationError:
            # It is leaving.
            return
        self.others.append(Heard(d))

    @precondition(lambda self: self.queue.workers())
    @rule(data=st.data(), crash=st.booleans(), reassign=st.booleans(), steps=st.integers(0, 6))
    def detach(self, data: Any, crash: bool, reassign: bool, steps: int) -> None:
        self.moves(steps)
        if not self.queue.workers():
            return
        self.mayCrash = True
        if crash and reassign:
            for name, heard in self.calls.items():
                self.allowed[name] += not heard.results
        worker = data.draw(st.sampled_from(self.queue.workers()))
        self.others.append(Heard(self.queue.detachWorker(worker, reassign, crash)))

    @precondition(lambda self: len(self.calls) > 30)
    @rule()
    def shutdown(self) -> None:
        self.isShut = self.mayCrash = True
        self.others.append(Heard(self.queue.shutdown()))

    # What children do

    def living(self) -> list[ChildDouble]:
        """
        The children that are not released.
        """
        return [child for child in self.children if not child.hasExited]

    def moves(self, steps: int) -> None:
        """
        Have each child do so many steps, of which not all are heard of.
        """
        for step in range(steps):
            for child in self.living():
                child.step()
            if step < 5:
                self.clock.turn()

    @precondition(lambda self: self.living())
    @rule(
        data=st.data(),
        times=st.integers(1, 8),
        how=st.sampled_from(["returns", "returns", "raises", "iterates", "stops"]),
        seconds=st.sampled_from([0.0001, 0.002, 1.0]),
        heard=st.booleans(),
    )
    def step(self, data: Any, times: int, how: str, seconds: float, heard: bool) -> None:
        child = data.draw(st.sampled_from(self.living()))
        for _ in range(times):
            child.step(how, seconds)
            if heard:
                self.clock.turn()

    @precondition(lambda self: self.living())
    @rule(times=st.integers(1, 12), seconds=st.sampled_from([0.0001, 0.002, 1.0]))
    def work(self, times: int, seconds: float) -> None:
        for _ in range(times):
            for child in self.living():
                child.step("returns", seconds)
            self.clock.turn()

    @precondition(lambda self: self.living())
    @rule(
        data=st.data(),
        code=st.sampled_from([0, 3, -9, -11]),
        steps=st.integers(0, 6),
        endIsSeenFirst=st.booleans(),
    )
    def exit(self, data: Any, code: int, steps: int, endIsSeenFirst: bool) -> None:
        child = data.draw(st.sampled_from(self.living()))
        self.moves(steps)
        if endIsSeenFirst:
            for _ in range(steps):
                child.step()
        child.exit(code)
        if endIsSeenFirst:
            self.clock.turn(isBackwards=True)

    @precondition(lambda self: any(child.isKilled for child in self.living()))
    @rule()
    def reap(self) -> None:
        for child in self.living():
            if child.isKilled:
                child.exit()

    @rule(isRefused=st.booleans())
    def refuse(self, isRefused: bool) -> None:
        self.isRefused = isRefused

    @precondition(lambda self: self.living())
    @rule(data=st.data(), resident=st.sampled_from([50, 150, 250]))
    def use(self, data: Any, resident: int) -> None:
        data.draw(st.sampled_from(self.living())).resident = resident

    @rule()
    def turn(self) -> None:
        self.clock.turn()

    @rule(seconds=st.sampled_from([0, 0, 0.01, 0.15, 1, 6, 25, 70]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    # What is always true

    @invariant()
    def allHolds(self) -> None:
        self.everyDeferredFiresOnceAtTheMost()
        self.nothingBeginsOftenerThanItMay()
        self.outcomesAreTrue()
        self.whatHasReturnedIsNotLost()
        self.callsAreMadeOneAfterTheOther()
        self.noChildMakesMoreThanItMay()
        self.whatIsHeldIsHeldOnce()
        self.nothingIsDueForTheDead()
        self.nothingIsOnlyLogged()

    def everyDeferredFiresOnceAtTheMost(self) -> None:
        assert all(len(each.results) <= 1 for each in (*self.calls.values(), *self.others))

    def nothingBeginsOftenerThanItMay(self) -> None:
        for name, times in self.begun.items():
            assert times <= self.allowed[name], f"call {name} began {times} times"

    def outcomesAreTrue(self) -> None:
        for name, heard in self.calls.items():
            for result in heard.results:
                if isinstance(result, Failure):
                    error = result.value
                    if isinstance(error, WorkerLost) and not error.begun:
                        assert not self.begun[name] or self.allowed[name] > 1
                    if type(error) is LookupError and error.args != ("it stays here",):
                        assert error.args[0][0] == name
                        assert self.begun[name]
                else:
                    assert isinstance(result, Deferator) or result[0] == name
                    assert self.begun[name]

    def whatHasReturnedIsNotLost(self) -> None:
        if not self.mayCrash:
            for child in self.children:
                for name, *_ in child.ended:
                    for result in self.calls[name].results if name != UPDATE else ():
                        assert not isinstance(result, Failure) or not result.check(WorkerLost)

    def callsAreMadeOneAfterTheOther(self) -> None:
        for children in self.ofWorkers.values():
            running = [child.running for child in children if child.isAlive]
            # What prepares a child may be made while the one before makes its last call.
            calls = [each for each in running if each is not None and each[1][0] != UPDATE]
            assert len(calls) <= 1

    def noChildMakesMoreThanItMay(self) -> None:
        for child, most in self.limits.items():
            assert most is None or child.made <= most

    def whatIsHeldIsHeldOnce(self) -> None:
        for worker in self.workers:
            sent = [
                task for each in worker._supervisor.children for task in each.calls.held.values()
            ]
            assert len(sent) == len(set(sent))
            tasks = worker._tasks
            assert not set(sent) & set(tasks.waiting)
            assert not set(tasks.held) & set(tasks.waiting)
            if worker in self.queue.workers():
                assert {task for task in sent if not task.ended} <= set(tasks.held) <= set(sent)
                # What cannot be sent ends in the next turn.
                assert all(
                    isinstance(task.callTuple[1][-1], Unsendable) for task in tasks._unsendable
                )

    def nothingIsDueForTheDead(self) -> None:
        for worker in self.workers:
            supervisor = worker._supervisor
            assert supervisor.child is not None or not supervisor._idle.isRunning

    def nothingIsOnlyLogged(self) -> None:
        assert not self.failures, self.failures[0]

    # The end

    def goOn(self, isOver: Any) -> None:
        """
        Let children do their work, until something is so.
        """
        for _ in range(600):
            if isOver():
                return
            for child in self.living():
                if child.isKilled:
                    child.exit()
                for _ in range(4):
                    child.step()
            self.clock.turn()
            self.clock.advance(0.1)
        self.nothingIsOnlyLogged()
        raise AssertionError(f"{[name for name, h in self.calls.items() if not h.results]} wait")

    def teardown(self) -> None:
        try:
            self.end()
        finally:
            globalLogPublisher.removeObserver(self.logged)
            for child in self.children:
                child.exit()
                child.close()

    def end(self) -> None:
        """
        Everything comes to its end, and nothing is left.
        """
        self.isRefused = False
        if not self.isShut:
            self.attach(None, None, None, False)
        self.goOn(lambda: all(heard.results for heard in self.calls.values()))
        for heard in self.calls.values():
            if isinstance(heard.results[0], Deferator):
                heard.results[0].stop()
        self.shutdown()
        self.goOn(lambda: all(heard.results for heard in self.others))
        # Those that were given up hang in the kernel.
        assert all(child.isKilled for child in self.living())
        assert all(child.isReleased for child in self.children)
        self.clock.advance(0)
        self.allHolds()
        assert not self.clock.getReaders()
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()


TestChildren = Children.TestCase
TestChildren.settings = settings(
    stateful_step_count=50,
    phases=[Phase.generate],
)
