"""
The parts of the command that have to do with hosts, without any: what is sent, what comes
back, who is there, and what people are shown.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue import TaskQueue, WorkerLost
from asynqueue.cli import asynqueue as asynqueueCommand
from asynqueue.command.crew import CrewDelegate
from asynqueue.command.hosts import HostCrew, Hosts, Shipped, toCall
from asynqueue.command.job import NoJSON, NoSuchFunction, findFunction
from asynqueue.command.status import HostAddress, HostUnreachable, shown
from asynqueue.errors import IdentityRefused
from asynqueue.service.settings import OPTIONS
from asynqueue.status import STATUS, statusOf
from asynqueue.testing import MemoryQueue

# What is sent ------------------------------------------------------------------

LOCAL = """
import local_helper

def shout(text):
    return local_helper.louder(text) + "!"
"""

HELPER = """
def louder(text):
    return text.upper()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """
    A working directory with modules of its own.
    """
    (tmp_path / "local_shout.py").write_text(LOCAL, encoding="utf-8")
    (tmp_path / "local_helper.py").write_text(HELPER, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    findFunction.cache_clear()
    yield tmp_path
    findFunction.cache_clear()
    for name in ("local_shout", "local_helper"):
        sys.modules.pop(name, None)


def test_localModulesTravel(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    A function of the working directory runs where nothing of that directory is, with what
    it refers to; and has its name, for hosts that take names only.
    """
    function = toCall("local_shout:shout", folder)
    assert isinstance(function, Shipped)
    assert function("hey") == "HEY!"
    assert (function.__module__, function.__qualname__) == ("local_shout", "shout")  # type: ignore[attr-defined]
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)('hey'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(function),
        capture_output=True,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == b"HEY!"


def test_installedModulesHaveTheirNames(folder: Path) -> None:
    """
    What every host can have is named, not sent.
    """
    assert toCall("json:loads", folder) is json.loads
    assert toCall("os.path:basename", folder) is os.path.basename


def test_methodsAreNames(folder: Path) -> None:
    """
    A name without a module is for the universe of the hosts to know.
    """
    assert toCall("measure", folder) == "measure"
    with pytest.raises(NoSuchFunction):
        toCall("local_shout:nothing", folder)


def test_modulesWithoutFiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Modules that are in no file, or in a strange one, do not disturb.
    """
    strange = ModuleType("strange")
    strange.__file__ = 5  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "strange", strange)
    monkeypatch.setitem(sys.modules, "nowhere", ModuleType("nowhere"))
    assert toCall("json:loads", folder) is json.loads


# What comes back ---------------------------------------------------------------


def lineOf(function: Any, text: str, parse: bool = False) -> Any:
    """
    The line of one input, if a host makes the call for it.
    """
    hosts = Hosts([HostAddress("unix:/a")], function, parse, None)
    try:
        return hosts.line(hosts.function(hosts.argument(text)))
    except Exception:
        return hosts.line(Failure())


def test_resultsAreLines() -> None:
    """
    What a host returns becomes a line of JSON here.
    """
    assert [lineOf(str.upper, text) for text in ("a", "é")] == [b'"A"', '"É"'.encode()]


def test_inputsAreParsedHere() -> None:
    """
    With JSON, the host gets the value; what is no JSON does not get to the host.
    """
    assert [lineOf(len, text, parse=True) for text in ("[1, 2]", '"abc"')] == [b"2", b"3"]
    with pytest.raises(NoJSON):
        Hosts([], len, True, None).argument("{")


def test_failuresAreWords() -> None:
    """
    What a call raised, a result that is no JSON, and a lost host are failures with a name.
    """

    def lost(text: str) -> None:
        raise WorkerLost("f('a')", "WireWorker 1 (host)", reason="it is gone")

    kinds = [lineOf(f, "a").kind for f in (int, lambda text: {text}, lost)]
    assert kinds == ["ValueError", "MaybeEncodingError", "WorkerLost"]


def test_moreHostsTakeMore() -> None:
    """
    How much is under way follows the number of hosts.
    """
    addresses = [HostAddress("unix:/a"), HostAddress("unix:/b")]
    one, two = (Hosts(addresses[:n], len, False, None) for n in (1, 2))
    assert two.room == two.leastRoom == 2 * one.room


# Who is there ------------------------------------------------------------------


class Crew:
    """
    A crew whose hosts answer when the test says so, and whose workers are hired at once.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hosts: int = 2) -> None:
        self.clock = Clock()
        self.queue = TaskQueue(reactor=self.clock)
        self.asked: list[Deferred[Any]] = []
        self.attached: list[Any] = []
        self.detached: list[Any] = []
        self.said: list[str] = []
        self.gaveUp: list[str] = []
        monkeypatch.setattr(self.queue, "attachWorker", self.attach)
        monkeypatch.setattr(self.queue, "detachWorker", self.detach)
        addresses = [HostAddress(f"unix:/host{n}") for n in range(hosts)]
        delegate = CrewDelegate(self.queue, self.said.append, self.gaveUp.append, self.clock)
        self.crew = HostCrew(delegate, addresses, 3, inquire=self.ask)

    def ask(self, reactor: Any, address: HostAddress) -> Deferred[Any]:
        d: Deferred[Any] = Deferred()
        self.asked.append(d)
        return d

    def attach(self, worker: Any) -> Deferred[Any]:
        self.attached.append(worker)
        self.crew.workerHired(worker)
        return Deferred()

    def detach(self, worker: Any, crash: bool = False) -> Deferred[Any]:
        self.detached.append((worker, crash))
        d: Deferred[Any] = Deferred()
        d.callback([])
        return d

    def answer(self, number: int, kind: str = "ProcessWorker") -> None:
        """
        A host tells what workers it has.
        """
        self.asked[number].callback({"workers": [{"kind": "ThreadWorker"}, {"kind": kind}]})


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Crew:
    """
    A crew of two hosts.
    """
    return Crew(monkeypatch)


def test_hostsAreAskedOnceAndWhenNeeded(crew: Crew) -> None:
    """
    Without calls nobody is dialed; with some, each host once.
    """
    crew.crew.need(0)
    assert not crew.asked
    crew.crew.need(5)
    crew.crew.need(6)
    assert len(crew.asked) == 2


def test_threadsWhereThereAreNoProcesses(crew: Crew) -> None:
    """
    A host without processes makes the calls in threads: its reactor is for others, too.
    """
    crew.crew.need(1)
    crew.answer(0)
    crew.answer(1, "AsyncWorker")
    flags = [worker._flags for worker in crew.attached]
    assert flags[0] == 0
    assert flags[1] != 0


def test_missingHostIsToldOf(crew: Crew) -> None:
    """
    One host that is missing is told of; when all are, there is nothing to go on with.
    """
    crew.crew.need(1)
    crew.asked[0].errback(HostUnreachable("unix:/host0", "nobody"))
    assert crew.said == ["cannot reach unix:/host0: nobody; going on without it"]
    assert not crew.gaveUp
    crew.asked[1].errback(IdentityRefused("host1", "no key"))
    assert crew.gaveUp == ["the proof of identity with host1 failed: no key"]


def test_lostHostIsWaitedFor(crew: Crew) -> None:
    """
    Without any host for a while there is nothing to wait for; one that comes back in time
    is welcome.
    """
    crew.crew.need(1)
    crew.answer(0)
    (worker,) = crew.attached
    crew.crew.workerLeft(worker)
    assert crew.said == ["unix:/host0: it left; trying to reach it again"]
    crew.clock.advance(29)
    crew.crew.workerHired(worker)
    crew.clock.advance(100)
    assert not crew.gaveUp
    crew.crew.workerLeft(worker)
    crew.clock.advance(31)
    assert crew.gaveUp == ["no host could be reached for 30 s"]


def test_hostThatAnsweredAndIsGone(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who has answered and cannot be reached after that is not waited for without end either.
    """
    monkeypatch.setattr(crew.crew, "workerHired", lambda worker: None)
    crew.crew.need(1)
    crew.answer(0)
    crew.clock.advance(31)
    assert crew.gaveUp == ["no host could be reached for 30 s"]


def test_otherHostsGoOn(crew: Crew) -> None:
    """
    While one host is there, the loss of another ends nothing.
    """
    crew.crew.need(1)
    crew.answer(0)
    crew.answer(1)
    crew.crew.workerLeft(crew.attached[0])
    crew.clock.advance(100)
    assert not crew.gaveUp


def test_dismissedCrewSaysNothing(crew: Crew) -> None:
    """
    Who is let go is not missed: neither those who serve, nor those who are being asked.
    """
    crew.crew.need(1)
    crew.answer(0)
    crew.crew.dismiss()
    crew.crew.workerLeft(crew.attached[0])
    assert crew.detached == [(crew.attached[0], False)]
    assert (crew.said, crew.gaveUp, crew.clock.getDelayedCalls()) == ([], [], [])


def test_endedCrewCrashes(crew: Crew) -> None:
    """
    At an early end connections are cut, so that the hosts end what they run.
    """
    crew.crew.need(1)
    crew.answer(0)
    crew.crew.workerLeft(crew.attached[0])
    crew.crew.end()
    assert crew.detached == [(crew.attached[0], True)]
    assert not crew.clock.getDelayedCalls()


# What people are shown ---------------------------------------------------------


def test_statusIsPlain() -> None:
    """
    What a host tells of itself is JSON, whatever labels its series have.
    """
    queue = MemoryQueue()
    queue.call(len, "a", series=("odd", 1))
    queue.call(len, "b")
    status = statusOf(queue, slots=3, series=["gpu", 7], trust="code", held=2, names=["f"])
    assert json.loads(json.dumps(status)) == status
    assert (status["slots"], status["series"], status["held"]) == (3, ["gpu", "7"], 2)
    assert status["pid"] == os.getpid()
    assert [flow["series"] for flow in status["flows"]] == ["('odd', 1)"]
    assert STATUS == "asynqueue:status"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h"), (7200.5, "2 h")],
)
def test_durations(seconds: float, text: str) -> None:
    """
    A time is told in its two largest units.
    """
    status = statusOf(MemoryQueue(), slots=1) | {"uptime": seconds, "rate": 1.0, "host": "unix:/a"}
    assert f"up        {text}\n" in shown(status)


