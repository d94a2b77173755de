"""
C{python -m asynqueue.wire DESCRIPTION MODULE.UNIVERSE} is a host.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from contextlib import suppress
from threading import Thread
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from asynqueue.descriptors import holdStandard
from asynqueue.reactors import theReactor
from asynqueue.wire.endpoints import dialedAs
from asynqueue.wire.server import WireServer

_NAME = "asynqueue.wire"

_STDOUT = 1
_LEVELS = [level.name for level in LogLevel.iterconstants()]

# After the second signal it has so many seconds, whatever it does.
_LAST_SECONDS = 2.0

_NO_SERVER = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("description")
@click.argument("universe", metavar="[MODULE.UNIVERSE]", required=False)
@click.option("--dial", is_flag=True, help="Dial a hub at DESCRIPTION, instead of listening.")
@click.option("--key-file", help="The file with the key that both sides must have.")
@click.option(
    "--codec",
    type=click.Choice(["pickle", "cbor"]),
    default="pickle",
    show_default=True,
    help="How arguments and results are written.",
)
@click.option(
    "--trust",
    type=click.Choice(["universe", "modules", "code"]),
    default="universe",
    show_default=True,
    help="What may be called: methods of the universe, also functions of modules, any code.",
)
@click.option("--allow", metavar="MODULE", multiple=True, help="A module that is trusted.")
@click.option("--series", multiple=True, help="What this host is qualified for.")
@click.option(
    "--processes", type=click.IntRange(0), default=0, help="How many processes make the calls."
)
@click.option("--threads", type=click.IntRange(1), help="How many threads there are for calls.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="The seconds that calls have to end after SIGTERM.",
)
@click.option("--niceness", type=click.IntRange(-20, 20), default=0, help="As by nice(1).")
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS),
    default="warn",
    show_default=True,
    help="What is logged, on standard error.",
)
@click.option("--ready", type=int, hidden=True, help="Say there that it is ready.")
@click.option("--lifeline", type=int, hidden=True, help="End when this pipe ends.")
@click.pass_context
def host(context: click.Context, /, **options: Any) -> None:
    """
    Make the calls of queues that are elsewhere.

    DESCRIPTION says where to listen: tcp:4000:interface=127.0.0.1, unix:/run/crew.sock,
    or tls:4000:certificate=server.pem:privateKey=server.key:trustRoots=trust. A line on
    standard output says when it is ready, and what is to be dialed.

    SIGTERM lets the calls that run end; a second one does not.
    """
    context.exit(_Program(**options).run())


class _Program:
    """
    A server, from the command line to the exit.
    """

    def __init__(
        self,
        *,
        description: str,
        universe: str | None,
        dial: bool,
        key_file: str | None,
        niceness: int,
        log_level: str,
        ready: int | None,
        lifeline: int | None,
        **options: Any,
    ) -> None:
        """
        @param ready: the descriptor where it says that it is ready; C{None} is standard
            output.
        @param lifeline: the descriptor of a pipe that ends with the parent.
        @param options: as L{WireServer} has them.
        """
        if lifeline is not None:
            dieWith(lifeline)
        try:
            os.nice(niceness)
        except OSError as error:
            raise click.UsageError(f"cannot add {niceness} to the niceness: {error}") from error
        self._description = description
        self._dial = dial
        self._ready = ready
        self._signals = 0
        self._status = 0
        _beginLogging(log_level)
        try:
            self._server = WireServer(description, universe, dial=dial, keyFile=key_file, **options)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise click.UsageError(f"{universe or description}: {error}") from error

    def run(self) -> int:
        """
        Serve until somebody says that it is enough.

        @return: the exit status.
        """
        reactor = theReactor()
        reactor.callWhenRunning(self._begin)
        reactor.run()
        return self._status

    def _begin(self) -> None:
        # Those of the reactor would stop it before the calls have ended.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        started: Deferred[None] = self._server.start()
        started.addCallbacks(self._serves, self._cannot)

    def _serves(self, result: None) -> None:
        where = self._description
        if not self._dial:
            where = dialedAs(self._description, self._server.address)
        line = f"ready {where}\n".encode()
        # The one that wanted to know it may not be there any more.
        with suppress(OSError):
            os.write(_STDOUT if self._ready is None else self._ready, line)
        self._server.whenStopped().addBoth(lambda _: self._stopReactor())

    def _cannot(self, failure: Failure) -> None:
        if not self._signals:
            self._status = _NO_SERVER
            click.echo(f"{_NAME}: cannot serve: {failure.getErrorMessage()}", err=True)
        self._stopReactor()

    def _signalled(self, number: int, frame: Any) -> None:
        """
        Runs between any two steps of the program: the reactor does the rest.
        """
        self._signals += 1
        if self._signals > 1:
            # Also if the reactor has no time for it: the calls run in it.
            self._status = 128 + number
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, _LAST_SECONDS)
        theReactor().callFromThread(self._stop, None if self._signals == 1 else 0.0)

    def _stop(self, grace: float | None) -> None:
        self._server.stop(grace)

    def _stopReactor(self) -> None:
        # Two may have waited for the end.
        with suppress(ReactorNotRunning):
            theReactor().stop()


def dieWith(lifeline: int) -> None:
    """
    Have this process killed, and all that its calls have started, when a pipe ends, which
    only its parent holds: also in the middle of a call that never returns.
    """
    os.set_inheritable(lifeline, False)
    if not hasattr(fcntl, "F_SETSIG"):
        # The kernel cannot do it: a thread can, if the call lets it run.
        Thread(target=_killAtEnd, args=(lifeline,), daemon=True).start()
        return
    # The group, which a server that was spawned leads.
    pid = os.getpid()
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -pid if os.getpgrp() == pid else pid)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if not os.read(lifeline, 1):
            # The parent was faster.
            os._exit(1)
    except BlockingIOError:
        pass


def _killAtEnd(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _beginLogging(level: str) -> None:
    """
    Log on standard error what is as important as that.
    """
    isWanted = LogLevelFilterPredicate(LogLevel.lookupByName(level))
    observer = FilteringLogObserver(textFileLogObserver(sys.stderr), [isWanted])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def main() -> None:
    """
    Be a host.
    """
    holdStandard()
    host(prog_name=f"python -m {_NAME}")


if __name__ == "__main__":
    main()
