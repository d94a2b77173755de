"""
L{WireWorker}, over real connections.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from asynqueue import AsyncWorker, ProcessQueue, TaskQueue, ThreadWorker
from asynqueue.errors import (
    IdentityRefused,
    IdentityRequired,
    MaybeEncodingError,
    NoSuchCallable,
    QueueRunError,
    WorkerLost,
)
from asynqueue.reactors import theReactor
from asynqueue.testing import Gate, MemoryTask, RecordingObserver, WorkerCheck, workerChecks
from asynqueue.wire.client.worker import WireWorker
from asynqueue.wire.host.catalog import Catalog
from tests.doubles import Heard, outcomes
from tests.integration import odd_calls as odd, wire_calls as calls
from tests.integration.process_checks import until
from tests.integration.wire_hosts import HostProcess, Serving, Universe

# Hosts send 200,000 items a second ahead, times the round trip; and that is long where the
# machine is busy: here it may take half a second.
WINDOW = 100_000

KEY = b"a key that both sides have......"
OTHER_KEY = b"a key that nobody else has......"


@pytest.fixture
def folder() -> Iterator[str]:
    """
    A folder for sockets, whose name is short.
    """
    with tempfile.TemporaryDirectory() as name:
        yield name


# What every worker promises

# The sockets that the hosts of a module listen on.
_sockets: dict[str, str] = {}


@pytest.fixture(scope="module")
def far() -> Iterator[None]:
    """
    A host in a process of its own, whose calls run in two threads.
    """
    with tempfile.TemporaryDirectory() as folder:
        _sockets["far"] = f"unix:{folder}/far"
        host = HostProcess(_sockets["far"], threads=2)
        yield
        host.kill()


@pytest.mark.parametrize(
    "check",
    workerChecks(
        lambda: WireWorker(None, _sockets["far"]), place="process", slots=2, window=WINDOW
    ),
    ids=str,
)
@pytest.mark.usefixtures("far")
def test_conformsToAnotherProcess(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises, where the host is another process.
    """
    return check()


@pytest.mark.parametrize(
    "check",
    workerChecks(
        lambda: WireWorker(None, _sockets["near"]), place="process", cancels=True, window=WINDOW
    ),
    ids=str,
)
@ensureDeferred
async def test_conformsBeforeAProcessQueue(check: WorkerCheck) -> None:
    """
    The worker keeps what IWorker promises, where the host is here and has a
    L{ProcessQueue} behind it.
    """
    serving = await Serving(ProcessQueue(1), Catalog(None, trust="code")).listen()
    _sockets["near"] = serving.description
    try:
        await check()
    finally:
        await serving.close()


@ensureDeferred
async def test_aHostWhoseProcessesCannotStart() -> None:
    """
    Its calls go to another host, and none is lost; alone, they fail with its reason.
    """
    serving = await Serving(
        ProcessQueue(1, initializer=divmod, initargs=[1, 0]), Catalog(None, trust="code")
    ).listen()
    other = await Serving(TaskQueue(ThreadWorker()), Catalog(None, trust="code")).listen()
    sick, well = (WireWorker(None, each.description) for each in (serving, other))
    queue = TaskQueue()
    await queue.attachWorker(sick)
    waiting = [Heard(queue.call(abs, -n)) for n in range(3)]
    await queue.attachWorker(well)
    waiting += [Heard(queue.call(abs, -n)) for n in range(3, 30)]
    await until(lambda: all(each.results for each in waiting))
    assert [each.result for each in waiting] == [*range(30)]
    await queue.detachWorker(well)
    last = Heard(queue.call(abs, -30))
    await until(lambda: last.results)
    assert isinstance(last.error, WorkerLost)
    assert not last.error.begun
    assert "divmod(1, 0) raised ZeroDivisionError" in str(last.error)
    await queue.shutdown()
    await serving.close()
    await other.close()


# Connections that come and go


@ensureDeferred
async def test_killedInMidTask(folder: str) -> None:
    """
    When the process of a host is killed, the call that it ran fails and names the host;
    what waits is run when there is a host again, for which the worker is hired anew.
    """
    where = f"unix:{folder}/socket"
    host = HostProcess(where, threads=1)
    queue, observer, gate = TaskQueue(), RecordingObserver(), Gate()
    queue.addObserver(observer)
    worker = WireWorker(None, where, N_concurrent=1)
    first = await queue.attachWorker(worker)
    running = queue.call(calls.waitAt, gate.token)
    waiting = queue.call(calls.echo, 5)
    await gate.arrivals()
    host.kill()
    with pytest.raises(WorkerLost, match=f"WireWorker.*{folder}.*while it ran waitAt") as caught:
        await running
    assert caught.value.begun
    assert len(queue) == 0
    host = HostProcess(where, threads=1)
    assert await waiting == ((5,), {})
    events = [name for name in observer.names(worker) if name not in ("begun", "done")]
    assert events == ["hired", "left", "lost", "hired"]
    assert first != worker.ID
    await queue.shutdown()
    await gate.close()
    host.kill()


