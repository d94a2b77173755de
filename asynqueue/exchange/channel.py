"""
Channels of exchanges: an object at a time, each acknowledged.

::

    send ─▶ message ─▶ receive        a message is acknowledged by who receives it:
    send ◀─ acknowledgement ◀─┘       then the sender goes on, and may end

A process says goodbye when it ends in order. One that goes without is lost, and
a caller that waits for it learns how it ended. This module imports no Twisted.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, NamedTuple
from weakref import WeakSet

from asynqueue.codec import Names, decode, encode
from asynqueue.errors import (
    AcknowledgementError,
    FrameTruncated,
    WorkerLostError,
)
from asynqueue.exchange.messages import (
    ACKNOWLEDGED,
    DATA,
    GOODBYE,
    RAISED,
    HasDescriptor,
    Life,
    Messages,
)
from asynqueue.exchange.process import processOf
from asynqueue.forks import isParents, tellForks
from asynqueue.framing import Frame
from asynqueue.outcome import Raised, Returned, cannotSend, raised

_PATIENCE = 5.0

# What the pickling of somebody's objects raises, and concerns these. KeyboardInterrupt is the
# program's: here no reactor sees to Ctrl-C.
_RAISED = (Exception, GeneratorExit, SystemExit)


class Failed(NamedTuple):
    """
    What came instead of a value: an exception that was sent, or why nothing can
    come any more.
    """

    error: BaseException


Delivery = Returned | Failed


def valueOf(delivery: Delivery) -> Any:
    """
    Return what was sent, or raise it.
    """
    match delivery:
        case Failed(error):
            try:
                raise error
            finally:
                # Its traceback knows this frame, and with it the channel.
                del error, delivery
        case Returned(value):
            return value


class Channel:
    """
    A connection to another process, for one object at a time.

    It is not safe for threads.

    @ivar pid: the process at the other end: 0 in a process that was created, whose
        channel leads to the one that created it.
    @ivar process: that process, as long as it is a child of this one.
    @ivar sent: how many messages were sent, or were to be.
    @ivar received: how many were received, since the process was given something to do.
    @ivar isTold: whether L{receive} has told that nothing can come any more.
    """

    def __init__(
        self,
        pid: int,
        read: int | HasDescriptor,
        write: int | HasDescriptor,
        doing: str = "",
        names: Names | None = None,
        *,
        patience: float = _PATIENCE,
    ) -> None:
        """
        @param read: where to receive from: a socket, a file object, or a descriptor.
        @param write: where to send to: the same or another one. The channel owns
            both from now on, and makes them non-blocking. Through one UNIX socket,
            what is large goes as shared memory.
        @param doing: what the other process does, for its errors.
        @param names: what it knows of the main module; C{None}: it is what created this one.
        @param patience: the seconds within which a process ends whose end of the channel is
            closed; or its exit code is not waited for any longer.
        """
        self._names = names
        self._patience = patience
        self.pid = pid
        self.process = processOf(pid)
        self._messages = Messages(read, write, self.process)
        self._doing = doing
        self.sent = 0
        self.received = 0
        # What was acknowledged, and not received.
        self._kept: deque[Frame] = deque()
        self.isTold = False
        self._owner = os.getpid()
        openChannels.add(self)
        tellForks(self)

    def __del__(self) -> None:
        # Without messages, there was nothing to connect.
        if "_messages" in vars(self):
            self.close()

    def fileno(self) -> int:
        """
        Return the descriptor that is read; -1 once the channel is closed.
        """
        return self._messages.fileno()

    @property
    def endedInOrder(self) -> bool:
        """
        Whether the other process has said goodbye, and all it sent was received.
        """
        return self._messages.life is Life.ENDED and self.isOver

    @property
    def wasCollected(self) -> bool:
        """
        Whether the other process has ended in order, and what it sent was received by
        others: nothing of it came here.
        """
        return self.endedInOrder and not self.received and self._messages.given > 0

    @property
    def isOver(self) -> bool:
        """
        Whether all was received, and nothing can come any more.
        """
        return not (self._messages.life is Life.OPEN or self._kept or self._messages.inbox)

    @property
    def hasCome(self) -> bool:
        """
        Whether C{send} has read a message besides its acknowledgement, or the end of all:
        the descriptor need not be readable for that any more.
        """
        messages = self._messages
        return bool(self._kept or messages.inbox or messages.life is not Life.OPEN)

    def descriptors(self) -> list[int]:
        """
        Return what to watch: when one of them is readable, L{look}.
        """
        return self._messages.descriptors()

    def assign(self, doing: str) -> None:
        """
        Note that the other process is given something else to do.
        """
        self._doing = doing
        self.received = 0

    def send(self, obj: Any) -> None:
        """
        Send an object, and wait until the other process has received it.

        An exception is raised by the C{receive} there.

        @raise AcknowledgementError: nothing was acknowledged: the other process is
            gone, or it sends, too. What it sent is there to be received.
        @raise MaybeEncodingError: it cannot be pickled; nothing was sent.
        @raise FrameTooLarge: it has too many bytes; nothing was sent.
        @raise OSError: the channel is closed.
        """
        self.post(obj)
        messages = self._messages
        while True:
            messages.wait()
            if not messages.inbox:
                messages.checkOpen()
                raise AcknowledgementError(self.pid, str(self._loss()))
            if messages.inbox[0][0] != ACKNOWLEDGED:
                raise AcknowledgementError(self.pid, "it sent something else: receive that")
            if messages.inbox.popleft()[1] == self.sent:
                return

    def post(self, obj: Any) -> None:
        """
        Send an object without waiting for its acknowledgement.

        @raise AcknowledgementError: the other process is gone.
        """
        self._messages.checkOpen()
        kind = DATA
        # Not of the object: somebody's __class__ may raise.
        if issubclass(type(obj), BaseException):
            kind, obj = RAISED, raised(obj)
        try:
            body, buffers = encode(obj, self._names)
        except _RAISED as error:
            # Pickling runs other people's code, and may raise anything.
            raise cannotSend(error, obj, "value") from error
        self.sent += 1
        try:
            self._messages.put(kind, self.sent, body, buffers)
        except OSError as error:
            known = self._messages.look() and self.isOver
            reason = str(self._loss() if known else error)
            raise AcknowledgementError(self.pid, reason) from error

    def receive(self) -> Any:
        """
        Wait for an object, and acknowledge it.

        @raise BaseException: an exception that was sent, with the remote traceback
            as its C{__cause__}.
        @raise WorkerLostError: the other process is gone without having sent
            something, or without having said goodbye.
        @raise EOFError: it has sent something, and ended in order; or it is the
            one that created this process.
        @raise OSError: the channel is closed.
        """
        return valueOf(self.take())

    def take(self) -> Delivery:
        """
        Do as L{receive}, but return what that raises of the other process.

        @raise OSError: the channel is closed.
        """
        frame = self._next()
        if frame is None:
            # Another one each time: its traceback would know this channel.
            self.isTold = True
            return Failed(self._loss())
        kind, _, body, buffers = frame
        try:
            value = decode(body, buffers)
        except _RAISED as error:
            # Unpickling runs other people's code, and may raise anything.
            return Failed(error)
        if kind == RAISED:
            return Failed(Raised(*value).localError())
        return Returned(value)

    def look(self) -> bool:
        """
        Take in what has come, without waiting.

        @return: whether L{receive} would not have to wait.
        """
        return bool(self._kept) or self._messages.look()

    def wait(self) -> int | None:
        """
        Wait until the process has ended.

        What it sends until then is acknowledged, and kept to be received.

        @return: its exit code, negative for a signal; C{None} if that is not known.
        """
        if self.process is None:
            return None
        while self._messages.life is Life.OPEN:
            self._messages.wait()
            self._keep()
        self._keep()
        return self.process.wait()

    def leaving(self, inOrder: bool, given: int | None = None) -> None:
        """
        Say that this process ends, if it ends in order.

        @param given: how many objects it has sent in all, by any channel;
            C{None}: those that it has sent through this one.
        """
        if inOrder:
            try:
                self._messages.put(GOODBYE, self.sent if given is None else given)
            except OSError:
                # Nobody is there to hear it.
                pass

    def close(self) -> None:
        """
        Close this end. It may be called more than once.
        """
        process = self.process
        if process and not process.hasEnded() and self._messages.life is Life.ENDED:
            process.wait(self._patience)
        self.abandon()

    def forked(self) -> None:
        """
        Close the copy that this fork has, or who waits at the other end would not see that the
        parent has gone.
        """
        self.abandon(isParents(self._owner))

    def abandon(self, reason: str = "") -> None:
        """
        Close what this process has of it, of which another one has a copy.

        @param reason: why, for the errors of those who use it all the same.
        """
        openChannels.discard(self)
        self._messages.close(reason)
        if self.process is not None:
            self.process.close()

    def _next(self) -> Frame | None:
        """
        Return the next message, or C{None} at the end of all.
        """
        self._keep()
        while not self._kept:
            self._messages.checkOpen()
            if self._messages.life is not Life.OPEN:
                return None
            self._messages.wait()
            self._keep()
        return self._kept.popleft()

    def _keep(self) -> None:
        """
        Acknowledge what has come.
        """
        while self._messages.inbox:
            frame = self._messages.inbox.popleft()
            # Not an acknowledgement that comes too late.
            if frame[0] != ACKNOWLEDGED:
                self._kept.append(frame)
                self.received += 1
                try:
                    self._messages.put(ACKNOWLEDGED, frame[1])
                except OSError:
                    # Who sent it has gone since: it is here all the same.
                    pass

    def _loss(self) -> Exception:
        """
        Why nothing comes any more.
        """
        fault = self._messages.fault
        reason = "" if self.received or fault is not None else "it had sent nothing"
        if isinstance(fault, FrameTruncated):
            reason = f"it had sent {fault.received:,} of the {fault.expected:,} bytes of a message"
        elif fault is not None:
            again = type(fault)(*fault.args)
            again.add_note(f"It came from process {self.pid}.")
            return again
        if self.process is None:
            text = "the process at the other end has ended, or closed the channel"
            if not self.pid and self.sent > 1:
                text += "; an exchange takes one result of each process, unless it is continuous"
            return EOFError(text)
        if self.received and self._messages.life is Life.ENDED:
            return EOFError(f"process {self.pid} has ended, and sends no more")
        code = self.process.wait(self._patience)
        if code is not None and code < 0:
            return WorkerLostError(self.pid, None, -code, self._doing, reason)
        return WorkerLostError(self.pid, code, None, self._doing, reason)


# The channels of this process that are open.
openChannels: WeakSet[Any] = WeakSet()
