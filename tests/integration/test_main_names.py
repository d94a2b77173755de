"""
What a process is told of the names of the main program: all that a call needs, and again
when it has changed.
"""

from __future__ import annotations

import linecache
import pickle
import subprocess
import sys
from collections.abc import Iterator
from struct import Struct
from typing import Any

import pytest

from asynqueue.codec import dumps
from asynqueue.exchange import pmap
from asynqueue.processes.callables import Callables
from asynqueue.program import ELSEWHERE, Told
from tests.mains import mainOf

pytestmark = pytest.mark.measured

LENGTH = Struct("<Q")

PROGRAM = """
import functools, logging, weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeVar

RATE = 1
ITEMS = [1]
TABLE = {"a": 1}
NESTED = {"a": [1]}
NAMES = {"a"}
log = logging.getLogger("program")
T = TypeVar("T")

def helper(): return 1
def other(): return 2
CHOSEN = helper
WITHIN = [helper]
DEEP = {"f": [helper]}
class Base:
    registry = {}
    size = 1
    pool = None
    count = 0
    def __init_subclass__(cls): Base.registry[cls.__name__] = cls
    def get(self): return RATE
    @property
    def twice(self): return 2 * RATE
    @staticmethod
    def static(): return 1
    @functools.cached_property
    def cached(self): return RATE
class Derived(Base):
    def get(self): return super().get()
class Shape(ABC):
    @abstractmethod
    def area(self): ...
class Square(Shape):
    def area(self): return RATE
@dataclass
class Point:
    x: int = 1
    tags: list = field(default_factory=list)
class Pair(NamedTuple):
    a: int = 1
class Colour(Enum):
    RED = 1
    def says(self): return RATE
thing = Base()
CALLBACKS = {"f": lambda: RATE}

def wrapped(f):
    @functools.wraps(f)
    def inner(*args): return f(*args)
    return inner
@wrapped
def decorated(): return RATE
def makeCounter():
    n = 0
    def up():
        nonlocal n
        n += 1
        return n
    def value(): return n
    return up, value
up, value = makeCounter()

def f(): return RATE
def default(x=1): return x
def keyword(*, x=1): return x
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
def late(): return LATE

class NotThere:
    def __reduce__(self): return __import__, ("no_such_module",)
BAD = None
def bad(): return BAD
def worse(): return bad()
def wrong(): return RATE.nothing
class Mark:
    def __init__(self, name): self.name = name
class Unset: pass
STATE = Mark("state")
UNSET = Unset()
SHARED = {"state": STATE}
def states(): return [STATE, UNSET, SHARED]
def take(x=SHARED, u=UNSET): return x is SHARED and u is UNSET, STATE.name
def takeNamed(*, x=SHARED): return x is SHARED, len(SHARED)
class Holder:
    state = STATE
    def isSame(self): return Holder.state is STATE, STATE.name
def enclosing():
    state = STATE
    def inner(): return state is STATE, STATE.name
    return inner
enclosed = enclosing()
def attributed(): return attributed.shared is SHARED, len(SHARED)
attributed.shared = SHARED
def isSame(): return Holder().isSame()
def setSize(): Base.pool = Base.size = 5
def sizes(): return getattr(Base, "pool", None), getattr(Base, "size", None)
"""

CELL = """
import traceback
def fail(): raise ValueError("of a cell")
def told():
    try:
        fail()
    except ValueError:
        return traceback.format_exc()
"""


CHILD = """
import pickle, sys
from struct import Struct
from asynqueue.mainmodule import adopt, learn, whyMissing

def serve(take, give, length, adopt, learn, whyMissing, pickle):
    while head := take.read(length.size):
        kind = take.read(1)
        body = take.read(length.unpack(head)[0])
        try:
            if kind == b"c":
                result = repr(pickle.loads(body)())
            else:
                result = learn(body) if kind == b"n" else adopt({"__name__": "__main__"})
        except BaseException as error:
            result = repr(whyMissing(error))
        answer = pickle.dumps(result)
        give.write(length.pack(len(answer)) + answer)
        give.flush()

parts = serve, sys.stdin.buffer, sys.stdout.buffer, Struct("<Q"), adopt, learn, whyMissing, pickle
(lambda adopt, serve, *parts: (adopt({"__name__": "__main__"}), serve(*parts)))(adopt, *parts)
"""


