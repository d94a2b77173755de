"""
C{asynqueue status}: shows the status of a host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from asynqueue.errors import WireError
from asynqueue.outcome import Raised
from asynqueue.status import STATUS
from asynqueue.wire.protocol.codecs import codecNamed
from asynqueue.wire.protocol.messages import MessageKind, packedCall
from asynqueue.wire.protocol.session import Session
from asynqueue.wire.transport.connecting import reasonOf
from asynqueue.wire.transport.connection import Connection
from asynqueue.wire.transport.endpoints import clientEndpoint, keyFor, requireIdentity


class HostUnreachable(WireError, ConnectionError):
    """
    A host does not answer.
    """

    def __init__(self, description: str, reason: str) -> None:
        """
        @param description: where it should be, as an endpoint string.
        @param reason: what came instead of an answer.
        """
        super().__init__(description, reason)
        self.description = description
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot reach {self.description}: {self.reason}"


@frozen
class HostAddress:
    """
    Where a host is, and how to speak to it.

    @ivar description: a client endpoint string.
    @ivar keyFile: the file with the key, if not that of the environment.
    @ivar codec: what both sides write with.
    @ivar patience: the seconds that it has for each answer.
    """

    description: str
    keyFile: str | None = None
    codec: str = "pickle"
    patience: float = 10.0


class _Inquiry:
    """
    The owner of a connection over which nothing is asked but how the host stands.
    """

    def __init__(self, codec: str) -> None:
        self.open: Deferred[None] = Deferred()
        self.connection: Connection | None = None
        self._codec = codecNamed(codec)
        self._answers: dict[int, Deferred[Any]] = {}
        self._last = 0

    def ask(self) -> Deferred[Any]:
        """
        Ask for the status.
        """
        assert self.connection is not None
        self._last += 1
        d = self._answers[self._last] = Deferred()
        self.connection.send(MessageKind.CALL, self._last, packedCall(0, STATUS, None))
        return d

    def opened(self, connection: Connection) -> None:
        """
        Both sides have proved themselves.
        """
        self.open.callback(None)

    def received(self, connection: Connection, frames: list[Any]) -> None:
        """
        Take the answer.
        """
        for kind, number, body, buffers in frames:
            answer = self._answers.pop(number, None)
            if answer is None:
                continue
            if kind == MessageKind.RETURNED:
                answer.callback(self._codec.decode(body, buffers))
            elif kind == MessageKind.RAISED:
                raised: Raised = self._codec.decodeRaised(body)
                answer.errback(raised.localError())

    def leaving(self, connection: Connection, reason: str) -> None:
        """
        Wait on: a host that leaves answers all the same.
        """

    def lost(self, connection: Connection, error: Exception) -> None:
        """
        Fail: there is no answer any more.
        """
        waiting = [self.open, *self._answers.values()]
        self._answers.clear()
        for d in waiting:
            if not d.called:
                d.errback(error)


async def ask(reactor: Any, address: HostAddress, interval: float | None = None) -> dict[str, Any]:
    """
    Ask a host for its status.

    @param interval: the seconds between two questions, of which the rate of now is made;
        C{None}: there is only one.
    @return: what L{statusOf<asynqueue.status.statusOf>} says, and C{rate}, the calls
        per second since the process began, C{rateNow} with an interval, and C{host}, what
        was dialed.
    @raise HostUnreachable: it does not answer.
    @raise WireError: it, or we, do not want to speak to each other.
    @raise ValueError: the description is none.
    @raise OSError: a file cannot be read.
    """
    inquiry = await _connect(reactor, address)
    try:
        first = await _answer(reactor, address, inquiry)
        status = first
        if interval is not None:
            asked = reactor.seconds()
            await deferLater(reactor, interval)
            status = await _answer(reactor, address, inquiry)
            seconds = max(reactor.seconds() - asked, 1e-3)
            status["rateNow"] = (status["done"] - first["done"]) / seconds
    finally:
        assert inquiry.connection is not None
        inquiry.connection.close()
    status["rate"] = status["done"] / max(status["uptime"], 1e-3)
    status["host"] = address.description
    return status


async def _connect(reactor: Any, address: HostAddress) -> _Inquiry:
    key = keyFor(address.description, None, address.keyFile)
    requireIdentity(address.description, key, dials=True)
    endpoint = clientEndpoint(reactor, address.description)
    inquiry = _Inquiry(address.codec)

    def make() -> Connection:
        session = Session("queue", True, key=key, codec=address.codec)
        inquiry.connection = Connection(session, inquiry, heartbeat=None, reactor=reactor)
        return inquiry.connection

    connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(make))
    try:
        await connecting.addTimeout(address.patience, reactor)
        await inquiry.open.addTimeout(address.patience, reactor)
    except WireError:
        raise
    except TimeoutError:
        if inquiry.connection is not None:
            inquiry.connection.abort()
        raise _silent(address) from None
    except Exception as error:
        # Endpoints are plugins: each has errors of its own.
        raise HostUnreachable(address.description, reasonOf(error)) from error
    return inquiry


async def _answer(reactor: Any, address: HostAddress, inquiry: _Inquiry) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await inquiry.ask().addTimeout(address.patience, reactor)
    except TimeoutError:
        raise _silent(address) from None
    return answer


def _silent(address: HostAddress) -> HostUnreachable:
    return HostUnreachable(address.description, f"no answer within {address.patience:g} s")


# For people


def shown(status: Mapping[str, Any]) -> str:
    """
    Return the status of a host, for people.
    """
    load = ", ".join(f"{load:.2f}" for load in status["loadAverage"])
    rates = f"{status['rate']:,.1f}/s since the start"
    if "rateNow" in status:
        rates = f"{status['rateNow']:,.1f}/s now, {rates}"
    facts = [
        ("host", f"{status['host']} ({status['machine']}, process {status['pid']})"),
        ("software", f"AsynQueue {status['version']}, Python {status['python']}"),
        ("up", _duration(status["uptime"])),
        ("memory", f"{status['memory'] / 1e6:,.0f} MB"),
        ("load", load),
        ("calls", f"{status['running']:,} running, {status['queued']:,} queued"),
        ("ended", f"{status['done']:,}, {status['failed']:,} of them failed"),
        ("rate", rates),
        ("slots", f"{status['slots']:,}"),
        ("trust", status["trust"]),
        ("series", ", ".join(status["series"])),
        ("methods", ", ".join(status["names"])),
    ]
    lines = [f"{name:9} {text}" for name, text in facts if text]
    return "\n".join([*lines, "", *_table(status["workers"])]) + "\n"


def _table(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [("worker", "kind", "state", "running", "done", "processes")]
    rows += [
        (
            str(worker["ID"]),
            worker["kind"],
            worker["state"],
            f"{worker['running']:,}",
            f"{worker['done']:,}",
            ", ".join(map(str, worker["pids"])),
        )
        for worker in workers
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _duration(seconds: float) -> str:
    """
    Return a time in the two largest of its units.
    """
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
