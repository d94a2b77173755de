"""
Arguments, results and exceptions to bytes and back, in the form that both sides of a
connection have greeted with.

I{pickle} sends nearly everything, and lets each side run code on the other: it is for
peers that trust each other. I{cbor} (RFC 8949) sends plain values only, and neither side
can have the other execute anything.
"""

from __future__ import annotations

import builtins
import pickle
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from importlib import import_module
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn, Protocol
from uuid import UUID

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from asynqueue import errors
from asynqueue.codec import dumps, encode, encodeCall
from asynqueue.errors import MaybeEncodingError, RemoteError, RemoteProtocolError
from asynqueue.outcome import Raised, portable, shortRepr

# So much is told of an exception: the end of its traceback, and the outermost and the
# innermost of its frames. That of an endless recursion is as long as its limit.
_LONGEST_TRACE = 1 << 16
_MOST_FRAMES = 100
_LONGEST_TEXT = 10_000
_SHORT_TEXT = 1000

# So many bytes are not copied into a pickle.
_LARGE_BYTES = 1 << 16

# Values may be nested so deep in CBOR. What reads and writes it is recursive, and was
# seen to run out of stack, which no exception tells of, at some thousands.
_DEEPEST = 200

# Where they are read, a tag is a level, too: each of them may have one.
_DEEPEST_READ = 2 * _DEEPEST


