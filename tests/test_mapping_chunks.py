"""
Many calls in one task: what each of them promises, as if it were alone.
"""

from __future__ import annotations

import asyncio
import inspect
import marshal
import pickle
from collections.abc import AsyncIterator, Iterator
from functools import partial
from math import inf
from threading import Lock
from typing import Any

import pytest
from hypothesis import given, strategies as st

from asynqueue.errors import MaybeEncodingError, TaskInterrupted
from asynqueue.mapping.board import ProgressBoard, outcomeOf
from asynqueue.mapping.chunks import Chunk, Rest, Summary, pack
from asynqueue.outcome import Raised, Returned

pytestmark = pytest.mark.skipif(
    not ProgressBoard.isPossible(), reason="memory cannot be shared here"
)


class Line:
    """
    A chunk and its board, in one process: the child's side is made of its pickle. It may
    take as long as it wants, if nothing else is said.
    """

    def __init__(
        self,
        function: Any,
        *args: Any,
        raw: bool | None = None,
        seconds: float = inf,
        **kw: Any,
    ) -> None:
        self.board = newBoard()
        chunk = Chunk(function, args, kw, raw, seconds=seconds)
        self.chunk = pickle.loads(pickle.dumps(chunk))
        slot = self.board.take()
        assert slot is not None
        self.slot = slot

    def run(self, items: list[Any]) -> Any:
        """
        What the chunk returns for some items.
        """
        packed, together, _ = pack(items)
        result = self.chunk(self.board.name, self.slot, packed, together)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    def outcomes(self, items: list[Any]) -> list[Any]:
        """
        The outcomes of some items: values, and exceptions.
        """
        told = self.told(self.run(items))
        assert len(told) == len(items)
        return told

    def told(self, summary: Summary) -> list[Any]:
        """
        What a summary and the board say.
        """
        told: list[Any] = list(self.board.outcomes(self.slot))
        assert summary.values is None or [Returned(value) for value in summary.values] == told
        if summary.last is not None:
            told.append(outcomeOf(marshal.loads(summary.last)))
        assert len(told) == summary.ended
        return [o.value if isinstance(o, Returned) else o.localError() for o in told]


_boards: list[ProgressBoard] = []


def newBoard() -> ProgressBoard:
    """
    A board that is shut when its test has ended.
    """
    board = ProgressBoard()
    _boards.append(board)
    return board


@pytest.fixture(autouse=True)
def _noBoardIsLeft() -> Iterator[None]:
    """
    Boards are shut, so that none is left for the collector.
    """
    yield
    while _boards:
        _boards.pop().shut()


def third(n: int) -> float:
    return 3 / n


def appended(items: list[int], *more: int, last: int = 0) -> list[int]:
    items.extend([*more, last])
    return items


SHELF: list[int] = []


def shelved(n: int) -> list[int]:
    SHELF.append(n)
    return SHELF


def strange(n: int) -> Any:
    return {n} if n % 3 == 1 else Lock()


def numbers(n: int) -> Iterator[int]:
    yield from range(n)


async def later(n: int) -> float:
    await asyncio.sleep(0)
    return 3 / n


async def numbersLater(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


async def iteratorLater(n: int) -> Iterator[int]:
    return numbers(n)


PLAIN_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
)


@given(st.lists(PLAIN_VALUES))
def test_plainValues(values: list[Any]) -> None:
    """
    What is plain goes there and comes back, with its type.
    """
    line = Line(_itself)
    told = line.outcomes(values)
    assert told == values
    assert list(map(type, told)) == list(map(type, values))
    line.board.shut()


def _itself(value: Any) -> Any:
    return value


def test_failureIsOfItsItemOnly() -> None:
    """
    An item that raises fails with its own type, and those around it do not.
    """
    told = Line(third).outcomes([1, 0, 3])
    assert (told[0], type(told[1]), told[2]) == (3.0, ZeroDivisionError, 1.0)
    assert "third" in str(told[1].__cause__)


def test_exitsAreOutcomes() -> None:
    """
    A function that exits fails its own item.
    """
    assert [type(error) for error in Line(_leave).outcomes([1, 2])] == [SystemExit] * 2


def _leave(n: int) -> None:
    raise SystemExit(n)


