"""
L{HostSession}: each call that comes has one outcome, whatever it does, and
whatever happens to the connection.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from asynqueue import AsyncWorker, TaskQueue, ThreadWorker
from asynqueue.errors import (
    MaybeEncodingError,
    NoSuchCallable,
    RemoteError,
    RemoteProtocolError,
)
from asynqueue.iteration import deferToDelay
from asynqueue.status import STATUS
from asynqueue.testing import Gate, MemoryPrefetcher, MemoryWorker
from asynqueue.testing.calls import AwkwardError, CheckedError, StuckError, Unsendable
from asynqueue.wire.host.catalog import Catalog, WireWorkerUniverse
from asynqueue.wire.host.sessions import HostSession
from asynqueue.wire.protocol.messages import MessageKind, packedCall, packedCount
from tests.doubles import Heard, readingLogs
from tests.failing import Failing
from tests.test_wire_codecs import Exiting, Sprung, nothingUnpickled
from tests.wirehosts import (
    CBOR,
    DEFINED,
    LAST,
    PICKLE,
    RAW,
    THREAD,
    URGENT,
    WATCHED,
    Line,
    Sessions,
    Station,
)

both = pytest.mark.parametrize("codec", [PICKLE, CBOR], ids=lambda codec: codec.name)


class ExitsAsItIsPickled:
    """
    Somebody's object.
    """

    def __reduce__(self) -> Any:
        sys.exit(5)


class ExitsAsItIsShown(Unsendable):
    """
    Somebody's object.
    """

    def __repr__(self) -> str:
        sys.exit(6)


class HasNoClass(Unsendable):
    """
    Somebody's object.
    """

    @property
    def __class__(self) -> Any:
        sys.exit(7)


class ArglessError(Exception):
    """
    Somebody's exception.
    """

    @property
    def args(self) -> Any:
        sys.exit(9)


class ExitsAsItIsMade:
    """
    Somebody's object.
    """

    def __init__(self, how: type[BaseException] = SystemExit) -> None:
        self._how = how

    def __reduce__(self) -> Any:
        return ExitsAsItIsMade.make, (self._how,)

    @staticmethod
    def make(how: type[BaseException]) -> None:
        """
        Unpickling calls it.
        """
        raise how("as its arguments are read")


class Universe(WireWorkerUniverse):
    """
    Has one of everything.

    @ivar events: what its methods have noted.
    @ivar waiting: what its waiting calls wait for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.waiting: list[Deferred[Any]] = []

    def echo(self, *args: Any, **kw: Any) -> Any:
        return [list(args), kw]

    def note(self, what: Any) -> None:
        self.events.append(what)

    def fail(self, error: BaseException) -> None:
        raise error

    def failWith(self, name: str, *args: Any) -> None:
        raise {"awkward": AwkwardError, "stuck": StuckError, "checked": CheckedError}[name](*args)

    def exit(self) -> None:
        sys.exit(3)

    def recurse(self) -> Any:
        return self.recurse()

    def unsendable(self) -> Any:
        return Unsendable()

    def exitsAsItIsPickled(self) -> Any:
        return ExitsAsItIsPickled()

    def exitsAsItIsShown(self) -> Any:
        return ExitsAsItIsShown()

    def raisesWhatExits(self) -> None:
        raise Exiting

    def raisesArgless(self) -> None:
        raise ArglessError

    async def hasNoClass(self) -> Any:
        return HasNoClass()

    def nested(self, depth: int) -> Any:
        value: Any = None
        for _ in range(depth):
            value = [value]
        return value

    def function(self) -> Any:
        return lambda: None

    def large(self, size: int) -> bytes:
        return bytes(size)

    def failAtLength(self, size: int) -> None:
        raise ValueError("x" * size)

    def spring(self) -> Any:
        return Sprung()

    def springInError(self) -> None:
        raise ValueError(Sprung())

    def later(self) -> Deferred[str]:
        return succeed("later")

    async def coroutine(self, n: int) -> int:
        return n + 1

    def wait(self) -> Deferred[Any]:
        d: Deferred[Any] = Deferred(lambda _: self.events.append("cancelled"))
        self.waiting.append(d)
        return d

    async def waitAndClean(self) -> Any:
        try:
            return await self.wait()
        finally:
            self.events.append("cleaned")

    async def stubborn(self) -> Any:
        try:
            return await self.wait()
        except CancelledError:
            return "stubborn"

    def cancelItself(self) -> None:
        raise CancelledError("mine")

    def listIterator(self) -> Any:
        return iter([1, 2, 3])

    def generator(self) -> Iterator[int]:
        yield 1

    def thread(self) -> bool:
        return threading.current_thread() is not threading.main_thread()

    def waitAt(self, gate: Any) -> None:
        gate.wait()

    def _private(self) -> None:
        self.events.append("private")


# Outcomes -----------------------------------------------------------------------


@both
def test_aCallReturnsItsValue(codec: Any) -> None:
    """
    A method is called with its arguments, and what it returns goes back.
    """
    station = Station(Universe(), codec=codec)
    assert station.outcome("echo") == [[], {}]
    assert station.outcome("echo", 1, "two", three=[3.0]) == [[1, "two"], {"three": [3.0]}]


def test_keywordsAreTheMethods() -> None:
    """
    Words that the queue uses itself reach the method all the same.
    """
    words = {"options": 1, "func": 2, "self_": 3, "series": 4, "timeout": 5, "raw": 6}
    assert Station(Universe()).outcome("echo", **words) == [[], words]


@pytest.mark.parametrize(("name", "value"), [("later", "later"), ("coroutine", 8)])
def test_whatIsWaitedForReturns(name: str, value: Any) -> None:
    """
    Deferreds and coroutines return what comes of them.
    """
    station = Station(Universe())
    assert station.outcome(name, *([7] if name == "coroutine" else [])) == value


