"""
The tables of a store in SQLite, and how they come to be what this version knows. No Twisted.

What is wide is written once: to C{job}, and at the end to C{outcome}. A job that has not ended has
a row in C{place}, which is narrow, and has all that changes of it; partial indexes hold those that
wait in flows, are due later, may expire, or are with a node. SQLite changes rows where they are, so
that one table costs less than a table for each state. Times are seconds of the Unix epoch.
"""

from __future__ import annotations

import sqlite3

from asynqueue.stores.errors import StoreUnavailable, StoreVersionRefused

# What says in the header of a file whose it is: "AsnQ".
APPLICATION_ID = 0x41736E51

_FIRST = """
CREATE TABLE job (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    codec TEXT NOT NULL,
    series TEXT NOT NULL,
    niceness INTEGER NOT NULL,
    band INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    loss INTEGER NOT NULL,
    key TEXT,
    on_taken TEXT NOT NULL,
    after REAL NOT NULL,
    expires REAL,
    keep REAL NOT NULL,
    keep_dead REAL NOT NULL,
    trace TEXT,
    parent TEXT,
    created REAL NOT NULL,
    options BLOB NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX job_key ON job (key) WHERE key IS NOT NULL;
CREATE TABLE place (
    n INTEGER PRIMARY KEY REFERENCES job,
    state INTEGER NOT NULL,  -- 0: waiting, 1: later, 2: claimed, 3: running
    series TEXT NOT NULL,
    niceness INTEGER NOT NULL,
    band INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,  -- of the attempt that a node has, or else of the latest that began
    counted INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    due REAL NOT NULL,
    expires REAL,  -- NULL: never, or never any more
    node TEXT,
    begun REAL,
    stopping INTEGER NOT NULL,
    failure TEXT,
    key TEXT,
    keep REAL NOT NULL,
    keep_dead REAL NOT NULL
);
CREATE INDEX place_flow ON place (series, niceness, band, seq) WHERE state = 0;
CREATE INDEX place_due ON place (due) WHERE state = 1;
CREATE INDEX place_held ON place (n) WHERE state >= 2;
CREATE INDEX place_expires ON place (expires) WHERE expires IS NOT NULL;
CREATE TABLE outcome (
    n INTEGER PRIMARY KEY REFERENCES job,
    kind TEXT NOT NULL,
    number INTEGER NOT NULL,
    counted INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    due REAL NOT NULL,
    node TEXT,
    begun REAL,
    ended REAL NOT NULL,
    until REAL NOT NULL,
    codec TEXT NOT NULL,
    summary TEXT,
    error BLOB,
    value BLOB
);
CREATE INDEX outcome_until ON outcome (until, kind);
CREATE INDEX outcome_dead ON outcome (n) WHERE kind IN ('failed', 'lost');
CREATE TABLE held (key TEXT PRIMARY KEY, n INTEGER NOT NULL REFERENCES job) WITHOUT ROWID;
CREATE TABLE node (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL,
    series TEXT NOT NULL,  -- a list in JSON
    slots INTEGER NOT NULL,
    started REAL NOT NULL,
    lease_until REAL NOT NULL
);
CREATE TABLE paused (series TEXT PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE audit (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, act TEXT NOT NULL,
    jobs TEXT NOT NULL, count INTEGER NOT NULL
);
CREATE TABLE meta (seq INTEGER NOT NULL);
INSERT INTO meta VALUES (0);
"""

# Each brings a schema from the version that is its index to the next one. None is ever changed.
MIGRATIONS = (_FIRST,)


def migrate(
    connection: sqlite3.Connection, store: str, migrations: tuple[str, ...] = MIGRATIONS
) -> None:
    """
    Bring the schema of a database to what this version knows, in one transaction.

    @param store: the name of the store, for errors.
    @raise StoreError: as by L{checkVersion}.
    """
    known = len(migrations)
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = checkVersion(connection, store, migrations)
        if found < known:
            for step in migrations[found:]:
                for statement in statements(step):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {known}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(script: str) -> list[str]:
    """
    Return the statements of a script, which C{executescript} would not leave in a transaction. No
    semicolon stands within one.
    """
    return [statement for statement in script.split(";\n") if statement.strip()]


def checkVersion(
    connection: sqlite3.Connection, store: str, migrations: tuple[str, ...] = MIGRATIONS
) -> int:
    """
    Return which version a schema has; 0: the database is empty.

    @raise StoreVersionRefused: the schema is newer.
    @raise StoreUnavailable: the database belongs to something else.
    """
    known = len(migrations)
    application = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if application == APPLICATION_ID:
        if version > known:
            raise StoreVersionRefused(store, f"version {version}", known)
        return version
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    if names or application or version:
        what = f": it has the table {names[0][0]}" if names else ""
        raise StoreUnavailable(
            store, f"the database is that of another application{what}; choose another file"
        )
    return 0


def _number(connection: sqlite3.Connection, statement: str) -> int:
    number: int = connection.execute(statement).fetchone()[0]
    return number
