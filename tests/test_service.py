"""
What a service is told and how it lives, without processes, sockets and signals.
"""

from __future__ import annotations

import io
import json
import re
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, IService, IServiceMaker
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.python.usage import Options as UsageOptions, UsageError

import asynqueue.service
from asynqueue import NullQueue
from asynqueue.cores import cores
from asynqueue.errors import IdentityRequired
from asynqueue.service.logs import jsonLine, observerFor
from asynqueue.service.plugin import Options, makeService as makeFromOptions
from asynqueue.service.readiness import Notifier
from asynqueue.service.running import (
    HostService,
    QueueService,
    makeService,
    serverOf,
    whatOf,
    whereOf,
)
from asynqueue.service.settings import (
    OPTIONS,
    Settings,
    SettingsError,
    fileSettings,
    processesOf,
    settingsOf,
    trustOf,
)
from asynqueue.signals import EndSignals
from tests.doubles import Heard, readingLogs

LISTENING = {"listen": "unix:/tmp/crew.sock", "allow": ("math",)}

# Settings ----------------------------------------------------------------------


def test_everyRowHasHelpAndAName() -> None:
    """
    The table is complete: each row says what it is good for, under a name that a command
    line and a file can have.
    """
    assert len({option.name for option in OPTIONS}) == len(OPTIONS)
    assert all(option.help.endswith(tuple(".]")) for option in OPTIONS)
    assert all(option.name == option.name.lower() for option in OPTIONS)


def test_defaultsStandInTheHelp() -> None:
    """
    Who reads the help knows what holds if nothing is said.
    """
    helps = {option.name: option.fullHelp() for option in OPTIONS}
    assert helps["grace"].endswith("[default: 10]")
    assert helps["codec"].endswith("[default: pickle]")
    assert "[default" not in helps["log-json"]


def test_settingsOfACommandLine() -> None:
    """
    What is given is in the settings, and the rest has its defaults.
    """
    settings = settingsOf({**LISTENING, "key-file": "k", "grace": 3.0})
    assert (settings.listen, settings.keyFile, settings.grace) == (LISTENING["listen"], "k", 3.0)
    assert (settings.codec, settings.heartbeat, settings.series) == ("pickle", 10.0, ())


FILE = """
listen = "tcp:4000:interface=127.0.0.1"
universe = "farm.Farm"
allow = ["farm", "math"]
trust = "modules"
processes = 4
threads = 8
concurrent = 50
series = ["gpu", "linux"]
key-file = "shared.key"
codec = "cbor"
heartbeat = 5
grace = 30.5
log-level = "debug"
log-json = true
"""


def written(folder: Path, content: str) -> Path:
    """
    A file of settings.
    """
    path = folder / "crew.toml"
    path.write_text(content, encoding="utf-8")
    return path


def test_fileSaysAll(tmp_path: Path) -> None:
    """
    Every setting of a command line can stand in a file, under the same name.
    """
    settings = settingsOf({"config": str(written(tmp_path, FILE))})
    assert settings == Settings(
        config=str(tmp_path / "crew.toml"),
        listen="tcp:4000:interface=127.0.0.1",
        universe="farm.Farm",
        allow=("farm", "math"),
        trust="modules",
        processes=4,
        threads=8,
        concurrent=50,
        series=("gpu", "linux"),
        keyFile=str(tmp_path / "shared.key"),
        codec="cbor",
        heartbeat=5.0,
        grace=30.5,
        logLevel="debug",
        logJson=True,
    )
    names = {line.partition(" ")[0] for line in FILE.splitlines() if line}
    assert names == {option.name for option in OPTIONS} - {"config", "connect"}


def test_commandLineWins(tmp_path: Path) -> None:
    """
    Where both say something, the command line is right.
    """
    path = written(tmp_path, FILE)
    settings = settingsOf({"config": str(path), "processes": 0, "key-file": "mine.key"})
    assert (settings.processes, settings.keyFile, settings.threads) == (0, "mine.key", 8)


