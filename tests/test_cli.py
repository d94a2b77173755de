"""
The parts of the command that need neither processes nor signals: inputs, jobs,
the order of lines, what becomes of failures, the output, the progress.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from click.testing import CliRunner
from rich.console import Console
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from asynqueue import Deferator, TaskQueue, WorkerLost
from asynqueue.cli import asynqueue as asynqueueCommand
from asynqueue.command.crew import CrewDelegate, Here, ProcessCrew, ThreadCrew, howLost
from asynqueue.command.inputs import Inputs, Lines, Text, UnreadableInput, sourcesOf
from asynqueue.command.job import (
    JobFailure,
    LineJob,
    NoJSON,
    NoSuchFunction,
    failed,
    findFunction,
    toJSON,
)
from asynqueue.command.output import StandardOutput
from asynqueue.command.progress import ProgressLine
from asynqueue.command.run import MapOptions, MapRun, OnError
from asynqueue.command.statuses import Status
from asynqueue.constancy import isConstant
from asynqueue.errors import MaybeEncodingError
from asynqueue.reactors import theReactor
from asynqueue.scheduling.options import DEFAULT
from asynqueue.testing import MemoryQueue, MemoryWorker

# Inputs ----------------------------------------------------------------------


def test_noArgumentsMeanStandardInput() -> None:
    """
    Without arguments, inputs are the lines of standard input.
    """
    assert sourcesOf([], False) == sourcesOf([], True) == [Lines("-")]


def test_argumentsAreInputsOrFiles() -> None:
    """
    Arguments are inputs, or files if so said; a dash is standard input in both.
    """
    assert sourcesOf(["a", "-"], False) == [Text("a"), Lines("-")]
    assert sourcesOf(["a", "-"], True) == [Lines("a"), Lines("-")]


def allOf(inputs: Inputs) -> list[str]:
    """
    The inputs of all batches.
    """
    return [text for batch in inputs.batches() for text in batch]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
def test_linesAreWholeWhateverIsRead(tmp_path: Path, block: int) -> None:
    """
    However a file comes in pieces, its lines are whole, without their ends.
    """
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\nthr\xc3\xa9\xc3\xa9\r\nfo\rur\n\xff")
    assert allOf(Inputs([Lines(str(path))], block=block)) == [
        "one",
        "",
        "thréé",
        "fo\rur",
        "\udcff",
    ]


def test_totalOfArgumentsIsKnown() -> None:
    """
    How many arguments there are is known before any is read.
    """
    inputs = Inputs([Text(str(n)) for n in range(2500)])
    assert inputs.total() == 2500
    assert [len(batch) for batch in inputs.batches()] == [1000, 1000, 500]


def test_totalOfFilesIsEstimated(tmp_path: Path) -> None:
    """
    How many lines files have is estimated from their sizes, and known in the end.
    """
    path = tmp_path / "lines"
    path.write_text("a\n" * 50)
    inputs = Inputs([Lines(str(path)), Lines(str(path))], block=10)
    assert inputs.total() is None
    batches = inputs.batches()
    assert len(next(batches)) == 5
    assert inputs.total() == 100
    assert sum(len(batch) for batch in batches) == 95
    assert inputs.total() == 100


def test_totalOfAPipeIsNotKnown(tmp_path: Path) -> None:
    """
    Of what is no regular file, or is not there, nothing is known before its end.
    """
    os.mkfifo(tmp_path / "pipe")
    assert Inputs([Lines(str(tmp_path / "pipe"))]).total() is None
    assert Inputs([Text("a"), Lines(os.devnull)]).total() is None
    assert Inputs([Lines(str(tmp_path / "nothing"))]).total() is None


def test_unreadableInputSaysWhichAndWhy(tmp_path: Path) -> None:
    """
    A file that cannot be read is an error with its name and the reason.
    """
    path = str(tmp_path / "nothing")
    with pytest.raises(UnreadableInput) as raised:
        allOf(Inputs([Lines(path)]))
    assert (raised.value.name, raised.value.reason) == (path, "No such file or directory")


def test_closedStandardInput(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where there is no standard input, its descriptor is not read: it may be
    another file.
    """
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UnreadableInput, match="standard input: it is closed"):
        allOf(Inputs([Lines("-")]))


# Jobs ------------------------------------------------------------------------


def explode(text: str) -> None:
    """
    Raises what cannot even be told.
    """

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Unspeakable


