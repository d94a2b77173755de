"""
L{asynqueue.wire.protocol.codecs} and what they are made of: what travels, what comes of what
cannot, and that CBOR runs no code.
"""

from __future__ import annotations

import pickle
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import cbor2
import pytest
from hypothesis import given, strategies as st
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from asynqueue.cbor import CborCodec
from asynqueue.errors import (
    MaybeEncodingError,
    RemoteError,
    RemoteProtocolError,
    RemoteTraceback,
    TaskTimedOut,
    WorkerLost,
)
from asynqueue.failures import raisedOf, shortened
from asynqueue.outcome import Raised
from asynqueue.testing.calls import AwkwardError, StuckError, Unsendable
from asynqueue.wire.protocol.codecs import Codec, PickleCodec, codecNamed

CODECS: list[Codec] = [codecNamed("pickle"), codecNamed("cbor")]
both = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
cbor = CborCodec()

REFUSALS = (cbor2.CBORDecodeError, TypeError, ValueError)
UNWRITABLE = (cbor2.CBOREncodeError, TypeError, ValueError)

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


class Sprung:
    """
    Tells when something was pickled or made again, by noting it.
    """

    springs: list[str] = []

    def __reduce__(self) -> Any:
        self.springs.append("pickled")
        return Sprung.spring, ()

    @staticmethod
    def spring() -> None:
        """
        Unpickling calls it.
        """
        Sprung.springs.append("unpickled")


class Watch:
    """
    Hears of everything that any pickle names, from the interpreter itself.
    """

    def __init__(self) -> None:
        self.on = False
        self.found: list[Any] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: Any) -> None:
        if self.on and event == "pickle.find_class":
            self.found.append(args)


_watch = Watch()


@contextmanager
def nothingUnpickled() -> Iterator[None]:
    """
    Fail if anything is pickled by its own rules, or anything but plain data is unpickled.
    """
    Sprung.springs.clear()
    _watch.found.clear()
    _watch.on = True
    try:
        yield
    finally:
        _watch.on = False
    assert Sprung.springs == []
    assert _watch.found == []


def caught(error: BaseException) -> Raised:
    """
    What is told of an exception that was raised.
    """
    try:
        raise error
    except BaseException:
        return raisedOf(Failure())


def sentBy(codec: Codec, error: BaseException) -> BaseException:
    """
    What comes of an exception on the other side.
    """
    return codec.decodeRaised(codec.encodeRaised(caught(error))).error


def recursing() -> Any:
    """
    Never comes to its end.
    """
    return recursing()


# Values ---------------------------------------------------------------------


@given(value=VALUES)
def test_plainValuesComeBackTheSame(value: Any) -> None:
    """
    Numbers, texts, bytes, and lists and dicts of them are the same on the other side.
    """
    for codec in CODECS:
        assert codec.decode(*codec.encode(value)) == value


@given(args=st.lists(VALUES, max_size=4), kw=st.dictionaries(st.text(), VALUES, max_size=4))
def test_argumentsComeBackTheSame(args: list[Any], kw: dict[str, Any]) -> None:
    """
    What a function is called with is what it was to be called with.
    """
    for codec in CODECS:
        body, buffers = codec.encodeCall(tuple(args), kw)
        again, names = codec.decodeCall(b"" if body is None else body, buffers)
        assert (list(again), names) == (args, kw)


@both
def test_noArgumentsAreNoBytes(codec: Codec) -> None:
    """
    A call without arguments costs nothing to write or read.
    """
    assert codec.encodeCall((), {}) == (None, ())
    for nothing in (b"", memoryview(b"")):
        args, kw = codec.decodeCall(nothing, ())
        assert (list(args), kw) == ([], {})


@both
def test_bodiesMayBeViews(codec: Codec) -> None:
    """
    What came in a large message is a view, and is read as well.
    """
    body, buffers = codec.encode({"a": [1, 2.5, b"x"]})
    assert codec.decode(memoryview(bytearray(body)), buffers) == {"a": [1, 2.5, b"x"]}


def test_largeBuffersStayBesideThePickle() -> None:
    """
    A large array is not copied into the pickle.
    """
    numbers = pickle.PickleBuffer(array("d", range(10_000)))
    body, buffers = PickleCodec.encode([numbers])
    assert len(body) < 100
    assert [buffer.raw().nbytes for buffer in buffers] == [80_000]
    assert memoryview(PickleCodec.decode(body, buffers)[0]).nbytes == 80_000


