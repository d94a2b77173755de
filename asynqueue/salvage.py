"""
What can be had of a pickled list of which some items cannot be made again here.

Only when it cannot be loaded as usual is it loaded by the unpickler that is written in
Python: there each step can fail by itself, and belongs to one item.

This module imports no Twisted.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from itertools import groupby
from pickle import (
    ADDITEMS,
    APPEND,
    APPENDS,
    BINGET,
    BUILD,
    FROZENSET,
    GET,
    GLOBAL,
    LONG_BINGET,
    NEWOBJ,
    NEWOBJ_EX,
    NEXT_BUFFER,
    READONLY_BUFFER,
    REDUCE,
    SETITEM,
    SETITEMS,
    STACK_GLOBAL,
)
from types import FunctionType
from typing import Any

# How many values a step that may fail takes from the stack, to put one there. Those of marks
# have taken theirs before they can fail.
_TAKEN = {
    GLOBAL: 0,
    STACK_GLOBAL: 2,
    REDUCE: 2,
    NEWOBJ: 2,
    NEWOBJ_EX: 3,
    BUILD: 2,
    APPEND: 2,
    SETITEM: 3,
    NEXT_BUFFER: 0,
    READONLY_BUFFER: 1,
}
_TAKEN_TO_MARK = {FROZENSET: 0, ADDITEMS: 1, APPENDS: 1, SETITEMS: 1}

_GETS = frozenset({GET, BINGET, LONG_BINGET})

# What those after a failed item may have of what was made for it or before: other things may
# be incomplete.
_SOUND = (type, FunctionType, str, bytes, int, float)

# It has no public name; the documentation tells how its dispatch is extended nonetheless.
_Plain: Any = pickle._Unpickler


class NoList(pickle.UnpicklingError):
    """
    What was to be a list of items is none.
    """


class Lost:
    """
    In the place of an item that cannot be made.

    @ivar error: what its unpickling raised.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error


def loadItems(pickled: Any, buffers: Sequence[Any] = ()) -> list[list[Any] | Lost]:
    """
    Make a list again that was pickled in one piece. A hot path.

    @return: its items in order: runs of those that are there, and L{Lost} for each that
        cannot be made.
    @raise NoList: it is the pickle of something else.
    @raise BaseException: it is no pickle.
    """
    try:
        items: Any = pickle.loads(pickled, buffers=buffers)
    except BaseException:
        # Somebody's objects: whatever their unpickling raises.
        items = _Salvage(pickled, buffers).load()
        isWhole = False
    else:
        isWhole = True
    if type(items) is not list:
        raise NoList(f"items of an iterator came as {type(items).__name__}")
    return [items] if isWhole else list(_runsOf(items))


def _runsOf(items: list[Any]) -> Iterator[list[Any] | Lost]:
    """
    Give the items in order: those that are there as lists, and each L{Lost} by itself.
    """
    for isLost, run in groupby(items, lambda item: type(item) is Lost):
        if isLost:
            yield from run
        else:
            yield list(run)


class _Salvage(_Plain):  # type: ignore[misc]
    """
    An unpickler of a list that goes on after a step has failed.

    While the items of the list are made, those that are complete are on the stack. A failure
    belongs to the value that is on top of it when the step, or the container in which that
    is made, is complete; and then to what that becomes a part of.
    """

    dispatch: dict[int, Callable[[Any], None]] = {}

    def __init__(self, pickled: Any, buffers: Sequence[Any]) -> None:
        super().__init__(BytesIO(pickled), buffers=buffers)
        self._failure: BaseException | None = None
        # The failures of values on the stack, by their places.
        self._failures: dict[int, BaseException] = {}
        # How many values of the memo are no younger than the latest failed item.
        self._doubtful = 0

    def step(self, code: int, handler: Callable[[Any], None]) -> None:
        """
        Do one step.
        """
        key = bytes([code])
        before = list(self.stack)
        depth = len(self.metastack)
        self._endItems(key)
        try:
            handler(self)
        except pickle._Stop:  # type: ignore[attr-defined]
            raise
        except BaseException as error:
            # Somebody's objects, too.
            if key in _TAKEN:
                self.stack[:] = before[: len(before) - _TAKEN[key]]
            elif key in _TAKEN_TO_MARK:
                del self.stack[len(self.stack) - _TAKEN_TO_MARK[key] :]
            else:
                raise
            self._fail(error)
            self.append(Lost(error))
        if self.stack and type(self.stack[-1]) is Lost:
            self._fail(self.stack[-1].error)
        elif key in _GETS and self._isDoubtful(self.stack[-1]):
            self._fail(pickle.UnpicklingError("it shares an object with an item that is lost"))
        if depth and not self.metastack and self._failures:
            # They were parts of the only item.
            self._fail(self._failures.pop(min(self._failures)))
            self._failures.clear()
        self._place()

    @property
    def _hasItems(self) -> bool:
        """
        Whether the stack is that of the items: the list, and no more, is below its mark; or
        it has only one more, and has no mark.
        """
        return not self.metastack or (len(self.metastack) == 1 and len(self.metastack[0]) == 1)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error

    def _isDoubtful(self, value: Any) -> bool:
        """
        Tell whether a value of the memo may have a part that is lost.
        """
        return not isinstance(value, _SOUND) and any(
            self.memo[number] is value for number in range(self._doubtful)
        )

    def _place(self) -> None:
        """
        Note to which value on the stack of the list's items a failure belongs.
        """
        if not self._hasItems:
            return
        top = len(self.stack) - 1
        for place in [place for place in self._failures if place > top]:
            self._failures[top] = self._failures.pop(place)
        if self._failure is not None:
            self._failures.setdefault(top, self._failure)
            self._failure = None
        if top in self._failures:
            self._doubtful = len(self.memo)

    def _endItems(self, key: bytes) -> None:
        """
        Put what is lost in the place of failed items that are about to go to the list.
        """
        if not self._hasItems or (APPENDS if self.metastack else APPEND) != key:
            return
        if not self.metastack and len(self.stack) != 2:
            return
        for place, error in self._failures.items():
            self.stack[place] = Lost(error)
        self._failures.clear()


def _stepOf(code: int, handler: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda salvage: salvage.step(code, handler)


_Salvage.dispatch = {code: _stepOf(code, handler) for code, handler in _Plain.dispatch.items()}
