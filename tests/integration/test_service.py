"""
Hosts as a shell, twistd, twist and systemd run them: real processes, sockets and signals.
Nothing here waits for a time: only for a line, an end or a process.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest

import asynqueue
from asynqueue.service.readiness import Notifier
from tests.doubles import readingLogs

ROOT = Path(asynqueue.__file__).parent.parent

# Seconds after which something hangs.
PATIENCE = 60

MODULE = """
import os, signal, time
from asynqueue.wire import WireWorkerUniverse

PREFIX = "number "

def double(text):
    return text * 2

def prefixed(text):
    return PREFIX + text

def whoAmI(text):
    return os.getpid()

def gate(text):
    '''Say that it runs, and return when the test says so.'''
    with open("begun", "w") as file:
        file.write(f"{os.getpid()}\\n")
    with open("gate") as file:
        file.readline()
    return text

def stubborn(text):
    '''Neither ends nor listens.'''
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with open("begun", "w") as file:
        file.write(f"{os.getpid()}\\n")
    while True:
        time.sleep(1000)

def die(text):
    os.kill(os.getpid(), signal.SIGKILL)

def strange(text):
    return {1, 2}

def stepOver(value):
    return value + 1

class Farm(WireWorkerUniverse):
    def measure(self, text):
        return len(text)

    def block(self, text):
        '''Keeps the reactor of its host from everything.'''
        with open("begun", "w") as file:
            file.write(f"{os.getpid()}\\n")
        while True:
            time.sleep(1000)