@ensureDeferred
async def test_retriesAfterDeath(folder: str) -> None:
    """
    A call with retries that was lost with its host is run by another.
    """
    hosts = [HostProcess(f"unix:{folder}/{name}") for name in "ab"]
    queue, gate = TaskQueue(), Gate()
    await queue.attachWorker(WireWorker(None, hosts[0].description))
    call = queue.call(calls.waitAndTell, gate.token, retries=1)
    await gate.arrivals()
    await queue.attachWorker(WireWorker(None, hosts[1].description))
    hosts[0].kill()
    await gate.arrivals(2)
    gate.open()
    assert await call == hosts[1].pid
    await queue.shutdown()
    await gate.close()
    hosts[1].kill()


@pytest.mark.bulk
@ensureDeferred
async def test_manyCallsThroughManyDeaths(folder: str) -> None:
    """
    However often hosts are killed, each call ends exactly once: with its result, or as
    one that may have begun.
    """
    where = f"unix:{folder}/socket"
    host = HostProcess(where)
    queue = TaskQueue(WireWorker(None, where))
    ends: list[int] = []
    lost: list[WorkerLost] = []
    for number in range(20_000):
        d = queue.call(calls.echo, number)
        d.addCallback(lambda result: ends.append(result[0][0]))
        d.addErrback(lambda failure: lost.append(failure.value))
    for target in (2000, 6000, 10_000):
        await until(lambda target=target: len(ends) + len(lost) >= target)
        host.kill()
        host = HostProcess(where)
    await until(lambda: len(ends) + len(lost) >= 20_000)
    assert len(set(ends)) == len(ends)
    assert len(ends) + len(lost) == 20_000
    assert all(isinstance(error, WorkerLost) and error.begun for error in lost)
    assert len(lost) < 3 * 5000
    await queue.shutdown()
    host.kill()


@ensureDeferred
async def test_updatesOnEachHire(folder: str) -> None:
    """
    An update is the first that every new connection runs.
    """
    where = f"unix:{folder}/socket"
    host = HostProcess(where)
    queue = TaskQueue()
    await queue.attachWorker(WireWorker(None, where))
    assert await queue.update(calls.remember, "word") == [1]
    assert await queue.call(calls.remembered) == ["word"]
    host.kill()
    await until(lambda: not len(queue))
    again = HostProcess(where)
    assert await queue.call(calls.remembered) == ["word"]
    await queue.shutdown()
    again.kill()


@ensureDeferred
async def test_aServerThatIsNotThereYet(folder: str) -> None:
    """
    Calls wait for a host that is started later.
    """
    where = f"unix:{folder}/socket"
    queue = TaskQueue(WireWorker(None, where))
    call = queue.call(calls.echo, 1)
    refused = theReactor().seconds() + 0.3
    await until(lambda: theReactor().seconds() > refused)
    host = HostProcess(where)
    assert await call == ((1,), {})
    await queue.shutdown()
    host.kill()


@pytest.mark.parametrize("how", ["shutdown", "detach", "cancel"])
@ensureDeferred
async def test_nobodyIsWaitedForAfterTheEnd(folder: str, how: str) -> None:
    """
    The dialing of a host that is not there is told of until it ends: with the queue, or
    when the worker is let go, or when nobody wants it. Nothing is left of it.
    """
    before = len(theReactor().getDelayedCalls())
    queue = TaskQueue()
    where = f"unix:{folder}/nobody"
    worker = WireWorker(None, where)
    hired = Heard(queue.attachWorker(worker))
    call = Heard(queue.call("work"))
    said = f"dialing {where}: no such file or directory, "
    await until(lambda: said in queue.why(call.d))
    assert [each.dialing[: len(said)] for each in queue.workers()] == [said]
    if how == "detach":
        await queue.detachWorker(worker)
    elif how == "cancel":
        hired.d.cancel()
    assert (worker.dialing, queue.workers()) == ("", []) or how == "shutdown"
    await queue.shutdown()
    assert (worker.dialing, queue.workers()) == ("", [])
    assert isinstance(hired.result, Failure)
    assert isinstance(call.error, QueueRunError)
    await until(lambda: len(theReactor().getDelayedCalls()) <= before + 1)