HERE = "tests_of_cli"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    This module can be imported under a name, and functions are not remembered.
    """
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])
    findFunction.cache_clear()
    yield
    findFunction.cache_clear()


@pytest.mark.parametrize("value", [None, 1.5, "é", {"a": [1, {"b": None}]}, "\u2028\n", True])
def test_resultIsOneLineOfJSON(value: Any) -> None:
    """
    A result is one line, that means the same.
    """
    line = toJSON(value)
    assert b"\n" not in line
    assert json.loads(line) == value


def test_textIsNotEscaped() -> None:
    """
    Letters of any script stay readable; what is no text is escaped.
    """
    assert toJSON("é") == '"é"'.encode()
    assert toJSON("\udcff") == b'"\\udcff"'


@pytest.mark.parametrize("value", [float("inf"), object(), {(1, 2): 3}, {1}, b"bytes"])
def test_noJSONForEverything(value: Any) -> None:
    """
    What JSON cannot carry is refused, standards kept.
    """
    with pytest.raises(MaybeEncodingError):
        toJSON(value)


def test_circleIsNoJSON() -> None:
    """
    A list that contains itself is refused, and so is one that is too deep.
    """
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(MaybeEncodingError):
            toJSON(value)


def test_jobGivesALine() -> None:
    """
    A job gives the result of its function for an input, as a line.
    """
    assert LineJob("builtins:len")("abc") == b"3"
    assert LineJob("builtins:len", parse=True)("[1, 2]") == b"2"


def test_jobIsMadeOnce() -> None:
    """
    A process has a job made once, and not for each input.
    """
    assert isConstant(LineJob("builtins:len"))


async def _later(text: str) -> str:
    await asyncio.sleep(0)
    return text * 2


def test_jobRunsCoroutines() -> None:
    """
    The result of a coroutine function is what comes of its coroutine.
    """
    assert LineJob(f"{HERE}:_later")("ab") == b'"abab"'


def test_jobGivesFailuresInWords() -> None:
    """
    Whatever a function raises, the job returns words for it.
    """
    failure = LineJob("builtins:int")("x")
    assert isinstance(failure, JobFailure)
    assert failure.oneLine() == "ValueError: invalid literal for int() with base 10: 'x'"
    exit_ = LineJob("sys:exit")("2")
    assert isinstance(exit_, JobFailure)
    assert exit_.kind == "SystemExit"
    unspeakable = LineJob(f"{HERE}:explode")("x")
    assert isinstance(unspeakable, JobFailure)
    assert unspeakable.oneLine().endswith("Unspeakable")


def test_badInputIsNotTheFunctionsFault() -> None:
    """
    An input that is no JSON is told from a function that cannot read JSON.
    """
    outcomes = [LineJob("builtins:len", parse=True)("{"), LineJob("json:loads")("{")]
    assert [outcome.badInput for outcome in outcomes if isinstance(outcome, JobFailure)] == [
        True,
        False,
    ]


def test_longMessagesAreShortened() -> None:
    """
    A failure is a line of bounded length.
    """
    line = failed(ValueError("many\nwords " * 1000)).oneLine()
    assert len(line) == 400
    assert line.startswith("ValueError: many words many words")


def test_failureAsALine() -> None:
    """
    A failure has a line of JSON, with its input, and its traceback if wanted.
    """
    failure = JobFailure("ValueError", "no", "the trace")
    short = {"type": "ValueError", "message": "no"}
    assert json.loads(failure.asJSON("x", False)) == {"input": "x", "error": short}
    long = short | {"traceback": "the trace"}
    assert json.loads(failure.asJSON("x", True)) == {"input": "x", "error": long}


def test_functionsAreFound() -> None:
    """
    A function may be an attribute of an attribute.
    """
    assert findFunction("os.path:join") is os.path.join
    assert findFunction("pathlib:Path.home").__name__ == "home"


@pytest.mark.parametrize(
    "where",
    ["", "os", "os:", ":join", "os:nothing", "os:path", "no.where:f", "os.path.deeper:f", "..:f"],
)
def test_noSuchFunction(where: str) -> None:
    """
    What names no function is refused by one error, whatever is wrong with it.
    """
    with pytest.raises(NoSuchFunction):
        findFunction(where)


# Runs ------------------------------------------------------------------------


class Sink:
    """
    An output that keeps what it is given, and may be full.
    """

    def __init__(self) -> None:
        self.data = b""
        self.full = False
        self.waiting: Deferred[None] = Deferred()

    def write(self, data: bytes) -> None:
        self.data += data

    def drain(self) -> Deferred[None]:
        return self.waiting


class NoCrew:
    """
    A crew that is told what is needed, and does nothing.
    """

    def __init__(self) -> None:
        self.calls = 0

    def need(self, calls: int) -> None:
        self.calls = max(self.calls, calls)


class Bench:
    """
    A run whose calls end as the test says.
    """

    def __init__(self, *batches: list[str], **options: Any) -> None:
        self.calls: dict[str, Deferred[Any]] = {}
        self.said: list[str] = []
        self.sink = Sink()
        self.crew = NoCrew()
        self.status: Status | None = None
        self.inputs = Inputs([Text(text) for batch in batches for text in batch])
        placement: Any = Here(LineJob("builtins:len"), options.pop("most", 2), processes=False)
        placement.room = options.pop("room", placement.room)
        placement.function = self.call
        placement.argument = self.argument
        placement.line = partial(self.line, placement.line)
        self.queue = MemoryQueue(MemoryWorker(window=100_000))
        settings = MapOptions(DEFAULT, **options)
        self.run = MapRun(settings, self.inputs, placement, self.said.append, self.queue.clock)
        crew: Any = self.crew
        sink: Any = self.sink
        ended = self.run.start(self.queue, self.feed(iter(batches)), crew, sink)
        ended.addCallback(self._ended)
        self.turn()

    def feed(self, batches: Iterator[list[str]]) -> Deferator:
        """
        What the run takes its inputs from.
        """
        return Deferator(batches)

    def argument(self, text: str) -> Any:
        """
        What the function is called with.
        """
        return text

    def line(self, lineOf: Callable[[Any], Any], result: Any) -> Any:
        """
        What becomes of the result of a call: it is made by one.
        """
        assert not isinstance(result, JobFailure) or result.kind != "NoJSON"
        return lineOf(result)

    def call(self, text: str) -> Any:
        """
        What is called: the worker has begun.
        """
        self.calls[text] = Deferred()
        return self.calls[text]

    def turn(self) -> None:
        """
        Have everything happen that can happen by itself.
        """
        while self.queue.finish() or self.queue.clock.getDelayedCalls():
            self.queue.clock.advance(0)

    def _ended(self, status: Status) -> None:
        self.status = status

    def end(self, text: str, result: Any = None) -> None:
        """
        End the call for an input, by default with itself.
        """
        self.calls[text].callback(text.encode() if result is None else result)
        self.turn()

    def fail(self, text: str, error: Exception | None = None) -> None:
        """
        Have the call for an input fail: its job says so, or there is no result.
        """
        failure = JobFailure("ValueError", f"no {text}", "somewhere")
        self.end(text, failure if error is None else Failure(error))

    def written(self) -> list[str]:
        """
        The lines that were written.
        """
        return self.sink.data.decode().splitlines()


def test_linesHaveTheOrderOfTheInputs() -> None:
    """
    A line waits for those before it, and only for those.
    """
    bench = Bench(["a", "b"], ["c"])
    bench.end("b")
    assert bench.written() == []
    bench.end("a")
    assert bench.written() == ["a", "b"]
    assert bench.status is None
    bench.end("c")
    assert (bench.written(), bench.status) == (["a", "b", "c"], Status.WELL)


def test_unorderedLinesComeAsTheyAreDone() -> None:
    """
    Where order does not matter a line waits for nothing.
    """
    bench = Bench(["a", "b"], ordered=False)
    bench.end("b")
    assert bench.written() == ["b"]
    bench.end("a")
    assert (bench.written(), bench.status) == (["b", "a"], Status.WELL)


def test_nothingToDoIsAllWell() -> None:
    """
    A run without inputs is over at once.
    """
    assert Bench().status is Status.WELL


def test_boundedCallsAhead() -> None:
    """
    No more calls are made than keep the workers busy, and further ones before the workers have
    none; workers are asked for accordingly.
    """
    texts = [str(n) for n in range(1000)]
    bench = Bench(texts, most=3)
    ahead = len(bench.calls)
    assert 3 < ahead < 200
    assert bench.crew.calls == ahead
    for text in texts[: ahead - 3]:
        bench.end(text)
    assert ahead - 3 + 3 < len(bench.calls) <= 2 * ahead


def test_fullOutputHoldsInputsBack() -> None:
    """
    While the output is full no call is begun.
    """
    texts = [str(n) for n in range(1000)]
    bench = Bench(texts)
    begun = len(bench.calls)
    bench.sink.full = True
    for text in texts[:begun]:
        bench.end(text)
    assert len(bench.calls) == begun
    bench.sink.full = False
    bench.sink.waiting.callback(None)
    bench.turn()
    assert len(bench.calls) == 2 * begun


def test_firstFailureEndsTheRun() -> None:
    """
    By default a failure ends the run, when those before it have been written; no
    call is begun in between.
    """
    bench = Bench(["a", "b"] + [str(n) for n in range(1000)])
    begun = len(bench.calls)
    bench.fail("b")
    assert (bench.status, bench.said) == (None, [])
    for text in list(bench.calls)[2:]:
        bench.end(text)
    bench.end("a")
    assert (bench.written(), bench.status) == (["a"], Status.FAILED)
    assert bench.said == ["input 2, 'b': ValueError: no b"]
    assert len(bench.calls) == begun


def test_badInputIsAnotherStatus() -> None:
    """
    A run that ended because of a bad input was not used rightly.
    """
    bench = Bench(["a"])
    bench.end("a", JobFailure("NoJSON", "no", badInput=True))
    assert bench.status is Status.WRONG


def test_badInputIsNotCalledWith() -> None:
    """
    An input that is refused before there is a call fails in its place.
    """

    class Refusing(Bench):
        def argument(self, text: str) -> str:
            if text == "b":
                raise NoJSON("no b")
            return text

    bench = Refusing(["b", "a", "c"], onError=OnError.SKIP, verbose=True)
    assert list(bench.calls) == ["a", "c"]
    bench.end("a")
    bench.end("c")
    assert (bench.written(), bench.status) == (["a", "c"], Status.FAILED)
    assert bench.said[0] == "input 1, 'b': NoJSON: no b"


def test_manyCharactersHoldInputsBack() -> None:
    """
    Inputs that are long are not taken by the thousand, however many processes there are; and
    lines that wait for their turn are bounded by their bytes.
    """
    large = ["x" * 100_000 + str(n) for n in range(200)]
    bench = Bench(large, room=3000)
    few = len(bench.calls)
    assert few < 100
    bench.end(large[1], b"x" * (65 << 20))
    for text in large[2:few]:
        bench.end(text)
    assert len(bench.calls) == few
    bench.end(large[0])
    assert len(bench.calls) > few


def test_tracebackFollowsTheFailure() -> None:
    """
    If wanted, the traceback of a failure is told after it.
    """
    bench = Bench(["a"], tracebacks=True)
    bench.fail("a")
    assert bench.said == ["input 1, 'a': ValueError: no a", "somewhere"]


def test_skippedFailures() -> None:
    """
    Failures can be left out; how many there were is told, and so each if wanted.
    """
    bench = Bench(["a", "b"], onError=OnError.SKIP, verbose=True)
    bench.fail("a")
    bench.end("b")
    assert (bench.written(), bench.status) == (["b"], Status.FAILED)
    assert bench.said == [
        "input 1, 'a': ValueError: no a",
        "1 of 2 inputs failed and were left out",
    ]


def test_reportedFailures() -> None:
    """
    Failures can have lines of their own, in their places.
    """
    bench = Bench(["a", "b"], onError=OnError.REPORT)
    bench.end("b")
    bench.fail("a")
    error = {"type": "ValueError", "message": "no a"}
    assert json.loads(bench.written()[0]) == {"input": "a", "error": error}
    assert bench.written()[1] == "b"
    assert (bench.status, bench.said) == (Status.FAILED, ["1 of 2 inputs failed"])


def test_lostWorkersAreExplained() -> None:
    """
    Of a worker that was lost, it is told how.
    """
    bench = Bench(["a"])
    bench.fail("a", WorkerLost("len('a')", "it", reason="struck by lightning"))
    assert bench.said == [
        "input 1, 'a': WorkerLost: the process that ran it died (struck by lightning)"
    ]


def test_failuresOfTheQueueAreFailures() -> None:
    """
    What the queue fails with is told like what the function fails with.
    """
    bench = Bench(["a"])
    bench.fail("a", TimeoutError("too long"))
    assert (bench.said, bench.status) == (
        ["input 1, 'a': TimeoutError: too long"],
        Status.FAILED,
    )


def test_interruptionKeepsWhatIsWritten() -> None:
    """
    An interruption ends the run at once, tells how many results there are, and
    leaves their lines in order: those of the first inputs.
    """
    bench = Bench(["a", "b", "c"])
    bench.end("a")
    bench.end("c")
    bench.run.interrupt(Status.INTERRUPTED)
    bench.run.interrupt(Status.TERMINATED)
    bench.end("b")
    assert (bench.written(), bench.status) == (["a"], Status.INTERRUPTED)
    assert bench.said == ["interrupted: 1 result written"]


def test_stoppingSaysNothing() -> None:
    """
    A run can be stopped without a word: it ends as it stands.
    """
    bench = Bench(["a", "b"], onError=OnError.SKIP)
    bench.fail("a")
    bench.run.stop()
    bench.run.giveUp("too late")
    assert (bench.said, bench.status) == ([], Status.FAILED)


def test_givingUpSaysWhy() -> None:
    """
    A run that cannot go on says why.
    """
    bench = Bench(["a"])
    bench.run.giveUp("no workers")
    assert (bench.said, bench.status) == (["no workers"], Status.WRONG)


class Unreadable(Bench):
    """
    A run whose inputs end badly.
    """

    error: Exception = UnreadableInput("file", "it is on fire")

    def feed(self, batches: Iterator[list[str]]) -> Deferator:
        def read() -> Iterator[list[str]]:
            yield from batches
            raise self.error

        return Deferator(read())


def test_unreadableInputEndsAfterThoseBeforeIt() -> None:
    """
    When no more inputs can be read, those that were read have their lines first.
    """
    bench = Unreadable(["a", "b"])
    assert bench.said == ["cannot read file: it is on fire"]
    bench.end("a")
    bench.end("b")
    assert (bench.written(), bench.status) == (["a", "b"], Status.WRONG)


def test_faultsOfOurOwnAreTold(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What should not happen ends the run, with a line.
    """
    monkeypatch.setattr(Unreadable, "error", ZeroDivisionError("really"))
    bench = Unreadable(["a"])
    assert bench.said == ["a fault of asynqueue: ZeroDivisionError: really"]
    assert bench.status is Status.WRONG


