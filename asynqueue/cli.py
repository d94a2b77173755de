"""
The C{asynqueue} command: its options, and what they mean.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from asynqueue.command.crew import Here
from asynqueue.command.inputs import Inputs, sourcesOf
from asynqueue.command.job import LineJob, NoSuchFunction, failed, findFunction
from asynqueue.command.run import MapOptions, OnError
from asynqueue.command.runner import MapRunner
from asynqueue.command.statuses import Status
from asynqueue.cores import cores
from asynqueue.descriptors import holdStandard
from asynqueue.errors import AsynQueueError
from asynqueue.outcome import traceOf
from asynqueue.scheduling.options import CallOptions
from asynqueue.service.settings import OPTIONS, Option, SettingsError, settingsOf

_NAME = "asynqueue"

_EPILOG = """\b
Examples:
  asynqueue map builtins:len one three seventeen
  ls *.py | asynqueue map ast_tools:measure >measures.jsonl
  asynqueue map -n 4 --lines texts:words book1.txt book2.txt
  asynqueue map --json --errors report shop:price <orders.jsonl
  asynqueue map --workers thread -n 50 --timeout 10 web:fetch <urls
  asynqueue map --hosts tcp:one:4000,tcp:two:4000 --key-file shared.key texts:words *.txt

\b
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


def _optional(option: Option) -> Callable[[Any], Any]:
    """
    Return an option of a service, as click has it. What is given is read later.
    """
    name = f"--{option.name}"
    if not option.takes.metavar:
        return click.option(name, option.attribute, is_flag=True, help=option.fullHelp())
    return click.option(
        name,
        option.attribute,
        metavar=option.takes.metavar,
        multiple=option.takes.many,
        help=option.fullHelp(),
    )


def _allOptions(command: Any) -> Any:
    for option in reversed(OPTIONS):
        command = _optional(option)(command)
    return command


_NAMED = {option.name: option for option in OPTIONS}

_WORKER_EPILOG = """\b
Examples:
  asynqueue worker --listen unix:/run/user/1000/crew.sock --allow texts
  asynqueue worker --listen tcp:4000 --key-file shared.key --universe farm.Farm
  asynqueue worker --connect tcp:queue:4000 --key-file shared.key --trust code
  asynqueue worker --config crew.toml --log-json

\b
Exit status:
  0    a signal has ended it; calls that ran had their grace
  1    it could not serve: the log says why
  2    wrong usage, or a wrong file of settings
  143  a second signal has ended what still ran
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asynqueue", prog_name=_NAME)
def asynqueue() -> None:
    """
    Hands work to workers, from a shell.
    """


@asynqueue.command(
    name="map", epilog=_EPILOG, short_help="Call a function once for each input, many at a time."
)
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
@click.option(
    "--hosts",
    metavar="ENDPOINT,...",
    multiple=True,
    help="Make the calls on these hosts: each is an `asynqueue worker`, or the like.",
)
@_optional(_NAMED["key-file"])
@_optional(_NAMED["codec"])
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

    With --hosts the hosts decide what they run: the functions of modules that they
    --allow, which they must have; or with --trust code whatever is sent, modules of the
    working directory included. FUNCTION may then also be the name of a method of their
    --universe. -n is for each host.
    """
    try:
        status = _map(tracebacks=tracebacks, **options)
    except _Refused as error:
        click.echo(f"{_NAME}: {error}", err=True)
        if tracebacks and error.__cause__ is not None:
            click.echo(traceOf(error.__cause__), err=True, nl=False)
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
    hosts: Sequence[str],
    keyFile: str | None,
    codec: str | None,
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
    holdStandard()
    _beNice(niceness)
    processes = workers == "process" and not hosts
    if hosts:
        placement = _placementOf(function, hosts, keyFile, codec, parse, most)
    else:
        _find(function)
        # A process ends its call by itself when the time is up; a thread cannot.
        job = LineJob(function, parse, timeout if processes else None)
        placement = Here(job, most or cores(), processes)
    callOptions = CallOptions(
        niceness=niceness,
        timeout=None if processes else timeout,
        retries=retries,
        raw=True,
    )
    options = MapOptions(
        callOptions=callOptions,
        ordered=not unordered,
        onError=OnError(errors),
        tracebacks=tracebacks,
        verbose=verbose,
    )
    if progress is None:
        progress = sys.stderr is not None and sys.stderr.isatty()
    return MapRunner(options, Inputs(sourcesOf(inputs, lines)), placement, progress).run()


