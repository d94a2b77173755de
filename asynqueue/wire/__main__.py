"""
C{python -m asynqueue.wire DESCRIPTION MODULE.UNIVERSE}: the host of C{asynqueue worker}, as
programs start one. It says by a line when it is ready, and can end with its parent.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

import click

from asynqueue.command.worker import work
from asynqueue.descriptors import holdStandard
from asynqueue.lifelines import endWith
from asynqueue.service.readiness import Notifier
from asynqueue.service.running import ownSignals, serverOf
from asynqueue.service.settings import CODECS, LEVELS, TRUST, Settings
from asynqueue.wire.host.server import WireServer
from asynqueue.wire.transport.endpoints import dialedAs

_NAME = "asynqueue.wire"

_STDOUT = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("description")
@click.argument("universe", metavar="[MODULE.UNIVERSE]", required=False)
@click.option("--dial", is_flag=True, help="Dial a hub at DESCRIPTION, instead of listening.")
@click.option("--key-file", "keyFile", help="The file with the key that both sides must have.")
@click.option(
    "--codec",
    type=click.Choice(CODECS),
    default="pickle",
    show_default=True,
    help="How arguments and results are written.",
)
@click.option(
    "--trust",
    type=click.Choice(TRUST),
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
    "logLevel",
    type=click.Choice(LEVELS),
    default="warn",
    show_default=True,
    help="What is logged, on standard error.",
)
@click.option("--ready", type=int, hidden=True, help="Say there that it is ready.")
@click.option("--lifeline", type=int, hidden=True, help="End when this pipe ends.")
@click.pass_context
def host(
    context: click.Context,
    /,
    description: str,
    dial: bool,
    niceness: int,
    ready: int | None,
    lifeline: int | None,
    **options: Any,
) -> None:
    """
    Make the calls of queues that are elsewhere.

    DESCRIPTION says where to listen: tcp:4000:interface=127.0.0.1, unix:/run/crew.sock,
    or tls:4000:certificate=server.pem:privateKey=server.key:trustRoots=trust. A line on
    standard output says when it is ready, and what is to be dialed.

    SIGTERM lets the calls that run end; a second one does not.
    """
    if lifeline is not None and not endWith(lifeline):
        # A thread does it, if the call lets it run.
        Thread(target=_killAtEnd, args=(lifeline,), daemon=True).start()
    try:
        os.nice(niceness)
    except OSError as error:
        raise click.UsageError(f"cannot add {niceness} to the niceness: {error}") from error
    options["connect" if dial else "listen"] = description
    settings = Settings(**options)
    try:
        server = serverOf(settings)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise click.UsageError(f"{settings.universe or description}: {error}") from error
    interrupts = ownSignals()
    descriptor = _STDOUT if ready is None else ready
    line = ReadyLine(server, description, dial, descriptor, interrupts.stopReactor)
    context.exit(work(settings, lambda settings, reactor: server, line, interrupts).value)


class ReadyLine(Notifier):
    """
    Tells by a line that a server serves, and where. One that stops by itself ends the program.
    """

    def __init__(
        self,
        server: WireServer,
        description: str,
        dial: bool,
        descriptor: int,
        stop: Callable[[], None],
    ) -> None:
        super().__init__()
        self._server = server
        self._description = description
        self._dial = dial
        self._descriptor = descriptor
        self._stop = stop

    def ready(self, status: str) -> None:
        super().ready(status)
        where = self._description
        if not self._dial:
            where = dialedAs(where, self._server.address)
        # The one that wanted to know it may not be there any more.
        with suppress(OSError):
            os.write(self._descriptor, f"ready {where}\n".encode())
        self._server.whenStopped().addBoth(lambda _: self._stop())


def _killAtEnd(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """
    Be a host.
    """
    holdStandard()
    host(prog_name=f"python -m {_NAME}")


if __name__ == "__main__":
    main()
