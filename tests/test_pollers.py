"""
L{asynqueue.pollers}: all pollers, by one suite, and what they have in common.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

import asynqueue.pollers as pollers
from asynqueue.pollers import (
    BasePoller,
    EpollPoller,
    KQueuePoller,
    PollPoller,
    ReactorPoller,
    SelectPoller,
    Transport,
    pollerKinds,
    thePoller,
)
from asynqueue.testing.pollers import PollerCheck, checkPoller, pollerChecks
from tests.polling import (
    EPOLL,
    KINDS,
    KQUEUE,
    LIMIT,
    POLL,
    memoryKQueuePoller,
    nameOf,
    twoEnds,
    watched,
)

ends = pytest.fixture(twoEnds)


@pytest.mark.parametrize("check", pollerChecks(SelectPoller), ids=str)
def test_selectConforms(check: PollerCheck) -> Deferred[None]:
    """
    SelectPoller keeps what is promised.
    """
    return check()


@POLL
@pytest.mark.parametrize("check", pollerChecks(PollPoller), ids=str)
def test_pollConforms(check: PollerCheck) -> Deferred[None]:
    """
    PollPoller keeps what is promised.
    """
    return check()


@EPOLL
@pytest.mark.parametrize("check", pollerChecks(EpollPoller), ids=str)
def test_epollConforms(check: PollerCheck) -> Deferred[None]:
    """
    EpollPoller keeps what is promised.
    """
    return check()


@KQUEUE
@pytest.mark.parametrize("check", pollerChecks(KQueuePoller), ids=str)
def test_kqueueConforms(check: PollerCheck) -> Deferred[None]:
    """
    KQueuePoller keeps what is promised.
    """
    return check()


@POLL
@pytest.mark.parametrize("check", pollerChecks(memoryKQueuePoller), ids=str)
def test_memoryKQueueConforms(check: PollerCheck) -> Deferred[None]:
    """
    KQueuePoller keeps what is promised with a double of the kernel.
    """
    return check()


@POLL
@pytest.mark.parametrize("check", pollerChecks(ReactorPoller, reactor=True), ids=str)
def test_reactorConforms(check: PollerCheck) -> Deferred[None]:
    """
    ReactorPoller keeps what is promised while the reactor runs it.
    """
    return check()


@POLL
@pytest.mark.parametrize("check", pollerChecks(ReactorPoller), ids=str)
def test_reactorConformsByHand(check: PollerCheck) -> Deferred[None]:
    """
    ReactorPoller keeps what is promised while its poll is called.
    """
    return check()


@ensureDeferred
async def test_suiteRunsAll() -> None:
    """
    C{checkPoller} makes all checks, and tells how many there were.
    """
    assert await checkPoller(SelectPoller) == len(pollerChecks(SelectPoller))


class Deaf(SelectPoller):
    """
    Breaks its promise: it never waits, and tells nothing.
    """

    def poll(self, timeout: float | None = None) -> None:
        """
        Do nothing.
        """


@ensureDeferred
@pytest.mark.parametrize("reactor", [False, True])
async def test_suiteFindsFaults(reactor: bool) -> None:
    """
    The suite fails at the first promise that is not kept, and names it.
    """
    with pytest.raises(AssertionError) as caught:
        await checkPoller(Deaf, reactor=reactor, limit=0.05)
    assert any("loopCountsRounds" in note for note in caught.value.__notes__)


@ensureDeferred
async def test_suiteHasALimit() -> None:
    """
    A check that the reactor never ends fails in time.
    """
    checks = {check.name: check for check in pollerChecks(Deaf, reactor=True, limit=0.05)}
    with pytest.raises(AssertionError, match="within the limit"):
        await checks["readsWhatComes"]()


# What they have in common


class Scripted(BasePoller):
    """
    A poller whose rounds are only noted, by how long they may take.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def poll(self, timeout: float | None = None) -> None:
        """
        Note it.
        """
        self.waits.append(self.secondsLeft(timeout))


def test_baseCannotWait() -> None:
    """
    BasePoller itself has no poll.
    """
    with pytest.raises(NotImplementedError):
        BasePoller().poll()


