"""
The reactor of the command: it runs once, from the first input to the last line,
and no signal, no reader that goes away and no call that hangs keeps it.
"""

from __future__ import annotations

import os
import signal
import sys
from math import inf
from time import perf_counter
from typing import Any

import click
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure

from asynqueue.command.crew import CrewDelegate, Placement, failedWith
from asynqueue.command.inputs import Inputs
from asynqueue.command.output import StandardOutput
from asynqueue.command.progress import ERASE, ProgressLine
from asynqueue.command.run import MapOptions, MapRun
from asynqueue.command.statuses import Status
from asynqueue.queues import ThreadQueue
from asynqueue.reactors import theReactor
from asynqueue.signals import EndSignals
from asynqueue.taskqueue import TaskQueue

# The seconds that a reader that does not read has after a signal.
_PATIENCE = 1.0

_SIGNALS = {signal.SIGINT: Status.INTERRUPTED, signal.SIGTERM: Status.TERMINATED}

_STDOUT = 1


class MapRunner:
    """
    Sets up a run, and takes it down.
    """

    def __init__(
        self, options: MapOptions, inputs: Inputs, placement: Placement, progress: bool = False
    ) -> None:
        """
        @param placement: what is called, and where.
        @param progress: whether progress is shown.
        """
        self._options = options
        self._inputs = inputs
        self._reactor: Any = theReactor()
        self._queue = TaskQueue()
        # The thread in which inputs are read may hang: it is nobody else's.
        self._reader = ThreadQueue()
        self._run = MapRun(options, inputs, placement, self.say, self._reactor)
        delegate = CrewDelegate(self._queue, self.say, self._run.giveUp, self._reactor)
        self._crew = placement.crew(delegate)
        self._progress = ProgressLine(self._run, self._reactor) if progress else None
        self._drawn = False
        self._draining: Deferred[None] | None = None
        # Where a signal comes before anybody hears it, the reactor stops.
        self._status = Status.INTERRUPTED
        self._endedAt = inf

    def run(self) -> Status:
        """
        Run the reactor until all is done. This can be done once in a process.
        """
        signals = EndSignals(self._reactor)
        self._reactor.callWhenRunning(signals.hear, self._interrupt)
        # A method is an observer, whatever its type says.
        observer: Any = self._logged
        globalLogBeginner.beginLoggingTo([observer], discardBuffer=True, redirectStandardIO=False)
        self._reactor.callWhenRunning(self._begin)
        started = perf_counter()
        self._reactor.run()
        self._endedAt = perf_counter()
        seconds = self._endedAt - started
        signals.ignore(self._interrupt)
        for number in _SIGNALS:
            signal.signal(number, self._signalledAtEnd)
        if self._options.verbose:
            done = self._run.done
            self.say(f"{done:,} calls in {seconds:.3g} s, {done / seconds:,.0f} per second")
        return self._status

    def say(self, line: str) -> None:
        """
        Tell people something on standard error, where progress may be drawn.
        """
        room = ERASE.decode() if self._drawn else ""
        click.echo(f"{room}asynqueue: {line}", err=True)

    # EndSignals

    def _signalledAtEnd(self, number: int, frame: Any) -> None:
        """
        End the interpreter while it ends. What the user's modules do then may hang, and a signal
        ends that; but a signal often comes twice, to the command and to its group, and must not
        hinder the tidying up.
        """
        if perf_counter() - self._endedAt > _PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _interrupt(self, number: signal.Signals) -> None:
        status = _SIGNALS[number]
        if self._draining is None:
            self._run.interrupt(status)
        else:
            # All is done, and somebody does not read it, or does not go.
            self._status = status
            self._draining.cancel()
            self._crew.end()

    # The run

    def _begin(self) -> None:
        done = Deferred.fromCoroutine(self._goOn())
        done.addErrback(self._fault)
        done.addBoth(lambda _: self._reactor.stop())

    async def _goOn(self) -> None:
        output = self._openOutput()
        if self._progress is not None:
            self._progress.start()
            self._drawn = sys.stderr.isatty()
        feed = await self._reader.call(self._inputs.batches)
        self._status = await self._run.start(self._queue, feed, self._crew, output)
        if self._run.underWay or self._status in _SIGNALS.values():
            self._crew.end()
        gone = self._crew.dismiss()
        await self._drain(output)
        await gone
        if self._progress is not None:
            self._progress.stop()
            self._drawn = False
        for queue in (self._queue, self._reader):
            for worker in queue.workers():
                queue.detachWorker(worker, crash=True)
            await queue.shutdown()

    def _openOutput(self) -> StandardOutput:
        """
        Open standard output. Where it is the terminal that shows the progress, too, each makes room
        for the other.
        """
        progress = self._progress
        if progress is None or not os.isatty(_STDOUT):
            return StandardOutput(_STDOUT, self._reactor, self._outputLost)
        return StandardOutput(_STDOUT, self._reactor, self._outputLost, ERASE, progress.draw)

    def _outputLost(self, error: OSError) -> None:
        """
        End the run: the output takes no more. If only its reader has gone away, that is how C{|
        head} ends a program.
        """
        if isinstance(error, BrokenPipeError):
            self._run.stop()
            return
        if self._draining is not None:
            self._status = Status.WRONG
        self.say(f"cannot write standard output: {error.strerror}")
        self._run.stop(Status.WRONG)

    async def _drain(self, output: StandardOutput) -> None:
        """
        Wait until all is written: as long as that takes, if nobody is in a hurry.
        """
        self._draining = output.drain()
        if self._status in _SIGNALS.values():
            self._draining.addTimeout(_PATIENCE, self._reactor)
        try:
            await self._draining
        except (CancelledError, TimeoutError):
            pass
        output.close()

    def _fault(self, failure: Failure) -> None:
        """
        Tell of a failure that should not be.
        """
        self._status = Status.WRONG
        self._tellFailure("a fault of asynqueue", failure)

    def _logged(self, event: LogEvent) -> None:
        """
        Tell of errors that the queue and the reactor log.
        """
        if event["log_level"] < LogLevel.error:
            return
        failure = event.get("log_failure")
        if failure is None:
            self.say(formatEvent(event))
        else:
            self._tellFailure("something went wrong", failure)

    def _tellFailure(self, what: str, failure: Failure) -> None:
        self.say(f"{what}: {failedWith(failure).oneLine()}")
        if self._options.tracebacks:
            self.say(failure.getTraceback().rstrip())
