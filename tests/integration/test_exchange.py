"""
L{asynqueue.exchange} with real processes: how they work, and all the ways in which
they end.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from asynqueue import exchange as public
from asynqueue.errors import (
    AcknowledgementError,
    MaybeEncodingError,
    RemoteError,
    RemoteTraceback,
    WorkerLostError,
)
from asynqueue.exchange import (
    BackgroundCallable,
    BackgroundQueue,
    Channel,
    Exchange,
    MakeParallel,
    MakeReusable,
    Map,
    PersistentChannel,
    PersistentExchange,
    PersistentQueue,
    Queue,
    create,
    create_persistent,
    pmap,
    process as processes,
    start,
    start_persistent,
    waitall,
)
from asynqueue.framing import packed
from tests.integration import oddities
from tests.integration.process_checks import PATIENCE, children, descriptors

ROOT = Path(__file__).parent.parent.parent

LARGE = 5_000_000


def ours() -> set[tuple[int, str]]:
    """
    The open descriptors of such kinds as exchanges have.
    """
    gc.collect()
    kinds = ("socket:", "anon_inode:[pidfd]", "/memfd:")
    return {item for item in descriptors().items() if item[1].startswith(kinds)}


@pytest.fixture(autouse=True)
def nothingIsLeft() -> Iterator[None]:
    """
    After each test there are no more processes and descriptors than before it.
    """
    before = ours()
    yield
    # Where a machine is busy, some end later than they are waited for.
    for pid in children():
        assert gone(pid)
    waitall()
    assert children() == set()
    assert sorted(ours() - before) == []


class Gate:
    """
    What processes wait at.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def open(self) -> None:
        """
        Let all go on.
        """
        os.close(self._write)
        os.close(self._read)

    def waitAt(self) -> None:
        """
        Wait until it is opened, in a child.
        """
        os.close(self._write)
        os.read(self._read, 1)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """
    A gate that is opened when the test has ended, at the latest.
    """
    gate = Gate()
    yield gate
    gate.open()
    waitall()


