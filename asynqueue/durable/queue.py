"""
The queue of jobs, as its users see it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.durable.adding import DEFAULT, Call, JobMaker, jobAdded
from asynqueue.durable.errors import UnknownJob
from asynqueue.durable.feeding import Feed
from asynqueue.durable.lifetime import Life, Lifetime
from asynqueue.durable.options import Job, JobOptions, jobOf, makeJobOptions
from asynqueue.durable.paging import jobsOf
from asynqueue.durable.payloads import Payloads
from asynqueue.durable.reasons import reasonOf
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import IWorker
from asynqueue.iteration.deferator import Deferator
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
    Paused,
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
        payloads = Payloads(codec, allow)
        self._feed = Feed(
            store,
            self.tasks,
            payloads,
            name or socket.gethostname(),
            lease,
            lambda: theReactor(self._reactor).seconds(),
            lambda seconds, f: later(theReactor(self._reactor), seconds, f),
        )
        self._life = Lifetime(store, self.tasks, self._feed, grace, reactor)
        self._make = JobMaker(payloads).make

    def __repr__(self) -> str:
        return f"<DurableQueue on {self._store.name}: {self._life.state.value}, {self.tasks!r}>"

    # The beginning and the end

    def start(self) -> AwaitableDeferred[None]:
        """
        Open the store, take over what dead programs have left, and begin to make calls.

        @return: a Deferred that fires then, or fails with the
            L{StoreError<asynqueue.stores.errors.StoreError>} that keeps the queue from it.
        @raise QueueRunError: it runs, or has been stopped.
        """
        return bothWorlds(self._life.start(), self._reactor)

    def stop(self) -> AwaitableDeferred[None]:
        """
        Claim nothing more, give back what has not begun, and let the rest end within the grace;
        then leave and close the store. A queue that has stopped is not started again.

        @return: a Deferred that fires when nothing is left, and never fails.
        """
        return bothWorlds(self._life.stop(), self._reactor)

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
        return bothWorlds(self._add(self._make(options, f, args, kw)), self._reactor)

    def enqueueMany(
        self, calls: Iterable[Call | tuple[Any, ...]], options: JobOptions = DEFAULT
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
            self._make(each.options, each.f, each.args, each.kw)
            if isinstance(each, Call)
            else self._make(options, each[0], each[1:], {})
            for each in calls
        ]
        d: Deferred[Sequence[Added | KeyTaken]] = self._do("enqueueMany", Add(tuple(new)))
        jobs: Deferred[list[Job | KeyTaken]] = d.addCallback(
            lambda added: [
                each if isinstance(each, KeyTaken) else jobAdded(job, each)
                for job, each in zip(new, added, strict=True)
            ]
        )
        return bothWorlds(jobs, self._reactor)

    def run(
        self,
        f: Callable[..., Any] | str,
        *args: Any,
        options: JobOptions = DEFAULT,
        **kw: Any,
    ) -> AwaitableDeferred[Any]:
        """
        Store a call, and wait for its result. To cancel the Deferred cancels the job.

        @return: a Deferred of what the function returns: see L{result}.
        @raise NotStorable: it cannot be stored.
        @raise QueueRunError: the queue does not run.
        """
        new = self._make(options, f, args, kw)
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

    def _addOne(self, new: NewJob) -> Deferred[Added]:
        def added(answers: Sequence[Added | KeyTaken]) -> Added:
            if isinstance(answers[0], KeyTaken):
                raise answers[0]
            return answers[0]

        return self._do("enqueue", Add((new,))).addCallback(added)

    def _add(self, new: NewJob) -> Deferred[Job]:
        return self._addOne(new).addCallback(lambda added: jobAdded(new, added))

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

    def why(self, id: str) -> AwaitableDeferred[str]:
        """
        Tell why a job is where it is, in words: for people, not for programs. It fails with
        L{UnknownJob} if there is none.
        """
        asked: list[Operation[Any]] = [
            Find(JobFilter(ids=frozenset((id,)))),
            Paused(),
            Nodes(),
        ]

        def answered(answers: list[Any]) -> str:
            records, paused, nodes = answers
            if not records:
                raise UnknownJob(id)
            slots = self.tasks.slots(records[0].job.flow.series or None)
            return reasonOf(records[0], paused, nodes, slots)

        d: Deferred[list[Any]] = gatherResults(
            [self._do("why", operation) for operation in asked], consumeErrors=True
        )
        return bothWorlds(d.addCallback(answered), self._reactor)

    def jobs(self, filter: JobFilter = ALL, *, newestFirst: bool = False) -> Deferator:
        """
        Iterate over jobs in the order of their age. They are read page by page, as they are
        consumed; what changes meanwhile may be seen or not.
        """
        self._look("jobs")
        return jobsOf(lambda find: self._do("jobs", find), filter, newestFirst)

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
        if self._life.state is Life.RUNNING:
            d: Deferred[Any] = self._store.do(ActOn(Act.CANCEL, JobFilter(ids=frozenset((id,)))))
            d.addErrback(lambda failure: None)

    def _look(self, what: str) -> None:
        if self._life.state is not Life.RUNNING:
            raise QueueRunError(f"{what}() of a queue that is not started")

    def _do(self, what: str, operation: Operation[Any]) -> Deferred[Any]:
        self._look(what)
        d: Deferred[Any] = self._store.do(operation)
        return d


def _passTo(value: Any, d: Deferred[Any]) -> None:
    if not d.called:
        d.callback(value)


def _unlessCancelled(failure: Failure, d: Deferred[Any]) -> None:
    """
    Pass on a failure, unless it is only said that nobody waits any more.
    """
    if not failure.check("twisted.internet.defer.CancelledError"):
        _passTo(failure, d)
