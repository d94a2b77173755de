"""
Runs the benchmarks and prints their tables: C{python -m benchmarks [NAME ...]}.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.against import against
from benchmarks.executors import executors
from benchmarks.observing import OBSERVERS
from benchmarks.pages import pages
from benchmarks.processes import ROWS, processes
from benchmarks.rounds import ROOT, runOnce, runRounds, table
from benchmarks.wire import ROWS as WIRE_ROWS, wire


def ratio(value: float, other: float) -> str:
    """
    A ratio in words.
    """
    return f"{value / other:.2f}"


def threads(rounds: int) -> str:
    """
    Calls through threads: ours, Twisted's, the old AsynQueue's.
    """
    names = {
        "asynqueue ThreadQueue": "throughput:threadQueue",
        "twisted deferToThread": "throughput:twistedThreads",
        "AsynQueue 0.9.9 ThreadQueue": "old:old_threads.py",
    }
    figures = runRounds(list(names.values()), rounds)
    ours = figures["throughput:threadQueue"]
    rows = []
    for name, contender in names.items():
        its = figures[contender]
        rows.append(
            [
                name,
                f"{its['calls/s']:,.0f}",
                ratio(ours["calls/s"], its["calls/s"]),
                f"{its['p50 us']:.0f}",
                f"{its['p99 us']:.0f}",
                ratio(ours["p50 us"], its["p50 us"]),
            ]
        )
    columns = ["what", "calls/s", "ours / its", "p50 us", "p99 us", "our p50 / its"]
    return table("No-op calls in a thread: 100,000 at once, then one at a time", columns, rows)


def queue(rounds: int) -> str:
    """
    The queue alone.
    """
    names = {
        "a worker that ends tasks at once": "throughput:queueAlone",
        "NullQueue (functions run in the reactor)": "throughput:nullQueue",
    }
    figures = runRounds(list(names.values()), rounds)
    rows = [
        [name, f"{figures[contender]['calls/s']:,.0f}", f"{figures[contender]['p50 us']:.1f}"]
        for name, contender in names.items()
    ]
    return table("The queue alone, 100,000 calls at once", ["what", "tasks/s", "p50 us"], rows)


def backlog(rounds: int) -> str:
    """
    A million queued tasks.
    """
    figures = runRounds(["backlog:queued", "backlog:threadPoolExecutor"], rounds)
    ours, its = figures["backlog:queued"], figures["backlog:threadPoolExecutor"]
    rows = [
        [
            "asynqueue, 10,000 series",
            f"{ours['bytes/task']:,.0f}",
            f"{ours['call us']:.2f}",
            ratio(ours["call us"], its["call us"]),
        ],
        ["ThreadPoolExecutor", f"{its['bytes/task']:,.0f}", f"{its['call us']:.2f}", "1.00"],
    ]
    text = table(
        "1,000,000 tasks queued", ["what", "bytes/task", "us a call", "ratio of calls"], rows
    )
    few, many = ours["dispatch of 1,000 us"], ours["dispatch us"]
    rows = [
        ["1,000 tasks, a series each", f"{few:.2f}", "1.00"],
        ["1,000,000 tasks, 10,000 series", f"{many:.2f}", ratio(many, few)],
    ]
    return text + "\n" + table("A dispatch from a backlog", ["what", "us", "ratio"], rows)


def fairness(rounds: int) -> str:
    """
    The shares of flows, which are the same in every round.
    """
    from benchmarks.fairness import picture

    figures = runOnce("fairness:fairness")
    picture(ROOT / "docs" / "pictures" / "fairness.png")
    rows = [["worst flow", f"{figures['worst %']:.3f}"], ["mean", f"{figures['mean %']:.3f}"]]
    title = "100 flows of random niceness, 200,000 dispatches"
    return table(title, ["what", "share off its weight, %"], rows)


def idle(rounds: int) -> str:
    """
    An idle queue.
    """
    figures = runOnce("idle:idleQueue")
    rows = [["ten seconds", f"{figures['wake-ups']:.0f}", f"{figures['cpu ms']:.1f}"]]
    return table("An idle queue with three threads", ["what", "wake-ups", "CPU ms"], rows)


def observers(rounds: int) -> str:
    """
    Queues that are observed, beside those that are not.
    """
    names = {
        "a worker that ends tasks at once": "observing:alone",
        "a thread": "observing:threads",
        "two processes": "observing:processes",
    }
    figures = runRounds(list(names.values()), rounds)
    rows = []
    for name, contender in names.items():
        its = figures[contender]
        rows.append(
            [name, f"{its['nobody us']:.1f}", *(f"{its[f'{o} ratio']:.2f}" for o in OBSERVERS)]
        )
    columns = ["worker", "us", *OBSERVERS]
    return table("Processor time of a call, by who observes its queue", columns, rows)


BENCHMARKS = {
    f.__name__: f
    for f in (threads, queue, backlog, fairness, idle, observers, executors, pages, processes, wire)
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--rounds", default=5, show_default=True, help="Rounds; medians are printed.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*ROWS, *(f"wire:{row}" for row in WIRE_ROWS)]),
    help="Only such tables of processes or of the wire.",
)
@click.option(
    "--against",
    "revision",
    help="Compare with this revision of AsynQueue instead of with peers.",
)
@click.option(
    "--contender",
    "contenders",
    multiple=True,
    help="With --against: only contenders that start with this.",
)
@click.option("--output", type=Path, help="Append the tables to this file, too.")
def main(
    names: tuple[str, ...],
    rounds: int,
    only: tuple[str, ...],
    revision: str | None,
    contenders: tuple[str, ...],
    output: Path | None,
) -> None:
    """
    Measure AsynQueue beside its peers. Without NAMES, everything.
    """
    if revision is not None:
        show(against(revision, rounds, contenders), output)
        return
    overWire = [row.removeprefix("wire:") for row in only if row.startswith("wire:")]
    ofProcesses = [row for row in only if not row.startswith("wire:")]
    if only:
        names = names or (*["processes"] * bool(ofProcesses), *["wire"] * bool(overWire))
    for name in names or BENCHMARKS:
        if name == "processes":
            text = processes(rounds, ofProcesses)
        elif name == "wire":
            text = wire(rounds, overWire)
        else:
            text = BENCHMARKS[name](rounds)
        show(text, output)


def show(text: str, output: Path | None) -> None:
    """
    Print a table, and append it to a file if there is one.
    """
    print(text, flush=True)
    if output is not None:
        with output.open("a") as file:
            file.write(text + "\n")


main()