@ensureDeferred
async def test_withoutAQueue(folder: str) -> None:
    """
    A worker by itself dials when it has a task, and again after a loss.
    """
    where = f"unix:{folder}/socket"
    host = HostProcess(where)
    worker = WireWorker(None, where)
    task = MemoryTask(calls.echo, 1)
    worker.run(task)
    assert await task.d == ((1,), {})
    host.kill()
    await until(lambda: not worker.statistics().connected)
    again = HostProcess(where)
    task = MemoryTask(calls.echo, 2)
    worker.run(task)
    assert await task.d == ((2,), {})
    await worker.stop()
    again.kill()


@ensureDeferred
async def test_detachedAndAttachedAgain(folder: str) -> None:
    """
    A worker that was let go can be attached again, here or to another queue.
    """
    host = HostProcess(f"unix:{folder}/socket")
    worker = WireWorker(None, host.description)
    for crash in (False, True, False):
        queue = TaskQueue()
        for _ in range(2):
            await queue.attachWorker(worker)
            assert await queue.call(calls.echo, 1) == ((1,), {})
            await queue.detachWorker(worker, crash=crash)
        await queue.shutdown()
    host.kill()


@ensureDeferred
async def test_aHostThatFallsSilent(folder: str) -> None:
    """
    A host that is stopped in the middle of its work is found by its silence.
    """
    host = HostProcess(f"unix:{folder}/socket")
    queue, gate = TaskQueue(), Gate()
    await queue.attachWorker(WireWorker(None, host.description, heartbeat=0.1))
    call = queue.call(calls.waitInThread, gate.token)
    await gate.arrivals()
    host.signal(signal.SIGSTOP)
    with pytest.raises(WorkerLost, match="silent"):
        await call
    await queue.shutdown()
    await gate.close()
    host.kill()


# Hosts that refuse


@pytest.mark.parametrize("other", [True, False])
@ensureDeferred
async def test_wrongKey(other: bool) -> None:
    """
    A host that has another key refuses, and that is told to who attaches; it is not dialed
    again.
    """
    serving = await Serving(TaskQueue(AsyncWorker()), Catalog(None, trust="code"), key=KEY).listen()
    queue = TaskQueue()
    worker = WireWorker(None, serving.description, key=OTHER_KEY if other else None)
    with pytest.raises(IdentityRefused):
        await queue.attachWorker(worker)
    assert len(serving.connections) == 1
    await queue.shutdown()
    await serving.close()


@ensureDeferred
async def test_rightKey() -> None:
    """
    With the same key, in a file or not, both sides prove themselves.
    """
    serving = await Serving(TaskQueue(AsyncWorker()), Catalog(None, trust="code"), key=KEY).listen()
    queue = TaskQueue(WireWorker(None, serving.description, key=KEY))
    assert await queue.call(calls.echo) == ((), {})
    await queue.shutdown()
    await serving.close()


@pytest.mark.parametrize("description", ["tcp:192.0.2.1:4000", "nonsense", "unix"])
@ensureDeferred
async def test_whatCannotBeDialed(description: str) -> None:
    """
    A description that means nothing, or a host far away that would not prove itself, is
    an error of who attaches.
    """
    queue = TaskQueue()
    with pytest.raises((ValueError, IdentityRequired)):
        await queue.attachWorker(WireWorker(None, description))
    await queue.shutdown()


@ensureDeferred
async def test_refusedTasksOfABareWorker() -> None:
    """
    Tasks that wait for a host that refuses fail with that, and the worker can be stopped.
    """
    worker = WireWorker(None, "tcp:192.0.2.1:4000")
    task = MemoryTask(calls.echo)
    worker.run(task)
    stopped = worker.stop()
    with pytest.raises(IdentityRequired):
        await task.d
    await stopped


# What is called