def test_callsThatEndAtOnce() -> None:
    """
    Ten thousand calls that end as they begin do not pile up.
    """

    class Prompt(Bench):
        def call(self, text: str) -> bytes:
            return text.encode()

    texts = [str(n) for n in range(10_000)]
    bench = Prompt(texts)
    assert (bench.written(), bench.status) == (texts, Status.WELL)


# Output ------------------------------------------------------------------------------


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """
    Both ends of a pipe.
    """
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


def unexpected(error: OSError) -> None:
    """
    The output was lost, and should not have been.
    """
    raise AssertionError(error)


@pytest_twisted.ensureDeferred
async def test_outputWritesAll(pipe: tuple[int, int]) -> None:
    """
    What one turn of the reactor brings is written together, and drained then.
    """
    output = StandardOutput(pipe[1], theReactor(), unexpected)
    output.write(b"one ")
    output.write(b"two")
    await output.drain()
    assert os.read(pipe[0], 100) == b"one two"
    await output.drain()
    output.close()


@pytest_twisted.ensureDeferred
async def test_outputDoesNotBlock(pipe: tuple[int, int]) -> None:
    """
    A reader that does not read makes the output full, and keeps nobody waiting.
    """
    output = StandardOutput(pipe[1], theReactor(), unexpected)
    data = os.urandom(3 << 20)
    output.write(data)
    assert output.full
    drained = output.drain()
    read = b""
    turn: Deferred[None]
    while not drained.called:
        turn = Deferred()
        # The reactor's own turns come between.
        theReactor().callLater(0, turn.callback, None)
        await turn
        assert not drained.called or not output.full
        os.set_blocking(pipe[0], False)
        try:
            read += os.read(pipe[0], 1 << 20)
        except BlockingIOError:
            pass
    os.set_blocking(pipe[0], True)
    output.close()
    os.close(pipe[1])
    while block := os.read(pipe[0], 1 << 20):
        read += block
    assert read == data


