"""
The tables of a store in PostgreSQL, and how they come to be what this version knows.

A job is in one of four narrow tables at a time, which says its state: C{waiting}, C{later},
C{claim} or C{outcome}. What is wide is written once, to C{job}, and at the end to C{outcome}. Rows
of narrow tables are inserted and deleted, so vacuuming them is quick. Times are seconds of the Unix
epoch.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from asynqueue.stores.errors import StoreVersionRefused

# What each narrow table has of a job. The number is that of the latest attempt that was begun, or
# has ended the job; in claims that of the attempt that a node has.
PLACE = "job, series, niceness, band, expires, number, counted, losses, due, failure"

_PLACE = """
    job uuid PRIMARY KEY,
    series text NOT NULL,
    niceness int2 NOT NULL,
    band int2 NOT NULL,
    expires float8,
    number int4 NOT NULL DEFAULT 0,
    counted int4 NOT NULL DEFAULT 0,
    losses int4 NOT NULL DEFAULT 0,
    due float8 NOT NULL,
    failure text"""

# Tables whose rows come and go are vacuumed when few rows of them are dead.
_BUSY = "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000"

_FIRST = f"""
CREATE TABLE job (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    payload bytea NOT NULL,
    codec text NOT NULL,
    options bytea NOT NULL,
    series text NOT NULL,
    niceness int2 NOT NULL,
    band int2 NOT NULL,
    attempts int4 NOT NULL,
    loss bool NOT NULL,
    key text,
    on_taken text NOT NULL,
    after float8 NOT NULL,
    expires float8,
    keep float8 NOT NULL,
    keep_dead float8 NOT NULL,
    trace text,
    parent text,
    created float8 NOT NULL
);
CREATE INDEX job_key ON job (key) WHERE key IS NOT NULL;
CREATE SEQUENCE seq;
CREATE TABLE waiting ({_PLACE},
    seq int8 NOT NULL DEFAULT nextval('seq')
) WITH ({_BUSY});
CREATE UNIQUE INDEX waiting_flow ON waiting (series, niceness, band, seq);
CREATE INDEX waiting_expires ON waiting (expires) WHERE expires IS NOT NULL;
CREATE TABLE later ({_PLACE}) WITH ({_BUSY});
CREATE INDEX later_due ON later (due);
CREATE INDEX later_expires ON later (expires) WHERE expires IS NOT NULL;
CREATE TABLE claim ({_PLACE},
    seq int8 NOT NULL,
    node text NOT NULL,
    begun float8,
    stopping bool NOT NULL DEFAULT false
) WITH (fillfactor = 60, {_BUSY});
CREATE INDEX claim_node ON claim (node);
CREATE TABLE outcome (
    job uuid PRIMARY KEY,
    kind text NOT NULL,
    number int4 NOT NULL,
    counted int4 NOT NULL,
    losses int4 NOT NULL,
    due float8 NOT NULL,
    node text,
    begun float8,
    ended float8 NOT NULL,
    codec text NOT NULL,
    value bytea,
    error bytea,
    summary text,
    until float8 NOT NULL
);
CREATE INDEX outcome_until ON outcome (until);
CREATE INDEX outcome_dead ON outcome (job) WHERE kind IN ('failed', 'lost');
CREATE TABLE held (key text PRIMARY KEY, job uuid NOT NULL);
CREATE INDEX held_job ON held (job);
CREATE TABLE node (
    id text PRIMARY KEY,
    name text NOT NULL,
    host text NOT NULL,
    pid int8 NOT NULL,
    version text NOT NULL,
    series text[] NOT NULL,
    slots int4 NOT NULL,
    started float8 NOT NULL,
    lease_until float8 NOT NULL
);
CREATE TABLE paused (series text PRIMARY KEY, at float8 NOT NULL, who text NOT NULL);
CREATE TABLE audit (
    at float8 NOT NULL,
    who text NOT NULL,
    act text NOT NULL,
    jobs text NOT NULL,
    count int8 NOT NULL
);
CREATE INDEX audit_at ON audit (at);
-- Programs that hear of changes: who makes one says so only if others are there.
CREATE TABLE listener (id text PRIMARY KEY, pid int4 NOT NULL);
CREATE VIEW record AS
SELECT j.*,
    COALESCE(o.kind,
        CASE WHEN c.begun IS NOT NULL THEN 'running' WHEN c.job IS NOT NULL THEN 'claimed'
            WHEN l.job IS NOT NULL THEN 'later' ELSE 'waiting' END) AS state,
    COALESCE(o.number, c.number, l.number, w.number) AS number,
    COALESCE(o.counted, c.counted, l.counted, w.counted) AS counted,
    COALESCE(o.losses, c.losses, l.losses, w.losses) AS losses,
    COALESCE(o.due, c.due, l.due, w.due) AS due,
    COALESCE(o.begun, c.begun) AS begun,
    o.ended,
    COALESCE(o.node, c.node) AS node,
    COALESCE(c.stopping, false) AS stopping,
    COALESCE(c.failure, l.failure, w.failure) AS failure,
    o.kind, o.codec AS outcome_codec, o.value, o.error, o.summary, o.until,
    w.job AS in_waiting, l.job AS in_later, c.job AS in_claim
FROM job j
LEFT JOIN outcome o ON o.job = j.id
LEFT JOIN claim c ON c.job = j.id
LEFT JOIN later l ON l.job = j.id
LEFT JOIN waiting w ON w.job = j.id;
"""

# Each brings a schema from the version that is its index to the next one. None is ever changed.
MIGRATIONS = (_FIRST,)

_MARK = "asynqueue"


def migrate(connection: Connection[Any], schema: str, store: str) -> None:
    """
    Bring the schema of a database to what this version knows, in one transaction that is begun.

    @param store: the name of the store, for errors.
    @raise StoreVersionRefused: the schema is newer, or belongs to something else.
    """
    # Two programs may find that there is no schema yet.
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtext('asynqueue'), hashtext(%s))", [schema]
    )
    found = _version(connection, schema, store)
    known = len(MIGRATIONS)
    if found > known:
        raise StoreVersionRefused(store, str(found), known)
    if found == known:
        return
    name = sql.Identifier(schema)
    if not _exists(connection, schema):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(name))
    if found == 0:
        connection.execute("CREATE TABLE meta (mark text NOT NULL, version int4 NOT NULL)")
        connection.execute("INSERT INTO meta VALUES (%s, 0)", [_MARK])
    for step in MIGRATIONS[found:]:
        connection.execute(step)
    connection.execute("UPDATE meta SET version = %s", [known])


def _exists(connection: Connection[Any], schema: str) -> bool:
    """
    Tell whether there is such a schema.
    """
    asked = "SELECT FROM pg_namespace WHERE nspname = %s"
    return connection.execute(asked, [schema]).fetchone() is not None


def _version(connection: Connection[Any], schema: str, store: str) -> int:
    """
    Return which version a schema has; 0: there is none, or it is empty.
    """
    relations = connection.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s",
        [schema],
    ).fetchall()
    if not relations:
        return 0
    columns = connection.execute(
        "SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a"
        " JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = 'meta' AND a.attnum > 0 AND NOT a.attisdropped",
        [schema],
    ).fetchone()
    if columns is not None and columns[0] == ["mark", "version"]:
        rows = connection.execute(
            sql.SQL("SELECT mark, version FROM {}").format(sql.Identifier(schema, "meta"))
        ).fetchall()
        if len(rows) == 1 and rows[0][0] == _MARK:
            return int(rows[0][1])
    raise StoreVersionRefused(store, "not one of AsynQueue", len(MIGRATIONS))
