"""
Queues whose hosts die, freeze, leave and come back, in processes of their own.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from asynqueue import QueueRunError, TaskQueue, WireWorker, WorkerLost
from asynqueue.iteration.deferator import Deferator
from asynqueue.reactors import theReactor
from tests.doubles import Heard
from tests.integration.process_checks import PATIENCE, until
from tests.integration.wire_faults import Faults, Hosts, hosts, notedBy, notes

__all__ = ["hosts"]

# So many calls are made while hosts come to harm, and after so many results.
MANY = 3000
SOME = 300


class Watched(WireWorker):
    """
    A worker that knows how many tasks were with its host when that was lost.
    """

    def __init__(self, description: str, **options: Any) -> None:
        super().__init__(Faults(), description, **options)
        self.lostWith: list[int] = []

    def lost(self, connection: Any, error: Exception) -> None:
        if self.statistics().connected:
            self.lostWith.append(self.statistics().held)
        super().lost(connection, error)


def load(queue: TaskQueue, path: str, **options: Any) -> list[Heard]:
    """
    Have a host note all numbers.
    """
    return [Heard(queue.call("note", path, number, **options)) for number in range(MANY)]


def ended(heard: list[Heard]) -> int:
    """
    How many have fired.
    """
    return sum(len(each.results) for each in heard)


def right(heard: list[Heard]) -> set[int]:
    """
    Which have the right result. Any other is a WorkerLost.
    """
    failed = {n for n, each in enumerate(heard) if each.result != n * n}
    assert all(isinstance(heard[n].error, WorkerLost) for n in failed)
    return set(range(MANY)) - failed


def addresses(made: Hosts) -> list[str]:
    """
    Where a host may listen, and again when it comes back.
    """
    return [f"unix:{made.path('same')}", "tcp:0:interface=127.0.0.1"]


async def killedAndBack(made: Hosts, index: int, retries: int) -> tuple[Any, Any, Any, str]:
    """
    A host is killed under load, and comes back at the same address.

    @return: what came of the calls, the hosts, the worker, and where they have noted.
    """
    first = made.start(addresses(made)[index])
    where = first.description
    worker = Watched(where)
    queue = TaskQueue(worker)
    path = made.path("notes")
    heard = load(queue, path, retries=retries)
    await until(lambda: ended(heard) >= SOME)
    first.kill()
    listen = where if index == 0 else f"tcp:{where.rpartition(':')[2]}:interface=127.0.0.1"
    second = made.start(listen)
    await until(lambda: ended(heard) >= MANY)
    await queue.shutdown()
    return heard, (first, second), worker, path


@pytest.mark.parametrize("index", [0, 1], ids=["UNIX", "TCP"])
@ensureDeferred
async def test_killedAndBack(index: int, hosts: Hosts) -> None:
    """
    Where a host is killed under load and comes back, exactly what was sent and had not ended
    fails; all else has its result, and nothing was done twice.
    """
    heard, (first, second), worker, path = await killedAndBack(hosts, index, 0)
    good = right(heard)
    assert worker.lostWith[0] == MANY - len(good)
    assert max(notes(path).values()) == 1
    assert good <= set(notes(path))
    # What failed was never run again.
    assert not notedBy(path, second.pid) - good
    assert notedBy(path, first.pid) | notedBy(path, second.pid) == set(notes(path))


@pytest.mark.parametrize("index", [0, 1], ids=["UNIX", "TCP"])
@ensureDeferred
async def test_killedAndBackWithRetries(index: int, hosts: Hosts) -> None:
    """
    Calls that may be repeated have all their results, and only what was with the host that
    was killed is done twice.
    """
    heard, (first, second), worker, path = await killedAndBack(hosts, index, 3)
    assert right(heard) == set(range(MANY))
    twice = {number for number, often in notes(path).items() if often > 1}
    assert max(notes(path).values()) <= 2
    assert len(twice) <= worker.lostWith[0]
    assert twice <= notedBy(path, first.pid) & notedBy(path, second.pid)


@pytest.mark.bulk
@ensureDeferred
async def test_killedAgainAndAgain(hosts: Hosts) -> None:
    """
    Two hosts are killed in turns, and come back: calls that may be repeated have their results.
    """
    alive = [hosts.start() for _ in range(2)]
    workers = [Watched(host.description) for host in alive]
    queue = TaskQueue(*workers)
    heard = load(queue, hosts.path("notes"), retries=1000)
    for turn in range(6):
        before = ended(heard)
        await until(lambda before=before: ended(heard) >= min(MANY, before + SOME))
        alive[turn % 2].kill()
        alive[turn % 2] = hosts.start(alive[turn % 2].description)
    await until(lambda: ended(heard) >= MANY)
    assert right(heard) == set(range(MANY))
    await queue.shutdown()


@ensureDeferred
async def test_frozen(hosts: Hosts) -> None:
    """
    A host that does not move any more is found by its heartbeat; another runs what was not
    sent to it, and what was sent fails with its name.
    """
    frozen, other = hosts.start(heartbeat=0.2), hosts.start()
    worker = Watched(frozen.description, heartbeat=0.2)
    queue = TaskQueue(worker)
    held = Heard(queue.call("hold"))
    assert await queue.call("held") == 1
    frozen.signal(signal.SIGSTOP)
    queue.attachWorker(Watched(other.description))
    heard = [Heard(queue.call("square", number)) for number in range(1000)]
    await until(lambda: ended([held, *heard]) == 1001)
    assert isinstance(held.error, WorkerLost)
    assert "silent" in str(held.error)
    assert frozen.description.removeprefix("unix:") in str(held.error)
    lost = [each for number, each in enumerate(heard) if each.result != number * number]
    assert all(isinstance(each.error, WorkerLost) for each in lost)
    assert worker.lostWith[0] == len(lost) + 1
    frozen.signal(signal.SIGCONT)
    await queue.shutdown()


@ensureDeferred
async def test_frozenForLessThanAHeartbeat(hosts: Hosts) -> None:
    """
    A host that freezes for a moment is not given up.
    """
    host = hosts.start()
    worker = Watched(host.description)
    queue = TaskQueue(worker)
    await queue.call("square", 1)
    host.signal(signal.SIGSTOP)
    heard = [Heard(queue.call("square", number)) for number in range(1000)]
    await until(lambda: worker.statistics().held)
    host.signal(signal.SIGCONT)
    await until(lambda: ended(heard) == 1000)
    assert [each.result for each in heard] == [number * number for number in range(1000)]
    assert worker.statistics().connections == 1
    await queue.shutdown()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@ensureDeferred
async def test_queueThatDies(number: signal.Signals, hosts: Hosts) -> None:
    """
    A host ends what nobody will hear of, where the process of the queue is frozen or killed.
    """
    host = hosts.start(heartbeat=0.2)
    queue = TaskQueue(WireWorker(Faults(), host.description))
    caller = hosts.caller(host.description)
    while await queue.call("held") + await queue.call("iterators") != 2:
        pass
    caller.signal(number)
    while await queue.call("held") + await queue.call("iterators"):
        pass
    assert await queue.call("cancelled") == 1
    await queue.shutdown()


# Leaving


@ensureDeferred
async def test_goodbye(hosts: Hosts) -> None:
    """
    A host that is told to end under load gives back what it has not begun: another does it,
    and nobody notices.
    """
    leaving, other = hosts.start(), hosts.start()
    workers = [Watched(leaving.description), Watched(other.description)]
    queue = TaskQueue(*workers)
    path = hosts.path("notes")
    heard = load(queue, path)
    await until(lambda: workers[0].statistics().ended >= SOME)
    assert await leaving.end() == 0
    await until(lambda: ended(heard) >= MANY)
    assert right(heard) == set(range(MANY))
    assert set(notes(path).values()) == {1}
    await queue.shutdown()


@ensureDeferred
async def test_goodbyeWaitsForWhatRuns(hosts: Hosts) -> None:
    """
    A host that is told to end ends what it has begun, and its queue hears of it.
    """
    host, other = hosts.start(), hosts.start()
    path = hosts.path("pipe")
    os.mkfifo(path)
    queue = TaskQueue(Watched(host.description))
    await queue.call("square", 1)
    held = Heard(queue.call("readFrom", path, thread=True))
    await until(lambda: queue.statistics().running)
    ending = Deferred.fromCoroutine(host.end())
    queue.attachWorker(Watched(other.description))
    while await queue.call("pid") != other.pid:
        pass
    assert not held.results
    with open(path, "wb") as pipe:
        pipe.write(b"the end")
    await until(lambda: held.results and ending.called)
    assert held.result == b"the end"
    assert await ending == 0
    await queue.shutdown()


@pytest.mark.bulk
@ensureDeferred
async def test_aHundredThousand(hosts: Hosts) -> None:
    """
    Two hosts make a hundred thousand calls that are made at once.
    """
    workers = [Watched(hosts.start().description) for _ in range(2)]
    queue = TaskQueue(*workers)
    made = gatherResults([queue.call("square", number) for number in range(100_000)])
    results = await made.addTimeout(PATIENCE, theReactor())
    assert results == [number * number for number in range(100_000)]
    assert min(worker.statistics().ended for worker in workers) > 10_000
    await queue.shutdown()


async def takeAll(deferator: Deferator) -> None:
    """
    Take what there is.
    """
    async for _ in deferator:
        pass


@ensureDeferred
async def test_generatorThatIsNeverFinished(hosts: Hosts) -> None:
    """
    An iterator that nobody finishes is closed when the queue is shut down.
    """
    host = hosts.start()
    looker = TaskQueue(WireWorker(Faults(), host.description))
    queue = TaskQueue(WireWorker(Faults(), host.description), timeout=0.1)
    deferator = await queue.call("endless")
    assert [await next(deferator) for _ in range(1000)] == list(range(1000))
    assert await looker.call("iterators") == 1
    await queue.shutdown()
    while await looker.call("iterators"):
        pass
    end = Heard(deferator.d)
    with pytest.raises(WorkerLost):
        await takeAll(deferator)
    await takeAll(deferator)
    assert end.result is False
    await looker.shutdown()


# The clock


@pytest.mark.bulk
@pytest.mark.parametrize("jump", [-1e6, 1e6])
@ensureDeferred
async def test_clockJump(jump: float, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nobody is lost when the clock of the reactor jumps.
    """
    host = hosts.start(heartbeat=0.5)
    worker = Watched(host.description, heartbeat=0.5)
    queue = TaskQueue(worker)
    held = Heard(queue.call("hold"))
    assert await queue.call("held") == 1
    reactor: Any = theReactor()
    seconds = reactor.seconds
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    with monkeypatch.context() as context:
        context.setattr(reactor, "seconds", lambda: seconds() + jump)
        for number in range(300):
            assert await queue.call("square", number) == number * number
    for number in range(300):
        assert await queue.call("square", number) == number * number
    assert await queue.call("letGo") == 1
    assert await held.d is None
    assert held.result == "let go"
    assert worker.statistics().connections == 1
    await queue.shutdown()


