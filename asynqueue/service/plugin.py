"""
What C{twist asynqueue} and C{twistd -n asynqueue} are made of.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.logger import ILogObserver
from twisted.python.logfile import LogFile
from twisted.python.usage import Options as UsageOptions, UsageError

import asynqueue
from asynqueue.reactors import theReactor
from asynqueue.service.logs import jsonLines, levelOf, observerFor, setLevel
from asynqueue.service.readiness import Notifier
from asynqueue.service.running import HostService, ownSignals
from asynqueue.service.settings import OPTIONS, Option, Settings, SettingsError, settingsOf
from asynqueue.signals import EndSignals

# What C{twist} has among its options, and C{twistd} has not.
_TWIST = "fileLogObserverFactory"


class _HostOptions(UsageOptions):
    """
    The options as Twisted reads them.

    @ivar given: what the command line says.
    @ivar settings: the whole, when all was read.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves task queues elsewhere: makes the calls that they send, in threads or"
        " processes of this host. Each option may also stand in a file (--config), and"
        " some must: where to listen or what to connect to, and what may be called."
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given: dict[str, Any] = {}
        self.settings: Settings | None = None

    def opt_version(self) -> NoReturn:
        """
        Print the version and exit.
        """
        sys.stdout.write(f"AsynQueue {asynqueue.__version__}\n")
        sys.exit(0)

    def take(self, option: Option, text: str) -> None:
        """
        Note what the command line has.
        """
        try:
            value = option.read(text)
        except SettingsError as error:
            raise UsageError(str(error)) from error
        if option.takes.many:
            value = (*self.given.get(option.name, ()), *value)
        self.given[option.name] = value

    def postOptions(self) -> None:
        """
        Make the settings, and tell C{twist} how to log. To C{twistd} the service says it.
        """
        try:
            self.settings = settings = settingsOf(self.given)
        except SettingsError as error:
            raise UsageError(str(error)) from error
        if self.parent is not None and _TWIST in self.parent:
            if settings.logLevel is not None:
                self.parent["logLevel"] = levelOf(settings.logLevel)
            if settings.logJson:
                self.parent[_TWIST] = jsonLines
                self.parent["logFormat"] = "json"


def _reader(option: Option) -> Callable[..., None]:
    """
    Return the method by which C{usage} knows of an option. By the number of its arguments it sees
    whether the option takes a word.
    """

    def readFlag(self: _HostOptions) -> None:
        self.take(option, "")

    def readWord(self: _HostOptions, word: str) -> None:
        self.take(option, word)

    reader: Callable[..., None] = readWord if option.takes.metavar else readFlag
    reader.__doc__ = option.fullHelp()
    return reader


_READERS: dict[str, Any] = {
    f"opt_{option.name.replace('-', '_')}": _reader(option) for option in OPTIONS
}

Options: Any = type("Options", (_HostOptions,), _READERS)
"""The options of the plugin: made of the table of L{asynqueue.service.settings}."""


class _TwistdService(HostService):
    """
    The service of a process that C{twist} or C{twistd} runs.
    """

    def __init__(self, settings: Settings, observer: Any, **kw: Any) -> None:
        """
        @param observer: where C{twistd} is to log to; C{None} if it knows that better.
        """
        super().__init__(settings, **kw)
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """
        Add what logs to the application, as a component.
        """
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def makeService(options: Any, openLog: Callable[[str], Any] = LogFile.fromFullPath) -> Service:
    """
    Return the service that the command line describes. If it cannot serve, the process ends with
    status 1.

    @param openLog: opens the file of this name, which C{twistd} is to log to.
    """
    settings: Settings = options.settings
    if settings.logLevel is not None:
        setLevel(settings.logLevel)
    folder = os.getcwd()
    if folder not in sys.path:
        # The modules of the user, as for `asynqueue worker`.
        sys.path.insert(0, folder)
    observer = _observerFor(settings, options.parent, openLog)
    interrupts = ownSignals()
    return _TwistdService(
        settings,
        observer,
        failed=lambda failure: _giveUp(interrupts),
        notifier=Notifier(),
        interrupts=interrupts,
    )


def _observerFor(settings: Settings, parent: Any, openLog: Callable[[str], Any]) -> Any:
    """
    Return where C{twistd} logs to, if the settings say anything about it.
    """
    if settings.logLevel is None and not settings.logJson:
        return None
    name = parent.get("logfile") if parent is not None else None
    if not name and parent is not None and not parent.get("nodaemon", True):
        name = "twistd.log"
    file: Any = sys.stdout if name in (None, "", "-") else openLog(name)
    return observerFor(file, settings.logLevel, settings.logJson)


def _giveUp(interrupts: EndSignals) -> None:
    """
    End the process. Its parent must know by its status that something is wrong,
    which C{twistd} has no way to say.
    """

    def stop() -> None:
        atexit.register(_exitWithFailure)
        interrupts.stopReactor()

    reactor = theReactor()
    reactor.callWhenRunning(reactor.callLater, 0, stop)


def _exitWithFailure() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        # Its reader may be gone.
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[union-attr]
    os._exit(1)
