"""
The roles of AsynQueue. Objects meet through these and know nothing else of
each other.

Every method here is called in the reactor's thread unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, invariant

from asynqueue.errors import InvariantError


class ITask(Interface):
    """
    One attempt to make one call. The queue makes it, a worker ends it.
    """

    callTuple: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] = Attribute(
        "What to call: (f, args, kw)."
    )
    options = Attribute("The frozen options of the call.")
    ID: int = Attribute("The number of the call in its queue. Each attempt to make it has this.")
    attempt: int = Attribute("Which attempt to make the call this is, from 1.")
    series = Attribute("The label that a worker must be qualified for, or None.")
    priority = Attribute("What tasks are ordered by: the lowest comes first.")
    context = Attribute("The C{contextvars.Context} of the caller, to run the call in.")
    d: Deferred[Any] = Attribute("The caller's Deferred.")
    ended: bool = Attribute("Whether the task has its outcome.")
    watched: bool = Attribute("Whether L{begin} must be called as the run starts.")
    tries: int = Attribute(
        "How many processes have ended that had this task and had begun nothing that they had."
        " Its workers count them, and give such a task to a process alone."
    )
    lasting: bool = Attribute(
        "Whether the call prepares its worker for others: one that begins anew makes it again,"
        " before any other."
    )

    def begin() -> None:
        """
        Note that the run of this task starts now.

        Only an L{IPrefetchingWorker} calls it, and only where L{watched} is
        true: for the others the queue takes C{run} as the moment. Starts the
        clock of C{timeout=}.
        """

    def callback(value: Any) -> None:
        """
        End the task with its value. A second end is ignored.
        """

    def errback(failure: Failure) -> None:
        """
        End the task with a failure. A second end is ignored.
        """


def _check_qualifications(worker: Any) -> None:
    """
    Both qualifications of a worker are there, and are lists of what can be hashed.
    """
    for name in ("cQualified", "iQualified"):
        qualified = getattr(worker, name, None)
        if not isinstance(qualified, list):
            raise InvariantError(worker, f"its {name} is a list of series, not {qualified!r}")
        for series in qualified:
            try:
                hash(series)
            except TypeError:
                reason = f"its {name} has {series!r}, which is not hashable"
                raise InvariantError(worker, reason) from None


class IWorker(Interface):
    """
    Runs tasks that a queue assigns to it.
    """

    cQualified: list[Any] = Attribute(
        "A list of the series that all workers of this class may run."
        " Every worker may run series None, which is not listed."
    )
    iQualified: list[Any] = Attribute("A list of further series that this worker may run.")

    invariant(_check_qualifications)

    def setResignator(callableObject: Callable[[], None]) -> None:
        """
        Take what to call, without argument, when this worker can serve no more.

        The worker is then detached and L{crash}ed; of its unfinished tasks those
        that have not begun are run elsewhere, the others fail with
        L{WorkerLost<asynqueue.errors.WorkerLost>} or are tried again, if they
        may be. It may be called at any time and more than once.

        The queue calls this each time it hires the worker: one that has stopped, with
        nothing left to do, begins anew.
        """

    def run(task: ITask) -> Deferred[None]:
        """
        Run a task, and end it by its C{callback} or C{errback}.

        A task whose C{options.doNext} is true goes before anything else that
        the worker has lined up, and after others of the kind. Unless
        C{options.raw}, an iterator that the call returns becomes a
        L{Deferator<asynqueue.iteration.Deferator>}; with an C{options.consumer}
        it is produced to that consumer, and the result is the consumer. A
        callback put on C{task.d} must pass its argument on.

        @return: a Deferred that fires when the worker is ready to be assigned
            I{another} task: not when this one is done. One that has fired
            already says that it is ready at once.
        """

    def stop() -> Deferred[None]:
        """
        Take no more tasks and end those that there are.

        @return: a Deferred that fires after all of them have their outcomes.
        """

    def crash() -> list[ITask]:
        """
        Stop at once and end nothing more.

        @return: the tasks left without an outcome, those that have not begun
            included.
        """


class IPrefetchingWorker(IWorker):
    """
    A worker that is ready for tasks ahead of those it runs.

    It bounds what it holds by time (about 5 ms of work), calls C{task.begin} on
    tasks that are watched, and hands back what does not move.
    """

    def setReturner(callableObject: Callable[[Sequence[ITask]], None]) -> None:
        """
        Take what to call with tasks that were accepted and have not begun, in
        the order they were accepted. The queue assigns them again.
        """

    def takeBack() -> Sequence[ITask]:
        """
        Hand over the tasks that are lined up and surely have not begun: the
        worker holds them no more. After C{crash}, those that had not begun when
        it was called.
        """


class IResigningWorker(IWorker):
    """
    A worker that tells why it has resigned.
    """

    loss: str = Attribute("Why it has resigned, in words; empty if it has not.")


class IFailingWorker(IWorker):
    """
    A worker that may be unable to run anything for a while, as one whose process or thread
    cannot be started. It tries again by itself.
    """

    def setReporter(callableObject: Callable[[str, Sequence[ITask], bool], None]) -> None:
        """
        Take what to call when it can run nothing for now, and when it can again.

        The arguments are the reason, empty when it can run tasks again; the tasks that it
        had accepted and has not begun; and whether there is no hope. Until it can again it
        is given no tasks. Without hope, those that no other worker may run end with
        C{WorkerLost}.
        """


class ICancellingWorker(IWorker):
    """
    A worker that can end the run of a task.
    """

    def cancel(task: ITask) -> None:
        """
        End the run of a task that has its outcome already (it was cancelled, or
        took too long), as far as that can be done.

        The worker is ready for another one in its place when the run is really
        over. A task that the worker does not hold is ignored.
        """


class ILingeringWorker(IWorker):
    """
    A worker of which something is left for a while after it has crashed.
    """

    def gone() -> Deferred[None]:
        """
        Wait until nothing is left of it. Called after C{crash}.

        @return: a Deferred that fires within a bounded time, and does not fail.
        """


class IProcessWorker(IWorker):
    """
    A worker whose tasks run in processes of this host.
    """

    pids: list[int] = Attribute("The process IDs of those that live now.")


class ISlottedWorker(IWorker):
    """
    A worker that tells how many tasks it runs at once.
    """

    slots: int = Attribute("The most that it has, as it is now.")


class IRemoteWorker(IWorker):
    """
    A worker whose tasks run at the other end of a connection.
    """

    host: str = Attribute("Who is at the other end, in words; the last one, or where to, if none.")
    loss: str = Attribute("Why the connection was lost, in words; empty if it was not.")


class IConnectingWorker(IRemoteWorker):
    """
    A worker that makes its connection itself, and makes it again after it was lost.
    """

    dialing: str = Attribute(
        "What it does to get a connection, in words: where it dials, why that failed and when"
        " it tries again; empty if it has one, or wants none."
    )

    def whenConnected() -> Deferred[None]:
        """
        Connect, and go on trying until that succeeds.

        The queue calls it when the worker is attached, hires it when the Deferred
        fires, and calls it again after the worker has resigned. C{crash}, C{stop} and
        the cancelling of the Deferred end the trying.

        @return: a Deferred that fires when the worker can serve. It fails if that
            cannot be expected any more: the other side has refused.
        """


class IBacklog(Interface):
    """
    The tasks of a queue that wait for a worker, and the order in which they leave.

    The queue tells it which I{lanes} there are: what workers of the same qualification choose
    from. Of a lane it may ask C{serves(series)}, which is whether those workers may run a
    series, and C{workers}, which is how many they are. Of a task it may ask what L{ITask} has;
    tasks of one C{series}, C{options.niceness} and band (C{options.doNext},
    C{options.doLast}, or neither) are of one I{kind}, and leave in the order of their C{ID}.

    Nothing here may raise, call the queue or a task, or wait: what is kept elsewhere as well,
    on a disk or another host, is written behind what is kept here. The methods are a hot path.
    """

    queued: int = Attribute("How many tasks wait: those pushed or put back, and not taken out.")

    def addLane(lane: Any) -> None:
        """
        Take note of a lane. Its workers may pick tasks that wait already, too.
        """

    def removeLane(lane: Any) -> None:
        """
        Forget a lane: it has no workers any more.
        """

    def push(task: Any) -> None:
        """
        Take a new task, after all others of its kind. There need not be a lane that serves
        its series.
        """

    def putBack(task: Any, lane: Any = None) -> None:
        """
        Take a task in its old place again: before those of its kind with higher C{ID}s. It
        was picked before, or waited for its time, or is the next attempt of one that was
        picked.

        @param lane: the lane that it was picked for, if its run has not begun. Then what its
            kind was charged for it, in a backlog that has shares, is given back. The lane may
            have been removed by now.
        """

    def pick(lane: Any) -> Any:
        """
        Take out the task that a worker of a lane is to run next.

        @return: a task that has no outcome and whose series the lane serves; C{None} if there
            is none.
        """

    def mayPick(lane: Any) -> bool:
        """
        Tell whether L{pick} may find a task for a lane. It is quick, and may be wrong in one
        way: C{True} where there is none. After C{pick} has returned C{None} for a lane it is
        C{False} until a task is pushed or put back.
        """

    def discard(task: Any) -> None:
        """
        Take out a task that waits, as it has got its outcome (C{task.ended} is true) without
        a run: it was cancelled, has expired, or the queue is shut down.
        """

    def tasks() -> Iterator[Any]:
        """
        Yield the tasks that wait, those of one kind in their order. Nothing is pushed,
        picked or discarded meanwhile.
        """

    def statistics() -> Sequence[Any]:
        """
        Return a snapshot of each kind of which tasks wait, as
        L{FlowStatistics<asynqueue.scheduling.snapshots.FlowStatistics>}.
        """


class IQueueObserver(Interface):
    """
    Is told what happens in a queue. What an observer raises, an exit too, is logged
    and harms nobody. The methods are called in the middle of the queue's work:
    they must be quick, and must not call the queue, but for ending a task.

    L{QueueObserver<asynqueue.scheduling.observers.QueueObserver>} is one to inherit from.
    Methods that are inherited from it unchanged are never called, and cost nothing. Calls
    of a map that travel together are one task.
    """

    def taskQueued(task: ITask) -> None:
        """
        Hear that a task was accepted. A retry is not queued again.
        """

    def taskBegun(task: ITask, worker: IWorker) -> None:
        """
        Hear that a worker began to run a task. While somebody hears this, hosts send a message for
        each call that begins there.
        """

    def taskDone(task: ITask, outcome: Any, worker: IWorker | None) -> None:
        """
        Hear that a task has its outcome, for good: each queued task is done once.

        @param outcome: the value that the call returned, or the C{Failure} that it failed
            with, a cancellation included.
        @param worker: the worker that had it; C{None} if none had.
        """

    def taskLost(task: ITask, worker: IWorker) -> None:
        """
        Hear that the worker that held a task has left it undone: it is gone, or lost what ran the
        task. The task will be queued again, if it may be, or is done next.
        """

    def workerHired(worker: IWorker) -> None:
        """
        Hear that a worker was attached.
        """

    def workerLeft(worker: IWorker) -> None:
        """
        Hear that a worker was detached, or resigned.
        """


class IItemSink(Interface):
    """
    The near end of an iteration: takes what an L{IItemSource} produces.
    """

    consumed: int = Attribute("How many items were taken from it by now.")
    isAwaited: bool = Attribute(
        "Whether somebody waits for an item now, or takes all of them, if at times slowly."
    )

    def receive(items: Sequence[Any], moreLeft: bool = False) -> None:
        """
        Take items, in order, and no more of them than were granted.

        @param moreLeft: something surely follows them: the last one need not be
            held back until it is here.
        """

    def receiveFailure(failure: Failure) -> None:
        """
        Take a failure in the place of one item.
        """

    def resize(window: int) -> None:
        """
        Have at most C{window} items granted and not consumed from now on, if the sink grants by
        a window. It may grant some within this call.

        @param window: a number of items, two at the least.
        """

    def finish() -> None:
        """
        Hear that there are no more items. An iterator that raised is finished, too, after its
        failure was received.
        """


class IItemSource(Interface):
    """
    The far end of an iteration: keeps the iterator and advances it as far as it
    has credit. It never has more items out than were granted.
    """

    def connect(sink: IItemSink) -> None:
        """
        Produce to this sink. Called once, before anything else.
        """

    def grant(count: int) -> None:
        """
        Produce up to C{count} more items; the source may do so within this very
        call.
        """

    def stop() -> None:
        """
        Produce no more, and close the iterator. It may be called at any time and
        more than once. The sink hears nothing more.
        """
