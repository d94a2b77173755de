"""
What L{asynqueue.pollers} promises, as checks for any poller.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from twisted.internet.defer import Deferred

from asynqueue.pollers.base import BasePoller
from asynqueue.testing.pollersends import ENDS
from asynqueue.testing.pollersflows import FLOWS
from asynqueue.testing.trials import Body, PollerTrial


@frozen
class PollerCheck:
    """
    One promise of a poller, to be checked by a call.

    @ivar name: its name, which is also its text.
    @ivar promise: what is promised, in a sentence.
    """

    name: str
    promise: str
    _body: Body = field(repr=False)
    _makePoller: Callable[[], BasePoller] = field(repr=False)
    _reactor: bool = field(repr=False)
    _limit: float = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> Deferred[None]:
        """
        Make a new poller and check it.

        @return: a Deferred that fails with C{AssertionError} if the promise is
            not kept, or not within the time limit.
        """
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        trial = PollerTrial(self._makePoller(), self._reactor, self._limit)
        try:
            await self._body(trial)
        finally:
            trial.end()


def pollerChecks(
    makePoller: Callable[[], BasePoller], *, reactor: bool = False, limit: float = 30.0
) -> list[PollerCheck]:
    """
    Return the checks of what a poller promises. Each is called for a Deferred, while the
    reactor runs::

        @pytest.mark.parametrize("check", pollerChecks(MyPoller), ids=str)
        def test_myPoller(check):
            return check()

    @param makePoller: makes a new poller, one for each check.
    @param reactor: whether the reactor makes the rounds. Otherwise C{poll} is
        called, in which the check blocks, never without a timeout.
    @param limit: how many seconds a check may take.
    """
    return [
        PollerCheck(
            body.__name__, " ".join((body.__doc__ or "").split()), body, makePoller, reactor, limit
        )
        for body in [*FLOWS, *ENDS]
    ]


def checkPoller(
    makePoller: Callable[[], BasePoller], *, reactor: bool = False, limit: float = 30.0
) -> Deferred[int]:
    """
    Run all checks, one after the other, with arguments as L{pollerChecks} takes them.

    @return: a Deferred of how many there were; it fails with C{AssertionError}, or
        what the poller raised, at the first promise that is not kept.
    """

    async def runAll() -> int:
        checks = pollerChecks(makePoller, reactor=reactor, limit=limit)
        for check in checks:
            try:
                await check()
            except Exception as error:
                error.add_note(f"in the check {check.name}: {check.promise}")
                raise
        return len(checks)

    return Deferred.fromCoroutine(runAll())