def test_largeBytesStayBesideThePickle() -> None:
    """
    Large bytes are not copied as they are written, neither as a result nor as arguments,
    and are plain bytes where they are read.
    """
    data = b"x" * 100_000
    body, buffers = PickleCodec.encode(data)
    assert len(body) < 100
    assert buffers[0].raw().obj is data
    again = PickleCodec.decode(body, [memoryview(bytearray(buffers[0]))])
    assert (type(again), again) == (bytes, data)

    packed, buffers = PickleCodec.encodeCall((1, data), {"a": data, "b": 2})
    assert packed is not None
    assert len(packed) < 200
    args, kw = PickleCodec.decodeCall(packed, [memoryview(buffer) for buffer in buffers])
    assert (list(args), kw) == ([1, data], {"a": data, "b": 2})
    assert type(args[1]) is type(kw["a"]) is bytes


def test_largeBytearraysAreCopied() -> None:
    """
    A large bytearray is sent as it was when it was written: its owner may change it.
    """
    data = bytearray(100_000)
    body, buffers = PickleCodec.encode(data)
    data[0] = 7
    assert PickleCodec.decode(body, buffers) == bytearray(100_000)


@pytest.mark.parametrize(
    "value",
    [
        date(2026, 11, 21),
        datetime(2026, 11, 21, 14, 30, tzinfo=UTC),
        Decimal("1.50"),
        UUID(int=7),
        ip_address("10.0.0.1"),
        ip_address("::1"),
        {1, 2, "three"},
        1 << 200,
        -(1 << 200),
        2 + 1j,
        float("inf"),
        {(1, 2): "pair", None: 0},
    ],
)
def test_cborCarriesSomeTypesMore(value: Any) -> None:
    """
    Dates, decimals, UUIDs, addresses, sets and large numbers are the same on the other side.
    """
    assert cbor.decode(*cbor.encode(value)) == value


@pytest.mark.parametrize(
    ("value", "again"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        (bytearray(b"x"), b"x"),
        (frozenset({1}), {1}),
        (IntEnum("Colour", ["RED"])(1), 1),
    ],
)
def test_cborMakesSomeTypesPlain(value: Any, again: Any) -> None:
    """
    Tuples come back as lists, and members and subclasses as what they are underneath.
    """
    decoded = cbor.decode(*cbor.encode(value))
    assert (type(decoded), decoded) == (type(again), again)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        Unsendable(),
        Fraction(1, 3),
        timedelta(1),
        range(3),
        memoryview(b"abc"),
        iter([1]),
        datetime(2026, 11, 21),
        "\ud800",
        [{"deep": (1, [object()])}],
    ],
)
def test_whatCborCannotCarryIsSaid(value: Any) -> None:
    """
    A value with anything else in it is refused, with a reason.
    """
    with pytest.raises(MaybeEncodingError) as caught:
        cbor.encode(value)
    assert "plain values only" in caught.value.reason
    with pytest.raises(UNWRITABLE):
        cbor.encodeCall((value,), {})


def nested(depth: int) -> Any:
    """
    A list in a list, so deep.
    """
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [200, 1000, 100_000])
def test_cborRefusesWhatIsNestedTooDeep(depth: int) -> None:
    """
    A deep value is an error, and neither a crash nor something that the other side then
    refuses.
    """
    value = nested(depth)
    with pytest.raises(MaybeEncodingError, match="nested deeper"):
        cbor.encode(value)
    while type(value) is list:
        # Python itself would recurse, as it lets go of it.
        value = value.pop()


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: {1: v}, lambda v: frozenset([v]), lambda v: {(1,): v}]
)
def test_cborReadsWhatItWrites(wrap: Callable[[Any], Any]) -> None:
    """
    The deepest value that is written, of whatever it is made, is read; also as an argument.
    """
    value: Any = date(2026, 11, 21)
    written = 0
    while True:
        try:
            body, buffers = cbor.encode(value)
        except MaybeEncodingError:
            break
        assert cbor.decode(body, buffers) == value
        written += 1
        value = wrap(value)
    assert written > 190


def test_cborRefusesValuesWithinThemselves() -> None:
    """
    A list that holds itself is an error.
    """
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(MaybeEncodingError, match="in itself"):
        cbor.encode(ring)


def test_cborIsNotMisledByBranches() -> None:
    """
    A value that is in many places is looked at once in each depth, not once in each place.
    """
    value: Any = 1
    for _ in range(150):
        value = [value, value]
    with pytest.raises(MaybeEncodingError):
        cbor.encode([value, object()])


# What CBOR refuses to read ----------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"\x81" * 100_000 + b"\x00",
        b"\xc0" * 100_000 + b"\x00",
        b"\xd9\x01\x02\x81" * 100_000 + b"\x00",
        bytes.fromhex("9b00ffffffffffffff"),
        bytes.fromhex("5b00ffffffffffffff"),
        bytes.fromhex("bb00ffffffffffffff"),
        bytes.fromhex("d8236161"),
        bytes.fromhex("d8246161"),
        bytes.fromhex("d81c8100"),
        bytes.fromhex("d81c81d81d00"),
        bytes.fromhex("d9010081d81900"),
        bytes.fromhex("c5820102"),
        bytes.fromhex("d81e820103"),
        bytes.fromhex("da0001000000"),
        b"\x00\x00",
        pickle.dumps(Fraction(1, 3)),
    ],
    ids=lambda body: body[:8].hex() or "nothing",
)
def test_cborRefusesToRead(body: bytes) -> None:
    """
    What is no CBOR, too deep, larger than it is, or has tags that make or compute
    something, is an exception: no crash, and nothing is made of it.
    """
    with nothingUnpickled(), pytest.raises(REFUSALS):
        cbor.decode(body)


