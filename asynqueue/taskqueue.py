"""
The task queue, as its users see it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.checks import wholeNumber
from asynqueue.errors import LoopError, QueueRunError
from asynqueue.interfaces import IBacklog, IWorker
from asynqueue.iteration.deferator import Deferator
from asynqueue.mapping.chunker import Chunker
from asynqueue.mapping.source import MapSource
from asynqueue.outcome import describeCall
from asynqueue.reactors import (
    checkDrives,
    checkedReactor,
    installedReactor,
    isGone,
    loopOf,
    runningLoop,
    runningReactor,
    theReactor,
)
from asynqueue.scheduling.admission import OPEN
from asynqueue.scheduling.dispatch import Dispatcher
from asynqueue.scheduling.draining import Drain
from asynqueue.scheduling.ending import Ending
from asynqueue.scheduling.lifecycle import Lifecycle
from asynqueue.scheduling.observers import CallLogger, LoadProducer
from asynqueue.scheduling.options import (
    DEFAULT,
    CallOptions,
    loggedOptions,
    makeOptions,
    namedOptions,
)
from asynqueue.scheduling.records import WorkerRecord, WorkerState, traitsOf
from asynqueue.scheduling.registry import Registry
from asynqueue.scheduling.snapshots import QueueStatistics
from asynqueue.scheduling.statistics import queueStatistics, whyWaits
from asynqueue.scheduling.task import Task, TaskDeferred

_log = Logger()

# The default of C{call}, which is compared by its identity: C{False} is equal to it, and refused.
_ZERO = 0

# How many calls L{TaskQueue.map} makes ahead of the result that is taken next; where
# they may be made in chunks, how many for each process, and how many at the most; and how many
# of cheap items, whose chunks are large.
_MAP_AHEAD = 128
_CHUNKS_AHEAD = 1024
_MOST_AHEAD = 8192
_MOST_CHEAP = 32768

# The loop of a queue that has not looked up its reactor.
_NOT_YET: Any = object()


class TaskQueue:
    """
    Takes calls, and has them made by workers.

    Each call is a I{task} of a I{series}, which workers must be qualified for, and
    a I{niceness}. Tasks of the same series and niceness begin in the order they
    were queued; different ones share the workers by their weights.

    A queue is shut down with the reactor, if it was not before. It has the reactor that
    it was given; or else that of the asyncio loop, or the installed one, whichever runs
    when it is needed first. To make a queue installs no reactor.
    """

    def __init__(
        self,
        *workers: IWorker,
        timeout: float | None = None,
        warn: bool = False,
        verbose: bool = False,
        spew: bool = False,
        returnFailure: bool = True,
        reactor: Any = None,
        backlog: IBacklog | None = None,
    ) -> None:
        """
        @param workers: the workers to begin with; more can be attached later.
        @param timeout: how many seconds a worker may take to stop, before it
            crashes and what it runs is lost. C{None}: as long as its tasks take
            (10 s when the reactor stops).
        @param warn: whether errors of tasks are logged, too.
        @param verbose: the same, with what was called.
        @param spew: the same, and every call that returned.
        @param returnFailure: whether the error of a task fails its Deferred, with
            the original type and the remote traceback; else it is logged, and
            the result is C{None}.
        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when
            it is needed first.
        @param backlog: keeps the calls that wait for a worker, and says which is next: an
            L{IBacklog<asynqueue.interfaces.IBacklog>}, empty, and of this queue alone.
            C{None}: one in memory, with fair shares.
        @raise TypeError: C{reactor} is neither.
        @raise ImplementationError: C{backlog} is no C{IBacklog}.
        """
        self._timeout = timeout
        self._returnFailure = returnFailure
        self._reactor = checkedReactor(reactor)
        self._dispatcher = Dispatcher(reactor, backlog)
        self._registry = Registry(self._dispatcher)
        self._lifecycle = Lifecycle(self._registry)
        self._ending = Ending(self._lifecycle, timeout, self._attachFirst, self._ended)
        # The asyncio loop of the reactor, C{None} if it has none.
        self._loop: Any = _NOT_YET
        # What is to be done when the reactor is known.
        self._early: list[Callable[[], Any]] = []
        self._subscriptions: list[LoadProducer] = []
        # What is logged of calls, is of each by itself.
        self._logsCalls = warn or verbose or spew
        if self._logsCalls:
            self.addObserver(CallLogger(verbose, spew))
        running = runningReactor(reactor)
        if running is not None:
            self._begin(running)
        for worker in workers:
            if traitsOf(worker).connecting:
                self._whenBegun(partial(self._attachFirst, worker))
            else:
                self._attachFirst(worker)

    def __len__(self) -> int:
        """
        Return how many workers there are, without those that have no connection.
        """
        return len(self._registry.records)

    def __bool__(self) -> bool:
        """
        Tell whether the queue is running and has a worker.
        """
        return self.isRunning() and len(self) > 0

    def __repr__(self) -> str:
        state = "running" if self.isRunning() else "shut down"
        queued, running = self._dispatcher.waiting, self._registry.running
        return (
            f"<{type(self).__name__} {state}: {len(self)} workers, {queued} tasks queued,"
            f" {running} running>"
        )

    def isRunning(self) -> bool:
        """
        Tell whether the queue takes calls.
        """
        isOpen = self._dispatcher.admission.stage is OPEN or self._ending.mayWake
        return isOpen and not isGone(self._reactor)

    # Calls

    def call(
        self,
        func: Callable[..., Any] | str,
        *args: Any,
        niceness: int = _ZERO,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        retries: int = _ZERO,
        consumer: Any = None,
        raw: bool | None = None,
        returnFailure: bool | None = None,
        after: float | None = None,
        expires: float | None = None,
        **kw: Any,
    ) -> AwaitableDeferred[Any]:
        """
        Queue a call of a function.

        These keywords are the queue's own and never reach the function; for one
        that uses the same words there is L{callWith}.

        Cancelling the Deferred takes a queued task out of the queue, and ends one
        that runs as far as its worker can; either way it errbacks with
        C{CancelledError} at once.

        @param func: what to call, in the place where the worker runs it. With a string,
            what a host has under that name; without a C{series=}, workers over a wire
            run it.
        @param niceness: -20 (greedy) to 20 (modest); ten more is half the rate.
        @param series: only workers qualified for it run the task.
        @param doNext: before everything that is queued, first come first served.
        @param doLast: after everything else that is queued.
        @param timeout: the seconds that the run may take from the moment it
            begins; then the run is ended, where the worker can, and the Deferred
            fails with L{TaskTimedOut<asynqueue.errors.TaskTimedOut>}.
        @param retries: how often the call may be run again when the worker that
            ran it was lost. Without, that fails with
            L{WorkerLost<asynqueue.errors.WorkerLost>}.
        @param consumer: an C{IConsumer} for the items, if an iterator is
            returned; the result is then the consumer.
        @param raw: whether an iterator comes back as it is, and not as a
            L{Deferator}; C{None}: as the worker has it.
        @param returnFailure: whether an error fails the Deferred, or is logged;
            C{None}: as the queue has it.
        @param after: the seconds from now before which the run does not begin. Then the call
            waits for a worker, before those of its kind that were queued after it.
        @param expires: the seconds from now within which the run must begin; otherwise the
            Deferred fails with L{TaskExpired<asynqueue.errors.TaskExpired>}, and the call is
            not made.
        @return: a Deferred of the result, which coroutines of Twisted and of
            asyncio may await.
        @raise QueueRunError: the queue is shut down.
        @raise ValueError: an option has a value that it cannot have.
        @raise TypeError: the series is not hashable.
        """
        if (
            niceness is _ZERO
            and series is None
            and doNext is False
            and doLast is False
            and timeout is None
            and retries is _ZERO
            and raw is None
            and returnFailure is None
            and consumer is None
            and after is None
            and expires is None
        ):
            # Most calls have no options. To look them up would take four times as long.
            return self._submit(func, args, kw, DEFAULT)
        options = makeOptions(
            niceness,
            series,
            doNext,
            doLast,
            timeout,
            retries,
            raw,
            returnFailure,
            consumer=consumer,
            after=after,
            expires=expires,
        )
        return self._submit(func, args, kw, options)

    def callWith(
        self, options: CallOptions, func: Callable[..., Any] | str, /, *args: Any, **kw: Any
    ) -> AwaitableDeferred[Any]:
        """
        Queue a call of a function that gets all the keywords.

        @param options: what L{call} takes as keywords.
        @raise QueueRunError: the queue is shut down.
        """
        if not isinstance(options, CallOptions):
            raise TypeError(f"callWith takes CallOptions first, not {options!r}")
        return self._submit(func, args, kw, options)

    def _submit(
        self, func: Any, args: tuple[Any, ...], kw: dict[str, Any], options: CallOptions
    ) -> AwaitableDeferred[Any]:
        dispatcher = self._dispatcher
        loop = self._loop
        if dispatcher.admission.stage is not OPEN or (
            loop is not None and loop is not runningLoop()
        ):
            self._look(describeCall(func, args, kw))
        if not callable(func):
            options = _optionsOfName(func, options)
        if not self._returnFailure and options.returnFailure is None:
            options = loggedOptions(options)
        registry = self._registry
        registry.lastNumber = number = registry.lastNumber + 1
        task = Task(registry, func, args, kw, options, number)
        dispatcher.submit(task)
        return task.d

    def map(
        self,
        func: Callable[..., Any] | str,
        iterable: Iterable[Any] | AsyncIterable[Any],
        *args: Any,
        ordered: bool = True,
        keyed: bool = False,
        ahead: int | None = None,
        options: CallOptions = DEFAULT,
        **kw: Any,
    ) -> Deferator:
        """
        Call a function for each item of an iterable, a bounded number of calls
        ahead of the results that are taken.

        A call that fails fails the Deferred of its own result only, and the
        iteration goes on. Stopping the Deferator cancels what is under way.

        Where all workers have processes, calls that take less than some
        milliseconds travel together: several are one task, which is a few
        milliseconds of work by the measured cost of an item. That changes nothing
        else: each fails, is lost with its process and is tried again by itself. With
        a C{timeout}, a C{consumer}, C{after} or C{expires}, without C{returnFailure}, or in a
        queue that logs calls, each call is a task.

        @param func: is called with an item, C{args} and C{kw}; or the name of what a host
            calls, as for L{call}.
        @param iterable: the items, taken one by one in the reactor's thread, as
            results are consumed. It may be infinite, and it may be asynchronous: an
            asynchronous generator, say, or a Deferator. What it raises is the last
            result. When the results are stopped, or the queue is shut down, a generator
            of either kind is closed and a Deferator stopped.
        @param ordered: whether results come in the order of the items, or as they
            are completed.
        @param keyed: whether C{iterable} gives pairs C{(key, item)}, as C{enumerate()} and
            C{dict.items()} do. Then each result is a pair C{(key, outcome)}, and the outcome
            of a call that failed is its C{Failure}: so each is known by its key, also where
            they come as they are completed. Keys stay here, whatever they are.
        @param ahead: how many results may be under way or wait to be taken: 2 at
            the least, since a result is handed out when it is known whether
            another one follows. C{None}: 128, or about a thousand for each process, and
            some thousands where calls take microseconds and results are waited for.
        @param options: the options of each call.
        @raise QueueRunError: the queue is shut down.
        """
        self._look(f"map of {describeCall(func, (), {})}")
        if not callable(func):
            options = _optionsOfName(func, options)
        chunker = self._chunkerFor(func, args, kw, options)
        most = 0
        if ahead is None:
            most = _MOST_CHEAP
            processes = 0 if chunker is None else self._lifecycle.processes(options.series)
            ahead = max(_MAP_AHEAD, min(_MOST_AHEAD, _CHUNKS_AHEAD * processes))
        wholeNumber(ahead, "ahead", least=2)

        def call(item: Any) -> Deferred[Any]:
            return self._submit(func, (item, *args), kw, options)

        name = describeCall(func, (), {}).removesuffix("()")
        source = MapSource(
            call,
            iterable,
            ordered,
            ahead,
            chunker,
            lambda: self._lifecycle.processes(options.series),
            keyed,
            most,
        )
        return Deferator.fromSource(source, f"map of {name}", ahead)

    def _chunkerFor(
        self, func: Any, args: Any, kw: Any, options: CallOptions
    ) -> Callable[[MapSource], Chunker] | None:
        """
        Return what makes a chunker for a map, unless its calls must be tasks of their own.
        """
        returnFailure = options.returnFailure
        if returnFailure is None:
            returnFailure = self._returnFailure
        if options.timeout is not None or options.consumer is not None or not returnFailure:
            return None
        if self._logsCalls or options.isTimed:
            return None
        if not callable(func):
            # Who is given a name makes the call as it likes.
            return None
        once = evolve(options, retries=0) if options.retries else options

        def call(chunk: Callable[..., Any], *what: Any) -> Deferred[Any]:
            return self._submit(chunk, what, {}, once)

        return lambda owner: Chunker(
            owner,
            call,
            self._registry.startTimer,
            func,
            args,
            kw,
            raw=options.raw,
            retries=options.retries,
        )

    def update(
        self, func: Callable[..., Any] | str, *args: Any, ephemeral: bool = False, **kw: Any
    ) -> AwaitableDeferred[list[Any]]:
        """
        Call a function once on every worker, before what is queued.

        @param ephemeral: whether only the present workers run it. Else it is the
            first that every later hire runs; if it fails there, that worker is
            not hired.
        @return: a Deferred list of the results of the present workers, in the
            order of their IDs. It fails with the first failure, after all have
            ended.
        @raise ValueError: there is a consumer, and there may be many iterators.
        @raise QueueRunError: the queue is shut down.
        """
        if "consumer" in kw:
            raise ValueError(
                "an update runs on many workers, and cannot feed one consumer: leave it out"
            )
        callTuple: Any = (func, args, kw)
        self._look(describeCall(*callTuple))
        if not ephemeral:
            self._lifecycle.updates.append(callTuple)
        records = [
            record
            for record in self._registry.records.values()
            if record.state is not WorkerState.STOPPING
        ]
        return bothWorlds(
            _allEnded([self._callOn(record, callTuple, not ephemeral) for record in records]),
            self._reactor,
        )

    def _callOn(
        self, record: WorkerRecord, callTuple: Any, lasting: bool = False
    ) -> AwaitableDeferred[Any]:
        task = self._registry.newUpdate(callTuple, lasting)
        self._dispatcher.assign(record, task)
        return task.d

    def _callDirectly(self, worker: IWorker, callTuple: Any) -> AwaitableDeferred[Any]:
        """
        Have one worker make a call, before all that is queued.
        """
        self._look(describeCall(*callTuple))
        record = self._registry.find(worker)
        if record is None or record.state is WorkerState.STOPPING:
            raise QueueRunError(describeCall(*callTuple))
        return self._callOn(record, callTuple)

    def cancelSeries(self, series: Hashable, running: bool = False) -> int:
        """
        Cancel the tasks of a series that are queued.

        @param running: whether those that workers hold are cancelled, too.
        @return: how many were cancelled. The Deferred of each errbacks.
        """
        return self._registry.cancel(lambda task: bool(task.series == series), running)

    def cancelAll(self, running: bool = False) -> int:
        """
        Cancel all tasks that are queued.

        @param running: whether those that workers hold are cancelled, too.
        @return: how many were cancelled. The Deferred of each errbacks.
        """
        return self._registry.cancel(lambda task: True, running)

    def withdraw(self, d: Deferred[Any]) -> bool:
        """
        Take a call out of the queue, if no worker has it yet.

        @param d: what L{call} returned. If the call is withdrawn, it fails with
            C{CancelledError}.
        @return: whether the call was withdrawn: it surely will not be made.
        """
        task = d.task if isinstance(d, TaskDeferred) else None
        return task is not None and self._registry.withdraw(task)

    # Workers

    def attachWorker(self, worker: IWorker) -> AwaitableDeferred[int]:
        """
        Hire a worker. It serves when it has run the updates that there are.

        One that makes a connection is hired when it has one, and again, with another
        ID, each time it is back after its connection was lost.

        @return: a Deferred of its unique ID, which is also C{worker.ID}.
        @raise ImplementationError: it is no L{IWorker}.
        @raise InvariantError: its qualifications are no lists.
        @raise QueueRunError: the queue is shut down.
        """
        if not self._dispatcher.admission.gives or traitsOf(worker).connecting:
            self._look(f"attaching {worker!r}", self._dispatcher.admission.gives)
        return self._attach(worker)

    def _attachFirst(self, worker: IWorker) -> None:
        """
        Attach one of the workers that a queue is made with.
        """
        self._attach(worker).addErrback(_notHired)

    def _attach(self, worker: IWorker) -> AwaitableDeferred[int]:
        return bothWorlds(self._lifecycle.attach(worker), self._reactor)

    def detachWorker(
        self, workerOrID: IWorker | int, reassign: bool = False, crash: bool = False
    ) -> AwaitableDeferred[list[Any]]:
        """
        Let a worker go.

        Without C{crash} it ends what it holds, for as long as the queue's
        C{timeout} allows. What a crash leaves undone fails with
        L{WorkerLost<asynqueue.errors.WorkerLost>}, or is tried again.

        @param workerOrID: the worker, or its ID.
        @param reassign: whether other workers get what it has not begun; with
            C{crash}, all that it leaves undone.
        @param crash: whether it goes at once.
        @return: a Deferred list of the tasks that it left unfinished, empty if
            they were reassigned or the worker is not of this queue.
        """
        record = self._registry.find(workerOrID)
        left: Deferred[list[Any]] = succeed([])
        worker: Any = workerOrID
        if record is not None:
            worker = record.worker
            if crash:
                left = succeed(self._lifecycle.crash(record, reassign=reassign))
            else:
                left = self._lifecycle.dismiss(record, self._timeout, reassign)
        if traitsOf(worker).connecting:
            self._lifecycle.reconnects.dismiss(worker)
        return bothWorlds(left, self._reactor)

    def qualifyWorker(self, worker: IWorker | int, series: Hashable) -> None:
        """
        Let a worker run a further series, from now on.

        @raise ValueError: the worker is not attached.
        @raise TypeError: the series is not hashable.
        """
        record = self._registry.find(worker)
        if record is None:
            raise ValueError(f"{worker!r} is no worker of this queue: attach it first")
        hash(series)
        self._lifecycle.qualify(record, series)

    def workers(self, ID: int | None = None, *, dialing: bool = True, failing: bool = True) -> Any:
        """
        Return the workers, in the order they were attached; or the one of an ID, or C{None} if
        there is none.

        @param dialing: whether those follow that have no connection yet, or not again.
            What keeps one of them from it is in its C{dialing}. They are not counted by
            C{len}, and have no tasks.
        @param failing: whether those are among them that can run nothing for now.
        """
        records = self._registry.records
        if ID is None:
            hired = [record.worker for record in records.values() if failing or not record.fault]
            return [*hired, *self._lifecycle.reconnects.workers()] if dialing else hired
        record = records.get(ID)
        return None if record is None else record.worker

    # Listening

    def subscribe(self, consumer: Any) -> None:
        """
        Write the load, which is the whole number of queued and running tasks, to
        a consumer at every change. It returns to 0.

        @param consumer: an C{IConsumer}. When it stops its producer, it is
            written to no more.
        @raise ImplementationError: it is no C{IConsumer}.
        """
        load = self._registry.load()
        producer = LoadProducer(consumer, load, self._unsubscribe)
        self._subscriptions.append(producer)
        self.addObserver(producer)

    def _unsubscribe(self, producer: LoadProducer) -> None:
        if producer in self._subscriptions:
            self._subscriptions.remove(producer)
        self.removeObserver(producer)

    def addObserver(self, observer: Any) -> None:
        """
        Tell an L{IQueueObserver<asynqueue.interfaces.IQueueObserver>} what
        happens.

        @raise ImplementationError: it is none.
        """
        self._registry.addObserver(observer)

    def removeObserver(self, observer: Any) -> None:
        """
        Tell an observer no more.
        """
        self._registry.removeObserver(observer)

    def watchWorkers(self, changed: Callable[[], None]) -> Callable[[], None]:
        """
        Have something called each time a worker was attached, or is gone, or says that it
        can run nothing for now, or can again. Unlike an observer, that costs tasks nothing.

        @param changed: must not raise.
        @return: what ends that. It may be called more than once.
        """
        return self._lifecycle.watch(changed)

    def faultOf(self, series: Hashable = None) -> tuple[str, bool]:
        """
        Why no worker can run calls of a series for now, where there are such that may.

        @return: why, in words, empty if one can or there is none; and whether there is no
            hope.
        """
        return self._lifecycle.faultOf(series)

    def slots(self, series: Hashable = None) -> int:
        """
        Return how many calls of a series can run at once. Workers that can run nothing for now
        do not count.
        """
        return self._lifecycle.slots(series)

    def statistics(self) -> QueueStatistics:
        """
        Return a snapshot of the queue, its flows and its workers.
        """
        return queueStatistics(self._lifecycle)

    def why(self, taskOrDeferred: Task | Deferred[Any]) -> str:
        """
        Return what a task waits for, in words: for people, not for programs.

        @param taskOrDeferred: what L{call} returned, or a task.
        """
        return whyWaits(self._lifecycle, taskOrDeferred)

    # The end

    def drain(self) -> AwaitableDeferred[None]:
        """
        Wait until all calls that are queued or run now have ended, whatever comes of them.
        Others may be queued meanwhile, and are not waited for. Of a map, the calls are waited
        for that are under way.

        @return: a Deferred that fires then, after those of the calls. Cancelling it ends the
            waiting, and harms no call.
        """
        return bothWorlds(Drain(self._registry).d, self._reactor)

    def shutdown(self, *, drain: bool = False) -> AwaitableDeferred[None]:
        """
        Take no more calls, and let all workers go.

        Calls that are queued errback with L{QueueRunError}. Workers end what they
        run, for as long as the C{timeout} of this queue allows; then they crash,
        and what they ran fails with L{WorkerLost<asynqueue.errors.WorkerLost>}.

        @param drain: whether the calls that are queued are made first, however long that
            takes; without a worker for them, until there is one. To ask again without it
            ends that.
        @return: a Deferred that fires when nothing is left. Asked again, it is
            another one for the same end.
        @raise LoopError: another loop runs this than that of the queue.
        """
        if not self._ending.isOver and not isGone(self._reactor):
            checkDrives(self._reactor, f"the shutdown of {self!r}")
        return self._ending.begin(drain)

    def _ended(self) -> None:
        self._early.clear()
        for producer in list(self._subscriptions):
            producer.end()

    # The reactor

    def _begin(self, reactor: Any) -> None:
        """
        Have a reactor, from now on, and do what waits for it.
        """
        self._reactor = self._dispatcher.reactor = reactor
        self._loop = loopOf(reactor)
        self._ending.follow(reactor)
        early, self._early = self._early, []
        for do in early:
            do()

    def _whenBegun(self, do: Callable[[], Any]) -> None:
        """
        Do something that needs the reactor: when it is known, which is when the
        installed one runs, or when something is asked of this queue.
        """
        if self._loop is not _NOT_YET:
            do()
            return
        installed = installedReactor()
        if installed is not None and not self._early:
            installed.callWhenRunning(self._beginWith, installed)
        self._early.append(do)

    def _beginWith(self, installed: Any) -> None:
        if self._loop is _NOT_YET and self._dispatcher.admission.gives:
            self._begin(installed)

    def _look(self, what: str, isTaken: bool = False) -> None:
        """
        Look whether the queue runs, and can do something here and now.

        @param isTaken: whether it is not refused while what is queued is made before the end.
        @raise QueueRunError: it is shut down.
        @raise LoopError: its asyncio loop is not the one that runs, or has ended.
        """
        if isGone(self._reactor):
            raise LoopError(what, "the asyncio loop of its queue has ended")
        if not (self._dispatcher.admission.stage is OPEN or isTaken or self._ending.wake()):
            raise QueueRunError(what)
        if self._loop is _NOT_YET:
            self._begin(theReactor(self._reactor))
        if self._loop is not None:
            checkDrives(self._reactor, what)


def _optionsOfName(name: Any, options: CallOptions) -> CallOptions:
    """
    Return the options of a call by name: workers over a wire make it, unless a series
    says otherwise.

    @raise TypeError: it is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f"{name!r} cannot be called: give a function, or a name that a host knows")
    return namedOptions(options) if options.series is None else options


def _notHired(failure: Failure) -> None:
    """
    Log that a worker that a queue was made with cannot be hired. If the queue ends before, that is
    no error.
    """
    if not failure.check(QueueRunError):
        _log.failure("a worker was not hired", failure)


def _allEnded(results: Sequence[Deferred[Any]]) -> Deferred[list[Any]]:
    """
    Return a Deferred list of results, which waits for all before it fails with the first failure.
    """

    def ended(outcomes: list[tuple[bool, Any]]) -> Any:
        for succeeded, value in outcomes:
            if not succeeded:
                return value
        return [value for _, value in outcomes]

    return DeferredList(results, consumeErrors=True).addCallback(ended)
