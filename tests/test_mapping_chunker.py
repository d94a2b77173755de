"""
Maps whose items travel in chunks: what holds for each item, whatever happens.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from operator import itemgetter
from threading import Event, Lock, Thread
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue.errors import QueueRunError, TaskInterrupted, WorkerLost
from asynqueue.failures import failureOf
from asynqueue.iteration.deferator import Deferator
from asynqueue.mapping.board import ProgressBoard
from asynqueue.mapping.chunker import Chunker
from asynqueue.mapping.source import MapSource
from asynqueue.outcome import raised

pytestmark = pytest.mark.skipif(
    not ProgressBoard.isPossible(), reason="memory cannot be shared here"
)

LOST = WorkerLost("a chunk", "process 7", True, None, 9)


class Calls:
    """
    What has a chunk's task run: here, and when the test says so.

    @ivar cost: how many seconds an item is said to have taken; C{None}: what it took.
    """

    def __init__(self) -> None:
        self.cost: float | None = None
        self.waiting: list[tuple[Deferred[Any], Any, tuple[Any, ...]]] = []
        self.cancelled = 0
        self.sizes: list[int] = []
        self.open = True

    def __call__(self, chunk: Any, *what: Any) -> Deferred[Any]:
        if not self.open:
            raise QueueRunError("a chunk")
        d: Deferred[Any] = Deferred(self._cancel)
        self.waiting.append((d, pickle.loads(pickle.dumps(chunk)), what))
        self.sizes.append(len(pickle.loads(what[2])))
        return d

    def _cancel(self, d: Deferred[Any]) -> None:
        self.cancelled += 1
        self.waiting = [entry for entry in self.waiting if entry[0] is not d]

    def run(self, place: int = 0) -> None:
        """
        Run one of the tasks that wait.
        """
        d, chunk, what = self.waiting.pop(place)
        try:
            result = chunk(*what)
        except TaskInterrupted:
            # A process that dies.
            result = Failure(LOST)
        except Exception as error:
            result = failureOf(raised(error))
        if self.cost is not None:
            result = result._replace(seconds=self.cost * result.ended)
        d.callback(result)

    def lose(self, error: Exception = LOST, place: int = 0) -> None:
        """
        Fail one of the tasks that wait, before it begins.
        """
        self.waiting.pop(place)[0].errback(Failure(error))


class Map:
    """
    A map over chunks, and what is taken of it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        items: Any,
        *,
        ordered: bool = True,
        ahead: int = 64,
        retries: int = 0,
        workers: int = 2,
        isAsynchronous: bool = False,
        keyed: bool = False,
        most: int = 0,
        **options: Any,
    ) -> None:
        self.calls = Calls()
        self.clock = Clock()
        self.single: list[tuple[Any, Deferred[Any]]] = []
        self.workers = workers
        self.taken = 0
        self.chunker: Chunker | None = None

        def counted() -> Iterator[Any]:
            for item in items:
                self.taken += 1
                yield item

        async def countedLater() -> AsyncIterator[Any]:
            for item in counted():
                yield item

        def chunkerOf(source: MapSource) -> Chunker:
            self.chunker = Chunker(
                source, self.calls, self.clock.callLater, function, retries=retries, **options
            )
            return self.chunker

        source = MapSource(
            self._callOne,
            countedLater() if isAsynchronous else counted(),
            ordered,
            ahead,
            chunkerOf,
            lambda: self.workers,
            keyed,
            most,
        )
        self.deferator = Deferator.fromSource(source, "a map", ahead)
        self.results: list[Any] = []
        self.over = False

    def _callOne(self, item: Any) -> Deferred[Any]:
        d: Deferred[Any] = Deferred()
        self.single.append((item, d))
        return d

    def collect(self, most: int = 10**9) -> None:
        """
        Take so many results, as they come; failures as they are.
        """

        async def collected() -> None:
            for _ in range(most):
                try:
                    self.results.append(await anext(self.deferator))
                except StopAsyncIteration:
                    self.over = True
                    return
                except CancelledError as error:
                    self.results.append(error)
                except Exception as error:
                    self.results.append(error)

        Deferred.fromCoroutine(collected())

    def growUntil(self, size: int) -> None:
        """
        Run tasks until one that waits has so many items.
        """
        while self.calls.sizes[-1] < size:
            self.calls.run()

    def runAll(self, choose: Callable[[int], int] = lambda count: 0) -> list[Any]:
        """
        Run what there is to be run, until nothing is.
        """
        while self.calls.waiting:
            self.calls.run(choose(len(self.calls.waiting)))
        return self.results


