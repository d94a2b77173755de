"""
A function over many arguments, a bounded number of calls ahead.

::

    iterable ─▶ Batch ─▶ a task for each item, or a Chunker ─▶ results ─▶ sink
                  ▲                                  │
                  └────────── not begun ◀────────────┘

An asynchronous iterable is asked for as many items as there is credit for; those that have
come, and that no call was made with, wait in L{Arrivals}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.failures import caught
from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.mapping.arrivals import Arrivals
from asynqueue.mapping.chunker import Batch, Chunker
from asynqueue.mapping.results import Results, SingleCall

# The chunks that are under way for each worker: one runs, the others are on their way.
_EACH = 3

# The results after which workers for chunks are looked for, where there are none.
_LOOK = 32

# The items of a chunk that are taken before it is looked up whether the map was stopped.
_AT_ONCE = 64


def _never() -> int:
    """
    Return 0: there are no workers for chunks.
    """
    return 0


def _keysApart(pairs: Iterator[Any], keys: list[Any]) -> Iterator[Any]:
    """
    Iterate over the items of pairs, and collect their keys.
    """
    for key, item in pairs:
        keys.append(key)
        yield item


@implementer(IItemSource)
class MapSource:
    """
    Makes a call for each item of an iterable, as far as there is credit, and
    hands the results on: in the order of the items, or as they come.

    A call that fails fails its own item only. An iterable that raises fails one
    more item, the last.
    """

    def __init__(
        self,
        call: Callable[[Any], Deferred[Any]],
        iterable: Iterable[Any] | AsyncIterable[Any],
        ordered: bool,
        ahead: int = 2,
        chunker: Callable[[MapSource], Chunker] | None = None,
        workers: Callable[[], int] = _never,
        keyed: bool = False,
        most: int = 0,
    ) -> None:
        """
        @param call: makes one call.
        @param iterable: what to call it with; taken from in the reactor's thread. One of
            both kinds is iterated over asynchronously.
        @param ordered: whether results keep the order of the items.
        @param ahead: how many results may be under way.
        @param chunker: makes what calls items in chunks, for this source.
        @param workers: how many workers there are for that now; with none, items
            are called one by one.
        @param keyed: whether the iterable gives pairs of a key and an item, and the sink gets
            pairs of a key and an outcome.
        @param most: how many results may be under way where items are cheap, and results are
            waited for.
        """
        self._call = call
        # What may have another item now ...
        self._iterator: Iterator[Any] | None = None
        # ... and what may have one later.
        self._arrivals: Arrivals | None = None
        # Not of the iterable: somebody's __class__ may raise.
        if issubclass(type(iterable), AsyncIterable):
            self._arrivals = Arrivals(iterable, self._arrived)  # type: ignore[arg-type]
        else:
            self._iterator = iter(iterable)  # type: ignore[arg-type]
        self._ahead = ahead
        self._most = most
        self._workers = workers
        self._keyed = keyed
        self._chunker = None if chunker is None else chunker(self)
        self._sink: IItemSink | None = None
        self._credit = 0
        # How many workers there were for chunks when that was looked up last.
        self._processes = 0
        self._lookAfter = 0
        self._results = Results(ordered)
        # What no worker has, and the chunker has given back.
        self._givenBack: deque[Batch] = deque()
        self._pending: dict[Batch | SingleCall, None] = {}
        self._advancing = False

    def connect(self, sink: IItemSink) -> None:
        self._sink = sink

    def grant(self, count: int) -> None:
        self._credit += count
        if self._arrivals is not None:
            # What comes at once is called together.
            advancing, self._advancing = self._advancing, True
            self._arrivals.grant(count)
            self._advancing = advancing
        self._advance()

    def stop(self) -> None:
        """
        Cancels the calls that are under way.
        """
        self._sink = None
        self._closeIterator()
        self._results.clear()
        self._givenBack.clear()
        if self._chunker is not None:
            self._chunker.stop()
        while self._pending:
            batch = self._pending.popitem()[0]
            if batch.d is not None:
                batch.d.cancel()

    # BatchDelegate

    def onResults(self, batch: Batch, outcomes: list[Any], failing: bool) -> None:
        if outcomes:
            self._results.add(batch, outcomes, failing)
        if self._ahead < self._most:
            self._widen()
        self._advance()

    def onRemainder(self, batch: Batch, items: list[Any], losses: int) -> None:
        if self._sink is None:
            return
        rest = Batch(items, losses)
        if self._keyed:
            rest.keys = batch.keys[-len(items) :]
            batch.keys = batch.keys[: -len(items)]
        self._givenBack.append(rest)
        self._results.divide(batch, rest)

    # Within

    def _advance(self) -> None:
        """
        Make calls and hand on results until neither can be done.

        Calls that end at once, and sinks that grant at once, end up here again:
        they are seen by the loop that is running.
        """
        if self._advancing:
            return
        self._advancing = True
        if self._lookAfter and self._pending:
            self._lookAfter -= 1
        else:
            self._lookForProcesses()
        while self._fill() or self._flush():
            pass
        self._advancing = False
        if self._iterator is None and not (self._results or self._isBusy()):
            self._finish()

    def _lookForProcesses(self) -> None:
        chunker = self._chunker
        self._processes = self._workers() if chunker is not None and chunker.works else 0
        # Single calls are a hot path, too: there it is looked up now and then.
        self._lookAfter = 0 if self._processes else _LOOK

    def _widen(self) -> None:
        """
        Have more results under way, if the chunks of all workers would be more, and who takes
        results waits for them. Else nothing is gained by it, and the reactor waits for who takes
        them all.
        """
        chunker, sink = self._chunker, self._sink
        assert chunker is not None
        wanted = min(self._most, 2 * self._ahead, 2 * _EACH * self._processes * chunker.size)
        if wanted > self._ahead and sink is not None and sink.isAwaited:
            self._ahead = wanted
            sink.resize(wanted)

    def _isBusy(self) -> bool:
        underWay = self._chunker is not None and self._chunker.underWay
        return bool(self._pending or self._givenBack or underWay or self._arrivals is not None)

    def _finish(self) -> None:
        if self._chunker is not None:
            self._chunker.close()
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.finish()

    # Calls

    def _fill(self) -> bool:
        """
        Make the next call, or chunk of calls, if there is credit and an item.
        """
        if not self._givenBack and (self._credit <= 0 or self._iterator is None):
            return False
        workers = self._processes
        chunker = self._chunker
        if not workers or chunker is None:
            if self._givenBack:
                self._sendSingle(self._next(1))
            else:
                self._fillSingle()
            return True
        if len(chunker.underWay) >= _EACH * workers:
            return False
        batch = self._next(min(chunker.size, max(1, self._ahead // (2 * workers))))
        return not batch.items or self._sendChunk(chunker, batch)

    def _fillSingle(self) -> None:
        """
        Make a call with the next item. A hot path.
        """
        # Taken away meanwhile: the iterable may stop this.
        iterator, self._iterator = self._iterator, None
        assert iterator is not None
        keys: Sequence[Any] = ()
        try:
            item = next(iterator)
            if self._keyed:
                key, item = item
                keys = (key,)
        except StopIteration:
            self._ranOut()
            return
        except BaseException as error:
            # The seam to the user's iterable: whatever it raises, an exit too, is an outcome
            # like another.
            self._iterator = iterator
            self._closeIterator()
            self._raised(caught(error))
            return
        self._credit -= 1
        self._iterator = iterator
        if self._sink is None:
            self._closeIterator()
            return
        batch = SingleCall([item], keys)
        self._results.expect(batch)
        self._sendSingle(batch)

    def _raised(self, failure: Failure) -> None:
        """
        Take what the iterable has raised for its last item.
        """
        self._credit -= 1
        last = SingleCall([], ())
        self._results.expect(last)
        self._results.add(last, [failure], True)

    def _arrived(self) -> None:
        """
        Go on with items that an asynchronous iterable has given, or with its end.
        """
        if self._iterator is None:
            self._iterator = self._arrivals
        self._advance()

    def _ranOut(self) -> None:
        """
        Take the end of the iterator for that of the items, unless others may arrive.
        """
        arrivals = self._arrivals
        if arrivals is not None and arrivals.isOver:
            self._arrivals = None
            if arrivals.failure is not None:
                self._raised(arrivals.failure)

    def _next(self, count: int) -> Batch:
        """
        Return the next items to be called.

        @param count: how many there may be.
        """
        if self._givenBack:
            batch = self._givenBack.popleft()
            if len(batch.items) > count:
                self.onRemainder(batch, batch.items[count:], 0)
                self._givenBack.rotate(1)
                del batch.items[count:]
            return batch
        batch = Batch([])
        self._results.expect(batch)
        # Taken away meanwhile, as for a single call.
        iterator, self._iterator = self._iterator, None
        assert iterator is not None
        items = batch.items
        step = iterator
        if self._keyed:
            keys: list[Any] = []
            batch.keys = keys
            step = _keysApart(iterator, keys)
        most = min(count, self._credit)
        wanted = 0
        try:
            while wanted == len(items) < most and self._sink is not None:
                wanted = min(wanted + _AT_ONCE, most)
                # What came before an exception stays in the list.
                items += islice(step, wanted - len(items))
        except BaseException as error:
            # The seam to the user's iterable, here for a chunk.
            self._credit -= len(items)
            self._iterator = iterator
            self._closeIterator()
            self._raised(caught(error))
        else:
            self._credit -= len(items)
            if len(items) == wanted:
                self._iterator = iterator
            else:
                self._ranOut()
        if self._sink is None:
            self._closeIterator()
            items.clear()
        return batch

    def _sendChunk(self, chunker: Chunker, batch: Batch) -> bool:
        try:
            if chunker.send(batch):
                return True
        except Exception as error:
            failure = caught(error)
            self._refused(batch, [chunker.explain(failure, item) for item in batch.items])
            return True
        self._givenBack.appendleft(batch)
        self._processes = 0 if not chunker.works else self._processes
        # If chunks cannot be made at all, it goes on with single calls; else when
        # one of those that are under way has ended.
        return not chunker.works

    def _sendSingle(self, batch: Batch | SingleCall) -> None:
        self._pending[batch] = None
        try:
            d = batch.d = self._call(batch.items[0])
        except Exception as error:
            del self._pending[batch]
            self._refused(batch, [caught(error)])
            return
        d.addBoth(self._ended, batch)
        if self._sink is None and batch.d is not None:
            # What ran within the call stopped this.
            batch.d.cancel()

    def _refused(self, batch: Batch | SingleCall, failures: list[Any]) -> None:
        """
        End the map: the queue takes no calls any more, and will take none later.
        """
        self._closeIterator()
        batch.items.clear()
        self._results.add(batch, failures, True)

    # Results

    def _ended(self, result: Any, batch: Batch | SingleCall) -> None:
        if self._pending.pop(batch, self) is self:
            # It was cancelled, and nobody waits for it.
            return
        batch.d = None
        batch.items = []
        self._results.add(batch, [result], type(result) is Failure)
        self._advance()

    def _flush(self) -> bool:
        """
        Hand on the results whose turn it is.
        """
        ready, failing = self._results.take()
        if not ready:
            return False
        start = 0
        if failing:
            for place, result in enumerate(ready):
                if type(result) is Failure:
                    self._receive(ready[start:place])
                    if self._sink is not None:
                        self._sink.receiveFailure(result)
                    start = place + 1
        self._receive(ready[start:] if start else ready)
        return True

    def _receive(self, items: list[Any]) -> None:
        if items and self._sink is not None:
            self._sink.receive(items)

    def _closeIterator(self) -> None:
        iterator: Any = self._iterator
        self._iterator = None
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is not None:
            arrivals.stop()
        # Only generators have a close() that means this; other iterators, such as
        # files, are their owner's.
        if issubclass(type(iterator), Generator):
            iterator.close()
