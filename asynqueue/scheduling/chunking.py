"""
Items of a map that travel in chunks, by what an item costs.

::

    Portion ─▶ Chunker ─▶ one task ─▶ child: call, call, call ...
    told: outcomes, in order ◀─┤ its end, or its journal, if one takes long or it died
    left: items not begun ◀────┘
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.chunks import Chunk, Journal, Outcome, Rest, Summary, arePlain, outcomeOf, pack
from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.failures import caught, failureOf
from asynqueue.iteration.deferator import Deferator
from asynqueue.outcome import Returned, describeCall

# The seconds of work that a chunk is to be (G6), and the most items that it has.
_SECONDS = 0.0025
_MOST = 500

# It grows to so many times what the last one was, and no faster.
_GROWTH = 8

# A new measurement counts for so much of the mean.
_WEIGHT = 0.25

# An item that runs for longer than this, and at most twice that, keeps none of those
# before it or after it.
_TICK = 0.02

# What stays the same as long as it is the same object.
_CONSTANT = (BuiltinFunctionType, FunctionType, type)

# What ends a task, however far it has come.
_FOR_ALL = (CancelledError, QueueRunError)


class Portion:
    """
    Items that follow each other, and travel together.

    @ivar items: those that are not told, and not given back.
    @ivar losses: how often the first one was lost with a process.
    @ivar results: what was told of it.
    """

    __slots__ = ("begun", "d", "items", "losses", "results", "slot", "told")

    def __init__(self, items: list[Any], losses: int = 0) -> None:
        self.items = items
        self.losses = losses
        self.results: list[Any] = []
        self.d: Deferred[Any] | None = None
        self.slot = 0
        self.told = 0
        self.begun = 0


class PortionOwner(Protocol):
    """
    Who has items called.
    """

    def told(self, portion: Portion, outcomes: list[Any]) -> None:
        """
        The first items of a portion have these outcomes: values and Failures.
        """

    def left(self, portion: Portion, items: list[Any], losses: int) -> None:
        """
        The last items of a portion were not begun, or may be begun again.

        @param losses: how often the first of them was lost with a process.
        """


class Chunker:
    """
    Has a function called with the items of portions, each portion in one task.

    @ivar size: how many items a portion may have now.
    @ivar underWay: the portions that are being called.
    @ivar works: whether it can be done at all.
    """

    def __init__(
        self,
        owner: PortionOwner,
        call: Callable[..., Deferred[Any]],
        startTimer: Callable[[float, Callable[[], None]], Any],
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kw: dict[str, Any] | None = None,
        raw: bool | None = None,
        retries: int = 0,
    ) -> None:
        """
        @param call: has a process make one call, without retries.
        @param startTimer: calls a function after so many seconds.
        @param function: is called with an item, C{args} and C{kw}.
        @param raw: whether iterators are pickled as they are.
        @param retries: how often the call of an item may be made again.
        """
        self.size = 1
        self.underWay: dict[Portion, None] = {}
        self.works = Journal.isPossible()
        self._owner = owner
        self._call = call
        self._startTimer = startTimer
        self._function = function
        self._args = args
        self._kw = kw or {}
        self._raw = raw
        self._retries = retries
        self._journal: Journal | None = None
        self._chunk: Chunk | None = None
        # Anything else is pickled again for each task, as it is then.
        self._constant = (
            type(function) in _CONSTANT and arePlain(args) and arePlain(self._kw.values())
        )
        self._mean = 0.0
        self._alone = False
        self._timer: Any = None
        self._over = False

    def send(self, portion: Portion) -> bool:
        """
        Have the items of a portion called. What comes of it may be told within
        this call.

        @return: whether that can be done now.
        @raise QueueRunError: the queue takes no calls any more. Nothing was done.
        """
        if not self.works or self._over:
            return False
        try:
            if self._journal is None:
                self._journal = Journal()
            chunk = self._theChunk()
        except BaseException:
            # No memory, or a function that cannot be pickled: who calls it with
            # each item will hear what is wrong.
            self.works = False
            return False
        slot = self._journal.take()
        if slot is None:
            # One will be given back; unless all were left to tasks that were given up.
            self.works = bool(self.underWay)
            return False
        try:
            packed, together, count = pack(portion.items)
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises is the outcome.
            portion.slot = slot
            self._settle(portion, [caught(error)], portion.items[1:])
            return True
        rest = portion.items[count:]
        del portion.items[count:]
        portion.slot = slot
        try:
            d = self._call(chunk, self._journal.name, slot, packed, together)
        except BaseException:
            portion.items += rest
            self._journal.give(slot)
            raise
        portion.d = d
        self.underWay[portion] = None
        if rest:
            self._owner.left(portion, rest, 0)
        if self._timer is None and count > 1:
            self._timer = self._startTimer(_TICK, self._look)
        d.addBoth(self._ended, portion)
        if self._over:
            # What ran within the call stopped this.
            d.cancel()
        return True

    def stop(self) -> None:
        """
        End what is under way, and tell nothing more.
        """
        self._over = True
        for portion in self.underWay:
            assert self._journal is not None
            self._journal.close(portion.slot)
        while self.underWay:
            portion = self.underWay.popitem()[0]
            if portion.d is not None:
                portion.d.cancel()
        self.close()

    def explain(self, failure: Failure, item: Any) -> Failure:
        """
        Return a failure of a whole portion as that of one item: the call that it names is
        the user's, not that of the chunk.
        """
        if failure.check(QueueRunError):
            return Failure(QueueRunError(self._describe(item)))
        return failure

    def close(self) -> None:
        """
        No more portions will be sent, and none is under way.
        """
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._journal is not None:
            self._journal.shut()

    # Within

    def _theChunk(self) -> Chunk:
        if self._chunk is None or not self._constant:
            self._chunk = Chunk(self._function, self._args, self._kw, self._raw)
        return self._chunk

    def _ended(self, result: Any, portion: Portion) -> None:
        """
        The task of a portion has ended.
        """
        if self.underWay.pop(portion, self) is self:
            # It was stopped, and nobody waits for it.
            if isinstance(result, Deferator):
                result.stop()
            return
        portion.d = None
        if isinstance(result, Deferator):
            self.underWay[portion] = None
            portion.d = Deferred.fromCoroutine(_opened(result))
            portion.d.addBoth(self._ended, portion)
        elif isinstance(result, Rest):
            assert result.summary is not None
            self._summed(result.summary, portion, [result.value])
        elif isinstance(result, Failure):
            self._failed(result, portion)
        elif result is None:
            # It came to a place where chunks cannot be run.
            self.works = False
            self._settle(portion, [], list(portion.items))
        else:
            self._summed(result, portion, [])

    def _summed(self, summary: Summary, portion: Portion, last: list[Any]) -> None:
        """
        A chunk has ended as it should.
        """
        if summary.alone:
            self._alone = True
        if summary.ended:
            self._measured(summary.seconds, summary.ended)
        if summary.values is not None and not portion.told:
            outcomes = summary.values
        elif summary.values is not None:
            outcomes = summary.values[portion.told :]
        else:
            outcomes = self._written(portion)
        if summary.last is not None:
            outcomes.append(_inTwisted(outcomeOf(*summary.last)))
        outcomes += last
        self._settle(portion, outcomes, portion.items[summary.ended - portion.told :])

    def _failed(self, failure: Failure, portion: Portion) -> None:
        """
        The task of a portion failed: find out how far it came.
        """
        assert self._journal is not None
        error = failure.value
        begun = self._journal.close(portion.slot) - portion.told
        outcomes = self._written(portion)
        items = portion.items
        first = len(outcomes)
        if isinstance(error, WorkerLost):
            failed = self._lostItems(portion, first, begun, error)
            losses = 0 if first or portion.told else portion.losses
            if failed == first + 1 and losses < self._retries:
                self._settle(portion, outcomes, items[first:], losses + 1)
                return
            outcomes += [Failure(self._lost(item, error)) for item in items[first:failed]]
        else:
            # Its outcome cannot be sent, for instance; else it concerns all of them.
            failed = begun if begun > first and not failure.check(*_FOR_ALL) else len(items)
            outcomes += [self.explain(failure, item) for item in items[first:failed]]
        self._settle(portion, outcomes, items[failed:], isOver=not failure.check(CancelledError))

    def _lostItems(self, portion: Portion, first: int, begun: int, error: WorkerLost) -> int:
        """
        A process died.

        @param first: how many items were done.
        @param begun: how many were begun.
        @return: up to which item they are lost.
        """
        if begun > first:
            return first + 1
        if begun or portion.told:
            # It died in between.
            return first
        # It died of what it was about to do, and would do so again; or there is none
        # at all.
        return 1 if error.begun else len(portion.items)

    def _lost(self, item: Any, error: WorkerLost) -> WorkerLost:
        return WorkerLost(
            self._describe(item),
            error.worker,
            error.begun,
            error.exitCode,
            error.signal,
            error.reason,
        )

    def _describe(self, item: Any) -> str:
        return describeCall(self._function, (item, *self._args), self._kw)

    def _written(self, portion: Portion) -> list[Any]:
        """
        What is in the journal, and was not told.
        """
        assert self._journal is not None
        return [_inTwisted(o) for o in self._journal.outcomes(portion.slot, portion.told)]

    def _settle(
        self,
        portion: Portion,
        outcomes: list[Any],
        rest: list[Any],
        losses: int = 0,
        isOver: bool = True,
    ) -> None:
        """
        A portion has ended.

        @param rest: the items of it that have not, if there are any.
        @param isOver: whether surely nothing more is written down of it.
        """
        assert self._journal is not None
        if isOver:
            self._journal.give(portion.slot)
        if rest:
            del portion.items[len(portion.items) - len(rest) :]
            self._owner.left(portion, rest, losses)
        self._toldAll(portion, outcomes)

    def _toldAll(self, portion: Portion, outcomes: list[Any]) -> None:
        if self._over:
            return
        count = len(outcomes)
        del portion.items[:count]
        portion.told += count
        self._owner.told(portion, outcomes)

    def _measured(self, seconds: float, items: int) -> None:
        mean = seconds / items
        self._mean = mean if not self._mean else self._mean + _WEIGHT * (mean - self._mean)
        most = 1 if self._alone else min(_MOST, self.size * _GROWTH)
        self.size = max(1, min(most, int(_SECONDS / self._mean) if self._mean else most))

    def _look(self) -> None:
        """
        While chunks are under way: see whether one has been at an item for long.
        """
        self._timer = None
        stuck = []
        for portion in self.underWay:
            if len(portion.items) > 1:
                assert self._journal is not None
                begun = self._journal.begun(portion.slot)
                if begun and begun == portion.begun:
                    stuck.append(portion)
                portion.begun = begun
        for portion in stuck:
            if portion in self.underWay:
                self._loosen(portion)
        if self._timer is None and any(len(portion.items) > 1 for portion in self.underWay):
            self._timer = self._startTimer(_TICK, self._look)

    def _loosen(self, portion: Portion) -> None:
        """
        One item runs for long: take what is done, and what is not begun.
        """
        assert self._journal is not None
        begun = self._journal.close(portion.slot) - portion.told
        self._measured(_TICK, 1)
        rest = portion.items[begun:]
        del portion.items[begun:]
        outcomes = self._written(portion)
        if rest:
            self._owner.left(portion, rest, 0)
        self._toldAll(portion, outcomes)


async def _opened(deferator: Deferator) -> Rest:
    """
    The last item of a chunk has an iterator for a result.
    """
    summary: Summary = await anext(deferator)
    # As every Deferator is handed out.
    await deferator.deferUntilReady()
    return Rest(summary, deferator)


def _inTwisted(outcome: Outcome) -> Any:
    return outcome.value if isinstance(outcome, Returned) else failureOf(outcome)