@pytest.mark.parametrize("data", [b"", b"x" * 100_000])
@pytest_twisted.ensureDeferred
async def test_outputHearsOfItsEnd(pipe: tuple[int, int], data: bytes) -> None:
    """
    A reader that goes away is noticed, whether there is something to write or
    not; then all is drained, and nothing more is written.
    """
    lost: Deferred[OSError] = Deferred()
    output = StandardOutput(pipe[1], theReactor(), lost.callback)
    if data:
        output.write(data)
    drained = output.drain()
    os.close(pipe[0])
    assert isinstance(await lost, BrokenPipeError)
    await drained
    output.write(b"more")
    assert not output.full
    await output.drain()


@pytest_twisted.ensureDeferred
async def test_outputToAFile(tmp_path: Path) -> None:
    """
    A file, which no reactor can wait for, is written in the next turn; before
    and after it, there is what makes room on a terminal.
    """
    drawn: list[bool] = []
    with (tmp_path / "file").open("wb") as file:
        output = StandardOutput(
            file.fileno(), theReactor(), unexpected, b"<", lambda: drawn.append(True)
        )
        output.write(b"a")
        output.write(b"b")
        await output.drain()
        output.write(b"c")
        await output.drain()
        output.close()
    assert (tmp_path / "file").read_bytes() == b"<ab<c"
    assert drawn == [True, True]