@both
def test_anExceptionGoesBack(codec: Any) -> None:
    """
    What a method raises comes back with its type, and the next call is made.
    """
    station = Station(Universe(), codec=codec)
    error = station.outcome("exit")
    assert (type(error), error.code) == (SystemExit, 3)
    assert type(station.outcome("recurse")) is RecursionError
    assert station.outcome("echo", 1) == [[1], {}]


def test_aUsersExceptionGoesBack() -> None:
    """
    With pickle, an exception of the user's comes back with its type.
    """
    error = Station(Universe()).outcome("failWith", "checked", "a reason")
    assert (type(error), str(error)) == (CheckedError, "a reason")


@both
@pytest.mark.parametrize("args", [("awkward", "name", 2), ("stuck", "text")], ids=lambda a: a[0])
def test_anExceptionThatCannotTravelIsTold(codec: Any, args: Any) -> None:
    """
    An exception that wants other arguments than it keeps, or cannot be pickled, is told in
    words.
    """
    error = Station(Universe(), codec=codec).outcome("failWith", *args)
    assert isinstance(error, RemoteError)
    assert args[0] in error.typeName.lower()


@both
@pytest.mark.parametrize("name", ["unsendable", "exitsAsItIsPickled", "exitsAsItIsShown"])
def test_aResultThatCannotBeSentIsAnError(codec: Any, name: str) -> None:
    """
    A result whose pickling raises, or exits, fails that call only.
    """
    station = Station(Universe(), codec=codec)
    assert isinstance(station.outcome(name), MaybeEncodingError)
    assert station.outcome("echo") == [[], {}]


@both
def test_aResultThatCannotBeLookedAtIsAnError(codec: Any) -> None:
    """
    A result that exits as somebody asks what it is fails that call only.
    """
    station = Station(Universe(), codec=codec)
    assert isinstance(station.outcome("hasNoClass"), MaybeEncodingError | SystemExit)
    assert station.outcome("echo") == [[], {}]


@both
def test_aResultThatIsNestedTooDeepIsAnError(codec: Any) -> None:
    """
    A result that is too deep to be written fails that call only.
    """
    station = Station(Universe(), codec=codec)
    assert isinstance(station.outcome("nested", 5000), MaybeEncodingError)
    assert station.outcome("nested", 2) == [[None]]


@both
def test_anExceptionThatExitsAsItIsToldIsTold(codec: Any) -> None:
    """
    An exception whose text exits has its call fail, and ends nothing else.
    """
    station = Station(Universe(), codec=codec)
    assert type(station.outcome("raisesWhatExits")) in (Exiting, RemoteError)
    assert type(station.outcome("raisesArgless")) in (ArglessError, RemoteError)
    assert station.outcome("echo") == [[], {}]


def test_aResultOfCodeTravelsInPickleOnly() -> None:
    """
    A function is sent where code is, and is an error where only values are.
    """
    assert callable(Station(Universe()).outcome("function"))
    assert isinstance(Station(Universe(), codec=CBOR).outcome("function"), MaybeEncodingError)


@both
def test_aResultThatIsTooLargeIsAnError(codec: Any) -> None:
    """
    A result of more bytes than a message may have fails that call only, and says so.
    """
    station = Station(Universe(), codec=codec)
    error = station.outcome("large", 2 << 20)
    assert isinstance(error, MaybeEncodingError)
    assert "1,048,576" in error.reason
    assert station.outcome("large", 3) == bytes(3)


@both
def test_anExceptionThatIsTooLargeIsToldInShort(codec: Any) -> None:
    """
    What cannot be sent of an exception is left out.
    """
    station = Station(Universe(), codec=codec)
    station.line.largest = 100_000
    error = station.outcome("failAtLength", 2 << 20)
    assert isinstance(error, RemoteError)
    assert error.typeName == "ValueError"


@pytest.mark.parametrize("how", [SystemExit, ValueError, KeyboardInterrupt, RecursionError])
def test_argumentsThatCannotBeReadAreAnError(how: type[BaseException]) -> None:
    """
    What unpickling the arguments raises fails that call; the method is not called, and the
    connection lives.
    """
    universe = Universe()
    station = Station(universe)
    assert type(station.outcome("note", ExitsAsItIsMade(how))) is how
    assert universe.events == []
    assert station.outcome("echo") == [[], {}]


@both
@pytest.mark.parametrize(
    "value", [None, 3, [1], [[], {}, []], [[1], [2]], [[1], {1: 2}], ["ab", {}]], ids=repr
)
def test_argumentsThatAreNoneAreAnError(codec: Any, value: Any) -> None:
    """
    A peer that sends something else for arguments hears what is wrong, or the method has it.
    """
    station = Station(Universe(), codec=codec)
    station.hear(MessageKind.CALL, 1, packedCall(0, "echo", codec.encode(value)[0]))
    station.turn()
    ((kind, _),) = station.said(1)
    assert kind in (MessageKind.RAISED, MessageKind.RETURNED)


@pytest.mark.parametrize("body", [b"nonsense", b"\x80\x05", b"cos\nsystem\n.", b"\xff"])
def test_argumentsThatAreGarbageAreAnError(body: bytes) -> None:
    """
    Bytes that are nothing fail that call only, whatever the codec.
    """
    for codec in (PICKLE, CBOR):
        station = Station(Universe(), codec=codec)
        station.hear(MessageKind.CALL, 1, packedCall(0, "echo", body))
        station.turn()
        assert station.kinds(1) == [MessageKind.RAISED]


