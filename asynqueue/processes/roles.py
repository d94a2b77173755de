"""
Who is told what of a child, and what is told: its setup, its calls, its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from attrs import evolve, frozen

from asynqueue.errors import WorkerLost, signalName
from asynqueue.framing import LARGEST
from asynqueue.iteration.far import FarSource
from asynqueue.outcome import Raised, describeCall
from asynqueue.processes.protocol import KEPT

CallTuple = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# What a child is here: the class of it is above.
_Child = TypeVar("_Child", contravariant=True)

# The number of children that a call is given to which end before they begin it, the last one
# having only that.
MOST_TRIES = 3

_UNKNOWN = (
    "how it ended is not known: SIGCHLD is ignored, or something else in this program has"
    " waited for it"
)


@frozen
class Setup:
    """
    How a child is to be.

    @ivar limit: how many bytes the arguments or the result of a call may have.
    @ivar preparations: the calls that it makes before any other.
    @ivar kept: how many bytes of shared memory either side keeps, to use them again.
    """

    limit: int = LARGEST
    preparations: Sequence[CallTuple] = ()
    kept: int = KEPT


@frozen
class ExitReport:
    """
    How a child ended, and what it left.

    @ivar pid: its process ID.
    @ivar exitCode: how it ended, unless by a signal.
    @ivar signal: the number of the signal that ended it. If neither is known,
        something else in this program has waited for it, or SIGCHLD is ignored.
    @ivar reason: why it was ended, if we did that.
    @ivar lastWords: the last that it wrote to standard error.
    @ivar begun: the jobs that it had begun, and not ended.
    @ivar notBegun: those that it surely had not begun, in their order.
    @ivar wasUp: whether it was set up and prepared.
    @ivar suspects: those that were taken back before it had begun any of them, and that it
        may not have lived to read.
    @ivar poison: what it had alone and had not begun, as others before it had not: it is to
        be tried no more. C{None} if there is none.
    """

    pid: int
    exitCode: int | None
    signal: int | None
    reason: str
    lastWords: str
    begun: list[Any]
    notBegun: list[Any]
    wasUp: bool = True
    suspects: Sequence[Any] = ()
    poison: Any = None

    def settled(self) -> ExitReport:
        """
        Count the tries, and return this with its poison apart. To be called once.
        """
        poison = self.tried()
        return self if poison is None else evolve(self, notBegun=[], poison=poison)

    @property
    def losses(self) -> list[Any]:
        """
        The jobs that end with it.
        """
        return self.begun if self.poison is None else [*self.begun, self.poison]

    def errorFor(self, job: Any) -> WorkerLost:
        """
        Return the error for one of these.
        """
        call = describeCall(*job.callTuple)
        return self.neverBegun(call, job.tries) if job is self.poison else self.lost(call)

    def lost(self, call: str) -> WorkerLost:
        """
        Return the error for a call that it had begun.
        """
        return WorkerLost(call, f"process {self.pid}", True, self.exitCode, self.signal, self.why)

    def tried(self) -> Any:
        """
        Count a try for each call that may be what ended the child: it had begun none of
        them. From then on they are given alone: see L{Supervisor.reserve
        <asynqueue.processes.supervisor.Supervisor.reserve>}.

        @return: the job that was alone here and has had enough tries; C{None} if there is
            none. All have C{tries}.
        """
        if self.begun or not self.wasUp or not self.isFailure:
            return None
        for job in dict.fromkeys((*self.notBegun, *self.suspects)):
            job.tries += 1
        if len(self.notBegun) != 1 or self.notBegun[0].tries < MOST_TRIES:
            return None
        return self.notBegun[0]

    def neverBegun(self, call: str, tries: int) -> WorkerLost:
        """
        Return the error for a call that it had not begun, as others before it had not.
        """
        reason = f"{tries} processes ended before they began it, the last: {self.describe()}"
        name = f"process {self.pid}"
        return WorkerLost(call, name, False, self.exitCode, self.signal, reason)

    @property
    def why(self) -> str:
        """
        Why it was ended, or why it cannot be known how it did; empty, if the exit code
        or the signal says it all.
        """
        if not self.reason and self.exitCode is None and self.signal is None:
            return _UNKNOWN
        return self.reason

    @property
    def isFailure(self) -> bool:
        """
        Whether it ended otherwise than it should.
        """
        return bool(self.exitCode or self.signal or self.reason or self.begun or self.notBegun)

    def describe(self) -> str:
        """
        Return how it ended.
        """
        if self.why:
            return self.why
        if self.signal is not None:
            return f"killed by {signalName(self.signal)}"
        return f"exit code {self.exitCode}"


class CallDelegate(Protocol[_Child]):
    """
    Who has a child make calls, and is told what comes of them. A job is whatever it
    gave to L{ProcessCalls.make<asynqueue.processes.calls.ProcessCalls.make>}.
    """

    def returned(self, child: _Child, job: Any, value: Any) -> None:
        """
        Hear that a call returned.
        """

    def raised(self, child: _Child, job: Any, outcome: Raised) -> None:
        """
        Hear that a call raised, or its result cannot be sent.
        """

    def iterating(self, child: _Child, job: Any, source: FarSource) -> None:
        """
        Hear that a call returned an iterator, which stays in the child.
        """

    def handedBack(self, jobs: Sequence[Any]) -> None:
        """
        Calls have not begun, and are not made: they were taken back in the moment before, or
        their child takes no more.
        """

    def onBatchRead(self, child: _Child) -> None:
        """
        Hear that all that has come by now has been told.
        """


class LifeDelegate(Protocol[_Child]):
    """
    Who is told how a child fares.
    """

    def up(self, child: _Child) -> None:
        """
        Hear that the child is set up and prepared.
        """

    def unfit(self, child: _Child, what: str, outcome: Raised) -> None:
        """
        Hear that a preparation raised.

        @param what: the call, in words.
        """

    def ended(self, child: _Child, ending: ExitReport) -> None:
        """
        Hear that the child is gone, and nothing more comes of it.
        """


class CallsDelegate(Protocol):
    """
    The child process, as its calls need it.
    """

    @property
    def isGone(self) -> bool:
        """
        Whether its process has ended, and all that it left is settled.
        """

    def signal(self, number: int) -> None:
        """
        Send it a signal.
        """

    def kill(self, reason: str) -> None:
        """
        End it at once.
        """

    def guarded(self, f: Callable[[], None]) -> None:
        """
        Do what an event loop calls.
        """

    def fault(self, error: BaseException) -> None:
        """
        Give the child up: something failed on this side.
        """


class Reader(Protocol[_Child]):
    """
    Who reads what children send.
    """

    def add(self, descriptor: int, child: _Child) -> None:
        """
        Call L{ChildProcess.receive<asynqueue.processes.process.ChildProcess.receive>} when there is
        something to read.
        """
