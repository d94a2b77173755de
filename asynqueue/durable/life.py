"""
The life of a node: it registers, renews its lease, and takes over what dead nodes have left.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.durable.ids import newId
from asynqueue.stores.interfaces import IStore
from asynqueue.stores.operations import Leave, Register, Renew, Renewed, Rescue, Rescued
from asynqueue.stores.records import NodeRecord
from asynqueue.timers import Timer

_log = Logger()

# The lease of a node of a store that nobody else can have open: nobody looks at it.
_ENDLESS = 10 * 366 * 86_400.0


class LifeDelegate(Protocol):
    """
    Who hears what a node has learned.
    """

    def mustStop(self, ids: Sequence[str]) -> None:
        """
        Hear of running jobs that were cancelled.
        """

    def leaseEnds(self) -> None:
        """
        Hear that nothing must begin any more until the lease is renewed.
        """

    def leaseRenewed(self) -> None:
        """
        Hear that jobs may begin again.
        """


class NodeLife:
    """
    One node.

    @ivar id: its ID, which is another one after it was taken for dead.
    """

    def __init__(
        self,
        store: IStore,
        name: str,
        lease: float,
        delegate: LifeDelegate,
        seconds: Callable[[], float],
        callLater: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        """
        @param lease: for how many seconds it is believed to live when it is not heard of.
        @param seconds: tells the time, by any clock that never goes back.
        """
        self.id = ""
        self._store = store
        self._name = name
        self._lease = lease if store.isShared else _ENDLESS
        self._delegate = delegate
        self._seconds = seconds
        self._renewing = Timer(callLater)
        self._ending = Timer(callLater)
        # When the lease was asked for that is known to be given.
        self._since = self._rescued = 0.0
        self._hasEnded = False
        self.slots = 0

    @property
    def mayBegin(self) -> bool:
        """
        Whether jobs may begin: two thirds of the lease are not over.
        """
        return bool(self.id) and self._seconds() < self._since + self._lease * 2 / 3

    def start(self) -> Deferred[Any]:
        """
        Register, and take over what dead nodes have left.
        """
        d = self._register()
        d.addCallback(lambda _: self._rescue())
        return d

    def stop(self) -> Deferred[Any]:
        """
        Leave the store. What this node still has is then as lost.
        """
        self._renewing.stop()
        self._ending.stop()
        id, self.id = self.id, ""
        d: Deferred[Any] = self._store.do(Leave(id))
        return d.addErrback(_logged, "a node could not leave its store")

    def _register(self) -> Deferred[Any]:
        asked = self._seconds()
        id = newId()
        node = NodeRecord(
            id=id, name=self._name, host=socket.gethostname(), pid=os.getpid(), slots=self.slots
        )
        d: Deferred[None] = self._store.do(Register(node, self._lease))

        def registered(_: None) -> None:
            self.id = id
            self._given(asked)

        return d.addCallback(registered)

    def _rescue(self) -> Deferred[Any]:
        self._rescued = self._seconds()
        if self._store.isShared:
            rescue = Rescue(margin=self._lease / 3)
        else:
            rescue = Rescue(others=self.id)
        d: Deferred[Rescued] = self._store.do(rescue)
        return d.addCallback(_logRescued)

    def _given(self, asked: float) -> None:
        """
        Have the lease from the time on when it was asked for.
        """
        self._since = asked
        if not self._store.isShared:
            return
        passed = self._seconds() - asked
        self._renewing.start(max(0.0, self._lease / 3 - passed), self._renew)
        self._ending.start(max(0.0, self._lease * 2 / 3 - passed), self._ends)
        if self._hasEnded:
            self._hasEnded = False
            self._delegate.leaseRenewed()

    def _ends(self) -> None:
        self._hasEnded = True
        self._delegate.leaseEnds()

    def _renew(self) -> None:
        asked = self._seconds()
        d: Deferred[Renewed] = self._store.do(Renew(self.id, self._lease))
        d.addCallbacks(self._renewed, self._notRenewed, (asked,))
        if asked - self._rescued >= self._lease:
            self._rescue().addErrback(_logged, "what dead nodes have left could not be looked at")

    def _renewed(self, renewed: Renewed, asked: float) -> None:
        if not self.id:
            return
        if renewed.isAlive:
            self._given(asked)
            if renewed.stopping:
                self._delegate.mustStop([attempt.id for attempt in renewed.stopping])
            return
        _log.warn("this node was taken for dead; others have its jobs now. It registers anew")
        self._hasEnded = True
        self._since = float("-inf")
        self._delegate.leaseEnds()
        self._register().addErrback(self._notRenewed)

    def _notRenewed(self, failure: Failure) -> None:
        if self.id:
            _log.warn("a lease was not renewed: {why}", why=failure.getErrorMessage())
            self._renewing.start(self._lease / 10, self._renew)


def _logRescued(rescued: Rescued) -> None:
    if rescued.nodes:
        _log.info(
            "{nodes} programs have died: {waiting} of their jobs wait again, {repeated} are"
            " repeated, {lost} are lost",
            nodes=len(rescued.nodes),
            waiting=len(rescued.waiting),
            repeated=len(rescued.repeated),
            lost=len(rescued.lost),
        )


def _logged(failure: Failure, what: str) -> None:
    _log.warn("{what}: {why}", what=what, why=failure.getErrorMessage())
