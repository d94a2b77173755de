"""
The Prefetcherator: one item ahead, so that each comes with what follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from asynqueue.errors import NotReadyError
from asynqueue.iteration.sources import isIterator

_Answer = tuple[Any, bool, bool]
_NOTHING_LEFT: _Answer = (None, False, False)

_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
_NO_CALL: _Call = (iter(()).__next__, (), {})


class Prefetcherator:
    """
    Fetches each item before it is asked for, and so can tell with each whether
    another one follows.

    Items come from an iterator, or from a function that is called for each and
    raises C{StopIteration} when there are no more. Both may give Deferreds.
    Another exception fails the L{getNext} of that item, and is the end.

    @ivar ID: whatever identifies it to the user.
    """

    def __init__(self, ID: object = None) -> None:
        self.ID = ID
        self._call = _NO_CALL
        # What was fetched ahead: one item, or one Failure, or nothing.
        self._ahead: list[Any] = []
        self._fetching = False

    def __repr__(self) -> str:
        state = "busy" if self.isBusy() else "idle"
        return f"<Prefetcherator {self.ID!r}, {state}>"

    def isBusy(self) -> bool:
        """
        Tell whether there is an iteration that has not come to its end.
        """
        return self._call is not _NO_CALL

    def setup(self, *args: Any, **kw: Any) -> Deferred[bool]:
        """
        Begin an iteration over an iterator, or over the results of
        C{f(*args, **kw)}, and fetch the first item.

        @return: a Deferred: C{True}; C{False} if there is no item, if nothing
            was given that can be iterated over, or if L{isBusy}.
        """
        if self.isBusy() or not args:
            return succeed(False)
        first, *rest = args
        if isIterator(first):
            self._call = first.__next__, (), {}
        elif callable(first):
            self._call = first, tuple(rest), kw
        else:
            return succeed(False)
        self._ahead = []
        return self._fetch().addCallback(lambda _: bool(self._ahead))

    def getNext(self) -> Deferred[_Answer]:
        """
        Give the item that was fetched, once the one after it is known.

        @return: a Deferred of C{(value, isValid, moreLeft)}. After the last
            item it is C{(None, False, False)} again and again. It fails with
            L{NotReadyError} if the last one has not fired.
        """
        if self._fetching:
            return fail(NotReadyError())
        if not self._ahead:
            return succeed(_NOTHING_LEFT)
        item = self._ahead.pop()
        if isinstance(item, Failure):
            return fail(item)
        return self._fetch().addCallback(lambda _: (item, True, bool(self._ahead)))

    def _fetch(self) -> Deferred[None]:
        f, args, kw = self._call
        self._fetching = True
        return maybeDeferred(f, *args, **kw).addBoth(self._fetched)

    def _fetched(self, item: Any) -> None:
        self._fetching = False
        if isinstance(item, Failure):
            self._call = _NO_CALL
            if item.check(StopIteration, StopAsyncIteration):
                return
        self._ahead.append(item)
