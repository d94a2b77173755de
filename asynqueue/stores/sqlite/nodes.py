"""
The nodes of a store in SQLite. No Twisted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from asynqueue.stores.operations import Leave, Nodes, Register, Renew, Renewed, Rescue, Rescued
from asynqueue.stores.records import DIED, Attempt, NodeRecord
from asynqueue.stores.sqlite.rows import CLAIMED, RUNNING, Place, nodeRecord
from asynqueue.stores.sqlite.transaction import CANCELLED, Transaction

_REGISTER = """
INSERT INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, host = excluded.host, pid = excluded.pid,
    version = excluded.version, series = excluded.series, slots = excluded.slots,
    lease_until = excluded.lease_until"""

_HELD = f"WHERE p.state >= {CLAIMED} AND p.node = ? ORDER BY p.seq"


def register(transaction: Transaction, operation: Register) -> None:
    """
    Enter a node.
    """
    node, now = operation.node, transaction.now
    series = json.dumps(node.series)
    leaseUntil = now + operation.lease
    transaction.execute(
        _REGISTER,
        (
            node.id,
            node.name,
            node.host,
            node.pid,
            node.version,
            series,
            node.slots,
            now,
            leaseUntil,
        ),
    )


def renew(transaction: Transaction, operation: Renew) -> Renewed:
    """
    Begin the lease of a node anew.
    """
    updated = transaction.execute(
        "UPDATE node SET lease_until = ? WHERE id = ?",
        (transaction.now + operation.lease, operation.node),
    )
    if not updated.rowcount:
        return Renewed(False)
    held = transaction.places(_HELD, (operation.node,))
    return Renewed(True, tuple(Attempt(each.id, each.number) for each in held if each.stopping))


def rescue(transaction: Transaction, operation: Rescue) -> Rescued:
    """
    Take over what nodes have that are dead.
    """
    if operation.others is not None:
        dead = transaction.execute(
            "SELECT id FROM node WHERE id != ? ORDER BY started", (operation.others,)
        )
    else:
        dead = transaction.execute(
            "SELECT id FROM node WHERE lease_until < ? ORDER BY started",
            (transaction.now - operation.margin,),
        )
    return _bury(transaction, [id for (id,) in dead])


def leave(transaction: Transaction, operation: Leave) -> Rescued:
    """
    Forget a node that stops.
    """
    known = transaction.execute("SELECT id FROM node WHERE id = ?", (operation.node,))
    return _bury(transaction, [id for (id,) in known])


def nodes(transaction: Transaction, operation: Nodes) -> Sequence[NodeRecord]:
    """
    Tell which nodes there are.
    """
    return tuple(map(nodeRecord, transaction.execute("SELECT * FROM node ORDER BY started")))


def _bury(transaction: Transaction, nodes: list[str]) -> Rescued:
    """
    Forget nodes, and let what they have wait, be repeated, or end.
    """
    held = [place for node in nodes for place in transaction.places(_HELD, (node,))]
    claimed = [place for place in held if place.state == CLAIMED]
    stopping = [place for place in held if place.state == RUNNING and place.stopping]
    repeated, lost = _parted(
        transaction, [place for place in held if place.state == RUNNING and not place.stopping]
    )
    transaction.giveBack(claimed)
    transaction.finishAs(CANCELLED, stopping)
    transaction.finishAs(DIED, lost)
    for place in repeated:
        transaction.repeat(place, 0, place.counted + 1, place.losses + 1, DIED.summary)
    transaction.executeMany("DELETE FROM node WHERE id = ?", [(node,) for node in nodes])
    return Rescued(tuple(nodes), _ids(claimed), _ids(repeated), _ids(lost), _ids(stopping))


def _parted(transaction: Transaction, running: Sequence[Place]) -> tuple[list[Place], list[Place]]:
    """
    Return those that are to be repeated, and those that are lost.
    """
    repeated: list[Place] = []
    lost: list[Place] = []
    for place in running:
        attempts, loss = transaction.execute(
            "SELECT attempts, loss FROM job WHERE n = ?", (place.n,)
        ).fetchone()
        (repeated if loss and place.counted + 1 < attempts else lost).append(place)
    return repeated, lost


def _ids(places: Sequence[Place]) -> tuple[str, ...]:
    return tuple(place.id for place in places)
