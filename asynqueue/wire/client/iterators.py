"""
Iterators of a host on their way to tasks: what becomes of the messages about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asynqueue.errors import RemoteProtocolError
from asynqueue.failures import failureOf
from asynqueue.interfaces import ITask
from asynqueue.iteration.far import FarSource
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import MessageKind
from asynqueue.workers.held import HeldIterators


class OpenIterators(HeldIterators):
    """
    The iterators that are open on a host, over one connection after the other.

    A task that is here is not held any more.

    @ivar sources: the iterators, by the numbers of their calls.
    """

    def __init__(
        self,
        codec: Codec,
        name: Callable[[], str],
        callLater: Callable[[float, Callable[[], None]], Any],
        looked: Callable[[], None],
    ) -> None:
        """
        @param codec: reads the items.
        @param name: as L{HeldIterators} takes it, as C{callLater} and C{looked}.
        """
        self.sources: dict[int, FarSource] = {}
        super().__init__(self.sources.values, name, callLater, looked)
        self._codec = codec

    def open(self, task: ITask, source: FarSource) -> None:
        """
        Hear that a call returned an iterator.
        """
        self.sources[source.number] = source
        if task.ended:
            source.stop()
        else:
            self.deliveries.begin(task, source, source.text, source.window)

    def heard(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> None:
        """
        Take items that the host has sent, a failure in their place, or the end.

        @raise RemoteProtocolError: it must not send that.
        """
        source = self.sources.get(number)
        if source is None:
            raise RemoteProtocolError(
                f"{MessageKind(kind).name} came for {number}, which is no iterator"
            )
        if kind == MessageKind.ITEMS:
            source.read(self._codec.decodeItems, body, buffers)
        elif kind == MessageKind.ITEM_FAILED:
            source.failed(failureOf(self._codec.decodeRaised(body)))
        else:
            del self.sources[number]
            source.ended()

    def lose(self, reason: str) -> None:
        """
        End the iterations: nothing more can come.

        @param reason: why, in words.
        """
        self.stop()
        sources = list(self.sources.values())
        self.sources.clear()
        for source in sources:
            source.lost(self._lost(reason))
