"""
What runs in a child process: a loop that reads frames and makes calls.

::

    frames ─▶ calls (in order) ─▶ begin, in shared memory ─▶ perform ─▶ result
           ─▶ credit ─▶ streams, in turn ─▶ items

All of it is the main thread's, as user code may expect. While a call runs nothing is
read: what the parent wants at once, it says in shared memory and by a signal. Each
result is sent before the next call begins, so nothing that was done is lost with
the child. This module imports no Twisted.
"""

from __future__ import annotations

import marshal
import os
import pickle
import select
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from threading import RLock, current_thread, main_thread
from time import perf_counter
from typing import Any

from asynqueue.channels import Channel
from asynqueue.codec import decode, encode
from asynqueue.constancy import isConstant
from asynqueue.descriptors import holdStandard
from asynqueue.framing import LARGEST, Frame, Unavailable, checkSize
from asynqueue.lifelines import endWith
from asynqueue.mainmodule import adopt, learn, whyMissing
from asynqueue.outcome import VALUES, cannotSend, complain, shapeOf
from asynqueue.processes.printing import install
from asynqueue.processes.protocol import (
    CLOSED,
    CLOSED_RETURNED,
    KEPT,
    RAW,
    RETURNED,
    SKIPPED,
    SMALLEST,
    Kind,
    SharedState,
)
from asynqueue.processes.reporting import Reporter
from asynqueue.processes.running import Performer, halfImported, resetSignals
from asynqueue.processes.streaming import Stream, encoded, sendRaised, sizeOf
from asynqueue.processes.surroundings import Latecomers, follow, forwardTracking

# The arguments and keywords of a call that has none.
_NOTHING: tuple[Any, Any] = (), {}

# What may come at any time, and from any thread.
_REPORTS = (Kind.LOGGED, Kind.WARNED, Kind.PRINTED, Kind.TRACKED)

# How many of those that come up while others are sent are sent, too.
_MOST_LATE = 100

Call = tuple[int, int, bytes | memoryview | None, int, Sequence[Any]]


class _ParentGone(BaseException):
    """
    There is nobody to work for. No task may catch it: it is not raised in one.
    """


class _Untrusted(BaseException):
    """
    What a call has left here may harm others: this process must be replaced.
    """


