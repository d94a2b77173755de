"""
The starts of the children of a supervisor: how soon after failures, and until when there is
hope.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from twisted.logger import Logger

from asynqueue.outcome import Raised, inWords
from asynqueue.processes.limits import Backoff
from asynqueue.processes.roles import ExitReport
from asynqueue.timers import Timer

_log = Logger()

# A child is started ahead when the one before is expected to have made its calls in less than
# this many times the seconds in which the latest came up.
_MARGIN = 3.0

# The latest calls, from which it is known how many seconds pass between two of them.
_LATEST = 8


class Starts:
    """
    Starts a child when one is wanted, after a pause if others have failed.

    @ivar falseStarts: how many could not be started, or ended before they were of use.
    @ivar despair: why there is no child, and will be none; empty while there is hope.
    """

    def __init__(
        self,
        callLater: Callable[[float, Callable[[], None]], Any],
        start: Callable[[], None],
        givenUp: Callable[[str], None],
        name: Callable[[], str],
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        @param callLater: makes a call after some seconds; what it returns can be cancelled.
        @param start: starts a child.
        @param givenUp: is called with the reason if there will be no child, but not within
            L{soon}, nor within C{start}.
        @param name: names the supervisor, in messages.
        @param now: tells the time, in seconds.
        """
        self.falseStarts = 0
        self.despair = ""
        self._start = start
        self._givenUp = givenUp
        self._name = name
        self._now = now
        self._backoff = Backoff(now)
        # When the latest child was started, and the seconds in which the latest came up.
        self._since = 0.0
        self._seconds = 0.0
        # When the latest calls were given.
        self._calls: deque[float] = deque(maxlen=_LATEST)
        self._pause = Timer(callLater)
        self._telling = Timer(callLater)

    @property
    def isDue(self) -> bool:
        """
        Whether a child will be started when a pause is over.
        """
        return self._pause.isRunning

    @property
    def areFailing(self) -> bool:
        """
        Whether the latest child has failed as it started.
        """
        return self._backoff.starts > 0

    def isTime(self, left: int) -> bool:
        """
        Take note that a child was given a call, and tell whether the next child must be
        started now to be there in time.

        @param left: how many calls the present child has yet to end.
        """
        now = self._now()
        calls = self._calls
        calls.append(now)
        if len(calls) < 2 or self.areFailing or self.isDue:
            return False
        pace = (now - calls[0]) / (len(calls) - 1)
        return left * pace <= _MARGIN * self._seconds

    def soon(self) -> None:
        """
        Start a child, now or when a pause is over.
        """
        pause = self._backoff.pause
        if not pause or (self.despair and self._backoff.isOver):
            self._startNow()
        elif self.despair:
            self._tell()
        else:
            self._pause.start(pause, self._startNow)

    def later(self) -> None:
        """
        Start a child when the pause after the latest failure is over, though there may be no
        hope.
        """
        self._pause.start(self._backoff.leastPause, self._startNow)

    def succeeded(self) -> None:
        """
        Take note that a child is set up and prepared.
        """
        self._backoff.succeeded()
        self.despair = ""
        self._seconds = self._now() - self._since

    def refused(self, error: BaseException) -> None:
        """
        Take note that a child could not be started.
        """
        self.falseStarts += 1
        self._backoff.failed()
        self._lose(f"no process can be started: {inWords(error)}")
        self._tell()

    def unfit(self, what: str, outcome: Raised) -> str:
        """
        Take note that a child could not prepare. Nor could another one, as far as can be told.

        @param what: the call that failed, in words.
        @return: why there will be none.
        """
        reason = f"its process cannot prepare: {what} raised {inWords(outcome.localError())}"
        self._lose(reason, f"\n{outcome.trace}")
        return reason

    def failed(self, ending: ExitReport) -> str:
        """
        Take note that a child has ended before it was of use.

        @return: why, in words.
        """
        self.falseStarts += 1
        self._backoff.failed()
        said = f"; the last that it wrote: {ending.lastWords}" if ending.lastWords else ""
        reason = f"processes end as they start ({ending.describe()}){said}"
        if self._backoff.pause:
            _log.warn(
                "{name}: {starts} times in a row {reason}",
                name=self._name(),
                starts=self._backoff.starts,
                reason=reason,
            )
        if self._backoff.isHopeless:
            self.despair = reason
        return reason

    def stop(self) -> None:
        """
        Start none.
        """
        self._pause.stop()
        self._telling.stop()

    def _startNow(self) -> None:
        self._since = self._now()
        self._start()

    def _lose(self, reason: str, trace: str = "") -> None:
        if reason != self.despair:
            _log.error("{name}: {reason}{trace}", name=self._name(), reason=reason, trace=trace)
        self.despair = reason

    def _tell(self) -> None:
        """
        Tell that there will be no child.
        """
        if not self._telling.isRunning:
            self._telling.start(0, self._tellNow)

    def _tellNow(self) -> None:
        # A child may have come up since: then there is no reason to tell.
        if self.despair:
            self._givenUp(self.despair)