class Process:
    """
    A process that is told names, and makes calls.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, kind: bytes, body: bytes) -> Any:
        """
        Send something, and return the answer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(LENGTH.pack(len(body)) + kind + body)
        self._process.stdin.flush()
        size = LENGTH.unpack(self._process.stdout.read(LENGTH.size))[0]
        return pickle.loads(self._process.stdout.read(size))

    def close(self) -> None:
        """
        End it.
        """
        self._process.communicate(timeout=60)


class Other:
    """
    What a process was told for one test.
    """

    def __init__(self, process: Process) -> None:
        self.told: list[bytes] = []
        self._process = process
        process.ask(b"a", b"")
        self._defined: dict[int, bytes] = {}
        self._callables = Callables(
            self._defined.__setitem__, self._defined.__delitem__, Told(self._learn)
        )

    def call(self, f: Any) -> Any:
        """
        Have it call what has no arguments.

        @return: the representation of what that returns or raises.
        """
        return self._process.ask(b"c", self._defined[self._callables.nameOf(f, 1, 1)])

    def _learn(self, names: bytes) -> None:
        self.told.append(names)
        assert self._process.ask(b"n", names) is None


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """
    A process, for all tests.
    """
    made = Process()
    yield made
    made.close()


@pytest.fixture
def other(process: Process) -> Other:
    """
    One who knows nothing yet.
    """
    return Other(process)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """
    The names of a program.
    """
    return mainOf(PROGRAM, monkeypatch)


CHANGES = [
    ("RATE", "RATE = 2"),
    ("ITEMS[0]", "ITEMS[0] = 2"),
    ("ITEMS == [1]", "ITEMS.append(2)"),
    ("TABLE['a']", "TABLE['a'] = 2"),
    ("TABLE['a']", "TABLE = {'a': 2}"),
    ("NESTED['a'][0]", "NESTED['a'][0] = 2"),
    ("len(NAMES)", "NAMES.add('b')"),
    ("helper()", "helper = other"),
    ("helper()", "helper.__code__ = other.__code__"),
    ("CHOSEN()", "CHOSEN = other"),
    ("CHOSEN()", "helper.__code__ = other.__code__"),
    ("CHOSEN()", "def helper(): return 2\nCHOSEN = helper"),
    ("WITHIN[0]()", "helper.__code__ = other.__code__\ndef helper(): return 3"),
    ("WITHIN[0]()", "def helper(): return 2\nWITHIN[0] = helper"),
    ("DEEP['f'][0]()", "def helper(): return 2\nDEEP['f'][0] = helper"),
    ("DEEP['f'][0] is helper", "def helper(): return 2"),
    ("WITHIN[0]()", "WITHIN[0] = other"),
    ("default()", "default.__defaults__ = (2,)"),
    ("keyword()", "keyword.__kwdefaults__['x'] = 2"),
    ("Base.size", "Base.size = 2"),
    ("Derived().size", "Base.size = 2"),
    ("Derived().get()", "RATE = 2"),
    ("Base().twice", "RATE = 2"),
    ("Base().cached", "RATE = 2"),
    ("Base.static()", "Base.static = staticmethod(other)"),
    ("Base().get()", "Base.get = lambda self: 2"),
    ("len(Base.registry)", "class Third(Base): pass"),
    ("Base.registry['Derived'] is Derived and RATE", "RATE = 2"),
    ("thing.get()", "thing.get = other"),
    ("getattr(thing, 'x', 1)", "thing.x = 2"),
    ("isinstance(thing, Base) and RATE", "RATE = 2"),
    ("Square().area()", "RATE = 2"),
    ("Point().x", "Point = dataclass(type('Point', (), {'x': 2, '__annotations__': {'x': int}}))"),
    ("Point().tags", "RATE = 2"),
    ("Pair().a", "Pair.__new__.__defaults__ = (2,)"),
    ("Colour.RED.says()", "RATE = 2"),
    ("Colour['RED'] is Colour.RED", "RATE = 2"),
    ("CALLBACKS['f']()", "RATE = 2"),
    ("CALLBACKS['f']()", "CALLBACKS['f'] = other"),
    ("decorated()", "RATE = 2"),
    ("value()", "up()"),
    ("even(10)", "even = lambda n: 2"),
    ("log.name", "log = logging.getLogger('other')"),
    ("T.__name__", "RATE = 2"),
]


@pytest.mark.parametrize(("expression", "change"), CHANGES)
def test_callsFindWhatTheProgramHas(
    main: dict[str, Any], other: Other, expression: str, change: str
) -> None:
    """
    What a call finds under a name is what the program has, before and after a change; and
    nothing is told of what has not changed.
    """
    exec(f"def f(): return {expression}", main)
    for source in ("", change):
        exec(source, main)
        value = repr(eval(expression, main))
        assert other.call(main["f"]) == value
        told = len(other.told)
        assert other.call(main["f"]) == value
        assert len(other.told) == told


