"""
Brings jobs from a store to a queue, and their outcomes back.

::

    store ── flows ─▶ Shares ─┐                          ┌─▶ Outcomes ── End ─▶ store
                              ├─ Claim ─▶ Runs ─▶ queue ─┤
    queue ── slots ─▶ window ─┘                          └─▶ room for the next claim

Once in a turn of the reactor outcomes are written and jobs claimed: so both share a transaction.
One claim is on its way at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.durable.life import NodeLife
from asynqueue.durable.outcomes import Outcomes, Pauses
from asynqueue.durable.payloads import Payloads
from asynqueue.durable.results import Results
from asynqueue.durable.running import Run, Runs
from asynqueue.durable.shares import Shares
from asynqueue.durable.window import ClaimWindow
from asynqueue.stores.errors import StoreClosed, StoreLost
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.operations import (
    Again,
    Claim,
    Claims,
    Ended,
    Find,
    FlowCount,
    Flows,
    Prune,
    Ripen,
    Ripened,
    Want,
)
from asynqueue.stores.records import Attempt, Flow, JobFilter, JobRecord, JobState, StoreEvent
from asynqueue.taskqueue import TaskQueue
from asynqueue.timers import Timer

_log = Logger()

# The most seconds until it is looked whether jobs are due: the clock of the store may be moved.
_LONGEST = 3600.0

# After how many outcomes those are forgotten that need not be kept.
_PRUNING = 10_000

_HELD = frozenset({JobState.CLAIMED, JobState.RUNNING})
_PAGE = 1000


class Feed:
    """
    Feeds a queue with the jobs of a store.
    """

    def __init__(
        self,
        store: IStore,
        tasks: TaskQueue,
        payloads: Payloads,
        name: str,
        lease: float,
        seconds: Callable[[], float],
        callLater: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self.results = Results(store, payloads, callLater)
        self._store = store
        self._tasks = tasks
        self._seconds = seconds
        self._life = NodeLife(store, name, lease, self, seconds, callLater)
        self._runs = Runs(tasks, payloads, self)
        self._outcomes = Outcomes(store, self, callLater)
        self._shares = Shares()
        self._window = ClaimWindow()
        # The jobs that run, or are in the line before the workers, by series.
        self._held: Counter[str] = Counter()
        self._isOpen = self._isClaiming = False
        # Whether a claim was lost: it may have taken jobs of which nothing is known here.
        self._isUnsure = False
        self._turn = Timer(callLater)
        # Whether a turn is due: it is asked for each job.
        self._isDue = False
        self._again = Timer(callLater)
        self._pauses = Pauses()
        self._ripening = Timer(callLater)
        self._isRipening = self._ripensAgain = False
        self._ended = 0
        self._unwatch: Callable[[], None] = lambda: None

    @property
    def node(self) -> str:
        """
        The ID of this node.
        """
        return self._life.id

    def running(self) -> list[Run]:
        """
        Return the attempts that run, or are in the line before the workers.
        """
        return list(self._runs)

    # The beginning and the end

    def start(self) -> Deferred[Any]:
        """
        Take over what dead programs have left, and begin to claim. The store is open.
        """
        self._store.listen(self.told)
        self._life.slots = self._tasks.slots()
        d = self._life.start()
        d.addCallback(lambda _: self._started())
        return d

    def _started(self) -> None:
        self._isOpen = True
        self._unwatch = self._tasks.watchWorkers(self._workersChanged)
        self._lookAgain()
        self._prune()

    def close(self) -> None:
        """
        Claim nothing more, and give back what no worker has.
        """
        self._isOpen = False
        self._unwatch()
        for timer in (self._again, self._ripening):
            timer.stop()
        self.withdraw()

    def withdraw(self) -> None:
        """
        Give back what no worker has.
        """
        self._runs.withdraw()

    def settle(self) -> Deferred[None]:
        """
        Wait until all outcomes are stored. To cancel the Deferred ends the waiting.
        """
        return self._outcomes.settle()

    def stop(self) -> Deferred[Any]:
        """
        Leave the store. Nothing runs any more.
        """
        self._turn.stop()
        self._outcomes.stop()
        self._store.unlisten(self.told)
        return self._life.stop() if self._life.id else succeed(None)

    # What the store says

    def told(self, event: StoreEvent) -> None:
        """
        Hear of a change in the store.
        """
        if event.ended and len(self.results):
            # Of those that end here the outcomes are known: see L{outcomesStored}.
            self.results.ended(set(event.ended) - self._outcomes.ending())
        if event.stopping:
            self._runs.cancel(event.stopping)
        if event.flows:
            for flow in event.flows:
                self._shares.waits(flow)
            self.turnLater()
        if event.hasLater:
            self._ripen()
        if event.isUnknown:
            self.results.lookAgain()
            self._lookAgain()

    def _lookAgain(self) -> None:
        """
        Look which jobs can be claimed, and which are due.
        """
        if self._isOpen:
            d: Deferred[Sequence[FlowCount]] = self._store.do(Flows())
            d.addCallbacks(self._flowsFound, self._isAway)
            self._ripen()

    def _flowsFound(self, found: Sequence[FlowCount]) -> None:
        for each in found:
            if each.waiting:
                self._shares.waits(each.flow)
        self.turnLater()

    def _ripen(self) -> None:
        """
        Have jobs wait that are due, and again when the next ones are.
        """
        if self._isRipening:
            self._ripensAgain = True
        elif self._isOpen:
            self._isRipening = True
            d: Deferred[Ripened] = self._store.do(Ripen())
            d.addCallbacks(self._ripened, self._notRipened)

    def _ripened(self, ripened: Ripened) -> None:
        self._isRipening = False
        again, self._ripensAgain = self._ripensAgain, False
        for flow in ripened.flows:
            self._shares.waits(flow)
        if ripened.flows:
            self.turnLater()
        if not self._isOpen:
            return
        if again:
            self._ripen()
        elif ripened.next is None:
            self._ripening.stop()
        else:
            self._ripening.start(min(max(0.0, ripened.next), _LONGEST), self._ripen)

    def _notRipened(self, failure: Failure) -> None:
        self._isRipening = False
        self._isAway(failure)

    # What the queue and its workers say

    def runEnded(self, run: Run, end: Ended | Again) -> None:
        """
        Hear that an attempt has ended. A hot path.
        """
        self._outcomes.end(run.node, end)
        self._held[run.claimed.job.flow.series] -= 1
        self._window.ended()
        self.turnLater()

    def runGivenBack(self, run: Run) -> None:
        """
        Hear that an attempt has not begun.
        """
        self._outcomes.giveBack(run.node, run.claimed.attempt)
        self._held[run.claimed.job.flow.series] -= 1
        self.turnLater()

    def _workersChanged(self) -> None:
        tasks = self._tasks
        none = [series for series, held in self._held.items() if held and not tasks.slots(series)]
        if none:
            self._runs.withdraw(lambda job: job.flow.series in none)
        self.turnLater()

    # What the node says

    def mustStop(self, ids: Sequence[str]) -> None:
        """
        End running jobs that were cancelled.
        """
        self._runs.cancel(ids)

    def leaseEnds(self) -> None:
        """
        Have nothing begin any more.
        """
        self._runs.withdraw()

    def leaseRenewed(self) -> None:
        """
        Go on.
        """
        self._lookAgain()

    # Claims

    def turnLater(self) -> None:
        """
        Write outcomes and claim jobs in the next turn of the reactor. A hot path.
        """
        if not self._isDue:
            self._isDue = True
            self._turn.start(0, self._takeTurn)

    def _takeTurn(self) -> None:
        self._isDue = False
        self._outcomes.flush()
        if (
            self._isOpen
            and not self._isClaiming
            and not self._outcomes.isAway
            and not self._again.isRunning
            and not self._isUnsure
            and self._life.mayBegin
        ):
            self._claim()

    def _claim(self) -> None:
        """
        Claim as many jobs as there is room for.
        """
        tasks, window, held = self._tasks, self._window, self._held
        window.slots = tasks.slots()
        room = window.size - len(self._runs)
        if room <= 0:
            return
        rooms = {}
        for series in self._shares.series:
            slots = tasks.slots(series or None)
            rooms[series] = slots + window.ahead - held[series] if slots else 0
        wants = self._shares.choose(room, rooms)
        if not wants:
            return
        self._isClaiming = True
        window.asked(self._seconds(), len(self._runs))
        node = self._life.id
        d: Deferred[Claims] = self._store.do(Claim(node, wants, begin=True))
        d.addCallbacks(self._claimed, self._notClaimed, (wants, node), errbackArgs=(wants,))

    def _claimed(self, claims: Claims, wants: Sequence[Want], node: str) -> None:
        """
        Have jobs run that were claimed. A hot path.
        """
        self._isClaiming = False
        self._pauses.reset()
        claimed = claims.claimed
        found: Counter[Flow] = Counter()
        # They come flow by flow, and mostly of few flows.
        for flow, jobs in groupby(claimed, lambda each: each.job.flow):
            found[flow] += sum(1 for _ in jobs)
        self._shares.answered(wants, found)
        wanted = sum(want.count for want in wants)
        self._window.answered(self._seconds(), len(claimed) == wanted)
        for flow, count in found.items():
            self._held[flow.series] += count
        if not self._isOpen or node != self._life.id or not self._life.mayBegin:
            for each in claimed:
                self.runGivenBack(Run(each, node))
        else:
            begin = self._runs.begin
            for each in claimed:
                begin(each, node)
        self.turnLater()

    def _notClaimed(self, failure: Failure, wants: Sequence[Want]) -> None:
        self._isClaiming = False
        self._shares.failed(wants)
        if failure.check(StoreLost):
            self._isUnsure = True
        self._isAway(failure)

    # When the store is away

    def _isAway(self, failure: Failure) -> None:
        """
        Try again after a while.
        """
        if failure.check(StoreClosed) or not self._isOpen:
            return
        _log.warn("{store}: {why}", store=self._store.name, why=failure.getErrorMessage())
        if not self._again.isRunning:
            self._again.start(self._pauses.take(), self._tryAgain)

    def storeIsBack(self) -> None:
        """
        Look what has changed meanwhile.
        """
        if self._isOpen and not self._again.isRunning:
            self._tryAgain()

    def _tryAgain(self) -> None:
        if self._isUnsure:
            self._findStray()
        else:
            self._lookAgain()

    def _findStray(self, after: str | None = None) -> None:
        """
        Give back the jobs that a lost claim has taken.
        """
        jobs = JobFilter(node=self._life.id, states=_HELD)
        d: Deferred[Sequence[JobRecord]] = self._store.do(Find(jobs, after, _PAGE))
        d.addCallbacks(self._strayFound, self._isAway)

    def _strayFound(self, records: Sequence[JobRecord]) -> None:
        known = {run.claimed.attempt for run in self._runs} | self._outcomes.attempts()
        for record in records:
            attempt = Attempt(record.job.id, record.attempt)
            if attempt not in known:
                self._outcomes.giveBack(self._life.id, attempt)
        if len(records) == _PAGE:
            self._findStray(records[-1].job.id)
            return
        self._isUnsure = False
        self._outcomes.flush()
        self._lookAgain()

    # Outcomes

    def outcomesStored(self, ends: Sequence[Ended | Again], accepted: frozenset[Attempt]) -> None:
        """
        Hear that outcomes are stored.
        """
        if len(self.results):
            self.results.stored(ends, accepted)
        self._ended += len(ends)
        if self._ended >= _PRUNING:
            self._prune()

    def _prune(self) -> None:
        self._ended = 0
        d: Deferred[int] = self._store.do(Prune())
        d.addErrback(lambda failure: None)