"""

WORKER = [sys.executable, "-m", "asynqueue", "worker"]
TWISTD = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "asynqueue"]
TWIST = [str(Path(sys.executable).with_name("twist")), "--log-format=text", "asynqueue"]
HOSTS = [
    pytest.param(WORKER, id="worker"),
    pytest.param(TWISTD, id="twistd"),
    pytest.param(TWIST, id="twist"),
]


class Running:
    """
    A program that runs, and its log.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        # What hangs is ended, and so is the waiting for its lines.
        self.timer = Timer(PATIENCE, process.kill)
        self.timer.daemon = True
        self.timer.start()

    def waitFor(self, pattern: str) -> re.Match[str]:
        """
        The first line, from now on, in which there is a pattern.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError(f"{pattern!r} is not in\n{''.join(self.lines)}")

    def ended(self) -> tuple[int, str]:
        """
        How it ended, and all that it logged.
        """
        assert self.process.stdout is not None
        # Not communicate(): some of it may be in the buffer of the file already.
        self.lines.append(self.process.stdout.read())
        return self.process.wait(PATIENCE), "".join(self.lines)


class Shell:
    """
    A folder with a module, in which programs are run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = f"unix:{folder}/host.sock"
        self.started: list[Running] = []
        (folder / "farm.py").write_text(MODULE, encoding="utf-8")
        os.mkfifo(folder / "begun")
        os.mkfifo(folder / "gate")

    def start(
        self,
        program: Sequence[str],
        *arguments: str,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        **kw: Any,
    ) -> Running:
        """
        Start a program, and go on. What it says on both of its outputs is one.
        """
        ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=folder or self.folder,
            env={**os.environ, **ours, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kw,
        )
        self.started.append(Running(process))
        return self.started[-1]

    def host(self, *arguments: str, program: Sequence[str] = WORKER, **kw: Any) -> Running:
        """
        A host at C{socket} that serves.
        """
        host = self.start(program, "--listen", self.socket, *arguments, **kw)
        host.waitFor("serving at unix:")
        return host

    def run(self, *arguments: str, folder: Path | None = None) -> tuple[int, str, str]:
        """
        Run the command to its end.

        @return: exit status, standard output, standard error.
        """
        done = subprocess.run(
            [sys.executable, "-m", "asynqueue", *arguments],
            cwd=folder or self.folder,
            env=dict(os.environ, PYTHONPATH=str(ROOT), COLUMNS="100"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def map(self, function: str, *arguments: str, **kw: Any) -> list[Any]:
        """
        The results of a map over the host, in which all goes well.
        """
        status, out, err = self.run("map", "--hosts", self.socket, function, *arguments, **kw)
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    def startMap(self, function: str, *arguments: str) -> Running:
        """
        Start a map over the host, and wait until a call has begun.
        """
        program = [sys.executable, "-m", "asynqueue", "map", "--hosts", self.socket]
        running = self.start(program, function, *arguments)
        self.waitForCall()
        return running

    def waitForCall(self) -> int:
        """
        Wait until a call runs.

        @return: the number of its process.
        """
        return int((self.folder / "begun").read_text(encoding="utf-8"))

    def openGate(self) -> None:
        """
        Let a call return.
        """
        (self.folder / "gate").write_text("\n", encoding="utf-8")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """
    A folder of its own. Whatever still runs in the end is ended.
    """
    shell = Shell(tmp_path)
    yield shell
    for running in shell.started:
        running.timer.cancel()
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


# Serving -----------------------------------------------------------------------


@pytest.mark.parametrize("program", HOSTS)
def test_hostServesAndEnds(shell: Shell, program: list[str]) -> None:
    """
    Whoever runs it, a host serves, with modules of the working directory, until SIGTERM.
    """
    host = shell.host("--allow", "farm", "--processes", "1", program=program)
    assert shell.map("farm:double", "a", "b") == ["aa", "bb"]
    host.process.terminate()
    status, log = host.ended()
    assert status == (0 if program is WORKER else -signal.SIGTERM)
    assert "ended" in log
    assert "Traceback" not in log
    assert not (shell.folder / "host.sock").exists()


@pytest.mark.parametrize("program", HOSTS)
def test_signalDrains(shell: Shell, program: list[str]) -> None:
    """
    After SIGTERM a call that runs may end, and its result arrives; what had not begun is
    given back.
    """
    host = shell.host("--allow", "farm", "--processes", "1", program=program)
    run = shell.startMap("farm:gate", "one", "two")
    host.process.terminate()
    host.waitFor("what runs has 10 s")
    shell.openGate()
    assert host.ended()[0] in (0, -signal.SIGTERM)
    # The other call waits for the host to come back.
    run.waitFor("the host left; trying to reach it again")
    shell.host("--allow", "farm", "--processes", "1", program=program)
    shell.waitForCall()
    shell.openGate()
    status, out = run.ended()
    assert status == 0, out
    assert '"one"\n' in out
    assert out.endswith('"two"\n')


@pytest.mark.parametrize("program", HOSTS)
def test_secondSignalEndsAtOnce(shell: Shell, program: list[str]) -> None:
    """
    Who sends a second signal does not wait for what runs, however long its grace is.
    """
    host = shell.host("--allow", "farm", "--processes", "1", "--grace", "10000", program=program)
    run = shell.startMap("farm:gate", "one")
    host.process.terminate()
    host.waitFor("a second signal ends it at once")
    host.process.send_signal(signal.SIGINT)
    status, log = host.ended()
    assert status == (128 + signal.SIGTERM if program is WORKER else -signal.SIGTERM), log
    assert "ending at once" in log
    status, out = run.ended()
    assert status == 1
    assert "WorkerLost" in out


@pytest.mark.measured
def test_graceEnds(shell: Shell) -> None:
    """
    What runs on when the grace is over is ended, processes included.
    """
    host = shell.host("--allow", "farm", "--processes", "1", "--grace", "0.2")
    program = [sys.executable, "-m", "asynqueue", "map", "--hosts", shell.socket]
    shell.start(program, "farm:stubborn", "one")
    child = psutil.Process(shell.waitForCall())
    host.process.terminate()
    assert host.ended()[0] == 0
    psutil.wait_procs([child], timeout=PATIENCE)
    assert not child.is_running()


def test_blockedReactorEndsWithTheSecondSignal(shell: Shell) -> None:
    """
    Also a host whose reactor hangs ends, and says what it was doing.
    """
    host = shell.host("--universe", "farm.Farm")
    code = (
        "import sys\n"
        "from twisted.internet.task import react\n"
        "from asynqueue import TaskQueue\n"
        "from asynqueue.wire import WireWorker\n"
        "react(lambda r, d: TaskQueue(WireWorker(None, d)).call('block', 'x'), sys.argv[1:])\n"
    )
    shell.start([sys.executable, "-c", code], shell.socket)
    shell.waitForCall()
    host.process.send_signal(signal.SIGTERM)
    host.process.send_signal(signal.SIGINT)
    status, log = host.ended()
    assert status != 0
    assert "in block" in log


def test_ctrlCEndsAWorker(shell: Shell) -> None:
    """
    Ctrl-C is as good as SIGTERM.
    """
    host = shell.host("--allow", "farm")
    host.process.send_signal(signal.SIGINT)
    assert host.ended()[0] == 0


def test_hostDialsAQueue(shell: Shell) -> None:
    """
    A host may dial a queue that listens, and serves it.
    """
    code = (
        "import sys\n"
        "from twisted.internet.task import react\n"
        "from asynqueue import TaskQueue\n"
        "from asynqueue.wire import WireHub\n"
        "async def main(reactor, description):\n"
        "    queue = TaskQueue()\n"
        "    hub = WireHub(queue, description)\n"
        "    await hub.start()\n"
        "    print('listening', flush=True)\n"
        "    print('result', await queue.call('measure', 'four', series='hay'), flush=True)\n"
        "    await hub.stop()\n"
        "    await queue.shutdown()\n"
        "react(main, sys.argv[1:])\n"
    )
    hub = shell.start([sys.executable, "-c", code], shell.socket)
    hub.waitFor("listening")
    host = shell.start(
        WORKER, "--connect", shell.socket, "--universe", "farm.Farm", "--series", "hay"
    )
    host.waitFor("serving the queue at unix:")
    hub.waitFor("result 4")
    assert hub.ended()[0] == 0
    host.process.terminate()
    assert host.ended()[0] == 0


# Settings ----------------------------------------------------------------------


@pytest.mark.parametrize("program", HOSTS)
def test_settingsOfAFile(shell: Shell, program: list[str]) -> None:
    """
    A file says all that a host needs.
    """
    path = shell.folder / "crew.toml"
    path.write_text(
        f'listen = "{shell.socket}"\nuniverse = "farm.Farm"\ngrace = 1.5\n', encoding="utf-8"
    )
    host = shell.start(program, "--config", str(path))
    host.waitFor("serving at unix:.*methods of farm.Farm")
    assert shell.map("measure", "four") == [4]


@pytest.mark.parametrize("program", HOSTS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "unix:x"], "nothing could be called"),
        (["--listen", "unix:x", "--allow", "farm", "--grace", "soon"], "--grace takes a number"),
        (["--config", "nothing.toml"], "cannot read nothing.toml"),
    ],
)
def test_wrongUsageIsRefused(
    shell: Shell, program: list[str], arguments: list[str], message: str
) -> None:
    """
    Wrong settings are refused, with what is wrong, and no traceback.
    """
    status, out = shell.start(program, *arguments).ended()
    assert status not in (0, None)
    assert message in " ".join(out.split())
    assert "Traceback" not in out
    if program is WORKER:
        assert status == 2


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (WORKER, ["--listen", "tcp:0", "--allow", "farm"], "asynqueue keys DIRECTORY"),
        (TWISTD, ["--listen", "tcp:0", "--allow", "farm"], "asynqueue keys DIRECTORY"),
        (TWIST, ["--listen", "tcp:0", "--allow", "farm"], "asynqueue keys DIRECTORY"),
        (WORKER, ["--listen", "unix:x", "--universe", "nothing.There"], "nothing"),
        (TWIST, ["--listen", "unix:/no/such/folder/x", "--allow", "farm"], "No such file"),
        (TWISTD, ["--listen", "unix:x", "--allow", "farm", "--key-file", "no.key"], "no.key"),
        (WORKER, ["--listen", "nonsense:x", "--allow", "farm"], "nonsense"),
        (
            TWIST,
            ["--listen", "systemd:domain=UNIX:name=x", "--allow", "farm"],
            "passed no such socket",
        ),
    ],
    ids=lambda given: given[0].rpartition("/")[2] if isinstance(given, list) else None,
)
def test_hostThatCannotServe(
    shell: Shell, program: list[str], arguments: list[str], message: str
) -> None:
    """
    A host that cannot serve says why in its log, and ends with a status that says so.
    """
    status, log = shell.start(program, *arguments).ended()
    assert status == 1, log
    assert "cannot serve" in log
    assert message in log
    assert "serving" not in log
    assert "Traceback" not in log


