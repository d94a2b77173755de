"""
Workers that connect, on their way to the queue: they are hired each time they have a
connection to serve over.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.errors import QueueRunError, WorkerLost
from asynqueue.interfaces import IConnectingWorker
from asynqueue.outcome import oneLine

_log = Logger()


class Reconnects:
    """
    Those L{IConnectingWorker}s of a queue that it has not hired yet, or not again.

    @ivar refusal: what the last one of them failed with that was given up, in words.
    """

    def __init__(self, hire: Callable[[IConnectingWorker], Deferred[int]]) -> None:
        """
        @param hire: takes a worker on; its Deferred fires with the worker's ID.
        """
        self.refusal = ""
        self._hire = hire
        # What those that try to connect gave ...
        self._connecting: dict[IConnectingWorker, Deferred[None]] = {}
        # ... and who waits for the first hire of which worker.
        self._waiting: dict[IConnectingWorker, list[Deferred[int]]] = {}

    def __contains__(self, worker: IConnectingWorker) -> bool:
        """
        Tell whether a worker was never hired, or tries to connect again.
        """
        return worker in self._waiting or worker in self._connecting

    def workers(self, series: Hashable = None) -> list[IConnectingWorker]:
        """
        Return the workers without connection that may run tasks of a series, as far as they know: a
        host may say more.
        """
        return [
            worker
            for worker in self._connecting
            if series is None or series in (*worker.cQualified, *worker.iQualified)
        ]

    def attach(self, worker: IConnectingWorker) -> Deferred[int]:
        """
        Hire a worker as soon as it has a connection.

        @return: a Deferred of its first ID. It fails if the other side has refused, or
            an update has failed. Cancelling it gives the worker up.
        """
        hired: Deferred[int] = Deferred(lambda d: self._forget(worker, d))
        if worker in self:
            self._waiting.setdefault(worker, []).append(hired)
        else:
            self._waiting[worker] = [hired]
            self.resigned(worker)
        return hired

    def resigned(self, worker: IConnectingWorker) -> None:
        """
        Wait for a worker that has no connection: it is hired when it has one.
        """
        d = worker.whenConnected()
        self._connecting[worker] = d
        d.addCallbacks(self._connected, self._refused, (worker,), {}, (worker,))

    def dismiss(self, worker: IConnectingWorker, failure: Failure | None = None) -> None:
        """
        Expect a worker no more.
        """
        connecting = self._connecting.pop(worker, None)
        if connecting is not None:
            connecting.cancel()
        if failure is None:
            failure = Failure(WorkerLost("any call", _nameOf(worker), False, reason="it left"))
        for hired in self._waiting.pop(worker, ()):
            if not hired.called:
                hired.errback(failure)

    def close(self) -> None:
        """
        Expect nobody any more: the queue is shut down.
        """
        for worker in {**self._connecting, **self._waiting}:
            self.dismiss(worker, Failure(QueueRunError(f"attaching {_nameOf(worker)}")))

    def _forget(self, worker: IConnectingWorker, hired: Deferred[int]) -> None:
        waiting = self._waiting.get(worker, [])
        if waiting == [hired]:
            self.dismiss(worker, Failure(CancelledError()))
        else:
            waiting.remove(hired)

    def _connected(self, _: Any, worker: IConnectingWorker) -> None:
        del self._connecting[worker]
        self.refusal = ""
        self._hire(worker).addCallbacks(self._hired, self._unfit, (worker,), {}, (worker,))

    def _refused(self, failure: Failure, worker: IConnectingWorker) -> None:
        if self._connecting.pop(worker, None) is None:
            # It was dismissed.
            return
        error: Any = failure.value
        self.refusal = oneLine(error)
        if worker in self._waiting:
            self.dismiss(worker, failure)
        else:
            _log.failure("{worker} will not come back", failure, worker=_nameOf(worker))

    def _hired(self, ID: int, worker: IConnectingWorker) -> None:
        for hired in self._waiting.pop(worker, ()):
            hired.callback(ID)

    def _unfit(self, failure: Failure, worker: IConnectingWorker) -> None:
        if failure.check(WorkerLost):
            # The connection was lost during an update, and L{resigned} is told next; or
            # somebody let it go, who tells L{dismiss}.
            return
        if worker in self._waiting:
            self.dismiss(worker, failure)
        else:
            _log.failure("{worker} could not be updated", failure, worker=_nameOf(worker))


def _nameOf(worker: IConnectingWorker) -> str:
    return type(worker).__name__