@given(body=st.binary(max_size=200))
def test_cborReadsAnyBytesOrRefusesThem(body: bytes) -> None:
    """
    Bytes of a stranger are a value or an exception, as a value, as arguments, and as what
    was raised; nothing is unpickled.
    """
    readers: list[Callable[[], Any]] = [
        lambda: cbor.decode(body),
        lambda: cbor.decodeCall(body, ()),
        lambda: cbor.decodeRaised(body),
    ]
    with nothingUnpickled():
        for read in readers:
            try:
                read()
            except (*REFUSALS, RemoteProtocolError):
                pass


def test_cborArgumentsAreAListAndAMap() -> None:
    """
    Other values are no arguments.
    """
    for wrong in ([1, 2], [[], []], [[]], {"a": 1}, None):
        with pytest.raises(REFUSALS):
            cbor.decodeCall(cbor.encode(wrong)[0], ())


def test_cborTakesNoBuffers() -> None:
    """
    Buffers that came beside CBOR are not its.
    """
    with pytest.raises(ValueError):
        cbor.decode(b"\x00", [b"x"])


def test_picklesAreOnlyBytesInCbor() -> None:
    """
    In CBOR a pickle is text or bytes to whoever gets it, and nothing makes it more; and
    what defines its own pickling is not asked.
    """
    trap = pickle.dumps(Sprung())
    with nothingUnpickled():
        assert cbor.decode(*cbor.encode(trap)) == trap
        with pytest.raises(MaybeEncodingError):
            cbor.encode(Sprung())
        with pytest.raises(RemoteProtocolError):
            cbor.decodeRaised(trap)
        assert type(sentBy(cbor, ValueError(Sprung()))) is RemoteError
        assert type(sentBy(cbor, AwkwardError("a", 1))) is RemoteError


