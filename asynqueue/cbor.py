"""
Plain values to bytes and back: CBOR (RFC 8949), of which only what no code can hide in is
used.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from importlib import import_module
from io import BytesIO
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn
from uuid import UUID

from twisted.internet.defer import CancelledError

from asynqueue import errors
from asynqueue.codec import located
from asynqueue.errors import MaybeEncodingError, RemoteError, RemoteProtocolError, Unsendable
from asynqueue.outcome import Raised, nameOf, shortRepr, textOf
from asynqueue.salvage import Lost
from asynqueue.unsendable import refuse

# Values may be nested so deep in CBOR. What reads and writes it is recursive, and was
# seen to run out of stack, which no exception tells of, at some thousands.
_DEEPEST = 200

# Where they are read, a tag is a level, too: each of them may have one.
_DEEPEST_READ = 2 * _DEEPEST


def _refused(value: Any, immutable: bool = False) -> NoReturn:
    raise ValueError("a tag of CBOR that is not used here")


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
        for each in (*args, *kw.values()):
            if type(each) not in _EXACTLY:
                try:
                    _check((args, kw))
                except Unsendable as error:
                    raise located(error, args, kw, _check) from None
                break
        return self._dumps((args, kw)), ()

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
            raise MaybeEncodingError(reason, shortRepr(value)) from None

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

    def decodeItems(self, body: Any, buffers: Sequence[Any] = ()) -> list[list[Any] | Lost]:
        """
        Read items, which are plain: all can be read, or none.
        """
        items = self.decode(body, buffers)
        if type(items) is not list:
            raise RemoteProtocolError(f"items of an iterator came as {type(items).__name__}")
        return [items]

    def encodeRaised(self, outcome: Raised) -> bytes:
        error = outcome.error
        name, text = nameOf(error), textOf(error)
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
            words = nameOf(error), text
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
                refuse(each)
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
    Tell whether an exception is one of those that come back with their types, and would be the same
    if it was made of its arguments.
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