def test_itemsAreCopies() -> None:
    """
    Each call has its own copies of its arguments, as if it were the only one.
    """
    shared = [1]
    told = Line(appended, 2, last=3).outcomes([shared, shared])
    assert told == [[1, 2, 3], [1, 2, 3]]
    assert shared == [1]


def test_argumentsAreCopies() -> None:
    """
    The arguments that all calls have are new for each.
    """
    assert Line(_grown, [0]).outcomes([1, 2]) == [[0, 1], [0, 2]]


def _grown(n: int, items: list[int]) -> list[int]:
    items.append(n)
    return items


def test_resultsAreThoseOfTheirMoment() -> None:
    """
    What is returned is what it was as the call returned.
    """
    SHELF.clear()
    assert Line(shelved).outcomes([1, 2, 3]) == [[1], [1, 2], [1, 2, 3]]


def test_resultThatCannotBeSent() -> None:
    """
    A result that cannot be pickled fails its own item.
    """
    told = Line(strange).outcomes([1, 2, 4])
    assert (told[0], told[2]) == ({1}, {4})
    assert isinstance(told[1], MaybeEncodingError)


def test_resultThatCannotBeMadeAgain() -> None:
    """
    One that cannot be unpickled fails its own item, where that is found out.
    """
    (told,) = Line(_explosive).outcomes([1])
    assert isinstance(told, MaybeEncodingError)
    assert "ZeroDivisionError" in str(told)


class _Bomb:
    def __reduce__(self) -> Any:
        return third, (0,)


def _explosive(n: int) -> Any:
    return _Bomb()


def test_functionsOfAnyKind() -> None:
    """
    A closure is sent with what it closes over.
    """
    more = 5
    assert Line(lambda n: n + more).outcomes([1, 2]) == [6, 7]


class _Adder:
    """
    Keeps what it was called with; and is false while that is nothing.
    """

    def __init__(self) -> None:
        self.kept: list[int] = []

    def __len__(self) -> int:
        return len(self.kept)

    def __call__(self, n: int) -> list[int]:
        self.kept.append(n)
        return self.kept

    def add(self, n: int) -> list[int]:
        """
        The same by a method.
        """
        return self(n)


@pytest.mark.parametrize("function", [_Adder(), _Adder().add, partial(_Adder())])
def test_eachItemHasTheFunctionOfTheCaller(function: Any) -> None:
    """
    What the call of one item changes in an instance is not what the next one gets.
    """
    assert Line(function).outcomes([1, 2, 3]) == [[1], [2], [3]]


def test_functionThatCannotBeMadeFailsItsItems() -> None:
    """
    What making the function raises is the outcome of each item.
    """
    outcomes = Line(partial(third, _Bomb())).outcomes([1, 2])
    assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 2


@pytest.mark.parametrize("isPlain", [True, False])
def test_chunkWhoseSlotIsFullEnds(isPlain: bool) -> None:
    """
    A chunk ends with the result that has no room, and that is told; the rest was
    not begun.
    """
    line = Line(_large if isPlain else _largeInList)
    summary = line.run([20_000] * 10)
    assert len(line.board.outcomes(line.slot)) == summary.ended - 1
    told = summary.values if isPlain else line.told(summary)
    assert 1 < len(told) == summary.ended < 10
    assert told[-1] == (bytes(20_000) if isPlain else [bytes(20_000)])


def _large(size: int) -> bytes:
    return bytes(size)


def _largeInList(size: int) -> list[bytes]:
    return [bytes(size)]


def test_chunkThatTakesLongEnds() -> None:
    """
    A chunk whose time is up begins no other item.
    """
    line = Line(_itself, seconds=-1.0)
    assert line.run([1, 2]).ended == 0
    assert line.board.begun(line.slot) == 0


def test_closedChunkBeginsNoMore() -> None:
    """
    Nothing is begun once the parent has closed the slot.
    """
    line = Line(_closing)
    _Closing.line = line
    summary = line.run([1, 2, 3])
    assert (summary.ended, _Closing.begun) == (2, 2)


class _Closing:
    line: Line
    begun = 0


def _closing(n: int) -> int:
    if n == 2:
        _Closing.begun = _Closing.line.board.close(_Closing.line.slot)
    return n


