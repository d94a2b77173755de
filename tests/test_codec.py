"""
What L{asynqueue.codec} promises: whatever can travel does, with its code where the
other side cannot have it, and with large buffers beside it.
"""

from __future__ import annotations

import copyreg
import os
import pickle
import re
import subprocess
import sys
from array import array
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from threading import Lock
from types import MethodType, ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import given, strategies as st

from asynqueue.codec import (
    AWAY,
    ClosedCall,
    NotClosed,
    decode,
    dumps,
    encode,
    encodeCall,
    isImportable,
)
from tests.mains import mainOf

ROOT = Path(__file__).parent.parent

# A buffer of so many bytes stays out of the pickle.
LARGE = 1 << 14

NO_LOCK = re.escape("cannot pickle '_thread.lock' object")

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.sets(st.integers())
        | st.binary().map(bytearray)
    ),
)


class Numbers:
    """
    An array that gives its buffer, as those of others do.
    """

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Numbers, (pickle.PickleBuffer(self.buffer),)


class Outer:
    """
    Has a class within.
    """

    class Inner:
        """
        Is found by its qualified name.
        """

    def method(self) -> str:
        return "Outer's"


class Closed(type):
    """
    A kind of classes that have nothing they are asked for.
    """

    def __getattr__(cls, name: str) -> NoReturn:
        raise ValueError(name)


class Stern(metaclass=Closed):
    """
    Refuses to be looked at.
    """


def double(x: int) -> int:
    return 2 * x


def bothWays(value: Any) -> list[Any]:
    """
    What is made again, by each way there is.
    """
    pickled, buffers = encode(value)
    return [decode(pickled, buffers), decode(dumps(value)), pickle.loads(dumps(value))]


