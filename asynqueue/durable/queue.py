"""
The queue of jobs, as its users see it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from attrs import field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorCore
from twisted.python.failure import Failure

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.durable.errors import UnknownJob
from asynqueue.durable.feeding import Feed
from asynqueue.durable.ids import createdOf, newId
from asynqueue.durable.options import Job, JobOptions, jobOf, makeJobOptions, templateOf
from asynqueue.durable.payloads import Payloads
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import IWorker
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.sources import PullSource
from asynqueue.reactors import theReactor
from asynqueue.stores.errors import KeyTaken
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.operations import (
    Act,
    ActOn,
    Add,
    Count,
    Find,
    Nodes,
    Operation,
    Pause,
    Prune,
    Resume,
)
from asynqueue.stores.parsing import storeFromString
from asynqueue.stores.records import (
    ALL,
    DEAD,
    Added,
    JobFilter,
    JobRecord,
    JobState,
    NewJob,
    NodeRecord,
)
from asynqueue.taskqueue import TaskQueue
from asynqueue.timers import later

_DEFAULT = JobOptions()

# How many jobs are read from a store at once.
_PAGE = 100


class _Life(Enum):
    IDLE = "not started"
    STARTING = "gets ready"
    RUNNING = "serves"
    STOPPING = "ends what it has"


@frozen
class Call:
    """
    A call for L{DurableQueue.enqueueMany}.
    """

    f: Callable[..., Any] | str
    args: tuple[Any, ...] = field(default=(), converter=tuple)
    kw: dict[str, Any] = field(factory=dict)
    options: JobOptions = _DEFAULT


class DurableQueue(Service):
    """
    Makes calls that outlive programs: they are in a store until they have ended, and their outcomes
    as long as they are to be kept.

    It is a service of Twisted, and has a queue in memory, C{tasks}, whose workers make the calls.
    What is not stored is called there: both kinds share the workers.

    @ivar tasks: that queue: workers are attached there, observers added, and what it does is
        asked. Its end is this one's affair.
    """

    def __init__(
        self,
        store: IStore | str,
        *workers: IWorker,
        allow: Iterable[str] = (),
        codec: str = "cbor",
        name: str = "",
        lease: float = 30.0,
        grace: float | None = 10.0,
        reactor: Any = None,
        **asTaskQueue: Any,
    ) -> None:
        """
        @param store: where the jobs are, or a string that says so: see L{asynqueue.stores.parsing}.
            It is opened and closed with this queue.
        @param workers: the workers to begin with.
        @param allow: the modules whose own functions may be called, C{package.*} with all below.
            What a store says is never imported otherwise.
        @param codec: C{"cbor"} for plain values; C{"pickle"} stores nearly all, and who can
            write to the store can run any code here.
        @param name: what people know this program by; empty: its host.
        @param lease: for how many seconds it is believed to live, where several programs share
            the store, when it is not heard of.
        @param grace: how many seconds jobs have to end as it stops; then they are lost. C{None}:
            as long as they take.
        @param asTaskQueue: as L{TaskQueue} takes them.
        @raise ImportError: cbor2 is not installed, or there is no such module.
        @raise StoreStringRefused: the string says nothing that is known.
        """
        store = storeFromString(store, reactor) if isinstance(store, str) else store
        self.tasks = TaskQueue(*workers, reactor=reactor, timeout=grace, **asTaskQueue)
        self._store = store
        self._reactor = reactor
        self._payloads = Payloads(codec, allow)
        self._grace = grace
        self._state = _Life.IDLE
        self._starting: Deferred[Any] = succeed(None)
        self._stopping: list[Deferred[None]] = []
        self._feed = Feed(
            store,
            self.tasks,
            self._payloads,
            name or socket.gethostname(),
            lease,
            lambda: theReactor(self._reactor).seconds(),
            lambda seconds, f: later(theReactor(self._reactor), seconds, f),
        )
        self._trigger: Any = None
        # What was stored last, with which options, and what makes such jobs: mostly the next one
        # is like it.
        self._latest: tuple[Any, JobOptions, str, Callable[..., NewJob]] | None = None

    def __repr__(self) -> str:
        return f"<DurableQueue on {self._store.name}: {self._state.value}, {self.tasks!r}>"

    # The beginning and the end

    def start(self) -> AwaitableDeferred[None]:
        """
        Open the store, take over what dead programs have left, and begin to make calls.

        @return: a Deferred that fires then, or fails with the
            L{StoreError<asynqueue.stores.errors.StoreError>} that keeps the queue from it.
        @raise QueueRunError: it runs, or has been stopped.
        """
        if self._state is not _Life.IDLE or not self.tasks.isRunning():
            raise QueueRunError("start() of a queue that runs, or has been stopped")
        self._state = _Life.STARTING
        reactor = theReactor(self._reactor)
        if IReactorCore.providedBy(reactor):
            self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._reactorStops)
        d: Deferred[Any] = self._store.open()
        d.addCallback(lambda _: self._feed.start())
        d.addCallbacks(self._started, self._notStarted)
        self._starting = d
        started: Deferred[None] = Deferred()
        d.addCallbacks(started.callback, started.errback)
        return bothWorlds(started, self._reactor)

    def _started(self, _: Any) -> None:
        if self._state is _Life.STARTING:
            self._state = _Life.RUNNING

    def _notStarted(self, failure: Failure) -> Any:
        if self._state is _Life.STARTING:
            self._state = _Life.IDLE
            self._forgetTrigger()
            closed: Deferred[Any] = self._store.close()
            return closed.addCallback(lambda _: failure)
        return failure

    def stop(self) -> AwaitableDeferred[None]:
        """
        Claim nothing more, give back what has not begun, and let the rest end within the grace;
        then leave and close the store. A queue that has stopped is not started again.

        @return: a Deferred that fires when nothing is left, and never fails.
        """
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        if len(self._stopping) == 1:
            wasIdle, self._state = self._state is _Life.IDLE, _Life.STOPPING
            d: Deferred[Any] = self._starting
            if wasIdle:
                d = maybeDeferred(self.tasks.shutdown)
            else:
                d.addBoth(lambda _: self._stop())
            d.addBoth(self._stopped)
        elif self._state is _Life.IDLE:
            stopped.callback(None)
        return bothWorlds(stopped, self._reactor)

    def _stop(self) -> Deferred[Any]:
        feed, tasks = self._feed, self.tasks
        feed.close()
        # Those that workers have and have not begun come back to the queue, and none gets them.
        left = [tasks.detachWorker(worker, reassign=True) for worker in tasks.workers()]
        feed.withdraw()
        d: Deferred[Any] = DeferredList(left, consumeErrors=True)
        d.addBoth(lambda _: feed.withdraw())
        d.addBoth(lambda _: tasks.shutdown())
        d.addBoth(lambda _: self._settled())
        d.addBoth(lambda _: feed.stop())
        d.addBoth(lambda _: self._store.close())
        return d

    def _settled(self) -> Deferred[Any]:
        """
        Wait until all outcomes are stored, if that does not take longer than the grace.
        """
        settled: Deferred[Any] = self._feed.settle()
        settled.addTimeout(10.0 if self._grace is None else self._grace, theReactor(self._reactor))
        return settled.addErrback(lambda failure: None)

    def _stopped(self, _: Any) -> None:
        self._feed.results.stop("the result of job")
        self._state = _Life.IDLE
        self._forgetTrigger()
        for d in self._stopping:
            if not d.called:
                d.callback(None)

    def _reactorStops(self) -> Deferred[None]:
        # What calls this is not to be removed any more.
        self._trigger = None
        return self.stop()

    def _forgetTrigger(self) -> None:
        if self._trigger is not None:
            trigger, self._trigger = self._trigger, None
            theReactor(self._reactor).removeSystemEventTrigger(trigger)

    def startService(self) -> Any:
        """
        Start, as a part of an application.
        """
        super().startService()  # type: ignore[no-untyped-call]
        return self.start()

    def stopService(self) -> Any:
        """
        Stop, as a part of an application.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return self.stop()

    # New jobs

    def enqueue(
        self,
        f: Callable[..., Any] | str,
        *args: Any,
        series: str = "",
        niceness: int = 0,
        doNext: bool = False,
        doLast: bool = False,
        key: str | None = None,
        onTaken: str = "join",
        after: float | None = None,
        expires: float | None = None,
        timeout: float | None = None,
        retry: Any = 1,
        keep: float = 86_400.0,
        keepDead: float = 14 * 86_400.0,
        **kw: Any,
    ) -> AwaitableDeferred[Job]:
        """
        Store a call of a function. The keywords are those of L{JobOptions}, and never reach the
        function; for one that uses the same words there is L{enqueueWith}.

        @param f: a function of a module that is allowed here, or the name of one,
            C{"module:function"}, that is allowed where it is called.
        @return: a Deferred of the job, which fires when it is stored: then it outlives this
            program. It fails with L{KeyTaken<asynqueue.stores.errors.KeyTaken>}, or with
            L{StoreLost<asynqueue.stores.errors.StoreLost>} where it may be stored or not.
        @raise NotStorable: the function has no name, or an argument cannot be stored.
        @raise QueueRunError: the queue does not run.
        """
        given: dict[str, Any] = {
            "series": series,
            "niceness": niceness,
            "doNext": doNext,
            "doLast": doLast,
            "key": key,
            "onTaken": onTaken,
            "after": after,
            "expires": expires,
            "timeout": timeout,
            "retry": retry,
            "keep": keep,
            "keepDead": keepDead,
        }
        try:
            # Most keys are used once.
            options = makeJobOptions(**given) if key is None else JobOptions(**given)
        except TypeError:
            # Something cannot be hashed: let the checks say what.
            options = JobOptions(**given)
        return self.enqueueWith(options, f, *args, **kw)

    def enqueueWith(
        self, options: JobOptions, f: Callable[..., Any] | str, /, *args: Any, **kw: Any
    ) -> AwaitableDeferred[Job]:
        """
        Store a call of a function that gets all the keywords: see L{enqueue}.
        """
        return bothWorlds(self._add(self._newJob(options, f, args, kw)), self._reactor)

    def enqueueMany(
        self, calls: Iterable[Call | tuple[Any, ...]], options: JobOptions = _DEFAULT
    ) -> AwaitableDeferred[list[Job | KeyTaken]]:
        """
        Store calls, all or none.

        @param calls: each a tuple C{(f, *args)}, or a L{Call} with options of its own.
        @param options: those of the tuples.
        @return: a Deferred list of the jobs, in their order; of one whose key is taken, and that
            rejects that, the error instead.
        @raise NotStorable: one of them cannot be stored; none is.
        @raise QueueRunError: the queue does not run.
        """
        new = [
            self._newJob(each.options, each.f, each.args, each.kw)
            if isinstance(each, Call)
            else self._newJob(options, each[0], each[1:], {})
            for each in calls
        ]
        d: Deferred[Sequence[Added | KeyTaken]] = self._do("enqueueMany", Add(tuple(new)))
        jobs: Deferred[list[Job | KeyTaken]] = d.addCallback(
            lambda added: [
                each if isinstance(each, KeyTaken) else _jobAdded(job, each)
                for job, each in zip(new, added, strict=True)
            ]
        )
        return bothWorlds(jobs, self._reactor)

    def run(
        self,
        f: Callable[..., Any] | str,
        *args: Any,
        options: JobOptions = _DEFAULT,
        **kw: Any,
    ) -> AwaitableDeferred[Any]:
        """
        Store a call, and wait for its result. To cancel the Deferred cancels the job.

        @return: a Deferred of what the function returns: see L{result}.
        @raise NotStorable: it cannot be stored.
        @raise QueueRunError: the queue does not run.
        """
        new = self._newJob(options, f, args, kw)
        # The outcome may come before the job is known to be stored.
        result = self._feed.results.wait(new.id, isNew=True)
        running = new.id
        done: AwaitableDeferred[Any] = AwaitableDeferred(lambda _: self._cancelQuietly(running))
        done.reactor = self._reactor

        def added(answer: Added) -> None:
            nonlocal running
            self._feed.results.added(new.id)
            if answer.joined:
                running = answer.id
                result.cancel()
                self._feed.results.wait(answer.id).addBoth(_passTo, done)

        def notAdded(failure: Failure) -> None:
            self._feed.results.added(new.id)
            result.cancel()
            _passTo(failure, done)

        result.addCallbacks(_passTo, _unlessCancelled, (done,), errbackArgs=(done,))
        self._addOne(new).addCallbacks(added, notAdded)
        return done

    def _newJob(
        self, options: JobOptions, f: Callable[..., Any] | str, args: Any, kw: dict[str, Any]
    ) -> NewJob:
        """
        Make a job as it is stored. A hot path.
        """
        payloads = self._payloads
        latest = self._latest
        if latest is None or latest[0] is not f or latest[1] is not options:
            name = payloads.nameOf(f)
            make = templateOf(options, name, payloads.codec)
            latest = self._latest = f, options, name, make
        payload = payloads.packCall(latest[2], args, kw) if args or kw else b""
        return latest[3](id=newId(), payload=payload)

    def _addOne(self, new: NewJob) -> Deferred[Added]:
        def added(answers: Sequence[Added | KeyTaken]) -> Added:
            if isinstance(answers[0], KeyTaken):
                raise answers[0]
            return answers[0]

        return self._do("enqueue", Add((new,))).addCallback(added)

    def _add(self, new: NewJob) -> Deferred[Job]:
        return self._addOne(new).addCallback(lambda added: _jobAdded(new, added))

    # What there is

    def result(self, id: str) -> AwaitableDeferred[Any]:
        """
        Wait for the outcome of a job, of whatever program on this store. To cancel the Deferred
        harms no job.

        @return: a Deferred of what it returns. It fails with what it has raised, or with
            L{JobLost}, L{JobCancelled}, L{JobExpired}, L{UnknownJob} or L{ResultNotKept}; with
            C{QueueRunError} when this queue stops.
        @raise QueueRunError: the queue does not run.
        """
        self._look("result")
        return bothWorlds(self._feed.results.wait(id), self._reactor)

    def job(self, id: str) -> AwaitableDeferred[Job]:
        """
        Look for a job.

        @return: a Deferred of it, which fails with L{UnknownJob} if there is none.
        """
        d: Deferred[Sequence[JobRecord]] = self._do("job", Find(JobFilter(ids=frozenset((id,)))))

        def found(records: Sequence[JobRecord]) -> Job:
            if not records:
                raise UnknownJob(id)
            return jobOf(records[0])

        return bothWorlds(d.addCallback(found), self._reactor)

    def jobs(self, filter: JobFilter = ALL, *, newestFirst: bool = False) -> Deferator:
        """
        Iterate over jobs in the order of their age. They are read page by page, as they are
        consumed; what changes meanwhile may be seen or not.
        """
        self._look("jobs")
        page: list[JobRecord] = []
        last: str | None = None
        isLast = False

        def read(_: Any = None) -> Any:
            d: Deferred[Sequence[JobRecord]] = self._do(
                "jobs", Find(filter, last, _PAGE, newestFirst)
            )
            return d.addCallback(fill)

        def fill(records: Sequence[JobRecord]) -> Any:
            nonlocal isLast
            page.extend(records)
            isLast = len(records) < _PAGE
            return give()

        def give() -> tuple[Any, bool, bool]:
            nonlocal last
            if not page:
                return None, False, False
            record = page.pop(0)
            last = record.job.id
            return jobOf(record), True, bool(page) or not isLast

        def ask() -> Any:
            return give() if page or isLast else read()

        return Deferator.fromSource(PullSource(ask), "jobs", 2)

    def count(self, filter: JobFilter = ALL) -> AwaitableDeferred[dict[JobState, int]]:
        """
        Count jobs by state.
        """
        return bothWorlds(self._do("count", Count(filter)), self._reactor)

    def dead(self) -> Deferator:
        """
        Iterate over the jobs that want a person: failed and lost ones.
        """
        return self.jobs(JobFilter(states=DEAD))

    def nodes(self) -> AwaitableDeferred[Sequence[NodeRecord]]:
        """
        Tell which programs are on this store.
        """
        return bothWorlds(self._do("nodes", Nodes()), self._reactor)

    # What is done to many

    def cancel(self, filter: JobFilter, who: str = "") -> AwaitableDeferred[int]:
        """
        Cancel the jobs of a filter. Running ones are ended where they run, as far as their workers
        can.

        @param who: asks, for the audit.
        @return: a Deferred of how many they were.
        """
        return self._act(Act.CANCEL, filter, who)

    def retry(self, filter: JobFilter, who: str = "") -> AwaitableDeferred[int]:
        """
        Have jobs of a filter made again that have ended, and not well.
        """
        return self._act(Act.RETRY, filter, who)

    def drop(self, filter: JobFilter, who: str = "") -> AwaitableDeferred[int]:
        """
        Forget jobs of a filter that have ended.
        """
        return self._act(Act.DROP, filter, who)

    def pause(self, series: str, who: str = "") -> AwaitableDeferred[None]:
        """
        Have no more jobs of a series begin, in any program on this store.
        """
        return bothWorlds(self._do("pause", Pause(series, who)), self._reactor)

    def resume(self, series: str, who: str = "") -> AwaitableDeferred[None]:
        """
        Have jobs of a series begin again.
        """
        return bothWorlds(self._do("resume", Resume(series, who)), self._reactor)

    def prune(self, most: int = 10_000) -> AwaitableDeferred[int]:
        """
        Forget jobs whose outcomes need not be kept any longer. That happens by itself as this
        queue starts, and after each ten thousand jobs.

        @return: a Deferred of how many they were.
        """
        return bothWorlds(self._do("prune", Prune(most)), self._reactor)

    # Within

    def _act(self, act: Act, filter: JobFilter, who: str) -> AwaitableDeferred[int]:
        if not isinstance(filter, JobFilter):
            raise TypeError(f"{act.value}() takes a JobFilter, not {filter!r}")
        done: Deferred[Sequence[str]] = self._do(act.value, ActOn(act, filter, who))
        return bothWorlds(done.addCallback(len), self._reactor)

    def _cancelQuietly(self, id: str) -> None:
        if self._state is _Life.RUNNING:
            d: Deferred[Any] = self._store.do(ActOn(Act.CANCEL, JobFilter(ids=frozenset((id,)))))
            d.addErrback(lambda failure: None)

    def _look(self, what: str) -> None:
        if self._state is not _Life.RUNNING:
            raise QueueRunError(f"{what}() of a queue that is not started")

    def _do(self, what: str, operation: Operation[Any]) -> Deferred[Any]:
        self._look(what)
        d: Deferred[Any] = self._store.do(operation)
        return d


def _jobAdded(new: NewJob, added: Added) -> Job:
    """
    Return a job as it was just added; of one that was joined, as far as that is known.
    """
    created = createdOf(added.id)
    flow = new.flow
    due = created if added.joined else created + new.after
    state = added.state
    return Job(added.id, new.name, flow.series, flow.niceness, state, 0, due, created, new.key)


def _passTo(value: Any, d: Deferred[Any]) -> None:
    if not d.called:
        d.callback(value)


def _unlessCancelled(failure: Failure, d: Deferred[Any]) -> None:
    """
    Pass on a failure, unless it is only said that nobody waits any more.
    """
    if not failure.check("twisted.internet.defer.CancelledError"):
        _passTo(failure, d)
