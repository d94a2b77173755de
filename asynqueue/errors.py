"""
The errors of AsynQueue: one tree, each also its builtin twin.

What is known of an error stands in its attributes; the message is made from
them and says what to do next. This module imports no Twisted, because it is
also used where there is none.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence
from typing import Any

from zope.interface.exceptions import Invalid


def signalName(number: int) -> str:
    """
    Return a signal in words.
    """
    try:
        return signals.Signals(number).name
    except ValueError:
        # Real-time signals have no names.
        return f"signal {number}"


class AsynQueueError(Exception):
    """
    Anything that AsynQueue itself raises or fails with.
    """


class QueueRunError(AsynQueueError, RuntimeError):
    """
    The queue is not running, so it takes no call and ends those still queued.
    """

    def __init__(self, call: str) -> None:
        """
        @param call: what was to be called, or done.
        """
        super().__init__(call)
        self.call = call

    def __str__(self) -> str:
        return (
            f"{self.call} was not run: the queue is shut down; make another one, or have what is"
            " queued done first, with shutdown(drain=True)"
        )


class LoopError(QueueRunError):
    """
    What drives the queue does not run here, or no more: a call would wait for ever.
    """

    def __init__(self, call: str, reason: str) -> None:
        """
        @param call: what was to be called, or waited for.
        @param reason: what does not run.
        """
        super().__init__(call)
        self.args = (call, reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.call} cannot be done here: {self.reason}; make a queue in each loop"


class ForkError(QueueRunError):
    """
    What was started in one process is used in a fork of it, where it does not run.
    """

    def __init__(self, call: str, what: str) -> None:
        """
        @param call: what was to be called, or waited for.
        @param what: what was started.
        """
        super().__init__(call)
        self.args = (call, what)
        self.what = what

    def __str__(self) -> str:
        return (
            f"{self.call} cannot be done here: this process is a fork of that in which the"
            f" {self.what} was started; start it again here"
        )


class ImplementationError(AsynQueueError, TypeError):
    """
    An object does not provide the interface that its place needs, or breaks it.
    """


class InvariantError(AsynQueueError, Invalid):
    """
    An object declares an interface and breaks one of its invariants.
    """

    def __init__(self, breaker: object, reason: str = "") -> None:
        """
        @param breaker: the object.
        @param reason: which invariant it breaks, in words.
        """
        super().__init__(breaker)
        self.breaker = breaker
        self.reason = reason

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.breaker!r} breaks an invariant of its interface{reason}"


class NotReadyError(AsynQueueError, RuntimeError):
    """
    The next item was asked for before the Deferred of the last one fired.
    """

    def __str__(self) -> str:
        return (
            "the last Deferred of this Deferator has not fired yet:"
            " wait for it before asking for the next one"
        )


class TaskTimedOut(AsynQueueError, TimeoutError):
    """
    A task ran for longer than its C{timeout=}.
    """

    def __init__(self, call: str, seconds: float) -> None:
        """
        @param call: what was called.
        @param seconds: the limit, counted from the moment the task began.
        """
        super().__init__(call, seconds)
        self.call = call
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"{self.call} ran for more than its {self.seconds:g} s; give a longer timeout= if it"
            " may take longer"
        )


class TaskExpired(AsynQueueError, TimeoutError):
    """
    A task had not begun before its C{expires=} was over.
    """

    def __init__(self, call: str, seconds: float) -> None:
        """
        @param call: what was called.
        @param seconds: the limit, counted from the moment the task was queued.
        """
        super().__init__(call, seconds)
        self.call = call
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"{self.call} had not begun {self.seconds:g} s after it was queued; give a later"
            " expires=, or more workers"
        )


class FrameError(AsynQueueError):
    """
    Something is wrong with a message between two processes or hosts.

    @ivar before: the messages that were complete before it, where a stream was read.
    """

    before: Sequence[Any] = ()


class FrameTooLarge(FrameError, ValueError):
    """
    A message has more bytes than it may have.
    """

    def __init__(self, size: int, limit: int) -> None:
        """
        @param size: how many bytes it has.
        @param limit: how many it may have.
        """
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"a message of {self.size:,} bytes is larger than the limit of {self.limit:,}:"
            " send it in parts, or through a file"
        )


class FrameTruncated(FrameError, EOFError):
    """
    The other end is gone in the middle of a message.
    """

    def __init__(self, received: int, expected: int) -> None:
        """
        @param received: how many bytes of the message have come.
        @param expected: how many it has, as far as that is known.
        """
        super().__init__(received, expected)
        self.received = received
        self.expected = expected

    def __str__(self) -> str:
        return (
            f"the other end is gone in the middle of a message:"
            f" {self.received:,} of {self.expected:,} bytes came; look there for why it ended"
        )


class FrameInvalid(FrameError, ValueError):
    """
    What came, or is to be sent, is no message that both ends understand.
    """


class WorkerError(AsynQueueError):
    """
    A worker could not do what it was asked to do.
    """


#: What a worker ran that is lost with the rest of an iterator. No retry brings that again.
OPEN_ITERATOR = "an open iterator"


class WorkerLost(WorkerError):
    """
    The worker that ran a task is gone, and the task may have begun.
    """

    def __init__(
        self,
        call: str,
        worker: str,
        begun: bool = True,
        exitCode: int | None = None,
        signal: int | None = None,
        reason: str = "",
    ) -> None:
        """
        @param call: what the worker was running.
        @param worker: which worker: its kind and ID, its process or its host.
        @param begun: whether the task may have begun.
        @param exitCode: how the process of the worker ended, if it did.
        @param signal: the number of the signal that ended it.
        @param reason: why it is gone, in words.
        """
        super().__init__(call, worker, begun, exitCode, signal, reason)
        self.call = call
        self.worker = worker
        self.begun = begun
        self.exitCode = exitCode
        self.signal = signal
        self.reason = reason

    def __str__(self) -> str:
        if self.reason:
            how = f" ({self.reason})"
        elif self.signal is not None:
            how = f" (killed by {signalName(self.signal)})"
        elif self.exitCode is not None:
            how = f" (exit code {self.exitCode})"
        else:
            how = ""
        if self.begun:
            repeat = "call again" if self.call == OPEN_ITERATOR else "give retries=N"
            return (
                f"{self.worker} was lost{how} while it ran {self.call};"
                f" {repeat} if the call may safely be repeated"
            )
        return (
            f"{self.worker} was lost{how} before it began {self.call}, which may safely be called"
            " again"
        )


class SoftTimeLimitExceeded(WorkerError, TimeoutError):
    """
    Raised in a task that has run for longer than its soft time limit, so that it
    can clean up. The hard limit comes after it.
    """

    def __init__(self, seconds: float) -> None:
        """
        @param seconds: the limit.
        """
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"the task ran for more than its soft limit of {self.seconds:g} s: clean up, and return"
        )


_DEAF = (
    "its soft limit did not reach it: it runs code in C that does not return to Python, or it"
    " has blocked SIGUSR1, or has changed what that does"
)


class TimeLimitExceeded(WorkerError, TimeoutError):
    """
    A task ran for longer than its time limit, and its process was ended.

    @ivar seconds: the limit.
    @ivar isDeaf: whether its soft limit had passed, and the signal of that did not come there.
    """

    def __init__(self, seconds: float, isDeaf: bool = False) -> None:
        super().__init__(seconds, isDeaf)
        self.seconds = seconds
        self.isDeaf = isDeaf

    def __str__(self) -> str:
        why = f"; {_DEAF}" if self.isDeaf else ""
        return (
            f"the task ran for more than its limit of {self.seconds:g} s (give a longer one if it"
            f" may); its process was ended{why}"
        )


class TaskInterrupted(KeyboardInterrupt):
    """
    Raised in a task whose caller has cancelled it, or in which it took too long,
    so that it can clean up. If the task goes on, its process is ended.

    It is a C{KeyboardInterrupt}: code that cleans up at Ctrl-C does the right
    thing, and C{except Exception} does not swallow it.
    """


class WorkerLostError(WorkerError):
    """
    A process is gone in the middle of what it was to do.
    """

    def __init__(
        self,
        pid: int,
        exitCode: int | None = None,
        signal: int | None = None,
        doing: str = "",
        reason: str = "",
    ) -> None:
        """
        @param pid: its process ID.
        @param exitCode: how it ended, unless by a signal.
        @param signal: the number of the signal that ended it.
        @param doing: what it was doing.
        @param reason: why it was ended, if we did that.
        """
        super().__init__(pid, exitCode, signal, doing, reason)
        self.pid = pid
        self.exitCode = exitCode
        self.signal = signal
        self.doing = doing
        self.reason = reason

    def __str__(self) -> str:
        if self.signal is not None:
            how = f"was killed by {signalName(self.signal)}"
        elif self.exitCode is not None:
            how = f"ended with exit code {self.exitCode}"
        else:
            how = "is gone"
        doing = f" while it ran {self.doing}" if self.doing else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"process {self.pid} {how}{doing}{reason}"


class MaybeEncodingError(WorkerError):
    """
    A result, a call or another value that cannot be sent from where it was made, or cannot be
    made again of what was sent.
    """

    def __init__(self, reason: str, value: str, what: str = "result") -> None:
        """
        @param reason: why it cannot be sent.
        @param value: what it looks like, shortened; empty: it was sent, but cannot be made
            again here.
        @param what: what it is: "result", "call" or "value".
        """
        super().__init__(reason, value, what)
        self.reason = reason
        self.value = value
        self.what = what

    def __str__(self) -> str:
        if not self.value:
            return f"the {self.what} was sent, but it cannot be made again here: {self.reason}"
        return f"the {self.what} {self.value} cannot be sent: {self.reason}"


class Unsendable(AsynQueueError, TypeError):
    """
    Something cannot be sent to another process or host: it stays where it was made, as a
    coroutine that was not awaited.
    """

    def __init__(self, what: str, advice: str, place: str = "") -> None:
        """
        @param what: what it is.
        @param advice: what to do.
        @param place: in which argument of a call it is, if that is known.
        """
        super().__init__(what, advice, place)
        self.what = what
        self.advice = advice
        self.place = place

    def __str__(self) -> str:
        place = f" in {self.place}" if self.place else ""
        return f"cannot pickle {self.what}{place}: {self.advice}"


class RemoteError(WorkerError):
    """
    Stands for an exception that cannot leave the place where it was raised,
    because it cannot be pickled there or made again here.
    """

    def __init__(self, typeName: str, message: str) -> None:
        """
        @param typeName: the qualified name of the exception's type.
        @param message: its text.
        """
        super().__init__(typeName, message)
        self.typeName = typeName
        self.message = message

    def __str__(self) -> str:
        return f"{self.typeName}: {self.message}"


class RemoteTraceback(Exception):
    """
    The traceback of an exception that was raised elsewhere, as text: the
    C{__cause__} of that exception here.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class AcknowledgementError(WorkerError):
    """
    What was sent to a process was not acknowledged by it.
    """

    def __init__(self, pid: int, reason: str = "") -> None:
        """
        @param pid: its process ID; 0 for the process that created this one.
        @param reason: what came instead, or why nothing did.
        """
        super().__init__(pid, reason)
        self.pid = pid
        self.reason = reason

    def __str__(self) -> str:
        who = f"process {self.pid}" if self.pid else "the process that created this one"
        reason = f": {self.reason}" if self.reason else ""
        return f"{who} did not acknowledge what was sent to it{reason}"