@ensureDeferred
async def test_methodsByName() -> None:
    """
    Methods of a universe are called by their names, or as they are here; a name that the
    universe does not have fails at once, and so does one that the host does not have.
    """
    universe = Universe()
    serving = await Serving(TaskQueue(AsyncWorker()), Catalog(Universe())).listen()
    queue = TaskQueue()
    await queue.attachWorker(WireWorker(universe, serving.description))
    assert await queue.call("add", 2, two=3) == 5
    assert await queue.call(universe.add, 2, two=4) == 6
    with pytest.raises(NoSuchCallable, match="add"):
        await queue.call("subtract", 1)
    with pytest.raises(NoSuchCallable):
        await queue.call(calls.echo, 1)
    await queue.attachWorker(WireWorker(None, serving.description, series=["any"]))
    with pytest.raises(NoSuchCallable):
        await queue.call("subtract", series="any")
    await queue.shutdown()
    await serving.close()


@ensureDeferred
async def test_threads() -> None:
    """
    With C{thread} a method runs in a thread of the host, for one call or for all.
    """
    far = TaskQueue(AsyncWorker(series=["main"]), ThreadWorker(series=["thread"]))
    serving = await Serving(far, Catalog(Universe()), series="main").listen()
    queue = TaskQueue()
    await queue.attachWorker(WireWorker(Universe(), serving.description))
    here = threading.get_ident()
    assert await queue.call("thread") == here
    assert await queue.call("thread", thread=True) != here
    await queue.attachWorker(WireWorker(Universe(), serving.description, ["t"], thread=True))
    assert await queue.call("thread", series="t") != here
    assert await queue.call("thread", thread=False, series="t") == here
    await queue.shutdown()
    await serving.close()


@pytest.mark.bulk
@pytest.mark.parametrize("codec", ["pickle", "cbor"])
@ensureDeferred
async def test_manyMegabytes(codec: str) -> None:
    """
    Arguments and results of many megabytes make the journey, and small calls meanwhile.
    """
    serving = await Serving(TaskQueue(AsyncWorker()), Catalog(Universe()), codec=codec).listen()
    queue = TaskQueue()
    await queue.attachWorker(WireWorker(Universe(), serving.description, codec=codec))
    large = os.urandom(1 << 20) * 40
    call = queue.call("same", large)
    small = await gatherResults([queue.call("add", number, two=1) for number in range(200)])
    assert small == list(range(1, 201))
    assert await call == large
    await queue.shutdown()
    await serving.close()


@ensureDeferred
async def test_buffersOfMegabytes() -> None:
    """
    Large buffers travel beside the pickle, and what comes back can be written to.
    """
    serving = await Serving(TaskQueue(AsyncWorker()), Catalog(Universe())).listen()
    queue = TaskQueue(WireWorker(Universe(), serving.description))
    sent = [bytearray(os.urandom(1 << 20)) for _ in range(8)]
    got = await queue.call("same", sent)
    assert got == sent
    got[0][0] ^= 1
    assert got != sent
    await queue.shutdown()
    await serving.close()


@ensureDeferred
async def test_tooLargeAResult() -> None:
    """
    A result that is larger than this side takes fails its call only.
    """
    serving = await Serving(TaskQueue(AsyncWorker()), Catalog(Universe())).listen()
    queue = TaskQueue(WireWorker(Universe(), serving.description, largest=1 << 20))
    with pytest.raises(MaybeEncodingError):
        await queue.call("zeros", 1 << 21)
    assert await queue.call("zeros", 5) == bytes(5)
    await queue.shutdown()
    await serving.close()


# Freshness, capacity


@ensureDeferred
async def test_stuckCallsGoElsewhere(folder: str) -> None:
    """
    Calls that were sent to a host and are stuck there behind long ones are run by another
    one that is idle (G6).
    """
    hosts = [HostProcess(f"unix:{folder}/{name}", threads=1) for name in "ab"]
    queue, gate = TaskQueue(), Gate()
    await queue.attachWorker(WireWorker(None, hosts[0].description))
    await gatherResults([queue.call(calls.echo, number) for number in range(2000)])
    long = queue.call(calls.waitAt, gate.token)
    short = [queue.call(calls.tell) for _ in range(5)]
    await gate.arrivals()
    await queue.attachWorker(WireWorker(None, hosts[1].description))
    assert set(await gatherResults(short)) == {hosts[1].pid}
    gate.open()
    await long
    await queue.shutdown()
    await gate.close()
    for host in hosts:
        host.kill()