class Story:
    """
    A function whose items each have a fate, and that counts how often it was begun
    with each.
    """

    def __init__(self, fates: list[str], retries: int = 0) -> None:
        self.fates = fates
        self.begun: Counter[int] = Counter()
        self.retries = retries
        _stories.append(self)
        self.number = len(_stories) - 1

    def __reduce__(self) -> Any:
        return _storyOf, (self.number,)

    def __call__(self, n: int) -> Any:
        self.begun[n] += 1
        match self.fates[n]:
            case "raises":
                raise KeyError(n)
            case "dies":
                raise TaskInterrupted
            case "dies once" if self.begun[n] == 1:
                raise TaskInterrupted
            case "is large":
                return bytes(40_000)
            case "is a list":
                return [n]
            case "cannot be sent":
                return Lock()
        return n

    def expected(self, n: int) -> str:
        """
        What becomes of an item, in words.
        """
        match self.fates[n]:
            case "raises":
                return "KeyError"
            case "dies":
                return "WorkerLost"
            case "dies once":
                return str(n) if self.retries else "WorkerLost"
            case "is large":
                return "40000 bytes"
            case "is a list":
                return f"[{n}]"
            case "cannot be sent":
                return "MaybeEncodingError"
            case "is no item":
                return "TypeError"
        return str(n)


_stories: list[Story] = []


def _storyOf(number: int) -> Story:
    return _stories[number]


FATES = st.sampled_from(
    [
        *["is fine"] * 6,
        "raises",
        "dies",
        "dies once",
        "is large",
        "is a list",
        "cannot be sent",
        "is no item",
    ]
)


def inWords(result: Any) -> str:
    """
    A result as L{Story.expected} says it.
    """
    if isinstance(result, bytes):
        return f"{len(result)} bytes"
    if isinstance(result, Failure):
        result = result.value
    return type(result).__name__ if isinstance(result, Exception) else str(result)


@settings(deadline=None)
@given(
    fates=st.lists(FATES, max_size=60),
    ordered=st.booleans(),
    ahead=st.integers(2, 40),
    workers=st.integers(1, 4),
    retries=st.integers(0, 2),
    take=st.integers(1, 5),
    isAsynchronous=st.booleans(),
    keyed=st.booleans(),
    seed=st.integers(),
)
def test_eachItemHasItsOwnOutcome(
    fates: list[str],
    ordered: bool,
    ahead: int,
    workers: int,
    retries: int,
    take: int,
    isAsynchronous: bool,
    keyed: bool,
    seed: int,
) -> None:
    """
    Whatever other items of a chunk do, and whatever becomes of their process, each
    item has the outcome that it would have alone, is begun once (and as often more
    as it may be retried), is taken no further ahead than was said, and in order; with keys,
    its outcome comes with its own.
    """
    story = Story(fates, retries)
    items = [Lock() if fate == "is no item" else n for n, fate in enumerate(fates)]
    map_ = Map(
        story,
        enumerate(items) if keyed else items,
        ordered=ordered,
        ahead=ahead,
        retries=retries,
        workers=workers,
        isAsynchronous=isAsynchronous,
        keyed=keyed,
    )
    chance = random.Random(seed)
    while not map_.over:
        map_.collect(take)
        while map_.calls.waiting:
            map_.calls.run(chance.randrange(len(map_.calls.waiting)))
        assert map_.taken <= len(map_.results) + ahead
    expected = [story.expected(n) for n in range(len(fates))]
    results = map_.results
    if keyed:
        keys = [key for key, _ in results]
        assert not ordered or keys == sorted(keys)
        results = [outcome for _, outcome in sorted(results, key=itemgetter(0))]
    told = [inWords(result) for result in results]
    if ordered or keyed:
        assert told == expected
    else:
        assert sorted(told) == sorted(expected)
    for n, fate in enumerate(fates):
        times = {"dies": retries + 1, "dies once": min(2, retries + 1), "is no item": 0}
        assert story.begun[n] == times.get(fate, 1)
    assert map_.clock.getDelayedCalls() == []


