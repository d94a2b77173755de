"""
Calls in processes: our ProcessQueue beside its peers, a table for each kind of
work. Everybody has two processes.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.process_figures import (
    ARRAY_BYTES,
    BACKLOG,
    BURST,
    CPU_SECONDS,
    CPU_TASKS,
    GENERATED,
    IDLE_SECONDS,
    LONG_SECONDS,
    MANY,
    MANY_OUTSTANDING,
    MAP_CHUNK,
    MAPPED,
    MEGA,
    ONE_BY_ONE,
    OUTSTANDING,
    REPLACED_AFTER,
    REPLACED_SECONDS,
    REPLACED_TASKS,
    SHORT_SECONDS,
    SHORT_TASKS,
    URGENT_EVERY,
)
from benchmarks.process_picture import Ratios, picture
from benchmarks.rounds import ROOT, Figures, runRounds, table

OURS = "asynqueue ProcessQueue"
POOL = "multiprocessing.Pool (fork)"
EXECUTOR = "ProcessPoolExecutor (fork)"
LOKY = "loky"
BILLIARD = "billiard.Pool (fork)"
AMPOULE = "ampoule ProcessPool"
OLD = "AsynQueue 0.9.9 ProcessQueue (fork)"

Names = dict[str, str]

# What ours is of each peer's figure, by the kind of work: for the picture.
_ratios: Ratios = {}


def note(work: str, figures: dict[str, Figures], names: Names, key: str) -> None:
    """
    Keep the ratios of a table for the picture.
    """
    ours = figures[names[OURS]][key]
    _ratios[work] = {
        name: ours / figures[contender][key] for name, contender in names.items() if name != OURS
    }


def compared(
    title: str, names: Names, key: str, form: str, rounds: int, work: str | None = None
) -> str:
    """
    A table of one figure, and what ours is of it.

    @param work: what the picture calls it, if it is in there.
    """
    figures = runRounds(list(names.values()), rounds)
    ours = figures[names[OURS]][key]
    if work is not None:
        note(work, figures, names, key)
    rows = [
        [name, format(its[key], form), f"{ours / its[key]:.2f}"]
        for name, its in ((name, figures[contender]) for name, contender in names.items())
    ]
    return table(title, ["what", key, "ours / its"], rows)


def percentileRows(
    figures: dict[str, Figures], names: Names, unit: str, form: str, base: str
) -> list[list[str]]:
    """
    Medians and 99th percentiles, and what they are of those of one contender.
    """
    keys = [f"p50 {unit}", f"p99 {unit}"]
    least = figures[names[base]]
    return [
        [
            name,
            *(format(figures[contender][key], form) for key in keys),
            *(f"{figures[contender][key] / least[key]:.2f}" for key in keys),
        ]
        for name, contender in names.items()
    ]


def burst(rounds: int) -> str:
    """
    As many calls as there are, at once.
    """
    names = {
        OURS: "process_reactor:oursBurst",
        POOL: "process_peers:poolBurst",
        EXECUTOR: "process_peers:executorBurst",
        LOKY: "process_peers:lokyBurst",
        BILLIARD: "process_peers:billiardBurst",
        AMPOULE: "process_reactor:ampouleBurst",
        OLD: "old:old_processes.py",
    }
    figures = runRounds(list(names.values()), rounds)
    ours = figures[names[OURS]]["calls/s"]
    note("all at once", figures, names, "calls/s")
    rows = [
        [name, f"{its['calls']:,.0f}", f"{its['calls/s']:,.0f}", f"{ours / its['calls/s']:.2f}"]
        for name, its in ((name, figures[contender]) for name, contender in names.items())
    ]
    title = "No-op calls in two processes, all at once"
    return table(title, ["what", "calls", "calls/s", "ours / its"], rows)


def outstanding(rounds: int) -> str:
    """
    A new call when one ends.
    """
    names = {
        OURS: "process_reactor:outstanding",
        POOL: "process_peers:poolOutstanding",
        EXECUTOR: "process_peers:executorOutstanding",
    }
    title = f"{BURST:,} no-op calls, {OUTSTANDING} of them outstanding"
    return compared(title, names, "calls/s", ",.0f", rounds, f"{OUTSTANDING} outstanding")


def latency(rounds: int) -> str:
    """
    One call at a time, wherever the kernel lets the processes run; and again with
    all of them on one CPU.

    Where two CPUs have to wake each other, that may be most of a call, and whether
    they do is the kernel's choice, another one in each round. On one CPU there is
    only the work itself.
    """
    names = {
        "the floor": "floor:echoLatency",
        OURS: "process_reactor:oursLatency",
        POOL: "process_peers:poolLatency",
        EXECUTOR: "process_peers:executorLatency",
        LOKY: "process_peers:lokyLatency",
        BILLIARD: "process_peers:billiardLatency",
        AMPOULE: "process_reactor:ampouleLatency",
    }
    free = {**names, OLD: "old:old_processes.py"}
    title = f"{ONE_BY_ONE:,} no-op calls, one at a time"
    return "\n".join(
        [
            latencyTable(title, free, rounds),
            latencyTable(
                f"{title}, all processes on one CPU",
                {name: f"{contender}OnOneCpu" for name, contender in names.items()},
                rounds,
            ),
        ]
    )


def latencyTable(title: str, names: Names, rounds: int) -> str:
    """
    One of the tables of L{latency}.
    """
    figures = runRounds(list(names.values()), rounds)
    rows = percentileRows(figures, names, "us", ".0f", "the floor")
    return table(title, ["what", "p50 us", "p99 us", "p50 / floor", "p99 / floor"], rows)


def megabyte(rounds: int) -> str:
    """
    Bytes there and back.
    """
    names = {
        OURS: "process_reactor:oursMegabyte",
        POOL: "process_peers:poolMegabyte",
        EXECUTOR: "process_peers:executorMegabyte",
        LOKY: "process_peers:lokyMegabyte",
        BILLIARD: "process_peers:billiardMegabyte",
        AMPOULE: "process_reactor:ampouleMegabyte",
        OLD: "old:old_processes.py",
    }
    title = "1 MB of bytes there and back, one at a time; both ways count"
    return compared(title, names, "MB/s", ",.0f", rounds, "1 MB of bytes")


def numpy(rounds: int) -> str:
    """
    An array there and back.
    """
    names = {
        OURS: "process_reactor:numpy",
        POOL: "process_peers:poolNumpy",
        EXECUTOR: "process_peers:executorNumpy",
        "a copy in memory": "process_peers:memoryCopy",
    }
    size = ARRAY_BYTES // MEGA
    title = f"A numpy array of {size} MB there and back, one at a time; both ways count"
    return compared(title, names, "MB/s", ",.0f", rounds, f"array of {size} MB")


def cpu(rounds: int) -> str:
    """
    Tasks that keep the CPUs busy.
    """
    names = {
        OURS: "process_reactor:cpu",
        POOL: "process_peers:poolCpu",
        EXECUTOR: "process_peers:executorCpu",
        "two processes, no pool": "floor:burnAlone",
    }
    title = f"{CPU_TASKS:,} tasks of {CPU_SECONDS * 1e3:.0f} ms of CPU time, on two CPUs"
    return compared(title, names, "of ideal", ".3f", rounds)


def generator(rounds: int) -> str:
    """
    Items of a generator.
    """
    names = {OURS: "process_reactor:generator", f"{POOL}, imap": "process_peers:imapped"}
    title = f"{GENERATED:,} integers, out of a generator in a child or of imap in chunks of 1"
    return compared(title, names, "items/s", ",.0f", rounds, "generator")


def mapOfMany(rounds: int) -> str:
    """
    A map.
    """
    names = {OURS: "process_reactor:mapped", f"{POOL}, imap_unordered": "process_peers:mapped"}
    title = f"A map of {MAPPED:,} no-ops, in chunks of {MAP_CHUNK} where there are chunks"
    return compared(title, names, "items/s", ",.0f", rounds, "map")


def longFirst(rounds: int) -> str:
    """
    A long task does not hold up the short ones.
    """
    names = {
        OURS: "process_reactor:longFirst",
        POOL: "process_peers:poolLongFirst",
        EXECUTOR: "process_peers:executorLongFirst",
    }
    short = f"{SHORT_TASKS} of {SHORT_SECONDS * 1e3:.0f} ms"
    title = f"A task of {LONG_SECONDS} s, then {short}: until these are done"
    return compared(title, names, "seconds", ".3f", rounds)


def replaced(rounds: int) -> str:
    """
    Processes that are replaced after a few calls.
    """
    names = {
        OURS: "process_reactor:replaced",
        POOL: "process_peers:poolReplaced",
        BILLIARD: "process_peers:billiardReplaced",
    }
    tasks = f"{REPLACED_TASKS} tasks of {REPLACED_SECONDS * 1e3:.0f} ms"
    title = f"{tasks}, in processes that are replaced after {REPLACED_AFTER}"
    return compared(title, names, "seconds", ".3f", rounds)


def doNext(rounds: int) -> str:
    """
    Urgent tasks.
    """
    names = {
        f"{OURS}, doNext": "process_reactor:doNext",
        f"{POOL}, no priorities": "process_peers:behindBacklog",
    }
    figures = runRounds(list(names.values()), rounds)
    rows = percentileRows(figures, names, "ms", ".2f", f"{OURS}, doNext")
    every = f"every {URGENT_EVERY * 1e3:.0f} ms"
    title = f"From a call, {every}, to its begin, before {BACKLOG:,} waiting tasks of 1 ms"
    return table(title, ["what", "p50 ms", "p99 ms", "p50 / ours", "p99 / ours"], rows)


def first(rounds: int) -> str:
    """
    The first result.
    """
    names = {
        OURS: "process_reactor:oursFirst",
        AMPOULE: "process_reactor:ampouleFirst",
        POOL: "process_peers:poolFirst",
        "multiprocessing.Pool (spawn)": "process_peers:poolSpawnFirst",
        "ProcessPoolExecutor (spawn)": "process_peers:executorSpawnFirst",
        LOKY: "process_peers:lokyFirst",
        BILLIARD: "process_peers:billiardFirst",
    }
    return compared("From nothing to the first result", names, "ms", ",.1f", rounds)


def idleProcesses(rounds: int) -> str:
    """
    Nothing to do.
    """
    names = {
        OURS: "process_reactor:idle",
        POOL: "process_peers:poolIdle",
        EXECUTOR: "process_peers:executorIdle",
    }
    figures = runRounds(list(names.values()), rounds)
    rows = [
        [name, f"{figures[contender]['wake-ups']:.0f}", f"{figures[contender]['cpu ms']:.0f}"]
        for name, contender in names.items()
    ]
    title = f"Idle for {IDLE_SECONDS} s: parent and children together"
    return table(title, ["what", "wake-ups", "CPU ms"], rows)


def memory(rounds: int) -> str:
    """
    Nothing piles up.
    """
    contender = "process_reactor:memory"
    its = runRounds([contender], rounds)[contender]
    rows = []
    for who in ("parent", "children"):
        early, late = its[f"{who} at 10%"], its[f"{who} at 100%"]
        rows.append([who, f"{early:.1f}", f"{late:.1f}", f"{late / early:.2f}"])
    title = f"Resident MB in {MANY:,} no-op calls, {MANY_OUTSTANDING:,} of them outstanding"
    return table(title, ["what", "after 10%", "after 100%", "ratio"], rows)


ROWS = {
    "burst": burst,
    "outstanding": outstanding,
    "latency": latency,
    "megabyte": megabyte,
    "numpy": numpy,
    "cpu": cpu,
    "generator": generator,
    "map": mapOfMany,
    "longfirst": longFirst,
    "replaced": replaced,
    "donext": doNext,
    "first": first,
    "idleprocesses": idleProcesses,
    "memory": memory,
}


def processes(rounds: int, only: Iterable[str] = ()) -> str:
    """
    Calls through processes, all kinds of work or some.
    """
    text = "\n".join(ROWS[name](rounds) for name in tuple(only) or ROWS)
    if not only:
        picture(ROOT / "docs" / "pictures" / "processes.png", _ratios)
    return text