class WireError(AsynQueueError):
    """
    Something is wrong between a queue and a host, or would be.
    """


class IdentityRequired(WireError, ValueError):
    """
    Anybody who reaches this address could run calls here: the other side must prove itself.
    """

    def __init__(self, description: str) -> None:
        """
        @param description: where somebody wanted to listen, as an endpoint string.
        """
        super().__init__(description)
        self.description = description

    def __str__(self) -> str:
        return (
            f"{self.description} can be reached from other hosts, and those who connect need not"
            " prove themselves: make a key with `asynqueue keys DIRECTORY` and give its file to"
            " both sides (keyFile=, --key-file, or ASYNQUEUE_KEY_FILE), use certificates of both"
            " sides, or listen on a UNIX socket or the loopback interface"
        )


class KeyFileRefused(WireError, PermissionError):
    """
    A file with a key cannot be used.
    """

    def __init__(self, path: str, reason: str) -> None:
        """
        @param path: the file.
        @param reason: what is wrong with it, and what to do.
        """
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"the key file {self.path} is not used: {self.reason}"


class IdentityRefused(WireError, PermissionError):
    """
    One side of a connection could not prove itself to the other.
    """

    def __init__(self, peer: str, reason: str) -> None:
        """
        @param peer: who is on the other side.
        @param reason: what is wrong, and what to do.
        """
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"the proof of identity with {self.peer} failed: {self.reason}"


