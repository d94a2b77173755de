"""
What a service logs, and how: lines of text, or of JSON.

The service itself logs through txaio. What the reactor, the wire and the queue log comes
by Twisted's logger; all goes the same way, and has the same least level.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    textFileLogObserver,
)

# Not txaio itself: that wants to be told once, for the whole program, that it is
# Twisted's, and to say so is for the program.
from txaio.tx import set_global_log_level

from asynqueue.outcome import inWords

DEFAULT_LEVEL = "info"


def setLevel(level: str) -> None:
    """
    Have txaio's loggers drop early what is below a level.
    """
    set_global_log_level(level)


def levelOf(level: str | None) -> Any:
    """
    Return a level of Twisted's logger, by its name.
    """
    return LogLevel.levelWithName(level or DEFAULT_LEVEL)


def observerFor(file: TextIO, level: str | None, asJSON: bool) -> Any:
    """
    Return what writes events to a file.

    @param level: the name of the least level that is written.
    @param asJSON: whether each is a line of JSON.
    @return: an C{ILogObserver}.
    """
    make: Callable[[TextIO], FileLogObserver] = jsonLines if asJSON else textFileLogObserver
    return FilteringLogObserver(make(file), [LogLevelFilterPredicate(levelOf(level))])


def jsonLines(file: TextIO) -> FileLogObserver:
    """
    Return what writes an event as a line of JSON: for C{jq}, and for those that collect logs.
    """
    return FileLogObserver(file, jsonLine)


def jsonLine(event: LogEvent) -> str:
    """
    Return an event as a line of JSON: C{time} (RFC 3339, UTC), C{level}, C{system} (which part of
    the program), C{text}, C{traceback} if something was raised, and in C{fields} what the text was
    made of.
    """
    level = event.get("log_level")
    system = event.get("log_namespace")
    if system in (None, "log_legacy"):
        system = event.get("log_system")
    time = datetime.fromtimestamp(event["log_time"], UTC)
    told: dict[str, Any] = {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "info" if level is None else level.name,
        "system": system or "-",
        "text": _textOf(event),
    }
    failure = event.get("log_failure")
    if failure is not None:
        told["traceback"] = failure.getTraceback()
    fields = {
        key: value
        for key, value in event.items()
        if not key.startswith("log_") and type(value) in (str, int, float, bool)
    }
    # What the bridge to the old logger adds says nothing new.
    for key in ("format", "message", "time", "system", "isError", "logLevel", "why"):
        fields.pop(key, None)
    if fields:
        told["fields"] = fields
    return json.dumps(told) + "\n"


def _textOf(event: LogEvent) -> str:
    text = formatEvent(event)
    failure = event.get("log_failure")
    if not text and failure is not None:
        return inWords(failure.value)
    return text
