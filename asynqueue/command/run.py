"""
One run of C{asynqueue map}: inputs go in as there is room, lines come out.

::

    Inputs ─▶ thread ─▶ Deferator ─▶ feed ─▶ Calls ─▶ TaskQueue ─▶ crew
                                      │                              │
              Output ◀─ settle ◀── slots, in order ◀─────────────────┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.command.calls import Calls, Ended
from asynqueue.command.crew import Crew, failedWith, howLost
from asynqueue.command.inputs import Inputs, UnreadableInput
from asynqueue.command.job import Failed, Job
from asynqueue.command.output import Output
from asynqueue.command.statuses import Status
from asynqueue.errors import WorkerLost
from asynqueue.iteration.deferator import Deferator
from asynqueue.outcome import shortRepr
from asynqueue.scheduling.options import CallOptions

# Results that wait for one before them, so many or of so many bytes together,
# keep further inputs from being begun.
_MOST_WAITING = 100_000
_MOST_BYTES = 64 << 20


class _Life(Enum):
    FEEDING = "more inputs may come"
    DRAINING = "no more calls are begun"
    ENDED = "nothing more is written"


class OnError(Enum):
    """
    What becomes of a call that failed.
    """

    FAIL = "fail"
    SKIP = "skip"
    REPORT = "report"


@frozen
class MapOptions:
    """
    What a run does with its inputs, and how.

    @ivar job: what is done with each input.
    @ivar callOptions: how the queue makes each call.
    @ivar most: how many calls run at once.
    @ivar ordered: whether lines have the order of the inputs.
    @ivar onError: what becomes of a call that failed.
    @ivar tracebacks: whether tracebacks are shown.
    @ivar verbose: whether each failure is told.
    """

    job: Job
    callOptions: CallOptions
    most: int
    ordered: bool = True
    onError: OnError = OnError.FAIL
    tracebacks: bool = False
    verbose: bool = False


class OutputSlot:
    """
    What the output has of one input, now or later.
    """

    __slots__ = ("line", "number", "text", "why")

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text
        self.line: bytes | None = None
        self.why: Failed | None = None


class MapRun:
    """
    Has a call made for each input, and writes a line for each result.

    @ivar done: how many calls have ended.
    @ivar failed: how many of them failed.
    @ivar written: how many have their lines in the output.
    @ivar underWay: how many have begun, or wait to begin.
    @ivar ended: fires with the L{Status} when nothing more will be written.
    """

    def __init__(
        self,
        options: MapOptions,
        inputs: Inputs,
        calls: Callable[[Ended], Calls],
        say: Callable[[str], None],
    ) -> None:
        """
        @param calls: makes who has the calls made, of what is told their outcomes.
        @param say: tells people something, in one line.
        """
        self.done = 0
        self.failed = 0
        self.written = 0
        self.underWay = 0
        self.ended: Deferred[Status] = Deferred()
        self._options = options
        self._inputs = inputs
        self._calls = calls(self._outcome)
        self._say = say
        self._crew: Crew | None = None
        self._output: Output | None = None
        self._feed: Deferator | None = None
        self._slots: deque[OutputSlot] = deque()
        self._waitingBytes = 0
        self._room: Deferred[None] | None = None
        self._unreadable = False
        self._life = _Life.FEEDING

    def total(self) -> int | None:
        """
        How many inputs there are, as far as that is known.
        """
        return self._inputs.total()

    def start(self, feed: Deferator, crew: Crew, output: Output) -> Deferred[Status]:
        """
        Begin.

        @param feed: gives the inputs in batches.
        @param crew: the workers of the queue.
        @param output: where lines go.
        @return: C{ended}.
        """
        self._feed = feed
        self._crew = crew
        self._output = output
        fed = Deferred.fromCoroutine(self._take(feed, output))
        fed.addErrback(self._cannotRead)
        return self.ended

    def interrupt(self, status: Status) -> None:
        """
        Stop now: what is done and in its turn has been written.
        """
        if self._life is not _Life.ENDED:
            written = f"{self.written:,} result{'' if self.written == 1 else 's'} written"
            self._say(f"{status.name.lower()}: {written}")
            self._end(status)

    def stop(self, status: Status | None = None) -> None:
        """
        Write nothing more, and say nothing.

        @param status: how it ends; by default as it stands.
        """
        self._end(self._status() if status is None else status)

    def giveUp(self, reason: str) -> None:
        """
        It cannot go on.
        """
        if self._life is not _Life.ENDED:
            self._say(reason)
            self._end(Status.WRONG)

    # Inputs

    async def _take(self, feed: Deferator, output: Output) -> None:
        """
        Make a call for each input, whenever there is room for one more.
        """
        number = 0
        async for batch in feed:
            for text in batch:
                if self._life is _Life.FEEDING and (self._isFull() or output.full):
                    await self._waitForRoom(output)
                if self._life is not _Life.FEEDING:
                    return
                number += 1
                self._begin(OutputSlot(number, text))
            self._flush()
        self._noMore()

    async def _waitForRoom(self, output: Output) -> None:
        self._flush()
        while self._life is _Life.FEEDING and self._isFull():
            self._room = Deferred()
            await self._room
        while self._life is _Life.FEEDING and output.full:
            await output.drain()

    def _isFull(self) -> bool:
        return (
            self.underWay >= self._calls.room
            or len(self._slots) >= _MOST_WAITING
            or self._waitingBytes >= _MOST_BYTES
        )

    def _begin(self, slot: OutputSlot) -> None:
        self.underWay += 1
        if self._options.ordered:
            self._slots.append(slot)
        self._calls.begin(slot.text, slot)

    def _flush(self) -> None:
        """
        Have all begun that was taken.
        """
        assert self._crew is not None
        self._calls.flush()
        self._crew.need(self.underWay)

    def _cannotRead(self, failure: Failure) -> None:
        """
        There are no more inputs, for a bad reason.
        """
        if self._life is _Life.ENDED:
            return
        if not failure.check(UnreadableInput):
            self.giveUp(f"a fault of asynqueue: {failedWith(failure).oneLine()}")
            return
        self._say(failure.getErrorMessage())
        self._unreadable = True
        self._noMore()

    def _noMore(self) -> None:
        if self._life is _Life.FEEDING:
            self._life = _Life.DRAINING
        self._checkEnd()

    # Outcomes

    def _outcome(self, result: Any, slot: OutputSlot) -> None:
        """
        A call has ended.
        """
        self.underWay -= 1
        if self._life is _Life.ENDED:
            return
        self.done += 1
        if isinstance(result, bytes):
            slot.line = result
        else:
            self._failed(slot, self._why(result))
        if self._options.ordered:
            self._waitingBytes += len(slot.line or b"")
            self._settle()
        else:
            self._put(slot)
        room = self._room
        if room is not None and not self._isFull():
            self._room = None
            room.callback(None)
        self._checkEnd()

    def _failed(self, slot: OutputSlot, why: Failed) -> None:
        self.failed += 1
        slot.why = why
        slot.line = b""
        options = self._options
        if options.onError is OnError.FAIL:
            # Those before it are waited for, none after it is begun.
            self._life = _Life.DRAINING
        elif options.verbose:
            self._tell(slot, why)
        if options.onError is OnError.REPORT:
            slot.line = why.asJSON(slot.text, options.tracebacks)

    def _why(self, result: Failed | Failure) -> Failed:
        """
        What went wrong, also where the call itself could not say it.
        """
        if isinstance(result, Failed):
            return result
        error = result.value
        if isinstance(error, WorkerLost):
            how = howLost(error)
            message = "the process that ran it died" + (f" ({how})" if how else "")
            return Failed(type(error).__name__, message, f"{error}\n")
        return failedWith(result)

    def _settle(self) -> None:
        """
        Write the lines whose turn it is.
        """
        slots = self._slots
        while slots and slots[0].line is not None and self._life is not _Life.ENDED:
            slot = slots.popleft()
            self._waitingBytes -= len(slot.line or b"")
            self._put(slot)

    def _put(self, slot: OutputSlot) -> None:
        assert self._output is not None
        if slot.why is not None and self._options.onError is OnError.FAIL:
            self._tell(slot, slot.why)
            self._end(Status.WRONG if slot.why.badInput else Status.FAILED)
        elif slot.line:
            self.written += 1
            self._output.write(slot.line + b"\n")

    def _tell(self, slot: OutputSlot, why: Failed) -> None:
        self._say(f"input {slot.number}, {shortRepr(slot.text)}: {why.oneLine()}")
        if self._options.tracebacks and why.trace:
            self._say(why.trace.rstrip())

    # The end

    def _status(self) -> Status:
        return Status.FAILED if self.failed else Status.WELL

    def _checkEnd(self) -> None:
        if self._life is _Life.DRAINING and not self.underWay and not self._slots:
            if self.failed:
                left = " and were left out" if self._options.onError is OnError.SKIP else ""
                self._say(f"{self.failed:,} of {self.done:,} inputs failed{left}")
            self._end(Status.WRONG if self._unreadable else self._status())

    def _end(self, status: Status) -> None:
        if self._life is _Life.ENDED:
            return
        self._life = _Life.ENDED
        self._calls.stop()
        if self._feed is not None:
            self._feed.stop()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)
        self.ended.callback(status)