# Shutdown


@pytest.mark.bulk
@pytest.mark.parametrize("patience", [None, 0.05])
@pytest.mark.parametrize(
    "state", ["nobody", "idle", "loaded", "large", "iterating", "lost", "silent"]
)
@ensureDeferred
async def test_shutdown(state: str, patience: float | None, hosts: Hosts) -> None:
    """
    In every state a queue can be shut down, and all that it was given comes to an end, once.
    """
    host = hosts.start()
    heard: list[Heard] = []
    where = hosts.path("nobody") if state == "nobody" else host.description.partition(":")[2]
    queue = TaskQueue(WireWorker(Faults(), f"unix:{where}"), timeout=patience)
    if state != "nobody":
        await queue.call("square", 1)
    match state:
        case "nobody":
            heard += [Heard(queue.call("square", 1)) for _ in range(10)]
        case "loaded":
            heard += [Heard(queue.call("square", 2)) for _ in range(10_000)]
        case "large":
            heard += [Heard(queue.call("size", bytes(32 << 20))) for _ in range(3)]
            heard += [Heard(queue.call("blob", 32 << 20)) for _ in range(3)]
        case "iterating":
            d = queue.call("endless")
            deferator = await d
            heard.append(Heard(deferator.d))
            await next(deferator)
            deferator.stop()
        case "lost":
            host.kill()
            heard += [Heard(queue.call("square", 2)) for _ in range(10)]
        case "silent":
            host.signal(signal.SIGSTOP)
            heard += [Heard(queue.call("square", 2)) for _ in range(10)]
            if patience is None:
                await until(lambda: queue.statistics().running)
                host.signal(signal.SIGCONT)
    both = gatherResults([queue.shutdown(), queue.shutdown()])
    await until(lambda: both.called)
    await both
    await until(lambda: all(each.results for each in heard))
    assert all(len(each.results) == 1 for each in heard)
    with pytest.raises(QueueRunError):
        await queue.call("square", 1)
