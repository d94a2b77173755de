"""
Iterations as producers, for consumers of Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.awaitable import AwaitableDeferred, bothWorlds
from asynqueue.errors import ImplementationError
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.prefetch import Prefetcherator
from asynqueue.iteration.sources import isIterator
from asynqueue.reactors import theReactor
from asynqueue.timers import later

# For how many seconds items are written before the reactor has its turn.
_TURN = 0.010

_UNPROCESSED: Any = object()


class _Life(Enum):
    IDLE = auto()
    RUNNING = auto()
    DONE = auto()


class _Gate(Enum):
    OPEN = auto()
    PAUSED = auto()
    STOPPED = auto()


@implementer(IPushProducer)
class IterationProducer:
    """
    Produces the items of a Deferator to a consumer.

    While the consumer has it paused, no item is consumed, so that the far end
    stops when its window is full.
    """

    def __init__(self, dr: Deferator, consumer: Any = None, reactor: Any = None) -> None:
        """
        @raise TypeError: if C{dr} is no Deferator.
        @raise ImplementationError: if the consumer is no C{IConsumer}.
        """
        if not isinstance(dr, Deferator):
            raise TypeError(f"{dr!r} is not a Deferator: give what a call with an iterator returns")
        #: What is produced.
        self.dr = dr
        #: To whom.
        self.consumer: Any = None
        self._reactor = reactor
        # What the consumer wants; its wishes may come before the run.
        self._gate = _Gate.OPEN
        self._wake: Deferred[None] | None = None
        self._life = _Life.IDLE
        self._outcome: Any = None
        self._waiting: list[Deferred[Any]] = []
        if consumer is not None:
            self.registerConsumer(consumer)

    def registerConsumer(self, consumer: Any) -> None:
        """
        Take the consumer, and register with it, if it has no other producer.

        @raise ImplementationError: if it is no C{IConsumer}, or another one is
            being written to.
        """
        if not IConsumer.providedBy(consumer):
            raise ImplementationError(f"{consumer!r} does not provide IConsumer")
        if self._life is not _Life.IDLE:
            raise ImplementationError(
                "this producer is running, with its consumer: register another one before run()"
            )
        self.consumer = consumer
        try:
            consumer.registerProducer(self, True)
        except RuntimeError:
            # It has a producer already: perhaps this one, or one around it.
            pass

    def run(self) -> AwaitableDeferred[Any]:
        """
        Produce all items, then unregister from the consumer.

        @return: a Deferred that fires with the consumer when all is done, or the
            consumer has stopped it. It fails as the first item that failed, or
            as the consumer's C{write}. Cancelling it stops the production.
        @raise ImplementationError: if there is no consumer.
        """
        if self.consumer is None:
            raise ImplementationError("there is no consumer: register one before run()")
        if self._life is _Life.IDLE:
            self._life = _Life.RUNNING
            self.dr.follow()
            Deferred.fromCoroutine(self._produce()).addBoth(self._done)
        return self._wait(stopsIt=True)

    def deferUntilDone(self) -> AwaitableDeferred[Any]:
        """
        Wait for the end of the run.

        @return: a Deferred with the outcome that L{run} has, and nothing more:
            cancelling it stops nothing.
        """
        return self._wait(stopsIt=False)

    def pauseProducing(self) -> None:
        """
        Write nothing more until L{resumeProducing}.
        """
        if self._gate is _Gate.OPEN:
            self._gate = _Gate.PAUSED

    def resumeProducing(self) -> None:
        """
        Go on after a pause. Within C{write} it has its effect afterwards.
        """
        if self._gate is _Gate.PAUSED:
            self._gate = _Gate.OPEN
            self._awake()

    def stopProducing(self) -> None:
        """
        Stop the Deferator and write nothing more, ever.
        """
        self._gate = _Gate.STOPPED
        self.dr.stop()
        self._awake()

    def _wait(self, stopsIt: bool) -> AwaitableDeferred[Any]:
        def cancelled(d: Deferred[Any]) -> None:
            self._waiting.remove(d)
            if stopsIt:
                self.stopProducing()

        d: AwaitableDeferred[Any] = AwaitableDeferred(cancelled)
        if self._life is _Life.DONE:
            d.callback(self._outcome)
        else:
            self._waiting.append(d)
        return d

    def _done(self, result: Any) -> None:
        self._life = _Life.DONE
        self._outcome = result
        while self._waiting:
            self._waiting.pop(0).callback(result)

    async def _produce(self) -> Any:
        try:
            await self._writeAll()
        except BaseException:
            # Whatever it was goes on; the far end must not.
            self.dr.stop()
            raise
        finally:
            self.consumer.unregisterProducer()
        return self.consumer

    async def _writeAll(self) -> None:
        """
        Write until the end, without recursion. The gate is looked at before an
        item is consumed, so none is in our hands during a pause.
        """
        reactor = theReactor(self._reactor)
        turnEnds = reactor.seconds() + _TURN
        while self._gate is not _Gate.STOPPED:
            if self._gate is _Gate.PAUSED:
                await self._rest()
            elif self.dr.unconsumed:
                self.consumer.write(await self.dr.__anext__())
                if reactor.seconds() < turnEnds:
                    continue
                timer = later(reactor, 0, self._awake)
                await self._rest()
                timer.cancel()
            elif self.dr.moreLeft:
                await self.dr.deferUntilReady()
            else:
                # The end; the Deferator hears that it was seen.
                await anext(self.dr, None)
                return
            turnEnds = reactor.seconds() + _TURN

    def _rest(self) -> Deferred[None]:
        self._wake = Deferred()
        return self._wake

    def _awake(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)


class _Production(Enum):
    AWAITED = auto()
    RUNNING = auto()
    OVER = auto()
    FAILED = auto()


@implementer(IConsumer)
class ListConsumer:
    """
    Consumes items into a list. Call it for a Deferred of the list.

    @ivar count: how many items were written.
    """

    def __init__(self, **kw: Any) -> None:
        """
        @param kw: attributes to set, for the use of a subclass.
        """
        self.count = 0
        self._list: list[Any] = []
        self._unfinished: set[Deferred[Any]] = set()
        self._producer: Any = None
        self._production = _Production.AWAITED
        self._failure: Failure | None = None
        self._waiting: list[Deferred[list[Any]]] = []
        for name, value in kw.items():
            setattr(self, name, value)

    def __call__(self) -> AwaitableDeferred[list[Any]]:
        """
        Wait for the producer to unregister, and for all items to be processed.

        @return: a Deferred of the processed items, in the order they were
            written. It fails as the first one whose processing failed.
        """
        d: AwaitableDeferred[list[Any]] = AwaitableDeferred(self._waiting.remove)
        self._waiting.append(d)
        self._settle()
        return d

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Take a push producer.

        @raise RuntimeError: if there is one already.
        @raise TypeError: if it is a pull producer.
        """
        if self._producer is not None:
            raise RuntimeError("a producer is registered already: unregister that first")
        if not streaming:
            raise TypeError("only a push producer can be registered: give streaming=True")
        self._producer = producer
        if self._production is _Production.FAILED:
            producer.stopProducing()
        else:
            self._production = _Production.RUNNING

    def unregisterProducer(self) -> None:
        """
        Take it that everything was written.
        """
        self._producer = None
        if self._production is not _Production.FAILED:
            self._production = _Production.OVER
        self._settle()

    def write(self, data: Any) -> None:
        """
        Process an item. While that takes time, the producer is paused.
        """
        if self._production is _Production.FAILED:
            return
        place = self.count
        self.count += 1
        self._list.append(_UNPROCESSED)
        d = maybeDeferred(self.processItem, data)
        d.addCallbacks(self._processed, self._failed, (place, d))
        if self._list[place] is _UNPROCESSED and self._failure is None:
            self._unfinished.add(d)
            if self._producer is not None:
                self._producer.pauseProducing()

    def processItem(self, item: Any) -> Any:
        """
        Process an item: override it.

        @return: what belongs into the list, or a Deferred of it.
        """
        return item

    def _processed(self, result: Any, place: int, d: Deferred[Any]) -> None:
        if self._production is _Production.FAILED:
            return
        self._list[place] = result
        if d in self._unfinished:
            self._unfinished.remove(d)
            if not self._unfinished and self._producer is not None:
                self._producer.resumeProducing()
        self._settle()

    def _failed(self, failure: Failure) -> None:
        if self._production is _Production.FAILED:
            return
        self._production = _Production.FAILED
        self._failure = failure
        unfinished, self._unfinished = self._unfinished, set()
        for d in unfinished:
            d.cancel()
        if self._producer is not None:
            self._producer.stopProducing()
        self._settle()

    def _settle(self) -> None:
        if self._production is _Production.FAILED:
            outcome: Any = self._failure
        elif self._production is _Production.OVER and not self._unfinished:
            outcome = self._list
        else:
            return
        while self._waiting:
            self._waiting.pop(0).callback(outcome)


