"""
Engines of stores that do what a test tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asynqueue.stores.operations import Operation
from asynqueue.stores.records import StoreEvent


class ToldEngine:
    """
    An engine that answers each operation with the operation itself, and notes what it was asked.

    @ivar calls: C{"open"}, C{"close"}, and the operations of each transaction.
    @ivar event: what each transaction is said to have changed.
    @ivar answer: makes the answer for an operation; what it raises fails the transaction.
    @ivar onOpen: is called as it is opened; C{onClose} as it is closed.
    """

    name = "told"
    isShared = False

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.event = StoreEvent()
        self.answer: Callable[[Operation[Any]], Any] = lambda operation: operation
        self.onOpen: Callable[[], Any] = lambda: None
        self.onClose: Callable[[], Any] = lambda: None

    def open(self) -> None:
        """
        Open it.
        """
        self.calls.append("open")
        self.onOpen()

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        """
        Answer the operations.
        """
        self.calls.append(list(operations))
        return list(map(self.answer, operations)), self.event

    def close(self) -> None:
        """
        Close it.
        """
        self.calls.append("close")
        self.onClose()

    @property
    def transactions(self) -> list[list[Operation[Any]]]:
        """
        The operations of each transaction.
        """
        return [call for call in self.calls if isinstance(call, list)]


class TellingToldEngine(ToldEngine):
    """
    The same, which hears of others.

    @ivar tell: what the store has asked to be called with what is heard.
    """

    tell: Callable[[StoreEvent], None]

    def subscribe(self, tell: Callable[[StoreEvent], None]) -> None:
        """
        Note what to call.
        """
        self.tell = tell