# What may be called ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["unknown", "_private", "__init__", "", "events", "os:system", "echo.__globals__", "7"]
)
def test_onlyWhatIsAllowedIsCalled(name: str) -> None:
    """
    Other names are an error that says so, nothing is called, and arguments are not even
    read.
    """
    for codec in (PICKLE, CBOR):
        universe = Universe()
        station = Station(universe, codec=codec)
        number = 1
        Sprung.springs.clear()
        station.hear(MessageKind.CALL, number, packedCall(0, name, pickle.dumps(((Sprung(),), {}))))
        ((_, error),) = station.said(number)
        assert isinstance(error, NoSuchCallable)
        assert universe.events == []
        assert Sprung.springs == ["pickled"]


def test_functionsOfAllowedModulesAreCalled() -> None:
    """
    With an allow-list of modules their functions are called, and nothing that they import.
    """
    station = Station(catalog=Catalog(None, ["json"], "modules"))
    assert station.outcome("json:loads", "[1, 2]") == [1, 2]
    for name in ("json:codecs.open", "json:JSONDecoder.__init__", "os:getcwd", "json.tool:main"):
        assert isinstance(station.outcome(name), NoSuchCallable)


def test_definedCodeIsCalled() -> None:
    """
    Where code is trusted, what the queue has defined is called by its number until it is
    forgotten.
    """
    station = Station(catalog=Catalog(trust="code"))
    station.hear(MessageKind.DEFINE, 7, cloudpickle.dumps(lambda a, b: a * b))
    assert station.outcome("7", 6, b=7, flags=DEFINED) == 42
    assert station.outcome("7", 6, b=8, flags=DEFINED) == 48
    station.hear(MessageKind.FORGET, 7)
    assert isinstance(station.outcome("7", 6, b=7, flags=DEFINED), NoSuchCallable)


def test_definedCodeThatCannotBeReadIsAnError() -> None:
    """
    A definition that raises as it is read fails the calls of it.
    """
    station = Station(catalog=Catalog(trust="code"))
    station.hear(MessageKind.DEFINE, 7, pickle.dumps(ExitsAsItIsMade()))
    station.hear(MessageKind.DEFINE, 8, pickle.dumps("no function"))
    assert type(station.outcome("7", flags=DEFINED)) is SystemExit
    assert type(station.outcome("8", flags=DEFINED)) is TypeError


def test_codeIsNotTakenWithoutTrust() -> None:
    """
    Who sends code to a host that does not trust it breaks the protocol, and nothing is made
    of it.
    """
    station = Station(Universe())
    with nothingUnpickled(), pytest.raises(RemoteProtocolError, match="trust='code'"):
        station.hear(MessageKind.DEFINE, 7, b"cos\nsystem\n.")


def test_codeNeedsPickle() -> None:
    """
    A host that trusts code, and cannot be sent any, is not made.
    """
    with pytest.raises(ValueError, match="codec='pickle'"):
        Station(catalog=Catalog(trust="code"), codec=CBOR)


def test_theStatusIsForEverybody() -> None:
    """
    What the status command asks is answered at once, also by a host that is full, leaves,
    or has nothing to call.
    """
    for codec in (PICKLE, CBOR):
        station = Station(codec=codec, most=0, qualified=["gpu"])
        station.host.drain()
        number = station.call(STATUS)
        ((kind, status),) = station.said(number)
        assert (kind, status["slots"], status["series"]) == (MessageKind.RETURNED, 1, ["gpu"])


# CBOR runs nothing ------------------------------------------------------------------


def test_nothingIsUnpickledInCbor() -> None:
    """
    In CBOR nothing that either side sends, or that methods return and raise, is pickled or
    unpickled: not as arguments, results, items or exceptions.
    """
    station = Station(Universe(), codec=CBOR)
    trap = pickle.dumps(Sprung())
    with nothingUnpickled():
        station.hear(MessageKind.CALL, 100, packedCall(0, "echo", trap))
        station.hear(MessageKind.CALL, 101, packedCall(0, "note", trap), [trap])
        assert station.outcome("echo", trap) == [[trap], {}]
        assert isinstance(station.outcome("spring"), MaybeEncodingError)
        assert isinstance(station.outcome("springInError"), RemoteError)
        assert isinstance(station.outcome("failWith", "checked", "text"), RemoteError)
    assert station.kinds(100) == station.kinds(101) == [MessageKind.RAISED]


@given(
    messages=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 5), st.binary(max_size=40)), max_size=8
    ),
    flags=st.integers(0, 40),
    name=st.sampled_from(["echo", "generator", "spring", "springInError", "x"]),
    packed=st.binary(max_size=30),
)
def test_anyMessagesInCborAreHarmless(messages: Any, flags: int, name: str, packed: bytes) -> None:
    """
    Whatever a peer sends, it is served or it breaks the protocol; nothing is unpickled.
    """
    station = Station(Universe(), codec=CBOR)
    messages.append((MessageKind.CALL, 9, packedCall(flags, name, packed)))
    with nothingUnpickled():
        for kind, number, body in messages:
            try:
                station.hear(kind, number, body)
            except RemoteProtocolError:
                pass
        station.turn()
        station.host.lost(station.line, OSError())


# Where and when ------------------------------------------------------------------


def test_urgentCallsGoFirst() -> None:
    """
    An urgent call is made before those that wait.
    """
    universe = Universe()
    station = Station(universe)
    running = station.call("wait")
    station.turn()
    station.call("note", 1)
    station.call("note", 2)
    station.call("note", "urgent", flags=URGENT)
    universe.waiting[0].callback(None)
    station.turn()
    assert station.kinds(running) == [MessageKind.RETURNED]
    assert universe.events == ["urgent", 1, 2]


