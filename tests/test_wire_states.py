"""
L{asynqueue.wire.protocol.commands}: which states there are, and whether people are told so.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from asynqueue.wire.protocol import commands
from asynqueue.wire.protocol.commands import TRANSITIONS, Ours, SessionState

PAGE = Path(__file__).parent.parent / "docs" / "protocol.rst"

# Those in which the other side may say something.
HEARING = [
    state for state in SessionState if any(isinstance(said, bytes) for said in TRANSITIONS[state])
]


def named(said: bytes | Ours) -> str:
    """
    What is said, as the diagram has it.
    """
    return said.value if isinstance(said, Ours) else said.decode()


def moves(state: SessionState) -> list[tuple[bytes | Ours, SessionState]]:
    """
    The ways from a state to others that are not the end.
    """
    ways = TRANSITIONS[state].items()
    return [(said, after) for said, after in ways if after not in (state, SessionState.CLOSED)]


def drawing() -> list[str]:
    """
    The diagram: a line for each way from the beginning, and from where ways part, to the next
    place where they do.
    """
    lines = []
    for state in SessionState:
        ways = deque(moves(state))
        isBeginning = state is SessionState.NEW or len(ways) > 1
        while isBeginning and ways:
            said, after = ways.popleft()
            line = f"{state.name} ── {named(said)} ─▶ {after.name}"
            while len(moves(after)) == 1:
                ((said, after),) = moves(after)
                line += f" ── {named(said)} ─▶ {after.name}"
            lines.append(line)
    ends: dict[str, list[SessionState]] = {}
    for state in SessionState:
        last = [
            named(said)
            for said, after in TRANSITIONS[state].items()
            if after is SessionState.CLOSED
        ]
        if last:
            ends.setdefault(", ".join(last), []).append(state)
    for said, some in ends.items():
        names = [some[0].name, some[-1].name]
        lines.append(f"{' to '.join(dict.fromkeys(names))} ── {said} ─▶ CLOSED")
    return lines


def grid() -> list[str]:
    """
    The table: what may be heard, and in which states.
    """
    heard = dict.fromkeys(
        said for state in HEARING for said in TRANSITIONS[state] if isinstance(said, bytes)
    )
    rows = [["Command", *(state.name for state in HEARING)]]
    for said in heard:
        allowed = ("yes" if said in TRANSITIONS[state] else "" for state in HEARING)
        rows.append([named(said), *allowed])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["=" * width for width in widths]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (rule, rows[0], rule, *rows[1:], rule)
    ]


def test_thePageHasTheTable() -> None:
    """
    The page of the protocol draws the states, and tells what may be heard in each, as the
    table has it.
    """
    page = PAGE.read_text()
    assert "\n".join("    " + line for line in drawing()) in page
    assert "\n".join(grid()) in page


def test_theModuleHasTheDrawing() -> None:
    """
    The module draws how a session opens and ends, as the table has it.
    """
    assert commands.__doc__ is not None
    assert "\n".join("    " + line for line in drawing()) in commands.__doc__


def test_everyStateCanBeReached() -> None:
    """
    There is a way from the beginning to each state, and from each to the end.
    """
    reached = {SessionState.NEW}
    for _ in SessionState:
        reached |= {after for state in reached for after in TRANSITIONS[state].values()}
    assert reached == set(SessionState)
    for state in SessionState:
        assert (
            state is SessionState.CLOSED or TRANSITIONS[state][Ours.REFUSE] is SessionState.CLOSED
        )
    assert not TRANSITIONS[SessionState.CLOSED]


if __name__ == "__main__":
    print("\n".join([*drawing(), "", *grid()]))
