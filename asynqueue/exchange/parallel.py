"""
Results of many processes: in the order of their start, or of their arrival.

This module imports no Twisted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, overload

from asynqueue.cores import cores
from asynqueue.errors import ForkError, FrameError, MaybeEncodingError
from asynqueue.exchange.channel import Delivery, valueOf
from asynqueue.exchange.creating import ToCreator
from asynqueue.exchange.exchange import Exchange
from asynqueue.outcome import raisable


class MakeParallel:
    """
    Makes a function that knows nothing of channels one that takes a channel first.
    """

    def __init__(self, callable: Callable[..., Any]) -> None:
        """
        @param callable: what it returns is sent.
        """
        self.callable = callable
        # By this name it is known in errors.
        self.__qualname__ = getattr(callable, "__qualname__", type(self).__qualname__)

    def __call__(self, channel: ToCreator, /, *args: Any, **kw: Any) -> None:
        """
        Make the call, and send its result.

        @raise Exception: whatever the call raises; or the result cannot be sent.
        """
        channel.send(self.callable(*args, **kw))


class MakeReusable(MakeParallel):
    """
    Makes a function one that takes a channel first, and is called again and again,
    as an exchange with C{reuse} has it.
    """

    def __call__(self, channel: ToCreator, /, *args: Any, **kw: Any) -> None:
        """
        Make calls, and send their results, until there is no other. An exception is
        a result.
        """
        while True:
            try:
                result = self.callable(*args, **kw)
            except Exception as error:
                # The seam between user code and its process: it is the result.
                result = error
            try:
                channel.send(result)
            except (FrameError, MaybeEncodingError) as error:
                channel.send(error)
            call = channel.receive()
            if call is None:
                return
            args, kw = call


class _InOrder(Iterator[Any]):
    """
    The results of a map. One that is an exception does not end the iteration.
    """

    def __init__(self, map: Map) -> None:
        self._map = map
        self._next = 0

    def __next__(self) -> Any:
        if self._next >= len(self._map):
            raise StopIteration
        place = self._next
        self._next += 1
        return _sane(lambda: self._map[place])


def _sane(give: Callable[[], Any]) -> Any:
    """
    Return a result, in an iteration: that must not end when it is a C{StopIteration}.
    """
    try:
        return give()
    except StopIteration as error:
        raise raisable(error, "a computation", exits=False) from error


class Map(Exchange):
    """
    An exchange that gives results in the order in which computations were started.

    Its length is how many were started. It can be indexed, sliced and iterated,
    which waits for what has not come yet, and raises what a computation has raised.
    With C{continuous}, a result is a list of all that its process sent.
    """

    __hash__ = Exchange.__hash__

    def __init__(self, *args: Any, **kw: Any) -> None:
        """
        @param args: as those of L{Exchange}, like C{kw}.
        """
        self._results: dict[int, list[Delivery]] = {}
        super().__init__(*args, **kw)

    def __call__(self, callable: Callable[..., Any], sequence: Iterable[Any]) -> Map:
        """
        Start a computation with each item of a sequence.

        @param callable: a function that knows nothing of channels.
        @return: this map.
        """
        parallel = MakeReusable(callable) if self.reuse else MakeParallel(callable)
        for item in sequence:
            self.start(parallel, item)
        return self

    def store_data(self, channel: Any) -> None:
        """
        Keep what comes until it is asked for.
        """
        self._results.setdefault(self._computations.running[channel].place, []).append(
            channel.take()
        )

    def __len__(self) -> int:
        return self._computations.count

    def __eq__(self, other: object) -> bool:
        """
        Tell whether the results are those in a list, or in another map.
        """
        if isinstance(other, (list, tuple, Map)):
            return len(self) == len(other) and self[:] == list(other)
        return NotImplemented

    def __iter__(self) -> Iterator[Any]:
        """
        Return an iterator of its own for each call, which begins with the first result.
        """
        return _InOrder(self)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """
        Wait for a result, or those of a slice.

        @raise IndexError: no such computation was started.
        @raise LookupError: its channel was removed before it had a result.
        @raise ForkError: this process is a fork, and the computation is its parent's.
        """
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no computation {index}: {len(self)} were started")
        while not self._isIn(place):
            self.store()
        if not self.unfinished():
            self._reserve.tidy()
        deliveries = self._results.get(place, [])
        if place in self._computations.inherited:
            raise ForkError(f"waiting for computation {index}", "exchange")
        if self.continuous:
            return [valueOf(delivery) for delivery in deliveries]
        if not deliveries:
            raise LookupError(
                f"computation {index} has no result: its channel was removed before that came"
            )
        return valueOf(deliveries[0])

    def _isIn(self, place: int) -> bool:
        if place in self._results and not self.continuous:
            return True
        return not self._computations.isOutstanding(place)


class Queue(Exchange, Iterator[Any]):
    """
    An exchange that gives results in the order of their arrival.

    It is an iterator, which waits for them, and raises what a computation has
    raised; it goes on after that. In a fork it raises L{ForkError<asynqueue.errors.ForkError>}
    once for what its parent computes. Its length is how many results have arrived and
    were not given yet.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        """
        @param args: as those of L{Exchange}, like C{kw}.
        """
        self._arrived: deque[Delivery] = deque()
        super().__init__(*args, **kw)

    def store_data(self, channel: Any) -> None:
        """
        Keep what comes until it is asked for.
        """
        self._arrived.append(channel.take())

    def __len__(self) -> int:
        return len(self._arrived)

    def __bool__(self) -> bool:
        """
        Return true: a queue is there, also when it is empty.
        """
        return True

    def __next__(self) -> Any:
        while not self._arrived and self.unfinished():
            self.store()
        if not self.unfinished():
            self._reserve.tidy()
        if not self._arrived:
            self._computations.tellInherited()
            raise StopIteration
        return _sane(lambda: valueOf(self._arrived.popleft()))


def pmap(callable: Callable[..., Any], sequence: Iterable[Any], limit: int | None = None) -> Map:
    """
    Call a function with each item of a sequence, each in a process of its own.

    It does not wait: that does who looks at the results.

    @param callable: a function that knows nothing of channels.
    @param limit: how many processes may run at once; C{None} for as many as the
        system has room for.
    """
    return Map(limit=limit)(callable, sequence)


def get_number_of_cores() -> int:
    """
    Count the cores that this process may use: a good limit for an exchange.
    """
    return cores()