def test_loopMakesSoManyRounds(ends: Any) -> None:
    """
    Rounds wait without end if there is no timeout, and for what is left of it if
    there is one.
    """
    poller = Scripted()
    watched(poller, ends[0])
    poller.loop(count=3)
    poller.loop(timeout=1000, count=2)
    poller.loop(timeout=0)
    poller.loop(count=0)
    assert poller.waits[:3] == [None] * 3
    first, second, last = poller.waits[3:]
    assert first is not None
    assert second is not None
    assert second <= first <= 1000
    assert last == 0


class Minimal(BasePoller):
    """
    All that a poller needs: rounds that tell what happened, however they find out.
    """

    def poll(self) -> None:  # type: ignore[override]
        """
        Look whether anything can be read.
        """
        self.process_readables(select.select(list(self.connections), [], [], 0)[0])


@pytest.mark.parametrize("timeout", [None, 0, 1000])
def test_pollNeedsNoArgument(ends: Any, timeout: float | None) -> None:
    """
    A subclass with C{poll(self)} is enough, also for a loop with a timeout.
    """
    poller = Minimal()
    transport = watched(poller, ends[0])
    ends[1].send(b"one")
    poller.loop(timeout, count=1)
    assert transport.events == ["read"]


def test_aLoopWithinALoop(ends: Any) -> None:
    """
    It has a time of its own, and the outer one has its own again after that.
    """
    poller = Scripted()
    watched(poller, ends[0])

    class Within(Scripted):
        def poll(self, timeout: float | None = None) -> None:
            self.waits.append(self.secondsLeft())
            if len(self.waits) == 1:
                self.loop(timeout=0)

    within = Within()
    watched(within, ends[0])
    within.loop(count=2)
    assert within.waits == [None, 0, None]
    within.waits.clear()
    within.loop(timeout=1000, count=2)
    outer, inner, again = within.waits
    assert inner == 0
    assert outer is not None
    assert again is not None
    assert 0 < again <= outer <= 1000


class Bare:
    """
    A transport without C{fileno()}.
    """

    connected = True

    def __init__(self, **attributes: Any) -> None:
        self.poller: Any = None
        self.events: list[str] = []
        vars(self).update(attributes)

    def handle_read(self) -> None:
        """
        Note it.
        """
        self.events.append("read")


@pytest.mark.parametrize("kind", KINDS, ids=nameOf)
def test_aSocketOrADescriptorIsEnough(kind: Any, ends: Any) -> None:
    """
    Who has one of them needs no C{fileno()}.
    """
    for bare in (Bare(socket=ends[0]), Bare(descriptor=ends[0].fileno())):
        poller = kind()
        poller.add_channel(bare)
        ends[1].send(b"one")
        poller.loop(count=1)
        poller.close()
        assert bare.events == ["read"]


@pytest.mark.parametrize(
    "attributes", [{}, {"socket": None}, {"descriptor": "3"}, {"descriptor": True}]
)
def test_whatHasNoDescriptorIsRefused(attributes: dict[str, Any]) -> None:
    """
    With an error that says what is wanted.
    """
    with pytest.raises(ValueError, match=r"give it a fileno\(\), a socket or a descriptor"):
        BasePoller().add_channel(Bare(**attributes))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS, ids=nameOf)
def test_idleLoopSleeps(kind: Any, ends: Any) -> None:
    """
    While nothing happens, a loop is in one round of the kernel, or in two if that
    ends a moment early.
    """
    rounds: list[float | None] = []
    poller = kind()
    inner = poller.poll

    def poll() -> None:
        rounds.append(poller.secondsLeft())
        inner()

    poller.poll = poll
    transport = watched(poller, ends[0])
    poller.loop(timeout=0.02)
    assert 1 <= len(rounds) <= 2
    assert transport.events == []
    poller.close()


@pytest.mark.parametrize("kind", [*KINDS, ReactorPoller], ids=nameOf)
def test_closeForgetsAll(kind: Any, ends: Any) -> None:
    """
    A closed poller has no transports, and has closed none.
    """
    poller = kind()
    transport = watched(poller, ends[0])
    poller.close()
    assert poller.connections == {}
    assert transport.fileno() == ends[0].fileno() >= 0