def fresh(code: str) -> str:
    """
    What a fresh interpreter prints for this code.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    ).stdout


def inMain(made: str) -> bytes:
    """
    What a main module pickles.

    @param made: its code, that gives a name to C{value}.
    """
    code = f"{made}\nfrom asynqueue.codec import dumps\nprint(dumps(value).hex())"
    return bytes.fromhex(fresh(code))


# Values ----------------------------------------------------------------------------


@given(values)
def test_plainValuesComeAsTheyWere(value: Any) -> None:
    """
    What every Python has arrives as it was.
    """
    assert bothWays(value) == [value] * 3


@given(st.lists(values, max_size=3).map(tuple), st.dictionaries(st.text(), values, max_size=2))
def test_callsComeAsTheyWere(args: tuple[Any, ...], kw: dict[str, Any]) -> None:
    """
    So do arguments and keywords; where there are none, nothing is sent.
    """
    pickled, buffers = encodeCall(args, kw)
    if pickled is None:
        assert (args, kw) == ((), {})
    else:
        assert decode(pickled, buffers) == (args, kw)


@pytest.mark.parametrize(
    "value",
    [double, Outer, Outer.Inner, Outer.method, len, dict, Numbers, attrgetter, Outer().method],
)
def test_whatHasANameTravelsByIt(value: Any) -> None:
    """
    Functions, classes and methods that can be imported are sent as their name.
    """
    pickled = dumps(value)
    assert len(pickled) < 120
    # Programs may register another way for methods: Twisted does.
    assert type(value) is MethodType or pickled == pickle.dumps(value, 5)


@pytest.mark.parametrize("value", [double, Outer, Outer.Inner, Outer.method, dict, Numbers])
def test_whatHasANameIsImportable(value: Any) -> None:
    """
    What its module and name lead to is importable.
    """
    assert isImportable(value)


def test_closuresTravelWithTheirCode() -> None:
    """
    Lambdas, local functions and what they close over are sent as code.
    """
    factor = 3

    def times(x: int) -> int:
        return factor * x

    calls: list[Callable[[int], int]] = [
        lambda x: x + 1,
        times,
        partial(times),
        partial(double),
        lambda x: -times(x),
    ]
    for made in bothWays(calls):
        assert [f(5) for f in made] == [6, 15, 15, 10, -15]
        assert made[1] is not times


def test_instancesOfLocalClassesTravel() -> None:
    """
    Local classes are sent with their instances, and with bound methods of those.
    """

    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def get(self) -> int:
            return self.x

    for value in (Local(5), [Local(5)][0], {"deep": [Local(5)]}["deep"][0]):
        assert [again.get() for again in bothWays(value)] == [5] * 3
    assert [again() for again in bothWays(Local(6).get)] == [6] * 3
    assert [again[0][1].x for again in bothWays([(None, Local(7))])] == [7] * 3
    assert not isImportable(Local)
    assert not isImportable(Local.get)


def test_classesOfTheMainModuleTravel() -> None:
    """
    The main module of the sender is none of the receiver's: what it defines is
    sent as code.
    """
    made = "class Mine:\n    def get(self): return 5\nvalue = Mine"
    assert pickle.loads(inMain(made))().get() == 5
    assert pickle.loads(inMain(made + "()")).get() == 5
    assert pickle.loads(inMain(made + "().get"))() == 5


def test_functionsOfTheMainModuleTravel() -> None:
    """
    So are its functions, with the globals that they use.
    """
    made = "factor = 4\ndef times(x): return factor * x\nvalue = times"
    assert pickle.loads(inMain(made))(5) == 20
    assert (
        pickle.loads(inMain(f"from functools import partial\n{made}\nvalue = partial(times, 3)"))()
        == 12
    )


def test_namesakesAreNotTaken() -> None:
    """
    What bears the name of something else is sent as code.
    """

    def other(x: int) -> int:
        return -x

    other.__qualname__ = "double"
    other.__module__ = __name__
    assert not isImportable(other)
    assert [again(5) for again in bothWays(other)] == [-5] * 3


@pytest.mark.parametrize("moduleName", [None, "no.such.module", "__main__", "__mp_main__", ""])
def test_functionsOfNoModuleTravel(moduleName: Any) -> None:
    """
    Functions and classes whose module is not there are sent as code.
    """

    def homeless(x: int) -> int:
        return x + 1

    class Homeless:
        def __call__(self, x: int) -> int:
            return x + 2

    homeless.__module__ = Homeless.__module__ = moduleName
    assert not isImportable(homeless)
    assert not isImportable(Homeless)
    assert [again(5) for again in bothWays(homeless)] == [6] * 3
    assert [again()(5) for again in bothWays(Homeless)] == [7] * 3


@pytest.mark.parametrize("name", ["", ".", "a..b", "Outer.", "Outer.<locals>.f", "double\n", "ü"])
def test_oddNamesTravel(name: str) -> None:
    """
    Functions with names that lead nowhere are sent as code.
    """

    def odd(x: int) -> int:
        return x + 1

    odd.__qualname__ = name
    odd.__module__ = __name__
    assert not isImportable(odd)
    assert [again(5) for again in bothWays(odd)] == [6] * 3


def test_sternClassesTravelByTheirName() -> None:
    """
    A class that refuses every question is sent by its name.
    """
    assert isImportable(Stern)
    assert bothWays(Stern) == [Stern] * 3


@pytest.mark.parametrize("moduleName", [__name__, "refusing"])
def test_whatAHomeRaisesIsTold(moduleName: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When a class or a module does not even let itself be asked for what is
    pickled, what it raises is the answer.
    """

    class Refusing(ModuleType):
        def __getattr__(self, name: str) -> NoReturn:
            raise ValueError(name)

    def within() -> None:
        """
        Only seems to be there.
        """

    monkeypatch.setitem(sys.modules, "refusing", Refusing("refusing"))
    within.__module__ = moduleName
    within.__qualname__ = "Stern.within"
    for send in (encode, dumps):
        with pytest.raises(ValueError):
            send(within)