class VersionRefused(WireError):
    """
    The two sides of a connection speak no common version of the protocol, or cannot work
    together for another such reason.
    """

    def __init__(self, peer: str, reason: str) -> None:
        """
        @param peer: who is on the other side.
        @param reason: what each side speaks.
        """
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"this side cannot work with {self.peer}: {self.reason}"


class LocalProtocolError(WireError):
    """
    This side was about to say what must not be said, or not now.
    """


class RemoteProtocolError(WireError):
    """
    The other side said what must not be said, or not then; or it fell silent.
    """


class NoSuchCallable(WireError, LookupError):
    """
    A host runs nothing of this name.
    """

    def __init__(self, name: str, reason: str = "") -> None:
        """
        @param name: what was to be called.
        @param reason: what can be called, or what to do.
        """
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.name!r} cannot be called there{reason}"


class Snooze(AsynQueueError):
    """
    Raised by a durable job that is to be called again later. That counts as no attempt.
    """

    def __init__(self, seconds: float) -> None:
        """
        @param seconds: how long it waits, at least.
        """
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"it wants to be called again in {self.seconds:g} s"


class GiveUp(AsynQueueError):
    """
    Raised by a durable job that has failed for good: it is not repeated, whatever its C{Retry}
    says.
    """

    def __init__(self, reason: str) -> None:
        """
        @param reason: why, in words.
        """
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason
