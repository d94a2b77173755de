"""
Calls on other hosts: our WireWorker beside its peers, a table for each kind of work.
The hosts are two processes of this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.rounds import runRounds, table
from benchmarks.wire_figures import CONNECTIONS, DELAY_SECONDS, GENERATED, IDLE_SECONDS, ONE_BY_ONE

OURS = "asynqueue WireWorker"


def burst(rounds: int) -> str:
    """
    As many calls as there are, at once.
    """
    names = {
        f"{OURS}, UNIX sockets": "wire_ours:unixBurst",
        f"{OURS}, TCP with TLS and a key": "wire_ours:tlsBurst",
        "ampoule ProcessPool (pipes)": "process_reactor:ampouleBurst",
        "AsynQueue 0.9.9 WireWorker, UNIX sockets": "old:old_wire.py",
        "Dask LocalCluster, its executor": "executors:bareDask",
    }
    figures = runRounds(list(names.values()), rounds)
    ours = figures["wire_ours:unixBurst"]["calls/s"]
    rows = [
        [
            name,
            f"{figures[contender]['calls']:,.0f}",
            f"{figures[contender]['calls/s']:,.0f}",
            f"{ours / figures[contender]['calls/s']:.2f}",
        ]
        for name, contender in names.items()
    ]
    title = "No-op calls on two hosts, all at once"
    return table(title, ["what", "calls", "calls/s", "first / its"], rows)


def latency(rounds: int) -> str:
    """
    One call at a time.
    """
    names = {
        OURS: "wire_ours:latency",
        "an AMP command": "wire_floor:roundTrip",
        "asynqueue ProcessWorker": "process_reactor:oursLatency",
    }
    figures = runRounds(list(names.values()), rounds)
    both = sum(figures[names[name]]["p50 us"] for name in list(names)[1:])
    rows = [
        [
            name,
            f"{figures[contender]['p50 us']:.0f}",
            f"{figures[contender]['p99 us']:.0f}",
            f"{figures[contender]['p50 us'] / both:.2f}",
        ]
        for name, contender in names.items()
    ]
    title = f"{ONE_BY_ONE:,} no-op calls over a UNIX socket, one at a time"
    return table(title, ["what", "p50 us", "p99 us", "p50 / sum of the others"], rows)


def _large(title: str, ours: str, floor: str, rounds: int) -> str:
    figures = runRounds([ours, floor], rounds)
    rows = [
        [
            name,
            f"{figures[contender]['MB/s']:,.1f}",
            f"{figures[ours]['MB/s'] / figures[contender]['MB/s']:.2f}",
        ]
        for name, contender in ((OURS, ours), ("AMP, chunks that wait for their answers", floor))
    ]
    return table(title, ["what", "MB/s", "ours / its"], rows)


def large(rounds: int) -> str:
    """
    Something large, near by.
    """
    title = "64 MB of bytes there and back over loopback; both ways count"
    return _large(title, "wire_ours:largeNear", "wire_floor:large", rounds)


def faraway(rounds: int) -> str:
    """
    Something large, far away.
    """
    title = f"The same over a line of {2e3 * DELAY_SECONDS:.0f} ms there and back"
    return _large(title, "wire_ours:largeFarAway", "wire_floor:largeFarAway", rounds)


def beside(rounds: int) -> str:
    """
    Small calls beside something large.
    """
    names = {
        "a numpy array of 64 MB": "wire_ours:besideArray",
        "64 MB of bytes": "wire_ours:besideBytes",
    }
    figures = runRounds(list(names.values()), rounds)
    rows = []
    keys = ("p50 us", "p99 us")
    for name, contender in names.items():
        its = figures[contender]
        alone = [its[f"{key} alone"] for key in keys]
        beside = [its[f"{key} beside"] for key in keys]
        if not rows:
            rows.append(["alone", *(f"{value:.0f}" for value in alone), "1.00", "1.00"])
        ratios = [f"{value / least:.2f}" for value, least in zip(beside, alone, strict=True)]
        rows.append([f"beside {name}", *(f"{value:.0f}" for value in beside), *ratios])
    title = f"{ONE_BY_ONE:,} no-op calls over loopback, one at a time"
    columns = ["what", "p50 us", "p99 us", "p50 / alone", "p99 / alone"]
    return table(title, columns, rows)


def items(rounds: int) -> str:
    """
    An iterator far away.
    """
    figures = runRounds(["wire_ours:generator"], rounds)["wire_ours:generator"]
    title = f"{GENERATED:,} integers of a generator, {2e3 * DELAY_SECONDS:.0f} ms away"
    return table(title, ["what", "items/s"], [[OURS, f"{figures['items/s']:,.0f}"]])


def connections(rounds: int) -> str:
    """
    Very many connections.
    """
    figures = runRounds(["wire_ours:idle"], 1)["wire_ours:idle"]
    title = f"{CONNECTIONS} connected workers that do nothing, for {IDLE_SECONDS} s; both sides"
    row = ["heartbeats", f"{figures['wake-ups']:.0f}", f"{figures['cpu ms']:.0f}"]
    columns = ["what", "wake-ups", "CPU ms", "% of a core"]
    return table(title, columns, [[*row, f"{figures['% of a core']:.2f}"]])


ROWS: dict[str, Callable[[int], str]] = {
    f.__name__: f for f in (burst, latency, large, faraway, beside, items, connections)
}


def wire(rounds: int, only: Iterable[str] = ()) -> str:
    """
    All tables, or some.
    """
    return "\n".join(ROWS[name](rounds) for name in only or ROWS)
