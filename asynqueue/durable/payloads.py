"""
Calls and outcomes as a store keeps them: bytes.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.python.failure import Failure

from asynqueue.allowed import AllowedModules
from asynqueue.cbor import CborCodec
from asynqueue.codec import dumps
from asynqueue.durable.errors import JobUnreadable, NotStorable
from asynqueue.errors import NoSuchCallable
from asynqueue.failures import failureOf, raisedOf
from asynqueue.iteration.deferator import Deferator
from asynqueue.outcome import oneLine, shortRepr, textOf
from asynqueue.program import ELSEWHERE
from asynqueue.stores.records import JobState, Outcome

CODECS = ("cbor", "pickle")

# C{None} in CBOR: the most frequent value of all.
_NONE = b"\xf6"
_DONE = Outcome(kind=JobState.DONE, value=_NONE)

# The longest line that is kept of an error.
_LONGEST = 500


class Payloads:
    """
    Writes and reads what stores keep, without importing what nobody has allowed.

    Errors are CBOR always: so those who may not unpickle anything can read why a job has failed.
    """

    def __init__(self, codec: str = "cbor", allow: Iterable[str] = ()) -> None:
        """
        @param codec: C{"cbor"}, or C{"pickle"}. With the latter who can write to the store can
            run any code here.
        @param allow: the modules whose functions may be called: see L{AllowedModules}.
        @raise ValueError: there is no such codec.
        @raise ImportError: cbor2 is not installed, or there is no such module.
        """
        if codec not in CODECS:
            raise ValueError(f"the codecs of jobs are 'cbor' and 'pickle', not {codec!r}")
        self.codec = codec
        self._cbor = CborCodec()
        self._allowed = AllowedModules(allow)

    # Calls

    def nameOf(self, f: Callable[..., Any] | str) -> str:
        """
        Return the name of what is to be called. A function must be found by it, and be allowed
        here. A name is taken as it is: who runs the job may have what is not here.

        @raise NotStorable: it has none.
        """
        if isinstance(f, str):
            module, _, qualified = f.partition(":")
            parts = [*module.split("."), *qualified.split(".")]
            if not all(part.isidentifier() and not part.startswith("_") for part in parts):
                raise NotStorable(repr(f), 'a name of a function is "module:function"')
            return f
        home: Any = getattr(f, "__module__", None)
        path: Any = getattr(f, "__qualname__", None)
        if not isinstance(home, str) or not isinstance(path, str):
            raise NotStorable(shortRepr(f), "it is no function of a module: give one, or its name")
        name = f"{home}:{path}"
        if home == "__main__" or home not in sys.modules:
            reason = "other programs cannot import it: put it into a module"
            raise NotStorable(name, reason)
        try:
            found = self._allowed.resolve(name)
        except NoSuchCallable as error:
            reason = f"{error.reason}; give the queue allow=[{home!r}]"
            raise NotStorable(name, reason) from None
        if found != f:
            raise NotStorable(name, "another function is found by this name")
        return name

    def resolve(self, name: str) -> Callable[..., Any]:
        """
        Find what is to be called.

        @raise JobUnreadable: it is not allowed here, or not there.
        """
        try:
            return self._allowed.resolve(name)
        except NoSuchCallable as error:
            raise JobUnreadable(name, error.reason) from None

    def packCall(self, name: str, args: tuple[Any, ...], kw: dict[str, Any]) -> bytes:
        """
        Write the arguments of a call. A hot path.

        @raise NotStorable: they cannot be written.
        """
        if not args and not kw:
            return b""
        try:
            if self.codec == "pickle":
                return dumps((args, kw), ELSEWHERE)
            return self._cbor.encodeCall(args, kw)[0] or b""
        except Exception as error:
            # Somebody's objects, which raise what they like as they are written.
            advice = "" if self.codec == "pickle" else '; codec="pickle" stores more'
            raise NotStorable(name, f"{textOf(error)}{advice}") from None

    def unpackCall(
        self, name: str, codec: str, payload: bytes
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """
        Read the arguments of a call. A hot path.

        @raise JobUnreadable: they are not what they should be.
        """
        if not payload:
            return (), {}
        self._checkCodec(name, codec)
        try:
            if codec == "cbor":
                return self._cbor.decodeCall(payload, ())
            args, kw = pickle.loads(payload)
            return tuple(args), dict(kw)
        except BaseException as error:
            # What somebody has written there may be anything, and pickles run anything.
            reason = f"its arguments cannot be read: {textOf(error)}"
            raise JobUnreadable(name, reason) from None

    def _checkCodec(self, name: str, codec: str) -> None:
        if codec not in CODECS or (codec == "pickle" and self.codec != "pickle"):
            raise JobUnreadable(
                name, f'it is written as {codec!r}, and this queue reads codec="{self.codec}" only'
            )

    # Outcomes

    def returned(self, value: Any) -> Outcome:
        """
        Return the outcome of a job that has returned a value. A hot path.
        """
        if value is None:
            return _DONE
        if isinstance(value, Deferator):
            value.stop()
            reason = "it is an iterator: return a list of its items"
            return Outcome(kind=JobState.DONE, summary=reason)
        try:
            if self.codec == "pickle":
                return Outcome(kind=JobState.DONE, codec="pickle", value=dumps(value, ELSEWHERE))
            return Outcome(kind=JobState.DONE, value=self._cbor.encode(value)[0])
        except Exception as error:
            # Somebody's objects, which raise what they like as they are written.
            return Outcome(kind=JobState.DONE, summary=oneLine(error)[:_LONGEST])

    def raised(self, failure: Failure, kind: JobState = JobState.FAILED) -> Outcome:
        """
        Return the outcome of a job that has failed.

        @param kind: what it has ended as.
        """
        error = failure.value
        assert error is not None
        return Outcome(
            kind=kind,
            error=self._cbor.encodeRaised(raisedOf(failure)),
            summary=oneLine(error)[:_LONGEST],
        )

    def value(self, name: str, outcome: Outcome) -> Any:
        """
        Read the value of a job. There is one.

        @raise JobUnreadable: it is not what it should be.
        """
        assert outcome.value is not None
        self._checkCodec(name, outcome.codec)
        try:
            if outcome.codec == "pickle":
                return pickle.loads(outcome.value)
            return self._cbor.decode(outcome.value)
        except BaseException as error:
            # As for the arguments.
            raise JobUnreadable(name, f"its value cannot be read: {textOf(error)}") from None

    def failure(self, outcome: Outcome) -> Failure | None:
        """
        Return what a job has failed with; C{None}: that is not stored.
        """
        if outcome.error is None:
            return None
        try:
            return failureOf(self._cbor.decodeRaised(outcome.error))
        except Exception as error:
            # What somebody has written there may be anything.
            return Failure(error)