@pytest.mark.measured
def test_refusedByTheQueue(shell: Shell) -> None:
    """
    A host that the queue does not want ends: to dial again would be of no use.
    """
    assert shell.run("keys", "one")[0] == shell.run("keys", "two")[0] == 0
    code = (
        "import sys\n"
        "from twisted.internet.defer import Deferred\n"
        "from twisted.internet.task import react\n"
        "from asynqueue import TaskQueue\n"
        "from asynqueue.wire import WireHub\n"
        "async def main(reactor, description):\n"
        "    await WireHub(TaskQueue(), description, keyFile='one/shared.key').start()\n"
        "    print('listening', flush=True)\n"
        "    await Deferred()\n"
        "react(main, sys.argv[1:])\n"
    )
    shell.start([sys.executable, "-c", code], shell.socket).waitFor("listening")
    arguments = ["--connect", shell.socket, "--allow", "farm", "--key-file", "two/shared.key"]
    status, log = shell.start(WORKER, *arguments).ended()
    assert status == 1
    assert "the proof of identity" in log


def test_helpOfAllPrograms(shell: Shell) -> None:
    """
    Each program tells all options, in the same words.
    """
    for program in (WORKER, TWISTD, TWIST):
        status, out = shell.start(program, "--help").ended()
        words = " ".join(out.split())
        assert status == 0
        for option in ("--listen", "--connect", "--key-file", "--log-json", "--grace"):
            assert option in words
        assert "made by `asynqueue keys`" in words