@ensureDeferred
async def test_capacityFollowsTheHost() -> None:
    """
    When the host's queue has more workers, or fewer, it is given more calls at once, or
    fewer.
    """
    far = TaskQueue(ThreadWorker())
    serving = await Serving(far, Catalog(None, trust="code")).listen()
    queue, gate = TaskQueue(), Gate()
    worker = WireWorker(None, serving.description)
    await queue.attachWorker(worker)
    assert worker.statistics().slots == 1
    more = ThreadWorker(threads=3)
    await far.attachWorker(more)
    serving.hosts[0].capacityChanged()
    waiting = [queue.call(calls.waitAt, gate.token) for _ in range(4)]
    await gate.arrivals(4)
    assert worker.statistics().slots == 4
    gate.open()
    await gatherResults(waiting)
    await far.detachWorker(more)
    serving.hosts[0].capacityChanged()
    await until(lambda: worker.statistics().slots == 1)
    assert await queue.call(calls.echo) == ((), {})
    await queue.shutdown()
    await gate.close()
    await serving.close()


@ensureDeferred
async def test_neverMoreAtOnce(folder: str) -> None:
    """
    With C{N_concurrent} no more calls than that run at once.
    """
    host = HostProcess(f"unix:{folder}/socket", threads=5)
    queue = TaskQueue(WireWorker(None, host.description, N_concurrent=2))
    highest = await gatherResults([queue.call(calls.atOnce) for _ in range(300)])
    assert max(highest) == 2
    await queue.shutdown()
    host.kill()


@ensureDeferred
async def test_drainedHost() -> None:
    """
    A host that drains ends what it runs and gives back the rest, which waits for another;
    no call fails.
    """
    far = TaskQueue(ThreadWorker())
    serving = await Serving(far, Catalog(None, trust="code")).listen()
    queue, gate = TaskQueue(), Gate()
    worker = WireWorker(None, serving.description)
    await queue.attachWorker(worker)
    await gatherResults([queue.call(calls.echo, number) for number in range(200)])
    running = queue.call(calls.waitAt, gate.token)
    waiting = [queue.call(calls.echo, number) for number in range(5)]
    await gate.arrivals()
    drained = serving.hosts[0].drain("to be updated")
    await until(lambda: worker.statistics().held == 1)
    gate.open()
    await running
    await drained
    results = await gatherResults(waiting)
    assert results == [((number,), {}) for number in range(5)]
    assert len(serving.hosts) == 2
    await queue.shutdown()
    await gate.close()
    await serving.close()


# Iterators


@ensureDeferred
async def test_lossEndsIterators(folder: str) -> None:
    """
    An iteration whose host is killed gives what has come, then fails, and ends.
    """
    host = HostProcess(f"unix:{folder}/socket")
    queue = TaskQueue()
    await queue.attachWorker(WireWorker(None, host.description))
    deferator = await queue.call(calls.numbersTo, 10**6)
    got = [await anext(deferator) for _ in range(100)]
    assert got == list(range(100))
    host.kill()
    ends = [result async for result in outcomes(deferator)]
    assert isinstance(ends.pop(), WorkerLost)
    assert ends == list(range(100, 100 + len(ends)))
    await queue.shutdown()


@ensureDeferred
async def test_itemsOfManySizes(folder: str) -> None:
    """
    An iterator whose items are small at first and large later arrives whole.
    """
    host = HostProcess(f"unix:{folder}/socket")
    queue = TaskQueue(WireWorker(None, host.description))
    sizes = [len(item) async for item in await queue.call(calls.growing, 22)]
    assert sizes == [1 << number for number in range(22)]
    await queue.shutdown()
    host.kill()


@ensureDeferred
async def test_itemsThatAreOnlyThere(folder: str) -> None:
    """
    An item that cannot be made again here fails in its place, wherever that is in a batch.
    """
    host = HostProcess(f"unix:{folder}/socket")
    queue = TaskQueue(WireWorker(None, host.description))
    for bad in (0, 1, 500, 999):
        items: list[Any] = []
        for d in await queue.call(odd.onlyThere, bad, 1000):
            items += [await d.addErrback(lambda failure: failure.trap(MaybeEncodingError))]
        assert items == [*range(bad), MaybeEncodingError, *range(bad + 1, 1000)]
    await queue.shutdown()
    host.kill()


@ensureDeferred
async def test_manyIteratorsAtOnce(folder: str) -> None:
    """
    Many iterations at the same time do not mix.
    """
    host = HostProcess(f"unix:{folder}/socket")
    queue = TaskQueue(WireWorker(None, host.description))

    async def take(end: int) -> list[int]:
        return [item async for item in await queue.call(calls.numbersTo, end)]

    ends = [number * 97 for number in range(40)]
    got = await gatherResults([Deferred.fromCoroutine(take(end)) for end in ends])
    assert got == [list(range(end)) for end in ends]
    await queue.shutdown()
    host.kill()
