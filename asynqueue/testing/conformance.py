"""
What L{IWorker<asynqueue.interfaces.IWorker>} promises, as checks for any worker.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from attrs import field, frozen
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,
    gatherResults,
)
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from asynqueue.errors import MaybeEncodingError, RemoteError, TaskExpired, TaskTimedOut
from asynqueue.interfaces import ICancellingWorker, IPrefetchingWorker, IWorker
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import isIterator
from asynqueue.reactors import theReactor
from asynqueue.scheduling.options import CallOptions
from asynqueue.taskqueue import TaskQueue
from asynqueue.testing import calls
from asynqueue.testing.doubles import MemoryTask, RecordingConsumer
from asynqueue.testing.gates import Gate

Place = Literal["reactor", "thread", "process"]

# Tasks of a burst.
_MANY = 500

# Five megabytes, and not all of them equal.
_LARGE = bytes(range(250)) * 20_000


@frozen
class Traits:
    """
    What a worker is like, as far as a check must know.

    @ivar place: where its calls run.
    @ivar slots: how many run at once.
    @ivar streams: whether iterators can be delivered.
    @ivar cancels: whether the run of a task can really be ended.
    @ivar window: how many items of an iterator may be unconsumed.
    """

    place: Place = "reactor"
    slots: int = 1
    streams: bool = True
    cancels: bool = False
    window: int = 64

    @property
    def remote(self) -> bool:
        """
        Whether calls and results must be sent.
        """
        return self.place == "process"


class Trial:
    """
    One check of one worker, and what must be cleaned up after it.
    """

    def __init__(self, makeWorker: Callable[[], IWorker], traits: Traits) -> None:
        self.traits = traits
        self._makeWorker = makeWorker
        self._bare: list[Any] = []
        self._queues: list[TaskQueue] = []
        self._gates: list[Gate] = []

    def worker(self) -> Any:
        """
        Return a new worker, without a queue.
        """
        worker = self._makeWorker()
        self._bare.append(worker)
        return worker

    def queue(self) -> TaskQueue:
        """
        Return a new queue with a new worker.
        """
        queue = TaskQueue(self._makeWorker())
        self._queues.append(queue)
        return queue

    def gate(self) -> Gate:
        """
        Return a new gate for calls of the worker.
        """
        gate = Gate(local=self.traits.place == "reactor")
        self._gates.append(gate)
        return gate

    async def occupy(self, queue: TaskQueue, gate: Gate) -> list[Deferred[Any]]:
        """
        Have as many calls wait at a gate as the worker runs at once.
        """
        before = gate.arrived
        waiting = [queue.call(calls.waitAt, gate.token) for _ in range(self.traits.slots)]
        await gate.arrivals(before + len(waiting))
        return list(waiting)

    async def occupyBare(self, worker: Any, gate: Gate) -> MemoryTask:
        """
        Have one call wait at a gate.
        """
        task = MemoryTask(calls.waitAt, gate.token)
        before = gate.arrived
        worker.run(task)
        await gate.arrivals(before + 1)
        return task

    async def quiet(self, queue: TaskQueue) -> None:
        """
        Wait until what the worker is at has certainly gone on: calls made later
        have ended.
        """
        for _ in range(3):
            await gatherResults([queue.call(calls.whereAmI) for _ in range(self.traits.slots)])

    async def end(self) -> None:
        """
        Leave nothing behind.
        """
        for gate in self._gates:
            gate.open()
        for worker in self._bare:
            worker.crash()
        for queue in self._queues:
            await queue.shutdown()
        for gate in self._gates:
            await gate.close()


Body = Callable[[Trial], Coroutine[Any, Any, None]]

_bodies: list[tuple[Body, Callable[[Traits], bool]]] = []


def _check(when: Callable[[Traits], bool] = lambda traits: True) -> Callable[[Body], Body]:
    """
    Take a function for a check, of workers with certain traits.
    """

    def enter(body: Body) -> Body:
        _bodies.append((body, when))
        return body

    return enter


@frozen
class WorkerCheck:
    """
    One promise of a worker, to be checked by a call.

    @ivar name: its name, which is also its text.
    @ivar promise: what is promised, in a sentence.
    """

    name: str
    promise: str
    _body: Body = field(repr=False)
    _makeWorker: Callable[[], IWorker] = field(repr=False)
    _traits: Traits = field(repr=False)
    _limit: float = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> Deferred[None]:
        """
        Make a new worker and check it.

        @return: a Deferred that fails with C{AssertionError} if the promise is
            not kept, or not within the time limit.
        """
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        trial = Trial(self._makeWorker, self._traits)
        try:
            await self._within(self._body(trial))
        finally:
            await self._within(trial.end())

    async def _within(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await Deferred.fromCoroutine(coroutine).addTimeout(self._limit, theReactor())
        except TimeoutError:
            raise AssertionError(f"{self.name}: not within {self._limit:g} s") from None


def workerChecks(
    makeWorker: Callable[[], IWorker],
    *,
    place: Place = "reactor",
    slots: int = 1,
    streams: bool = True,
    cancels: bool = False,
    window: int = 64,
    limit: float = 30.0,
) -> list[WorkerCheck]:
    """
    Return the checks of what L{IWorker<asynqueue.interfaces.IWorker>} promises, for
    workers of a kind. Each is called for a Deferred, while the reactor runs::

        @pytest.mark.parametrize("check", workerChecks(makeWorker), ids=str)
        def test_myWorker(check):
            return check()

    @param makeWorker: makes a new worker: one for each check, or two.
    @param place: where calls run: in the "reactor", in a "thread" of this
        process, or in another "process", to which functions, arguments and
        results must be sent.
    @param slots: how many calls run at once.
    @param streams: whether iterators can be delivered.
    @param cancels: whether the run of a task can really be ended.
    @param window: how many items of an iterator may be unconsumed.
    @param limit: how many seconds a check may take, and its cleaning up after it.
    """
    traits = Traits(place, slots, streams, cancels, window)
    return [
        WorkerCheck(
            body.__name__, " ".join((body.__doc__ or "").split()), body, makeWorker, traits, limit
        )
        for body, when in _bodies
        if when(traits)
    ]


def checkWorker(makeWorker: Callable[[], IWorker], **traits: Any) -> Deferred[int]:
    """
    Run all checks, one after the other.

    @param traits: as L{workerChecks} takes them.
    @return: a Deferred of how many there were; it fails with C{AssertionError},
        or what the worker did, at the first promise that is not kept.
    """

    async def runAll() -> int:
        checks = workerChecks(makeWorker, **traits)
        for check in checks:
            try:
                await check()
            except Exception as error:
                error.add_note(f"in the check {check.name}: {check.promise}")
                raise
        return len(checks)

    return Deferred.fromCoroutine(runAll())


# What checks are made of


def _expect(actual: Any, expected: Any, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what} is {actual!r}, not {expected!r}")


def _require(condition: Any, what: str) -> None:
    if not condition:
        raise AssertionError(what)


async def _failureOf(awaitable: Deferred[Any]) -> Failure:
    """
    Return the failure of a Deferred, never raised: it may be an exit.
    """
    failures: list[Failure] = []
    value = await awaitable.addErrback(failures.append)
    _require(failures, f"it was to fail, and gave {value!r}")
    return failures[0]


async def _servesOn(queue: TaskQueue) -> None:
    _expect(await queue.call(calls.echo, 1, two=2), ((1,), {"two": 2}), "the next result")


async def _consume(deferator: Deferator, count: int) -> list[Any]:
    """
    Take some items in a plain loop.
    """
    items: list[Any] = []
    for d in deferator:
        items.append(await d)
        if len(items) == count:
            break
    return items


# The worker itself


@_check()
async def providesIWorker(trial: Trial) -> None:
    """
    A worker provides IWorker, and its class's and its own qualifications are
    lists.
    """
    worker = trial.worker()
    verifyObject(IWorker, worker)
    IWorker.validateInvariants(worker)
    for interface in (IPrefetchingWorker, ICancellingWorker):
        if interface.providedBy(worker):
            verifyObject(interface, worker)
    _require(isinstance(type(worker).cQualified, list), "cQualified of the class is no list")


@_check()
async def becomesReady(trial: Trial) -> None:
    """
    The Deferred of run() fires with None when the worker is ready for another
    task.
    """
    worker = trial.worker()
    for number in range(3):
        task = MemoryTask(calls.echo, number)
        ready = worker.run(task)
        _require(isinstance(ready, Deferred), f"run() returned {ready!r}, no Deferred")
        _expect(await task.d, ((number,), {}), "the result")
        _expect(await ready, None, "the result of run()'s Deferred")


@_check()
async def takesResignator(trial: Trial) -> None:
    """
    A worker takes a resignator, and does not call it without reason.
    """
    worker = trial.worker()
    called: list[None] = []
    worker.setResignator(lambda: called.append(None))
    task = MemoryTask(calls.raiseChecked, "no reason to resign")
    worker.run(task)
    await _failureOf(task.d)
    _expect(called, [], "what the resignator noted")


@_check()
async def stopWaitsForOutcomes(trial: Trial) -> None:
    """
    The Deferred of stop() fires after all tasks have their outcomes.
    """
    worker, gate = trial.worker(), trial.gate()
    task = await trial.occupyBare(worker, gate)
    stopped = worker.stop().addCallback(lambda _: task.ended)
    _require(not stopped.called, "stop() fired while a task was running")
    gate.open()
    await task.d
    _expect(await stopped, True, "whether the task had ended when stop() fired")


@_check()
async def stopsUnused(trial: Trial) -> None:
    """
    A worker that never had a task can be stopped.
    """
    await trial.worker().stop()


@_check()
async def crashReturnsTheUndone(trial: Trial) -> None:
    """
    crash() returns at once a list of exactly the tasks without outcome, and may
    be called again.
    """
    worker, gate = trial.worker(), trial.gate()
    done = MemoryTask(calls.echo)
    await worker.run(done)
    await done.d
    task = await trial.occupyBare(worker, gate)
    left = worker.crash()
    _expect(left, [task], "what crash() returned")
    _require(not task.ended, "crash() ended a task")
    again = worker.crash()
    _require(isinstance(again, list), f"crash() returned {again!r} the second time, no list")
    _require(set(again) <= {task}, f"crash() returned {again!r} the second time")


@_check()
async def crashOfTheUnused(trial: Trial) -> None:
    """
    crash() of a worker that never had a task returns an empty list.
    """
    _expect(trial.worker().crash(), [], "what crash() returned")


@_check()
async def tellsHowItStands(trial: Trial) -> None:
    """
    A worker that has statistics() can be asked for them in every state. They name the state
    by a word, and go into JSON as a dict.
    """
    worker, gate = trial.worker(), trial.gate()
    if getattr(worker, "statistics", None) is None:
        return
    _standing(worker, "when it was new", 0)
    task = await trial.occupyBare(worker, gate)
    _standing(worker, "while it had a task", 1)
    stopped = worker.stop()
    state = _standing(worker, "while it stopped", 1)["state"]
    _expect(state, "stopping", "the state while it stopped")
    gate.open()
    await task.d
    await stopped
    _expect(_standing(worker, "when it had stopped", 0)["state"], "stopped", "the state then")
    worker.crash()
    _expect(_standing(worker, "after a crash", 0)["state"], "crashed", "the state then")


def _standing(worker: Any, when: str, held: int) -> dict[str, Any]:
    """
    Return what a worker tells of itself, if a program can read it.
    """
    told: dict[str, Any] = worker.statistics().as_dict()
    try:
        again = json.loads(json.dumps(told, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{when}, as_dict() could not go into JSON: {error}") from error
    _expect(again, told, f"what comes out of JSON {when}")
    state = told.get("state")
    _require(isinstance(state, str) and state.isidentifier(), f"{when}, the state was {state!r}")
    _expect(told.get("held"), held, f"the number of tasks that it held {when}")
    return told


@_check()
async def endsNothingAfterCrash(trial: Trial) -> None:
    """
    After a crash no task is ended, though its call may return.
    """
    worker, gate = trial.worker(), trial.gate()
    task = await trial.occupyBare(worker, gate)
    worker.crash()
    gate.open()
    await gate.close()
    await trial.quiet(trial.queue())
    _expect(task.ends, 0, "how often the task was ended")


@_check()
async def takesBackWhatHasNotBegun(trial: Trial) -> None:
    """
    A worker that takes tasks ahead hands over those that have not begun, and
    never runs them.
    """
    worker, gate, ran = trial.worker(), trial.gate(), trial.gate()
    if not IPrefetchingWorker.providedBy(worker):
        return
    worker.setReturner(lambda tasks: None)
    for _ in range(50):
        quick = MemoryTask(calls.echo)
        await gatherResults([worker.run(quick), quick.d])
    waiting = [MemoryTask(calls.waitAt, gate.token) for _ in range(trial.traits.slots)]
    for task in waiting:
        ready = worker.run(task)
    await gate.arrivals(trial.traits.slots)
    later: list[MemoryTask] = []
    while ready.called and len(later) < 3:
        later.append(MemoryTask(calls.signalAt, ran.token))
        ready = worker.run(later[-1])
    handed = list(worker.takeBack())
    back = [task for task in later if task in handed]
    _expect(handed, back, "what was handed back")
    gate.open()
    kept = [task for task in later if task not in back]
    await gatherResults([task.d for task in waiting + kept])
    await worker.stop()
    await trial.quiet(trial.queue())
    _expect([task.ends for task in back], [0] * len(back), "how often they were ended")
    _expect(ran.arrived, len(kept), "how many calls ran")


# Calls


@_check()
async def valueComesBack(trial: Trial) -> None:
    """
    A call gets its arguments and its keywords, and its value comes back.
    """
    result = await trial.queue().call(calls.echo, 1, "two", three=[3, None])
    _expect(result, ((1, "two"), {"three": [3, None]}), "the result")


@_check()
async def ownKeywordsReachTheFunction(trial: Trial) -> None:
    """
    With callWith, keywords with the names of the queue's own options reach the
    function.
    """
    kw = {"timeout": 1, "series": "x", "niceness": 99, "raw": 0, "consumer": "me", "retries": -1}
    result = await trial.queue().callWith(CallOptions(), calls.echo, **kw)
    _expect(result, ((), kw), "the result")


@_check()
async def runsInItsPlace(trial: Trial) -> None:
    """
    A call runs where the worker says that it does.
    """
    process, thread = await trial.queue().call(calls.whereAmI)
    place = "process"
    if process == os.getpid():
        place = "reactor" if thread == threading.get_ident() else "thread"
    _expect(place, trial.traits.place, "the place of the call")


@_check(lambda traits: not traits.remote)
async def carriesContext(trial: Trial) -> None:
    """
    The caller's context variables are those of the call.
    """
    before = calls.whose.set("the caller's")
    try:
        d = trial.queue().call(calls.whoseCall)
    finally:
        calls.whose.reset(before)
    _expect(await d, "the caller's", "the context variable")


@_check()
async def runsItsSeries(trial: Trial) -> None:
    """
    A worker runs series None, those of its class, and those it was qualified
    for later.
    """
    queue = trial.queue()
    # A worker that connects is hired when it has a connection.
    await queue.call(calls.echo)
    worker = queue.workers()[0]
    queue.qualifyWorker(worker, "further")
    for series in (None, *type(worker).cQualified, "further"):
        _expect(await queue.call(calls.echo, series=series), ((), {}), f"of series {series!r}")


@_check()
async def carriesLarge(trial: Trial) -> None:
    """
    Arguments and results of five megabytes make the journey.
    """
    (args, _) = await trial.queue().call(calls.echo, _LARGE)
    _require(args == (_LARGE,), "what came back is not what was sent")


@_check()
async def survivesPrinting(trial: Trial) -> None:
    """
    A call may write to the standard output.
    """
    _expect(await trial.queue().call(calls.sayHello), "said", "the result")


@_check()
async def runsABurst(trial: Trial) -> None:
    """
    Many calls at once all end, each with its own value; on a worker that runs one
    at a time, in order.
    """
    queue = trial.queue()
    results = await gatherResults([queue.call(calls.numbered, name) for name in range(_MANY)])
    _require([name for name, _ in results] == list(range(_MANY)), "values were mixed up")
    if trial.traits.slots == 1:
        first = results[0][1]
        numbers = [number for _, number in results]
        _require(numbers == list(range(first, first + _MANY)), "the calls did not run in order")
    _expect(queue.statistics().running, 0, "how many tasks the worker still has")


@_check(lambda traits: traits.slots == 1)
async def nextGoesFirst(trial: Trial) -> None:
    """
    Calls with doNext go before those that wait, in their own order.
    """
    queue, gate = trial.queue(), trial.gate()
    await trial.occupy(queue, gate)
    waiting = [queue.call(calls.nextNumber) for _ in range(20)]
    urgent = [queue.call(calls.nextNumber, doNext=True) for _ in range(3)]
    gate.open()
    numbers = await gatherResults(urgent + waiting)
    _require(numbers == sorted(numbers), "the calls with doNext did not go first, in order")


# Failures


@_check()
async def exceptionKeepsItsType(trial: Trial) -> None:
    """
    An exception reaches the caller with its own type and text, and the place
    where it was raised is told by the failure and by Python's own traceback.
    """
    queue = trial.queue()
    failure = await _failureOf(queue.call(calls.raiseChecked, "checked"))
    _expect(failure.type, calls.CheckedError, "the type of the failure")
    _expect(str(failure.value), "checked", "the text of the exception")
    _require("in raiseChecked" in "".join(traceback.format_exception(failure.value)), "no place")
    _require("raiseChecked" in failure.getTraceback(), "the failure does not tell the place")
    await _servesOn(queue)


@_check()
async def awkwardExceptionComes(trial: Trial) -> None:
    """
    An exception that unpickling cannot make fails its call with its own type,
    or by that name.
    """
    await _failsLike(trial, calls.raiseAwkward, calls.AwkwardError, "awkward 2")


@_check()
async def stuckExceptionComes(trial: Trial) -> None:
    """
    An exception that cannot be pickled fails its call with its own type, or by
    that name.
    """
    await _failsLike(trial, calls.raiseStuck, calls.StuckError, "stuck")


async def _failsLike(
    trial: Trial, f: Callable[[], Any], errorType: type[Exception], text: str
) -> None:
    queue = trial.queue()
    failure = await _failureOf(queue.call(f))
    if trial.traits.remote:
        _expect(failure.type, RemoteError, "the type of the failure")
        _require(errorType.__qualname__ in str(failure.value), "the type is not named")
    else:
        _expect(failure.type, errorType, "the type of the failure")
    _require(text in str(failure.value), f"the text is lost: {failure.value}")
    await _servesOn(queue)


@_check()
async def exitsAreOutcomes(trial: Trial) -> None:
    """
    A task that raises SystemExit, KeyboardInterrupt, GeneratorExit or
    StopIteration fails with that, and harms nothing else.
    """
    queue = trial.queue()
    errorTypes: list[type[BaseException]] = [
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        StopIteration,
    ]
    for errorType in errorTypes:
        failure = await _failureOf(queue.call(calls.raiseIt, errorType))
        _expect(failure.type, errorType, "the type of the failure")
        await _servesOn(queue)


@_check(lambda traits: traits.remote)
async def unsendableResultFails(trial: Trial) -> None:
    """
    A result that cannot be pickled is a MaybeEncodingError of its call only.
    """
    queue = trial.queue()
    failure = await _failureOf(queue.call(calls.makeUnsendable))
    _expect(failure.type, MaybeEncodingError, "the type of the failure")
    await _servesOn(queue)


@_check(lambda traits: traits.remote)
async def unsendableArgumentFails(trial: Trial) -> None:
    """
    An argument that cannot be pickled fails its call only.
    """
    queue = trial.queue()
    failure = await _failureOf(queue.call(calls.echo, calls.Unsendable()))
    _require("stays where it is" in str(failure.value), f"the reason is lost: {failure.value}")
    await _servesOn(queue)


@_check(lambda traits: traits.remote and not traits.streams)
async def iteratorStaysThere(trial: Trial) -> None:
    """
    Where iterators cannot be delivered, one that is returned is a
    MaybeEncodingError.
    """
    queue = trial.queue()
    failure = await _failureOf(queue.call(calls.numbersTo, 3))
    _expect(failure.type, MaybeEncodingError, "the type of the failure")
    await _servesOn(queue)


# Early ends


@_check()
async def cancelledInTheQueue(trial: Trial) -> None:
    """
    A call that waits errbacks at once when it is cancelled.
    """
    queue, gate = trial.queue(), trial.gate()
    await trial.occupy(queue, gate)
    waiting = queue.call(calls.echo)
    waiting.cancel()
    _expect((await _failureOf(waiting)).type, CancelledError, "the type of the failure")
    gate.open()
    await _servesOn(queue)


@_check()
async def cancelledAtWork(trial: Trial) -> None:
    """
    A call that runs errbacks at once when it is cancelled, and the worker serves
    on.
    """
    queue, gate = trial.queue(), trial.gate()
    running = await trial.occupy(queue, gate)
    for d in running:
        d.cancel()
        _expect((await _failureOf(d)).type, CancelledError, "the type of the failure")
    gate.open()
    await _servesOn(queue)


@_check(lambda traits: traits.cancels)
async def cancelEndsTheRun(trial: Trial) -> None:
    """
    Cancelling a call really ends its run: its place is free for another.
    """
    queue, gate = trial.queue(), trial.gate()
    for d in await trial.occupy(queue, gate):
        d.addErrback(lambda failure: failure.trap(CancelledError))
        d.cancel()
    await _servesOn(queue)


@_check()
async def timesOut(trial: Trial) -> None:
    """
    A call that takes longer than its timeout fails with TaskTimedOut, and the
    worker serves on.
    """
    queue, gate = trial.queue(), trial.gate()
    failure = await _failureOf(queue.call(calls.waitAt, gate.token, timeout=0.05))
    _expect(failure.type, TaskTimedOut, "the type of the failure")
    gate.open()
    await _servesOn(queue)


@_check()
async def expiresUnlessBegun(trial: Trial) -> None:
    """
    A call that has not begun when its time is over, as the worker is busy, fails with
    TaskExpired while those before it run on, and is never made; one that has begun goes on.
    """
    queue, gate = trial.queue(), trial.gate()
    before = [queue.call(calls.waitAt, gate.token, expires=60) for _ in range(trial.traits.slots)]
    await gate.arrivals(len(before))
    call = queue.call(calls.waitAt, gate.token, expires=0.05)
    expired: Deferred[Any] = Deferred()
    call.addErrback(lambda failure: expired.callback(failure.type))
    # A worker may run more at once than it must.
    error, _ = await DeferredList([expired, gate.arrivals(len(before) + 1)], fireOnOneCallback=True)
    if error is not None:
        _expect(error, TaskExpired, "the type of the failure")
    _expect([d.called for d in before], [False] * len(before), "whether the others have ended")
    gate.open()
    await gatherResults(before)
    await trial.quiet(queue)
    _expect(gate.arrived, len(before) + (error is None), "the number of calls that were made")


@_check()
async def shutdownWaitsForOutcomes(trial: Trial) -> None:
    """
    The shutdown of a queue fires after the calls that ran have their values.
    """
    queue, gate = trial.queue(), trial.gate()
    running = await trial.occupy(queue, gate)
    down = queue.shutdown().addCallback(lambda _: [d.called for d in running])
    gate.open()
    _expect(await down, [True] * len(running), "whether the calls had ended")


# Iterators


def _streams(traits: Traits) -> bool:
    return traits.streams


@_check(_streams)
async def iteratorIsDelivered(trial: Trial) -> None:
    """
    An iterator becomes a Deferator of the same items, for both kinds of loop.
    """
    queue = trial.queue()
    deferator = await queue.call(calls.numbersTo, 300)
    _require(isinstance(deferator, Deferator), f"the result is {deferator!r}, no Deferator")
    _expect(await _consume(deferator, 1000), list(range(300)), "the items")
    _expect(await deferator.d, True, "the result of its own Deferred")
    again = [item async for item in await queue.call(calls.numbersTo, 300)]
    _expect(again, list(range(300)), "the items of the asynchronous loop")


@_check(_streams)
async def emptyIteratorEnds(trial: Trial) -> None:
    """
    An iterator without items is an iteration without items.
    """
    deferator = await trial.queue().call(calls.numbersTo, 0)
    _expect([item async for item in deferator], [], "the items")


@_check(lambda traits: not traits.remote)
async def rawIteratorIsItself(trial: Trial) -> None:
    """
    With raw, an iterator comes back as it is.
    """
    iterator = await trial.queue().call(calls.numbersTo, 3, raw=True)
    _require(isIterator(iterator), f"the result is {iterator!r}, no iterator")
    _expect(list(iterator), [0, 1, 2], "its items")


@_check(_streams)
async def consumerGetsItems(trial: Trial) -> None:
    """
    With a consumer, the items are written to it, and the result is the consumer.
    """
    consumer = RecordingConsumer()
    result = await trial.queue().call(calls.numbersTo, 300, consumer=consumer)
    _require(result is consumer, f"the result is {result!r}, not the consumer")
    _expect(consumer.items, list(range(300)), "the items")
    _expect((consumer.registered, consumer.producer), (1, None), "its producers")


@_check(_streams)
async def iteratorThatRaisesFails(trial: Trial) -> None:
    """
    An iterator that raises gives the items before, then fails with its own
    exception.
    """
    deferator = await trial.queue().call(calls.numbersThenRaise, 3, "in the middle")
    _expect(await _consume(deferator, 3), [0, 1, 2], "the items before")
    failure = await _failureOf(next(deferator))
    _expect(failure.type, calls.CheckedError, "the type of the failure")
    _expect(str(failure.value), "in the middle", "the text of the exception")
    _expect([item async for item in deferator], [], "the items after")


@_check(_streams)
async def stoppedIteratorIsClosed(trial: Trial) -> None:
    """
    A generator whose iteration is stopped early is closed: its finally runs.
    """
    each, end = trial.gate(), trial.gate()
    deferator = await trial.queue().call(calls.numbersForever, each.token, end.token)
    _expect(await _consume(deferator, 3), [0, 1, 2], "the items")
    deferator.stop()
    await end.arrivals(1)


@_check(_streams)
async def droppedIteratorIsClosed(trial: Trial) -> None:
    """
    A generator whose Deferator nobody holds any more is closed.
    """
    each, end = trial.gate(), trial.gate()
    deferator = await trial.queue().call(calls.numbersForever, each.token, end.token)
    await deferator.deferUntilReady()
    del deferator
    gc.collect()
    await end.arrivals(1)


@_check(_streams)
async def iteratorKeepsToItsWindow(trial: Trial) -> None:
    """
    An iterator is never advanced more than its window ahead of what is consumed.
    """
    queue, each, end = trial.queue(), trial.gate(), trial.gate()
    deferator = await queue.call(calls.numbersForever, each.token, end.token)
    for consumed in range(0, 40, 10):
        await trial.quiet(queue)
        _require(
            each.arrived <= consumed + trial.traits.window,
            f"{each.arrived} items were made while {consumed} were consumed",
        )
        await _consume(deferator, 10)
    deferator.stop()
    await end.arrivals(1)


@_check(_streams)
async def pausedConsumerPausesTheIterator(trial: Trial) -> None:
    """
    While a consumer has its producer paused, nothing is written to it, and the
    iterator is advanced no further than its window; then it goes on.
    """
    queue, each, end = trial.queue(), trial.gate(), trial.gate()
    consumer = RecordingConsumer(pauseAfter=10)
    result = queue.call(calls.numbersForever, each.token, end.token, consumer=consumer)
    await consumer.written(10)
    await trial.quiet(queue)
    _expect(len(consumer.items), 10, "the number of items written")
    _require(each.arrived <= 10 + trial.traits.window, f"{each.arrived} items were made")
    consumer.producer.resumeProducing()
    await consumer.written(200)
    consumer.producer.stopProducing()
    await end.arrivals(1)
    _require(await result is consumer, "the result is not the consumer")


@_check(_streams)
async def cancelledIterationIsClosed(trial: Trial) -> None:
    """
    Cancelling a call whose items go to a consumer closes its generator.
    """
    queue, each, end = trial.queue(), trial.gate(), trial.gate()
    consumer = RecordingConsumer(pauseAfter=10)
    result = queue.call(calls.numbersForever, each.token, end.token, consumer=consumer)
    await consumer.written(10)
    result.cancel()
    _expect((await _failureOf(result)).type, CancelledError, "the type of the failure")
    await end.arrivals(1)
    await _servesOn(queue)
