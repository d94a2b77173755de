"""
Iterators on a host: they stay there, and give items as far as they have credit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.failures import anyFailure, caught
from asynqueue.iteration.deferator import Deferator
from asynqueue.iteration.far import FarSource
from asynqueue.iteration.sources import AsyncIteratorSource
from asynqueue.outcome import shortRepr
from asynqueue.reactors import theReactor
from asynqueue.timers import Timer, later
from asynqueue.wire.host.items import END, ClosedIteration, ItemSender, Send, State, checkedCredit
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import MessageKind

_log = Logger()

# The seconds for which an iterator gives items, or the bytes that these have about; then it is
# another one's turn.
_STEP_SECONDS = 0.002
_STEP_BYTES = 1 << 18

# The size of the items is learnt with batches of 1, 2, 4 and so on.
_GROWTH = 2

# The items of an asynchronous iterator that may wait here to be sent.
_WINDOW = 64


class Iteration:
    """
    An iterator that a call returned.

    @ivar number: the number of the call.
    """

    def __init__(
        self,
        number: int,
        deferator: Deferator,
        sender: ItemSender,
        ready: Callable[[Iteration], None],
    ) -> None:
        """
        @param deferator: gives the items.
        @param sender: sends them.
        @param ready: is called when the iteration wants a turn: a call of L{step}.
        """
        self.number = number
        self._deferator = deferator
        self._sender = sender
        self._ready = ready
        self._credit = 0
        self._batch = 1
        self._state = State.IDLE
        # Whether anybody reads it is seen at the other side only, which closes it.
        deferator.follow()

    def grant(self, count: int) -> None:
        """
        Give more items.

        @raise RemoteProtocolError: they are too many.
        """
        self._credit = checkedCredit(self._credit + count)
        if self._state is State.IDLE and self._credit:
            self._activate()

    def step(self) -> bool:
        """
        Give some items.

        @return: whether there may be more. If not, it is said that this is the end.
        """
        if self._state is State.OVER:
            return False
        ended = self._giveSome()
        if ended:
            self._state = State.OVER
            self._sender.end()
            return False
        if not self._credit:
            self._state = State.IDLE
        elif ended is None:
            self._activate()
        else:
            self._state = State.WAITING
            self._deferator.deferUntilReady().addBoth(self._awake)
        return True

    def close(self) -> None:
        """
        Give no more, and say nothing.
        """
        self._state = State.OVER
        try:
            self._deferator.stop()
        except BaseException:
            # The seam to somebody's iterator: nobody takes from it any more.
            _log.failure("An iterator raised as it was stopped")

    def _activate(self) -> None:
        self._state = State.ACTIVE
        self._ready(self)

    def _awake(self, result: Any) -> None:
        """
        Go on with an iterator that has an item, or its end.
        """
        if self._state is State.WAITING:
            self._activate()

    def _giveSome(self) -> bool | None:
        """
        @return: whether it has ended, C{None} if that was not looked at: there was no
            more time, or no more credit.
        """
        end = perf_counter() + _STEP_SECONDS
        sent = 0
        while self._credit and sent < _STEP_BYTES and perf_counter() < end:
            items: list[Any] = []
            more = False
            try:
                more = self._take(items, min(self._batch, self._credit), end)
            except BaseException as error:
                # The seam to user code: an exit is an outcome, too.
                self._give(items)
                self.close()
                self._sender.failure(caught(error))
                return True
            sent += self._give(items)
            if not more:
                return not self._deferator.moreLeft
        return None

    def _take(self, items: list[Any], count: int, end: float) -> bool:
        """
        Collect what is here. A hot path.

        @return: whether there may be more here.
        """
        take = self._deferator.takeReady
        while True:
            taken = take(count - len(items))
            if not taken:
                return False
            items += taken
            if len(items) >= count or perf_counter() > end:
                return True

    def _give(self, items: list[Any]) -> int:
        """
        Send items, and failures in their places.

        @return: about how many bytes they had.
        """
        self._credit -= len(items)
        if not anyFailure(items):
            return self._sendItems(items)
        size = 0
        run: list[Any] = []
        for item in items:
            if type(item) is Failure:
                size += self._sendItems(run)
                run = []
                self._sender.failure(item)
            else:
                run.append(item)
        return size + self._sendItems(run)

    def _sendItems(self, items: list[Any]) -> int:
        if not items:
            return 0
        size = self._sender.items(items)
        most = max(1, _STEP_BYTES * len(items) // max(1, size))
        self._batch = min(self._batch * _GROWTH, most)
        return size


class Iterations:
    """
    The iterators of one connection. Those that have credit take turns, and so does the
    reactor between them.
    """

    def __init__(
        self,
        codec: Codec,
        send: Send,
        ended: Callable[[], None],
        areHeld: Callable[[Callable[[], None]], bool],
        reactor: Any,
    ) -> None:
        """
        @param codec: encodes items.
        @param send: sends a message.
        @param ended: is called when one has ended by itself.
        @param areHeld: tells whether nothing must be given now, and calls its argument
            when something may.
        @param reactor: the reactor; C{None} is the installed one.
        """
        self._codec = codec
        self._send = send
        self._ended = ended
        self._areHeld = areHeld
        self._wait = False
        self._iterations: dict[int, Iteration | ClosedIteration] = {}
        self._active: deque[Iteration | ClosedIteration] = deque()
        self._turn = Timer(lambda seconds, f: later(theReactor(reactor), seconds, f))

    def __len__(self) -> int:
        return len(self._iterations)

    def __contains__(self, number: int) -> bool:
        return number in self._iterations

    def begin(self, number: int, value: Any, credit: int) -> bool:
        """
        Take what a call has returned, if it is an iterator that stays here.

        @param credit: how many items it may give already.
        @return: whether it is one. If so, it was said that it is there.
        """
        # Not of the value: somebody's __class__ may raise.
        kind = type(value)
        sender = ItemSender(number, self._codec, self._send)
        iteration: Iteration | ClosedIteration
        if kind is FarSource:
            text = value.text
            iteration = ClosedIteration(number, value, sender, self._wantsTurn)
        elif issubclass(kind, Deferator):
            text = value.representation
            iteration = Iteration(number, value, sender, self._wantsTurn)
        elif issubclass(kind, AsyncIterator):
            text = shortRepr(value)
            deferator = Deferator.fromSource(AsyncIteratorSource(value), text, _WINDOW)
            iteration = Iteration(number, deferator, sender, self._wantsTurn)
        else:
            return False
        self._iterations[number] = iteration
        self._send(MessageKind.ITERATOR, number, text.encode("utf-8", "backslashreplace"))
        iteration.grant(credit)
        return True

    def grant(self, number: int, count: int) -> bool:
        """
        Let an iterator give more items.

        @return: whether there is one of this number.
        @raise RemoteProtocolError: they are too many.
        """
        iteration = self._iterations.get(number)
        if iteration is not None:
            iteration.grant(count)
        return iteration is not None

    def close(self, number: int) -> bool:
        """
        Close an iterator of which nobody takes more items.

        @return: whether there was one of this number. If so, its end was told.
        """
        iteration = self._iterations.pop(number, None)
        if iteration is not None:
            iteration.close()
            self._send(END, number)
        return iteration is not None

    def stop(self) -> None:
        """
        Close all, and say nothing: nobody is there any more.
        """
        self._turn.stop()
        self._active.clear()
        iterations, self._iterations = self._iterations, {}
        for iteration in iterations.values():
            iteration.close()

    def _wantsTurn(self, iteration: Iteration | ClosedIteration) -> None:
        self._active.append(iteration)
        self._checkTurn()

    def _checkTurn(self) -> None:
        if self._active and not self._turn.isRunning and not self._wait:
            self._turn.start(0, self._takeTurn)

    def _goOn(self) -> None:
        self._wait = False
        self._checkTurn()

    def _takeTurn(self) -> None:
        """
        Have one iterator give some items.
        """
        self._wait = self._areHeld(self._goOn)
        if self._wait:
            return
        iteration = self._active.popleft()
        # Within the step somebody's code may have all of this stopped.
        if not iteration.step() and self._iterations.pop(iteration.number, None) is not None:
            self._ended()
        self._checkTurn()
