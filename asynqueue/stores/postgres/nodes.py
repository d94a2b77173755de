"""
How nodes live on a store in PostgreSQL, and what becomes of their jobs when they do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from asynqueue.stores.operations import Leave, Nodes, Register, Renew, Renewed, Rescue, Rescued
from asynqueue.stores.postgres.transaction import CANCELLED, CLAIM, Place, Transaction
from asynqueue.stores.records import DIED, Attempt, NodeRecord

_REGISTER = """
INSERT INTO node (id, name, host, pid, version, series, slots, started, lease_until)
VALUES (%(id)s, %(name)s, %(host)s, %(pid)s, %(version)s, %(series)s, %(slots)s, %(now)s, %(until)s)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, host = excluded.host, pid = excluded.pid,
    version = excluded.version, series = excluded.series, slots = excluded.slots,
    lease_until = excluded.lease_until"""

_RENEW = "UPDATE node SET lease_until = %s WHERE id = %s RETURNING id"
_STOPPING = "SELECT job, number FROM claim WHERE node = %s AND stopping"
_NODES = """
SELECT id, name, host, pid, version, series, slots, started, lease_until FROM node
ORDER BY started, id"""

# With what is to be known of lost jobs.
_TAKE = f"""
WITH taken AS (DELETE FROM claim WHERE node = ANY (%s) RETURNING {CLAIM})
SELECT t.*, j.loss, j.attempts FROM taken t JOIN job j ON j.id = t.job ORDER BY t.seq"""


def register(transaction: Transaction, operation: Register) -> None:
    """
    Enter a node.
    """
    node = operation.node
    transaction.execute(
        _REGISTER,
        {
            "id": node.id,
            "name": node.name,
            "host": node.host,
            "pid": node.pid,
            "version": node.version,
            "series": list(node.series),
            "slots": node.slots,
            "now": transaction.now,
            "until": transaction.now + operation.lease,
        },
    )


def renew(transaction: Transaction, operation: Renew) -> Renewed:
    """
    Renew a lease.
    """
    until = transaction.now + operation.lease
    if transaction.execute(_RENEW, [until, operation.node]).fetchone() is None:
        return Renewed(False)
    rows = transaction.execute(_STOPPING, [operation.node])
    return Renewed(True, tuple(Attempt(*row) for row in rows))


def rescue(transaction: Transaction, operation: Rescue) -> Rescued:
    """
    Forget those that are dead: nobody else does it meanwhile.
    """
    if operation.others is None:
        rows = transaction.execute(
            "DELETE FROM node WHERE lease_until < %s RETURNING id",
            [transaction.now - operation.margin],
        )
    else:
        rows = transaction.execute(
            "DELETE FROM node WHERE id <> %s RETURNING id", [operation.others]
        )
    return _bury(transaction, [row[0] for row in rows])


def leave(transaction: Transaction, operation: Leave) -> Rescued:
    """
    Forget a node.
    """
    rows = transaction.execute("DELETE FROM node WHERE id = %s RETURNING id", [operation.node])
    return _bury(transaction, [row[0] for row in rows])


def _bury(transaction: Transaction, nodes: list[str]) -> Rescued:
    """
    Let what nodes have wait, be repeated, or end.
    """
    if not nodes:
        return Rescued()
    unbegun: list[Place] = []
    repeated: list[Place] = []
    lost: list[Place] = []
    cancelled: list[Place] = []
    for *columns, mayRepeat, attempts in transaction.execute(_TAKE, [nodes]):
        place = Place(*columns)
        if place.begun is None:
            unbegun.append(place)
        elif place.stopping:
            cancelled.append(place)
        elif mayRepeat and place.counted + 1 < attempts:
            repeated.append(
                place._replace(
                    seq=None,
                    expires=None,
                    counted=place.counted + 1,
                    losses=place.losses + 1,
                    due=transaction.now,
                    failure=DIED.summary,
                )
            )
        else:
            lost.append(place)
    transaction.giveBack(unbegun)
    transaction.wait(repeated)
    transaction.finishAs(DIED, lost)
    transaction.finishAs(CANCELLED, cancelled)
    found = [tuple(place.job for place in some) for some in (unbegun, repeated, lost, cancelled)]
    return Rescued(tuple(nodes), *found)


def nodes(transaction: Transaction, operation: Nodes) -> Sequence[NodeRecord]:
    """
    Tell which nodes there are.
    """
    return tuple(
        NodeRecord(
            id=row[0],
            name=row[1],
            host=row[2],
            pid=row[3],
            version=row[4],
            series=tuple(row[5]),
            slots=row[6],
            started=row[7],
            leaseUntil=row[8],
        )
        for row in transaction.execute(_NODES)
    )
