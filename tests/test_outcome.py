"""
What L{asynqueue.outcome} promises: whatever a call does, what is told of it can
be told, and can leave the process.
"""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import cloudpickle
import pytest
from hypothesis import given, settings, strategies as st

from asynqueue.calling import perform, performNamed
from asynqueue.codec import ClosedCall, decode, dumps
from asynqueue.errors import MaybeEncodingError, RemoteError, RemoteTraceback
from asynqueue.outcome import (
    Raised,
    Returned,
    describeCall,
    inWords,
    oneLine,
    portable,
    presentable,
    raised,
    shortRepr,
    traceOf,
)


class Unspeakable:
    """
    Has no representation, no name, and cannot be pickled.
    """

    def __repr__(self) -> NoReturn:
        raise KeyError("repr")

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError(name)

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("reduce")

    def __call__(self) -> None:
        """
        Nothing.
        """


class TwoArguments(Exception):
    """
    Wants other arguments than it keeps.
    """

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Cursed(Exception):
    """
    Cannot be reduced.
    """

    def __reduce__(self) -> NoReturn:
        raise SystemExit("reduce")


class Mute(Exception):
    """
    Has no text, and cannot be pickled.
    """

    def __init__(self, first: object, second: object) -> None:
        super().__init__(first)

    def __str__(self) -> NoReturn:
        raise KeyError("str")


class Changeling(Exception):
    """
    Comes back as another.
    """

    def __reduce__(self) -> Any:
        return ValueError, ("changed",)


def call(f: Any, *args: Any, **kw: Any) -> Any:
    """
    The outcome of a call, as it arrives.
    """
    packed = perform(cloudpickle.dumps((f, args, kw)))
    return pickle.loads(packed)


def raising(error: BaseException) -> NoReturn:
    raise error


# In words -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "args", "kw", "text"),
    [
        (abs, (), {}, "abs()"),
        (dict.get, (1, "a"), {"b": None}, "dict.get(1, 'a', b=None)"),
        (print, tuple(range(20)), {}, "print(0, 1, 2, 3, 4, 5, 6, 7, ...)"),
        (partial(abs, 1), (), {}, "functools.partial(<built-in function abs>, 1)()"),
        (ClosedCall(dict.get, b"pickled"), (), {}, "dict.get(...)"),
    ],
)
def test_callsAreDescribed(f: Any, args: Any, kw: Any, text: str) -> None:
    """
    A call is described as one would write it.
    """
    assert describeCall(f, args, kw) == text


@pytest.mark.parametrize(
    "value",
    [
        Unspeakable(),
        Unspeakable,
        [Unspeakable()],
        10**10_000,
        "x" * 10**6,
        [["x" * 1000] * 1000] * 1000,
        dict.fromkeys(range(1000), "y" * 99),
        Mute(1, 2),
    ],
    ids=range(8),
)
def test_anythingIsDescribedInOneShortLine(value: Any) -> None:
    """
    Whatever is called with whatever, the description is short, and there is one.
    """
    text = describeCall(value, (value,) * 20, {"key": value})
    assert len(text) <= 300
    assert text
    assert len(shortRepr(value)) < 5000


def test_descriptionIsOneLine() -> None:
    """
    What is represented in several lines is described in one.
    """

    class Table:
        def __repr__(self) -> str:
            return "row\nrow"

    assert describeCall(abs, (Table(),), {}) == "abs(row row)"


def test_namesThatAreNoStringsAreNotUsed() -> None:
    """
    What gives anything for its name has none.
    """

    class Anything:
        __qualname__ = "Anything"

        def __init__(self) -> None:
            self.__qualname__ = 7  # type: ignore[assignment]

        def __repr__(self) -> str:
            return "anything"

    assert describeCall(Anything(), (), {}) == "anything()"  # type: ignore[arg-type]


@given(st.recursive(st.none() | st.text() | st.floats(), lambda v: st.lists(v) | st.tuples(v, v)))
@settings(deadline=None, max_examples=50)
def test_shortReprIsBounded(value: Any) -> None:
    """
    Values of any depth have a short representation.
    """
    assert 0 < len(shortRepr(value)) < 5000


