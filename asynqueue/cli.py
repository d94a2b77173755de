"""
The C{asynqueue} command: its options, and what they mean.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from asynqueue.command.conduct import Conductor, Setting
from asynqueue.command.inputs import Inputs, sourcesOf
from asynqueue.command.job import Job, NoSuchFunction, failed, findFunction
from asynqueue.command.run import Manner, OnError, Status
from asynqueue.scheduling.options import makeOptions

_NAME = "asynqueue"

_EPILOG = """\\b
Examples:
  asynqueue map builtins:len one three seventeen
  ls *.py | asynqueue map ast_tools:measure >measures.jsonl
  asynqueue map -n 4 --lines texts:words book1.txt book2.txt
  asynqueue map --json --errors report shop:price <orders.jsonl
  asynqueue map --workers thread -n 50 --timeout 10 web:fetch <urls

\\b
Exit status:
  0    all went well, also if the reader of standard output went away
  1    a call failed
  2    wrong usage; the function or an input cannot be found, read or parsed
  130  ended by Ctrl-C
  143  ended by SIGTERM
"""


class _Refused(Exception):
    """
    The command cannot do what it was asked to do: the message says why.
    """


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asynqueue", prog_name=_NAME)
def asynqueue() -> None:
    """
    Hands work to workers, from a shell.
    """


@asynqueue.command(name="map", epilog=_EPILOG)
@click.argument("function", metavar="MODULE:FUNCTION")
@click.argument("inputs", metavar="[INPUT]...", nargs=-1)
@click.option("--lines", is_flag=True, help="Each INPUT is a file, and its lines are the inputs.")
@click.option("--json", "parse", is_flag=True, help="Inputs are JSON, not plain strings.")
@click.option("--unordered", is_flag=True, help="Write results as they are done.")
@click.option(
    "--workers",
    type=click.Choice(["process", "thread"]),
    default="process",
    show_default=True,
    help="What makes the calls.",
)
@click.option(
    "-n",
    "most",
    type=click.IntRange(1),
    help="How many calls run at once; by default, one for each usable core.",
)
@click.option(
    "--niceness",
    type=click.IntRange(-20, 20),
    default=0,
    help="Added to that of the command, as by nice(1): 10 leaves the machine to others.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    help="The seconds that a call may take.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=0,
    help="How often a call is repeated if its process died.",
)
@click.option(
    "--errors",
    type=click.Choice([policy.value for policy in OnError]),
    default=OnError.FAIL.value,
    show_default=True,
    help="A call that failed ends everything, is left out, or has its error in its line.",
)
@click.option("--progress/--no-progress", default=None, help="Show progress on standard error.")
@click.option("--traceback", "tracebacks", is_flag=True, help="Show where things were raised.")
@click.option("-v", "--verbose", is_flag=True, help="Tell of each failure, and of the speed.")
@click.pass_context
def map_(context: click.Context, /, tracebacks: bool, **options: Any) -> None:
    """
    Call a Python function once for each INPUT, many at a time, and write what it
    returns as a line of JSON.

    The function takes one argument: the input, as a string. Modules are looked for
    in the working directory, too. Without INPUT, or where it is "-", the inputs are
    the lines of standard input, as they come. Results keep the order of the inputs.

    What the function prints goes to standard error.
    """
    try:
        status = _map(tracebacks=tracebacks, **options)
    except _Refused as error:
        click.echo(f"{_NAME}: {error}", err=True)
        if tracebacks and error.__cause__ is not None:
            click.echo("".join(traceback.format_exception(error.__cause__)), err=True, nl=False)
        status = Status.WRONG
    context.exit(status.value)


def _map(
    *,
    function: str,
    inputs: Sequence[str],
    lines: bool,
    parse: bool,
    unordered: bool,
    workers: str,
    most: int | None,
    niceness: int,
    timeout: float | None,
    retries: int,
    errors: str,
    progress: bool | None,
    tracebacks: bool,
    verbose: bool,
) -> Status:
    """
    Make a run of the options, and run it.

    @raise _Refused: that cannot be done.
    """
    if sys.stdout is None:
        raise _Refused("standard output is closed")
    _fillGaps()
    _beNice(niceness)
    _find(function)
    processes = workers == "process"
    # A process ends its call by itself when the time is up; a thread cannot.
    limit = timeout if processes else None
    options = makeOptions(
        niceness=niceness,
        series=None,
        doNext=False,
        doLast=False,
        timeout=None if processes else timeout,
        retries=retries,
        consumer=None,
        raw=True,
        returnFailure=None,
    )
    manner = Manner(
        job=Job(function, parse, limit),
        options=options,
        most=most or _usableCores(),
        ordered=not unordered,
        onError=OnError(errors),
        tracebacks=tracebacks,
        verbose=verbose,
    )
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    setting = Setting(processes, progress)
    return Conductor(manner, Inputs(sourcesOf(inputs, lines)), setting).conduct()


def _fillGaps() -> None:
    """
    If standard input or error is closed, let nothing else be opened there: it
    would be handed to other processes, and be read and written.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _usableCores() -> int:
    """
    How many cores this process may use; not all systems tell.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _beNice(niceness: int) -> None:
    """
    Threads and processes that are started from now on are as nice as this one.
    """
    try:
        os.nice(niceness)
    except OSError as error:
        raise _Refused(f"cannot add {niceness} to the niceness: {error.strerror}") from error


def _find(function: str) -> None:
    """
    Make sure that there is such a function. Whatever its module prints, as it is
    imported and later, is kept out of the results.
    """
    sys.path.insert(0, os.getcwd())
    sys.stdout = sys.stderr
    try:
        findFunction(function)
    except NoSuchFunction as error:
        raise _Refused(str(error)) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # The seam to a user's module: it may raise anything, and even exit.
        module = function.partition(":")[0]
        raise _Refused(f"cannot import {module}: {failed(error).oneLine()}") from error


def main() -> None:
    """
    What the C{asynqueue} command runs.
    """
    try:
        sys.exit(asynqueue.main(prog_name=_NAME, standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(Status.WRONG.value)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{_NAME}: interrupted", err=True)
        sys.exit(Status.INTERRUPTED.value)
