"""
What L{IStore<asynqueue.stores.interfaces.IStore>} and the operations promise, as checks for any
store.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import chain
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import Clock

from asynqueue.reactors import theReactor
from asynqueue.stores.interfaces import IStore
from asynqueue.testing import (
    storeadding,
    storeclaiming,
    storeending,
    storelife,
    storenodes,
    storepeople,
)
from asynqueue.testing.storetrials import Body, StoreTrial

_BODIES: list[Body] = list(
    chain(
        storeadding.CHECKS,
        storeclaiming.CHECKS,
        storeending.CHECKS,
        storenodes.CHECKS,
        storepeople.CHECKS,
        storelife.CHECKS,
    )
)

# What the clock of a new store says: the checks are not made at the beginning of time.
_START = 1_800_000_000.0


@frozen
class StoreCheck:
    """
    One promise of a store, to be checked by a call.

    @ivar name: its name, which is also its text.
    @ivar promise: what is promised, in a sentence.
    """

    name: str
    promise: str
    _body: Body = field(repr=False)
    _makeStore: Callable[[Clock], IStore] = field(repr=False)
    _limit: float = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> Deferred[None]:
        """
        Make a new store, open it, check it, and close it.

        @return: a Deferred that fails with C{AssertionError} if the promise is
            not kept, or not within the time limit.
        """
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        clock = Clock()
        clock.advance(_START)
        store = self._makeStore(clock)
        try:
            await self._within(self._check(store, clock))
        finally:
            await self._within(store.close())

    async def _check(self, store: IStore, clock: Clock) -> None:
        await store.open()
        await self._body(StoreTrial(store, clock))

    async def _within(self, awaitable: Coroutine[Any, Any, None] | Deferred[None]) -> None:
        if not isinstance(awaitable, Deferred):
            awaitable = Deferred.fromCoroutine(awaitable)
        try:
            await awaitable.addTimeout(self._limit, theReactor())
        except TimeoutError:
            raise AssertionError(f"{self.name}: not within {self._limit:g} s") from None


def storeChecks(makeStore: Callable[[Clock], IStore], *, limit: float = 60.0) -> list[StoreCheck]:
    """
    Return the checks of what a store promises. Each is called for a Deferred, while the reactor
    runs::

        @pytest.mark.parametrize("check", storeChecks(makeStore), ids=str)
        def test_myStore(check):
            return check()

    @param makeStore: makes a new, empty store, one for each check, which is not open. It is given
        a clock, by which the store is to tell the time.
    @param limit: how many seconds a check may take, and its cleaning up after it.
    """
    return [
        StoreCheck(body.__name__, " ".join((body.__doc__ or "").split()), body, makeStore, limit)
        for body in _BODIES
    ]


def checkStore(makeStore: Callable[[Clock], IStore], *, limit: float = 60.0) -> Deferred[int]:
    """
    Run all checks, one after the other.

    @param makeStore: as L{storeChecks} takes it, and C{limit}.
    @return: a Deferred of how many there were; it fails with C{AssertionError}, or what the store
        did, at the first promise that is not kept.
    """

    async def runAll() -> int:
        checks = storeChecks(makeStore, limit=limit)
        for check in checks:
            try:
                await check()
            except Exception as error:
                error.add_note(f"in the check {check.name}: {check.promise}")
                raise
        return len(checks)

    return Deferred.fromCoroutine(runAll())