def iteratorToProducer(
    iterator: Any, consumer: Any = None, wrapper: Callable[..., Any] | None = None
) -> AwaitableDeferred[IterationProducer | None]:
    """
    Make an L{IterationProducer} of an iterator.

    Without a consumer, register one with it and call its C{run}. With one, it is
    run here.

    @param wrapper: calls what it is given, a function that gives Deferreds of
        C{(value, isValid, moreLeft)}, in its own way, and returns what that
        gives.
    @return: a Deferred of the producer; with a consumer, after its run. C{None}
        if it is no iterator, or an empty one (the consumer is unregistered then,
        too).
    @raise TypeError: if the wrapper cannot be called.
    @raise ImplementationError: if the consumer is no C{IConsumer}.
    """
    if wrapper is not None and not callable(wrapper):
        raise TypeError(f"the wrapper {wrapper!r} cannot be called: give a function of an item")
    if consumer is not None and not IConsumer.providedBy(consumer):
        raise ImplementationError(f"{consumer!r} does not provide IConsumer")
    if not isIterator(iterator):
        return bothWorlds(succeed(None))
    return bothWorlds(Deferred.fromCoroutine(_toProducer(iterator, consumer, wrapper)))


async def _toProducer(
    iterator: Any, consumer: Any, wrapper: Callable[..., Any] | None
) -> IterationProducer | None:
    if wrapper is None:
        dr = Deferator(iterator)
    else:
        prefetcherator = Prefetcherator(iterator)
        await prefetcherator.setup(iterator)
        dr = Deferator(repr(iterator), wrapper, prefetcherator.getNext)
    producer = IterationProducer(dr, consumer)
    await dr.deferUntilReady()
    empty = not dr.moreLeft
    if consumer is not None:
        await producer.run()
    return None if empty else producer
