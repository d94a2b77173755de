"""
The same queue where C{asyncio.run} runs the program and no reactor is installed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asynqueue.wire.transport.certificates import makeKeys
from tests.integration.process_checks import complaints

PROGRAM = Path(__file__).with_name("loop_program.py")

# Seconds after which the program hangs.
PATIENCE = 60

PARTS = [
    line.split("(")[0].removeprefix("def do")
    for line in PROGRAM.read_text(encoding="utf-8").splitlines()
    if line.startswith("def do")
]


def run(*arguments: str, warnings: str = "error") -> tuple[int, str, str]:
    """
    Run a program to its end.
    """
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", warnings, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return ran.returncode, ran.stdout, complaints(ran.stderr)


@pytest.mark.parametrize("part", PARTS)
def test_inAsyncioRun(part: str) -> None:
    """
    What the docstring of that part of the program says.
    """
    assert run(str(PROGRAM), part) == (0, "done\n", "")


MAKING = """
from concurrent.futures import ThreadPoolExecutor
from asynqueue import *
class Universe(WireWorkerUniverse):
    pass
made = [
    NullQueue(), ThreadQueue(), ProcessQueue(2), ProcessQueue(2, minimum=1),
    TaskQueue(AsyncWorker(), ThreadWorker(), ProcessWorker()),
    TaskQueue(ExecutorWorker(ThreadPoolExecutor(1))),
    TaskQueue(WireWorker(Universe(), "tcp:localhost:4000")),
    WireServer("tcp:0", Universe()), ServerManager(),
]
late = TaskQueue()
late.attachWorker(ThreadWorker())
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet.task import react
async def main(reactor):
    assert await made[1].call(pow, 2, 5) == await late.call(pow, 2, 5) == 32
react(main)
"""


@pytest.mark.measured
def test_makingInstallsNoReactor() -> None:
    """
    A program makes queues and workers of each kind, and then chooses its reactor.
    """
    assert run("-c", MAKING)[::2] == (0, "")


STOPPING = """
import sys
from twisted.internet import reactor
from asynqueue import ThreadQueue, ProcessQueue
queue, done = {make}, []
def answer(_, number):
    # The answer to a request needs a second call.
    return queue.call(abs, number).addCallback(done.append)
for number in range(16):
    queue.call(abs, number).addCallback(answer, number)
reactor.callWhenRunning(reactor.stop)
reactor.run()
assert done == list(range(16)), done
"""


@pytest.mark.parametrize("make", ["ThreadQueue(1)", "ProcessQueue(1)"])
def test_whatWasAcceptedIsDoneWhenTheReactorStops(make: str) -> None:
    """
    Calls that wait when the reactor is told to stop are made, in order, and so are
    those that follow from them.
    """
    assert run("-c", STOPPING.format(make=make)) == (0, "", "")


OWN = """
from twisted.internet import reactor
from twisted.internet.task import deferLater
from asynqueue import NullQueue, ThreadQueue, ProcessQueue
queue, done = {make}, []
def finish():
    # Two calls after all else was done, each long after what was before it.
    d = deferLater(reactor, 0.1, queue.call, abs, -1).addCallback(done.append)
    d.addCallback(lambda _: deferLater(reactor, 0.2, queue.call, abs, -2))
    return d.addBoth(done.append)
reactor.addSystemEventTrigger("before", "shutdown", finish)
queue.call(abs, 0).addCallback(lambda _: reactor.stop())
reactor.run()
assert done == [1, 2], done
"""


@pytest.mark.parametrize("make", ["NullQueue()", "ThreadQueue()", "ProcessQueue(2)"])
def test_shutdownTriggersOfTheProgramMayCall(make: str) -> None:
    """
    What the program itself has to do when the reactor is told to stop has its calls made,
    however long that takes, and nothing is left of the queue.
    """
    assert run("-c", OWN.format(make=make)) == (0, "", "")


GRACE = """
import threading
from twisted.internet import reactor
from asynqueue import ThreadQueue
queue, ended = ThreadQueue(1, timeout={timeout}), []
for call in (threading.Event().wait, 60), (abs, 1):
    queue.call(*call).addErrback(lambda failure: ended.append(failure.type.__name__))