class Child:
    """
    The loop.
    """

    def __init__(self, channel: Channel, shared: SharedState, limit: int = LARGEST) -> None:
        """
        @param limit: how many bytes a result may have.
        """
        self._channel = channel
        self._shared = shared
        self._limit = limit
        self._lock = RLock()
        # Reports that came up in the middle of sending: somebody's finalizer.
        self._late: deque[tuple[Kind, bytes]] = deque()
        self._calls: deque[Call] = deque()
        self._definitions: dict[int, Any] = {}
        # Those that no call changes.
        self._callables: dict[int, Callable[..., Any]] = {}
        self._streams: dict[int, Stream] = {}
        # Those that have credit.
        self._active: deque[Stream] = deque()
        self._performer = Performer(shared)
        self._reporter = Reporter(self._report)
        self._output = install(self._print)
        forwardTracking(lambda told: self._report(Kind.TRACKED, marshal.dumps(told)))

    def serve(self) -> None:
        """
        Work until the parent says no more, or is gone.
        """
        calls = self._calls
        active = self._active
        performer = self._performer
        try:
            while True:
                while calls:
                    self._make(*calls.popleft())
                    if active:
                        self._step()
                    if performer.hasInterrupted:
                        self._checkModules()
                if active:
                    self._step()
                    if performer.hasInterrupted:
                        self._checkModules()
                    if not select.select([self._channel], [], [], 0)[0]:
                        continue
                else:
                    self._flush()
                    performer.renew()
                self._hear(self._channel.receive())
        except (EOFError, _ParentGone):
            pass
        finally:
            self._flush()
            self._performer.close()

    def _hear(self, frames: list[Frame]) -> None:
        # They may have large buffers: no frame is kept while nothing happens.
        for frame in frames:
            self._heard(frame)

    def _heard(self, frame: Frame) -> None:
        kind, number, body, buffers = frame
        if type(body) is Unavailable:
            # Too many files are open here, or too much memory is in use: another child is
            # to take what follows.
            pickle.loads(body)
        match kind:
            case Kind.CALLS:
                for name, packed, flags in marshal.loads(body):
                    self._calls.append((number, name, packed, flags, ()))
                    number += 1
            case Kind.CALL:
                name, flags = marshal.loads(body)
                self._calls.append((number, name, buffers[0], flags, buffers[1:]))
            case Kind.DEFINE:
                self._definitions[number] = body
            case Kind.NAMES:
                # In order with the calls, which begin with 1.
                self._calls.append((0, 0, body, 0, ()))
            case Kind.FORGET:
                # No call that has been sent, and may still be made, names it.
                self._callables.pop(number, None)
                self._definitions.pop(number, None)
            case Kind.CREDIT:
                stream = self._streams.get(number)
                if stream is not None:
                    if not stream.credit:
                        self._active.append(stream)
                    stream.credit += marshal.loads(body)
            case Kind.STOP:
                self._close(number)
            case Kind.ECHO:
                self._send(kind, number, b"")
            case Kind.TIDY:
                self._channel.segments.clear()
            case Kind.SETUP:
                self._setUp(pickle.loads(body))
            case Kind.SURROUNDINGS:
                news = pickle.loads(body)
                follow(news)
                if "levels" in news:
                    self._reporter.follow(news["levels"])
                if "redirected" in news:
                    self._flush()
                    self._output.isRedirected = news["redirected"]

    def _setUp(self, setup: dict[str, Any]) -> None:
        adopt(setup["main"])
        segments = self._channel.segments
        segments.most = setup["kept"]
        if not segments.most:
            # A call may have come with this.
            segments.clear()
        self._reporter.start()
        self._send(Kind.UP, os.getpid(), b"")

    # Calls

    def _make(
        self, number: int, name: int, packed: Any, flags: int, buffers: Sequence[Any]
    ) -> None:
        """
        Make a call, unless it was taken back. A hot path.
        """
        shared = self._shared
        if not (may := shared.begin(number)):
            if not number:
                learn(packed)
            elif may is not None:
                self._send(SKIPPED, number, b"")
            return
        started = perf_counter()
        try:
            f = self._callables.get(name)
            if f is None:
                f = self._defined(name)
            args, kw = _NOTHING if packed is None else pickle.loads(packed, buffers=buffers)
            value = self._performer.perform(number, f, args, kw)
            stays = type(value) not in VALUES and not flags & RAW and shapeOf(value) is not None
        except BaseException as error:
            # The seam to user code: exits and interrupts of the task are outcomes,
            # too, and so is what its arguments raise as they are unpickled.
            shared.ended(perf_counter() - started)
            self._raised(number, whyMissing(error), flags)
            return
        shared.ended(perf_counter() - started)
        if value is None:
            self._send(RETURNED, number, b"")
        elif stays:
            self._open(number, value, flags)
        else:
            self._returned(number, value, flags)

    def _defined(self, name: int) -> Callable[..., Any]:
        """
        Return what a number stands for: as the caller had it, whatever earlier calls have done.
        """
        f: Callable[..., Any] = decode(self._definitions[name])
        if isConstant(f):
            self._callables[name] = f
        return f

    def _returned(self, number: int, value: Any, flags: int) -> None:
        try:
            kind = RETURNED
            if flags & CLOSED:
                isClosed, body, buffers = encoded(value, True)
                if isClosed:
                    kind = CLOSED_RETURNED
            else:
                body, buffers = encode(value)
            checkSize(sizeOf(body, buffers), self._limit)
            self._send(kind, number, body, buffers)
        except BaseException as error:
            # Somebody's objects, or too many of them: whatever that raises. If the parent is
            # gone, this raises it again.
            self._raised(number, cannotSend(error, value), flags)

    def _raised(self, number: int, error: BaseException, flags: int) -> None:
        closed = Kind.CLOSED_RAISED if flags & CLOSED else 0
        sendRaised(self._send, Kind.RAISED, number, error, closed)

    def _checkModules(self) -> None:
        """
        Look whether a call that was interrupted has left half a module.

        @raise _Untrusted: it was in the middle of an import, which could not be seen.
        """
        self._performer.hasInterrupted = False
        names = halfImported()
        if names:
            raise _Untrusted(
                f"A call was interrupted, and the import of {', '.join(names)} has not ended:"
                " this process is replaced."
            )

    # Iterators

    def _open(self, number: int, value: Any, flags: int) -> None:
        performer = self._performer
        try:
            stream = Stream(
                number,
                value,
                self._send,
                lambda f: performer.perform(number, f, (), {}),
                lambda coroutine: performer.run(number, coroutine),
                self._limit,
                bool(flags & CLOSED),
            )
        except BaseException as error:
            # Somebody's iterator, whose very methods raise.
            self._raised(number, error, flags)
            return
        if stream.open():
            self._streams[number] = stream

    def _step(self) -> None:
        """
        Advance the iterator whose turn it is.
        """
        stream = self._active.popleft()
        if stream.number not in self._streams:
            return
        if not stream.step():
            del self._streams[stream.number]
        elif stream.credit:
            self._active.append(stream)

    def _close(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        try:
            stream.close()
        except BaseException as error:
            # The seam to user code: nobody is left who could be told but the reader
            # of standard error.
            complain(error)
        self._send(Kind.END, number, b"", ())

    # Sending

    def _send(self, kind: int, number: int, body: Any, buffers: Sequence[Any] = ()) -> None:
        if self._output.isRedirected and kind not in _REPORTS:
            # What a call has printed comes before its result.
            self._flush()
        with self._lock:
            try:
                self._channel.send(kind, number, body, buffers)
            except OSError as error:
                raise self._cannotSend(error) from None
        if self._late:
            self._sendLate()

    def _sendLate(self) -> None:
        """
        Send what came up in the meantime, unless another thread is sending, which does it
        then. It is not all, if a thread prints without end.
        """
        for _ in range(len(self._late) + _MOST_LATE):
            if not self._late or not self._lock.acquire(blocking=False):
                return
            try:
                if self._late:
                    kind, body = self._late.popleft()
                    self._channel.send(kind, 0, body)
            except OSError as error:
                raise self._cannotSend(error) from None
            finally:
                self._lock.release()

    def _cannotSend(self, error: OSError) -> BaseException:
        """
        Return the exception to raise where the system cannot send: that the parent is gone, if
        it is, or if this is a fork, whose channel is closed.
        """
        isLost = isinstance(error, BrokenPipeError | ConnectionResetError)
        return _ParentGone() if isLost or self._channel.fileno() < 0 else error

    def _report(self, kind: Kind, body: bytes) -> None:
        """
        Report something, perhaps in the middle of a call, perhaps in another thread.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            self._late.append((kind, body))
            return
        isMain = current_thread() is main_thread()
        # It may be a finalizer that reports, which cannot end this process. That nobody is
        # left to be told is found out again by what is sent next.
        with self._performer.shielded() if isMain else nullcontext(), suppress(_ParentGone):
            self._send(kind, 0, body)

    def _print(self, text: bytes) -> None:
        """
        Have the parent print something. This waits for no other thread that is sending: that
        one may wait until it can print.
        """
        self._late.append((Kind.PRINTED, text))
        if not self._lock._is_owned():  # type: ignore[attr-defined]
            # As in a report.
            with suppress(_ParentGone):
                self._sendLate()

    def _flush(self) -> None:
        """
        Send what tasks have printed before nothing happens for a while.
        """
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                # A task has closed it, or has put something of its own there; or there is
                # none.
                pass
        if self._output.isRedirected:
            self._output.finish()

    def forked(self) -> None:
        """
        Be silent: this is a fork that a task has made, and must not speak for the child.
        """
        self._lock = RLock()
        self._channel.close()
        self._reporter.forked()
        self._output.forget()


def main(connection: int, outlet: int, memory: int, lifeline: int, parent: int, limit: int) -> None:
    """
    Be a child.

    @param connection: the descriptor of the socket to the parent.
    @param outlet: that of the pipe for what is sent to the parent.
    @param memory: that of the shared memory.
    @param lifeline: that of a pipe that ends with the parent.
    @param parent: the process ID of the parent.
    @param limit: how many bytes a result may have.
    """
    holdStandard()
    resetSignals()
    sys.meta_path.append(Latecomers)
    endWith(lifeline)
    if os.getppid() != parent:
        # Its parent was faster, and a fork of that has the pipe.
        os._exit(1)
    os.set_inheritable(connection, False)
    os.set_inheritable(outlet, False)
    shared = SharedState(memory)
    os.close(memory)
    end = socket.socket(fileno=connection)
    # Where the parent has a default timeout for sockets, it does not block.
    end.setblocking(True)
    channel = Channel(end, max(limit, SMALLEST), outlet=outlet)
    channel.segments.most = KEPT
    child = Child(channel, shared, limit)
    os.register_at_fork(after_in_child=child.forked)
    # It may live on when this process has ended in good order: its pipe must not kill it.
    held = ExitStack()
    held.callback(os.close, lifeline)
    os.register_at_fork(after_in_child=held.close)
    try:
        child.serve()
    except BaseException as error:
        # At once: if the channel was closed before the process ends, the parent would kill
        # it, and could not tell what it died of.
        complain(error)
        os._exit(1)
