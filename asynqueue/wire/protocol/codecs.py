"""
Arguments, results and exceptions to bytes and back, in the form that both sides of a
connection have greeted with.

I{pickle} sends nearly everything, and lets each side run code on the other: it is for
peers that trust each other. I{cbor} (RFC 8949) sends plain values only, and neither side
can have the other execute anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, Protocol

from asynqueue.cbor import CborCodec
from asynqueue.codec import encode, encodeCall
from asynqueue.errors import RemoteError, RemoteProtocolError
from asynqueue.outcome import Raised, packedRaised
from asynqueue.program import ELSEWHERE
from asynqueue.salvage import Lost, NoList, loadItems

# The bytes from which something is not copied into a pickle.
_LARGE_BYTES = 1 << 16


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

    def decodeItems(self, body: Any, buffers: Sequence[Any]) -> list[list[Any] | Lost]:
        """
        Read a list, item by item.

        @return: its items in order: runs of those that are there, and L{Lost} for each that
            cannot be read.
        @raise RemoteProtocolError: it is no list.
        @raise Exception: that is no value.
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
        Pickle the arguments of a call, what is large apart. A hot path.
        """
        for arg in args:
            if _isLarge(arg):
                args = tuple(_Apart(each) if _isLarge(each) else each for each in args)
                break
        if kw:
            kw = {key: _Apart(each) if _isLarge(each) else each for key, each in kw.items()}
        return encodeCall(args, kw, ELSEWHERE)

    @staticmethod
    def encode(value: Any) -> tuple[bytes, Sequence[Any]]:
        """
        Pickle a value, what is large apart. A hot path.
        """
        return encode(_Apart(value) if _isLarge(value) else value, ELSEWHERE)

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
    def decodeItems(body: Any, buffers: Sequence[Any] = ()) -> list[list[Any] | Lost]:
        """
        Unpickle them: this may run any code.
        """
        try:
            return loadItems(body, buffers)
        except NoList as error:
            raise RemoteProtocolError(str(error)) from None

    @staticmethod
    def encodeRaised(outcome: Raised) -> bytes:
        return packedRaised(outcome, ELSEWHERE)

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


def codecNamed(name: str) -> Codec:
    """
    Return a codec by its name: "pickle" or "cbor".

    @raise ValueError: there is none of this name.
    @raise ImportError: what it needs is not installed.
    """
    if name == "pickle":
        return PickleCodec()
    if name == "cbor":
        return CborCodec()
    raise ValueError(f"the codecs are 'pickle' and 'cbor', not {name!r}")