# Exceptions -------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "error",
    [
        ValueError("a reason", 3),
        KeyError("key"),
        FileNotFoundError(2, "no such file"),
        RecursionError("too deep"),
        SystemExit(3),
        KeyboardInterrupt(),
        TaskTimedOut("f()", 1.5),
        WorkerLost("f()", "host a", True, reason="it is gone"),
        MaybeEncodingError("why", "what"),
        CancelledError("nobody wants it"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptionsComeBackWithTheirTypes(codec: Codec, error: BaseException) -> None:
    """
    What Python or AsynQueue define is raised again as what it was.
    """
    again = sentBy(codec, error)
    assert type(again) is type(error)
    assert (again.args, str(again)) == (error.args, str(error))


@both
@pytest.mark.parametrize(
    "error",
    [
        AwkwardError("awkward", 2),
        StuckError("stuck"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ExceptionGroup("many", [StuckError("stuck")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatCannotTravelIsTold(codec: Codec, error: BaseException) -> None:
    """
    An exception that cannot be sent, or made again from its arguments, comes as one that
    names its type and says what it said.
    """
    again = sentBy(codec, error)
    if type(again) is not type(error):
        assert isinstance(again, RemoteError)
        assert again.typeName.endswith(type(error).__qualname__)
        assert again.message == str(error)


def test_usersExceptionsAreToldInCbor() -> None:
    """
    In CBOR the exceptions of users' modules are named, and not made.
    """
    again = sentBy(cbor, AwkwardError("awkward", 2))
    assert isinstance(again, RemoteError)
    assert again.typeName == "asynqueue.testing.calls.AwkwardError"


def test_whatStandsForAnotherIsNotWrappedAgain() -> None:
    """
    A RemoteError that goes over a second connection is the same.
    """
    for codec in CODECS:
        again = sentBy(codec, RemoteError("theirs.Error", "said"))
        assert isinstance(again, RemoteError)
        assert (again.typeName, again.message) == ("theirs.Error", "said")


class Unreadable(Exception):
    """
    Can be made where it was raised only.
    """

    here = True

    def __init__(self, text: str) -> None:
        if not self.here:
            raise ImportError("not here")
        super().__init__(text)


def test_anExceptionUnknownHereIsTold(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An exception whose class this side cannot make comes with its name, its text and its
    traceback.
    """
    body = PickleCodec.encodeRaised(caught(Unreadable("what it said")))
    monkeypatch.setattr(Unreadable, "here", False)
    outcome = PickleCodec.decodeRaised(body)
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.message == "what it said"
    assert "what it said" in outcome.trace
    assert outcome.frames[-1][0] == "caught"


@both
def test_whereItWasRaisedIsTold(codec: Codec) -> None:
    """
    The traceback and the frames travel, and the exception's cause tells them.
    """
    outcome = codec.decodeRaised(codec.encodeRaised(caught(ValueError("here"))))
    assert "ValueError: here" in outcome.trace
    assert [name for name, _, _ in outcome.frames] == ["caught"]
    assert isinstance(outcome.localError().__cause__, RemoteTraceback)


@both
def test_endlessRecursionIsToldInBrief(codec: Codec) -> None:
    """
    What recursed to the limit has the first and the last of its frames.
    """
    try:
        recursing()
    except RecursionError:
        outcome = raisedOf(Failure())
    body = codec.encodeRaised(outcome)
    assert len(body) < 50_000
    again = codec.decodeRaised(body)
    assert type(again.error) is RecursionError
    assert len(again.frames) == 100


class Silent(Exception):
    """
    Does not say what it is.
    """

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Exiting(Exception):
    """
    Exits where it should say what it is.
    """

    def __str__(self) -> str:
        raise SystemExit(2)

    __repr__ = __str__


@both
@pytest.mark.parametrize("error", [Silent, Exiting])
def test_whatHasNoTextIsToldByItsType(codec: Codec, error: type[Exception]) -> None:
    """
    An exception whose text cannot be had is told by its type.
    """
    outcome = shortened(caught(error()))
    again = codec.decodeRaised(codec.encodeRaised(outcome))
    assert isinstance(again.error, RemoteError)
    assert again.error.typeName.endswith(error.__name__)
    assert error.__name__ in again.trace


@both
def test_whatIsTooLargeIsToldInShort(codec: Codec) -> None:
    """
    Of an exception of many bytes there is a form of few.
    """
    outcome = shortened(caught(ValueError("x" * 1_000_000)))
    body = codec.encodeRaised(outcome)
    assert len(body) < 30_000
    again = codec.decodeRaised(body).error
    assert isinstance(again, RemoteError)
    assert again.typeName == "ValueError"


@both
@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"\x80", pickle.dumps(3), b"\x86" + b"\x00" * 6]
)
def test_whatIsNoExceptionIsAnError(codec: Codec, body: bytes) -> None:
    """
    What cannot be read as an exception says so, with our type.
    """
    with pytest.raises(RemoteProtocolError):
        codec.decodeRaised(body)


def test_onlyExceptionsAreMadeInCbor() -> None:
    """
    A name that is no exception's makes nothing, whatever it names.
    """
    for name in ("print", "builtins.print", "os.system", "__import__", "asynqueue.errors.signals"):
        body = cbor.encode([name, ["x"], "T", "text", "trace", []])[0]
        assert type(cbor.decodeRaised(body).error) is RemoteError


def test_aCleanedFailureHasItsFrames() -> None:
    """
    A failure that kept only its frames tells these.
    """
    try:
        raise ValueError("here")
    except ValueError:
        failure = Failure()
    failure.cleanFailure()
    outcome = raisedOf(failure)
    assert outcome.frames[-1][0] == "test_aCleanedFailureHasItsFrames"
    assert "ValueError" in outcome.trace


# Names ------------------------------------------------------------------------


def test_codecsAreFoundByName() -> None:
    """
    There are two codecs, and no other.
    """
    assert [codecNamed(name).name for name in ("pickle", "cbor")] == ["pickle", "cbor"]
    with pytest.raises(ValueError, match="'pickle' and 'cbor'"):
        codecNamed("json")


def test_whoLacksCborIsToldHowToGetIt(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without cbor2 the error says what to install.
    """
    monkeypatch.setitem(sys.modules, "cbor2", None)
    with pytest.raises(ImportError, match=r"pip install 'asynqueue\[cbor\]'"):
        codecNamed("cbor")


def test_whoHasAnOldCborIsToldHowToGetIt(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With a cbor2 that cannot be told what to refuse, the error says what to install.
    """

    class OldDecoder:
        def __init__(self, fp: Any, tag_hook: Any = None) -> None:
            """
            Takes no limits.
            """

    monkeypatch.setattr(cbor2, "CBORDecoder", OldDecoder)
    with pytest.raises(ImportError, match="version 6 or later"):
        codecNamed("cbor")


def test_itemsAreInAList() -> None:
    """
    Items come in a list; anything else breaks the protocol.
    """
    for codec in (cbor, PickleCodec()):
        assert codec.decodeItems(codec.encode([1, 2])[0], ()) == [[1, 2]]
        with pytest.raises(RemoteProtocolError, match="items of an iterator came as dict"):
            codec.decodeItems(codec.encode({"a": 1})[0], ())
