"""
What tasks in a child report beside their results: records of C{logging}, and
warnings. They go to the parent, to be treated there as its own.

This module imports no Twisted, and does not import C{logging}: a child whose
tasks do not use it starts faster without.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import Any

from asynqueue.codec import dumps
from asynqueue.processes.protocol import Kind

Report = Callable[[Kind, bytes], None]

# So much is told of a warning that cannot be sent as it is.
_TOLD = 1000


class Reporter:
    """
    Catches records and warnings, and has them sent.
    """

    def __init__(self, report: Report) -> None:
        """
        @param report: sends what was reported; may be called in any thread.
        """
        self._report = report
        # Those that loggers of the parent have, by name.
        self._levels: dict[str, int] = {}
        # The module, once it is there.
        self._logging: Any = None

    def start(self) -> None:
        """
        Begin.
        """
        warnings.showwarning = self._warned
        if "logging" in sys.modules:
            self._listen(sys.modules["logging"])
        else:
            sys.meta_path.insert(0, self)

    def follow(self, levels: dict[str, int]) -> None:
        """
        Loggers of the parent have other levels: those of this process, too, except
        where a task has set one, and nothing has changed in the parent.

        @param levels: those that are set, by the names of the loggers; the root has none.
        """
        before, self._levels = self._levels, levels
        if self._logging is not None:
            self._setLevels(before)

    def _setLevels(self, before: dict[str, int]) -> None:
        levels = self._levels
        for name in {**before, **levels}:
            if levels.get(name) != before.get(name):
                self._logging.getLogger(name).setLevel(levels.get(name, 0))

    def forked(self) -> None:
        """
        Forget who is reported to: a fork has nobody.
        """
        self._report = _sayHere

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """
        Listen to C{logging} as soon as it is there: imports ask this.
        """
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def executeAndListen(module: Any) -> None:
                execute(module)
                self._listen(module)

            loader.exec_module = executeAndListen
        return spec

    def _listen(self, logging: Any) -> None:
        reporter = self

        class Forwarder(logging.Handler):  # type: ignore[misc]
            def emit(self, record: Any) -> None:
                try:
                    reporter._report(Kind.LOGGED, _pickledRecord(record))
                except Exception:
                    # Somebody's arguments: logging has its own way with errors.
                    self.handleError(record)

        logging.getLogger().addHandler(Forwarder())
        self._logging = logging
        self._setLevels({})

    def _warned(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: Any = None,
        line: str | None = None,
    ) -> None:
        try:
            self._report(Kind.WARNED, dumps((message, category, filename, lineno)))
        except Exception:
            # Somebody's warning that cannot be pickled: its text has to do.
            text = str(message)[:_TOLD]
            self._report(Kind.WARNED, dumps((text, UserWarning, filename, lineno)))


def _pickledRecord(record: Any) -> bytes:
    """
    Return the attributes of a record that mean something elsewhere: its message is made here, and
    its exception is text.
    """
    attributes = dict(record.__dict__)
    if record.exc_info:
        formatter = sys.modules["logging"].Formatter()
        attributes["exc_text"] = record.exc_text or formatter.formatException(record.exc_info)
    attributes.update(msg=record.getMessage(), args=None, exc_info=None)
    try:
        return dumps(attributes)
    except Exception:
        # What somebody attached to it: all but that can travel.
        plain = (str, int, float, type(None))
        return dumps({k: v for k, v in attributes.items() if isinstance(v, plain)})


def _sayHere(kind: Kind, body: bytes) -> None:
    """
    Write a report to the standard error.
    """
    content = pickle.loads(body)
    text = content["msg"] if kind is Kind.LOGGED else content[0]
    sys.stderr.write(f"{text}\n")