# What cannot travel ------------------------------------------------------------------


@pytest.mark.parametrize("value", [Lock(), [Lock()], {"a": (1, Lock())}, partial(double, Lock())])
@pytest.mark.parametrize("send", [encode, dumps, lambda value: encodeCall((value,), {})])
def test_whatCannotTravelSaysSo(value: Any, send: Any) -> None:
    """
    What cannot be pickled raises an error that names it.
    """
    with pytest.raises(TypeError, match=NO_LOCK):
        send(value)


def test_closuresOverWhatCannotTravelSaySo() -> None:
    """
    Nor can a function that closes over such.
    """
    lock = Lock()
    with pytest.raises(TypeError, match=NO_LOCK):
        dumps(lambda: lock)


@pytest.mark.parametrize("send", [encode, dumps])
def test_whatIsNestedTooDeepSaysSo(send: Any) -> None:
    """
    What is nested too deeply is a RecursionError, and is not tried again.
    """
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        send(deep)


def test_exitsOfSomebodysCodePass() -> None:
    """
    An exit that is raised in somebody's reduction is not held up.
    """

    class Leaving:
        def __reduce__(self) -> NoReturn:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        dumps(Leaving())


def test_whatSomebodysCodeRaisesIsTold() -> None:
    """
    An exception that is raised in somebody's reduction is the answer.
    """

    class Broken:
        def __reduce__(self) -> NoReturn:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        encode([Broken()])


# Buffers ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [LARGE, LARGE + 1, 1 << 20])
def test_largeBuffersStayOut(size: int) -> None:
    """
    A large buffer is beside the pickle, uncopied, and stays so when it is made
    again.
    """
    memory = bytearray(size)
    pickled, buffers = encode([Numbers(memory)])
    assert len(pickled) < 200
    (buffer,) = buffers
    memory[0] = 7
    assert buffer.raw()[0] == 7
    came = bytearray(buffer)
    (again,) = decode(pickled, [came])
    assert again.buffer is came


@pytest.mark.parametrize("size", [0, 1, LARGE - 1])
def test_smallBuffersAreWithin(size: int) -> None:
    """
    A small buffer is in the pickle.
    """
    pickled, buffers = encode([Numbers(bytearray(b"x" * size))])
    assert buffers == []
    assert decode(pickled)[0].buffer == b"x" * size


def test_bytesOfAnySizeAreWithin() -> None:
    """
    Only objects that offer their buffer have it taken.
    """
    value = [bytes(LARGE), bytearray(LARGE), array("d", [0.5] * LARGE)]
    pickled, buffers = encode(value)
    assert buffers == []
    assert decode(pickled) == value