# Service managers --------------------------------------------------------------


def notified(folder: Path) -> tuple[socket.socket, dict[str, str]]:
    """
    What a service manager listens at, and the environment that says so.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(folder / "notify"))
    listener.settimeout(PATIENCE)
    return listener, {"NOTIFY_SOCKET": str(folder / "notify")}


@pytest.mark.parametrize("program", HOSTS)
def test_managerIsTold(shell: Shell, program: list[str]) -> None:
    """
    The service manager is told when the host serves, and when it ends.
    """
    listener, env = notified(shell.folder)
    with listener:
        host = shell.start(
            program, "--listen", shell.socket, "--allow", "farm", "--processes=0", env=env
        )
        told = listener.recv(1000).decode().splitlines()
        assert told[0] == "READY=1"
        assert told[1].startswith("STATUS=serving at unix:")
        assert told[2] == f"MAINPID={host.process.pid}"
        # It does serve then.
        assert shell.run("status", shell.socket, "--interval=0")[0] == 0
        host.process.terminate()
        assert listener.recv(1000).decode().splitlines()[0] == "STOPPING=1"
        host.ended()


def test_managerThatIsGone(tmp_path: Path) -> None:
    """
    Where nobody listens any more, that is logged, and the service serves.
    """
    environment = {"NOTIFY_SOCKET": str(tmp_path / "nobody")}
    with readingLogs() as log:
        Notifier(environment).ready("fine")
    assert len(log.events) == 1
    assert environment == {}


def test_managerAtAnAbstractName() -> None:
    """
    Names without files, as Linux has them, are found.
    """
    if sys.platform != "linux":
        pytest.skip("only Linux has such names")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")
        name = listener.getsockname().decode()
        Notifier({"NOTIFY_SOCKET": name.replace("\0", "@", 1)}).ready("fine")
        assert listener.recv(1000).startswith(b"READY=1\nSTATUS=fine")


# As systemd does: the descriptor is 3, and the variables name the process.
PASSING = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="crew")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("program", HOSTS)
def test_socketIsPassed(shell: Shell, program: list[str]) -> None:
    """
    A host serves at a socket that systemd has opened for it; who connected before waits.
    """
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(shell.folder / "host.sock"))
        passed.listen()
        status = shell.start([sys.executable, "-m", "asynqueue"], "status", shell.socket)
        host = shell.start(
            [sys.executable, "-c", PASSING, str(passed.fileno()), *program],
            "--listen",
            "systemd:domain=UNIX:index=0",
            "--allow",
            "farm",
            "--processes=0",
            pass_fds=[passed.fileno()],
        )
        host.waitFor("serving at systemd:")
        code, out = status.ended()
        assert (code, f"process {host.process.pid}" in out) == (0, True)
        host.process.terminate()
        assert host.ended()[0] in (0, -signal.SIGTERM)


def test_logOfJSON(shell: Shell) -> None:
    """
    With C{--log-json} each line of the log is JSON, whoever runs the host.
    """
    for program in (WORKER, TWISTD, TWIST):
        host = shell.host("--allow", "farm", "--processes=0", "--log-json", program=program)
        host.process.terminate()
        _, log = host.ended()
        events = [json.loads(line) for line in log.splitlines()]
        (serving,) = [event for event in events if event["text"].startswith("serving")]
        assert serving["level"] == "info"
        assert serving["system"] == "asynqueue.service.running"
        assert serving["fields"]["where"].startswith("at unix:")


def test_levelOfTheLog(shell: Shell) -> None:
    """
    With a higher level all is quiet.
    """
    listener, env = notified(shell.folder)
    with listener:
        for program in (WORKER, TWISTD, TWIST):
            arguments = ["--listen", shell.socket, "--allow", "farm", "--processes=0"]
            host = shell.start(program, *arguments, "--log-level", "warn", env=env)
            assert listener.recv(1000).startswith(b"READY")
            host.process.terminate()
            assert host.ended()[1] == ""
            listener.recv(1000)


# Asking ------------------------------------------------------------------------


@pytest.mark.measured
def test_statusOfAHost(shell: Shell) -> None:
    """
    A host tells what it is, what it runs, and what has ended.
    """
    host = shell.host("--allow", "farm", "--processes", "2", "--series", "hay")
    assert len(shell.map("farm:double", *"abc")) == 3
    code, out, err = shell.run("status", shell.socket, "--json", "--interval", "0.1")
    assert (code, err) == (0, "")
    status = json.loads(out)
    assert (status["pid"], status["trust"], status["series"]) == (
        host.process.pid,
        "modules",
        ["hay"],
    )
    assert (status["done"], status["failed"], status["running"]) == (3, 0, 0)
    assert status["rateNow"] == 0
    assert status["rate"] > 0
    kinds = [worker["kind"] for worker in status["workers"]]
    assert kinds == ["ThreadWorker", "ProcessWorker", "ProcessWorker"]
    assert status["version"] == asynqueue.__version__
    code, out, _ = shell.run("status", shell.socket)
    assert code == 0
    assert re.search(r"calls +0 running, 0 queued\n", out)
    assert re.search(r"3 +ProcessWorker +ready", out)


def test_busyHostTells(shell: Shell) -> None:
    """
    A host whose workers are all busy tells it.
    """
    shell.host("--allow", "farm", "--processes", "1")
    run = shell.startMap("farm:gate", *"abcde")
    _, out, _ = shell.run("status", shell.socket, "--json", "--interval=0")
    status = json.loads(out)
    assert status["running"] + status["queued"] >= 1
    run.process.kill()


@pytest.mark.parametrize("codec", ["pickle", "cbor"])
def test_statusNeedsTheKey(shell: Shell, codec: str) -> None:
    """
    A host tells nothing to those who do not have its key; with it, by either codec.
    """
    assert shell.run("keys", "keys")[0] == 0
    shell.host("--allow", "farm", "--key-file", "keys/shared.key", "--codec", codec)
    code, out, err = shell.run("status", shell.socket, "--codec", codec)
    assert (code, out) == (1, "")
    assert "has no key" in err or "the proof of identity" in err
    arguments = ["--codec", codec, "--key-file", "keys/shared.key", "--interval=0"]
    assert shell.run("status", shell.socket, *arguments)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unix:nothing.sock"], "cannot reach unix:nothing.sock: No such file or directory"),
        (["nonsense"], "nonsense"),
        (["tcp:one.example:4000"], "asynqueue keys"),
        (["unix:x", "--key-file", "no.key"], "no key file no.key"),
        (["unix:x", "--codec", "xml"], "--codec takes one of"),
    ],
)
def test_statusOfNobody(shell: Shell, arguments: list[str], message: str) -> None:
    """
    Where there is nobody to ask, that is said at once.
    """
    code, out, err = shell.run("status", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.measured
def test_statusOfTheSilent(shell: Shell) -> None:
    """
    What takes connections and says nothing is waited for as long as was said.
    """
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(shell.folder / "host.sock"))
        silent.listen()
        code, _, err = shell.run("status", shell.socket, "--timeout", "0.2")
    assert code == 1
    assert "no answer within 0.2 s" in err


@pytest.mark.measured
def test_askingCanBeInterrupted(shell: Shell) -> None:
    """
    Ctrl-C ends the asking, cleanly.
    """
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(shell.folder / "host.sock"))
        silent.listen()
        asking = shell.start([sys.executable, "-m", "asynqueue"], "status", shell.socket)
        silent.accept()[0].close()
        code, out = asking.ended()
        assert (code, "cannot reach" in out) == (1, True)
        asking = shell.start([sys.executable, "-m", "asynqueue"], "status", shell.socket)
        with silent.accept()[0]:
            asking.process.send_signal(signal.SIGINT)
            code, out = asking.ended()
    assert (code, out.strip()) == (128 + signal.SIGINT, "asynqueue: interrupted")


# Keys --------------------------------------------------------------------------


def test_keysAreMadeOnce(shell: Shell) -> None:
    """
    Keys are made, with their use; those that are there are kept, unless forced.
    """
    code, out, _ = shell.run("keys", "keys", "--host", "one.example", "--days", "3")
    assert code == 0
    assert "keys/shared.key" in out
    assert "--key-file keys/shared.key" in out
    key = (shell.folder / "keys" / "shared.key").read_bytes()
    code, out, err = shell.run("keys", "keys")
    assert (code, out) == (1, "")
    assert "--force" in err
    assert (shell.folder / "keys" / "shared.key").read_bytes() == key
    assert shell.run("keys", "keys", "--force")[0] == 0
    assert (shell.folder / "keys" / "shared.key").read_bytes() != key


@pytest.mark.measured
def test_keysOfNoHost(shell: Shell) -> None:
    """
    What is no name of a host is refused, and nothing is made.
    """
    code, _, err = shell.run("keys", "keys", "--host", "no such name")
    assert (code, "neither the name nor the IP address" in err) == (1, True)
    assert not (shell.folder / "keys").exists()


def test_commandsThatKeysShows(shell: Shell) -> None:
    """
    Host and map with certificates of both sides work as C{asynqueue keys} shows it.
    """
    _, out, _ = shell.run("keys", "keys")
    options = dict(re.findall(r"--(listen|hosts) (\S+)", out))
    key = ["--key-file", "keys/shared.key"]
    listen = options["listen"].replace(":4000:", ":0:") + ":interface=127.0.0.1"
    host = shell.start(WORKER, "--listen", listen, "--allow", "farm", "--processes=1", *key)
    port = host.waitFor(r"\(127\.0\.0\.1:(\d+)\)")[1]
    dial = options["hosts"].replace("HOST:4000", f"localhost:{port}")
    code, out, err = shell.run("map", "--hosts", dial, *key, "farm:double", "a")
    assert (code, out, err) == (0, '"aa"\n', "")


# Mapping -----------------------------------------------------------------------


def test_mapOverTwoHosts(shell: Shell) -> None:
    """
    Calls go to all hosts, and results have the order of the inputs.
    """
    sockets = [f"unix:{shell.folder}/{name}.sock" for name in ("one", "two")]
    hosts = []
    for each in sockets:
        hosts.append(shell.start(WORKER, "--listen", each, "--allow", "farm", "--processes=1"))
        hosts[-1].waitFor("serving")
    inputs = [str(n) for n in range(500)]
    code, out, err = shell.run(
        "map", "--hosts", ",".join(sockets), "-n", "1", "farm:double", *inputs
    )
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [text * 2 for text in inputs]
    for each in sockets:
        assert json.loads(shell.run("status", each, "--json", "--interval=0")[1])["done"] > 0


def test_mapSendsCode(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    A host that trusts code runs functions of modules that only the working directory of
    the map has, with what they refer to.
    """
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shell.host("--trust", "code", "--processes", "1", folder=elsewhere)
    shell.socket = shell.socket
    assert shell.map("farm:prefixed", "1", "2") == ["number 1", "number 2"]
    assert shell.map("builtins:len", "four") == [4]