def test_chunksGrowAsItemsAreCheap() -> None:
    """
    The first items travel alone; when they are known to be cheap, many together.
    """
    map_ = Map(abs, range(5000), ahead=2000)
    map_.collect()
    map_.runAll()
    assert map_.calls.sizes[:2] == [1, 1]
    assert max(map_.calls.sizes) > 50
    assert len(map_.calls.sizes) < 500
    assert map_.results == list(range(5000))


def rows(n: int) -> list[bytes]:
    """
    Give a result of which few fit on the board, or one of which many do.
    """
    return [bytes(3000 if n < 2000 else 1)]


def test_chunksAreAsLargeAsTheirResultsAllow() -> None:
    """
    Of cheap items with large results few are sent in vain, beyond those that have room; and many
    again when results are small.
    """
    map_ = Map(rows, range(6000), ahead=6000, mostSeconds=3600.0)
    map_.calls.cost = 1e-5
    map_.collect()
    while len(map_.results) < 2000:
        map_.calls.run()
    assert sum(map_.calls.sizes) < 3 * 2000
    map_.runAll()
    assert [len(row) for (row,) in map_.results] == [3000] * 2000 + [1] * 4000
    assert max(map_.calls.sizes[-10:]) > 100


def test_moreResultsAreAheadWhereItemsAreCheap() -> None:
    """
    While results of cheap items are waited for, more of them are under way than at first, and
    never more than is said; but not where nobody waits.
    """
    map_ = Map(abs, range(100_000), ahead=64, most=500)
    while map_.calls.waiting:
        map_.calls.run()
    assert map_.taken == 64
    map_.collect(1)
    ahead = []
    for _ in range(100):
        map_.collect(100)
        while map_.calls.waiting and not map_.deferator.unconsumed:
            map_.calls.run()
        ahead.append(map_.taken - len(map_.results))
    assert 64 < max(ahead) <= 500
    map_.deferator.stop()


def test_costlyItemsTravelAlone() -> None:
    """
    An item that takes long by itself is a task by itself.
    """
    map_ = Map(abs, range(100), seconds=1e-12)
    map_.collect()
    map_.runAll()
    assert set(map_.calls.sizes) == {1}


def test_allWorkersHaveSome() -> None:
    """
    A chunk is no more than the half of a worker's share of what may be under way.
    """
    map_ = Map(abs, range(1000), ahead=40, workers=2)
    map_.collect()
    map_.runAll()
    assert max(map_.calls.sizes) <= 10


def test_lostItemSaysWhatWasCalled() -> None:
    """
    The error of a lost item is of its own call.
    """
    map_ = Map(Story(["dies"]), range(1))
    map_.collect()
    (error,) = map_.runAll()
    assert (error.worker, error.signal, error.begun) == ("process 7", 9, True)
    assert "(0)" in error.call


def test_deathBetweenItemsCostsOne() -> None:
    """
    A process that dies of what it is about to do, before any item, costs one: else
    there would be no end. That one may be retried.
    """
    map_ = Map(abs, range(3))
    map_.collect()
    map_.calls.lose()
    map_.runAll()
    assert [inWords(result) for result in map_.results] == ["WorkerLost", "1", "2"]
    again = Map(abs, range(3), retries=1)
    again.collect()
    again.calls.lose()
    assert again.runAll() == [0, 1, 2]


