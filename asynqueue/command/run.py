"""
One run of C{asynqueue map}: inputs go in as there is room, lines come out.

::

    Inputs ─▶ thread ─▶ Deferator ─▶ arguments ─▶ TaskQueue.map ─▶ crew
                                        │                            │
              Output ◀─ settle ◀── slots, in order ◀── outcomes ◀────┘

The map is unordered: the order of the lines is kept here, where a call that takes long keeps
neither those behind it nor the news of a failure, and where it is known how long lines are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from asynqueue.command.crew import Crew, Placement, failedWith
from asynqueue.command.inputs import Inputs, UnreadableInput
from asynqueue.command.job import JobFailure, NoJSON, failed
from asynqueue.command.output import StandardOutput
from asynqueue.command.statuses import Status
from asynqueue.iteration.deferator import Deferator
from asynqueue.outcome import shortRepr
from asynqueue.scheduling.options import CallOptions
from asynqueue.taskqueue import TaskQueue

# As many results as wait for one before them, or as many bytes of these, keep further inputs
# from being begun; and as many characters of inputs that have no result yet.
_MOST_WAITING = 100_000
_MOST_BYTES = 64 << 20
_MOST_CHARACTERS = 4 << 20


class _Life(Enum):
    FEEDING = "more inputs may come"
    DRAINING = "no more calls are begun"
    ENDED = "nothing more is written"


# By names, for each input: see L{asynqueue.outcome.ITERATOR}.
_FEEDING, _DRAINING, _ENDED = _Life


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

    @ivar callOptions: how the queue makes each call.
    @ivar ordered: whether lines have the order of the inputs.
    @ivar onError: what becomes of a call that failed.
    @ivar tracebacks: whether tracebacks are shown.
    @ivar verbose: whether each failure is told.
    """

    callOptions: CallOptions
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
        self.why: JobFailure | None = None


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
        placement: Placement,
        say: Callable[[str], None],
        reactor: Any,
    ) -> None:
        """
        @param placement: what is called, and where.
        @param say: tells people something, in one line.
        """
        self.done = 0
        self.failed = 0
        self.written = 0
        self.underWay = 0
        self.ended: Deferred[Status] = Deferred()
        self._options = options
        self._inputs = inputs
        self._placement = placement
        self._say = say
        self._reactor = reactor
        self._output: StandardOutput | None = None
        self._outcomes: Deferator | None = None
        self._slots: deque[OutputSlot] = deque()
        self._waitingBytes = 0
        self._characters = 0
        self._room: Deferred[None] | None = None
        self._unreadable = False
        self._life = _FEEDING

    def total(self) -> int | None:
        """
        Return how many inputs there are, as far as that is known.
        """
        return self._inputs.total()

    def start(
        self, queue: TaskQueue, feed: Deferator, crew: Crew, output: StandardOutput
    ) -> Deferred[Status]:
        """
        Begin.

        @param feed: gives the inputs in batches.
        @param crew: the workers of the queue.
        @param output: where lines go.
        @return: C{ended}.
        """
        self._output = output
        self._outcomes = queue.map(
            self._placement.function,
            self._arguments(feed, crew, output),
            ordered=False,
            keyed=True,
            ahead=self._placement.room,
            options=self._options.callOptions,
        )
        Deferred.fromCoroutine(self._collect(self._outcomes)).addErrback(self._cannotRead)
        self.ended.addBoth(self._stopped, feed)
        return self.ended

    def interrupt(self, status: Status) -> None:
        """
        Stop now: what is done and in its turn has been written.
        """
        if self._life is not _ENDED:
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
        End, because it cannot go on.
        """
        if self._life is not _ENDED:
            self._say(reason)
            self._end(Status.WRONG)

    # Inputs

    async def _arguments(
        self, feed: Deferator, crew: Crew, output: StandardOutput
    ) -> AsyncIterator[tuple[OutputSlot, Any]]:
        """
        Give what to call the function with, and whose it is, whenever there is room for one more.
        """
        number = 0
        ordered = self._options.ordered
        asArgument = self._placement.argument
        async for batch in feed:
            crew.need(min(self.underWay + len(batch), self._placement.room))
            for text in batch:
                # A hot path.
                while (output.full or self._isFull()) and self._life is _FEEDING:
                    await self._waitForRoom(output)
                if self._life is not _FEEDING:
                    return
                number += 1
                slot = OutputSlot(number, text)
                self.underWay += 1
                self._characters += len(text)
                if ordered:
                    self._slots.append(slot)
                try:
                    argument = asArgument(text)
                except NoJSON as error:
                    self._outcome(slot, failed(error))
                    self._settle()
                else:
                    yield slot, argument

    async def _waitForRoom(self, output: StandardOutput) -> None:
        if output.full:
            await output.drain()
        else:
            self._room = Deferred()
            await self._room

    def _isFull(self) -> bool:
        return (
            (self._characters >= _MOST_CHARACTERS and self.underWay >= self._placement.leastRoom)
            or len(self._slots) >= _MOST_WAITING
            or self._waitingBytes >= _MOST_BYTES
        )

    def _cannotRead(self, failure: Failure) -> None:
        """
        Take no more inputs, for a bad reason.
        """
        if self._life is _ENDED:
            return
        if not failure.check(UnreadableInput):
            self.giveUp(f"a fault of asynqueue: {failedWith(failure).oneLine()}")
            return
        self._say(failure.getErrorMessage())
        self._unreadable = True

    # Outcomes

    async def _collect(self, outcomes: Deferator) -> None:
        """
        Take the outcomes as they come, and end with the last.
        """
        while outcomes.moreLeft:
            await outcomes.deferUntilReady()
            # Those that come in this turn of the reactor are taken together.
            await deferLater(self._reactor, 0)
            for each in outcomes.takeReady(self._placement.room):
                if type(each) is Failure:
                    self._cannotRead(each)
                else:
                    slot, result = each
                    self._outcome(slot, self._placement.line(result))
            self._settle()
        if self._life is _ENDED:
            return
        if self.failed:
            left = " and were left out" if self._options.onError is OnError.SKIP else ""
            self._say(f"{self.failed:,} of {self.done:,} inputs failed{left}")
        self._end(Status.WRONG if self._unreadable else self._status())

    def _outcome(self, slot: OutputSlot, line: bytes | JobFailure) -> None:
        """
        Note that a call has ended. A hot path.
        """
        if self._life is _ENDED:
            return
        self.underWay -= 1
        self._characters -= len(slot.text)
        self.done += 1
        if isinstance(line, bytes):
            slot.line = line
            self._waitingBytes += len(line)
        else:
            self._failed(slot, line)
        if not self._options.ordered:
            self._slots.append(slot)

    def _failed(self, slot: OutputSlot, why: JobFailure) -> None:
        self.failed += 1
        slot.why = why
        slot.line = b""
        options = self._options
        if options.onError is OnError.FAIL:
            # Those before it are waited for, none after it is begun.
            self._life = _DRAINING
        elif options.verbose:
            self._tell(slot, why)
        if options.onError is OnError.REPORT:
            slot.line = why.asJSON(slot.text, options.tracebacks)
            self._waitingBytes += len(slot.line)

    def _settle(self) -> None:
        """
        Write the lines whose turn it is, and let inputs in for which there is room then.
        """
        if self._life is _ENDED:
            return
        assert self._output is not None
        slots = self._slots
        lines: list[bytes] = []
        last: OutputSlot | None = None
        while slots and slots[0].line is not None and last is None:
            slot = slots.popleft()
            if slot.line:
                lines.append(slot.line)
            elif slot.why is not None and self._options.onError is OnError.FAIL:
                last = slot
        if lines:
            lines.append(b"")
            text = b"\n".join(lines)
            self.written += len(lines) - 1
            self._waitingBytes -= len(text) - len(lines) + 1
            self._output.write(text)
        if last is not None:
            assert last.why is not None
            self._tell(last, last.why)
            self._end(Status.WRONG if last.why.badInput else Status.FAILED)
        room = self._room
        if room is not None and not self._isFull():
            self._room = None
            room.callback(None)

    def _tell(self, slot: OutputSlot, why: JobFailure) -> None:
        self._say(f"input {slot.number}, {shortRepr(slot.text)}: {why.oneLine()}")
        if self._options.tracebacks and why.trace:
            self._say(why.trace.rstrip())

    # The end

    def _status(self) -> Status:
        return Status.FAILED if self.failed else Status.WELL

    def _end(self, status: Status) -> None:
        if self._life is not _ENDED:
            self._life = _ENDED
            self.ended.callback(status)

    def _stopped(self, status: Status, feed: Deferator) -> Status:
        """
        Take no more inputs, and wait for no more calls: nothing more is written.
        """
        assert self._outcomes is not None
        feed.stop()
        self._outcomes.stop()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)
        return status