@pytest_twisted.ensureDeferred
async def test_outputThatIsNoneForWriting(tmp_path: Path) -> None:
    """
    An output that cannot be written is lost, with the reason.
    """
    path = tmp_path / "file"
    path.write_bytes(b"")
    lost: Deferred[OSError] = Deferred()
    with path.open("rb") as file:
        output = StandardOutput(file.fileno(), theReactor(), lost.callback)
        output.write(b"a")
        assert (await lost).strerror == "Bad file descriptor"


# Progress --------------------------------------------------------------------


class Counted:
    """
    Something that is counted.
    """

    done = 0
    failed = 0
    most: int | None = None

    def total(self) -> int | None:
        return self.most


def test_progressIsDrawnNowAndThen() -> None:
    """
    The counts are drawn a few times a second, however quickly they change, and
    for the last time in the end.
    """
    clock = Clock()
    shown = io.StringIO()
    counted = Counted()
    line = ProgressLine(
        counted, clock, Console(file=shown, force_terminal=True, width=100, color_system=None)
    )
    line.start()
    counted.done = 1234
    clock.advance(1)
    assert "1,234  " in shown.getvalue()
    drawn = len(shown.getvalue())
    counted.done, counted.failed, counted.most = 2000, 3, 4000
    assert len(shown.getvalue()) == drawn
    line.stop()
    line.stop()
    assert "2,000 of 4,000  3 failed" in shown.getvalue()
    assert clock.getDelayedCalls() == []