reactor.callWhenRunning(reactor.stop)
reactor.run()
assert sorted(ended) == ["QueueRunError", "WorkerLost"], ended
"""


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_theGraceOfAStoppingReactorEnds(timeout: float) -> None:
    """
    What is not done within the time of the queue fails by name: at once, if that is 0.
    """
    assert run("-c", GRACE.format(timeout=timeout)) == (0, "", "")


IMPATIENT = """
import os, signal, sys, threading, time
from asynqueue import ProcessQueue, ThreadQueue, TaskQueue, ProcessWorker, ThreadWorker
if sys.argv[1] == "asyncio":
    from twisted.internet import asyncioreactor
    asyncioreactor.install()
from twisted.internet import reactor
queue, ended = TaskQueue(ThreadWorker(series=["t"]), ProcessWorker(series=["p"])), []
def signalled():
    os.kill(os.getpid(), signal.{signal})
def begun(pid):
    for call in (threading.Event().wait, "t"), (time.sleep, "p"):
        queue.call(call[0], 600, series=call[1]).addErrback(lambda f: ended.append(str(f.value)))
    # The second one when the first was heard.
    reactor.addSystemEventTrigger("before", "shutdown", reactor.callLater, 0.1, signalled)
    reactor.callLater(0.1, signalled)
    ended.append(pid)
queue.call(os.getpid, series="p").addCallback(begun)
reactor.run()
pid = ended.pop(0)
assert len(ended) == 2 and all("{signal} came while" in text for text in ended), ended
try:
    os.kill(pid, 0)
except ProcessLookupError:
    print("gone")
"""


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_secondSignalEndsTheProgram(name: str, reactor: str) -> None:
    """
    One more Ctrl-C, while calls that take their time keep the reactor from stopping, ends
    them and what runs them.
    """
    code, said, _ = run("-c", IMPATIENT.format(signal=name), reactor)
    # The reactor dies by the signal that has told it to stop, after all that.
    assert (code, said) in ((0, "gone\n"), (-getattr(signal, name), "gone\n"))


@pytest.mark.parametrize("kind", ["ThreadWorker", "AsyncWorker", "ProcessWorker", "TaskQueue"])
def test_whatIsNoReactorIsRefused(kind: str) -> None:
    """
    An object that is neither a reactor nor an asyncio loop is refused where it is given.
    """
    code = f"from asynqueue import *\ntry: {kind}(reactor='epoll')\nexcept TypeError as e: print(e)"
    status, said, _ = run("-c", code)
    assert status == 0
    assert "reactor='epoll' cannot drive anything" in said


SECURE = """
import asyncio, sys
from asynqueue import TaskQueue, WireServer, WireWorker, WireWorkerUniverse
class Universe(WireWorkerUniverse):
    def add(self, a, b):
        return a + b
async def main():
    made = sys.argv[1]
    server = WireServer(
        f"tls:0:interface=127.0.0.1:certificate={made}/server.pem:privateKey={made}/server.key"
        f":trustRoots={made}/trust", Universe()
    )
    await server.start()
    queue = TaskQueue(WireWorker(
        Universe(), f"tls:127.0.0.1:{server.address.port}:trustRoots={made}/trust"
        f":certificate={made}/client.pem:privateKey={made}/client.key"
    ))
    print(await queue.call("add", 3, 4))
    await queue.shutdown()
    await server.stop()
asyncio.run(main())
asyncio.run(main())
assert "twisted.internet.reactor" not in sys.modules
"""


@pytest.mark.measured
def test_secureWiresUseTheLoop(tmp_path: Path) -> None:
    """
    A host with certificates and its clients work in asyncio.run.
    """
    makeKeys(tmp_path)
    # Twisted passes to pyOpenSSL what that would rather have from another library.
    assert run("-c", SECURE, str(tmp_path), warnings="ignore") == (0, "7\n7\n", "")
