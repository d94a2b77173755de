"""
Iterators of a host on their way to tasks: what becomes of the messages about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asynqueue.errors import RemoteProtocolError
from asynqueue.failures import failureOf
from asynqueue.interfaces import ITask
from asynqueue.outcome import cannotDecode
from asynqueue.salvage import Lost
from asynqueue.wire.client.sources import FarSource
from asynqueue.wire.protocol.codecs import Codec
from asynqueue.wire.protocol.messages import MessageKind, packedCount
from asynqueue.workers.held import HeldIterators


class OpenIterators(HeldIterators):
    """
    The iterators that are open on a host, over one connection after the other.

    A task that is here is not held any more. It ends when something has come of its iterator:
    only then it is known how large the items are.

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
        # Those of which nothing has come: their tasks, and what they are, in words.
        self._openings: dict[int, tuple[ITask, str]] = {}

    @property
    def isDelivering(self) -> bool:
        """
        Whether there is a task that has not ended.
        """
        return bool(self._openings or self.deliveries)

    @property
    def unopened(self) -> int:
        """
        How many tasks there are for which nothing has come.
        """
        return len(self._openings)

    def takeUnopened(self) -> list[ITask]:
        """
        Take the tasks for which nothing has come, and will come.
        """
        tasks = [task for task, _ in self._openings.values() if not task.ended]
        self._openings.clear()
        return tasks

    def wait(self, reason: str) -> bool:
        return bool(self._openings) or super().wait(reason)

    def open(
        self,
        task: ITask,
        number: int,
        text: str,
        tell: Callable[[int, int, bytes], None],
        rtt: Callable[[], float],
    ) -> None:
        """
        Hear that a call returned an iterator.

        @param text: what it is, in words.
        @param tell: sends the host a kind of message, a number and a body.
        @param rtt: tells the least round trip to the host, in seconds.
        """
        source = self.sources[number] = FarSource(
            lambda count: tell(MessageKind.CREDIT, number, packedCount(count)),
            lambda: tell(MessageKind.CLOSE, number, b""),
            rtt,
        )
        self._openings[number] = task, text
        if task.ended:
            source.stop()

    def close(self, task: ITask) -> bool:
        """
        Hear that nobody waits for what comes of an iterator any more.

        @return: whether nothing has come of it; else the task looks after it.
        """
        for number, (other, _) in self._openings.items():
            if other is task:
                self.sources[number].stop()
                return True
        return False

    def heard(self, kind: int, number: int, body: Any, buffers: Sequence[Any]) -> ITask | None:
        """
        Take items that the host has sent, a failure in their place, or the end.

        @return: the task, if that was the first of it.
        @raise RemoteProtocolError: it must not send that.
        """
        source = self.sources.get(number)
        if source is None:
            raise RemoteProtocolError(
                f"{MessageKind(kind).name} came for {number}, which is no iterator"
            )
        if kind == MessageKind.ITEMS:
            self._items(source, body, buffers)
        elif kind == MessageKind.ITEM_FAILED:
            source.failed(failureOf(self._codec.decodeRaised(body)))
        else:
            del self.sources[number]
            source.ended()
        opening = self._openings.pop(number, None)
        if opening is None:
            return None
        task, text = opening
        if task.ended:
            source.stop()
        else:
            self.deliveries.begin(task, source, text, source.window)
        return task

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

    def crash(self) -> list[ITask]:
        """
        End none of the tasks.

        @return: those that have not ended.
        """
        return self.takeUnopened() + self.deliveries.crash()

    def _items(self, source: FarSource, body: Any, buffers: Sequence[Any]) -> None:
        try:
            runs = self._codec.decodeItems(body, buffers)
        except RemoteProtocolError:
            raise
        except BaseException as error:
            # They are not here, or what came is something else.
            source.fail(failureOf(cannotDecode(error)))
            return
        size = len(body) + sum(len(buffer) for buffer in buffers)
        for run in runs:
            if isinstance(run, Lost):
                source.failed(failureOf(cannotDecode(run.error)))
            else:
                source.receive(run, size // len(runs))