def test_buffersKeepTheirOrder() -> None:
    """
    Several buffers, and those of any type, come in the order in which they are
    wanted; bytes that cannot be written to stay so.
    """
    value = [
        Numbers(array("d", [1.5] * LARGE)),
        Numbers(bytearray(100)),
        Numbers(b"2" * LARGE),
        Numbers(memoryview(bytearray(b"3" * LARGE)).cast("B", (2, LARGE // 2))),
    ]
    pickled, buffers = encode(value)
    assert [buffer.raw().nbytes for buffer in buffers] == [8 * LARGE, LARGE, LARGE]
    came = [bytearray(buffer.raw()) for buffer in buffers]
    one, _, two, three = decode(pickled, came)
    assert memoryview(one.buffer).cast("B").cast("d")[0] == 1.5
    assert bytes(two.buffer) == b"2" * LARGE
    assert memoryview(two.buffer).readonly
    assert not memoryview(three.buffer).readonly


def test_buffersWithHolesAreRefused() -> None:
    """
    A buffer with holes is neither beside the pickle nor in it: whose it is must
    copy it, and hears so.
    """
    holes = memoryview(bytearray(4 * LARGE))[::2]
    with pytest.raises(pickle.PicklingError, match="non-contiguous"):
        encode([Numbers(holes)])


def test_buffersBesideCode() -> None:
    """
    What must be sent as code has its large buffers beside it, too, and each of
    them once.
    """

    class Local:
        def __init__(self, buffer: Any) -> None:
            self.numbers = Numbers(buffer)

    pickled, buffers = encode((Numbers(bytearray(LARGE)), Local(bytearray(b"x" * LARGE))))
    assert len(buffers) == 2
    assert len(pickled) < LARGE
    _, local = decode(pickled, [bytes(buffer) for buffer in buffers])
    assert bytes(local.numbers.buffer) == b"x" * LARGE


def test_inOnePieceAreBuffersToo() -> None:
    """
    In one piece, buffers of any size are in the pickle.
    """
    assert bytes(pickle.loads(dumps(Numbers(bytearray(b"x" * LARGE)))).buffer) == b"x" * LARGE


def test_viewsAreDecoded() -> None:
    """
    What is decoded may be a view.
    """
    pickled, _ = encode(["value"])
    assert decode(memoryview(bytearray(pickled))) == ["value"]


# What it costs ---------------------------------------------------------------------


def test_cloudpickleIsImportedOnlyWhenNeeded() -> None:
    """
    What has a name everywhere is sent and received without cloudpickle; a lambda
    is not.
    """
    code = """
import sys, collections, functools, decimal, datetime
from asynqueue.codec import decode, dumps, encode, encodeCall

class_ = collections.OrderedDict
value = [1, {"a": decimal.Decimal(1)}, datetime.date.today(), functools.partial(class_, a=1), len]
assert decode(*encode(value))[:3] == value[:3]
dumps(value), dumps(7), dumps(ValueError("x")), encodeCall((value,), {"a": class_})
print("cloudpickle" in sys.modules)
dumps(lambda: 1)
print("cloudpickle" in sys.modules)
"""
    assert fresh(code).split() == ["False", "True"]


def test_exceptionsArePickledAsTheyWant(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a library has registered for exceptions changes nothing.
    """
    monkeypatch.setitem(copyreg.dispatch_table, SystemExit, lambda _: (SystemExit, ()))
    assert pickle.loads(dumps(SystemExit(3))).code == 3
    body, buffers = encode([SystemExit(4)])
    assert decode(body, buffers)[0].code == 4


# Calls that travel closed -----------------------------------------------------------


def test_aClosedCallOpensItselfAsItIsMade() -> None:
    """
    A call whose arguments are still pickled is made like any other, with its buffers, also
    after a journey.
    """
    large = bytearray(LARGE)
    packed, buffers = encodeCall((large,), {"source": 1})
    call = ClosedCall(echo, packed, buffers)
    assert call() == pickle.loads(dumps(call))() == ((large,), {"source": 1})
    assert ClosedCall(echo, b"")() == ((), {})


def test_aClosedCallHasBytesWithoutACopy() -> None:
    """
    A buffer that is the bytes which the call is made with is taken as it is.
    """
    given = bytes(1000)
    apart: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(((pickle.PickleBuffer(given),), {}), 5, buffer_callback=apart.append)
    _, args, _ = ClosedCall(echo, packed, [given]).opened()
    assert args[0] is given


def echo(*args: Any, **kw: Any) -> Any:
    """
    What it is called with.
    """
    return args, kw


def test_whatIsOfTheParentsProgramDoesNotGoPastIt(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What stands for a name of the main module is not sent past the parent, which has that name;
    code that belongs to nobody is.
    """
    main = mainOf("class Point: pass\ndef twice(x): return x + x", monkeypatch)
    for value in (main["Point"](), main["twice"]):
        with pytest.raises(NotClosed):
            dumps([value], AWAY)
    body, buffers = encode(lambda: 5, AWAY)
    assert decode(body, buffers)() == 5
