"""
Hosts behind a link of their own, which goes down and comes up: a pair of virtual devices
between this machine and a network namespace. It needs root, and Linux.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from asynqueue import TaskQueue, WireWorker, WorkerLost
from asynqueue.iteration.deferator import Deferator
from asynqueue.wire.client.hub import WireHub
from tests.doubles import Heard
from tests.integration.process_checks import until
from tests.integration.wire_faults import KEY, Faults, Hosts, hosts

__all__ = ["hosts"]

# Seconds of silence after which one asks: three times that, and a connection is lost.
BEAT = 0.2

MANY = 2000


class Link:
    """
    A network namespace, and the only way to it.

    @ivar near: the address of this end.
    @ivar far: that of the other.
    """

    def __init__(self) -> None:
        # For measuring (RFC 2544): nobody else has these addresses.
        net = os.getpid() % 60
        self.near, self.far = f"198.18.7.{4 * net + 1}", f"198.18.7.{4 * net + 2}"
        self._name = f"aq{os.getpid() % 10_000_000}"
        # The namespace lives as long as this process, which waits for an end of its input.
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.enter = ("nsenter", f"--net=/proc/{self._keeper.pid}/ns/net")
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        # It answers, so it is there.
        self._keeper.stdin.write(b"\n")
        self._keeper.stdin.flush()
        self._keeper.stdout.readline()

    def build(self) -> None:
        """
        Make both ends.

        @raise OSError: that is not allowed here.
        """
        near, far, pid = f"{self._name}a", f"{self._name}b", str(self._keeper.pid)
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", pid)
        _run("ip", "addr", "add", f"{self.near}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        _run(*self.enter, "ip", "addr", "add", f"{self.far}/30", "dev", far)
        _run(*self.enter, "ip", "link", "set", far, "up")

    def down(self) -> None:
        """
        From now on nothing passes, and nobody is told so.
        """
        _run(*self.enter, "ip", "link", "set", f"{self._name}b", "down")

    def up(self) -> None:
        """
        All passes again.
        """
        _run(*self.enter, "ip", "link", "set", f"{self._name}b", "up")

    def close(self) -> None:
        """
        The namespace goes with the last process in it, and the devices with it.
        """
        subprocess.run(["ip", "link", "del", f"{self._name}a"], check=False, capture_output=True)
        self._keeper.communicate()


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def link(hosts: Hosts) -> Iterator[Link]:
    """
    A link that is up.
    """
    missing = [name for name in ("unshare", "nsenter", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"there is no {' and no '.join(missing)} here")
    if os.geteuid():
        pytest.skip("network namespaces are made by root")
    try:
        made = Link()
    except (AssertionError, OSError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    try:
        try:
            made.build()
        except OSError as error:
            pytest.skip(f"no link can be made here: {error}")
        yield made
    finally:
        made.close()


class Far:
    """
    A host behind a link, and a queue that calls it.
    """

    def __init__(self, made: Hosts, link: Link, beat: float = BEAT) -> None:
        self.host = made.start(
            f"tcp:0:interface={link.far}", link.enter, keyFile=made.key(), heartbeat=beat
        )
        self.worker = WireWorker(Faults(), self.host.description, key=KEY, heartbeat=beat)
        self.queue = TaskQueue(self.worker)


@ensureDeferred
async def test_shortInterruption(hosts: Hosts, link: Link) -> None:
    """
    A link that is down for less than the heartbeats allow costs nothing but time.
    """
    far = Far(hosts, link, beat=30)
    held = Heard(far.queue.call("hold"))
    assert await far.queue.call("held") == 1
    link.down()
    heard = [Heard(far.queue.call("square", number)) for number in range(MANY)]
    await until(lambda: far.worker.statistics().held > 1)
    link.up()
    await until(lambda: all(each.results for each in heard))
    assert [each.result for each in heard] == [number * number for number in range(MANY)]
    assert await far.queue.call("letGo") == 1
    await until(lambda: held.results)
    assert held.result == "let go"
    assert far.worker.statistics().connections == 1
    await far.queue.shutdown()


@ensureDeferred
async def test_longInterruption(hosts: Hosts, link: Link) -> None:
    """
    When a link goes down in the middle of a task without a word, both ends find out by their
    heartbeats: the task fails with the host's name, the host cancels it; and when the link
    is up the worker is hired again.
    """
    far = Far(hosts, link)
    held = Heard(far.queue.call("hold"))
    assert await far.queue.call("held") == 1
    link.down()
    await until(lambda: held.results)
    assert isinstance(held.error, WorkerLost)
    assert link.far in str(held.error)
    later = [Heard(far.queue.call("square", number)) for number in range(MANY)]
    link.up()
    await until(lambda: all(each.results for each in later))
    assert [each.result for each in later] == [number * number for number in range(MANY)]
    while not await far.queue.call("cancelled"):
        pass
    assert await far.queue.call("held") == 0
    await far.queue.shutdown()


@pytest.mark.bulk
@ensureDeferred
async def test_interruptedTransfer(hosts: Hosts, link: Link) -> None:
    """
    A link that goes down in the middle of large messages in both directions ends the calls
    that had them; with retries they are made again when it is up.
    """
    far = Far(hosts, link)
    size = 64 << 20
    await far.queue.call("square", 1)
    up = Heard(far.queue.call("size", bytes(size), retries=5))
    down = Heard(far.queue.call("blob", size, retries=5))
    lost = Heard(far.queue.call("blob", size))
    await until(lambda: far.worker.statistics().held >= 2)
    link.down()
    await until(lambda: lost.results or far.worker.statistics().connections > 1)
    link.up()
    await until(lambda: up.results and down.results and lost.results)
    assert up.result == size
    assert len(down.result) == size
    assert isinstance(lost.result, bytes) or isinstance(lost.error, WorkerLost)
    await far.queue.shutdown()


async def takeAll(deferator: Deferator, got: list[int]) -> None:
    """
    Take what comes.
    """
    async for item in deferator:
        got += [item]


@ensureDeferred
async def test_iteratorOverALinkThatGoesDown(hosts: Hosts, link: Link) -> None:
    """
    Of an iterator come all items up to the loss, and then its reason.
    """
    far = Far(hosts, link)
    deferator = await far.queue.call("endless")
    got = [await next(deferator) for _ in range(10)]
    link.down()
    with pytest.raises(WorkerLost):
        await takeAll(deferator, got)
    assert got == list(range(len(got)))
    link.up()
    while await far.queue.call("iterators"):
        pass
    await far.queue.shutdown()


@ensureDeferred
async def test_killedBehindTheLink(hosts: Hosts, link: Link) -> None:
    """
    A host that dies while the link is down, and comes back at the same address, is dialed
    again: what was with it fails or is repeated, and the rest is done.
    """
    far = Far(hosts, link)
    once = Heard(far.queue.call("hold"))
    assert await far.queue.call("held") == 1
    again = Heard(far.queue.call("square", 7, retries=3))
    link.down()
    far.host.kill()
    port = far.host.description.rpartition(":")[2]
    second = hosts.start(
        f"tcp:{port}:interface={link.far}", link.enter, keyFile=hosts.key(), heartbeat=BEAT
    )
    link.up()
    await until(lambda: once.results and again.results)
    assert isinstance(once.error, WorkerLost)
    assert again.result == 49
    assert await far.queue.call("pid") == second.pid
    await far.queue.shutdown()


@pytest.mark.bulk
@ensureDeferred
async def test_otherHostsGoOn(hosts: Hosts, link: Link) -> None:
    """
    While a host cannot be reached another does the work, and nothing that may be repeated is
    lost.
    """
    far = Far(hosts, link)
    near = hosts.start()
    await far.queue.call("square", 1)
    far.queue.attachWorker(WireWorker(Faults(), near.description))
    heard = [Heard(far.queue.call("square", number, retries=9)) for number in range(10 * MANY)]
    for _ in range(3):
        fired = sum(len(each.results) for each in heard)
        link.down()
        await until(lambda fired=fired: sum(len(each.results) for each in heard) > fired)
        link.up()
    await until(lambda: all(each.results for each in heard))
    assert [each.result for each in heard] == [number * number for number in range(10 * MANY)]
    await far.queue.shutdown()


@ensureDeferred
async def test_shutdownWithoutALink(hosts: Hosts, link: Link) -> None:
    """
    A queue whose host cannot be reached is shut down in the time that it has for it.
    """
    far = Far(hosts, link, beat=30)
    held = Heard(far.queue.call("hold"))
    assert await far.queue.call("held") == 1
    link.down()
    [worker] = far.queue.workers()
    await far.queue.detachWorker(worker, crash=True)
    await far.queue.shutdown()
    assert len(held.results) <= 1
    link.up()


@ensureDeferred
async def test_dialedThroughALinkThatGoesDown(hosts: Hosts, link: Link) -> None:
    """
    A host that dials in loses its connection with the link, and is hired again when that is
    up.
    """
    queue = TaskQueue()
    hub = WireHub(queue, f"tcp:0:interface={link.near}", key=KEY, heartbeat=BEAT)
    address = await hub.start()
    hosts.start(
        f"tcp:{link.near}:{address.port}",
        link.enter,
        keyFile=hosts.key(),
        heartbeat=BEAT,
        dial=True,
    )
    held = Heard(queue.call("hold"))
    await until(lambda: queue.statistics().running)
    link.down()
    await until(lambda: held.results)
    assert isinstance(held.error, WorkerLost)
    assert not hub.workers
    again = Heard(queue.call("square", 9))
    link.up()
    await until(lambda: again.results)
    assert again.result == 81
    await gatherResults([hub.stop(), queue.shutdown()])
