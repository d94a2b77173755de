"""
The calls that are with a host, over one connection.

A hot path, plain on purpose; C{benchmarks/} guards it.
"""

from __future__ import annotations

from collections.abc import Collection

from asynqueue.errors import RemoteProtocolError
from asynqueue.interfaces import ITask
from asynqueue.wire.client.naming import Naming
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import Flag, Kind
from asynqueue.wire.transport.connection import Connection

# For hot paths: members of an enumeration are slow to look up, to compare, to combine.
_CALL = int(Kind.CALL)
_RAW, _WATCHED, _URGENT = (int(flag) for flag in (Flag.RAW, Flag.WATCHED, Flag.URGENT))

# Calls with arguments of more bytes than this are large, and several of them may have so
# many bytes together before the host is sent nothing more; one of them any number.
_LARGE = 1 << 16
_MOST_BYTES = 256 << 20


class Calls:
    """
    What was sent over a connection and has no outcome. A new connection has new ones:
    nothing that an old one says is believed.

    @ivar connection: the connection, which is open as this is made.
    @ivar tasks: the tasks, by the numbers of their calls.
    @ivar last: the number of the last call that was sent.
    """

    def __init__(
        self,
        connection: Connection,
        tasks: dict[int, ITask],
        codec: Codec,
        universe: object,
        names: Collection[str] | None,
        raw: bool,
        flags: int,
    ) -> None:
        """
        @param tasks: takes those that are sent. There is none in it.
        @param codec: writes the arguments.
        @param universe: whose methods have the names of the host's; or C{None}.
        @param names: what the host has by plain names; C{None} if that is for it to say.
        @param raw: whether iterators are wanted as they are, where the call does not say.
        @param flags: of each call.
        """
        self.connection = connection
        self.tasks = tasks
        self.last = 0
        self._codec = codec
        self._raw = raw
        self._flags = flags
        self._naming = Naming(
            str(connection.peer.about.get("trust")),
            names,
            universe,
            lambda number, pickled: connection.send(Kind.DEFINE, number, pickled),
            lambda number: connection.send(Kind.FORGET, number),
        )
        # How many bytes the large ones have, by their numbers, and all together.
        self._large: dict[int, int] = {}
        self._bytes = 0

    def send(self, task: ITask) -> None:
        """
        Have the host make the call of a task. A hot path.

        @raise LocalProtocolError: the connection is not open any more.
        @raise Exception: the host has nothing of this name; the call is too large; or
            whatever the pickling of somebody's objects raises. Nothing was sent.
        """
        tasks = self.tasks
        number = self.last + 1
        f, args, kw = task.callTuple
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
        self.last = number
        tasks[number] = task
        if buffers or len(body) > _LARGE:
            self._large[number] = len(body) + sum(buffer.raw().nbytes for buffer in buffers)
            self._bytes += self._large[number]

    def task(self, kind: int, number: int) -> ITask:
        """
        The task of a call.

        @param kind: what the host says of it.
        @raise RemoteProtocolError: there is no such call.
        """
        task = self.tasks.get(number)
        if task is None:
            raise RemoteProtocolError(f"{Kind(kind).name} came for {number}, which is no call")
        return task

    def settle(self, kind: int, number: int) -> ITask:
        """
        The task of a call of which this is the last, or of whose outcome it is the first.

        @raise RemoteProtocolError: there is no such call.
        """
        task = self.task(kind, number)
        del self.tasks[number]
        return task

    def tell(self, kind: int, number: int, body: bytes = b"") -> None:
        """
        Say something of a call, if that can still be said.
        """
        if self.connection.isOpen:
            self.connection.send(kind, number, body)

    @property
    def isHeavy(self) -> bool:
        """
        Whether several large calls have more bytes than the host should have.
        """
        if not self._large:
            return False
        for number in [number for number in self._large if number not in self.tasks]:
            self._bytes -= self._large.pop(number)
        return self._bytes >= _MOST_BYTES and len(self._large) > 1