def test_namesThatComeAndGo(main: dict[str, Any], other: Other) -> None:
    """
    A call that uses a name which is not there raises, as it would here; until it is there,
    and again when it is gone.
    """
    missing = repr(NameError("name 'LATE' is not defined"))
    assert other.call(main["late"]) == missing
    main["LATE"] = 1
    assert other.call(main["late"]) == "1"
    del main["LATE"]
    assert other.call(main["late"]) == missing


def test_tracebacksTellFilesAndLines(main: dict[str, Any], other: Other) -> None:
    """
    A traceback of functions of the main program tells where they stand, and shows the line
    also where only this process has it, as that of a cell of a notebook.
    """
    linecache.cache["<cell 1>"] = (len(CELL), None, CELL.splitlines(keepends=True), "<cell 1>")
    exec(compile(CELL, "<cell 1>", "exec"), main)
    told = other.call(main["told"])
    assert 'File "<cell 1>", line 3, in fail' in told
    assert "raise ValueError" in told


def test_namesThatCannotBeMadeThere(main: dict[str, Any], other: Other) -> None:
    """
    A call that needs what cannot be made in the process fails with the reason for that;
    others do not, and what they raise is told as it is.
    """
    reason = repr(ModuleNotFoundError("No module named 'no_such_module'"))
    for _ in range(2):
        main["BAD"] = None
        assert other.call(main["worse"]) == "None"
        main["BAD"] = main["NotThere"]()
        assert other.call(main["bad"]) == reason
        assert other.call(main["worse"]) == reason
        assert other.call(main["other"]) == "2"
        assert "nothing" in other.call(main["wrong"])


def test_attributesOfClassesThatCallsSet(main: dict[str, Any], other: Other) -> None:
    """
    What calls set in a class of the main program stays in that process, until the same
    attribute changes here.
    """
    assert other.call(main["sizes"]) == "(None, 1)"
    other.call(main["setSize"])
    main["Base"].count += 1
    assert other.call(main["sizes"]) == "(5, 5)"
    main["Base"].size = 2
    assert other.call(main["sizes"]) == "(5, 2)"
    del main["Base"].size
    assert other.call(main["sizes"]) == "(5, None)"


SHARING = ["take", "takeNamed", "enclosed", "attributed", "isSame"]


def test_whatIsMadeAnewAndIsTheSame(main: dict[str, Any], other: Other) -> None:
    """
    Data that is made again, and is the same, is not told again.
    """
    exec("def f(): return ITEMS, NESTED", main)
    for _ in range(2):
        exec("ITEMS = [1]\nNESTED = {'a': [1]}", main)
        assert other.call(main["f"]) == repr(([1], {"a": [1]}))
    assert len(other.told) == 1


@pytest.mark.parametrize("change", ["STATE.name = 'new'", "SHARED['b'] = []", "SHARED = {}"])
@pytest.mark.parametrize("name", SHARING)
def test_whatDefinitionsShareIsOneObject(
    main: dict[str, Any], other: Other, name: str, change: str
) -> None:
    """
    What a default, an attribute or a closure has in common with a global is one object in the
    process, also if it was told of the global before, and after a change; what is no longer
    the global is another one there, too.
    """
    other.call(main["states"])
    for source in ("", change):
        exec(source, main)
        if source:
            other.call(main["states"])
        assert other.call(main[name]) == repr(main[name]())


def test_whatHasOnlyItsNameIsOneObject(main: dict[str, Any], other: Other) -> None:
    """
    An object without a state that is the value of a global is that in the process, wherever
    it comes.
    """
    other.call(main["states"])
    exec("def f(): return [each is UNSET for each in MANY]\nMANY = [UNSET, Unset()]", main)
    assert other.call(main["f"]) == "[True, False]"


def test_onlyNewerClassesAreTakenElsewhere(main: dict[str, Any]) -> None:
    """
    In another program a class that comes late leaves what has come since.
    """
    exec("def size(): return Base.size", main)
    first = dumps(main["size"], ELSEWHERE)
    main["Base"].size = 2
    second = dumps(main["size"], ELSEWHERE)
    # A fork has another main program than the one that sends.
    sizes = pmap(lambda pickled: [pickle.loads(each)() for each in pickled], [[second, first]])
    assert list(sizes) == [[2, 2]]