# Options ---------------------------------------------------------------------


def test_nicenessThatIsNotAllowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who may not be less nice is told so, in one line.
    """

    def refuse(niceness: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "nice", refuse)
    result = CliRunner().invoke(asynqueueCommand, ["map", "builtins:len", "--niceness", "-5", "x"])
    assert result.exit_code == 2
    assert result.stderr == "asynqueue: cannot add -5 to the niceness: Operation not permitted\n"


# Crews -----------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_threadsOfACrew() -> None:
    """
    A crew of threads serves the queue until it is dismissed.
    """
    queue = TaskQueue()
    crew = ThreadCrew(queue, 2)
    crew.need(5)
    assert await queue.call(len, "abc") == 3
    await crew.dismiss()
    crew.end()
    assert len(queue) == 0
    await queue.shutdown()


@pytest_twisted.ensureDeferred
async def test_crewThatNobodyNeeds() -> None:
    """
    A crew of processes that were never needed has none, and none is hired once it
    was dismissed.
    """
    queue = TaskQueue()
    crew = ProcessCrew(CrewDelegate(queue, print, print, None), 2, "builtins:len", False)
    await crew.dismiss()
    crew.need(1)
    crew.end()
    assert len(queue) == 0
    await queue.shutdown()


@pytest.mark.parametrize(
    ("lost", "how"),
    [
        (WorkerLost("f()", "it", signal=9), "killed by SIGKILL"),
        (WorkerLost("f()", "it", exitCode=3), "exit code 3"),
        (WorkerLost("f()", "it", reason="it crashed"), "it crashed"),
        (WorkerLost("f()", "it"), ""),
    ],
)
def test_howAWorkerWasLost(lost: WorkerLost, how: str) -> None:
    """
    It is told how a worker ended, as far as that is known.
    """
    assert howLost(lost) == how


def test_statusesAreThoseOfAShell() -> None:
    """
    A run that a signal ended has the status that a shell gives for that.
    """
    assert Status.INTERRUPTED.value == 128 + signal.SIGINT == 130
    assert Status.TERMINATED.value == 128 + signal.SIGTERM == 143