def _placementOf(
    function: str,
    hosts: Sequence[str],
    keyFile: str | None,
    codec: str | None,
    parse: bool,
    most: int | None,
) -> Any:
    """
    Return what has calls made on other hosts. Its modules take long to import, so only who wants
    them pays for that.
    """
    if ":" in function:
        _find(function)
    module = import_module("asynqueue.command.hosts")
    folder = Path.cwd()
    try:
        called = module.toCall(function, folder)
    except Exception as error:
        # The seam to somebody's function, and all that it refers to.
        raise _Refused(f"cannot send {function}: {failed(error).oneLine()}") from error
    descriptions = [word.strip() for given in hosts for word in given.split(",")]
    addresses = [_addressOf(each, keyFile, codec) for each in descriptions]
    return module.Hosts(addresses, called, parse, most)


def _addressOf(description: str, keyFile: str | None, codec: str | None, **more: Any) -> Any:
    """
    Return where a host is, and how to speak to it.

    @raise _Refused: the description or the codec is none.
    """
    if not description:
        raise _Refused("a host has no endpoint: it should be like tcp:one.example.org:4000")
    if keyFile is not None and not os.path.isfile(keyFile):
        raise _Refused(f"there is no key file {keyFile}; make one with `asynqueue keys DIRECTORY`")
    try:
        written = _NAMED["codec"].read(codec or _NAMED["codec"].default)
    except SettingsError as error:
        raise _Refused(str(error)) from error
    address = import_module("asynqueue.command.status").HostAddress
    return address(description, keyFile, written, **more)


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


@asynqueue.command(epilog=_WORKER_EPILOG, short_help="Serve task queues elsewhere.")
@_allOptions
@click.pass_context
def worker(context: click.Context, /, **given: Any) -> None:
    """
    Serve task queues elsewhere: make the calls that they send.

    Say where to --listen for queues or which to --connect to, and what may be called: the
    methods of a --universe, the functions of modules that you --allow, or, with --trust
    code, anything. Modules are looked for in the working directory, too.

    SIGTERM or Ctrl-C ends it: it takes no more calls, gives back those that it has not
    begun, and lets those that run end within --grace. The log goes to standard error.
    """
    try:
        settings = settingsOf(
            {
                option.name: option.read(given[option.attribute])
                for option in OPTIONS
                if given[option.attribute] not in (None, (), False)
            }
        )
    except SettingsError as error:
        raise click.UsageError(str(error), context) from error
    holdStandard()
    sys.path.insert(0, os.getcwd())
    context.exit(import_module("asynqueue.command.worker").work(settings).value)


@asynqueue.command(short_help="Make a key and certificates for queues and hosts.")
@click.argument("directory")
@click.option(
    "--host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A name or address by which hosts are dialed: their certificate is for these.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    default=825,
    show_default=True,
    help="How long the certificates hold.",
)
@click.option("--force", is_flag=True, help="Replace what is there.")
@click.pass_context
def keys(
    context: click.Context, /, directory: str, hosts: Sequence[str], days: float, force: bool
) -> None:
    """
    Make what queues and hosts prove themselves with: a key that they share, and
    certificates for TLS. Copy to each machine what it needs, by a safe way.
    """
    try:
        made = import_module("asynqueue.command.keys").make(directory, hosts, days, force)
    except (OSError, ValueError) as error:
        click.echo(f"{_NAME}: {error}", err=True)
        context.exit(Status.FAILED.value)
    click.echo(made, nl=False)


@asynqueue.command(short_help="Show the status of a host.")
@click.argument("endpoint")
@_optional(_NAMED["key-file"])
@_optional(_NAMED["codec"])
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10,
    show_default=True,
    help="The seconds that the host may take to answer.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0),
    default=1,
    show_default=True,
    help="The seconds over which the rate of now is measured; 0 for none.",
)
@click.option("--json", "asJSON", is_flag=True, help="Write one line of JSON.")
@click.pass_context
def status(
    context: click.Context,
    /,
    endpoint: str,
    keyFile: str | None,
    codec: str | None,
    timeout: float,
    interval: float,
    asJSON: bool,
) -> None:
    """
    Show the status of the host that listens at ENDPOINT: its workers, what they run, what
    waits, how fast it goes.

    Exit status is 0, or 1 if the host cannot be reached or does not answer.
    """
    asking = import_module("asynqueue.command.status")
    once = import_module("asynqueue.command.once")
    try:
        address = _addressOf(endpoint, keyFile, codec, patience=timeout)
        found = once.runOnce(lambda reactor: asking.ask(reactor, address, interval or None))
    except (AsynQueueError, OSError, ValueError, _Refused) as error:
        click.echo(f"{_NAME}: {error}", err=True)
        context.exit(Status.FAILED.value)
    click.echo(json.dumps(found) + "\n" if asJSON else asking.shown(found), nl=False)


def main() -> None:
    """
    Run the C{asynqueue} command.
    """
    try:
        sys.exit(asynqueue.main(prog_name=_NAME, standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(Status.WRONG.value)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{_NAME}: interrupted", err=True)
        sys.exit(Status.INTERRUPTED.value)
