"""
The end of a queue whose reactor was told to stop: first it does what it has.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from asynqueue.interfaces import IQueueObserver, ITask
from asynqueue.scheduling.dispatch import Dispatcher
from asynqueue.scheduling.events import SilentObserver
from asynqueue.timers import later


@implementer(IQueueObserver)
class Draining(SilentObserver):
    """
    Waits until a queue has no call left that a worker has or can have.

    It looks one turn of the reactor after a call has ended: who waited for that one may
    have made another.

    @ivar d: fires when that is so, or when the time is over.
    """

    def __init__(self, dispatcher: Dispatcher, reactor: Any, limit: float) -> None:
        """
        @param limit: the seconds that this may take.
        """
        self.d: Deferred[None] = Deferred()
        self._dispatcher = dispatcher
        self._reactor = reactor
        self._turn: Any = None
        self._limit = later(reactor, limit, self._end)
        self._lookLater()

    def taskDone(self, task: ITask, failure: Failure | None) -> None:
        """
        A call has ended.
        """
        self._lookLater()

    def _lookLater(self) -> None:
        if self._turn is None and not self.d.called:
            self._turn = later(self._reactor, 0, self._look)

    def _look(self) -> None:
        self._turn = None
        if not self._dispatcher.isBusy:
            self._limit.cancel()
            self._end()

    def _end(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._dispatcher.removeObserver(self)
        self.d.callback(None)