def test_interruptEndsTheWholeChunk() -> None:
    """
    An interrupt is nobody's outcome: the chunk is given up.
    """
    line = Line(_interrupted)
    with pytest.raises(TaskInterrupted):
        line.run([1, 2, 3])
    assert line.board.begun(line.slot) == 2
    assert line.board.outcomes(line.slot) == [Returned(1)]


def _interrupted(n: int) -> int:
    if n == 2:
        raise TaskInterrupted
    return n


def test_iteratorEndsTheChunk() -> None:
    """
    An iterator is the result of the last item: its items follow the summary.
    """
    line = Line(numbers)
    rest = line.run([3, 4])
    assert isinstance(rest, Rest)
    assert "generator object numbers" in repr(rest)
    summary, *items = rest
    assert (summary.ended, summary.alone, items) == (1, True, [0, 1, 2])


def test_asynchronousIteratorEndsTheChunk() -> None:
    """
    So does an asynchronous one.
    """
    rest = Line(numbersLater).run([2, 2])
    assert "numbersLater" in repr(rest)

    async def taken() -> list[Any]:
        return [item async for item in rest]

    summary, *items = asyncio.run(taken())
    assert (summary.ended, items) == (1, [0, 1])


def test_rawIteratorIsPickled() -> None:
    """
    With C{raw} an iterator is a result like another.
    """
    told = Line(iter, raw=True).outcomes([[1, 2], [3]])
    assert [list(items) for items in told] == [[1, 2], [3]]


@pytest.mark.parametrize("n", [2, 0])
def test_coroutineEndsTheChunk(n: int) -> None:
    """
    A coroutine is waited for, and is the last.
    """
    line = Line(later)
    summary = line.run([n, 1])
    assert (summary.ended, summary.alone) == (1, True)
    (told,) = line.told(summary)
    assert told == 1.5 if n else isinstance(told, ZeroDivisionError)


def test_coroutineMayReturnAnIterator() -> None:
    """
    An iterator that a coroutine returns is one, too.
    """
    summary, *items = Line(iteratorLater).run([2, 2])
    assert (summary.ended, items) == (1, [0, 1])


def test_chunkIsForOtherProcesses() -> None:
    """
    Where it was made a chunk does nothing, and so says that it must not be there.
    """
    board = newBoard()
    assert Chunk(third)(board.name, 0, b"", True) is None
    assert Chunk(third).__qualname__ == "chunks of third"


def test_boardThatIsNotFound() -> None:
    """
    A process that does not find the board does nothing.
    """
    chunk = pickle.loads(pickle.dumps(Chunk(third)))
    packed, together, _ = pack([1])
    assert chunk(("/nowhere/at/all", 0), 0, packed, together) is None


def test_slotsHaveAnEnd() -> None:
    """
    There are so many slots; those that were given back are taken again, empty.
    """
    board = newBoard()
    slots = []
    while (slot := board.take()) is not None:
        slots.append(slot)
    assert len(set(slots)) == len(slots) > 50
    board.close(slots[3])
    board.give(slots[3])
    assert board.take() == slots[3]
    assert board.begun(slots[3]) == 0


def test_fewBoardsAreKept() -> None:
    """
    A process keeps the boards of a few maps, and lets go of the oldest.
    """
    for n in range(20):
        assert Line(_itself).outcomes([n]) == [n]


def test_itemsAreBoundedInBytes() -> None:
    """
    Only so many bytes travel in a chunk, of items of either kind; but one item at
    the least.
    """
    plain = [bytes(100_000 + n) for n in range(50)]
    for items in (plain, [[item] for item in plain]):
        _, _, count = pack(items)
        assert 1 <= count < 10
    assert pack([b"x" * 10_000_000])[2] == 1


def test_itemThatCannotBePickled() -> None:
    """
    Those before an item that cannot be pickled are packed; if it is the first, that
    raises.
    """
    assert pack([[1], [2], Lock()])[2] == 2
    with pytest.raises(TypeError):
        pack([Lock(), 1])


def test_outcomesHaveTheirTypes() -> None:
    """
    What is read is what L{asynqueue.outcome} knows.
    """
    line = Line(third)
    line.run([1, 0])
    first, second = line.board.outcomes(line.slot)
    assert isinstance(first, Returned)
    assert isinstance(second, Raised)
    assert line.board.outcomes(line.slot, 2) == []
