"""
The role of a store, and what one hears from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from asynqueue.stores.operations import Operation
from asynqueue.stores.records import StoreEvent

T = TypeVar("T")


class IStore(Interface):
    """
    Where jobs are. All is called in the reactor's thread, and nothing blocks it.

    A store never calls back after the Deferred of L{close} has fired.
    """

    name: str = Attribute("What people know it by, without passwords.")
    isShared: bool = Attribute(
        "Whether several programs can have it open, so that nodes live by leases."
    )

    def open() -> Deferred[None]:
        """
        Open the store, and bring its schema to what this version knows. It fires when it can be
        used, or fails with a L{StoreError<asynqueue.stores.errors.StoreError>}.
        """

    def do(operation: Operation[T]) -> Deferred[T]:
        """
        Do an operation. The Deferred fires with its answer when that is stored. It fails with

          - L{StoreUnavailable<asynqueue.stores.errors.StoreUnavailable>}: it surely was not done;
          - L{StoreLost<asynqueue.stores.errors.StoreLost>}: it may have been done;
          - L{StoreClosed<asynqueue.stores.errors.StoreClosed>}: the store is not open;
          - another L{StoreError<asynqueue.stores.errors.StoreError>}: it cannot be done.

        To cancel the Deferred does not undo the operation.
        """

    def listen(listener: Callable[[StoreEvent], Any]) -> None:
        """
        Call a function with each change, after it was stored. Of what this program changes it is
        called before the Deferred of L{do} fires.
        """

    def unlisten(listener: Callable[[StoreEvent], Any]) -> None:
        """
        Call it no more.
        """

    def close() -> Deferred[None]:
        """
        Do what was asked before, then close the store. It fires when nothing of it is left, and
        never fails. A store that is closed can be opened again.
        """


class IStoreParser(Interface):
    """
    What makes stores of the strings with a prefix: a plugin of Twisted, in C{twisted.plugins}. It
    imports what it needs only when it is asked for a store.
    """

    prefix: str = Attribute("What its strings begin with, without the colon.")

    def parseStore(reactor: Any, *args: str, **named: str) -> IStore:
        """
        Return the store that the arguments mean, which is not open.

        @param reactor: the reactor, or an asyncio loop; C{None}: the one that runs when the store
            is opened.
        """


class Engine(Protocol):
    """
    What does the operations of a store, in one thread, and may block. No Twisted.
    """

    name: str
    isShared: bool

    def open(self) -> None:
        """
        Connect, and bring the schema to what this version knows.
        """

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        """
        Do operations in one transaction, and return their answers when it is committed, and
        what it has changed. An operation that cannot be done has a
        L{StoreError<asynqueue.stores.errors.StoreError>} as its answer, and the others are done.

        @raise StoreUnavailable: nothing was done.
        @raise StoreLost: it is unknown whether anything was done.
        @raise Exception: nothing was done, because one of the operations cannot be: they are then
            done one by one.
        """

    def close(self) -> None:
        """
        Let go of all that it holds, also where it was not opened, or not wholly. It may be opened
        again.
        """


@runtime_checkable
class TellingEngine(Engine, Protocol):
    """
    An engine that hears of what other programs change.
    """

    def subscribe(self, tell: Callable[[StoreEvent], None]) -> None:
        """
        Have a function called with what others change, from L{open<Engine.open>} until
        L{close<Engine.close>} returns. It may be called in any thread, and does not block. While
        it cannot be heard what others change, nothing is told; when it can again, that anything may
        have changed.
        """