def test_theBeginningIsToldOfWatchedCalls() -> None:
    """
    A watched call is told to begin when it does, once, before its outcome; others are not.
    """
    universe = Universe()
    station = Station(universe)
    first = station.call("wait", flags=WATCHED)
    second = station.call("wait", flags=WATCHED)
    third = station.call("wait")
    station.turn()
    assert (station.kinds(first), station.kinds(second)) == ([MessageKind.BEGUN], [])
    universe.waiting[0].callback(None)
    station.turn()
    assert station.kinds(first) == [MessageKind.BEGUN, MessageKind.RETURNED]
    assert station.kinds(second) == [MessageKind.BEGUN]
    universe.waiting[1].callback(None)
    station.turn()
    universe.waiting[2].callback(None)
    assert station.kinds(third) == [MessageKind.RETURNED]


def test_aWatchedCallThatIsNotMadeLeavesNoTrace() -> None:
    """
    A call that was to be watched and cannot be queued is not mistaken for the next one.
    """
    station = Station(Universe())
    station.queue.shutdown()
    station.call("echo", flags=WATCHED)
    again = Station(Universe())
    assert isinstance(again.outcome("unknown", flags=WATCHED), NoSuchCallable)
    assert again.outcome("echo") == [[], {}]


def test_watchedCallsOfManyHostsAreToldApart() -> None:
    """
    Hosts that share a queue tell of their own calls only.
    """
    first = Station(Universe())
    second = Station(Universe(), queue=first.queue, reactor=first.clock)
    first.call("echo", flags=WATCHED)
    second.call("echo", flags=WATCHED)
    second.call("echo", flags=WATCHED)
    first.turn()
    assert [kind for kind, _, _ in first.line.sent] == [MessageKind.BEGUN, MessageKind.RETURNED]
    assert [kind for kind, _, _ in second.line.sent] == [
        MessageKind.BEGUN,
        MessageKind.RETURNED,
    ] * 2


@ensureDeferred
async def test_callsMayWantAThread() -> None:
    """
    A call that wants a thread is made in one, the others in the reactor; a coroutine that
    the thread returns is waited for.
    """
    queue = TaskQueue(AsyncWorker(), ThreadWorker())
    try:
        station = Station(Universe(), queue=queue, series="async")
        number = station.call("thread", flags=THREAD)
        other = station.call("thread")
        coroutine = station.call("coroutine", 7, flags=THREAD)
        last = station.call("thread", flags=THREAD)
        await _saidOf(station, last)
        assert station.said(number) == [(MessageKind.RETURNED, True)]
        assert station.said(other) == [(MessageKind.RETURNED, False)]
        assert station.said(coroutine) == [(MessageKind.RETURNED, 8)]
    finally:
        await queue.shutdown()


async def _saidOf(station: Station, number: int) -> None:
    """
    Wait until something was said of a call, a turn of the reactor at a time.
    """
    while not station.said(number):
        await deferToDelay(0)


def test_aHostWithoutThreadsSaysSo() -> None:
    """
    A call that wants a thread where there is none is an error, and does not wait for ever.
    """
    error = Station(Universe()).outcome("thread", flags=THREAD)
    assert isinstance(error, NoSuchCallable)
    assert "threads" in str(error)


def test_rawIteratorsAreResults() -> None:
    """
    An iterator that is wanted as it is is sent if it can be, else an error.
    """
    station = Station(Universe())
    assert list(station.outcome("listIterator", flags=RAW)) == [1, 2, 3]
    assert isinstance(station.outcome("generator", flags=RAW), MaybeEncodingError)


def test_aQueueThatReturnsNoFailuresStillTellsThem() -> None:
    """
    What a call raises goes back, also from a queue that would log it.
    """
    station = Station(Universe())
    queue = TaskQueue(
        AsyncWorker(reactor=station.clock), returnFailure=False, reactor=station.clock
    )
    other = Station(Universe(), queue=queue, reactor=station.clock)
    number = other.call("exit")
    station.turn()
    assert other.kinds(number) == [MessageKind.RAISED]


# What breaks the protocol -----------------------------------------------------------


def test_aNumberIsUsedOnce() -> None:
    """
    A second call of a number that is held breaks the protocol.
    """
    station = Station(Universe())
    station.call("wait", number=5)
    with pytest.raises(RemoteProtocolError, match="number 5"):
        station.call("wait", number=5)


def test_aNumberOfAnIteratorIsUsedOnce() -> None:
    """
    So does a call with the number of an iterator.
    """
    station = Station(Universe())
    station.call("generator", number=5)
    station.turn()
    with pytest.raises(RemoteProtocolError, match="number 5"):
        station.call("echo", number=5)


def test_aFloodIsRefused() -> None:
    """
    More calls and iterators than may be held break the protocol; those that were ended do
    not count.
    """
    station = Station(Universe(), most=3)
    for _ in range(10):
        station.outcome("echo")
    station.call("generator")
    station.turn()
    station.call("wait")
    station.call("wait")
    assert station.host.held == 3
    with pytest.raises(RemoteProtocolError, match="3 calls"):
        station.call("wait")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MessageKind.CALL, b""),
        (MessageKind.CALL, b"\x00\xff\xff"),
        (MessageKind.CALL, b"\x00\x01\x00\xff"),
        (MessageKind.CALL, packedCall(32, "echo", None)),
        (MessageKind.CREDIT, b""),
        (MessageKind.CREDIT, b"123456789"),
        (MessageKind.RETURNED, b""),
        (MessageKind.CAPACITY, b""),
        (0, b""),
        (255, b""),
    ],
)
def test_whatIsNoMessageBreaksTheProtocol(kind: int, body: bytes) -> None:
    """
    Malformed messages, and those that only hosts send, are an error of the peer's.
    """
    station = Station(Universe())
    with pytest.raises(RemoteProtocolError):
        station.hear(kind, 1, body)


