"""
The C{asynqueue} command as a shell runs it: real processes, pipes, terminals and
signals. Nothing here waits for a time: only for a line, an end or a process.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import asynqueue

ROOT = Path(asynqueue.__file__).parent.parent

# Seconds after which something hangs.
PATIENCE = 120

MODULE = '''
import asyncio, os, signal, sys, time
from pathlib import Path

def double(text):
    return text * 2

def number(text):
    return int(text)

def gate(text):
    """Take a line of the named pipe: return when the test says so."""
    if text.startswith("wait"):
        with open("gate") as file:
            file.readline()
    return text

def hang(text):
    """Say that it runs, and run on for ever."""
    if text == "hang":
        with open("gate", "w") as file:
            file.write(f"{os.getpid()}\\n")
        while True:
            time.sleep(1000)
    return text

def stubborn(text):
    """Cannot be interrupted."""
    if text == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
        time.sleep(1000)
    return text

def deaf(text):
    """Hang, and do not listen."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    return hang(text)

def log(text):
    from twisted.logger import Logger
    Logger().info("nobody wants to know")
    Logger().error("about {text}", text=text)
    try:
        1 / 0
    except ZeroDivisionError:
        Logger().failure("bad")
    return text

def spin(text):
    try:
        while text == "spin":
            pass
    except Exception:
        return "swallowed"
    return text

async def sleep(text):
    await asyncio.sleep(1000 if text == "sleep" else 0)
    return text

def die(text):
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return text

def dieOnce(text):
    if text == "die" and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return text

def leave(text):
    sys.exit(3)

def talk(text):
    print("chatter of", text)
    os.system("echo shell of " + text)
    return text

def strange(text):
    return {"nan": float("nan"), "object": object(), "set": {1}, "fine": 1}[text]

def whoAmI(text):
    return os.getpid()

def nice(text):
    return os.nice(0)

class Shelf:
    @staticmethod
    def label(text):
        return {"label": text}

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")

    def __str__(self):
        return "first line\\nsecond line"

def odd(text):
    raise Odd(1, 2)