class Given(Exchange):
    """
    Keeps what comes, in the order of arrival.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.given: list[Any] = []
        super().__init__(*args, **kw)

    def store_data(self, channel: Any) -> None:
        """
        Keep it.
        """
        self.given.append(channel.receive())


class PersistentlyGiven(PersistentExchange, Given):
    """
    The same, for background processes.
    """


class Awkward(Exception):
    """
    Cannot be made again from what it keeps.
    """

    def __init__(self, one: int, two: int) -> None:
        super().__init__("awkward")


def square(number: int) -> int:
    """
    A function that knows nothing of channels.
    """
    return number * number


def whoSquares(number: int) -> tuple[int, int]:
    """
    The result, and the process that has made it.
    """
    return os.getpid(), number * number


def raiseIt(error: BaseException) -> NoReturn:
    """
    Raise an exception.
    """
    raise error


def count(channel: Any, number: int) -> None:
    """
    Send many results.
    """
    for value in range(number):
        channel.send((number, value))


def halfAFrame(channel: Channel) -> None:
    """
    Begin to send something.
    """
    os.write(channel.fileno(), packed(1, 1, bytes(1000))[:500])


def killed(*_: Any) -> None:
    """
    Be killed.
    """
    os.kill(os.getpid(), signal.SIGKILL)


def echo(channel: Any) -> None:
    """
    Send back what comes, until that is None.
    """
    while (value := channel.receive()) is not None:
        channel.send(value)


def fresh(code: str, *args: str) -> subprocess.Popen[str]:
    """
    A program in a fresh interpreter, which is not measured for coverage.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        cwd=ROOT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gone(pid: int) -> bool:
    """
    Wait for the end of a process, which may not be ours.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return processes.isReadable(descriptor, PATIENCE)
    finally:
        os.close(descriptor)


# Processes


def test_start() -> None:
    """
    A process makes a call, with a channel to here, and both send and receive.
    """
    channel = start(echo)
    for value in ("text", b"x" * LARGE, [1]):
        channel.send(value)
        assert channel.receive() == value
    channel.send(None)
    with pytest.raises(EOFError, match="has ended"):
        channel.receive()
    assert channel.wait() == 0
    channel.close()


def test_create() -> None:
    """
    A process goes on where it was created, and ends where it says so.
    """
    channel = create()
    if channel.pid == 0:
        try:
            channel.send(os.getpid())
        finally:
            public.exit(channel)
    assert channel.receive() == channel.pid
    assert channel.wait() == 0
    channel.close()


@pytest.mark.measured
def test_createdProcessFails() -> None:
    """
    What is on its way when a process ends itself is raised here; but not what was
    on its way here, when the process was created.
    """
    try:
        raise KeyError("outside")
    except KeyError:
        fails, ends = create(), None
        if fails.pid == 0:
            try:
                raise ValueError("inside")
            finally:
                public.exit(fails)
        ends = create()
        if ends.pid == 0:
            public.exit(ends)
    with pytest.raises(ValueError, match="inside"):
        fails.receive()
    with pytest.raises(WorkerLostError, match=r"exit code 0: it had sent nothing"):
        ends.receive()
    waitall()
    fails.close()
    ends.close()


def test_childForgetsItsParent() -> None:
    """
    No signal handler of the parent runs in a child.
    """
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        channel = start(lambda channel: channel.send(signal.getsignal(signal.SIGUSR1)))
        assert channel.receive() == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)
    channel.wait()
    channel.close()


def test_whatIsPrintedIsWritten() -> None:
    """
    What parent and child print is written, each once, and no exit function runs
    twice.
    """
    code = (
        "import atexit; from asynqueue.exchange import pmap;"
        "atexit.register(print, 'end'); print('begin');"
        "list(pmap(print, ['child']))"
    )
    with fresh(code) as program:
        output, errors = program.communicate(timeout=PATIENCE)
    assert errors == ""
    assert output.split() == ["begin", "child", "end"]


@pytest.mark.measured
@pytest.mark.parametrize(
    ("error", "code"), [(SystemExit(3), 3), (SystemExit("why"), 1), (KeyboardInterrupt(), 130)]
)
def test_exitsAreNotResults(error: BaseException, code: int) -> None:
    """
    A process that exits instead of sending something is lost, with its exit code.
    """
    channel = start(MakeParallel(raiseIt), error)
    with pytest.raises(WorkerLostError) as caught:
        channel.receive()
    assert (caught.value.pid, caught.value.exitCode, caught.value.signal) == (
        channel.pid,
        code,
        None,
    )
    assert "raiseIt(" in str(caught.value)
    channel.close()


@pytest.mark.measured
@pytest.mark.parametrize("error", [SystemExit(), SystemExit(0)])
def test_orderlyExit(error: BaseException) -> None:
    """
    An exit in order after a result is the end of all that is sent.
    """

    def exits(channel: Channel) -> None:
        channel.send(1)
        raise error

    channel = start(exits)
    assert channel.receive() == 1
    with pytest.raises(EOFError, match=f"process {channel.pid} has ended"):
        channel.receive()
    channel.close()


def test_killedInTheMiddleOfAMessage() -> None:
    """
    A process that is killed in the middle of a message is lost, with its signal.
    """

    def dies(channel: Channel) -> None:
        halfAFrame(channel)
        killed()

    channel = start(dies)
    with pytest.raises(WorkerLostError, match=r"SIGKILL.*500 of the 1,020 bytes") as caught:
        channel.receive()
    assert caught.value.signal == signal.SIGKILL
    assert caught.value.exitCode is None
    assert channel.wait() == -signal.SIGKILL
    channel.close()


def test_killedAfterAMessage() -> None:
    """
    A process that is killed after it has sent something is lost after that.
    """

    def dies(channel: Channel) -> None:
        channel.send(1)
        killed()

    channel = start(dies)
    assert channel.receive() == 1
    with pytest.raises(WorkerLostError, match="killed by SIGKILL while it ran") as caught:
        channel.receive()
    assert caught.value.reason == ""
    channel.close()


def test_killedWhileSomethingIsSent() -> None:
    """
    What is sent to a process that dies is not acknowledged.
    """
    channel = start(killed)
    with pytest.raises(AcknowledgementError, match=f"process {channel.pid} did not.*SIGKILL"):
        channel.send(b"x" * 100)
    with pytest.raises(AcknowledgementError):
        channel.send(b"x" * 100)
    channel.close()


@pytest.mark.parametrize("watched", [True, False])
def test_somebodyElseHoldsTheChannel(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """
    A process that dies is lost, where the system tells that, even while another one,
    which it has forked, lives on and holds its descriptors.
    """
    if not hasattr(os, "pidfd_open") and watched:
        pytest.skip("the system does not tell")
    if not watched:
        monkeypatch.delattr(os, "pidfd_open", raising=False)

    def forks(channel: Channel) -> None:
        if os.fork() == 0:
            if watched:
                gate.waitAt()
            os._exit(0)
        os._exit(4)

    channel = start(forks)
    with pytest.raises(WorkerLostError, match="exit code 4"):
        channel.receive()
    channel.close()


def test_partlyWrittenToTheDead() -> None:
    """
    Who sends much to a process that dies, whose channel somebody else holds, does
    not wait for that one.
    """
    if not hasattr(os, "pidfd_open"):
        pytest.skip("the system does not tell")
    (read, nobody), (somebody, write) = os.pipe(), os.pipe()
    child = start(killed)
    channel = Channel(child.pid, read, write)
    with pytest.raises(AcknowledgementError, match="SIGKILL"):
        channel.send(bytes(LARGE))
    channel.close()
    child.close()
    os.close(nobody)
    os.close(somebody)


def test_closesAndLivesOn(gate: Gate) -> None:
    """
    A process that closes its channel and lives on is no reason to wait for it.
    """
    child = start(lambda _: gate.waitAt())
    here, there = socket.socketpair()
    channel = Channel(child.pid, here, here, patience=0.01)
    there.close()
    with pytest.raises(WorkerLostError, match="is gone") as caught:
        channel.receive()
    assert caught.value.exitCode is None
    channel.close()
    child.close()


def test_failsWithoutAChannel() -> None:
    """
    A process that closes its channel and fails has told nobody, so it is lost.
    """

    def closes(channel: Channel) -> None:
        channel.close()
        raise KeyError

    channel = start(closes)
    with pytest.raises(WorkerLostError, match="exit code 1"):
        channel.receive()
    channel.close()


def test_somebodyElseHasWaited() -> None:
    """
    The exit code of a process that somebody else has waited for is not known.
    """
    channel = start(killed)
    os.waitpid(channel.pid, 0)
    with pytest.raises(WorkerLostError, match="is gone"):
        channel.receive()
    assert channel.wait() is None
    channel.close()


@pytest.mark.parametrize("watched", [True, False])
def test_waitKeepsWhatIsSent(monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    """
    Who waits for a process keeps it from nothing, and loses nothing that it sends.
    """
    if not watched:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    channel = start(count, 3)
    other = start(killed)
    other.close()
    waitall()
    assert channel.wait() == 0
    assert [channel.receive() for _ in range(3)] == [(3, 0), (3, 1), (3, 2)]
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


def test_waitWithoutADescriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without a descriptor of it, a process is looked at again and again until it ends.
    """

    def refused(pid: int) -> NoReturn:
        raise OSError(errno.ENOSYS, "an old kernel")

    monkeypatch.setattr(os, "pidfd_open", refused, raising=False)
    channel = start(killed)
    assert channel.process is not None
    assert channel.process.wait(PATIENCE) == -signal.SIGKILL
    assert channel.process.wait() == -signal.SIGKILL
    channel.close()