@pytest.mark.parametrize(
    "kind",
    [
        MessageKind.CANCEL,
        MessageKind.CLOSE,
        MessageKind.FORGET,
        MessageKind.CREDIT,
        MessageKind.RECALL,
    ],
)
def test_whatCrossesTheOutcomeIsIgnored(kind: MessageKind) -> None:
    """
    What is said of a call that has ended, or never was, has no effect.
    """
    station = Station(Universe())
    station.outcome("echo")
    for number in (1, 77):
        station.hear(kind, number, packedCount(5) if kind is MessageKind.CREDIT else b"")
    assert station.line.sent == [(MessageKind.RETURNED, 1, [[], {}])]


def test_othersConnectionsAreNotHeard() -> None:
    """
    Only the connection that was opened is served.
    """
    station = Station(Universe())
    station.host.received(Line(PICKLE), [(MessageKind.CALL, 1, packedCall(0, "echo", None), ())])
    station.turn()
    assert station.line.sent == []


# Cancelling -------------------------------------------------------------------------


def test_aQueuedCallIsCancelled() -> None:
    """
    A call that waits and is cancelled is never made, and said to be cancelled.
    """
    universe = Universe()
    station = Station(universe)
    station.call("wait")
    number = station.call("note", "never")
    station.turn()
    station.hear(MessageKind.CANCEL, number)
    universe.waiting[0].callback(None)
    station.turn()
    assert station.kinds(number) == [MessageKind.CANCELLED]
    assert universe.events == []


@pytest.mark.parametrize("name", ["wait", "waitAndClean", "stubborn"])
def test_aRunningCallIsCancelled(name: str) -> None:
    """
    A call that runs is cancelled, cleans up, and has one outcome, also if it goes on; the
    next one begins.
    """
    universe = Universe()
    station = Station(universe)
    number = station.call(name)
    station.turn()
    station.hear(MessageKind.CANCEL, number)
    station.hear(MessageKind.CANCEL, number)
    assert universe.events == ["cancelled"] + ["cleaned"] * (name == "waitAndClean")
    assert station.kinds(number) == [MessageKind.CANCELLED]
    assert station.outcome("echo") == [[], {}]
    assert station.kinds(number) == [MessageKind.CANCELLED]


@ensureDeferred
async def test_aCallInAThreadIsCancelledAtOnce() -> None:
    """
    A call that runs in a thread, which cannot be ended, is said to be cancelled at once, and
    nothing of what it returns later.
    """
    queue = TaskQueue(AsyncWorker(), ThreadWorker())
    gate = Gate()
    try:
        station = Station(Universe(), queue=queue, series="async")
        number = station.call("waitAt", gate.token, flags=THREAD)
        await gate.arrivals()
        station.hear(MessageKind.CANCEL, number)
        assert station.kinds(number) == [MessageKind.CANCELLED]
        gate.open()
        after = station.call("thread", flags=THREAD)
        await _saidOf(station, after)
        assert station.said(after) == [(MessageKind.RETURNED, True)]
        assert station.kinds(number) == [MessageKind.CANCELLED]
    finally:
        await gate.close()
        await queue.shutdown()


def test_aCallThatCancelsItselfRaises() -> None:
    """
    A cancellation that nobody asked for is what the call raised.
    """
    error = Station(Universe()).outcome("cancelItself")
    assert isinstance(error, CancelledError)


def test_acancelledQueueIsAnOutcome() -> None:
    """
    What the host itself cancels in its queue is told as raised.
    """
    station = Station(Universe())
    station.call("wait")
    number = station.call("echo")
    station.queue.cancelAll()
    ((kind, error),) = station.said(number)
    assert (kind, type(error)) == (MessageKind.RAISED, CancelledError)


# Recalling --------------------------------------------------------------------------


def test_whatHasNotBegunIsGivenBack() -> None:
    """
    A recall gives back the calls up to its number that wait, in order, and not those that
    run or came later.
    """
    universe = Universe()
    station = Station(universe)
    numbers = [station.call("wait") for _ in range(5)]
    station.turn()
    station.hear(MessageKind.RECALL, numbers[3])
    assert [station.kinds(number) for number in numbers] == [
        [],
        [MessageKind.GIVEN_BACK],
        [MessageKind.GIVEN_BACK],
        [MessageKind.GIVEN_BACK],
        [],
    ]
    assert [number for _, number, _ in station.line.sent] == numbers[1:4]
    station.hear(MessageKind.RECALL, numbers[3])
    assert len(station.line.sent) == 3
    assert station.host.held == 2


def test_aCallThatWasOvertakenByItsRecallIsGivenBack() -> None:
    """
    A large call that comes after the recall of it is given back, and not made.
    """
    universe = Universe()
    station = Station(universe)
    station.hear(MessageKind.RECALL, 10)
    late = station.call("note", 1, number=9)
    later = station.call("note", 2, number=11)
    station.turn()
    assert (station.kinds(late), station.kinds(later)) == (
        [MessageKind.GIVEN_BACK],
        [MessageKind.RETURNED],
    )
    assert universe.events == [2]


def test_aCancelledCallIsNotGivenBack() -> None:
    """
    A recall after the cancel finds nothing to give back.
    """
    station = Station(Universe())
    station.call("wait")
    number = station.call("wait")
    station.turn()
    station.hear(MessageKind.CANCEL, number)
    station.hear(MessageKind.RECALL, number)
    assert station.kinds(number) == [MessageKind.CANCELLED]


# The end ----------------------------------------------------------------------------