def invoked(*arguments: str) -> tuple[int, str]:
    """
    Exit status and output of a command that needs no reactor.
    """
    result = CliRunner().invoke(asynqueueCommand, list(arguments))
    return result.exit_code, result.output


def test_workerHasTheWholeTable() -> None:
    """
    Every row of the table of services is an option of the worker, with its help.
    """
    code, output = invoked("worker", "--help")
    assert code == 0
    words = " ".join(output.split())
    for option in OPTIONS:
        assert f"--{option.name}" in words
        # Lines may be broken at hyphens.
        assert " ".join(option.help.split()[:4]) in words


def test_workerRefusesWrongUsage() -> None:
    """
    What does not fit together is wrong usage.
    """
    assert invoked("worker", "--listen", "unix:x")[0] == 2
    code, output = invoked("worker", "--allow", "math")
    assert (code, "where to listen" in output) == (2, True)
    code, output = invoked("worker", "--listen=unix:x", "--allow=math", "--processes=-1")
    assert (code, "--processes takes a whole number" in output) == (2, True)


@pytest.mark.parametrize("name", ["map", "worker"])
def test_examplesAreLines(name: str) -> None:
    """
    The examples in the help stand as they would be typed, one in a line.
    """
    code, output = invoked(name, "--help")
    lines = output.splitlines()
    start = lines.index("  Examples:") + 1
    assert code == 0
    assert all(f"asynqueue {name} " in line for line in lines[start : lines.index("", start)])


def test_commandsAreListed() -> None:
    """
    The command tells what it can do.
    """
    code, output = invoked("--help")
    assert code == 0
    assert all(f"\n  {name} " in output for name in ("keys", "map", "status", "worker"))
