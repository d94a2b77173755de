"""
A queue's side of one connection: sends calls to the host, and hears what becomes of them.

A hot path, plain on purpose; C{benchmarks/} guards it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from asynqueue.codec import ClosedCall
from asynqueue.constancy import ClosedCallable
from asynqueue.errors import LocalProtocolError, RemoteProtocolError
from asynqueue.failures import failureOf
from asynqueue.interfaces import ITask
from asynqueue.iteration.far import FarSource
from asynqueue.outcome import cannotDecode
from asynqueue.timers import Timer, later
from asynqueue.wire.client.iterators import OpenIterators
from asynqueue.wire.client.naming import Naming
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.handshake import plain
from asynqueue.wire.protocol.messages import CallFlag, MessageKind, packedCount, unpackedFault
from asynqueue.wire.transport.connection import Connection
from asynqueue.workers.failing import Fault
from asynqueue.workers.prefetch import Prefetch
from asynqueue.workers.roundtrip import RoundTripWindow

# For hot paths: members of an enumeration are slow to look up, to compare, to combine.
_CALL, _RETURNED = int(MessageKind.CALL), int(MessageKind.RETURNED)
_RAW, _WATCHED, _URGENT = (int(flag) for flag in (CallFlag.RAW, CallFlag.WATCHED, CallFlag.URGENT))

# Calls with arguments of more bytes than this are large.
_LARGE = 1 << 16

# The seconds after which a host that gave back all that it had is sent a call again.
_RETRY_SECONDS = 0.02

# The seconds that the host has to close the connection.
_PATIENCE = 5.0


class QueueSession:
    """
    What a worker has of one open connection. A new connection has a new one: nothing that an
    old one says is believed.

    @ivar connection: the connection.
    @ivar slots: how many calls the host ran at once as the connection opened.
    @ivar series: for what it is qualified, as it says.
    @ivar isLeaving: whether the host takes no more calls.
    """

    def __init__(
        self,
        connection: Connection,
        tasks: Prefetch[RoundTripWindow],
        iterators: OpenIterators,
        fault: Fault,
        *,
        codec: Codec,
        universe: object,
        names: Collection[str] | None,
        raw: bool,
        flags: int,
        mostBytes: int,
        reactor: Any,
    ) -> None:
        """
        @param tasks: those that are sent are held there, by the numbers of their calls. It
            holds none.
        @param iterators: takes the iterators that calls return.
        @param fault: is told when the host can run nothing.
        @param codec: writes arguments, and reads results.
        @param universe: whose methods have the names of the host's; or C{None}.
        @param names: what the host has by plain names; C{None} if that is for it to say.
        @param raw: whether iterators are wanted as they are, where the call does not say.
        @param flags: of each call.
        @param mostBytes: how many bytes several large calls may have together before the host
            is sent nothing more; one of them may have any number.
        """
        about = connection.peer.about
        slots, series = about.get("slots"), about.get("series")
        self.connection = connection
        self.slots = slots if type(slots) is int and slots >= 0 else 1
        series = series if isinstance(series, list) else []
        self.series = list(dict.fromkeys(each for each in series if isinstance(each, str)))
        self.isLeaving = False
        self._tasks = tasks
        self._iterators = iterators
        self._fault = fault
        self._codec = codec
        self._raw = raw
        self._flags = flags
        self._mostBytes = mostBytes
        self._reactor = reactor
        self._naming = Naming(
            str(about.get("trust")),
            names,
            universe,
            lambda number, pickled: connection.send(MessageKind.DEFINE, number, pickled),
            lambda number: connection.send(MessageKind.FORGET, number),
        )
        # The number of the last call that was sent.
        self._last = 0
        # How many bytes the large ones have, by their numbers, and all together.
        self._large: dict[int, int] = {}
        self._bytes = 0
        # The numbers of what is held, while nothing is heard: for calls that are cancelled.
        self._numbers: dict[ITask, int] = {}
        self._isOver = False
        self._retry = Timer(partial(later, reactor))
        self._patience = Timer(partial(later, reactor))

    @property
    def rtt(self) -> float:
        """
        The least round trip in seconds; 0 if it is not known.
        """
        rtt = self._tasks.window.rtt
        return rtt if rtt != inf else self.connection.rtt or 0.0

    # Calls

    def send(self, task: ITask) -> None:
        """
        Have the host make the call of a task. A hot path.
        """
        try:
            self._send(task)
        except LocalProtocolError:
            # The connection is about to be lost.
            self._tasks.waiting[task] = None
        except BaseException as error:
            # Somebody's objects: whatever their pickling raises.
            self._tasks.cannotSend(task, error)

    def _send(self, task: ITask) -> None:
        """
        Send a call, or nothing if this raises.

        @raise LocalProtocolError: the connection is not open any more.
        @raise Exception: the host has nothing of this name; the call is too large; or
            whatever the pickling of somebody's objects raises.
        """
        tasks = self._tasks.held
        number = self._last + 1
        f, args, kw = task.callTuple
        if type(f) is ClosedCall:
            f, args, kw = f.opened()
            if type(f) is ClosedCallable:
                f = f.opened()
        options = task.options
        flags = self._flags
        raw = options.raw
        if self._raw if raw is None else raw:
            flags |= _RAW
        if options.doNext:
            flags |= _URGENT
        if task.watched:
            flags |= _WATCHED
        if kw and "thread" in kw:
            flags, kw = self._naming.options(f, flags, kw)
        encoded, buffers = self._codec.encodeCall(args, kw)
        head, definition = self._naming.head(f, flags, number, next(iter(tasks), number))
        body = head if encoded is None else head + encoded
        if definition:
            self.connection.send(_CALL, number, body, buffers, behind=definition)
        else:
            self.connection.send(_CALL, number, body, buffers)
        self._last = number
        tasks[number] = task
        if buffers or len(body) > _LARGE:
            self._large[number] = len(body) + sum(buffer.raw().nbytes for buffer in buffers)
            self._bytes += self._large[number]

    def resume(self) -> None:
        """
        Send the tasks that wait, and be ready for others.
        """
        for task in self._tasks.takeWaiting():
            self.send(task)
        self.checkReady()

    def checkReady(self) -> None:
        """
        Be ready, if there is room and the host takes calls. A hot path.
        """
        if self._tasks.isWaiting and not self.isLeaving and not self.isHeavy:
            self._tasks.checkReady()

    @property
    def isHeavy(self) -> bool:
        """
        Whether several large calls have more bytes than the host should have.
        """
        if not self._large:
            return False
        held = self._tasks.held
        for number in [number for number in self._large if number not in held]:
            self._bytes -= self._large.pop(number)
        return self._bytes >= self._mostBytes and len(self._large) > 1

    def cancel(self, task: ITask) -> None:
        """
        Have the host end the call of a task, if it is held. To cancel all that is held takes
        time in proportion to it.
        """
        number = self._numbers.get(task)
        if number is None:
            self._numbers = {task: number for number, task in self._tasks.held.items()}
            number = self._numbers.get(task)
        if number is not None:
            self.tell(MessageKind.CANCEL, number)

    def recall(self) -> None:
        """
        Have the host give back what it has not begun (G6). Its own workers may have some of
        that ahead: it is asked again some times.
        """
        self.tell(MessageKind.RECALL, self._last)

    def tell(self, kind: int, number: int, body: bytes = b"") -> None:
        """
        Say something of a call, if that can still be said.
        """
        if self.connection.isOpen:
            self.connection.send(kind, number, body)

    def grantItems(self, number: int, count: int) -> None:
        """
        Let an iterator of the host give C{count} more items.
        """
        self.tell(MessageKind.CREDIT, number, packedCount(count))

    def closeItems(self, number: int) -> None:
        """
        Have the host close an iterator.
        """
        self.tell(MessageKind.CLOSE, number)

    # What the host says

    def received(self, frames: Sequence[Any]) -> None:
        """
        Take messages of the host. A hot path.

        @raise RemoteProtocolError: the host must not say that.
        """
        tasks = self._tasks
        held = tasks.held
        decode = self._codec.decode
        now = self._reactor.seconds()
        window = tasks.window
        window.heard(now, self.connection.rtt)
        full = tasks.isWaiting
        before = tasks.ended
        self._numbers = {}
        # What the host gives back counts as sent until all of the batch is heard: the rest
        # may end the worker.
        back: dict[int, None] = {}
        for kind, number, body, buffers in frames:
            if kind == _RETURNED and number in held:
                task = held.pop(number)
                tasks.ended += 1
                try:
                    value = decode(body, buffers)
                except BaseException as error:
                    # Somebody's objects: whatever their unpickling raises.
                    task.errback(failureOf(cannotDecode(error)))
                else:
                    task.callback(value)
            elif kind == MessageKind.GIVEN_BACK:
                self._task(kind, number)
                if number in back:
                    raise RemoteProtocolError(f"the host gave back the call {number} twice")
                back[number] = None
            else:
                self._heard(kind, number, body, buffers)
            if self._isOver:
                # What ended has made the worker crash.
                return
        if tasks.ended != before:
            window.ended(tasks.ended - before, now, full)
        if back:
            self._handBack([held.pop(number) for number in back if number in held])
        self.checkReady()

    def _heard(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> None:
        """
        Take a message that is no value, and gives back nothing.

        @raise RemoteProtocolError: the host must not say that.
        """
        match kind:
            case MessageKind.RAISED:
                task = self._settled(kind, number)
                self._tasks.ended += 1
                task.errback(failureOf(self._codec.decodeRaised(body)))
            case MessageKind.BEGUN:
                task = self._task(kind, number)
                if task.watched:
                    task.begin()
            case MessageKind.CANCELLED:
                task = self._settled(kind, number)
                self._tasks.ended += 1
                if not task.ended:
                    task.errback(Failure(CancelledError("the host ended the call")))
            case MessageKind.ITERATOR:
                text = bytes(body).decode(errors="replace")
                task = self._settled(kind, number)
                self._tasks.ended += 1
                self._iterators.open(task, FarSource(self, number, text))
            case MessageKind.ITEMS | MessageKind.ITEM_FAILED | MessageKind.END:
                self._iterators.heard(kind, number, body, buffers)
            case MessageKind.CAPACITY:
                self._tasks.window.resize(number)
                reason, isHopeless = unpackedFault(body)
                if reason:
                    self._fault.tell(plain(reason), (), isHopeless)
                else:
                    self._fault.end()
            case _:
                raise RemoteProtocolError(f"a message of the kind {kind!r} came from a host")

    def _task(self, kind: int, number: int) -> ITask:
        """
        Return the task of a call.

        @param kind: what the host says of it.
        @raise RemoteProtocolError: there is no such call.
        """
        task = self._tasks.held.get(number)
        if task is None:
            raise RemoteProtocolError(
                f"{MessageKind(kind).name} came for {number}, which is no call"
            )
        return task

    def _settled(self, kind: int, number: int) -> ITask:
        """
        Return the task of a call, and hold it no more.

        @raise RemoteProtocolError: there is no such call.
        """
        task = self._task(kind, number)
        del self._tasks.held[number]
        return task

    def _handBack(self, tasks: Sequence[ITask]) -> None:
        """
        Let others have tasks that the host gave back.
        """
        tasks = [task for task in tasks if not task.ended]
        if not tasks:
            return
        if not self.isLeaving:
            held, window = self._tasks.held, self._tasks.window
            if window.isClosed or not held:
                window.keep(len(held))
            if not held and not self._retry.isRunning:
                # Or they would go to and fro as fast as they can.
                self._retry.start(_RETRY_SECONDS, self._tryAgain)
        fault = self._fault
        if fault.reason and fault.reporter is not None:
            fault.tell(fault.reason, tasks, fault.isHopeless)
            return
        stay = self._tasks.handBack(tasks)
        if fault.isHopeless:
            self._tasks.lose(stay, fault.reason, begun=False)
        else:
            self._tasks.waiting.update(dict.fromkeys(stay))

    def _tryAgain(self) -> None:
        """
        See whether the host keeps a call now.
        """
        self._tasks.window.retry()
        self.resume()

    # The end

    def close(self) -> None:
        """
        Close the connection; break it if the host does not close it, too.
        """
        if not self._patience.isRunning:
            self.connection.close()
            self._patience.start(_PATIENCE, self.connection.abort)

    def stop(self) -> None:
        """
        Hear nothing more: the connection is lost, or the worker crashes.
        """
        self._isOver = True
        self._retry.stop()
        self._patience.stop()