def test_mapOverThreads(shell: Shell) -> None:
    """
    Where a host has no processes, calls are made in its threads, and do not keep its
    reactor from other things.
    """
    shell.host("--allow", "farm", "--processes", "0", "--threads", "2")
    run = shell.startMap("farm:gate", "one")
    assert shell.run("status", shell.socket, "--interval=0")[0] == 0
    shell.openGate()
    assert run.ended() == (0, '"one"\n')


def test_mapOfMethodsAndJSON(shell: Shell) -> None:
    """
    A name without a module is a method; JSON is read and written by the command.
    """
    shell.host("--universe", "farm.Farm", "--allow", "farm", "--codec", "cbor", "--processes=1")
    assert shell.map("measure", "four", "--codec", "cbor") == [4]
    assert shell.map("farm:stepOver", "--json", "41", "--codec", "cbor") == [42]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["farm:strange", "a"], 1, "MaybeEncodingError"),
        (["farm:die", "a"], 1, "WorkerLost"),
        (["farm:stepOver", "--json", "{"], 2, "NoJSON"),
        (["farm:stepOver", "a"], 1, "TypeError"),
        (["json:loads", "1"], 1, "'json:loads' cannot be called there"),
        (["method", "1"], 1, "'method' cannot be called there"),
        (["farm:nothing", "1"], 2, "has no 'nothing'"),
    ],
)
def test_mapThatFails(shell: Shell, arguments: list[str], code: int, message: str) -> None:
    """
    A failure on a host is told like one here.
    """
    shell.host("--allow", "farm", "--processes", "1")
    status, out, err = shell.run("map", "--hosts", shell.socket, *arguments)
    assert (status, out) == (code, "")
    assert message in err