number_of_things = 7
'''

# A module that says that it is being imported, and is never done.
SLOW = """
import time
with open("gate", "w") as file:
    file.write("0")
while True:
    time.sleep(1000)
"""


class Shell:
    """
    A folder with modules, in which the command is run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "things.py").write_text(MODULE, encoding="utf-8")
        (folder / "broken.py").write_text("print('first')\n1 / 0\n", encoding="utf-8")
        (folder / "leaving.py").write_text("raise SystemExit(4)\n", encoding="utf-8")
        (folder / "slow.py").write_text(SLOW, encoding="utf-8")
        (folder / "needy.py").write_text("import not_there_at_all\n", encoding="utf-8")
        os.mkfifo(folder / "gate")

    def start(self, *arguments: str, **kw: Any) -> subprocess.Popen[bytes]:
        """
        Start the command, and go on.
        """
        kw = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kw
        process = subprocess.Popen(
            [sys.executable, "-m", "asynqueue", *arguments],
            cwd=self.folder,
            env=dict(os.environ, PYTHONPATH=str(ROOT), COLUMNS="100"),
            **kw,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, given: str | bytes = b"") -> tuple[int, str, str]:
        """
        Run the command to its end.

        @return: exit status, standard output, standard error.
        """
        given = given.encode() if isinstance(given, str) else given
        process = self.start(*arguments)
        out, err = process.communicate(given, PATIENCE)
        assert b"Traceback" not in err or "--traceback" in arguments, err.decode()
        return process.returncode, out.decode(), err.decode()

    def map(self, function: str, *arguments: str, given: str = "") -> list[Any]:
        """
        The results of a run in which all goes well and nothing is said.
        """
        status, out, err = self.run("map", f"things:{function}", *arguments, given=given)
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    def openGate(self) -> None:
        """
        Let one call of C{gate} return. Waits for that call.
        """
        (self.folder / "gate").write_text("\n", encoding="utf-8")

    def waitForHanging(self) -> int:
        """
        Wait until a call of C{hang} runs.

        @return: the number of the process.
        """
        return int((self.folder / "gate").read_text(encoding="utf-8"))

    def tidyUp(self) -> None:
        """
        Nothing that a test has started is left.
        """
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """
    A folder to run commands in.
    """
    shell = Shell(tmp_path)
    yield shell
    shell.tidyUp()


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """
    All that a process has started, and what that has.
    """
    return psutil.Process(process.pid).children(recursive=True)


def assertGone(processes: list[psutil.Process]) -> None:
    """
    None of them is left, or will be left soon.
    """
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert alive == []


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """
    Wait for the end of the command: exit status, and what was not read yet.
    """
    out, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode()


# Inputs and results


@pytest.mark.parametrize("workers", ["process", "thread"])
def test_resultsHaveTheOrderOfTheInputs(shell: Shell, workers: str) -> None:
    """
    There is a line for each argument, in the same order, whoever makes the calls.
    """
    arguments = [str(n) for n in range(200)]
    assert shell.map("number", "--workers", workers, *arguments) == list(range(200))


def test_linesOfStandardInput(shell: Shell) -> None:
    """
    Without inputs, those are the lines of standard input, without their ends.
    """
    assert shell.map("double", given="to be\r\nor\n\nnot") == ["to beto be", "oror", "", "notnot"]


def test_dashIsStandardInput(shell: Shell) -> None:
    """
    A dash among the inputs stands for the lines of standard input.
    """
    assert shell.map("double", "a", "-", "b", given="c\nd\n") == ["aa", "cc", "dd", "bb"]


def test_linesOfFiles(shell: Shell) -> None:
    """
    With C{--lines} each input is a file, and a dash is standard input.
    """
    (shell.folder / "one").write_text("1\n2\n", encoding="utf-8")
    (shell.folder / "two").write_text("3", encoding="utf-8")
    assert shell.map("number", "--lines", "one", "-", "two", given="9\n") == [1, 2, 9, 3]


def test_jsonInputs(shell: Shell) -> None:
    """
    With C{--json} the function is given what the input means.
    """
    assert shell.map("double", "--json", "[1, 2]", '"x"', "21") == [[1, 2, 1, 2], "xx", 42]


def test_noInputsNoResults(shell: Shell) -> None:
    """
    No lines in, no lines out, and all is well.
    """
    assert shell.map("double") == []


def test_anyBytesMayBeInLines(shell: Shell) -> None:
    """
    What is no UTF-8, in file names for instance, goes in and comes out.
    """
    status, out, _ = shell.run("map", "things:double", given=b"\xff\xc3\xa9\n")
    assert status == 0
    assert json.loads(out) == "\udcff\xe9" * 2


def test_methodsCanBeNamed(shell: Shell) -> None:
    """
    The function may be an attribute of a class in the module.
    """
    assert shell.map("Shelf.label", "x") == [{"label": "x"}]


def test_resultsComeBeforeTheInputEnds(shell: Shell) -> None:
    """
    Standard input is not waited for: its first line has its result at once.
    """
    process = shell.start("map", "things:double")
    assert process.stdin is not None
    assert process.stdout is not None
    for word in (b"a", b"b"):
        process.stdin.write(word + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == word.decode() * 2
    assert ended(process) == (0, "", "")


@pytest.mark.measured
def test_endlessInput(shell: Shell) -> None:
    """
    An input without end is taken as it is used, and a reader that has enough
    ends the command, quietly, and all that it started.
    """
    source = subprocess.Popen(["yes", "ab"], stdout=subprocess.PIPE)
    process = shell.start("map", "things:double", stdin=source.stdout)
    assert source.stdout is not None
    assert process.stdout is not None
    source.stdout.close()
    lines = [process.stdout.readline() for _ in range(1000)]
    children = family(process)
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert lines == [b'"abab"\n'] * 1000
    assertGone(children)
    assert source.wait(PATIENCE) == -signal.SIGPIPE


def test_readerThatGoesAwayIsNoticedWithoutWriting(shell: Shell) -> None:
    """
    A reader that goes away ends the command also while a call goes on for ever.
    """
    process = shell.start("map", "things:hang", "hang")
    shell.waitForHanging()
    children = family(process)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assertGone(children)


def test_unorderedResultsComeAsTheyAreDone(shell: Shell) -> None:
    """
    With C{--unordered} a slow call does not keep the others back.
    """
    process = shell.start("map", "things:gate", "-n", "2", "--unordered", "wait", "a", "b")
    assert process.stdout is not None
    first = {process.stdout.readline(), process.stdout.readline()}
    assert first == {b'"a"\n', b'"b"\n'}
    shell.openGate()
    assert ended(process) == (0, '"wait"\n', "")


def test_outputOfTheFunctionIsNoResult(shell: Shell) -> None:
    """
    What a function prints goes to standard error, also what its programs print.
    """
    status, out, err = shell.run("map", "things:talk", "x")
    assert (status, out) == (0, '"x"\n')
    assert err.splitlines() == ["chatter of x", "shell of x"]


def test_slowReaderLosesNothing(shell: Shell) -> None:
    """
    A reader that is slow to begin gets all there is.
    """
    words = [str(n) * 1000 for n in range(3000)]
    process = shell.start("map", "things:double", "--workers", "thread")
    assert process.stdin is not None
    assert process.stdout is not None
    first = b""
    out, err = process.communicate("\n".join(words).encode(), PATIENCE)
    assert [json.loads(line) for line in (first + out).splitlines()] == [w * 2 for w in words]
    assert (process.returncode, err) == (0, b"")


# Workers


def test_processesAreNotTheCommand(shell: Shell) -> None:
    """
    By default calls are made in other processes, as many as were asked for.
    """
    process = shell.start("map", "things:whoAmI", "-n", "2")
    out, _ = process.communicate(b"x\n" * 500, PATIENCE)
    pids = {int(line) for line in out.splitlines()}
    assert 1 <= len(pids) <= 2
    assert process.pid not in pids


@pytest.mark.measured
def test_threadsAreOfTheCommand(shell: Shell) -> None:
    """
    With C{--workers thread} calls are made in the process of the command.
    """
    process = shell.start("map", "things:whoAmI", "--workers", "thread", "x")
    out, _ = process.communicate(timeout=PATIENCE)
    assert int(out) == process.pid


@pytest.mark.parametrize("workers", ["process", "thread"])
def test_niceness(shell: Shell, workers: str) -> None:
    """
    Calls run with the niceness that was asked for.
    """
    here = os.nice(0)
    expected = min(19, here + 3)
    assert shell.map("nice", "--niceness", "3", "--workers", workers, "x") == [expected]


# Failures


def test_failureEndsEverything(shell: Shell) -> None:
    """
    By default the first failure in the order of the inputs is told in one line,
    after the results before it.
    """
    status, out, err = shell.run("map", "things:number", "1", "2", "three", "4", "five")
    assert (status, out) == (1, "1\n2\n")
    assert err == (
        "asynqueue: input 3, 'three': ValueError: invalid literal for int() with base 10: 'three'\n"
    )


def test_failureWaitsForThoseBeforeIt(shell: Shell) -> None:
    """
    A slow call before the one that failed has its result written.
    """
    process = shell.start("map", "things:gate", "-n", "2", "--json", '"wait"', "7", '"late"')
    shell.openGate()
    status, out, err = ended(process)
    assert (status, out) == (1, '"wait"\n')
    assert "input 2, '7': AttributeError" in err


@pytest.mark.measured
def test_failureEndsUnorderedAtOnce(shell: Shell) -> None:
    """
    With C{--unordered} nobody is waited for: a call that hangs is ended.
    """
    process = shell.start("map", "things:hang", "--unordered", "-n", "2", "--json", '"hang"', "-")
    hanging = shell.waitForHanging()
    assert psutil.pid_exists(hanging)
    children = family(process)
    out, err = process.communicate(b"{bad\n", PATIENCE)
    assert (process.returncode, out) == (2, b"")
    assert b"input 2, '{bad': NoJSON" in err
    assertGone(children)


def test_failuresAreSkipped(shell: Shell) -> None:
    """
    C{--errors skip} leaves failures out, and says how many there were.
    """
    status, out, err = shell.run("map", "things:number", "--errors", "skip", "1", "x", "3")
    assert (status, out) == (1, "1\n3\n")
    assert err == "asynqueue: 1 of 3 inputs failed and were left out\n"


def test_failuresAreReported(shell: Shell) -> None:
    """
    C{--errors report} has a line for a failure, where its result would be.
    """
    status, out, err = shell.run("map", "things:number", "--errors", "report", "1", "x", "3")
    lines = [json.loads(line) for line in out.splitlines()]
    message = "invalid literal for int() with base 10: 'x'"
    assert lines == [1, {"input": "x", "error": {"type": "ValueError", "message": message}}, 3]
    assert (status, err) == (1, "asynqueue: 1 of 3 inputs failed\n")


@pytest.mark.measured
def test_verboseTellsOfEachFailure(shell: Shell) -> None:
    """
    With C{-v} failures that are left out are told, each in a line, and the speed.
    """
    arguments = ["-v", "-n", "1", "--errors", "skip", "x", "y"]
    status, _, err = shell.run("map", "things:number", *arguments)
    lines = err.splitlines()
    assert status == 1
    assert [line[:24] for line in lines[:2]] == [
        "asynqueue: input 1, 'x':",
        "asynqueue: input 2, 'y':",
    ]
    assert lines[3].startswith("asynqueue: 2 calls in ")


@pytest.mark.parametrize("errors", ["fail", "report"])
def test_tracebackIsShown(shell: Shell, errors: str) -> None:
    """
    With C{--traceback} it is told where a call failed: in the report, or on
    standard error.
    """
    _, out, err = shell.run("map", "things:number", "--traceback", "--errors", errors, "x")
    told = json.loads(out)["error"]["traceback"] if errors == "report" else err
    assert "return int(text)" in told
    assert "ValueError: invalid literal" in told


def test_failureIsOneLine(shell: Shell) -> None:
    """
    A message of many lines, of an exception that cannot be sent, is one line.
    """
    status, _, err = shell.run("map", "things:odd", "x")
    assert (status, err) == (
        1,
        "asynqueue: input 1, 'x': things.Odd: first line second line\n",
    )


def test_exitOfTheFunctionIsAFailure(shell: Shell) -> None:
    """
    A function that exits fails its own call.
    """
    status, _, err = shell.run("map", "things:leave", "x")
    assert (status, err) == (1, "asynqueue: input 1, 'x': SystemExit: 3\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nan", "Out of range float values are not JSON compliant"),
        ("object", "Object of type object is not JSON serializable"),
        ("set", "Object of type set is not JSON serializable"),
    ],
)
def test_resultThatIsNoJSON(shell: Shell, text: str, reason: str) -> None:
    """
    A result that JSON cannot carry is a failure, which says what it was.
    """
    status, out, err = shell.run("map", "things:strange", "fine", text)
    assert (status, out) == (1, "1\n")
    assert err.startswith(f"asynqueue: input 2, '{text}': MaybeEncodingError: the result ")
    assert reason in err
    assert err.count("\n") == 1


@pytest.mark.measured
@pytest.mark.parametrize("text", ["{", "NaN", "", "[" * 100_000])
def test_inputThatIsNoJSON(shell: Shell, text: str) -> None:
    """
    An input that is no JSON is bad input, told in one line.
    """
    status, out, err = shell.run("map", "things:double", "--json", given=f"1\n{text}\n")
    assert (status, out) == (2, "2\n")
    assert err.startswith("asynqueue: input 2, ")
    assert ": NoJSON: " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("things", "give a function as MODULE:FUNCTION, like json:loads, not 'things'"),
        ("things:", "give a function as MODULE:FUNCTION, like json:loads, not 'things:'"),
        (".things:double", "'.things' is not the name of a module"),
        ("nothing.here:f", "there is no module 'nothing'"),
        ("things.more:f", "there is no module 'things.more'"),
        ("things:missing", "module 'things' has no 'missing'"),
        ("things:Shelf.missing", "module 'things' has no 'Shelf.missing'"),
        ("things:number_of_things", "things:number_of_things is 7, which cannot be called"),
        ("needy:f", "cannot import needy: ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("leaving:f", "cannot import leaving: SystemExit: 4"),
    ],
)
def test_noSuchFunction(shell: Shell, function: str, line: str) -> None:
    """
    What names no function is refused in one line, before anything is read.
    """
    assert shell.run("map", function, "x") == (2, "", f"asynqueue: {line}\n")


def test_moduleThatFailsToImport(shell: Shell) -> None:
    """
    A module that raises is told of in one line; what it prints is no result.
    """
    status, out, err = shell.run("map", "broken:f", "x")
    assert (status, out) == (2, "")
    assert err == ("first\nasynqueue: cannot import broken: ZeroDivisionError: division by zero\n")


@pytest.mark.measured
def test_tracebackOfAnImport(shell: Shell) -> None:
    """
    With C{--traceback} it is shown where a module raised.
    """
    _, _, err = shell.run("map", "--traceback", "broken:f", "x")
    assert "1 / 0" in err


def test_fileThatCannotBeRead(shell: Shell) -> None:
    """
    A file that cannot be read ends the run, after the results of those before it.
    """
    (shell.folder / "one").write_text("1\n2\n", encoding="utf-8")
    status, out, err = shell.run("map", "things:number", "--lines", "one", "none", "one")
    assert (status, out) == (2, "1\n2\n")
    assert err == "asynqueue: cannot read none: No such file or directory\n"


def test_folderCannotBeRead(shell: Shell) -> None:
    """
    A folder is no file of inputs.
    """
    status, out, err = shell.run("map", "things:number", "--lines", ".")
    assert (status, out, err) == (2, "", "asynqueue: cannot read .: Is a directory\n")


def test_closedStandardInputAndOutput(shell: Shell) -> None:
    """
    Where there is no standard input, or output, that is said.
    """
    command = f"{sys.executable} -m asynqueue map things:double"
    for closed, line in [
        ("<&-", "cannot read standard input: it is closed"),
        ("x >&-", "standard output is closed"),
    ]:
        done = subprocess.run(
            ["sh", "-c", f"{command} {closed}"],
            cwd=shell.folder,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr.decode()) == (2, f"asynqueue: {line}\n")


def test_noStandardError(shell: Shell) -> None:
    """
    Where there is no standard error, what functions print goes nowhere.
    """
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m asynqueue map things:talk x 2>&-"],
        cwd=shell.folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b'"x"\n')


@pytest.mark.measured
def test_logsAreTold(shell: Shell) -> None:
    """
    Errors that are logged are told, each in a line.
    """
    status, out, err = shell.run("map", "things:log", "--workers", "thread", "x")
    assert (status, out) == (0, '"x"\n')
    assert err.splitlines() == [
        "asynqueue: about x",
        "asynqueue: something went wrong: ZeroDivisionError: division by zero",
    ]
    status, _, err = shell.run("map", "things:log", "--workers", "thread", "--traceback", "x")
    assert "1 / 0" in err


@pytest.mark.measured
def test_faultOfOurOwn(shell: Shell) -> None:
    """
    What should never happen is told in a line, and ends the command.
    """
    script = (
        "from asynqueue.cli import main\n"
        "from asynqueue.command.inputs import Inputs\n"
        "Inputs.batches = None\n"
        "main()\n"
    )
    (shell.folder / "script.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py", "map", "things:double", "x"],
        cwd=shell.folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"asynqueue: a fault of asynqueue: TypeError: ")


@pytest.mark.measured
def test_outputThatCannotBeWritten(shell: Shell) -> None:
    """
    An output that cannot be written (here it is open for reading, but the disk
    may as well be full) is told of in one line.
    """
    with open(shell.folder / "things.py", "rb") as file:
        process = shell.start("map", "things:double", "x", stdout=file)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert err.startswith(b"asynqueue: cannot write standard output: ")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--errors", "ignore"],
        ["-n", "0"],
        ["--niceness", "21"],
        ["--timeout", "0"],
        ["--retries", "-1"],
        ["--workers", "magic"],
        ["--what"],
    ],
)
def test_wrongUsage(shell: Shell, arguments: list[str]) -> None:
    """
    Options out of their ranges are refused, with the status of wrong usage.
    """
    status, out, err = shell.run("map", "things:double", *arguments)
    assert (status, out) == (2, "")
    assert "Error: " in err


# Deaths and limits


def test_deathOfAProcessFailsItsInput(shell: Shell) -> None:
    """
    A process that dies costs the input that it was at, and no other: another
    process takes its place.
    """
    words = [str(n) for n in range(50)]
    given = "\n".join([*words[:25], "die", *words[25:]])
    status, out, err = shell.run(
        "map", "things:die", "-v", "-n", "1", "--errors", "report", given=given
    )
    lines = [json.loads(line) for line in out.splitlines()]
    failures = [line for line in lines if isinstance(line, dict)]
    assert status == 1
    assert [(line["input"], line["error"]["type"]) for line in failures] == [("die", "WorkerLost")]
    assert [line["input"] if isinstance(line, dict) else line for line in lines] == given.split()
    assert "'die': WorkerLost: the process that ran it died (killed by SIGKILL)" in err


def test_deathOfAProcessIsTold(shell: Shell) -> None:
    """
    By default, the death of a process ends the run, in one line.
    """
    status, out, err = shell.run("map", "things:die", "-n", "1", "die")
    assert (status, out) == (1, "")
    line = "input 1, 'die': WorkerLost: the process that ran it died (killed by SIGKILL)"
    assert err == f"asynqueue: {line}\n"


def test_retryAfterADeath(shell: Shell) -> None:
    """
    With C{--retries} a call whose process died is made again.
    """
    assert shell.map("dieOnce", "--retries", "3", "-n", "1", "a", "die", "b") == ["a", "die", "b"]


def test_retriesHaveAnEnd(shell: Shell) -> None:
    """
    A call that kills process after process fails in the end, and only that one.
    """
    status, out, _ = shell.run(
        "map", "things:die", "--retries", "5", "--errors", "skip", "-n", "1", "a", "die", "b"
    )
    assert (status, out) == (1, '"a"\n"b"\n')


@pytest.mark.measured
def test_processesThatCannotStart(shell: Shell) -> None:
    """
    Processes that die before they are ready, one after the other, end the run.
    """
    (shell.folder / "deadly.py").write_text(
        "import os, sys\nif sys.argv[0] == '-c':\n    os._exit(7)\ndef f(text): pass\n",
        encoding="utf-8",
    )
    status, out, err = shell.run("map", "deadly:f", "-n", "1", "--errors", "skip", "x")
    assert (status, out) == (2, "")
    assert err == "asynqueue: 3 processes in a row died as they started (exit code 7)\n"


def test_processesThatCannotGetReady(shell: Shell) -> None:
    """
    A module that can be imported by the command but not by its processes ends
    the run.
    """
    (shell.folder / "picky.py").write_text(
        "import sys\nif sys.argv[0] == '-c': raise ImportError('not here')\ndef f(text): pass\n",
        encoding="utf-8",
    )
    status, out, err = shell.run("map", "picky:f", "x")
    assert (status, out) == (2, "")
    assert err == "asynqueue: a process cannot get ready: ImportError: not here\n"


@pytest.mark.parametrize("function", ["spin", "hang", "sleep"])
def test_timeout(shell: Shell, function: str) -> None:
    """
    A call that takes too long fails, whatever it catches; the next ones are made
    by the same process.
    """
    if function == "hang":
        (shell.folder / "gate").unlink()
    arguments = ["--timeout", "1", "-n", "1", "--errors", "report", "a", function, "b"]
    status, out, _ = shell.run("map", f"things:{function}", *arguments)
    first, second, third = [json.loads(line) for line in out.splitlines()]
    assert (status, first, third) == (1, "a", "b")
    assert second["error"] == {
        "type": "TaskTimedOut",
        "message": f"{function}('{function}') ran for more than its 1 s; give a longer timeout= if"
        " it may take longer",
    }


@pytest.mark.measured
def test_timeoutOfWhatCannotBeInterrupted(shell: Shell) -> None:
    """
    A call that is deaf to interrupts ends with its process.
    """
    arguments = ["--timeout", "0.5", "-n", "1", "--errors", "skip", "a", "hang", "b"]
    status, out, err = shell.run("map", "things:stubborn", *arguments)
    assert (status, out) == (1, '"a"\n"b"\n')
    assert err == "asynqueue: 1 of 3 inputs failed and were left out\n"


def test_timeoutOfAThread(shell: Shell) -> None:
    """
    A thread is not waited for when its call took too long, nor at the end.
    """
    (shell.folder / "gate").unlink()
    arguments = ["--workers", "thread", "--timeout", "0.5", "-n", "2", "--errors", "skip"]
    status, out, _ = shell.run("map", "things:hang", *arguments, "hang", "b")
    assert (status, out) == (1, '"b"\n')


# Signals


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_signalEndsCleanly(shell: Shell, number: int, status: int, word: str) -> None:
    """
    A signal ends the command, and all it started; what is done is written.
    """
    process = shell.start("map", "things:hang", "-n", "2", "a", "b", "hang", "d")
    shell.waitForHanging()
    assert process.stdout is not None
    assert process.stdout.readline() + process.stdout.readline() == b'"a"\n"b"\n'
    children = family(process)
    process.send_signal(number)
    assert ended(process) == (status, "", f"asynqueue: {word}: 2 results written\n")
    assertGone(children)


def test_signalWithThreads(shell: Shell) -> None:
    """
    A thread that hangs does not keep the command.
    """
    process = shell.start("map", "things:hang", "--workers", "thread", "hang")
    shell.waitForHanging()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "asynqueue: interrupted: 0 results written\n")


@pytest.mark.measured
def test_signalWhileInputIsAwaited(shell: Shell) -> None:
    """
    A signal ends the command while it waits for its input.
    """
    process = shell.start("map", "things:double")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a\n")
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert process.stderr is not None
    assert process.stderr.read() == b"asynqueue: interrupted: 1 result written\n"


@pytest.mark.parametrize("done", [True, False])
def test_signalWhileNobodyReads(shell: Shell, done: bool) -> None:
    """
    A reader that does not read keeps the command only until a signal, also when
    all calls are done.
    """
    process = shell.start("map", "things:number", "--workers", "thread", "-v", "--errors", "skip")
    assert process.stdin is not None
    assert process.stderr is not None
    # The results are more than a pipe takes. The input that is bad is told of when
    # it is done; all of them, when there are no more.
    process.stdin.write((b"9" * 1000 + b"\n") * 500 + b"bad\n")
    process.stdin.flush()
    if done:
        process.stdin.close()
        process.stdin = None
    assert b"'bad': ValueError" in process.stderr.readline()
    if done:
        assert b"1 of 501 inputs failed" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130


@pytest.mark.measured
def test_signalDuringTheImport(shell: Shell) -> None:
    """
    A signal ends the command while it imports the module, too.
    """
    process = shell.start("map", "slow:f", "x")
    shell.waitForHanging()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "\nasynqueue: interrupted\n")


def test_signalWithDeafProcesses(shell: Shell) -> None:
    """
    A call that is deaf to SIGTERM is ended all the same.
    """
    process = shell.start("map", "things:deaf", "hang")
    shell.waitForHanging()
    children = family(process)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "", "asynqueue: terminated: 0 results written\n")
    assertGone(children)


def test_ctrlCOnATerminal(shell: Shell) -> None:
    """
    Ctrl-C, which hits all processes of a terminal, ends them without a word of
    theirs.
    """
    process, terminal = onTerminal(shell, "map", "things:hang", "-n", "2", "a", "hang")
    shell.waitForHanging()
    readUntil(terminal, b'"a"')
    children = family(process)
    os.write(terminal, b"\x03")
    shown = readAll(terminal)
    assert process.wait(PATIENCE) == 130
    assert "interrupted: 1 result written" in shown
    assert "Traceback" not in shown
    assertGone(children)


def test_killedCommandLeavesNobody(shell: Shell) -> None:
    """
    C{kill -9} of the command ends all that it started.
    """
    process = shell.start("map", "things:hang", "-n", "2", "a", "hang")
    hanging = shell.waitForHanging()
    children = family(process)
    assert hanging in [child.pid for child in children]
    process.kill()
    assertGone(children)


# Terminals


def onTerminal(shell: Shell, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """
    Start the command on a terminal of its own.

    @return: the process, and the side of the terminal where people sit.
    """
    people, device = pty.openpty()
    process = shell.start(
        *arguments,
        stdin=device,
        stdout=device,
        stderr=device,
        start_new_session=True,
        preexec_fn=takeTerminal(device),
    )
    os.close(device)
    return process, people


def takeTerminal(device: int) -> Callable[[], None]:
    """
    Make a terminal the one that controls a process and its kin.
    """

    def take() -> None:
        os.close(os.open(os.ttyname(device), os.O_RDWR))

    return take


def readUntil(fd: int, text: bytes) -> None:
    """
    Read what is shown on a terminal, as far as a text.
    """
    data = b""
    while text not in data:
        data += os.read(fd, 4096)


def readAll(fd: int) -> str:
    """
    What is shown on a terminal, until its last user has gone.
    """
    data = b""
    while True:
        try:
            block = os.read(fd, 4096)
        except OSError:
            block = b""
        if not block:
            os.close(fd)
            return data.decode()
        data += block


@pytest.mark.measured
def test_progressOnATerminal(shell: Shell) -> None:
    """
    On a terminal, progress is shown below the results, without being asked for.
    """
    process, terminal = onTerminal(shell, "map", "things:number", "--errors", "skip", "1", "x", "3")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", readAll(terminal))
    assert process.wait(PATIENCE) == 1
    assert "3 of 3  1 failed" in shown
    assert {"1", "3"} <= set(re.split(r"[\r\n]+", shown))


def test_noProgressWhereThereIsNoTerminal(shell: Shell) -> None:
    """
    Standard error that is no terminal shows no progress, unless it is asked for.
    """
    assert shell.run("map", "things:double", "x") == (0, '"xx"\n', "")
    status, out, err = shell.run("map", "things:double", "--progress", "x")
    assert (status, out) == (0, '"xx"\n')
    assert "1 of 1" in err


def test_progressCanBeRefused(shell: Shell) -> None:
    """
    C{--no-progress} leaves a terminal to the results.
    """
    process, terminal = onTerminal(shell, "map", "things:double", "--no-progress", "x")
    assert readAll(terminal).strip() == '"xx"'
    assert process.wait(PATIENCE) == 0


# The command itself


def test_version(shell: Shell) -> None:
    """
    C{--version} says which AsynQueue this is.
    """
    assert shell.run("--version") == (0, f"asynqueue, version {asynqueue.__version__}\n", "")


def test_help(shell: Shell) -> None:
    """
    C{--help} has examples, and tells of the exit status.
    """
    status, out, err = shell.run("map", "--help")
    assert (status, err) == (0, "")
    assert "asynqueue map builtins:len one three seventeen" in out
    assert "Exit status:" in out


def test_installedCommandIsTheSame(shell: Shell) -> None:
    """
    The script C{asynqueue} does the same as C{python -m asynqueue}, and its
    processes do not run the script.
    """
    script = "import sys; from asynqueue.cli import main; sys.exit(main())"
    (shell.folder / "asynqueue-script").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "asynqueue-script", "map", "things:double", "x"],
        cwd=shell.folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b'"xx"\n', b"")