class Codec(Protocol):
    """
    How values are written on the wire.

    The buffers that are made are views that belong to the bytes beside them (as
    C{pickle.PickleBuffer} is one), and those that are taken are any views; what is
    decoded may keep them.

    @ivar name: what both sides call it as they greet.
    """

    name: str

    def encodeCall(
        self, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> tuple[bytes | None, Sequence[Any]]:
        """
        Write what a function is called with.

        @return: the bytes, or C{None} for no arguments, and their buffers.
        @raise Exception: it cannot be written.
        """

    def decodeCall(self, body: Any, buffers: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """
        Read what a function is called with.

        @param body: the bytes; none are no arguments.
        @raise Exception: that is nothing of the kind.
        """

    def encode(self, value: Any) -> tuple[bytes, Sequence[Any]]:
        """
        Write a value.

        @raise Exception: it cannot be written.
        """

    def decode(self, body: Any, buffers: Sequence[Any]) -> Any:
        """
        Read a value.

        @raise Exception: that is none.
        """

    def encodeRaised(self, outcome: Raised) -> bytes:
        """
        Write what a call raised: the exception itself, not what stands for it
        elsewhere. If it cannot travel, L{RemoteError} stands for it.
        """

    def decodeRaised(self, body: Any) -> Raised:
        """
        Read what a call raised. An exception that cannot be made here, because its
        class is not known or does not want to, comes as a L{RemoteError}.

        @raise RemoteProtocolError: that is no such thing.
        """


def told(failure: Failure) -> Raised:
    """
    What is to be told of the failure of a call.
    """
    error = failure.value
    assert error is not None
    frames = tuple((name, file, line) for name, file, line, *_ in failure.frames)
    if len(frames) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        frames = frames[:half] + frames[-half:]
    try:
        # Where the failure has passed through Deferreds it may have kept the frames only.
        if error.__traceback__ is None and frames:
            trace = failure.getTraceback()
        else:
            trace = "".join(traceback.format_exception(error))
    except BaseException:
        # Somebody's __str__, or worse: whatever it raises, an exit too, the type remains.
        trace = f"{_nameOf(error)}\n"
    return Raised(error, trace[-_LONGEST_TRACE:], frames)


def shortTold(outcome: Raised) -> Raised:
    """
    The same in few bytes, where all of it is too large to be sent.
    """
    error = outcome.error
    text = f"{textOf(error)[:_SHORT_TEXT]} ... which is too large to be sent"
    return Raised(RemoteError(_nameOf(error), text), outcome.trace[-_LONGEST_TEXT:])


def _nameOf(error: BaseException) -> str:
    try:
        name = f"{type(error).__module__}.{type(error).__qualname__}"
    except BaseException:
        # Even that may be somebody's code, in a metaclass.
        name = "an exception"
    return name.removeprefix("builtins.")


def textOf(error: BaseException) -> str:
    """
    What an exception says, whatever its C{__str__} does.
    """
    try:
        return str(error)[:_LONGEST_TEXT]
    except BaseException:
        # Somebody's code, an exit included: the type's name has to do.
        return ""


def reprOf(value: Any) -> str:
    """
    What a value looks like, in short, whatever its C{__repr__} does.
    """
    try:
        return shortRepr(value)
    except BaseException:
        # As above.
        return "<an object without words>"


class _Apart:
    """
    Stands for large bytes, which are not copied into the pickle: it is read as the bytes
    themselves.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self._data),)


def _isLarge(value: Any) -> bool:
    # Not a bytearray: it may change before it is sent.
    return type(value) is bytes and len(value) >= _LARGE_BYTES


class PickleCodec:
    """
    Pickle, and cloudpickle where that is needed, as L{asynqueue.codec} has it. Large bytes
    that are an argument, or the result, are a buffer beside it: to copy them would keep
    everything else waiting for some milliseconds.
    """

    name = "pickle"

    @staticmethod
    def encodeCall(args: tuple[Any, ...], kw: dict[str, Any]) -> tuple[bytes | None, Sequence[Any]]:
        """
        A hot path.
        """
        for arg in args:
            if _isLarge(arg):
                args = tuple(_Apart(each) if _isLarge(each) else each for each in args)
                break
        if kw:
            kw = {key: _Apart(each) if _isLarge(each) else each for key, each in kw.items()}
        return encodeCall(args, kw)

    @staticmethod
    def encode(value: Any) -> tuple[bytes, Sequence[Any]]:
        """
        A hot path.
        """
        return encode(_Apart(value) if _isLarge(value) else value)

    @staticmethod
    def decodeCall(body: Any, buffers: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """
        Unpickle them: this may run any code.
        """
        if not body:
            return (), {}
        args, kw = pickle.loads(body, buffers=buffers)
        return args, kw

    @staticmethod
    def decode(body: Any, buffers: Sequence[Any] = ()) -> Any:
        """
        Unpickle it: this may run any code.
        """
        return pickle.loads(body, buffers=buffers)

    @staticmethod
    def encodeRaised(outcome: Raised) -> bytes:
        """
        The exception has a pickle of its own: where that cannot be read, the rest can.
        """
        error = outcome.error
        there = dumps(portable(error))
        plain = there, _nameOf(error), textOf(error), outcome.trace, outcome.frames
        return pickle.dumps(plain, pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def decodeRaised(body: Any) -> Raised:
        """
        Unpickle it: this may run any code.
        """
        try:
            there, name, text, trace, frames = pickle.loads(body)
        except Exception as error:
            # Whatever the bytes have it raise.
            raise RemoteProtocolError(f"an exception that cannot be read: {error}") from None
        try:
            made = pickle.loads(there)
        except BaseException:
            # Somebody's __init__, or a module that is not here; an exit, too, is no answer.
            made = None
        if not isinstance(made, BaseException):
            made = RemoteError(name, text)
        return Raised(made, trace, frames)


def _refused(value: Any, immutable: bool = False) -> NoReturn:
    raise ValueError("a tag of CBOR that this wire does not use")


# Dates and times, large integers, decimals, UUIDs, addresses, sets, complex numbers.
_TAGS = frozenset({0, 1, 2, 3, 4, 37, 52, 54, 100, 258, 1004, 43000})


class _TagDecoders(dict[int, Callable[..., Any]]):
    """
    Refuses every tag that is not known to be harmless: others make regular expressions
    and mail, compute with huge numbers, or have values within themselves.
    """

    def __missing__(self, tag: int) -> Callable[..., Any]:
        if tag in _TAGS:
            # What cbor2 does with it will do.
            raise KeyError(tag)
        return _refused


_DECODERS = _TagDecoders()

# What can be sent, subclasses included, and what that can be in.
_SCALARS = (
    type(None),
    int,
    str,
    float,
    bytes,
    bytearray,
    complex,
    date,
    Decimal,
    UUID,
    IPv4Address,
    IPv6Address,
)
_EXACTLY = frozenset({*_SCALARS, bool})
_CONTAINERS = (list, tuple, dict, set, frozenset)

# The exceptions that come back with their types. Their constructors do no harm.
_ERRORS: Mapping[str, type[BaseException]] = {
    _type.__name__ if module is builtins else f"{module.__name__}.{_type.__name__}": _type
    for module in (builtins, errors)
    for _type in vars(module).values()
    if isinstance(_type, type)
    and issubclass(_type, BaseException)
    and _type.__module__ == module.__name__
} | {"twisted.internet.defer.CancelledError": CancelledError}


class CborCodec:
    """
    CBOR, of which only what no code can hide in is used.

    C{None}, booleans, numbers (but fractions), strings, bytes, dates, times with a zone,
    UUIDs and addresses can be sent, and lists, tuples, dicts and sets of these. Tuples
    come back as lists, and instances of subclasses as those of the class.

    Exceptions that Python or L{asynqueue.errors} define come back with their type, if
    they were made of such values; others as L{RemoteError}.
    """

    name = "cbor"

    def __init__(self) -> None:
        """
        @raise ImportError: cbor2 is not installed, or too old.
        """
        try:
            # An optional extra, at the edge: those who do not ask for it need not have it.
            cbor2 = import_module("cbor2")
            cbor2.CBORDecoder(BytesIO(), semantic_decoders=_DECODERS, max_depth=_DEEPEST_READ)
        except (ImportError, TypeError) as error:
            raise ImportError(
                "codec='cbor' needs cbor2 of version 6 or later: pip install 'asynqueue[cbor]'"
            ) from error
        self._dumps = cbor2.dumps
        self._Decoder = cbor2.CBORDecoder
        self._AtEnd = cbor2.CBORDecodeEOF

    def encodeCall(
        self, args: tuple[Any, ...], kw: dict[str, Any]
    ) -> tuple[bytes | None, Sequence[Any]]:
        """
        @raise TypeError: something in them cannot be sent.
        @raise ValueError: they are nested too deep, or hold a value that CBOR has not.
        """
        if not args and not kw:
            return None, ()
        return self._written((args, kw)), ()

    def decodeCall(self, body: Any, buffers: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        if not body:
            return (), {}
        args, kw = self.decode(body, buffers)
        if type(args) is not list or type(kw) is not dict:
            raise TypeError("arguments are a list and a map in CBOR")
        return args, kw

    def encode(self, value: Any) -> tuple[bytes, Sequence[Any]]:
        """
        @raise MaybeEncodingError: it cannot be sent.
        """
        try:
            return self._written(value), ()
        except BaseException as error:
            # Also what somebody's subclasses raise as they are looked at.
            reason = f"codec='cbor' sends plain values only: {textOf(error)}"
            raise MaybeEncodingError(reason, reprOf(value)) from None

    def decode(self, body: Any, buffers: Sequence[Any] = ()) -> Any:
        """
        @raise ValueError: there are buffers.
        @raise Exception: it is no CBOR, or not of the kind that is used here.
        """
        if buffers:
            raise ValueError("there are no buffers with CBOR")
        decoder = self._Decoder(
            BytesIO(body), semantic_decoders=_DECODERS, tag_hook=_refused, max_depth=_DEEPEST_READ
        )
        value = decoder.decode()
        try:
            decoder.read(1)
        except self._AtEnd:
            return value
        raise ValueError("there is more than one value of CBOR")

    def encodeRaised(self, outcome: Raised) -> bytes:
        error = outcome.error
        name, text = _nameOf(error), textOf(error)
        args: Sequence[Any] = ()
        if _canBeMadeOf(error, name):
            args = error.args
        else:
            name = ""
        try:
            return self._raised(name, args, error, text, outcome)
        except Exception:
            # It was made of something that cannot be sent.
            return self._raised("", (), error, text, outcome)

    def _raised(
        self, name: str, args: Sequence[Any], error: BaseException, text: str, outcome: Raised
    ) -> bytes:
        if not name and isinstance(error, RemoteError):
            # It stands for another one already.
            words = error.typeName, error.message
        else:
            words = _nameOf(error), text
        frames = [[_clean(func), _clean(file), line] for func, file, line in outcome.frames]
        plain = [name, list(args), *map(_clean, words), _clean(outcome.trace), frames]
        return self._written(plain)

    def decodeRaised(self, body: Any) -> Raised:
        try:
            name, args, typeName, text, trace, frames = self.decode(body)
            places = tuple((str(func), str(file), int(line)) for func, file, line in frames)
            words = str(typeName), str(text), str(trace)
        except Exception as error:
            # Whatever the bytes have it raise.
            raise RemoteProtocolError(f"an exception that cannot be read: {error}") from None
        try:
            made = _ERRORS[name](*args)
        except Exception:
            # Not one of them, or not made of this.
            made = RemoteError(*words[:2])
        return Raised(made, words[2], places)

    def _written(self, value: Any) -> bytes:
        _check(value)
        written: bytes = self._dumps(value)
        return written


def _check(value: Any) -> None:
    """
    Look whether a value can be sent, layer by layer.

    @raise TypeError: something in it cannot be sent.
    @raise ValueError: it is nested too deep.
    """
    if type(value) in _EXACTLY:
        return
    layer: Any = (value,)
    for _ in range(_DEEPEST):
        inner: dict[int, Any] = {}
        for each in layer:
            if type(each) in _EXACTLY or isinstance(each, _SCALARS):
                continue
            if not isinstance(each, _CONTAINERS):
                name = f"{type(each).__module__}.{type(each).__qualname__}"
                raise TypeError(f"{name.removeprefix('builtins.')} is no such type")
            # What is in several places is looked at once.
            inner[id(each)] = each
        if not inner:
            return
        layer = [child for each in inner.values() for child in _children(each)]
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels, or in itself")


def _children(container: Any) -> Sequence[Any]:
    if isinstance(container, dict):
        return [*dict.keys(container), *dict.values(container)]
    return list(container)


def _clean(text: str) -> str:
    """
    Text that UTF-8 can hold, whatever somebody's file names are.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _canBeMadeOf(error: BaseException, name: str) -> bool:
    """
    Whether an exception is one of those that come back with their types, and would be
    the same if it was made of its arguments.
    """
    kind = _ERRORS.get(name)
    if kind is not type(error):
        return False
    try:
        again = kind(*error.args)
        return type(again) is kind and str(again) == str(error)
    except Exception:
        # It wants other arguments than it keeps.
        return False


def codecNamed(name: str) -> Codec:
    """
    A codec by its name: "pickle" or "cbor".

    @raise ValueError: there is none of this name.
    @raise ImportError: what it needs is not installed.
    """
    if name == "pickle":
        return PickleCodec()
    if name == "cbor":
        return CborCodec()
    raise ValueError(f"the codecs are 'pickle' and 'cbor', not {name!r}")
