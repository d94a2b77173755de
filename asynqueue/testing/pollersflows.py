"""
What L{asynqueue.pollers} promises of connections that go on, as checks.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from asynqueue.testing.trials import Checks, PollerTrial, expect, require

# More than any socket takes at once.
_LARGE = bytes(range(250)) * 20_000

FLOWS = Checks()


# The poller itself


@FLOWS.check
async def keepsItsTransports(trial: PollerTrial) -> None:
    """
    What is added is in connections, by its descriptor, and has the poller; what is
    deleted is not, however often.
    """
    poller, (transport, _) = trial.poller, trial.pair()
    fd = transport.fileno()
    expect(poller.connections, {fd: transport}, "connections")
    require(transport.poller is poller, "the transport has another poller")
    poller.add_channel(transport)
    expect(poller.connections, {fd: transport}, "connections after it was added anew")
    poller.defer_write(transport)
    expect(poller.deferred_writers, {transport}, "deferred_writers")
    poller.add_channel(transport)
    expect(poller.deferred_writers, {transport}, "deferred_writers after it was added anew")
    for _ in range(2):
        poller.del_channel(transport)
        expect(poller.connections, {}, "connections without it")
        expect(poller.deferred_writers, set(), "deferred_writers without it")


@FLOWS.check
async def hasNothingToWaitFor(trial: PollerTrial) -> None:
    """
    Without transports, poll and loop return at once.
    """
    trial.poller.poll(trial.left())
    trial.left()
    trial.poller.loop(trial.left())
    trial.left()


@FLOWS.check
async def loopCountsRounds(trial: PollerTrial) -> None:
    """
    Check that a loop returns after some rounds, or some seconds, or with the last
    transport.
    """
    transport, theirs = trial.pair()
    theirs.send(b"x")
    trial.poller.loop(trial.left(), 1)
    expect(transport.events, ["read"], "what happened in one round")
    trial.poller.loop(timeout=0)
    trial.poller.loop(0, 2)
    theirs.close()
    trial.poller.loop(trial.left())
    expect(transport.events, ["read", "read", "close"], "what happened until the end")


@FLOWS.check
async def refusesTheClosed(trial: PollerTrial) -> None:
    """
    What has no descriptor cannot be added; to delete it, or to defer its writing,
    does nothing.
    """
    transport = trial.transport()
    trial.poller.del_channel(transport)
    trial.poller.defer_write(transport)
    try:
        trial.poller.add_channel(transport)
    except ValueError:
        pass
    else:
        raise AssertionError("a transport without a descriptor was added")
    expect(trial.poller.connections, {}, "connections")


# Reading and writing


@FLOWS.check
async def readsWhatComes(trial: PollerTrial) -> None:
    """
    handle_read is called when something has come, again if some of it is left, and
    only then.
    """
    transport, theirs = trial.pair()
    await trial.settle()
    expect(transport.events, [], "what happened before anything came")
    transport.piece = 2
    theirs.send(b"three")
    await trial.until(lambda: len(transport.received) == 5)
    await trial.settle()
    expect(transport.events, ["read"] * 3, "what happened")


@FLOWS.check
async def writesOnlyIfAsked(trial: PollerTrial) -> None:
    """
    handle_write is called once after defer_write, and never without.
    """
    transport, _ = trial.pair()
    await trial.settle()
    for _ in range(2):
        trial.poller.defer_write(transport)
    await trial.until(lambda: transport.events)
    await trial.settle()
    expect(transport.events, ["write"], "what happened")
    expect(trial.poller.deferred_writers, set(), "deferred_writers")


@FLOWS.check
async def mayDeferAgain(trial: PollerTrial) -> None:
    """
    defer_write in handle_write means another handle_write.
    """
    transport, _ = trial.pair()

    def again() -> None:
        if len(transport.events) == 1:
            trial.poller.defer_write(transport)

    transport.reactions["write"] = again
    trial.poller.defer_write(transport)
    await trial.until(lambda: len(transport.events) == 2)
    await trial.settle()
    expect(transport.events, ["write"] * 2, "what happened")


@FLOWS.check
async def sendsMuchBothWays(trial: PollerTrial) -> None:
    """
    What does not fit is sent when there is room, also while as much comes.
    """
    one, other = await trial.connected()
    one.write(_LARGE)
    other.write(_LARGE[::-1])
    await trial.until(lambda: len(one.received) == len(other.received) == len(_LARGE))
    require(other.received == _LARGE, "what came is not what was sent")
    require(one.received == _LARGE[::-1], "what came back is not what was sent")
    require("write" in one.events, "all was sent at once: the check is too small")


@FLOWS.check
async def readingStarvesNoWriting(trial: PollerTrial) -> None:
    """
    Who is readable all the time can still write.
    """
    transport, theirs = trial.pair()
    transport.reactions["read"] = lambda: theirs.send(b"more")
    theirs.send(b"begin")
    await trial.until(lambda: len(transport.events) > 3)
    before = len(transport.events)
    trial.poller.defer_write(transport)
    await trial.until(lambda: "write" in transport.events)
    require(transport.events.index("write") <= before + 2, "reading went first for long")


@FLOWS.check
async def carriesDatagrams(trial: PollerTrial) -> None:
    """
    A datagram socket can be read from and written to without a connection; an empty
    datagram is no end.
    """
    transport = trial.transport()
    transport.create_socket(socket.AF_INET, socket.SOCK_DGRAM)
    assert transport.socket is not None
    transport.socket.bind(("127.0.0.1", 0))
    await trial.settle()
    expect((transport.connected, transport.events), (True, []), "its state")
    other = trial.transport()
    other.create_socket(type=socket.SOCK_DGRAM)
    other.connect(transport.socket.getsockname())
    expect((other.connected, other.events), (True, ["connect"]), "the state of the other")
    for datagram in (b"", b"datagram"):
        other.send(datagram)
    await trial.until(lambda: transport.received)
    expect(bytes(transport.received), b"datagram", "what came")
    expect(transport.events, ["read", "read"], "what happened")


# Connecting


@FLOWS.check
async def connectsByAllFamilies(trial: PollerTrial) -> None:
    """
    A connection by IPv4, IPv6 and local sockets is told once; then data flows.
    """
    addresses: list[tuple[int, Any]] = [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, str(Path(trial.folder.name) / "socket")),
    ]
    if _hasIPv6():
        addresses.append((socket.AF_INET6, ("::1", 0)))
    for family, address in addresses:
        one, other = await trial.connected(family, address)
        one.write(b"there")
        other.write(b"back")
        await trial.until(lambda: one.received and other.received)  # noqa: B023 - awaited here
        await trial.settle()
        expect(one.events, ["connect", "read"], f"what happened at {address}")
        expect((bytes(other.received), bytes(one.received)), (b"there", b"back"), "what came")


def _hasIPv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@FLOWS.check
async def sendsOnceConnected(trial: PollerTrial) -> None:
    """
    What is sent before there is a connection waits for that.
    """
    listener = trial.listener(socket.AF_INET, ("127.0.0.1", 0))
    assert listener.socket is not None
    transport = trial.transport()
    transport.create_socket()
    expect(transport.send(b"early"), 0, "how much was sent without a connection")
    transport.connect(listener.socket.getsockname())
    transport.write(b"early")
    await trial.until(lambda: "write" in transport.events)
    expect(transport.events, ["connect", "write"], "what happened")
    await trial.until(lambda: listener.accepted and listener.accepted[0].received)
    listener.accepted[0].close()


@FLOWS.check
async def refusalsAreErrors(trial: PollerTrial) -> None:
    """
    An attempt to connect that fails, at once or later, is an error, and no
    connection.
    """
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    attempts: list[tuple[int, Any]] = [
        (socket.AF_INET, taken.getsockname()),
        (socket.AF_UNIX, str(Path(trial.folder.name) / "nobody")),
    ]
    for family, address in attempts:
        transport = trial.transport()
        transport.create_socket(family)
        transport.connect(address)
        await trial.until(lambda: transport.events)  # noqa: B023 - awaited here
        await trial.settle()
        expect(transport.events, ["error"], f"what happened at {address}")
        require(isinstance(transport.errors[0], OSError), f"{transport.errors} is no OSError")
    taken.close()


@FLOWS.check
async def unusedSocketIsClosed(trial: PollerTrial) -> None:
    """
    A socket that neither connects nor listens is never told to be connected.
    """
    transport = trial.transport()
    transport.create_socket()
    await trial.settle()
    require("connect" not in transport.events, "a connection was told")


@FLOWS.check
async def connectedElsewhere(trial: PollerTrial) -> None:
    """
    A transport that became connected without the poller is not called for that.
    """
    transport, theirs = trial.pair()
    transport.connected = False
    trial.poller.add_channel(transport)
    transport.connected = True
    await trial.settle()
    expect(transport.events, [], "what happened")
    theirs.send(b"x")
    await trial.until(lambda: transport.received)