def test_oneWordIsAListOfOne(tmp_path: Path) -> None:
    """
    A file may say a single word where there may be several.
    """
    assert fileSettings(written(tmp_path, 'series = "a, b"'))["series"] == ("a", "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("liste = 'x'", "unknown key 'liste': is it 'listen'?"),
        ("key_file = 'x'", "is it 'key-file'?"),
        ("zzz = 1", "known are allow, codec"),
        ("config = 'other.toml'", "unknown key 'config'"),
        ("processes = 'two'", "processes takes a whole number, 0 or more, not 'two'"),
        ("processes = true", "processes takes a whole number"),
        ("threads = 0", "threads takes a whole number, 1 or more"),
        ("grace = -1", "grace takes a number of seconds"),
        ("grace = inf", "grace takes a number of seconds"),
        ("trust = 'all'", "trust takes one of universe, modules, code, not 'all'"),
        ("log-json = 'yes'", "log-json takes true or false"),
        ("series = [1]", "series takes some text"),
        ("series = 5", "series takes a list such as"),
        ("listen = ''", "listen takes some text"),
        ("listen = ", "is no TOML"),
    ],
)
def test_wrongFileSaysWhere(tmp_path: Path, content: str, message: str) -> None:
    """
    A file that has no sense is refused, with its name, the key, and what it should be.
    """
    path = written(tmp_path, content)
    with pytest.raises(SettingsError) as raised:
        settingsOf({"config": str(path)})
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


def test_unreadableFile(tmp_path: Path) -> None:
    """
    A file that is not there is an error, and not an empty one.
    """
    with pytest.raises(SettingsError, match=r"cannot read .*nothing\.toml: No such file"):
        settingsOf({"config": str(tmp_path / "nothing.toml")})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is no TOML"):
        settingsOf({"config": str(tmp_path / "bytes.toml")})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"allow": ("math",)}, "where to listen"),
        ({**LISTENING, "connect": "unix:/b"}, "not both"),
        ({"listen": "unix:/a"}, "nothing could be called"),
        ({"listen": "unix:/a", "trust": "modules", "universe": "a.B"}, "needs --allow"),
        ({**LISTENING, "trust": "universe"}, "leave --allow out"),
        ({"listen": "unix:/a", "trust": "code", "codec": "cbor"}, "sends no code"),
    ],
)
def test_whatDoesNotFitTogether(given: dict[str, Any], message: str) -> None:
    """
    Settings that contradict each other are refused before anything is opened.
    """
    with pytest.raises(SettingsError, match=message):
        settingsOf(given)


def test_trustFollowsWhatIsAllowed() -> None:
    """
    Who allows modules trusts modules; who trusts code need name nothing.
    """
    assert trustOf(settingsOf(LISTENING)) == "modules"
    assert trustOf(settingsOf({"listen": "unix:/a", "universe": "a.B"})) == "universe"
    assert trustOf(settingsOf({"listen": "unix:/a", "trust": "code"})) == "code"


def test_functionsRunInProcesses() -> None:
    """
    Functions, which may block, have a process for each core; methods run in the reactor;
    unless somebody says how many.
    """
    assert processesOf(settingsOf(LISTENING)) == cores()
    assert processesOf(settingsOf({"listen": "unix:/a", "universe": "a.B"})) == 0
    assert processesOf(settingsOf({**LISTENING, "processes": 0})) == 0


def optionNamed(name: str) -> Any:
    """
    A row of the table.
    """
    return next(option for option in OPTIONS if option.name == name)


def test_wordsAreReadOneByOneOrTogether() -> None:
    """
    Several words may be separated by commas, or each have its option.
    """
    assert optionNamed("series").read(["a,b", "c"]) == ("a", "b", "c")
    assert optionNamed("series").read("a, b") == ("a", "b")
    with pytest.raises(SettingsError, match=r"--series takes some text, not 'a,,b'"):
        optionNamed("series").read("a,,b")


@pytest.mark.parametrize(
    ("name", "text"),
    [("processes", "-1"), ("processes", "x"), ("grace", "nan"), ("codec", "xml"), ("listen", "")],
)
def test_wrongOptionSaysWhatItTakes(name: str, text: str) -> None:
    """
    What a command line gives is checked like what a file says.
    """
    with pytest.raises(SettingsError, match=f"--{name} takes "):
        optionNamed(name).read(text)