def test_aLostConnectionEndsItsCalls() -> None:
    """
    When the connection is lost, what waits is never made, what runs is cancelled, nothing
    more is said, and the host is done.
    """
    universe = Universe()
    station = Station(universe)
    station.call("wait")
    station.call("note", "never")
    station.turn()
    station.line.isOpen = False
    station.host.lost(station.line, OSError("gone"))
    station.turn()
    assert universe.events == ["cancelled"]
    assert (station.line.sent, station.ended, station.host.held) == ([], 1, 0)
    assert isinstance(station.host.error, OSError)
    station.host.lost(station.line, OSError("gone"))
    station.call("note", "late")
    station.turn()
    assert (universe.events, station.ended) == (["cancelled"], 1)


def test_aConnectionThatNeverOpenedIsTheEnd() -> None:
    """
    A host whose connection was refused is done, and drained.
    """
    heard = Sessions()
    host = HostSession(heard, TaskQueue(), Catalog(), codec=PICKLE)
    drained = Heard(host.drain())
    host.lost(Line(PICKLE), OSError("refused"))
    assert (heard.lost, drained.result) == ([host], None)
    assert Heard(host.drain()).result is None


def test_nothingIsLoggedOfWhatEndsLate() -> None:
    """
    Calls that end while the connection is being closed are not told, and no error.
    """
    universe = Universe()
    station = Station(universe, concurrent=3)
    for name in ("wait", "wait", "generator"):
        station.call(name)
    with readingLogs() as logs:
        station.line.isOpen = False
        station.turn()
        universe.waiting[0].callback(1)
        universe.waiting[1].errback(ValueError("late"))
        station.turn()
    assert station.line.sent == []
    assert logs.events == []


def test_drainingGivesBackAndEndsTheRest() -> None:
    """
    A host that leaves says so, gives back what has not begun, and what comes late, and ends
    what runs. It leaves the closing to the other side, which may have sent more.
    """
    universe = Universe()
    station = Station(universe)
    running, queued = station.call("wait"), station.call("wait")
    station.turn()
    drained = Heard(station.host.drain("maintenance"))
    again = Heard(station.host.drain("again"))
    late = station.call("wait")
    assert station.line.goodbyes == ["maintenance"]
    assert [station.kinds(n) for n in (running, queued, late)] == [
        [],
        [MessageKind.GIVEN_BACK],
        [MessageKind.GIVEN_BACK],
    ]
    universe.waiting[0].callback("done")
    assert station.said(running) == [(MessageKind.RETURNED, "done")]
    assert (station.line.closed, drained.results) == (0, [])
    station.host.leaving(station.line, "")
    assert station.line.closed == 1
    station.host.lost(station.line, OSError("closed"))
    assert (drained.result, again.result, station.ended) == (None, None, 1)


def test_drainingBeforeTheOpeningSaysGoodbyeThen() -> None:
    """
    A host that is drained before its connection is open says goodbye when it is, and takes
    no call.
    """
    queue = TaskQueue()
    host = HostSession(Sessions(), queue, Catalog(Universe()), codec=PICKLE)
    host.drain("too late")
    host.about()
    line = Line(PICKLE)
    host.opened(line)
    host.received(line, [(MessageKind.CALL, 1, packedCall(0, "echo", None), ())])
    assert len(line.goodbyes) == 1
    assert line.sent == [(MessageKind.GIVEN_BACK, 1, None)]


@pytest.mark.parametrize("end", ["return", "raise", "cancel"])
def test_aQueueThatLeavesIsServedToTheEnd(end: str) -> None:
    """
    When the other side sends no more calls, those that it has here are ended, then the
    connection is closed.
    """
    universe = Universe()
    station = Station(universe)
    number = station.call("wait")
    station.turn()
    station.host.leaving(station.line, "enough")
    assert station.line.closed == 0
    if end == "cancel":
        station.hear(MessageKind.CANCEL, number)
    elif end == "return":
        universe.waiting[0].callback(1)
    else:
        universe.waiting[0].errback(ValueError())
    assert (station.line.closed, len(station.kinds(number))) == (1, 1)


def test_aQueueThatLeavesWithNothingIsLetGo() -> None:
    """
    With no call left, the connection is closed at once, and once.
    """
    station = Station(Universe())
    station.host.leaving(station.line, "enough")
    station.host.leaving(station.line, "again")
    assert station.line.closed == 1


def test_aQueueThatLeavesMayRecallTheLast() -> None:
    """
    When the last of the calls is given back to a queue that leaves, the connection is closed.
    """
    station = Station(Universe())
    other = Station(Universe(), queue=station.queue, reactor=station.clock)
    other.call("wait")
    number = station.call("wait")
    station.turn()
    station.host.leaving(station.line, "enough")
    station.hear(MessageKind.RECALL, number)
    assert (station.kinds(number), station.line.closed) == ([MessageKind.GIVEN_BACK], 1)


def test_aQueueThatIsShutDownGivesBack() -> None:
    """
    A call that comes when the host's own queue takes none is given back.
    """
    station = Station(Universe())
    station.queue.shutdown()
    number = station.call("echo")
    assert station.kinds(number) == [MessageKind.GIVEN_BACK]


def test_whatCleansUpMayRaise() -> None:
    """
    Calls that raise as they are cancelled keep none of the others from it.
    """

    class Angry(Universe):
        async def angry(self) -> None:
            try:
                await self.wait()
            finally:
                raise SystemExit

    universe = Angry()
    station = Station(universe, concurrent=3)
    for name in ("angry", "wait", "angry"):
        station.call(name)
    station.turn()
    station.host.lost(station.line, OSError())
    assert universe.events == ["cancelled"] * 3
    assert station.ended == 1


# Capacity -----------------------------------------------------------------------------


def test_theHostTellsOfItself() -> None:
    """
    The other side is told how many calls can run, what it may call and for what it may
    take the host.
    """
    station = Station(Universe(), concurrent=7, qualified=["gpu"])
    about = station.host.about()
    assert (about["slots"], about["trust"], about["series"]) == (7, "universe", ["gpu"])
    assert "echo" in about["names"]