# Exceptions that travel --------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("x"), ValueError(1, 2), SystemExit(3), OSError(2, "a")])
def test_whatTravelsStaysItself(error: BaseException) -> None:
    """
    An exception that survives the journey is sent as it is.
    """
    assert portable(error) is error


def test_localClassTravels() -> None:
    """
    An exception of a class that was made in a function travels with its class.
    """

    class Local(Exception):
        pass

    error = Local("here")
    assert portable(error) is error
    assert type(call(raising, error).error).__name__ == "Local"


def lambdaInside() -> BaseException:
    error = KeyError("x")
    error.lock = Unspeakable()  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (TwoArguments("a", "b"), "test_outcome.TwoArguments", "a and b"),
        (Cursed("no"), "test_outcome.Cursed", "no"),
        (Mute(1, 2), "test_outcome.Mute", ""),
        (Changeling("me"), "test_outcome.Changeling", "me"),
        (lambdaInside(), "KeyError", "'x'"),
    ],
    ids=["two arguments", "reduce exits", "no text", "another type", "attributes"],
)
def test_whatCannotTravelIsSaidInWords(error: BaseException, name: str, text: str) -> None:
    """
    An exception that cannot be pickled, or not made again, is a RemoteError that
    says the same.
    """
    stand = portable(error)
    assert isinstance(stand, RemoteError)
    assert stand.typeName.endswith(name)
    assert stand.message == text
    assert pickle.loads(pickle.dumps(stand)).message == text


def test_raisedTellsWhere() -> None:
    """
    Here the exception has the remote traceback for its cause.
    """
    try:
        raising(KeyError("x"))
    except KeyError as error:
        there = pickle.loads(cloudpickle.dumps(raised(error)))
    here = there.localError()
    assert isinstance(here, KeyError)
    assert isinstance(here.__cause__, RemoteTraceback)
    assert "in raising" in str(here.__cause__)


class Tagged(Exception):
    """
    Whose class, notes or name are not what they should be.
    """

    __notes__ = property(lambda _: raising(RuntimeError("no notes today")))  # type: ignore[assignment]


class Sealed(Exception):
    """
    Allows no assignment.
    """

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} cannot be set")


class OddText(str):
    """
    A text that cannot be pickled.
    """

    def __reduce__(self) -> NoReturn:
        raise TypeError("no")


class OddlyTold(Exception):
    """
    Whose text and representation are of an odd kind.
    """

    def __init__(self, first: object = None, second: object = None) -> None:
        super().__init__("told")

    def __repr__(self) -> str:
        return OddText("oddly told")

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("no")


def around(error: BaseException) -> BaseException:
    """
    An exception that is its own cause, by way of another.
    """
    error.__cause__ = ValueError("between")
    error.__cause__.__cause__ = error
    return error


UNFORMATTABLE = [
    SyntaxError("unexpected token", ("query.sql", 1, "3", "SELECT")),
    SyntaxError("unexpected token", ("query.sql", "x", object(), 5)),
    Tagged("told"),
    Mute(1, 2),
    OddlyTold(),
    around(KeyError("told")),
]


@pytest.mark.parametrize("error", UNFORMATTABLE, ids=lambda error: type(error).__name__)
def test_anyExceptionIsTold(error: BaseException) -> None:
    """
    An exception whose own code raises, or that is not what it should be, is told with its
    type and where it was raised.
    """

    def f() -> NoReturn:
        raise error

    try:
        f()
    except BaseException as caught:
        outcome = raised(caught)
    again = decode(dumps(outcome))
    assert type(again.error) in (type(error), RemoteError)
    assert "in f" in again.trace
    assert type(error).__name__ in again.trace
    assert len(inWords(error)) < 200
    assert type(shortRepr(error)) is str


def test_longTextsAreCut() -> None:
    """
    In a message an exception has no more than the beginning of its text.
    """
    assert len(inWords(ValueError("x" * 1_000_000))) < 20_000


class Wordless(Exception):
    """
    Cannot say what it is.
    """

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(" so\n  much "), "so much"),
        (ValueError(), "ValueError"),
        (Wordless(), "Wordless"),
    ],
)
def test_oneLineSaysWhatAnExceptionSays(error: Exception, line: str) -> None:
    """
    Of an exception a line is made of what it says, or else of the name of its type.
    """
    assert oneLine(error) == line


