"""
What does the operations of a store in PostgreSQL, in one thread.

How two programs on one store keep out of each other's way: each transaction first takes an
advisory lock on the store. Most share it: a node changes only what is its own, and skips the
waiting jobs that another one is claiming. What changes jobs of others (acts of people, rescues)
has the lock alone, so it sees each job in one place, and nobody waits for two things in another
order than somebody else. A second lock, always taken after that, is for adding jobs with keys. A
program that is stopped in the middle of a transaction is disconnected by the server, so that it
holds up nobody for long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import Connection
from psycopg.types.string import TextLoader

from asynqueue.forks import tellForks
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
from asynqueue.stores.postgres.adding import add
from asynqueue.stores.postgres.attempts import begin, claim, end, giveBack
from asynqueue.stores.postgres.finding import act, count, find
from asynqueue.stores.postgres.flows import flows, pause, paused, prune, resume, ripen
from asynqueue.stores.postgres.listening import Listening, channelOf, said
from asynqueue.stores.postgres.nodes import leave, nodes, register, renew, rescue
from asynqueue.stores.postgres.problems import isOfServer, nameOf, parsed, sentence
from asynqueue.stores.postgres.schema import migrate
from asynqueue.stores.postgres.transaction import Transaction
from asynqueue.stores.records import OnTaken, StoreEvent

# How often a transaction is tried that the server has ended because of others.
_TRIES = 5

# Unless the connection string says otherwise: so that a server that is gone without a word is
# noticed, in seconds and milliseconds.
_DEFAULTS = {
    "application_name": "asynqueue",
    # Whatever the database has: what cannot be stored in that is refused.
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

# After how many milliseconds the server gives up a program that stands still in a transaction.
_STANDSTILL = 10_000

# How many rows a table has now the planner does not know where they come and go: it is to find
# them by indexes always, and to count those in arrays each time.
_PREPARE = """
SELECT set_config('search_path', %(path)s, false), set_config('jit', 'off', false),
    set_config('enable_seqscan', 'off', false),
    set_config('plan_cache_mode', 'force_custom_plan', false),
    set_config('client_min_messages', 'error', false),
    set_config('idle_in_transaction_session_timeout', %(standstill)s, false),
    set_config('synchronous_commit', CASE current_setting('synchronous_commit')
        WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"""

_NOW = """
SELECT extract(epoch FROM clock_timestamp())::float8, ARRAY(SELECT series FROM paused),
    EXISTS (SELECT FROM listener WHERE id <> '{}')"""

_NOTHING = StoreEvent()

# What forks have from their parents: it is not closed when nobody knows it any longer.
_PARENTS: list[object] = []

# One operation each.
_SINGLE: dict[type[Operation[Any]], Callable[[Transaction, Any], Any]] = {
    ActOn: act,
    Claim: claim,
    Count: count,
    Find: find,
    Flows: flows,
    GiveBack: giveBack,
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

# What takes many operations at once.
_MANY: dict[type[Operation[Any]], Callable[[Transaction, Any], list[Any]]] = {
    Add: add,
    Begin: begin,
    End: end,
}

_READING = (Count, Find, Flows, Nodes, Paused)
_ALONE = (ActOn, Leave, Rescue)


class PostgresEngine:
    """
    Does the operations of a store in a schema of a database of PostgreSQL 13 or newer.
    """

    isShared = True

    def __init__(
        self,
        conninfo: str,
        schema: str = "asynqueue",
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """
        @param conninfo: how to connect, as libpq understands it: C{"service=shop"},
            C{"host=/run/postgresql dbname=shop"}, or a URL.
        @param schema: what has the tables. It is made if it is not there.
        @param clock: tells the seconds of the Unix epoch, in tests; C{None}: the server does.
        @raise ValueError: the connection string cannot be understood.
        """
        parameters = parsed(conninfo)
        self.name = nameOf(parameters, schema)
        self.schema = schema
        self._clock = clock
        self._parameters: dict[str, Any] = {**_DEFAULTS, **parameters}
        self._connection: Connection[Any] | None = None
        self._listening: Listening | None = None
        self._tell: Callable[[StoreEvent], None] | None = None
        # By which others know what this one says.
        self._speaker = uuid4().hex
        # Which number the locks of this store have.
        self._lock = 0
        tellForks(self)

    def forked(self) -> None:
        """
        Leave the connections to the parent: not even to close them is for a fork.
        """
        _PARENTS.extend((self._connection, self._listening))
        self._connection = self._listening = None
        self._speaker = uuid4().hex

    def subscribe(self, tell: Callable[[StoreEvent], None]) -> None:
        """
        Have a function called, in a thread of this engine's, with what other programs change from
        L{open} to L{close}.
        """
        self._tell = tell

    def open(self) -> None:
        """
        Connect, and bring the schema to what this version knows.
        """
        self.close()
        connection = self._connect()
        try:
            with connection.transaction():
                migrate(connection, self.schema, self.name)
            self._lock = self._number(connection)
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailable(self.name, sentence(error)) from None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if self._tell is not None:
            try:
                self._listening = Listening(
                    self._connect, self._lock, self._speaker, self._tell, store=self.name
                )
            except StoreUnavailable:
                self.close()
                raise

    def close(self) -> None:
        """
        Disconnect.
        """
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.stop()
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def execute(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        """
        Do operations in one transaction. If the server ends it because of another one, or the
        connection has been lost since the last one, it is tried again.
        """
        tries = 0
        while True:
            wasConnected = self._connection is not None
            try:
                return self._try(operations)
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected) as error:
                tries += 1
                if tries == _TRIES:
                    raise StoreUnavailable(self.name, sentence(error)) from None
            except _Disconnected as error:
                if not wasConnected:
                    raise StoreUnavailable(self.name, error.reason) from None

    def _connect(self) -> Connection[Any]:
        """
        Return a new connection, on which each statement is a transaction.
        """
        try:
            connection: Connection[Any] = psycopg.connect(**self._parameters, autocommit=True)
        except psycopg.Error as error:
            raise StoreUnavailable(self.name, sentence(error)) from None
        try:
            # IDs are texts here.
            connection.adapters.register_loader("uuid", TextLoader)
            path = f'"{self.schema.replace(chr(34), chr(34) * 2)}"'
            connection.execute(_PREPARE, {"path": path, "standstill": str(_STANDSTILL)})
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailable(self.name, sentence(error)) from None
        return connection

    def _number(self, connection: Connection[Any]) -> int:
        """
        Return a number that no other store in this database has.
        """
        row = connection.execute("SELECT 'meta'::regclass::oid::int8::bit(32)::int4").fetchone()
        assert row is not None
        return int(row[0])

    def _try(self, operations: Sequence[Operation[Any]]) -> tuple[list[Any], StoreEvent]:
        """
        Do operations in one transaction.
        """
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        try:
            transaction = self._begin(connection, operations)
            answers = _perform(transaction, operations)
            event = transaction.event()
            if transaction.isHeard and event != _NOTHING:
                words = said(event, self._speaker)
                transaction.execute("SELECT pg_notify(%s, %s)", [channelOf(self._lock), words])
        except psycopg.Error as error:
            self._giveUp(connection)
            if self._connection is None:
                raise _Disconnected(sentence(error)) from None
            if isOfServer(error):
                raise StoreUnavailable(self.name, sentence(error)) from None
            raise
        except BaseException:
            self._giveUp(connection)
            raise
        self._commit(connection)
        return answers, event

    def _begin(
        self, connection: Connection[Any], operations: Sequence[Operation[Any]]
    ) -> Transaction:
        """
        Begin a transaction, with the locks that it needs, in one round trip.
        """
        asked = "BEGIN ISOLATION LEVEL READ COMMITTED;"
        for lock in _locks(operations):
            asked += f"SELECT pg_advisory_xact_lock{lock.format(self._lock)};"
        asked += _NOW.format(self._speaker)
        cursor = connection.execute(asked, prepare=False)
        while cursor.nextset():
            pass
        [(now, series, isHeard)] = cursor.fetchall()
        if self._clock is not None:
            now = self._clock()
        return Transaction(connection, now, series, isHeard)

    def _giveUp(self, connection: Connection[Any]) -> None:
        """
        End a transaction without a change. A connection that cannot do that is closed.
        """
        try:
            if not connection.closed:
                connection.execute("ROLLBACK", prepare=False)
        except psycopg.Error:
            pass
        if connection.closed or connection.info.transaction_status != _IDLE:
            self._disconnect()

    def _commit(self, connection: Connection[Any]) -> None:
        try:
            connection.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            if connection.closed:
                self._disconnect()
                raise StoreLost(self.name, sentence(error)) from None
            self._giveUp(connection)
            if isOfServer(error):
                raise StoreUnavailable(self.name, sentence(error)) from None
            raise


_IDLE = psycopg.pq.TransactionStatus.IDLE


class _Disconnected(Exception):
    """
    The connection was lost before anything was to be committed.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _locks(operations: Sequence[Operation[Any]]) -> list[str]:
    """
    Return which locks operations need, in the order in which all take them.
    """
    if all(isinstance(operation, _READING) for operation in operations):
        return []
    added = [job for each in operations if isinstance(each, Add) for job in each.jobs]
    keyed = [job for job in added if job.key is not None]
    isAlone = any(isinstance(operation, _ALONE) for operation in operations)
    if isAlone or any(job.onTaken is OnTaken.REPLACE for job in keyed):
        return ["({}, 1)"]
    return ["_shared({}, 1)", "({}, 2)"] if keyed else ["_shared({}, 1)"]


def _perform(transaction: Transaction, operations: Sequence[Operation[Any]]) -> list[Any]:
    """
    Return the answers of operations. Those of one kind that follow each other are done at once.
    """
    answers: list[Any] = []
    for kind, run in groupby(operations, type):
        if (many := _MANY.get(kind)) is not None:
            for some in _together(run):
                answers += many(transaction, some)
        else:
            single = _SINGLE[kind]
            answers += [single(transaction, operation) for operation in run]
    return answers


def _together(run: Any) -> list[list[Any]]:
    """
    Split operations of one kind into those that can be done at once: of one node, and no attempt
    twice.
    """
    split: list[list[Any]] = []
    seen: set[Any] = set()
    for operation in run:
        if isinstance(operation, Add):
            attempts: set[Any] = set()
        elif isinstance(operation, Begin):
            attempts = set(operation.attempts)
        else:
            attempts = {each.attempt for each in operation.ends}
        isOther = (
            bool(split)
            and not isinstance(operation, Add)
            and (operation.node != split[-1][0].node or not seen.isdisjoint(attempts))
        )
        if not split or isOther:
            split.append([])
            seen = set()
        split[-1].append(operation)
        seen |= attempts
    return split
