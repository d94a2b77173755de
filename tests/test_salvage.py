"""
What L{asynqueue.salvage} has of lists of which some items cannot be made again.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import pytest
from hypothesis import given, strategies as st

from asynqueue.salvage import Lost, loadItems as loadRuns


def refuse(*args: Any) -> NoReturn:
    """
    Whatever is made so, is not.
    """
    raise LookupError("not here")


class Reduced:
    """
    It is made by a function that raises.
    """

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return refuse, self.parts


class Plain:
    """
    It can be made; others of its kind are equal.
    """

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.parts == other.parts

    def __hash__(self) -> int:
        return 1


class Stateful(Plain):
    """
    It takes no state.
    """

    def __setstate__(self, state: Any) -> None:
        raise LookupError("not here")


class Unhashable(Plain):
    """
    Here it can be no member of a set.
    """

    def __hash__(self) -> int:
        if "parts" not in vars(self):
            raise LookupError("not here")
        return 1


class Full(list[Any]):
    """
    It takes nothing.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(parts)

    def append(self, item: Any) -> NoReturn:
        """
        Refuse it.
        """
        raise LookupError("not here")

    def extend(self, items: Any) -> NoReturn:
        """
        Refuse them.
        """
        raise LookupError("not here")


BAD = [Reduced, Stateful, Full]


def loadItems(pickled: Any, buffers: Any = ()) -> list[Any]:
    """
    The items, with those that are lost.
    """
    items: list[Any] = []
    for run in loadRuns(pickled, buffers):
        items += [run] if isinstance(run, Lost) else run
    return items


def found(items: list[Any]) -> list[Any]:
    """
    The items after the journey; only the class for the lost ones.
    """
    loaded = loadItems(pickle.dumps(items, 5))
    return [Lost if type(item) is Lost else item for item in loaded]


@pytest.mark.bulk
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("number", [1, 2, 3, 1000, 1001, 2500])
def test_eachItemByItself(bad: Any, number: int) -> None:
    """
    An item that cannot be made is lost by itself, wherever it stands in the list.
    """
    for place in {0, number // 2, number - 1}:
        items: list[Any] = [(n, Plain(n)) for n in range(number)]
        expected = list(items)
        items[place] = bad(1, 2)
        expected[place] = Lost
        assert found(items) == expected


@pytest.mark.parametrize(
    "wrap",
    [
        lambda bad: [bad],
        lambda bad: [1, bad, 3],
        lambda bad: (bad, 2, 3, 4),
        lambda bad: (1, 2, 3, (4, [5, bad])),
        lambda bad: {"a": 1, "b": bad, "c": [bad]},
        lambda bad: Plain(1, [bad, {"x": bad}]),
        lambda bad: partial(Plain, bad),
    ],
)
@pytest.mark.parametrize("bad", BAD)
def test_lostWithAllItsParts(bad: Any, wrap: Any) -> None:
    """
    An item is lost with any part of it, however deep; it is not made without.
    """
    item = wrap(bad(1, 2))

    def good() -> list[Any]:
        return [Plain(1), {"a": [1, 2]}, (1, (2, [3]))]

    assert found([item]) == [Lost]
    assert found([*good(), item, *good(), wrap(bad(1, 2)), item, *good()]) == [
        *good(), Lost, *good(), Lost, Lost, *good()
    ]  # fmt: skip


def test_membersOfSets() -> None:
    """
    What cannot be hashed when its set is made, takes that with it.
    """
    bad = Unhashable(1)
    bad.parts = (1, {bad})
    sets = [{1, 2}, frozenset({3}), {4}]
    result = found([sets[0], bad, sets[1], frozenset({Unhashable(2)}), sets[2]])
    assert result[0::2] == sets
    assert result[1] == Lost


def test_typeThatIsNotHere(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of a type that is not here each item is lost, and others are not.
    """
    monkeypatch.setitem(globals(), "Away", type("Away", (), {"__module__": __name__}))
    away = globals()["Away"]
    pickled = pickle.dumps([1, away(), Plain(2), away, [away()], 3], 5)
    monkeypatch.undo()
    lost = [type(item) is Lost for item in loadItems(pickled)]
    assert lost == [False, True, False, True, True, False]


def test_nothingIncompleteIsShared() -> None:
    """
    An item that shares an object with a lost one is lost, too, as that may be incomplete;
    what refers to itself is not.
    """
    shared: list[Any] = [Reduced()]
    own = Plain([1])
    own.parts[0].append(own.parts[0])
    result = loadItems(pickle.dumps([1, shared, [shared], own, 2], 5))
    assert [type(item) is Lost for item in result] == [False, True, True, False, False]
    assert "shares an object" in str(result[2].error) or "not here" in str(result[2].error)


def test_buffersBeside() -> None:
    """
    Items keep their buffers, which travel beside the pickle.
    """
    buffers: list[pickle.PickleBuffer] = []
    items = [bytearray(b"a"), pickle.PickleBuffer(b"b"), Reduced(), pickle.PickleBuffer(b"c")]
    pickled = pickle.dumps(items, 5, buffer_callback=buffers.append)
    loaded = loadItems(pickled, [buffer.raw() for buffer in buffers])
    assert [bytes(item) for item in loaded if type(item) is not Lost] == [b"a", b"b", b"c"]
    short = loadItems(pickled, [buffers[0].raw()])
    assert [type(item) is Lost for item in short] == [False, False, True, True]


@pytest.mark.parametrize("pickled", [b"", b"\x80\x05", b"garbage", pickle.dumps(Reduced(), 5)])
def test_whatIsNoListRaises(pickled: bytes) -> None:
    """
    What is no pickle of a list is not half a list.
    """
    with pytest.raises((pickle.UnpicklingError, EOFError, IndexError, ValueError, KeyError)):
        loadItems(pickled)


def values() -> Any:
    """
    Values of many shapes; some cannot be made again.
    """
    leaves = st.one_of(
        st.integers(), st.text(max_size=3), st.none(), st.builds(Plain), st.builds(Reduced)
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(st.text(max_size=2), inner, max_size=3),
            st.lists(inner, max_size=2).map(lambda parts: Plain(*parts)),
            st.lists(inner, max_size=2).map(lambda parts: Stateful(*parts)),
        ),
        max_leaves=8,
    )


def partsOf(value: Any) -> Iterator[Any]:
    """
    A value and all that it is made of.
    """
    yield value
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    elif isinstance(value, Plain):
        inner = value.parts
    for part in inner:
        yield from partsOf(part)


@given(st.lists(values(), max_size=8))
def test_exactlyTheBadAreLost(items: list[Any]) -> None:
    """
    Exactly those items are lost that have a part which cannot be made.
    """
    loaded = loadItems(pickle.dumps(items, 5))
    for item, got in zip(items, loaded, strict=True):
        if any(isinstance(part, (Reduced, Stateful)) for part in partsOf(item)):
            assert type(got) is Lost
        else:
            assert got == item