def test_causeOfWhatCannotBeSet() -> None:
    """
    An exception that allows no assignment has the remote traceback for its cause, too.
    """
    error = Sealed("told")
    assert Raised(error, "the trace").localError() is error
    assert "the trace" in str(error.__cause__)


# Calls ---------------------------------------------------------------------------------


def test_performReturns() -> None:
    """
    The value of a call arrives.
    """
    assert call(divmod, 7, 2) == Returned((3, 1))


def test_performReturnsPlainValues() -> None:
    """
    A value that every Python has arrives as it is: the executor pickles it, and once is enough.
    """
    assert perform(cloudpickle.dumps((len, ("abc",), {}))) == (3,)


@pytest.mark.parametrize(
    "error", [KeyError("x"), SystemExit(1), KeyboardInterrupt(), StopIteration(7)]
)
def test_performRaises(error: BaseException) -> None:
    """
    Whatever a call raises arrives with its type, exits and interrupts too.
    """
    outcome = call(raising, error)
    assert isinstance(outcome, Raised)
    assert type(outcome.error) is type(error)
    assert outcome.error.args == error.args
    assert "raising" in outcome.trace


@pytest.mark.parametrize("error", [TwoArguments("a", "b"), Mute(1, 2), Cursed("no")])
def test_performRaisesWhatCannotTravel(error: BaseException) -> None:
    """
    What cannot travel arrives in words.
    """

    def f() -> None:
        kinds = {"TwoArguments": TwoArguments("a", "b"), "Mute": Mute(1, 2), "Cursed": Cursed()}
        raise kinds[name]

    name = type(error).__name__
    assert isinstance(call(f).error, RemoteError)


@pytest.mark.parametrize("make", [Unspeakable, threading.Lock])
def test_resultThatCannotBeSent(make: Any) -> None:
    """
    A result that cannot be sent is an error that says so.
    """
    outcome = call(make)
    assert isinstance(outcome.error, MaybeEncodingError)


def test_iteratorStaysWhereItIs() -> None:
    """
    An iterator is told to be made a list.
    """
    error = call(iter, [1]).error
    assert isinstance(error, MaybeEncodingError)
    assert "return a list" in str(error)


class Unwelcome:
    """
    Raises when it is unpickled.
    """

    def __reduce__(self) -> Any:
        return raising, (LookupError("arrived"),)


def test_argumentsThatCannotBeMadeAgain() -> None:
    """
    Arguments whose unpickling raises are an outcome like another.
    """
    packed = perform(cloudpickle.dumps((abs, (Unwelcome(),), {})))
    assert isinstance(pickle.loads(packed).error, LookupError)


def test_payloadThatIsNone() -> None:
    """
    So is what is no pickle at all.
    """
    assert isinstance(pickle.loads(perform(b"nonsense")), Raised)


class Calculator:
    """
    Has a function of a name within another.
    """

    @staticmethod
    def half(number: int) -> int:
        """
        Half of it.
        """
        return number // 2


@pytest.mark.parametrize(
    ("module", "name", "args"),
    [("textwrap", "dedent", (" 7",)), (__name__, "Calculator.half", (14,))],
)
def test_performsWhatHasAName(module: str, name: str, args: tuple[Any, ...]) -> None:
    """
    A function is called by its name in a module, and the names of the classes that it is in.
    """
    (value,) = performNamed(module, name, args)
    assert int(value) == 7


@pytest.mark.parametrize(
    ("module", "name", "kind"),
    [
        ("nowhere.at_all", "f", ModuleNotFoundError),
        ("textwrap", "gone", AttributeError),
        ("sys", "exit", SystemExit),
    ],
)
def test_performsNamesThatRaise(module: str, name: str, kind: type[BaseException]) -> None:
    """
    What is not there, and what a call raises, are outcomes as well.
    """
    packed = performNamed(module, name, ())
    assert isinstance(packed, bytes)
    assert type(pickle.loads(packed).error) is kind