@pytest.mark.parametrize(
    "error",
    [WorkerLost("a chunk", "it", begun=False), CancelledError(), QueueRunError("a chunk")],
)
def test_whatConcernsTheTaskConcernsAllItsItems(error: Exception) -> None:
    """
    Where there is no worker, or the task is cancelled, its items fail as it does, each
    by its own call.
    """
    map_ = Map(abs, range(200))
    map_.collect()
    while max(map_.calls.sizes) < 4:
        map_.calls.run()
    size = map_.calls.sizes[-1]
    map_.calls.lose(error, -1)
    map_.runAll()
    failures = [result for result in map_.results if isinstance(result, Exception)]
    assert len(failures) == size
    assert {type(failure) for failure in failures} == {type(error)}
    calls = [failure.call for failure in failures if hasattr(failure, "call")]
    assert calls in ([], [f"abs({map_.results.index(each)})" for each in failures])
    assert len(map_.results) == 200


def test_taskThatFailsFailsWhatItHadBegun() -> None:
    """
    A chunk that fails in another way, as one whose summary cannot be sent, fails
    what it had begun and not written down; the others are called again.
    """
    map_ = Map(Story(["is fine"] * 3), range(3))
    map_.collect()
    map_.calls.lose(ValueError("unknown"))
    map_.runAll()
    assert [inWords(result) for result in map_.results] == ["ValueError", "1", "2"]


@pytest.mark.parametrize("ordered", [True, False])
def test_stopCancelsChunks(ordered: bool) -> None:
    """
    Stopping the results cancels what is under way; no item is begun after that.
    """
    map_ = Map(abs, range(1000), ordered=ordered)
    map_.collect(100)
    while max(map_.calls.sizes) < 4:
        map_.calls.run()
    waiting = len(map_.calls.waiting)
    assert waiting > 1
    map_.deferator.stop()
    assert (map_.calls.cancelled, map_.calls.waiting) == (waiting, [])
    assert map_.clock.getDelayedCalls() == []


def test_itemThatCannotBePickledFailsAlone() -> None:
    """
    An item that cannot be sent fails, and those around it do not.
    """
    map_ = Map(id, [[1], [2], Lock(), [3]] * 10)
    map_.collect()
    map_.runAll()
    kinds = [type(result).__name__ for result in map_.results]
    assert kinds == ["int", "int", "TypeError", "int"] * 10


def test_functionThatCannotBePickledIsCalledByItself() -> None:
    """
    A function that cannot be sent at all is left to single calls, which say so.
    """
    map_ = Map(Lock().acquire, range(3))
    assert [item for item, _ in map_.single] == [0, 1, 2]
    assert map_.calls.sizes == []


def test_chunkThatIsRefused() -> None:
    """
    Where a chunk cannot be run, its items are called one by one.
    """
    map_ = Map(abs, [1, 2, 3])
    map_.collect()
    for d, _, _ in list(map_.calls.waiting):
        d.callback(None)
    for item, d in map_.single:
        d.callback(item)
    assert map_.results == [1, 2, 3]


def test_tasksThatAreGivenUpKeepTheirSlots() -> None:
    """
    What a task that was cancelled may still write harms no other: when there is no
    room left for another chunk, items are called one by one.
    """
    map_ = Map(abs, range(10_000), workers=1)
    map_.collect()
    while map_.calls.waiting:
        map_.calls.lose(CancelledError())
    assert map_.single
    assert len(map_.results) > 100
    map_.deferator.stop()


