"""
How inputs become tasks of the queue: each by itself, or in chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred

from asynqueue.command.job import Job
from asynqueue.mapping.chunker import Batch, Chunker
from asynqueue.scheduling.options import CallOptions
from asynqueue.taskqueue import TaskQueue

# So many calls are under way beyond four for each worker: enough to keep all
# busy, few enough that an early end wastes little.
_SPARE = 64
_EACH = 4

# So many chunks are under way for each worker.
_CHUNKS = 3

# Is told what became of an input: a line, a Failed or a Failure.
Ended = Callable[[Any, Any], None]


class Calls(Protocol):
    """
    Has a job done with inputs.
    """

    @property
    def room(self) -> int:
        """
        How many inputs may be under way.
        """

    def begin(self, text: str, slot: Any) -> None:
        """
        There is another input.
        """

    def flush(self) -> None:
        """
        There is none after it for now.
        """

    def stop(self) -> None:
        """
        Nobody wants to know any more.
        """


class SingleCalls:
    """
    Each input is a task.
    """

    def __init__(
        self, queue: TaskQueue, options: CallOptions, job: Job, most: int, ended: Ended
    ) -> None:
        """
        @param most: how many run at once.
        @param ended: is called with each outcome, and the output slot of its input.
        """
        self._queue = queue
        self._options = options
        self._job = job
        self._ended = ended
        self.room = _SPARE + _EACH * most

    def begin(self, text: str, slot: Any) -> None:
        d = self._queue.callWith(self._options, self._job, text)
        d.addBoth(self._ended, slot)

    def flush(self) -> None:
        """
        Each has begun already.
        """

    def stop(self) -> None:
        """
        Their workers are ended, and what comes of them is ignored.
        """


class ChunkedCalls:
    """
    Inputs share tasks, by the time that they take.
    """

    def __init__(
        self,
        queue: TaskQueue,
        options: CallOptions,
        job: Job,
        most: int,
        ended: Ended,
        reactor: Any,
    ) -> None:
        """
        @param most: how many run at once.
        @param ended: is called with each outcome, and the output slot of its input.
        @param reactor: an C{IReactorTime}.
        """
        once = evolve(options, retries=0)

        def call(chunk: Callable[..., Any], *what: Any) -> Deferred[Any]:
            return queue.callWith(once, chunk, *what)

        self._most = most
        self._ended = ended
        self._chunker = Chunker(self, call, reactor.callLater, job, retries=options.retries)
        self._single = SingleCalls(queue, options, job, most, ended)
        # Those that no worker has, and the slots of all.
        self._waiting: deque[tuple[str, Any]] = deque()
        self._givenBack: deque[Batch] = deque()
        self._slots: dict[Batch, deque[Any]] = {}
        self._flushing = False

    @property
    def room(self) -> int:
        return max(self._single.room, _CHUNKS * self._most * self._chunker.size)

    def begin(self, text: str, slot: Any) -> None:
        self._waiting.append((text, slot))

    def flush(self) -> None:
        """
        Fill the workers up.
        """
        if self._flushing:
            return
        self._flushing = True
        while self._givenBack or self._waiting:
            if not self._chunker.works:
                self._callOne()
            elif not self._send():
                break
        self._flushing = False

    def stop(self) -> None:
        self._waiting.clear()
        self._givenBack.clear()
        self._chunker.stop()

    # BatchDelegate

    def onResults(self, batch: Batch, outcomes: list[Any]) -> None:
        # Of a batch that is over all outcomes may have come before.
        slots = self._slots.get(batch, deque())
        for outcome in outcomes:
            self._ended(outcome, slots.popleft())
        if not slots:
            self._slots.pop(batch, None)
        self.flush()

    def onRemainder(self, batch: Batch, items: list[Any], losses: int) -> None:
        slots = self._slots[batch]
        rest = [slots.pop() for _ in items]
        again = Batch(items, losses)
        self._slots[again] = deque(reversed(rest))
        self._givenBack.append(again)

    # Within

    def _send(self) -> bool:
        """
        Send a chunk.

        @return: whether there was room for it.
        """
        if len(self._chunker.underWay) >= _CHUNKS * self._most:
            return False
        size = self._chunker.size
        if self._givenBack:
            batch = self._givenBack.popleft()
            if len(batch.items) > size:
                self.onRemainder(batch, batch.items[size:], 0)
                self._givenBack.rotate(1)
                del batch.items[size:]
        else:
            # All workers shall have some.
            share = min(size, max(1, len(self._waiting) // self._most))
            taken = [self._waiting.popleft() for _ in range(min(share, len(self._waiting)))]
            batch = Batch([text for text, _ in taken])
            self._slots[batch] = deque(slot for _, slot in taken)
        if self._chunker.send(batch):
            return True
        self._givenBack.appendleft(batch)
        return not self._chunker.works

    def _callOne(self) -> None:
        if not self._givenBack:
            self._single.begin(*self._waiting.popleft())
            return
        batch = self._givenBack[0]
        slot = self._slots[batch].popleft()
        text = batch.items.pop(0)
        if not batch.items:
            del self._slots[batch]
            self._givenBack.popleft()
        self._single.begin(text, slot)