def test_capacityFollowsTheQueue() -> None:
    """
    When workers for these calls come or go, the other side is told how many can run.
    """
    station = Station(Universe(), series="async")
    worker = AsyncWorker(concurrent=5, reactor=station.clock)
    station.queue.attachWorker(worker)
    station.queue.attachWorker(MemoryWorker())
    station.host.capacityChanged()
    assert station.line.sent == [(MessageKind.CAPACITY, 6, None)]
    station.queue.detachWorker(worker)
    assert [number for _, number, _ in station.line.sent] == [6, 1]
    station.host.lost(station.line, ConnectionError())
    station.queue.attachWorker(worker)
    assert len(station.line.sent) == 2


def test_workersThatCanRunNothingAreTold() -> None:
    """
    While none can run calls the other side is told why, and gets back what was not begun and
    what it sends; without hope that is said each time, for what it has queued since.
    """
    failing = Failing(["bulk"], window=2)
    station = Station(Universe(), queue=TaskQueue(failing, reactor=Clock()), series="bulk")
    numbers = [station.call("echo") for _ in range(3)]
    failing.breakDown()
    back = [(MessageKind.GIVEN_BACK, number, None) for number in numbers]
    assert station.line.sent == [(MessageKind.CAPACITY, 0, ("no room", False)), *back]
    assert station.said(station.call("echo")) == [(MessageKind.GIVEN_BACK, None)]
    station.line.sent.clear()
    failing.breakDown(isHopeless=True)
    failing.breakDown(isHopeless=True)
    assert station.line.sent == 2 * [(MessageKind.CAPACITY, 0, ("no room", True))]
    failing.recover()
    assert station.line.sent[2:] == [(MessageKind.CAPACITY, 1, None)]
    last = station.call("echo", 5)
    failing.step()
    assert station.said(last) == [(MessageKind.RETURNED, [[5], {}])]


def test_failingWorkersBesideAWellOne() -> None:
    """
    Only those that can run calls count.
    """
    failing, well = Failing(), MemoryPrefetcher()
    station = Station(Universe(), queue=TaskQueue(failing, well, reactor=Clock()))
    failing.breakDown(isHopeless=True)
    assert station.line.sent == [(MessageKind.CAPACITY, 1, None)]


def test_threadsBesideFailingWorkers() -> None:
    """
    A call that wants a thread is made, though the workers for other calls can run nothing.
    """
    failing, thread = Failing(["bulk"]), MemoryWorker(["thread"])
    station = Station(Universe(), queue=TaskQueue(failing, thread, reactor=Clock()), series="bulk")
    failing.breakDown()
    number = station.call("echo", flags=THREAD)
    thread.step()
    assert station.kinds(number) == [MessageKind.RETURNED]


def test_capacityThatChangedBeforeTheOpeningIsTold() -> None:
    """
    What changes while the connection is being made is told when it is.
    """
    queue = TaskQueue(MemoryWorker())
    host = HostSession(Sessions(), queue, Catalog(), codec=PICKLE)
    assert host.about()["slots"] == 1
    queue.attachWorker(MemoryWorker())
    host.capacityChanged()
    line = Line(PICKLE)
    host.opened(line)
    assert line.sent == [(MessageKind.CAPACITY, 2, None)]


def test_theQueueIsNotObservedForLong() -> None:
    """
    The host observes its queue while there are watched calls, not longer: a queue that is
    observed is slower.
    """
    worker = MemoryWorker()
    station = Station(Universe(), queue=TaskQueue(worker))
    watched = []
    for flags in (0, WATCHED, 0, 0):
        station.call("echo", flags=flags)
        watched += [task.watched for task in worker.tasks]
        worker.step()
    assert watched == [False, True, False, False]


# Who does not read ------------------------------------------------------------------


def pressed(*, calls: int, **kw: Any) -> tuple[Station, Universe]:
    """
    A host that runs one call, that waits, and was told that much waits to be read; so many
    calls came before that.
    """
    universe = Universe()
    station = Station(universe, concurrent=2)
    station.call("wait")
    station.call("wait")
    for n in range(calls):
        station.call("note", n, **kw)
    station.turn()
    station.line.backlog = 1 << 30
    universe.waiting[1].errback(ValueError())
    station.turn()
    assert station.host.held == 1 + calls
    return station, universe


def test_resultsThatNobodyReadsHoldCallsBack() -> None:
    """
    While many bytes wait to be read, calls that have not begun do not begin; as they are
    read, all are made, each once.
    """
    station = Station(Universe(), concurrent=3)
    station.line.counting = True
    size = 1_000_000
    numbers = [station.call("large", size) for _ in range(300)]
    rounds = 0
    while station.host.held:
        station.turn()
        assert station.line.backlog < (64 << 20) + 10 * size
        station.line.ease()
        rounds += 1
        assert rounds < 10
    assert [station.kinds(number) for number in numbers] == [[MessageKind.RETURNED]] * 300
    assert rounds > 3


def test_callsBeginAgainInTheirOrder() -> None:
    """
    Calls that were held back, and those that came meanwhile, are made in the order in which
    they came when there is room; the watched ones say when.
    """
    station, universe = pressed(calls=3, flags=WATCHED)
    late = station.call("note", "late", flags=WATCHED)
    station.turn()
    assert universe.events == []
    station.line.ease()
    station.turn()
    assert universe.events == [0, 1, 2, "late"]
    assert station.kinds(late) == [MessageKind.BEGUN, MessageKind.RETURNED]
    assert station.kinds(3) == [MessageKind.BEGUN, MessageKind.RETURNED]


