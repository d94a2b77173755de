"""
What L{asynqueue.pollers} promises of ends and exceptions, as checks.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from asynqueue.pollers.base import DISCONNECTED
from asynqueue.testing.transports import RecordingTransport
from asynqueue.testing.trials import Checks, PollerTrial, expect, raiser, require, socketAt

ENDS = Checks()


# Ends


@ENDS.check
async def remoteCloseIsNoticed(trial: PollerTrial) -> None:
    """
    When the peer closes, what it sent is read, and then handle_close is called,
    once.
    """
    for one, other in (await trial.connected(), await trial.connected()):
        other.write(b"the last")
        other.close()
        await trial.until(lambda: "close" in one.events)  # noqa: B023 - awaited here
        await trial.settle()
        expect(bytes(one.received), b"the last", "what came")
        expect(one.events.count("close"), 1, "how often it was told")
        require(one not in trial.poller.connections.values(), "it is still watched")


@ENDS.check
async def resetIsNoticed(trial: PollerTrial) -> None:
    """
    When the peer resets the connection, handle_close is called, once.
    """
    one, other = await trial.connected()
    assert other.socket is not None
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    trial.poller.defer_write(one)
    other.close()
    await trial.until(lambda: "close" in one.events)
    await trial.settle()
    expect((one.events.count("close"), one.errors), (1, []), "closes, and errors")


@ENDS.check
async def brokenPipeIsAClose(trial: PollerTrial) -> None:
    """
    Who writes to a peer that has gone is closed, which is no error.
    """
    transport, theirs = trial.pair()
    transport.reactions["write"] = lambda: transport.send(b"too late")
    theirs.close()
    trial.poller.defer_write(transport)
    await trial.until(lambda: "close" in transport.events)
    await trial.settle()
    expect((transport.events.count("close"), transport.errors), (1, []), "closes, and errors")


@ENDS.check
async def closedIsSilent(trial: PollerTrial) -> None:
    """
    A closed transport gets no callback, whatever has come or was deferred; to close
    it again does nothing.
    """
    transport, theirs = trial.pair()
    theirs.send(b"x")
    trial.poller.defer_write(transport)
    for _ in range(2):
        transport.close()
    expect(trial.poller.deferred_writers, set(), "deferred_writers")
    await trial.settle()
    expect((transport.events, transport.socket), ([], None), "what happened")
    expect(transport.recv(1), b"", "what can be read")


@ENDS.check
async def deletedIsSilent(trial: PollerTrial) -> None:
    """
    A deleted transport gets no callback until it is added again.
    """
    transport, theirs = trial.pair()
    theirs.send(b"x")
    trial.poller.del_channel(transport)
    await trial.settle()
    expect(transport.events, [], "what happened")
    trial.poller.add_channel(transport)
    await trial.until(lambda: transport.received)


@ENDS.check
async def closedByAnotherIsSkipped(trial: PollerTrial) -> None:
    """
    Of two that are ready in one round, the one that the other closes is skipped.
    """
    for event in ("read", "write"):
        both = [trial.pair(), trial.pair()]
        for (one, theirs), (other, _) in (both, both[::-1]):
            one.reactions[event] = other.close
            if event == "read":
                theirs.send(b"x")
            else:
                trial.poller.defer_write(one)
        await trial.settle()
        called = [one.events.count(event) for one, _ in both]
        expect(sorted(called), [0, 1], f"how often {event} was told to each")
        expect([one.errors for one, _ in both], [[], []], "the errors")


@ENDS.check
async def newcomerIsNotMistaken(trial: PollerTrial) -> None:
    """
    A new transport that gets the descriptor of one that was closed in the same
    round is not called for what happened to that.
    """
    newcomer, (spare, theirs) = trial.transport(), trial.ends()
    both = [trial.pair(), trial.pair()]

    def replacing(other: RecordingTransport) -> Callable[[], None]:
        def replace() -> None:
            fd = other.fileno()
            other.close()
            newcomer.set_socket(socketAt(fd, spare))
            spare.close()

        return replace

    for (one, far), (other, _) in (both, both[::-1]):
        one.reactions["read"] = replacing(other)
        far.send(b"x")
    await trial.until(lambda: newcomer.socket)
    await trial.settle()
    expect(newcomer.events, [], "what happened to the newcomer")
    theirs.send(b"x")
    await trial.until(lambda: newcomer.received)
    theirs.close()


@ENDS.check
async def closedBehindItsBack(trial: PollerTrial) -> None:
    """
    A descriptor that was closed without the poller's knowledge disturbs no other,
    also one that gets its number.
    """
    # From here on, nobody else takes a number that is set free.
    await trial.settle()
    for write in (False, True):
        newcomer, (spare, far) = trial.transport(), trial.ends()
        transport, theirs = trial.pair()
        assert transport.socket is not None
        fd = transport.fileno()
        transport.socket.close()
        if write:
            trial.poller.defer_write(transport)
        await trial.settle()
        newcomer.set_socket(socketAt(fd, spare))
        spare.close()
        transport.close()
        theirs.close()
        far.send(b"x")
        await trial.until(lambda: newcomer.received)  # noqa: B023 - awaited here
        newcomer.close()
        far.close()


@ENDS.check
async def closedDuplicateIsDropped(trial: PollerTrial) -> None:
    """
    A descriptor that was closed without the poller's knowledge, while there is a
    duplicate of it, is closed when something happens, and not told again.
    """
    transport, theirs = trial.pair()
    assert transport.socket is not None
    with transport.socket.dup():
        transport.socket.close()
        theirs.send(b"x")
        await trial.settle()
        require(transport.events.count("read") <= 1, "it was told again and again")
        require(transport not in trial.poller.connections.values(), "it is still watched")


# Exceptions


@ENDS.check
async def lossesClose(trial: PollerTrial) -> None:
    """
    An OSError that says that the peer has gone leads to handle_close, when reading
    and when writing.
    """
    for code in sorted(DISCONNECTED):
        for event in ("read", "write"):
            transport, theirs = trial.pair()
            transport.reactions[event] = raiser(OSError(code, "gone"))
            if event == "read":
                theirs.send(b"x")
            else:
                trial.poller.defer_write(transport)
            await trial.until(lambda: transport.socket is None)  # noqa: B023 - awaited here
            expect(transport.events, [event, "close"], f"what happened by {errno.errorcode[code]}")


@ENDS.check
async def exceptionsAreErrors(trial: PollerTrial) -> None:
    """
    Any other exception leads to handle_error, where it is the current one, and
    harms no other transport.
    """
    for error in (ValueError("checked"), OSError(errno.EIO, "checked")):
        for event in ("read", "write", "close"):
            transport, theirs = trial.pair()
            transport.reactions[event] = raiser(error)
            if event == "close":
                transport.reactions["read"] = raiser(ConnectionResetError(errno.ECONNRESET, ""))
            theirs.send(b"x")
            if event == "write":
                trial.poller.defer_write(transport)
            await trial.until(lambda: transport.errors)  # noqa: B023 - awaited here
            require(transport.errors[0] is error, f"{transport.errors} were told")
            await trial.settle()


@ENDS.check
async def exitsPass(trial: PollerTrial) -> None:
    """
    KeyboardInterrupt and SystemExit of a callback come out of process_readables and
    process_writables.
    """
    for error in (KeyboardInterrupt(), SystemExit()):
        transport, _ = trial.pair()
        transport.reactions = {"read": raiser(error), "write": raiser(error)}
        for process in (trial.poller.process_readables, trial.poller.process_writables):
            try:
                process([transport.fileno()])
            except (KeyboardInterrupt, SystemExit) as passed:
                require(passed is error, f"{passed!r} came out")
            else:
                raise AssertionError(f"{error!r} did not pass")
        expect(transport.events, ["read", "write"], "what happened")


@ENDS.check
async def closedIsDroppedAnyway(trial: PollerTrial) -> None:
    """
    After handle_close a transport is not watched, even if it does not close.
    """
    transport, theirs = trial.pair()
    transport.reactions["read"] = raiser(ConnectionResetError(errno.ECONNRESET, "gone"))
    transport.reactions["close"] = raiser(StopIteration())
    transport.reactions["error"] = raiser(KeyError("not closed"))
    trial.poller.del_channel(transport)
    theirs.send(b"x")
    trial.poller.add_channel(transport)
    try:
        trial.poller.process_readables([transport.fileno()])
    except KeyError:
        pass
    require(transport.socket is not None, "it was closed: the check is wrong")
    expect(trial.poller.connections, {}, "connections")
