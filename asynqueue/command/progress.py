"""
How far it is: one line on standard error, drawn a few times a second.
"""

from __future__ import annotations

from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from twisted.internet.task import LoopingCall

# The seconds between two drawings. Each costs about a millisecond.
_INTERVAL = 0.2

# The seconds, the last ones, that the rate and the time left are those of.
_PERIOD = 20.0

# Takes a terminal to the start of its line, and empties that.
ERASE = b"\r\x1b[2K"


class Counts(Protocol):
    """
    What is counted.
    """

    done: int
    failed: int

    def total(self) -> int | None:
        """
        Return how many there will be, if that is known.
        """


class _Count(ProgressColumn):
    """
    How many are done, of how many, and how many failed.
    """

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f" of {task.total:,.0f}"
        text = Text(f"{task.completed:,.0f}{total}", "progress.download")
        if task.fields["failed"]:
            text.append(f"  {task.fields['failed']:,} failed", "bold red")
        return text


class _Rate(ProgressColumn):
    """
    How many are done in a second.
    """

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if speed is None:
            return Text("")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s", "progress.data.speed")


class ProgressLine:
    """
    Draws the counts while there is something to count.
    """

    def __init__(self, counts: Counts, reactor: Any, console: Console | None = None) -> None:
        """
        @param counts: is asked whenever the line is drawn.
        @param console: where to draw; standard error by default. On what is no
            terminal only the last state is drawn.
        """
        self._counts = counts
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            BarColumn(bar_width=None),
            _Count(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(compact=True),
            console=console or Console(stderr=True),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
            speed_estimate_period=_PERIOD,
        )
        self._task = self._progress.add_task("", total=None, failed=0)
        self._loop = LoopingCall(self.draw)
        self._loop.clock = reactor

    def start(self) -> None:
        """
        Draw it from now on.
        """
        self._progress.start()
        self._loop.start(_INTERVAL)

    def draw(self) -> None:
        """
        Draw the line as it is now.
        """
        counts = self._counts
        self._progress.update(
            self._task,
            completed=counts.done,
            total=counts.total(),
            failed=counts.failed,
        )
        self._progress.refresh()

    def stop(self) -> None:
        """
        Draw it for the last time, and leave it there.
        """
        if self._loop.running:
            self._loop.stop()
            self.draw()
            self._progress.stop()