@pytest.mark.parametrize(
    ("kind", "said"),
    [(MessageKind.CANCEL, MessageKind.CANCELLED), (MessageKind.RECALL, MessageKind.GIVEN_BACK)],
)
def test_callsThatAreHeldBackCanBeTakenBack(kind: MessageKind, said: MessageKind) -> None:
    """
    A call that is held back can be cancelled and recalled, and then is not made.
    """
    station, universe = pressed(calls=2)
    station.hear(kind, 3)
    station.line.ease()
    station.turn()
    assert station.kinds(3) == [said]
    assert universe.events == [1]


def test_callsThatAreHeldBackAreGivenBackByWhoLeaves() -> None:
    """
    A host that leaves gives back what it held back.
    """
    station, universe = pressed(calls=2)
    station.host.drain()
    assert station.kinds(3) == station.kinds(4) == [MessageKind.GIVEN_BACK]
    assert universe.events == []


def test_callsThatAreHeldBackEndWithTheConnection() -> None:
    """
    With the connection lost, what was held back is never made, also if it would be time.
    """
    station, universe = pressed(calls=2)
    station.host.lost(station.line, OSError())
    station.line.ease()
    station.turn()
    assert (universe.events, station.host.held) == (["cancelled"], 0)


def test_aNumberThatIsHeldBackIsUsedOnce() -> None:
    """
    A call that is held back counts, and its number is taken.
    """
    station, _ = pressed(calls=1)
    with pytest.raises(RemoteProtocolError):
        station.call("echo", number=3)


def test_aQueueThatIsShutDownGivesBackWhatIsHeld() -> None:
    """
    What was held back and cannot be made any more is given back, all of it.
    """
    station, universe = pressed(calls=5)
    station.queue.shutdown()
    station.line.ease()
    station.turn()
    assert [station.kinds(n) for n in range(3, 8)] == [[MessageKind.GIVEN_BACK]] * 5
    assert universe.events == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [(MessageKind.RECALL, MessageKind.GIVEN_BACK), (MessageKind.CANCEL, MessageKind.CANCELLED)],
)
def test_whatIsTakenBackMakesRoom(kind: MessageKind, said: MessageKind) -> None:
    """
    When a call that was let in is taken back or cancelled before it begins, another one is
    let in for it: none waits for ever.
    """
    universe = Universe()
    station = Station(universe)
    other = Station(universe, queue=station.queue, reactor=station.clock)
    station.call("wait")
    for n in (2, 3, 4):
        station.call("note", n)
    station.turn()
    station.line.backlog = 1 << 30
    universe.waiting[0].errback(ValueError())
    other.call("wait")
    station.turn()
    station.line.ease()
    station.hear(kind, 2)
    universe.waiting[1].callback(None)
    station.turn()
    assert station.kinds(2) == [said]
    assert universe.events == [3, 4]


def test_whatFailsMakesRoom() -> None:
    """
    A call that was let in and fails lets in another one, too.
    """
    station, _ = pressed(calls=0)
    numbers = [station.call("exit") for _ in range(9)]
    station.line.ease()
    station.turn()
    assert [station.kinds(number) for number in numbers] == [[MessageKind.RAISED]] * 9


def test_whoDoesNotReadIsWaitedForOnce() -> None:
    """
    While calls are held back, what else fails does not have the host wait twice.
    """
    station, universe = pressed(calls=1)
    universe.waiting[0].errback(ValueError())
    assert len(station.line.waiting) == 1


# Whatever comes -------------------------------------------------------------------------


class Attended(Station):
    """
    One whose universe the acts can reach.
    """

    def __init__(self, concurrent: int) -> None:
        self.universe = Universe()
        super().__init__(self.universe, concurrent=concurrent)


def release(station: Attended, n: int) -> None:
    """
    One of the calls that wait ends.
    """
    left = [d for d in station.universe.waiting if not d.called]
    if left:
        left[n % len(left)].callback(n)


ACTS: list[Callable[[Attended, int], Any]] = [
    lambda station, n: station.call("echo", n),
    lambda station, n: station.call("wait"),
    lambda station, n: station.call("wait", flags=WATCHED | URGENT),
    lambda station, n: station.call("stubborn"),
    lambda station, n: station.call("exit"),
    lambda station, n: station.call("generator"),
    lambda station, n: station.call("unknown"),
    lambda station, n: station.call("unsendable"),
    lambda station, n: station.hear(MessageKind.CANCEL, n),
    lambda station, n: station.hear(MessageKind.RECALL, n),
    lambda station, n: station.credit(n, n % 3),
    lambda station, n: station.hear(MessageKind.CLOSE, n),
    lambda station, n: station.turn(),
    lambda station, n: station.turn(),
    lambda station, n: setattr(station.line, "backlog", 1 << 30),
    lambda station, n: station.line.ease(),
    release,
]


@given(
    acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(1, 12)), max_size=40),
    concurrent=st.integers(1, 3),
)
def test_eachCallHasOneEnd(acts: Any, concurrent: int) -> None:
    """
    Whatever the other side sends, and whenever: of each call the last thing said is its
    outcome, there is one, and then the host holds nothing of it.
    """
    station = Attended(concurrent)
    calls = 0
    for act, n in acts:
        calls += isinstance(act(station, n), int)
    station.line.ease()
    for number in range(1, calls + 1):
        station.hear(MessageKind.CLOSE, number)
        station.hear(MessageKind.CANCEL, number)
    station.line.ease()
    station.turn()
    for number in range(1, calls + 1):
        kinds = station.kinds(number)
        assert kinds[-1] in LAST
        assert sum(kind in LAST for kind in kinds) == 1
        assert kinds.count(MessageKind.ITERATOR) == kinds.count(MessageKind.END)
    assert station.host.held == 0
    station.host.lost(station.line, OSError())
    assert station.ended == 1
