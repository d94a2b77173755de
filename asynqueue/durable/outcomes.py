"""
What is to be stored of attempts that have ended here: in one operation for each turn of the
reactor, and again and again while the store is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.outcome import oneLine
from asynqueue.stores.errors import StoreClosed, StoreLost, StoreUnavailable
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.operations import Again, End, Ended, GiveBack
from asynqueue.stores.records import Attempt, JobState
from asynqueue.timers import Timer

_log = Logger()

# The seconds after which a store that was away is tried again: the first, and the most.
_FIRST = 0.1
_MOST = 10.0


class Pauses:
    """
    Growing pauses between attempts to reach a store.
    """

    def __init__(self) -> None:
        self._next = _FIRST

    def take(self) -> float:
        """
        Return the next one, in seconds.
        """
        pause, self._next = self._next, min(2 * self._next, _MOST)
        return pause

    def reset(self) -> None:
        """
        Begin with the shortest one again.
        """
        self._next = _FIRST


class OutcomesDelegate(Protocol):
    """
    Who hears what has become of the outcomes.
    """

    def outcomesStored(self, ends: Sequence[Ended | Again], accepted: frozenset[Attempt]) -> None:
        """
        Hear that outcomes are stored; those that are not accepted were refused.
        """

    def storeIsBack(self) -> None:
        """
        Hear that the store can be used again after it was away.
        """


class _Batch:
    """
    Outcomes, or attempts that are given back, of a node; one of both.
    """

    __slots__ = ("attempts", "ends", "node")

    def __init__(
        self,
        node: str,
        ends: Sequence[Ended | Again] = (),
        attempts: Sequence[Attempt] = (),
    ) -> None:
        self.node = node
        self.ends = tuple(ends)
        self.attempts = tuple(attempts)

    def __len__(self) -> int:
        return len(self.ends) + len(self.attempts)

    def operation(self) -> End | GiveBack:
        if self.ends:
            return End(self.node, self.ends)
        return GiveBack(self.node, self.attempts, begun=True)

    def single(self) -> Iterator[_Batch]:
        for end in self.ends:
            yield _Batch(self.node, (end,))
        for attempt in self.attempts:
            yield _Batch(self.node, (), (attempt,))


class Outcomes:
    """
    Writes outcomes to a store.

    @ivar isAway: whether the store could not be reached last.
    """

    def __init__(
        self,
        store: IStore,
        delegate: OutcomesDelegate,
        callLater: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self.isAway = False
        self._store = store
        self._delegate = delegate
        self._ends: dict[str, list[Ended | Again]] = {}
        self._back: dict[str, list[Attempt]] = {}
        self._failed: list[_Batch] = []
        self._asked: dict[_Batch, None] = {}
        self._timer = Timer(callLater)
        self._pauses = Pauses()
        self._settling: Deferred[None] | None = None

    def __len__(self) -> int:
        """
        Return how many attempts there are of whose ends it is not known that they are stored.
        """
        held: list[Sized] = [*self._failed, *self._asked]
        held += [*self._ends.values(), *self._back.values()]
        return sum(len(each) for each in held)

    def attempts(self) -> set[Attempt]:
        """
        Return these attempts.
        """
        found = {attempt for each in self._back.values() for attempt in each}
        found.update(end.attempt for each in self._ends.values() for end in each)
        for batch in (*self._failed, *self._asked):
            found.update(batch.attempts)
            found.update(end.attempt for end in batch.ends)
        return found

    def ending(self) -> set[str]:
        """
        Return the IDs of the jobs whose outcomes are being written.
        """
        return {
            end.attempt.id for batch in self._asked for end in batch.ends if isinstance(end, Ended)
        }

    def end(self, node: str, end: Ended | Again) -> None:
        """
        Store how an attempt has ended, with the next L{flush}. A hot path.
        """
        ends = self._ends.get(node)
        if ends is None:
            ends = self._ends[node] = []
        ends.append(end)

    def giveBack(self, node: str, attempt: Attempt) -> None:
        """
        Give an attempt back that has not begun, with the next L{flush}.
        """
        self._back.setdefault(node, []).append(attempt)

    def flush(self) -> None:
        """
        Write what there is, unless the store is away: then that is done when it is back.
        """
        if self.isAway:
            return
        if self._ends:
            ends, self._ends = self._ends, {}
            for node, each in ends.items():
                self._write(_Batch(node, each))
        if self._back:
            back, self._back = self._back, {}
            for node, attempts in back.items():
                self._write(_Batch(node, (), attempts))

    def settle(self) -> Deferred[None]:
        """
        Wait until all is stored. To cancel the Deferred ends the waiting.
        """
        self.flush()
        if not len(self):
            return succeed(None)
        self._settling = Deferred()
        return self._settling

    def stop(self) -> None:
        """
        Write nothing more, and log how many outcomes are not stored.
        """
        self._timer.stop()
        self._settling = None
        if len(self):
            _log.error("{count} outcomes of jobs could not be stored", count=len(self))

    def _write(self, batch: _Batch) -> None:
        self._asked[batch] = None
        d: Deferred[frozenset[Attempt]] = self._store.do(batch.operation())
        d.addCallbacks(self._stored, self._notStored, (batch,), errbackArgs=(batch,))

    def _stored(self, accepted: frozenset[Attempt], batch: _Batch) -> None:
        del self._asked[batch]
        if self.isAway:
            self._isBack()
        if batch.ends:
            if len(accepted) < len(batch.ends):
                _logRefused(batch, accepted)
            self._delegate.outcomesStored(batch.ends, accepted)
        self._look()

    def _notStored(self, failure: Failure, batch: _Batch) -> None:
        del self._asked[batch]
        if failure.check(StoreUnavailable, StoreLost):
            # To store an outcome again that is stored already changes nothing.
            self._failed.append(batch)
            self.isAway = True
            if not self._timer.isRunning:
                self._timer.start(self._pauses.take(), self._tryAgain)
        elif failure.check(StoreClosed):
            _log.error("{count} outcomes came after the store was closed", count=len(batch))
            self._look()
        elif len(batch) > 1:
            for each in batch.single():
                self._write(each)
        else:
            self._refused(failure, batch)

    def _refused(self, failure: Failure, batch: _Batch) -> None:
        """
        Store an outcome without its value, since with that it cannot be stored.
        """
        end = batch.ends[0] if batch.ends else None
        error = failure.value
        assert error is not None
        if isinstance(end, Ended) and (end.outcome.value or end.outcome.error):
            summary = f"it could not be stored: {oneLine(error)}"
            kind = end.outcome.kind
            outcome = evolve(end.outcome, value=None, error=None, summary=summary)
            if kind is not JobState.DONE and end.outcome.summary:
                outcome = evolve(outcome, summary=end.outcome.summary)
            self._write(_Batch(batch.node, (Ended(end.attempt, outcome),)))
            return
        _log.failure("the end of a job could not be stored", failure)
        self._look()

    def _tryAgain(self) -> None:
        """
        Write what failed, and if that succeeds, all.
        """
        failed, self._failed = self._failed, []
        for batch in failed:
            self._write(batch)

    def _isBack(self) -> None:
        self.isAway = False
        self._pauses.reset()
        self.flush()
        self._delegate.storeIsBack()

    def _look(self) -> None:
        if self._settling is not None and not len(self):
            settling, self._settling = self._settling, None
            if not settling.called:
                settling.callback(None)


def _logRefused(batch: _Batch, accepted: frozenset[Attempt]) -> None:
    for end in batch.ends:
        if end.attempt not in accepted:
            _log.warn(
                "the outcome of attempt {number} of job {id} was refused: another attempt has"
                " ended it, or may",
                number=end.attempt.number,
                id=end.attempt.id,
            )
