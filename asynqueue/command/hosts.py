"""
Calls on other hosts: who makes them, and how they get there.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, update_wrapper
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.python.failure import Failure

from asynqueue.command.crew import CrewDelegate, failedWith
from asynqueue.command.job import JobFailure, failed, findFunction, parsed, toJSON
from asynqueue.command.status import HostAddress, ask
from asynqueue.errors import AsynQueueError, MaybeEncodingError
from asynqueue.failures import isOf
from asynqueue.scheduling.observers import QueueObserver
from asynqueue.timers import Timer, later
from asynqueue.wire.client.worker import WireWorker

# How many calls are under way for each host: enough for one that is fast, and far away.
_EACH = 2_000

# The seconds after which, without any host, there is nothing to wait for.
_ALONE = 30.0

# Where calls are made that may block.
_PROCESSES = "ProcessWorker"


class Shipped:
    """
    A function that travels with its code, because its module is not installed: it is one
    of the working directory. Hosts that take no code find its name here.
    """

    def __init__(self, function: Callable[[Any], Any], modules: Sequence[ModuleType]) -> None:
        """
        @param modules: what travels with it, as far as it is used.
        """
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            self._pickled: bytes = cloudpickle.dumps(function)
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)
        self._function = function
        update_wrapper(self, function)

    def __call__(self, argument: Any) -> Any:
        return self._function(argument)

    def __reduce__(self) -> Any:
        return pickle.loads, (self._pickled,)


def toCall(where: str, folder: Path) -> Any:
    """
    Return what hosts are to call.

    @param where: C{MODULE:FUNCTION}, or the name of a method of their universe.
    @param folder: the modules in it are nowhere else.
    @raise NoSuchFunction: there is none.
    @raise Exception: what its module raises, and what the pickling of its code raises.
    """
    if ":" not in where:
        return where
    function = findFunction(where)
    local = _modulesIn(folder)
    if getattr(function, "__module__", None) not in {module.__name__ for module in local}:
        return function
    return Shipped(function, local)


def _modulesIn(folder: Path) -> list[ModuleType]:
    found = []
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and module.__name__ != "__main__":
            path = Path(file)
            if path.is_relative_to(folder) and "site-packages" not in path.parts:
                found.append(module)
    return found


class HostCrew(QueueObserver):
    """
    A worker for each host. One that is lost is dialed again, and costs what it had begun.
    """

    def __init__(
        self,
        delegate: CrewDelegate,
        addresses: Sequence[HostAddress],
        most: int | None,
        *,
        inquire: Callable[[Any, HostAddress], Awaitable[dict[str, Any]]] = ask,
    ) -> None:
        """
        @param addresses: where they are.
        @param most: how many calls run at once on each; C{None}: as many as it likes.
        @param inquire: asks a host how it is.
        """
        self._inquire = inquire
        self._delegate = delegate
        self._queue = delegate.queue
        self._reactor = delegate.reactor
        self._addresses = addresses
        self._most = most
        self._began = False
        self._open = True
        self._asking: list[Deferred[None]] = []
        self._workers: list[WireWorker] = []
        self._present: set[WireWorker] = set()
        self._missing: list[str] = []
        self._alone = Timer(partial(later, self._reactor))
        self._queue.addObserver(self)

    def need(self, calls: int) -> None:
        """
        Dial all hosts as soon as there is one call.
        """
        if calls and not self._began:
            self._began = True
            self._asking = [
                Deferred.fromCoroutine(self._hire(address)) for address in self._addresses
            ]

    def dismiss(self) -> Deferred[Any]:
        self._close()
        return gatherResults([self._queue.detachWorker(worker) for worker in self._workers])

    def end(self) -> None:
        """
        Hosts end the calls of a connection that is lost.
        """
        self._close()
        for worker in self._workers:
            self._queue.detachWorker(worker, crash=True)

    def _close(self) -> None:
        self._open = False
        self._alone.stop()
        for d in self._asking:
            d.cancel()

    async def _hire(self, address: HostAddress) -> None:
        """
        See whether a host is there, and what it is like; then have it serve.
        """
        try:
            status = await self._inquire(self._reactor, address)
            # What may block must not run in the reactor of a host.
            inThread = all(worker["kind"] != _PROCESSES for worker in status["workers"])
            worker = WireWorker(
                None,
                address.description,
                thread=inThread,
                N_concurrent=self._most,
                keyFile=address.keyFile,
                codec=address.codec,
                reactor=self._reactor,
            )
            self._workers.append(worker)
            self._checkAlone()
            await self._queue.attachWorker(worker)
        except CancelledError:
            return
        except (AsynQueueError, OSError, ValueError) as error:
            if self._open:
                self._isMissing(str(error))

    def _isMissing(self, reason: str) -> None:
        self._missing.append(reason)
        if len(self._missing) < len(self._addresses):
            self._delegate.say(f"{reason}; going on without it")
        else:
            self._delegate.gaveUp(reason)

    # IQueueObserver

    def workerHired(self, worker: Any) -> None:
        self._present.add(worker)
        self._alone.stop()

    def workerLeft(self, worker: Any) -> None:
        self._present.discard(worker)
        if self._open:
            self._delegate.say(
                f"{worker.host}: {worker.loss or 'it left'}; trying to reach it again"
            )
            self._checkAlone()

    def _checkAlone(self) -> None:
        if not self._present and not self._alone.isRunning:
            self._alone.start(_ALONE, self._isAlone)

    def _isAlone(self) -> None:
        self._delegate.gaveUp(f"no host could be reached for {_ALONE:g} s")


class Hosts:
    """
    Has calls made on other hosts: a L{Placement<asynqueue.command.crew.Placement>}. JSON is read
    and written here: a host need not know this command.
    """

    def __init__(
        self, addresses: Sequence[HostAddress], function: Any, parse: bool, most: int | None
    ) -> None:
        """
        @param addresses: where they are.
        @param function: what L{toCall} gave.
        @param parse: whether inputs are JSON.
        @param most: how many calls run at once on each; C{None}: as many as it likes.
        """
        self.function = function
        self.room = self.leastRoom = _EACH * len(addresses)
        self._addresses = addresses
        self._parse = parse
        self._most = most

    def argument(self, text: str) -> Any:
        return parsed(text) if self._parse else text

    def line(self, result: Any) -> bytes | JobFailure:
        if isOf(result, Failure):
            return failedWith(result)
        try:
            return toJSON(result)
        except MaybeEncodingError as error:
            return failed(error)

    def crew(self, delegate: CrewDelegate) -> HostCrew:
        return HostCrew(delegate, self._addresses, self._most)