def test_droppedChannels(gate: Gate) -> None:
    """
    A process whose channel was dropped sees its end, and is waited for.
    """
    start(echo)
    gc.collect()
    waitall()
    assert not processes.children


def test_siblingsSeeTheEnd() -> None:
    """
    A child has no copies of its siblings' ends: each sees the end of its own.
    """
    first, second = start(echo), start(echo)
    first.close()
    os.waitpid(first.pid, 0)
    second.close()
    waitall()


def test_noRoomForAProcess(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system has no room for a process, nothing is left of it.
    """

    def refused() -> NoReturn:
        raise OSError(errno.EAGAIN, "no room")

    monkeypatch.setattr(os, "fork", refused)
    map = Map()
    with pytest.raises(OSError, match="no room"):
        map.start(count, 1)
    with pytest.raises(OSError, match="no room"):
        BackgroundCallable("/nothing/here", echo)()
    monkeypatch.undo()
    assert map == [(1, 0)]


def test_noSuchFolder(tmp_path: Path) -> None:
    """
    That a background process cannot listen is an error where it was started.
    """
    with pytest.raises(OSError, match="directory"):
        BackgroundCallable(str(tmp_path / "nothing" / "here"), echo)()


# Exchanges


def test_pmap() -> None:
    """
    A function is called with each item, in processes, and results are in order.
    """
    results = pmap(square, range(20), limit=3)
    assert len(results) == 20
    assert results[2:5] == [4, 9, 16]
    assert list(results) == [number * number for number in range(20)]


def test_allWaysToFail() -> None:
    """
    Whatever goes wrong goes wrong at its place, and nowhere else.
    """

    def act(number: int) -> Any:
        match number:
            case 1:
                raise KeyError("one")
            case 2:
                os._exit(5)
            case 3:
                killed()
            case 4:
                raise Awkward(1, 2)
            case 5:
                return (x for x in "abc")
            case 6:
                sys.exit()
        return number

    def outcome(number: int) -> Any:
        try:
            return results[number]
        except Exception as error:
            return error

    results = pmap(act, range(8), limit=2)
    assert len(results) == 8
    zero, one, two, three, four, five, six, seven = map(outcome, range(8))
    assert (zero, seven) == (0, 7)
    assert isinstance(one, KeyError)
    assert isinstance(one.__cause__, RemoteTraceback)
    assert "in act" in one.__cause__.text
    assert (two.exitCode, three.signal, six.exitCode) == (5, signal.SIGKILL, 0)
    # Libraries may have taught pickle how to make it again.
    assert isinstance(four, RemoteError | Awkward)
    assert isinstance(five, MaybeEncodingError)


def test_queueOfLostProcesses() -> None:
    """
    A queue has a result for each computation, also where that is a loss.
    """
    queue = Queue(limit=2)
    die = queue.manage(killed)
    work = queue.manage(MakeParallel(square))
    for number in range(3):
        die(number)
        work(number)
    losses, results = 0, []
    while True:
        try:
            results.append(next(queue))
        except WorkerLostError:
            losses += 1
        except StopIteration:
            break
    assert losses == 3
    assert sorted(results) == [0, 1, 4]


@pytest.mark.parametrize("kind", [Map, Queue])
def test_largeResults(kind: type[Map] | type[Queue]) -> None:
    """
    Results of 5 MB each, of several processes at once, arrive whole.
    """
    exchange = kind(limit=3)
    make = exchange.manage(MakeParallel(lambda number: bytes([number]) * LARGE))
    for number in range(6):
        make(number)
    results = sorted(exchange)
    assert [len(result) for result in results] == [LARGE] * 6
    assert [result[-1] for result in results] == list(range(6))


def test_thousandComputations() -> None:
    """
    A thousand computations, of which at most four run at once, give a thousand
    results, and leave nothing behind.
    """
    code = (
        "import os, psutil; from asynqueue.exchange import pmap\n"
        "def act(number):\n"
        # To look at all processes takes longer than all else that a computation does.
        "    seen = 0 if number % 10 else len(psutil.Process(os.getppid()).children())\n"
        "    return number, seen\n"
        "before = os.listdir('/proc/self/fd')\n"
        "results = list(pmap(act, range(1000), limit=4))\n"
        "assert [number for number, _ in results] == list(range(1000))\n"
        "assert os.listdir('/proc/self/fd') == before\n"
        "assert not psutil.Process().children()\n"
        "print(max(most for _, most in results))"
    )
    with fresh(code) as program:
        output, errors = program.communicate(timeout=PATIENCE)
    assert errors == ""
    # Those that have sent their results may still be about to end.
    assert 2 <= int(output) <= 8


def test_storeDoesNotLoseOthers() -> None:
    """
    When one computation fails, those of the others are stored by the next call.
    """
    exchange = Given(limit=2)
    for number in range(3):
        exchange.start(MakeParallel(square), number)
        exchange.start(MakeParallel(raiseIt), KeyError())
    failures = 0
    while exchange.unfinished():
        try:
            exchange.finish()
        except KeyError:
            failures += 1
    assert failures == 3
    assert sorted(exchange.given) == [0, 1, 4]


def test_createdByAMap() -> None:
    """
    Processes that go on from here give their results in order, as many at once as
    the limit says.
    """
    results = Map(limit=2)
    for number in range(5):
        channel = results.create()
        if channel:
            try:
                channel.send(number * 2)
            finally:
                public.exit(channel)
        assert len(results.active()) <= 2
    assert list(results) == [0, 2, 4, 6, 8]


def test_exchangeWithinAProcess() -> None:
    """
    A process may have an exchange of its own.
    """

    def sums(number: int) -> int:
        return sum(pmap(square, range(number), limit=2))

    assert list(pmap(sums, range(4), limit=2)) == [0, 0, 1, 5]


def test_systemHasNoRoom() -> None:
    """
    Without a limit, as many processes run as the system has room for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 40, hard))
    try:
        results = list(pmap(square, range(60)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # Some may take longer to end than they are waited for, where a machine is busy.
    waitall()
    assert results == [number * number for number in range(60)]


def test_reuse() -> None:
    """
    With C{reuse}, no more processes than the limit make all calls, in order.
    """
    results = Map(limit=2, reuse=1)(whoSquares, range(20))
    assert [square for _, square in results] == [number * number for number in range(20)]
    assert len({pid for pid, _ in results}) <= 2


def test_reuseLater() -> None:
    """
    A process that has nothing to do is there for the next call.
    """
    queue = Queue(limit=2, reuse=1)
    work = queue.manage(MakeReusable(whoSquares))
    work(0)
    work(0)
    for number in range(3):
        # One is idle, and the other one computes or is idle.
        queue.store()
        work(number)
    assert len({pid for pid, _ in queue}) <= 2


def test_reuseOfWhatEnds() -> None:
    """
    Computations whose processes end after one result are made in new ones, and so
    are those whose processes die.
    """
    results = Map(limit=1, reuse=1)
    work = results.manage(MakeParallel(square))
    for number in range(4):
        work(number)
    die = results.manage(killed)
    die()
    work(4)
    assert results[:4] == [0, 1, 4, 9]
    with pytest.raises(WorkerLostError):
        results[4]
    assert results[5] == 16


def test_reuseByTwo() -> None:
    """
    Processes are reused only for the function that they were created for.
    """
    results = Map(limit=1, reuse=1)
    squares = results.manage(MakeReusable(square))
    texts = results.manage(MakeReusable(str))
    for number in range(3):
        squares(number)
        texts(number)
    assert list(results) == [0, "0", 1, "1", 4, "2"]


@pytest.mark.measured
def test_reuseWithWhatCannotBeSent() -> None:
    """
    What cannot be pickled reaches a new process, which inherits it.
    """
    results = Map(limit=1, reuse=1)
    results(len, ["a"])
    parallel = MakeReusable(sum)
    results.start(parallel, [1, 2])
    results.start(parallel, (x for x in (3, 4)))
    assert list(results) == [1, 3, 7]


def test_reusedProcessDies() -> None:
    """
    A reused process that dies loses the call it was making, and no other.
    """

    def act(number: int) -> int:
        if number == 2:
            killed()
        return number

    results = Map(limit=1, reuse=1)(act, range(5))
    assert results[:2] == [0, 1]
    with pytest.raises(WorkerLostError, match=r"SIGKILL while it ran .*act\(2\)"):
        results[2]
    assert results[3:] == [3, 4]


def test_continuous() -> None:
    """
    With C{continuous}, processes send any number of results.
    """
    queue = Queue(limit=2, continuous=1)
    many = queue.manage(count)
    for number in range(5):
        many(number)
    assert sorted(queue) == [(number, value) for number in range(5) for value in range(number)]


def test_continuousMap() -> None:
    """
    The result of a continuous computation in a map is all that it sent.
    """
    results = Map(limit=2, continuous=1)
    for number in range(4):
        results.start(count, number)
    assert [len(result) for result in results] == [0, 1, 2, 3]


@pytest.mark.parametrize("end", [killed, lambda: os._exit(0), lambda: sys.exit(2)])
def test_continuousIsNeverShort(end: Any) -> None:
    """
    A continuous process that does not end in order is an error after its results.
    """

    def ends(channel: Channel) -> None:
        channel.send(1)
        end()

    queue = Queue(continuous=1)
    queue.start(ends)
    assert next(queue) == 1
    with pytest.raises(WorkerLostError):
        next(queue)
    assert list(queue) == []


def test_continuousFailure() -> None:
    """
    What a continuous process raises is its last result.
    """

    def fails(channel: Channel) -> None:
        channel.send(1)
        raise KeyError("two")

    queue = Queue(continuous=1)
    queue.start(fails)
    assert next(queue) == 1
    with pytest.raises(KeyError, match="two"):
        next(queue)
    assert list(queue) == []


def sendTwice(channel: Any) -> None:
    """
    Send one result too many.
    """
    channel.send(os.getpid())
    channel.send("lost")


def sendAndFail(channel: Any) -> None:
    """
    Fail after the result.
    """
    channel.send(os.getpid())
    raise LookupError("after the result")


@pytest.mark.measured
@pytest.mark.parametrize(
    ("work", "said"),
    [
        (sendTwice, "an exchange takes one result of each process, unless it is continuous"),
        (sendAndFail, "after the result"),
    ],
)
def test_whatNobodyReceivesIsSaid(work: Any, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """
    What a process sends or raises after the result that was taken is written to its standard
    error.
    """
    exchange = Given()
    exchange.start(work)
    exchange.finish()
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("work", [echo, count])
def test_removedIsGone(work: Any) -> None:
    """
    Nothing is left of a process that waits for the channel that is removed.
    """
    before = children()
    exchange = Given(continuous=1)
    # Where coverage is measured a process takes its time to end.
    exchange.patience = PATIENCE
    exchange.start(work, *([1000] if work is count else []))
    [channel] = exchange.active()
    exchange.remove(channel)
    assert children() == before


def test_removedButBusyIsGoneLater() -> None:
    """
    A process that has something else to do is not waited for when its channel is removed, but
    by what waits next.
    """
    before = children()
    here, there = socket.socketpair()
    exchange = Given()
    exchange.start(lambda channel: there.recv(1))
    [channel] = exchange.active()
    pid = channel.pid
    exchange.remove(channel)
    assert children() - before == {pid}
    here.send(b"x")
    assert gone(pid)
    exchange.ready(0)
    assert children() == before
    here.close()
    there.close()


# The end of the parent

ORPHANS = """
import os, time
from asynqueue.exchange import Queue
def wait(channel):
    channel.send(os.getpid())
    {wait}
queue = Queue(continuous=1)
for _ in range(3):
    queue.start(wait)
print(*[next(queue) for _ in range(3)], flush=True)
next(queue)
"""


@pytest.mark.parametrize("wait", ["channel.receive()", "time.sleep(1000)"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_noOrphans(number: int, wait: str) -> None:
    """
    However the parent ends, an interrupt among it, its children end, too.
    """
    with fresh(ORPHANS.format(wait=wait)) as program:
        assert program.stdout is not None
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 3
        program.send_signal(number)
        _, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == -number
    assert errors.count("KeyboardInterrupt") == (number == signal.SIGINT)
    assert all(gone(pid) for pid in pids)


# Background processes


@pytest.fixture
def address(tmp_path: Path) -> str:
    """
    Where a background process can listen.
    """
    return str(tmp_path / "address")


def test_background(address: str) -> None:
    """
    A result is made in the background, and collected through an address.
    """
    BackgroundCallable(address, MakeParallel(whoSquares))(12)
    assert os.stat(address).st_mode & 0o777 == 0o600
    ((pid, result),) = BackgroundQueue(address)
    assert result == 144
    assert pid != os.getpid()
    assert gone(pid)
    assert not os.path.exists(address)


def test_backgroundOutlivesItsCreator(address: str) -> None:
    """
    A background process goes on when the program that started it has ended, and does
    not hold its output.
    """
    code = (
        "import os, sys; from asynqueue.exchange import BackgroundCallable, MakeParallel\n"
        "BackgroundCallable(sys.argv[1], MakeParallel(lambda: (os.getpid(), os.getppid())))()\n"
        "print(os.getpid())"
    )
    with fresh(code, address) as program:
        output, errors = program.communicate(timeout=PATIENCE)
    assert errors == ""
    ((pid, parent),) = BackgroundQueue(address)
    assert parent != int(output)
    assert gone(pid)


def test_defaultTimeoutOfSockets(address: str) -> None:
    """
    With a default timeout for sockets a background process still waits, however long,
    for whoever connects to it.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        channel = start_persistent(
            address, lambda there: there.send(os.get_blocking(there.fileno()))
        )
        assert channel.receive() is True
        assert channel.wait() is None
    finally:
        socket.setdefaulttimeout(before)
    channel.close()


def test_manyBackgroundProcesses(tmp_path: Path) -> None:
    """
    One queue collects the results of many background processes.
    """
    queue = PersistentQueue()
    for number in range(4):
        address = str(tmp_path / str(number))
        BackgroundCallable(address, MakeParallel(whoSquares))(number)
        queue.connect(address)
    results = dict(queue)
    assert sorted(results.values()) == [0, 1, 4, 9]
    assert all(gone(pid) for pid in results)


@pytest.mark.measured
def test_persistentExchange(tmp_path: Path) -> None:
    """
    An exchange may be dropped: another one connects to its processes.
    """
    first, second = str(tmp_path / "1"), str(tmp_path / "2")
    exchange = PersistentlyGiven(limit=2)
    exchange.manage(first, MakeParallel(whoSquares))(3)
    channel = exchange.create(second)
    if isinstance(channel, PersistentChannel):
        try:
            channel.send((os.getpid(), 16))
        finally:
            public.exit(channel)
    del exchange, channel
    gc.collect()
    exchange = PersistentlyGiven()
    exchange.connect(first)
    exchange.connect(second)
    exchange.finish()
    assert sorted(result for _, result in exchange.given) == [9, 16]
    assert all(gone(pid) for pid, _ in exchange.given)


def test_aKeptCallableKeepsNoExchange(tmp_path: Path) -> None:
    """
    What was started can be collected by another exchange, though the callable that started
    it is kept. It still begins computations, for whoever connects to them.
    """
    address = str(tmp_path / "1")
    exchange = PersistentlyGiven()
    managed = exchange.manage(address, MakeParallel(whoSquares))
    managed(3)
    assert managed.exchange is exchange
    del exchange
    gc.collect()
    assert managed.exchange is None
    exchange = PersistentlyGiven()
    for number in (3, 4):
        exchange.connect(address)
        exchange.store(PATIENCE * 1000)
        assert [result for _, result in exchange.given] == [number * number]
        assert gone(exchange.given.pop()[0])
        if number == 3:
            managed(4)


def test_startConnectsToNothing(tmp_path: Path) -> None:
    """
    What an exchange has started is for whoever connects first: it itself, later, or another
    one beside it, of which it need not know. Until then it counts as unfinished.
    """
    addresses = [str(tmp_path / name) for name in "abc"]
    exchange, other = PersistentlyGiven(limit=3), PersistentlyGiven()
    for number, address in enumerate(addresses):
        exchange.manage(address, MakeParallel(whoSquares))(number)
    assert exchange.active() == []
    assert exchange.busy()
    other.connect(addresses[1])
    other.store(PATIENCE * 1000)
    assert [result for _, result in other.given] == [1]
    assert gone(other.given[0][0])
    exchange.connect(addresses[2])
    assert len(exchange.active()) == 1
    for _ in range(3):
        exchange.store(PATIENCE * 1000)
    assert sorted(result for _, result in exchange.given) == [0, 4]
    assert not exchange.unfinished()


def test_whatIsCollectedElsewhereIsNoLoss(tmp_path: Path) -> None:
    """
    An exchange that comes behind another one, to what it has started, is done with that when
    the other one has the result, and goes on with what waits.
    """
    address = str(tmp_path / "a")
    exchange, other = PersistentlyGiven(limit=1), PersistentlyGiven()
    exchange.start(address, MakeParallel(whoSquares), 3)
    exchange.start(str(tmp_path / "b"), MakeParallel(whoSquares), 4)
    other.connect(address)
    exchange.store(0)
    assert len(exchange.active()) == 1
    other.store(PATIENCE * 1000)
    for _ in range(3):
        exchange.store(PATIENCE * 1000)
    assert [result for _, result in other.given] == [9]
    assert [result for _, result in exchange.given] == [16]
    assert not exchange.unfinished()
    assert all(gone(pid) for pid, _ in (*other.given, *exchange.given))


@pytest.mark.parametrize("code", [0, 3])
def test_whatIsStartedAndLostIsTold(tmp_path: Path, code: int) -> None:
    """
    A process that has ended without a result, before its exchange connected to it, is no
    result that was collected elsewhere. Its address can be used again.
    """
    address = str(tmp_path / "a")
    exchange = PersistentlyGiven()
    here, there = os.pipe()
    exchange.start(address, lambda channel: (os.write(there, b"%d" % os.getpid()), sys.exit(code)))
    assert gone(int(os.read(here, 100)))
    os.close(here)
    os.close(there)
    with pytest.raises(ConnectionRefusedError, match="no background process"):
        exchange.store(PATIENCE * 1000)
    assert not exchange.unfinished()
    exchange.start(address, MakeParallel(whoSquares), 5)
    exchange.store(PATIENCE * 1000)
    ((pid, result),) = exchange.given
    assert result == 25
    assert gone(pid)


@contextmanager
def noDescriptors() -> Iterator[None]:
    """
    No descriptor more can be had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_noRoomToConnect(tmp_path: Path) -> None:
    """
    What was started is not lost where there is no descriptor to connect to it: that is told
    if nothing else would make room, and the next waiting tries again.
    """
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    exchange = PersistentlyGiven()
    exchange.start(first, lambda channel: channel.send((os.getpid(), channel.receive())))
    with noDescriptors(), pytest.raises(OSError, match="Too many open files"):
        exchange.store(0)
    exchange.connect(first)
    exchange.start(second, MakeParallel(whoSquares), 5)
    with noDescriptors():
        exchange.store(0)
    (channel,) = exchange.active()
    channel.send(1)
    for _ in range(2):
        exchange.store(PATIENCE * 1000)
    assert not exchange.unfinished()
    assert sorted(result for _, result in exchange.given) == [1, 25]
    assert all(gone(pid) for pid, _ in exchange.given)


def test_persistentLimit(tmp_path: Path) -> None:
    """
    Background processes wait for room, too.
    """
    exchange = PersistentlyGiven(limit=1)
    for number in range(3):
        exchange.start(str(tmp_path / str(number)), MakeParallel(whoSquares), number)
    exchange.finish()
    assert [result for _, result in exchange.given] == [0, 1, 4]
    assert all(gone(pid) for pid, _ in exchange.given)


def test_backgroundTalks(address: str) -> None:
    """
    A background process receives what is sent to it.
    """
    channel = start_persistent(address, echo)
    pid = channel.pid
    for value in (1, b"x" * LARGE):
        channel.send(value)
        assert channel.receive() == value
    channel.send(None)
    with pytest.raises(EOFError):
        channel.receive()
    assert channel.wait() is None
    channel.close()
    assert gone(pid)


def test_backgroundFails(address: str) -> None:
    """
    What a background process raises is raised where its result is collected.
    """
    BackgroundCallable(address, MakeParallel(raiseIt))(KeyError("a"))
    queue = BackgroundQueue(address)
    (channel,) = queue.active()
    with pytest.raises(KeyError, match="a"):
        next(queue)
    assert gone(channel.pid)


def test_backgroundDies(address: str) -> None:
    """
    A background process that dies is lost to who waits for it, and its address can
    be used again.
    """
    channel = start_persistent(address, echo)
    os.kill(channel.pid, signal.SIGKILL)
    with pytest.raises(WorkerLostError, match=f"process {channel.pid} is gone"):
        channel.receive()
    channel.close()
    with pytest.raises(ConnectionRefusedError, match="no background process"):
        BackgroundQueue(address)
    BackgroundCallable(address, MakeParallel(whoSquares))(5)
    ((pid, result),) = BackgroundQueue(address)
    assert result == 25
    assert gone(pid)


@pytest.mark.measured
def test_backgroundExits(address: str) -> None:
    """
    A background process that exits without a result gives up its address.
    """
    channel = start_persistent(address, lambda channel: (channel.receive(), sys.exit(3)))
    channel.send(1)
    with pytest.raises(WorkerLostError):
        channel.receive()
    assert gone(channel.pid)
    assert not os.path.exists(address)
    channel.close()


def test_addressIsTaken(address: str) -> None:
    """
    No background process is started where another one listens.
    """
    channel = start_persistent(address, echo)
    with pytest.raises(OSError, match="in use"):
        BackgroundCallable(address, echo)()
    channel.send(None)
    assert gone(channel.pid)
    channel.close()


@pytest.mark.measured
def test_addressIsNoSocket(address: str) -> None:
    """
    A file that is no socket is not touched.
    """
    Path(address).write_text("precious")
    with pytest.raises(OSError, match="in use"):
        create_persistent(address)
    assert Path(address).read_text() == "precious"


@pytest.mark.parametrize("look", ["pickled", "made again", "asked for its class"])
def test_resultsThatExitHarmThemselves(look: str) -> None:
    """
    A result that raises SystemExit when it is sent, or made again, is the error of its
    computation, and the next one has its own.
    """
    (odd,) = [
        number
        for number, kind in enumerate(oddities.OBJECTS)
        if kind.__name__.endswith(f"raises SystemExit when it is {look}")
    ]
    results = Map(limit=1, reuse=1)
    give = results.manage(MakeReusable(oddities.give))
    plain = len(oddities.ERRORS) * [*oddities.LOOKS].index("shown")
    for number in (odd, plain):
        give(number)
    with pytest.raises((MaybeEncodingError, SystemExit), match="odd"):
        results[0]
    assert type(results[1]) is oddities.OBJECTS[plain]
    results.finish()