# The plugin --------------------------------------------------------------------


def parsedOptions(*arguments: str, parent: Any = None) -> Any:
    """
    The options of the plugin, as twist and twistd parse them.
    """
    options = Options()
    options.parent = parent
    options.parseOptions(list(arguments))
    return options


def test_pluginIsFound() -> None:
    """
    The plugin that is installed names the module that it is made of.
    """
    (found,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "asynqueue"]
    assert found.options is Options
    assert found.makeService is makeFromOptions


def test_pluginTakesTheWholeTable() -> None:
    """
    Every row of the table is an option of the plugin, with its help.
    """
    usage = " ".join(str(Options()).split())
    for option in OPTIONS:
        assert f"--{option.name}" in usage
        assert " ".join(option.fullHelp().split()) in usage


def test_pluginMakesSettings() -> None:
    """
    Options become settings: words may be repeated, flags need no value.
    """
    options = parsedOptions(
        "--listen=unix:/a", "--allow=math,json", "--allow", "re", "--log-json", "--grace=2"
    )
    assert options.settings == Settings(
        listen="unix:/a", allow=("math", "json", "re"), logJson=True, grace=2.0
    )


@pytest.mark.parametrize("arguments", [["--listen=unix:/a"], ["--grace=x"], ["--config=/no/file"]])
def test_pluginRefusesWrongUsage(arguments: list[str]) -> None:
    """
    What has no sense is wrong usage, as Twisted reports it.
    """
    with pytest.raises(UsageError):
        parsedOptions(*arguments)


def test_pluginTellsItsVersion(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The version is ours, not Twisted's.
    """
    with pytest.raises(SystemExit) as raised:
        parsedOptions("--version")
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"AsynQueue {asynqueue.__version__}\n"


def test_pluginTellsTwistHowToLog() -> None:
    """
    Under twist the level and the form of the log are those of our options.
    """
    twist = UsageOptions()
    twist["fileLogObserverFactory"] = None
    parsedOptions(
        "--listen=unix:/a", "--allow=math", "--log-json", "--log-level=warn", parent=twist
    )
    assert twist["logLevel"] is LogLevel.warn
    file = io.StringIO()
    twist["fileLogObserverFactory"](file)({"log_time": 0.0, "log_format": "hello"})
    assert json.loads(file.getvalue())["text"] == "hello"


def twistdOptions(**values: Any) -> UsageOptions:
    """
    What twistd was told.
    """
    parent = UsageOptions()
    parent.update(values)
    return parent


def test_pluginTellsTwistdHowToLog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Under twistd what logs is a component of the application: where nothing is said of
    logs, there is none, and twistd does as it likes.
    """
    monkeypatch.chdir(tmp_path)
    arguments = ["--listen=unix:/a", "--allow=math"]
    for more, isThere in [([], False), (["--log-json"], True), (["--log-level=info"], True)]:
        options = parsedOptions(*arguments, *more, parent=twistdOptions(nodaemon=True))
        application = Application("test")
        makeFromOptions(options).setServiceParent(application)
        assert (application.getComponent(ILogObserver) is not None) is isThere


@pytest.mark.parametrize(
    ("values", "name"),
    [({"logfile": "here.log", "nodaemon": True}, "here.log"), ({"nodaemon": 0}, "twistd.log")],
)
def test_pluginLogsToTheFileOfTwistd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], name: str
) -> None:
    """
    The file is the one that twistd was told, or would take.
    """
    files: list[LogFile] = []

    def opened(path: str) -> LogFile:
        files.append(LogFile.fromFullPath(path))
        return files[0]

    monkeypatch.chdir(tmp_path)
    options = parsedOptions(
        "--listen=unix:/a", "--allow=math", "--log-json", parent=twistdOptions(**values)
    )
    application = Application("test")
    makeFromOptions(options, opened).setServiceParent(application)
    observer: Any = application.getComponent(ILogObserver)
    Logger(namespace="here", observer=observer).info("hello")
    files[0].close()
    assert json.loads((tmp_path / name).read_text(encoding="utf-8"))["text"] == "hello"


# Logs --------------------------------------------------------------------------


