"""
Between the reactor and code that blocks: writers on one side, iterators on the
other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from enum import Enum, auto
from types import TracebackType
from typing import Any

from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from asynqueue.awaitable import AwaitableDeferred
from asynqueue.iteration.handover import Handover

# How many items a Consumerator holds before it lets its producer wait.
_LIMIT = 64


class _Flow(Enum):
    FLOWING = auto()
    PULLING = auto()
    PAUSED = auto()


@implementer(IConsumer)
class Consumerator:
    """
    A consumer in the reactor, and an iterator that blocks in another thread.

    It takes a push or a pull producer, which waits while the thread is behind.
    The iteration ends after the producer unregistered and what it wrote was
    iterated over; at once with L{stop}; and when the reactor shuts down. A
    thread that leaves its loop early calls L{stop}, so that the producer does
    not wait for it.

    It is made, and used as a consumer, in the reactor's thread.
    """

    def __init__(self, producer: Any = None, maxThreads: int | None = None, reactor: Any = None):
        """
        @param producer: a push producer to register.
        @param maxThreads: is taken from older programs, and does nothing: there
            is no thread here but the user's.
        """
        self._thread = threading.get_ident()
        self._handover = Handover(reactor)
        self._producer: Any = None
        self._streaming = True
        self._flow = _Flow.FLOWING
        self._written = 0
        if producer is not None:
            self.registerProducer(producer, True)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Take a producer. It is stopped if the iteration has ended.

        @raise RuntimeError: if there is one already.
        """
        if self._producer is not None:
            raise RuntimeError("a producer is registered already: unregister that first")
        if self._handover.ended:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        if not streaming:
            self._pull()

    def unregisterProducer(self) -> None:
        """
        Let the iteration end after what was written.
        """
        self._producer = None
        self._handover.end()

    def write(self, data: Any) -> None:
        """
        Take an item to be iterated over. After the end it is ignored.
        """
        self._written += 1
        self._handover.put(data)
        if self._producer is None or self._flow is not _Flow.FLOWING:
            return
        if not self._streaming:
            self._pull()
        elif len(self._handover) >= _LIMIT:
            self._hold()
            self._producer.pauseProducing()

    def stop(self) -> None:
        """
        Stop the producer, and let the iteration end now. It may be called from
        any thread.
        """
        self._handover.drop()
        if threading.get_ident() == self._thread:
            self._stopProducer()
        else:
            self._handover.callInReactor(self._stopProducer)

    def deferUntilDone(self) -> AwaitableDeferred[None]:
        """
        Return a Deferred that fires when the iteration has ended: the thread was told that there
        are no more items, or L{stop} was called.
        """
        return self._handover.deferUntilDone()

    def __iter__(self) -> Consumerator:
        return self

    def __next__(self) -> Any:
        """
        Wait for the next item. Not in the reactor's thread.
        """
        return next(self._handover)

    def _stopProducer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _hold(self) -> None:
        self._flow = _Flow.PAUSED
        self._handover.callWhenLow(_LIMIT // 2, self._drained)

    def _drained(self) -> None:
        self._flow = _Flow.FLOWING
        if self._producer is None:
            return
        if self._streaming:
            self._producer.resumeProducing()
        else:
            self._pull()

    def _pull(self) -> None:
        """
        Ask a pull producer for more, as long as it writes at once. If it does
        not, the next C{write} goes on.
        """
        self._flow = _Flow.PULLING
        while self._producer is not None:
            if len(self._handover) >= _LIMIT:
                self._hold()
                return
            written = self._written
            self._producer.resumeProducing()
            if self._written == written:
                break
        self._flow = _Flow.FLOWING


class Filerator:
    """
    A file to write to, and an iterator over what was written that blocks in
    another thread.

    Writers may be in any thread, the reactor's too, and never wait. The
    iteration ends after L{close}, and when the reactor shuts down.
    """

    def __init__(self, maxThreads: int | None = None, reactor: Any = None) -> None:
        """
        @param maxThreads: is taken from older programs, and does nothing: there
            is no thread here but the user's.
        """
        self._handover = Handover(reactor)

    @property
    def closed(self) -> bool:
        """
        Whether nothing more can be written.
        """
        return self._handover.ended

    def write(self, data: Any) -> None:
        """
        Write something, which will be one item.

        @raise ValueError: if this is closed.
        """
        if not self._handover.put(data):
            raise ValueError("this Filerator is closed: write before its close()")

    def writelines(self, lines: Iterable[Any]) -> None:
        """
        Write each of these.

        @raise ValueError: if this is closed.
        """
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """
        Do nothing: what was written is there to be iterated over.
        """

    def close(self) -> None:
        """
        Let the iteration end after what was written.
        """
        self._handover.end()

    def __enter__(self) -> Filerator:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def deferUntilDone(self) -> AwaitableDeferred[None]:
        """
        Return a Deferred that fires when the thread was told that there are no more items. Called
        in the reactor's thread.
        """
        return self._handover.deferUntilDone()

    def __iter__(self) -> Filerator:
        return self

    def __next__(self) -> Any:
        """
        Wait for the next item. Not in the reactor's thread.
        """
        return next(self._handover)