def test_workersOfOtherKinds() -> None:
    """
    When a worker comes for which there are no chunks, items are called one by one,
    also those that were given back.
    """
    map_ = Map(Story(["is fine"] * 20 + ["dies"] + ["is fine"] * 20), range(41))
    map_.collect()
    while max(map_.calls.sizes) < 4:
        map_.calls.run()
    map_.workers = 0
    map_.runAll()
    while map_.single:
        item, d = map_.single.pop(0)
        d.callback(item)
    assert [inWords(result) for result in map_.results if result != map_.results[20]] == [
        str(n) for n in range(41) if n != 20
    ]


@pytest.mark.parametrize("isAsynchronous", [True, False])
def test_iterableThatRaises(isAsynchronous: bool) -> None:
    """
    What the iterable raises is the last item, after those that it gave.
    """

    def three() -> Iterator[int]:
        yield from range(3)
        raise KeyError("three")

    map_ = Map(abs, three(), isAsynchronous=isAsynchronous)
    map_.collect()
    map_.runAll()
    assert [inWords(result) for result in map_.results] == ["0", "1", "2", "KeyError"]


@pytest.mark.parametrize("isAsynchronous", [True, False])
def test_queueThatEnds(isAsynchronous: bool) -> None:
    """
    A queue that takes no more calls fails the next items, and ends the map.
    """
    map_ = Map(abs, range(1000), isAsynchronous=isAsynchronous)
    map_.collect()
    while max(map_.calls.sizes) < 4:
        map_.calls.run()
    map_.calls.open = False
    map_.runAll()
    assert map_.over
    error = map_.results[-1]
    assert isinstance(error, QueueRunError)
    assert error.call == f"abs({len(map_.results) - 1})"
    assert map_.taken < 200


GATES = {"begun": Event(), "go": Event()}


def gate(n: int) -> int:
    """
    One item takes long: as long as the test likes.
    """
    if n == 30:
        GATES["begun"].set()
        GATES["go"].wait(60)
    return n


@pytest.mark.parametrize("ordered", [True, False])
def test_slowItemKeepsNoOther(ordered: bool) -> None:
    """
    Of a chunk that is at an item for long, the results before that are handed on,
    and the items after it are called elsewhere, once.
    """
    for event in GATES.values():
        event.clear()
    map_ = Map(gate, range(40), ordered=ordered, ahead=100)
    map_.collect()
    while not any(30 in pickle.loads(what[2]) for _, _, what in map_.calls.waiting):
        map_.calls.run()
    while 30 not in pickle.loads(map_.calls.waiting[0][2][2]):
        map_.calls.run()
    d, chunk, what = map_.calls.waiting.pop(0)
    assert len(pickle.loads(what[2])) > 2
    summaries: list[Any] = []
    thread = Thread(target=lambda: summaries.append(chunk(*what)))
    thread.start()
    assert GATES["begun"].wait(60)
    for _ in range(3):
        map_.clock.advance(0.02)
    map_.runAll()
    if ordered:
        assert map_.results == list(range(30))
    else:
        assert sorted(map_.results) == [n for n in range(40) if n != 30]
    GATES["go"].set()
    thread.join()
    d.callback(summaries[0])
    assert map_.over
    assert sorted(map_.results) == list(range(40))
    assert map_.results == sorted(map_.results) or not ordered
    assert map_.clock.getDelayedCalls() == []


@pytest.mark.parametrize("ordered", [True, False])
def test_processThatIsSlowToTell(ordered: bool) -> None:
    """
    All of a chunk may be taken from the board before its task has ended; nothing
    is told twice, whatever becomes of the task.
    """
    map_ = Map(abs, range(200), ordered=ordered)
    map_.collect()
    map_.growUntil(4)
    for ending in ("well", "lost"):
        d, chunk, what = map_.calls.waiting.pop(0)
        summary = chunk(*what)
        for _ in range(3):
            map_.clock.advance(0.02)
        d.callback(summary if ending == "well" else Failure(LOST))
    map_.runAll()
    assert map_.over
    assert sorted(map_.results) == list(range(200))