def lineOf(act: Any) -> dict[str, Any]:
    """
    The line for what is logged.
    """
    lines: list[str] = []
    publisher = LogPublisher(lambda event: lines.append(jsonLine(event)))
    act(Logger(namespace="here", observer=publisher))
    (line,) = lines
    assert line.endswith("\n")
    assert line.count("\n") == 1
    told: dict[str, Any] = json.loads(line)
    return told


def test_eventIsALineOfJSON() -> None:
    """
    An event is one line: when, how bad, who, what, and what the text was made of.
    """
    told = lineOf(lambda log: log.warn("{n} of\n{what}", n=3, what="these", other=object()))
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "warn",
        "system": "here",
        "text": "3 of\nthese",
        "fields": {"n": 3, "what": "these"},
    }


def test_failureHasItsTraceback() -> None:
    """
    What was raised is told with its traceback, also if nobody said a word with it.
    """
    told = lineOf(lambda log: log.failure("it failed", Failure(ValueError("bad"))))
    assert told["text"] == "it failed"
    assert "ValueError: bad" in told["traceback"]
    assert told["level"] == "critical"
    assert lineOf(lambda log: log.failure("", Failure(ValueError("x"))))["text"] == "ValueError: x"


@pytest.mark.parametrize("asJSON", [False, True])
def test_leastLevelIsKept(asJSON: bool) -> None:
    """
    What is below the level is not written, in either form.
    """
    file = io.StringIO()
    log = Logger(observer=observerFor(file, "warn", asJSON))
    log.info("quiet")
    log.error("loud")
    assert "loud" in file.getvalue()
    assert "quiet" not in file.getvalue()


# Life --------------------------------------------------------------------------


class FakeServer:
    """
    A server that starts and stops when the test says so.
    """

    def __init__(self, address: Any = None) -> None:
        self.address = address
        self.started: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()
        self.graces: list[float | None] = []

    def start(self) -> Deferred[None]:
        return self.started

    def stop(self, grace: float | None = None) -> Deferred[None]:
        self.graces.append(grace)
        return self.stopped if len(self.graces) == 1 else succeed(None)


class FakeNotifier(Notifier):
    """
    Notes what the service manager is told.
    """

    def __init__(self) -> None:
        super().__init__({})
        self.told: list[str] = []

    def ready(self, status: str) -> None:
        self.told.append(f"ready: {status}")

    def stopping(self, status: str) -> None:
        self.told.append("stopping")