@pytest.mark.parametrize("kind", KINDS, ids=nameOf)
def test_exitsComeOutOfPoll(kind: Any, ends: Any) -> None:
    """
    KeyboardInterrupt in a callback comes out of poll, and the poller goes on.
    """

    def interrupt() -> None:
        raise KeyboardInterrupt

    poller, (ours, theirs) = kind(), ends
    transport = watched(poller, ours)
    transport.reactions["read"] = interrupt
    theirs.send(b"x")
    with pytest.raises(KeyboardInterrupt):
        poller.poll(LIMIT)
    transport.reactions.clear()
    theirs.send(b"x")
    poller.poll(LIMIT)
    assert transport.received == b"xx"
    poller.close()


ACTS = st.tuples(st.sampled_from(["send", "defer", "round", "close"]), st.sampled_from([0, 1]))


class Conversation:
    """
    Two transports that are connected to each other, and what must come of it.
    """

    def __init__(self, poller: BasePoller) -> None:
        self.poller = poller
        self.sides = [watched(poller, end) for end in socket.socketpair()]
        self.sent = [b"", b""]
        self.wanted = [0, 0]

    def send(self, side: int) -> None:
        """
        A side sends, unless it is closed; it is closed if the other one is.
        """
        transport, data = self.sides[side], b"%d " % len(self.sent[side])
        if self.sides[1 - side].socket is not None:
            transport.write(data)
            self.sent[side] += data
        else:
            with pytest.raises(BrokenPipeError):
                transport.write(data)
            transport.close()

    def defer(self, side: int) -> None:
        """
        A side wants to write.
        """
        self.poller.defer_write(self.sides[side])

    def close(self, side: int) -> None:
        """
        A side closes.
        """
        self.sides[side].close()

    def round(self, side: int) -> None:
        """
        The poller tells what happened: no more than what was sent, and each write.
        """
        for one in (0, 1):
            self.wanted[one] += self.sides[one] in self.poller.deferred_writers
        self.poller.poll(0)
        for one, transport in enumerate(self.sides):
            assert self.sent[1 - one].startswith(transport.received)
            assert (transport.events.count("write"), transport.errors) == (self.wanted[one], [])

    def finish(self) -> None:
        """
        If nobody has closed, all has come at last. Then all is closed.
        """
        if None not in [transport.socket for transport in self.sides]:
            self.round(0)
            assert [transport.received for transport in self.sides] == self.sent[::-1]
        for side in (0, 1):
            self.close(side)
        self.poller.close()


@pytest.mark.parametrize("kind", KINDS, ids=nameOf)
def test_anyOrderOfActs(kind: Any) -> None:
    """
    Whatever is sent, deferred and closed in any order: what comes is what was sent,
    in order; each deferred write is told once; only the open are watched.
    """

    @given(st.lists(ACTS, max_size=25))
    @settings(max_examples=40, deadline=None)
    def holds(acts: list[tuple[str, int]]) -> None:
        conversation = Conversation(kind())
        try:
            for act, side in acts:
                if conversation.sides[side].socket is not None:
                    getattr(conversation, act)(side)
                for transport in conversation.sides:
                    watching = transport in conversation.poller.connections.values()
                    assert watching == (transport.socket is not None)
        finally:
            conversation.finish()

    holds()


# The module


def test_moduleHasAPoller() -> None:
    """
    The module's own poller is one, the best, and what transports use by default.
    """
    assert pollers.poller is thePoller() is Transport().poller
    assert type(pollers.poller) is pollerKinds()[0]
    pollers.loop(timeout=0, count=1)
    assert {"poller", "ReactorPoller", "Transport"} <= set(dir(pollers))
    assert all(getattr(pollers, name) for name in pollers.__all__)


def test_unknownNameIsAnAttributeError() -> None:
    """
    A name that is not there is refused as by any module.
    """
    name = "noSuchName"
    with pytest.raises(AttributeError, match=name):
        getattr(pollers, name)


def test_importIsLight() -> None:
    """
    Importing the module imports no Twisted, and opens no descriptor.
    """
    code = """
import os, sys
before = os.listdir("/dev/fd")
import asynqueue.pollers
print("twisted" in sys.modules, os.listdir("/dev/fd") == before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True
    )
    assert done.stdout == "False True\n"
