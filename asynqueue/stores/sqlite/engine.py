"""
The engine of a store in a file, by SQLite. No Twisted.

The database has a write-ahead log, which is synced at each commit: what is committed survives the
loss of power, if the disk keeps its word. Other programs can read it meanwhile, and write for as
long as L{SQLiteEngine} would wait; but only one program has it as its store.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Literal

from asynqueue.forks import isParents, tellForks
from asynqueue.stores.errors import StoreLost, StoreUnavailable
from asynqueue.stores.operations import (
    ActOn,
    Add,
    Begin,
    Claim,
    Count,
    End,
    Find,
    Flows,
    GiveBack,
    Leave,
    Nodes,
    Operation,
    Pause,
    Paused,
    Prune,
    Register,
    Renew,
    Rescue,
    Resume,
    Ripen,
)
from asynqueue.stores.records import StoreEvent
from asynqueue.stores.sqlite.adding import add
from asynqueue.stores.sqlite.attempts import begin, claim, end, giveBack
from asynqueue.stores.sqlite.faults import inOurs, mayBeCommitted
from asynqueue.stores.sqlite.flows import flows, ripen
from asynqueue.stores.sqlite.nodes import leave, nodes, register, renew, rescue
from asynqueue.stores.sqlite.ownership import Ownership
from asynqueue.stores.sqlite.people import (
    actOn,
    contains,
    count,
    find,
    pause,
    paused,
    prune,
    resume,
)
from asynqueue.stores.sqlite.schema import checkVersion, migrate
from asynqueue.stores.sqlite.transaction import Transaction

# What does several operations of a type at once, as they come in great numbers.
_TOGETHER: dict[type, Callable[[Transaction, Any], list[Any]]] = {
    Add: add,
    Begin: begin,
    Claim: claim,
    End: end,
    GiveBack: giveBack,
}

_ALONE: dict[type, Callable[[Transaction, Any], Any]] = {
    ActOn: actOn,
    Count: count,
    Find: find,
    Flows: flows,
    Leave: leave,
    Nodes: nodes,
    Pause: pause,
    Paused: paused,
    Prune: prune,
    Register: register,
    Renew: renew,
    Rescue: rescue,
    Resume: resume,
    Ripen: ripen,
}

# For how many seconds another program may keep the database locked.
_PATIENCE = 5.0

# How many pages of 4 kB the log has before it is written to the database, and for how many kB of
# the database there is room in memory.
_LOG_PAGES = 4_000
_CACHE_KB = 32_000

# Connections of parents. To close one in a fork would be to close it for the parent, too.
_inherited: list[sqlite3.Connection | None] = []


class SQLiteEngine:
    """
    Does the operations of a store in a file.
    """

    isShared = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal"] = "full",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        @param path: of the file; it is made if there is none. Beside it come others, whose names
            begin with its name.
        @param synchronous: C{"full"}: what is committed survives the loss of power; C{"normal"}:
            that of the program only, and commits are faster.
        @param clock: tells the seconds of the Unix epoch.
        @raise ValueError: C{synchronous} is another word.
        """
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous={synchronous!r} is neither 'full' nor 'normal'")
        self.name = f"sqlite:{os.fsdecode(path)}"
        # Whatever the working directory is by then, and whatever links lead there.
        self._path = os.path.realpath(os.fsdecode(path))
        self._synchronous = synchronous
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._owner = Ownership(self.name, f"{self._path}-owner")
        self._parent = ""
        tellForks(self)

    def forked(self) -> None:
        """
        Leave the connection to the parent.
        """
        if self._connection is not None:
            self._parent = isParents(os.getppid())
            _inherited.append(self._connection)
            self._connection = None

    def open(self) -> None:
        self._parent = ""
        folder = os.path.dirname(self._path)
        if not os.path.isdir(folder):
            raise StoreUnavailable(self.name, f"there is no folder {folder}; make it first")
        if os.path.isdir(self._path):
            raise StoreUnavailable(self.name, f"{self._path} is a folder; name a file in it")
        self._owner.take()
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        finally:
            self._owner.release()

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        connection = self._checked()
        try:
            connection.execute("BEGIN IMMEDIATE")
            answers, event = self._done(connection, operations)
        except sqlite3.Error as error:
            self._rollBack(connection)
            raise inOurs(self.name, error) from error
        except BaseException:
            self._rollBack(connection)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollBack(connection)
            if mayBeCommitted(error):
                raise StoreLost(self.name, str(error)) from error
            raise inOurs(self.name, error) from error
        return answers, event

    def _done(
        self, connection: sqlite3.Connection, operations: Sequence[Operation[Any]]
    ) -> tuple[list[Any], StoreEvent]:
        transaction = Transaction(connection, self._clock())
        answers: list[Any] = []
        for kind, alike in groupby(operations, type):
            together = _TOGETHER.get(kind)
            if together is not None:
                answers += together(transaction, list(alike))
                continue
            alone = _ALONE.get(kind)
            if alone is None:
                raise TypeError(f"{kind.__name__} is no operation that a store knows")
            answers += [alone(transaction, operation) for operation in alike]
        return answers, transaction.finished()

    # The connection

    def _connect(self) -> None:
        try:
            # Nobody else needs to read what may be passwords in arguments.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            reason = f"{self._path} cannot be opened: {error.strerror}"
            raise StoreUnavailable(self.name, reason) from error
        try:
            # The thread that closes it may be another one.
            connection = self._connection = sqlite3.connect(
                self._path,
                timeout=_PATIENCE,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=200,
            )
            self._prepare(connection)
            migrate(connection, self.name)
        except sqlite3.Error as error:
            raise inOurs(self.name, error) from error
        self._inode = self._present()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Before it is known whose it is, nothing is changed in it.
        checkVersion(connection, self.name)
        [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnavailable(
                self.name, "its file system cannot have the log of SQLite; choose another one"
            )
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.create_function("contains", -1, contains, deterministic=True)

    def _checked(self) -> sqlite3.Connection:
        """
        Return the connection to the file that is there.
        """
        if self._parent:
            raise StoreUnavailable(self.name, self._parent)
        if self._connection is None:
            raise StoreUnavailable(self.name, "it is not open")
        if self._present() != self._inode:
            raise StoreUnavailable(
                self.name, "its file was removed or replaced while it was open: put it back"
            )
        return self._connection

    def _present(self) -> tuple[int, int]:
        try:
            status = os.stat(self._path)
        except OSError:
            return (0, 0)
        return status.st_dev, status.st_ino

    def _rollBack(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite has done so itself; else the next transaction fails, and says why.
            pass