class FakeInterrupts(EndSignals):
    """
    A signal is a call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.heard: Any = None
        self.isEnding = False

    def hear(self, listener: Any) -> None:
        self.heard = listener

    def ending(self) -> None:
        self.isEnding = True

    def ended(self) -> None:
        self.heard = None


class FakeReactor(MemoryReactorClock):
    """
    Counts the triggers that are taken back.
    """

    removed = 0

    def addSystemEventTrigger(self, *args: Any, **kw: Any) -> Any:
        super().addSystemEventTrigger(*args, **kw)
        return object()

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        self.removed += 1


class World:
    """
    A service, and all that it meets.
    """

    def __init__(self, **given: Any) -> None:
        self.reactor: Any = FakeReactor()
        self.server = FakeServer()
        self.notifier = FakeNotifier()
        self.interrupts = FakeInterrupts()
        self.failures: list[Failure] = []
        self.service = HostService(
            settingsOf({**LISTENING, **given}),
            failed=self.failures.append,
            makeServer=lambda settings, reactor: self.server,
            notifier=self.notifier,
            interrupts=self.interrupts,
            reactor=self.reactor,
        )

    def startReactor(self) -> None:
        """
        The reactor runs, and what waits for that is called.
        """
        self.reactor.hasRun = True
        for f, args, kw in self.reactor.whenRunningHooks:
            f(*args, **kw)
        self.reactor.whenRunningHooks.clear()


@pytest.fixture
def world() -> Iterator[World]:
    """
    A service whose reactor does not run yet.
    """
    with readingLogs():
        yield World()


def test_readyWhenItServes(world: World) -> None:
    """
    A service is ready when its server serves and the reactor runs, not before.
    """
    world.service.startService()
    world.startReactor()
    assert not world.notifier.told
    world.server.started.callback(None)
    world.startReactor()
    assert world.notifier.told == ["ready: serving at unix:/tmp/crew.sock"]


def test_readyOnlyWhenTheReactorRuns(world: World) -> None:
    """
    A port that is open is of no use while nobody accepts.
    """
    world.server.started.callback(None)
    world.service.startService()
    assert not world.notifier.told
    world.startReactor()
    assert len(world.notifier.told) == 1


def test_readyIsLogged() -> None:
    """
    There is a line in the log that says where, and what.
    """
    with readingLogs() as log:
        world = World()
        world.server.address = IPv4Address("TCP", "127.0.0.1", 4711)
        world.service.startService()
        world.server.started.callback(None)
        world.startReactor()
    (event,) = [event for event in log.events if "where" in event]
    assert event["where"] == "at unix:/tmp/crew.sock (127.0.0.1:4711)"
    assert "functions of math" in event["what"]


def test_startedTwiceIsStartedOnce(world: World) -> None:
    """
    A service that is started again goes on.
    """
    world.service.startService()
    world.service.startService()
    assert len(world.reactor.triggers["before"]["shutdown"]) == 1


@pytest.mark.parametrize("error", [IdentityRequired("tcp:1"), ZeroDivisionError()])
def test_failureIsToldAndLogged(error: Exception) -> None:
    """
    A service that cannot serve says why, and is not ready; only a fault has a traceback.
    """
    with readingLogs() as log:
        world = World()
        world.service.startService()
        world.server.started.errback(error)
        world.startReactor()
    assert [failure.value for failure in world.failures] == [error]
    assert world.service.failure is world.failures[0]
    assert not world.notifier.told
    (event,) = [event for event in log.events if event["log_level"] is LogLevel.critical]
    assert ("log_failure" in event) is isinstance(error, ZeroDivisionError)


def test_serverThatCannotBeMade() -> None:
    """
    What is wrong with the settings is told in the same way.
    """

    def makeServer(settings: Settings, reactor: Any) -> FakeServer:
        raise ValueError("no such universe")

    failures: list[Failure] = []
    with readingLogs():
        service = HostService(
            settingsOf(LISTENING),
            failed=failures.append,
            makeServer=makeServer,
            reactor=MemoryReactorClock(),
        )
        service.startService()
        assert [str(failure.value) for failure in failures] == ["no such universe"]
        assert Heard(service.stopService()).result is None


def served(world: World) -> World:
    """
    The same, when it serves.
    """
    world.service.startService()
    world.server.started.callback(None)
    world.startReactor()
    return world


def test_stopDrains(world: World) -> None:
    """
    To stop is to let what runs end: in the time of the server, and no less.
    """
    served(world)
    heard = Heard(world.service.stopService())
    assert world.server.graces == [None]
    assert world.notifier.told[1:] == ["stopping"]
    assert not heard.results
    world.server.stopped.callback(None)
    assert heard.result is None
    assert not world.service.forced
    assert world.interrupts.heard is None
    assert world.reactor.removed == 1


def test_stoppedTwiceStopsOnce(world: World) -> None:
    """
    All who stop it wait for the same end.
    """
    served(world)
    heard = [Heard(world.service.stopService()) for _ in range(2)]
    world.server.stopped.callback(None)
    assert [each.result for each in heard] == [None, None]
    assert world.server.graces == [None]
    assert Heard(world.service.stopService()).result is None


def test_secondSignalEndsAtOnce(world: World) -> None:
    """
    A signal while it stops leaves no time to what runs.
    """
    served(world)
    assert not world.interrupts.isEnding
    heard = Heard(world.service.stopService())
    assert world.interrupts.isEnding
    world.interrupts.heard(signal.SIGTERM)
    assert world.server.graces == [None, 0]
    assert world.service.forced
    world.server.stopped.callback(None)
    assert heard.result is None


def test_noTimeLeftOnlyWhileStopping(world: World) -> None:
    """
    A service that serves does not end at once.
    """
    served(world)
    world.service.endNow()
    assert world.server.graces == []


def test_reactorThatStopsWaitsForIt(world: World) -> None:
    """
    When the reactor stops, the service does, before anything that its server has to do
    with it.
    """
    served(world)
    ((stop, _, _),) = world.reactor.triggers["before"]["shutdown"]
    heard = Heard(stop())
    assert world.server.graces == [None]
    world.server.stopped.callback(None)
    assert heard.result is None


def test_stoppedBeforeItServes(world: World) -> None:
    """
    A service that is stopped as it starts is never ready.
    """
    world.service.startService()
    world.service.stopService()
    world.server.started.callback(None)
    world.startReactor()
    assert world.notifier.told == ["stopping"]


def test_endThatGoesWrong() -> None:
    """
    A server that fails to stop is logged, and the end comes all the same.
    """
    with readingLogs() as log:
        world = served(World())
        world.server.stopped = fail(ZeroDivisionError())
        assert Heard(world.service.stopService()).result is None
    assert [event["log_failure"].type for event in log.events if "log_failure" in event] == [
        ZeroDivisionError
    ]


def test_neverStartedStopsAtOnce() -> None:
    """
    There is nothing to wait for.
    """
    assert Heard(World().service.stopService()).result is None


def test_serviceOfAQueue() -> None:
    """
    A queue is shut down with its service.
    """
    queue = NullQueue()
    service = makeService(queue)
    assert isinstance(service, QueueService)
    service.startService()
    assert Heard(service.stopService()).result is None
    assert not queue.isRunning()


def test_serviceOfSettings() -> None:
    """
    Settings make a host, whose server is one of the wire, and does nothing yet.
    """
    service = makeService(settingsOf(LISTENING))
    assert isinstance(service, HostService)
    assert IService.providedBy(service)
    assert "unix:/tmp/crew.sock" in repr(serverOf(settingsOf({**LISTENING, "processes": 0})))


def test_whereAndWhatInWords() -> None:
    """
    What stands in the log is what a reader wants to know.
    """
    listening = settingsOf({**LISTENING, "universe": "a.B", "trust": "code", "processes": 1})
    assert whereOf(listening, UNIXAddress(b"/a")) == "at unix:/tmp/crew.sock"
    assert whatOf(listening) == "methods of a.B, functions of math, any code; in 1 process"
    dialing = settingsOf({"connect": "tcp:q:1", "universe": "a.B"})
    assert whereOf(dialing) == "the queue at tcp:q:1"
    assert whatOf(dialing) == "methods of a.B; in the reactor"


def test_namesOfThePackage() -> None:
    """
    The package has its public names, and no others.
    """
    assert all(getattr(asynqueue.service, name) for name in asynqueue.service.__all__)
    with pytest.raises(AttributeError, match="noSuchName"):
        asynqueue.service.noSuchName  # noqa: B018


# The manual --------------------------------------------------------------------

MANUAL = Path(__file__).parent.parent / "docs" / "service.rst"


def blockOf(language: str, text: str) -> str:
    """
    The first block of a language in the manual that has a text.
    """
    pattern = rf"^\.\. code-block:: {language}\n\n((?:(?: {{3}}.*)?\n)+)"
    blocks = re.findall(pattern, MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
    return next(textwrap.dedent(block) for block in blocks if text in block)


def test_manualShowsEveryKey(tmp_path: Path) -> None:
    """
    The file that the manual shows has every key, and can be read as it stands.
    """
    content = blockOf("toml", "listen")
    shown = set(re.findall(r"^(?:# )?([a-z-]+) = ", content, re.MULTILINE))
    assert shown == {option.name for option in OPTIONS if option.inFile}
    settings = settingsOf({"config": str(written(tmp_path, content))})
    assert settings.series == ("gpu", "linux")


def test_manualShowsAUnitThatWorks() -> None:
    """
    What the manual has systemd start is a worker with settings that have sense.
    """
    unit = blockOf("ini", "ExecStart")
    command = re.findall("ExecStart=(.*)", unit)[0].split()
    assert command[0].endswith("/asynqueue")
    settings = parsedOptions(*command[2:]).settings
    assert settings.listen.startswith("systemd:")
    (seconds,) = re.findall(r"TimeoutStopSec=(\d+)", unit)
    assert settings.grace < int(seconds)