def test_timeoutOnAHost(shell: Shell) -> None:
    """
    A call on a host that takes too long is ended there.
    """
    shell.host("--allow", "farm", "--processes", "1")
    arguments = ["map", "--hosts", shell.socket, "--timeout", "0.2", "farm:gate", "a"]
    run = shell.start([sys.executable, "-m", "asynqueue"], *arguments)
    shell.waitForCall()
    status, out = run.ended()
    assert (status, "TaskTimedOut" in out) == (1, True)
    # Its process is free again, or another one is there.
    assert shell.map("farm:double", "b") == ["bb"]


def test_hostThatIsNotThere(shell: Shell) -> None:
    """
    Hosts that are not there are told of; without any, that is the end.
    """
    nobody = f"unix:{shell.folder}/nobody.sock"
    shell.host("--allow", "farm", "--processes", "1")
    both = f"{nobody},{shell.socket}"
    status, out, err = shell.run("map", "--hosts", both, "farm:double", "a")
    assert (status, out) == (0, '"aa"\n')
    missing = f"asynqueue: cannot reach {nobody}: No such file or directory"
    assert err == f"{missing}; going on without it\n"
    status, out, err = shell.run("map", "--hosts", nobody, "farm:double", "a")
    assert (status, out) == (2, "")
    assert err == f"{missing}\n"


