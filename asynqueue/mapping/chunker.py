"""
Items of a map that travel in chunks, by what an item costs.

::

    Batch ─▶ Chunker ─▶ one task ─▶ child: call, call, call ...
    onResults: outcomes, in order ◀─┤ its end, or its board, if one takes long or it died
    onRemainder: items not begun ◀──┘
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from asynqueue.durations import Durations
from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.failures import anyFailure, caught, failureOf
from asynqueue.iteration.deferator import Deferator
from asynqueue.mapping.board import Outcome, ProgressBoard, outcomeOf
from asynqueue.mapping.chunks import MOST_SECONDS, Chunk, Rest, Summary, arePlain, pack
from asynqueue.outcome import Returned, describeCall

# The seconds of work that a chunk is to be (G6), and the most items that it has.
_SECONDS = 0.0025
_MOST = 4000

# A chunk is at most this many times as large as the last one.
_GROWTH = 8

# An item that runs for longer than this, and at most twice that, keeps none of those
# before it or after it.
_TICK = 0.02

# What stays the same as long as it is the same object.
_CONSTANT = (BuiltinFunctionType, FunctionType, type)

# What ends a task, however far it has come.
_FOR_ALL = (CancelledError, QueueRunError)


class Batch:
    """
    Items that follow each other, and travel together.

    @ivar items: those whose outcomes were not handed on, and that were not given back.
    @ivar losses: how often the first one was lost with a process.
    @ivar keys: for who has the items called: the keys of the items, if they have some.
    @ivar results: for who has the items called: the outcomes that were handed on.
    @ivar failing: for who has the items called: whether there are failures among these.
    @ivar done: how many outcomes were handed on.
    @ivar begun: how many items had been begun when that was looked up last.
    @ivar slot: where on the board it has its place.
    @ivar d: fires as the task of the batch ends, while it is under way.
    """

    __slots__ = ("begun", "d", "done", "failing", "items", "keys", "losses", "results", "slot")

    def __init__(self, items: list[Any], losses: int = 0) -> None:
        self.items = items
        self.losses = losses
        self.keys: Sequence[Any] = ()
        self.results: list[Any] = []
        self.failing = False
        self.d: Deferred[Any] | None = None
        self.slot = 0
        self.done = 0
        self.begun = 0


class BatchDelegate(Protocol):
    """
    Who has items called, and hears of them from the L{Chunker}.
    """

    def onResults(self, batch: Batch, outcomes: list[Any], failing: bool) -> None:
        """
        Hear of the outcomes of the first items of a batch: values and Failures.

        @param failing: whether there may be Failures among them.
        """

    def onRemainder(self, batch: Batch, items: list[Any], losses: int) -> None:
        """
        Take back the last items of a batch: they were not begun, or may be begun again.

        @param losses: how often the first of them was lost with a process.
        """


class Chunker:
    """
    Has a function called with the items of batches, each batch in one task.

    @ivar size: how many items a batch may have now.
    @ivar underWay: the batches that are being called.
    @ivar works: whether it can be done at all.
    """

    def __init__(
        self,
        delegate: BatchDelegate,
        call: Callable[..., Deferred[Any]],
        startTimer: Callable[[float, Callable[[], None]], Any],
        function: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kw: dict[str, Any] | None = None,
        raw: bool | None = None,
        retries: int = 0,
        seconds: float = _SECONDS,
        mostSeconds: float = MOST_SECONDS,
    ) -> None:
        """
        @param call: has a process make one call, without retries.
        @param startTimer: calls a function after some seconds.
        @param function: is called with an item, C{args} and C{kw}.
        @param raw: whether iterators are pickled as they are.
        @param retries: how often the call of an item may be made again.
        @param seconds: the seconds of work that a batch is to be.
        @param mostSeconds: after these seconds no other item of a batch is begun.
        """
        self.size = 1
        self.underWay: dict[Batch, None] = {}
        self.works = ProgressBoard.isPossible()
        self._delegate = delegate
        self._call = call
        self._startTimer = startTimer
        self._function = function
        self._args = args
        self._kw = kw or {}
        self._raw = raw
        self._retries = retries
        self._seconds = seconds
        self._mostSeconds = mostSeconds
        self._board: ProgressBoard | None = None
        self._chunk: Chunk | None = None
        # Anything else is pickled again for each task, as it is then.
        self._constant = (
            type(function) in _CONSTANT and arePlain(args) and arePlain(self._kw.values())
        )
        self._durations = Durations()
        # What fits on the board may be less than this much work.
        self._most = _MOST
        self._alone = False
        self._timer: Any = None
        self._over = False

    def send(self, batch: Batch) -> bool:
        """
        Have the items of a batch called. The delegate may hear of outcomes within this call.

        @return: whether that can be done now.
        @raise QueueRunError: the queue takes no calls any more. Nothing was done.
        """
        if not self.works or self._over:
            return False
        try:
            if self._board is None:
                self._board = ProgressBoard()
            chunk = self._theChunk()
        except BaseException:
            # No memory, or a function that cannot be pickled: who calls it with
            # each item will hear what is wrong.
            self.works = False
            return False
        slot = self._board.take()
        if slot is None:
            # One will be given back; unless all were left to tasks that were given up.
            self.works = bool(self.underWay)
            return False
        try:
            packed, together, count = pack(batch.items)
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises is the outcome.
            batch.slot = slot
            self._release(batch, [caught(error)], batch.items[1:])
            return True
        rest = batch.items[count:]
        del batch.items[count:]
        batch.slot = slot
        try:
            d = self._call(chunk, self._board.name, slot, packed, together)
        except BaseException:
            batch.items += rest
            self._board.give(slot)
            raise
        batch.d = d
        self.underWay[batch] = None
        if rest:
            self._delegate.onRemainder(batch, rest, 0)
        if self._timer is None and count > 1:
            self._timer = self._startTimer(_TICK, self._look)
        d.addBoth(self._ended, batch)
        if self._over:
            # What ran within the call stopped this.
            d.cancel()
        return True

    def stop(self) -> None:
        """
        End what is under way. The delegate hears nothing more.
        """
        self._over = True
        for batch in self.underWay:
            assert self._board is not None
            self._board.warn(batch.slot)
        while self.underWay:
            batch = self.underWay.popitem()[0]
            if batch.d is not None:
                batch.d.cancel()
        self.close()

    def explain(self, failure: Failure, item: Any) -> Failure:
        """
        Return a failure of a whole batch as that of one item: the call that it names is
        the user's, not that of the chunk.
        """
        if failure.check(QueueRunError):
            return Failure(QueueRunError(self._describe(item)))
        return failure

    def close(self) -> None:
        """
        Give the board back: no more batches will be sent, and none is under way.
        """
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._board is not None:
            self._board.shut()

    # Within

    def _theChunk(self) -> Chunk:
        if self._chunk is None or not self._constant:
            self._chunk = Chunk(
                self._function, self._args, self._kw, self._raw, seconds=self._mostSeconds
            )
        return self._chunk

    def _ended(self, result: Any, batch: Batch) -> None:
        """
        Hand on the outcomes of a batch whose task has ended.
        """
        if self.underWay.pop(batch, self) is self:
            # It was stopped, and nobody waits for it.
            if isinstance(result, Deferator):
                result.stop()
            return
        batch.d = None
        if isinstance(result, Deferator):
            self.underWay[batch] = None
            batch.d = Deferred.fromCoroutine(_opened(result))
            batch.d.addBoth(self._ended, batch)
        elif isinstance(result, Rest):
            assert result.summary is not None
            self._summed(result.summary, batch, [result.value])
        elif isinstance(result, Failure):
            self._failed(result, batch)
        elif result is None:
            # It came to a place where chunks cannot be run.
            self.works = False
            self._release(batch, [], list(batch.items))
        else:
            self._summed(result, batch, [])

    def _summed(self, summary: Summary, batch: Batch, last: list[Any]) -> None:
        """
        Hand on the outcomes of a chunk that has ended as it should.
        """
        if summary.alone:
            self._alone = True
        if summary.ended:
            self._fitted(summary, batch)
            self._measured(summary.seconds, summary.ended)
        if summary.values is not None:
            outcomes = summary.values[batch.done :] if batch.done else summary.values
        else:
            outcomes = self._written(batch)
        if summary.last is not None:
            outcomes.append(_inTwisted(outcomeOf(marshal.loads(summary.last))))
        outcomes += last
        # What is plain is not asked.
        failing = summary.values is None and anyFailure(outcomes)
        self._release(batch, outcomes, batch.items[summary.ended - batch.done :], failing=failing)

    def _failed(self, failure: Failure, batch: Batch) -> None:
        """
        Find out how far a batch came whose task failed.
        """
        assert self._board is not None
        error = failure.value
        begun = self._board.close(batch.slot) - batch.done
        outcomes = self._written(batch)
        items = batch.items
        first = len(outcomes)
        if isinstance(error, WorkerLost):
            failed = self._lostItems(batch, first, begun, error)
            losses = 0 if first or batch.done else batch.losses
            if failed == first + 1 and losses < self._retries:
                self._release(batch, outcomes, items[first:], losses + 1)
                return
            outcomes += [Failure(self._lost(item, error)) for item in items[first:failed]]
        else:
            # Its outcome cannot be sent, for instance; else it concerns all of them.
            failed = begun if begun > first and not failure.check(*_FOR_ALL) else len(items)
            outcomes += [self.explain(failure, item) for item in items[first:failed]]
        self._release(batch, outcomes, items[failed:], isOver=not failure.check(CancelledError))

    def _lostItems(self, batch: Batch, first: int, begun: int, error: WorkerLost) -> int:
        """
        Find out which items were lost with a process that died.

        @param first: how many items were done.
        @param begun: how many were begun.
        @return: up to which item they are lost.
        """
        if begun > first:
            return first + 1
        if begun or batch.done:
            # It died in between.
            return first
        # It died of what it was about to do, and would do so again; or there is none
        # at all.
        return 1 if error.begun else len(batch.items)

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

    def _written(self, batch: Batch) -> list[Any]:
        """
        Return the outcomes that are on the board, and were not handed on.
        """
        assert self._board is not None
        return [_inTwisted(o) for o in self._board.outcomes(batch.slot, batch.done)]

    def _release(
        self,
        batch: Batch,
        outcomes: list[Any],
        rest: list[Any],
        losses: int = 0,
        isOver: bool = True,
        failing: bool = True,
    ) -> None:
        """
        Give back the place of a batch that has ended, and hand on its outcomes and the rest of it.

        @param rest: the items of it that have not, if there are any.
        @param isOver: whether surely nothing more is written down of it.
        @param failing: whether there may be failures among the outcomes.
        """
        assert self._board is not None
        if isOver:
            self._board.give(batch.slot)
        if rest:
            del batch.items[len(batch.items) - len(rest) :]
            self._delegate.onRemainder(batch, rest, losses)
        self._handOn(batch, outcomes, failing)

    def _handOn(self, batch: Batch, outcomes: list[Any], failing: bool) -> None:
        if self._over:
            return
        count = len(outcomes)
        del batch.items[:count]
        batch.done += count
        self._delegate.onResults(batch, outcomes, failing)

    def _fitted(self, summary: Summary, batch: Batch) -> None:
        """
        Note how many results the place of a chunk has room for, if it ended for want of it: what
        has none is pickled in vain, time and again.
        """
        wanted = batch.done + len(batch.items)
        if summary.ended < wanted and summary.seconds < self._mostSeconds:
            self._most = summary.ended
        else:
            self._most = min(_MOST, self._most + self._most // 8 + 1)

    def _measured(self, seconds: float, items: int) -> None:
        self._durations.add(items, seconds)
        most = 1 if self._alone else min(self._most, self.size * _GROWTH)
        self.size = max(1, int(min(most, self._durations.within(self._seconds))))

    def _look(self) -> None:
        """
        While chunks are under way: see whether one has been at an item for long.
        """
        self._timer = None
        stuck = []
        for batch in self.underWay:
            if len(batch.items) > 1:
                assert self._board is not None
                begun = self._board.begun(batch.slot)
                if begun and begun == batch.begun:
                    stuck.append(batch)
                batch.begun = begun
        for batch in stuck:
            if batch in self.underWay:
                self._loosen(batch)
        if self._timer is None and any(len(batch.items) > 1 for batch in self.underWay):
            self._timer = self._startTimer(_TICK, self._look)

    def _loosen(self, batch: Batch) -> None:
        """
        Take what is done, and what is not begun, of a batch whose item runs for long.
        """
        assert self._board is not None
        begun = self._board.close(batch.slot) - batch.done
        self._measured(_TICK, 1)
        rest = batch.items[begun:]
        del batch.items[begun:]
        outcomes = self._written(batch)
        if rest:
            self._delegate.onRemainder(batch, rest, 0)
        self._handOn(batch, outcomes, anyFailure(outcomes))


async def _opened(deferator: Deferator) -> Rest:
    """
    Wait for the first item of an iterator that is the result of the last item of a chunk.
    """
    summary: Summary = await anext(deferator)
    # As every Deferator is handed out.
    await deferator.deferUntilReady()
    return Rest(summary, deferator)


def _inTwisted(outcome: Outcome) -> Any:
    return outcome.value if isinstance(outcome, Returned) else failureOf(outcome)
