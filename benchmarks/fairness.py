"""
What flows of different niceness get, beside their weights.
"""

from __future__ import annotations

import random
from pathlib import Path

from asynqueue.scheduling.flows import Scheduler
from asynqueue.scheduling.options import CallOptions
from asynqueue.scheduling.task import QUEUED

FLOWS = 100
DISPATCHES = 200_000


class FakeTask:
    """
    What the scheduler needs of a task.
    """

    __slots__ = ("number", "options", "state")

    def __init__(self, number, series, niceness):
        self.number = number
        self.options = CallOptions(niceness=niceness, series=series)
        self.state = QUEUED


def shares(seed: int = 1):
    """
    Serve backlogged flows of random niceness.

    @return: for each flow its niceness, its weight and its share, the last two
        as parts of one.
    """
    chance = random.Random(seed)
    nicenesses = [chance.randint(-20, 20) for _ in range(FLOWS)]
    scheduler = Scheduler()
    lane = scheduler.enter(range(FLOWS))
    served = [0] * FLOWS
    number = 0
    # Every flow has tasks at any time: each that is served gets another one.
    for series, niceness in enumerate(nicenesses):
        for _ in range(2):
            scheduler.push(FakeTask(number, series, niceness))
            number += 1
    for _ in range(DISPATCHES):
        series = scheduler.pick(lane).options.series
        served[series] += 1
        scheduler.push(FakeTask(number, series, nicenesses[series]))
        number += 1
    weights = [2 ** (-niceness / 10) for niceness in nicenesses]
    total = sum(weights)
    return [
        (niceness, weight / total, count / DISPATCHES)
        for niceness, weight, count in zip(nicenesses, weights, served, strict=True)
    ]


def fairness():
    """
    How far the share of any flow is from its weight, relative to it.
    """
    errors = [abs(share / weight - 1) for _, weight, share in shares()]
    return {"worst %": max(errors) * 100, "mean %": sum(errors) / len(errors) * 100}


def picture(path: Path) -> None:
    """
    Draw shares over niceness, and the weights as a line.
    """
    from matplotlib.figure import Figure

    flows = shares()
    total = sum(2 ** (-niceness / 10) for niceness, _, _ in flows)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    line = range(-20, 21)
    axes.plot(
        line,
        [2 ** (-niceness / 10) / total * 100 for niceness in line],
        color="#d1495b",
        linewidth=1.5,
        label="weight: 2 ** (-niceness / 10)",
        zorder=1,
    )
    axes.scatter(
        [niceness for niceness, _, _ in flows],
        [share * 100 for _, _, share in flows],
        s=28,
        color="#00798c",
        alpha=0.7,
        label="share of 200,000 dispatches",
        zorder=2,
    )
    axes.set_xlabel("niceness of the flow")
    axes.set_ylabel("share of the workers, %")
    axes.set_title("100 backlogged flows of random niceness")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