def test_exitsInRepresentationsAreNoExits() -> None:
    """
    Whose representation or text wants to end the program is described all the same.
    """

    class Leaving(Exception):
        def __repr__(self) -> str:
            raise SystemExit

        __str__ = __repr__

    class Nameless:
        def __call__(self) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            raise SystemExit

    # None of them is in an assertion, which would want to show it.
    texts = [shortRepr(Leaving()), describeCall(Nameless(), (Leaving(),), {})]
    assert all("Leaving" in text for text in texts)
    # What holds a lock cannot be pickled, and is told of in words.
    told = portable(Leaving(threading.Lock()))
    assert type(told) is RemoteError
    assert told.message == ""


class Meta(type):
    """
    A metaclass whose classes have no hash.
    """

    __hash__ = None  # type: ignore[assignment]


class Hashless(Exception, metaclass=Meta):
    """
    An exception of a class that no table can have.
    """


class Pretending(Exception):
    """
    An exception that says it is of another class.
    """

    @property
    def __class__(self) -> Any:
        return dict


@pytest.mark.parametrize("kind", [Hashless, Pretending])
def test_anExceptionThatCannotBeHandledIsTold(kind: type[Exception]) -> None:
    """
    A RemoteError stands for it, with its name, its text and its traceback.
    """
    try:
        raise kind("a bad day")
    except BaseException as error:
        told = presentable(error)
        trace = told.__traceback__
    assert type(told) is RemoteError
    assert str(told).endswith(f"{kind.__qualname__}: a bad day")
    assert trace is not None


def test_anExceptionThatCanBeHandledStays() -> None:
    """
    It is the exception itself.
    """
    error = LookupError("a bad day")
    assert presentable(error) is error


def endless(depth: int = 0) -> int:
    """
    Call itself for as long as it may.
    """
    return endless(depth + 1)


def caughtFrom(f: Callable[..., Any], *args: Any) -> BaseException:
    """
    What a call raises.
    """
    try:
        f(*args)
    except BaseException as error:
        return error
    raise AssertionError("it returned")


def raiseFrom(f: Callable[[], Any]) -> None:
    """
    Raise another exception than a function does.
    """
    try:
        f()
    except RecursionError as error:
        raise LookupError("too deep") from error


@pytest.fixture
def depth() -> Iterator[int]:
    """
    A program that allows a deep recursion.
    """
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield 20_000
    sys.setrecursionlimit(before)


def test_aDeepRecursionIsToldInBounds(depth: int) -> None:
    """
    Of its frames the outermost and the innermost are told, as are those of what it causes.
    """
    error = caughtFrom(raiseFrom, endless)
    outcome = raised(error)
    assert [each[0] for each in outcome.frames] == ["caughtFrom", "raiseFrom"]
    assert isinstance(error.__cause__, RecursionError)
    cause = raised(error.__cause__)
    assert len(cause.frames) == 1000
    # In the last of all the collector may be at work.
    assert [cause.frames[place][0] for place in (0, 1, 900)] == ["raiseFrom", "endless", "endless"]
    assert len(cause.trace) <= 1 << 16


def linkedByCause(error: BaseException, other: BaseException) -> BaseException:
    other.__cause__ = error
    return other


def linkedByContext(error: BaseException, other: BaseException) -> BaseException:
    other.__context__ = error
    return other


def inAGroup(error: Any, other: Any) -> BaseException:
    return ExceptionGroup("some", [error, other])


@pytest.mark.parametrize("link", [linkedByCause, linkedByContext, inAGroup])
def test_manyLinkedExceptionsAreToldByTheLast(link: Callable[..., BaseException]) -> None:
    """
    Where very many have led to an exception, its traceback is that of itself.
    """
    error: BaseException = LookupError("the first")
    for number in range(10_000):
        error = link(error, KeyError(number))
    assert "the first" not in raised(error).trace
    assert type(error).__name__ in raised(error).trace


def test_linksInACircleAreTold() -> None:
    """
    Each of them is told once.
    """
    error, other = LookupError("one"), LookupError("two")
    error.__cause__, other.__cause__ = other, error
    trace = traceOf(error)
    assert (trace.count("one"), trace.count("two")) == (1, 1)


def test_aHugeTextIsToldByItsEnd() -> None:
    """
    A traceback is no longer than a bound; the exception itself keeps its text.
    """
    outcome = raised(LookupError("x" * 1_000_000))
    assert len(outcome.trace) <= 1 << 16
    assert len(str(outcome.error)) == 1_000_000
