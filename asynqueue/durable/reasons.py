"""
What a job waits for, in words.
"""

from __future__ import annotations

from collections.abc import Sequence

from asynqueue.stores.records import JobRecord, JobState, NodeRecord


def reasonOf(
    record: JobRecord, paused: Sequence[str], nodes: Sequence[NodeRecord], slots: int
) -> str:
    """
    Return why a job is where it is: for people, not for programs.

    @param paused: the series that are paused.
    @param nodes: the programs on the store.
    @param slots: how many jobs of its series this program can run at once.
    """
    series = record.job.flow.series
    of = f"the series {series!r}" if series else "jobs without a series"
    match record.state:
        case JobState.LATER:
            before = f", after {record.failure!r}" if record.failure else ""
            return f"it waits until it is due{before}"
        case JobState.WAITING if series in paused:
            return f"{of} is paused: resume() it" if series else f"{of} are paused: resume() them"
        case JobState.WAITING if not slots:
            return f"it waits for a worker for {of}: this program has none"
        case JobState.WAITING:
            return "it waits for its turn"
        case JobState.CLAIMED | JobState.RUNNING:
            does = "is being cancelled" if record.stopping else "runs"
            return f"it {does}, attempt {record.attempt}, in {_nameOf(record.node, nodes)}"
    outcome = record.outcome
    said = f": {outcome.summary}" if outcome is not None and outcome.summary else ""
    return f"it has ended, {record.state.value}{said}"


def _nameOf(id: str | None, nodes: Sequence[NodeRecord]) -> str:
    for node in nodes:
        if node.id == id:
            return f"{node.name} (process {node.pid} on {node.host})"
    return "a program that is not heard of"