def test_drainedHostLosesNothing(shell: Shell) -> None:
    """
    A host that is told to end in the middle of many calls costs none of them: what it had
    not begun is made by others.
    """
    (shell.folder / "inputs").write_text("".join(f"{n}\n" for n in range(20_000)), encoding="utf-8")
    leaving = shell.host("--allow", "farm", "--processes", "1")
    other = f"unix:{shell.folder}/other.sock"
    staying = shell.start(WORKER, "--listen", other, "--allow", "farm", "--processes", "1")
    staying.waitFor("serving")
    program = [sys.executable, "-m", "asynqueue", "map", "--hosts", f"{shell.socket},{other}"]
    run = shell.start(program, "--lines", "farm:double", "inputs")
    run.waitFor('"500500"')
    leaving.process.terminate()
    assert leaving.ended()[0] == 0
    status, out = run.ended()
    assert status == 0
    results = [json.loads(line) for line in out.splitlines() if not line.startswith("asynqueue")]
    assert results == [f"{n}{n}" for n in range(20_000)]


def test_killedHostIsReplaced(shell: Shell) -> None:
    """
    With C{--retries} calls on a host that was killed are made when it is back.
    """
    host = shell.host("--allow", "farm", "--processes", "1")
    program = [sys.executable, "-m", "asynqueue", "map", "--hosts", shell.socket]
    run = shell.start(program, "--retries", "1", "farm:gate", "one", "two")
    shell.waitForCall()
    host.process.kill()
    run.waitFor("trying to reach it again")
    host.ended()
    (shell.folder / "host.sock").unlink()
    shell.host("--allow", "farm", "--processes", "1")
    for _ in range(2):
        shell.waitForCall()
        shell.openGate()
    status, out = run.ended()
    assert status == 0
    assert out.endswith('"one"\n"two"\n')


def test_mapThatIsInterruptedCancels(shell: Shell) -> None:
    """
    What a map that is interrupted had begun ends on the host, too.
    """
    host = shell.host("--allow", "farm", "--processes", "1")
    run = shell.startMap("farm:gate", "one", "two", "three")
    run.process.send_signal(signal.SIGINT)
    assert run.ended()[0] == 128 + signal.SIGINT
    # The host is free: the next call is made.
    assert shell.map("farm:double", "b") == ["bb"]
    host.process.terminate()
    assert host.ended()[0] == 0
