"""
Where the items of a Deferator come from, in the reactor: an iterator, an
asynchronous iterator, or a function that is asked for one item after another.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.awaitable import deferAwaitable
from asynqueue.errors import ImplementationError
from asynqueue.failures import caught
from asynqueue.interfaces import IItemSink, IItemSource
from asynqueue.outcome import ITERATOR, shapeOf

_log = Logger()


def isIterator(x: object) -> bool:
    """
    Tell whether C{x} is an iterator by design: its type has C{__iter__} and C{__next__}.

    Containers are none, nor are Deferreds, files and what can be read as they are, proxies,
    and what iterates asynchronously, as a Deferator does. A function that makes iterators
    is not one itself.
    """
    return shapeOf(x) is ITERATOR and not issubclass(type(x), Deferred)


def _isDeferred(item: object) -> bool:
    try:
        # Not of the item: somebody's __class__ may raise.
        return issubclass(type(item), Deferred)
    except Exception:
        # Somebody's metaclass, such as one without a hash.
        return False


class _Phase(Enum):
    IDLE = auto()
    PUMPING = auto()
    WAITING = auto()
    OVER = auto()


# By names, for each item: see L{asynqueue.outcome.ITERATOR}.
_IDLE, _PUMPING, _WAITING, _OVER = _Phase


@implementer(IItemSource)
class IteratorSource:
    """
    Advances an iterator in the reactor, within L{grant}. An item that is a
    Deferred is waited for.
    """

    def __init__(self, iterator: Iterator[Any]) -> None:
        """
        @raise ImplementationError: if it is no iterator.
        """
        if not isIterator(iterator):
            raise ImplementationError(f"{iterator!r} is not an iterator: give iter() of it")
        self._iterator = iterator
        self._sink: IItemSink | None = None
        self._credit = 0
        self._phase = _IDLE
        self._awaited: Deferred[Any] | None = None

    def connect(self, sink: IItemSink) -> None:
        """
        Produce to this sink.
        """
        self._sink = sink

    def grant(self, count: int) -> None:
        """
        Advance the iterator so far, at once if nothing is waited for.
        """
        self._credit += count
        if self._phase is _IDLE:
            self._pump()

    def stop(self) -> None:
        """
        Close the iterator, if it is a generator, and cancel the item that is
        waited for.
        """
        phase, self._phase = self._phase, _OVER
        # A generator that is running cannot be closed: the pump does it after.
        if phase in (_IDLE, _WAITING):
            self._close()

    def _close(self) -> None:
        self._sink = None
        iterator: Any = self._iterator
        self._iterator = iter(())
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.cancel()
        # Not of the iterator: somebody's __class__ may raise.
        if issubclass(type(iterator), Generator):
            try:
                iterator.close()
            except Exception:
                # The seam to the user's generator: nobody waits for it any more.
                _log.failure("A generator raised as it was closed")

    def _pump(self) -> None:
        """
        Advance until the credit is used up, without recursion: what is granted
        meanwhile is only noted.
        """
        self._phase = _PUMPING
        while self._credit and self._phase is _PUMPING:
            self._credit -= 1
            self._advance()
        if self._phase is _PUMPING:
            self._phase = _IDLE
        elif self._phase is _OVER:
            self._close()

    def _advance(self) -> None:
        try:
            item = next(self._iterator)
        except StopIteration:
            self._end(None)
        except BaseException as error:
            # The seam to the user's iterator: it is the consumer's failure, an exit too.
            self._end(caught(error))
        else:
            if _isDeferred(item):
                self._awaited = item
                item.addBoth(self._got)
                if self._awaited is not None:
                    self._phase = _WAITING
            else:
                self._deliver(item)

    def _got(self, result: Any) -> None:
        """
        Hand on what the Deferred gave that was an item; perhaps within L{_pump}, which then goes on
        itself.
        """
        self._awaited = None
        self._deliver(result)
        if self._phase is _WAITING:
            self._pump()

    def _deliver(self, item: Any) -> None:
        if self._sink is None or self._phase is _OVER:
            return
        if issubclass(type(item), Failure):
            self._sink.receiveFailure(item)
        else:
            self._sink.receive((item,))

    def _end(self, failure: Failure | None) -> None:
        sink = self._sink
        if sink is None or self._phase is _OVER:
            return
        self._phase = _OVER
        if failure is not None:
            sink.receiveFailure(failure)
        sink.finish()


class _Drive(Enum):
    RUNNING = auto()
    OVER = auto()


@implementer(IItemSource)
class AsyncIteratorSource:
    """
    Advances an asynchronous iterator, in one coroutine of Twisted or of the
    asyncio loop that runs.
    """

    def __init__(self, iterator: AsyncIterator[Any]) -> None:
        """
        @raise ImplementationError: if it is no asynchronous iterator.
        """
        if not isinstance(iterator, AsyncIterator):
            raise ImplementationError(
                f"{iterator!r} is not an asynchronous iterator: give aiter() of it"
            )
        self._iterator = iterator
        self._sink: IItemSink | None = None
        self._credit = 0
        self._state = _Drive.RUNNING
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._done: Deferred[None] | None = None
        self._hungry: Deferred[None] | None = None

    def connect(self, sink: IItemSink) -> None:
        """
        Produce to this sink.
        """
        self._sink = sink

    def grant(self, count: int) -> None:
        """
        Advance the iterator so far; the first time, start it.
        """
        self._credit += count
        if self._coroutine is None and self._sink is not None:
            self._coroutine = self._drive(self._sink)
            self._done = deferAwaitable(self._coroutine)
            self._done.addErrback(self._ended)
        else:
            self._feed()

    def stop(self) -> None:
        """
        Cancel what the iterator waits for, then close it, if it is a generator.
        """
        if self._state is _Drive.OVER:
            return
        self._state = _Drive.OVER
        self._sink = None
        if self._hungry is not None:
            self._feed()
        elif self._done is not None and self._isWaiting():
            self._done.cancel()

    def _isWaiting(self) -> bool:
        """
        Tell whether the coroutine waits within the iterator. While it runs, and we are called from
        it, or before it runs, it cannot be cancelled; it sees by itself that it is over.
        """
        coroutine = self._coroutine
        return (
            coroutine is not None and inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
        )

    def _feed(self) -> None:
        hungry, self._hungry = self._hungry, None
        if hungry is not None:
            hungry.callback(None)

    async def _drive(self, sink: IItemSink) -> None:
        while self._state is _Drive.RUNNING:
            if not self._credit:
                self._hungry = Deferred()
                await self._hungry
                continue
            self._credit -= 1
            try:
                item = await self._iterator.__anext__()
            except StopAsyncIteration:
                self._end(sink, None)
            except GeneratorExit:
                # Nobody holds any of this, and no coroutine may wait as it goes.
                raise
            except BaseException as error:
                # The seam to the user's iterator. Also asyncio's CancelledError
                # must be heard: nothing would ever end the wait.
                self._end(sink, caught(error))
            else:
                if self._state is _Drive.RUNNING:
                    sink.receive((item,))
        iterator: Any = self._iterator
        # Not of the iterator: somebody's __class__ may raise.
        if issubclass(type(iterator), AsyncGenerator):
            await iterator.aclose()

    def _end(self, sink: IItemSink, failure: Failure | None) -> None:
        if self._state is _Drive.OVER:
            return
        self._state = _Drive.OVER
        self._sink = None
        if failure is not None:
            sink.receiveFailure(failure)
        sink.finish()

    def _ended(self, failure: Failure) -> None:
        """
        Not the iterator, which tells the sink, but its closing failed; or its
        coroutine was cancelled before it had begun.
        """
        if self._coroutine is not None:
            # One that never began would warn that it was not awaited.
            self._coroutine.close()
        if self._sink is not None:
            self._end(self._sink, failure)
        elif not failure.check(CancelledError, asyncio.CancelledError):
            _log.failure("An asynchronous iterator raised as it was closed", failure)


@implementer(IItemSource)
class PullSource:
    """
    Asks a function for one item after another: it gives a Deferred of
    C{(value, isValid, moreLeft)}.

    The next call is made when the last item was consumed, not before. A value
    that is not valid, one with nothing more left, and a failure are the end.
    """

    def __init__(self, f: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """
        @raise TypeError: if C{f} cannot be called.
        """
        if not callable(f):
            raise TypeError(f"{f!r} cannot be called for the next item: give a function")
        self._call = f, args, kw
        self._sink: IItemSink | None = None
        self._credit = 0
        self._phase = _IDLE
        self._awaited: Deferred[Any] | None = None

    def connect(self, sink: IItemSink) -> None:
        """
        Produce to this sink, which must take C{moreLeft} with its items.
        """
        self._sink = sink

    def grant(self, count: int) -> None:
        """
        Ask for C{count} more items, one after another.
        """
        self._credit += count
        if self._phase is _IDLE:
            self._pump()

    def stop(self) -> None:
        """
        Ask no more, and cancel what was asked for.
        """
        self._phase = _OVER
        self._sink = None
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.cancel()

    def _pump(self) -> None:
        self._phase = _PUMPING
        while self._credit and self._phase is _PUMPING:
            self._credit -= 1
            f, args, kw = self._call
            self._awaited = d = maybeDeferred(f, *args, **kw)
            d.addCallback(self._got).addErrback(self._failed).addCallback(self._goOn)
            if self._awaited is None:
                continue
            if self._sink is None:
                # It was stopped within the function.
                self.stop()
            else:
                self._phase = _WAITING
        if self._phase is _PUMPING:
            self._phase = _IDLE

    def _got(self, answer: tuple[Any, bool, bool]) -> None:
        value, isValid, moreLeft = answer
        self._awaited = None
        if self._sink is None:
            return
        if isValid:
            self._sink.receive((value,), moreLeft=bool(moreLeft))
        if not (isValid and moreLeft):
            self._finish()

    def _failed(self, failure: Failure) -> None:
        """
        Hand on what the function failed with, or that what it gave is no such answer.
        """
        self._awaited = None
        if self._sink is not None:
            self._sink.receiveFailure(failure)
            self._finish()

    def _finish(self) -> None:
        self._phase = _OVER
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.finish()

    def _goOn(self, _: None) -> None:
        if self._phase is _WAITING:
            self._pump()
