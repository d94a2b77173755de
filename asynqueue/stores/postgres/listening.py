"""
How programs on one store in PostgreSQL hear of what others have changed.

Each one that hears has a row in the table C{listener}. A transaction says what it has changed,
once, as it commits, if there are others. That row is entered while nobody changes anything, so
that what was changed by those who have not seen it can be seen by who reads after that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from selectors import EVENT_READ, DefaultSelector
from threading import Thread
from typing import Any

import psycopg
from psycopg import Connection, sql

from asynqueue.stores.errors import StoreUnavailable
from asynqueue.stores.jobrows import flowOf
from asynqueue.stores.postgres.problems import sentence
from asynqueue.stores.records import StoreEvent

# What PostgreSQL passes on has less than 8,000 bytes.
_MOST_BYTES = 7_900

# In seconds, from the first try to connect again to the last ones.
_FIRST_DELAY = 0.1
_LAST_DELAY = 10.0

_UNKNOWN = StoreEvent(isUnknown=True)

_ENTER = """
WITH gone AS (
    DELETE FROM listener WHERE pid NOT IN (SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL)
)
INSERT INTO listener (id, pid) VALUES (%s, pg_backend_pid())
ON CONFLICT (id) DO UPDATE SET pid = excluded.pid"""


def channelOf(lock: int) -> str:
    """
    Return the name under which changes of a store are said.

    @param lock: the number of its locks.
    """
    return f"asynqueue_{lock & 0xFFFFFFFF}"


def said(event: StoreEvent, speaker: str) -> str:
    """
    Return in words what has changed; only that something has if it is too much.
    """
    words = {
        "by": speaker,
        "flows": [[flow.series, flow.niceness, flow.band.value] for flow in event.flows],
        "ended": list(event.ended),
        "stopping": list(event.stopping),
        "later": event.hasLater,
    }
    text = json.dumps({key: value for key, value in words.items() if value})
    return text if len(text) <= _MOST_BYTES else json.dumps({"by": speaker, "unknown": True})


def heard(text: str, hearer: str) -> StoreEvent | None:
    """
    Return what somebody has said has changed; C{None}: it was the hearer. What cannot be
    understood may mean anything.
    """
    try:
        words: dict[str, Any] = json.loads(text)
        if words.get("by") == hearer:
            return None
        return StoreEvent(
            tuple(flowOf(*flow) for flow in words.get("flows", ())),
            tuple(words.get("ended", ())),
            tuple(words.get("stopping", ())),
            bool(words.get("later")),
            bool(words.get("unknown")),
        )
    except (ValueError, TypeError, AttributeError):
        return _UNKNOWN


class Listening:
    """
    Hears in a thread and on a connection of its own. While there is none it tries to connect
    again; when it has, anything may have changed.
    """

    def __init__(
        self,
        connect: Callable[[], Connection[Any]],
        lock: int,
        name: str,
        tell: Callable[[StoreEvent], None],
        *,
        store: str,
    ) -> None:
        """
        @param connect: makes a connection, or raises C{StoreUnavailable}.
        @param lock: the number of the locks of the store.
        @param name: which no other program has.
        @param tell: called in the thread with what others have changed.
        @param store: the name of the store, for errors.
        @raise StoreUnavailable: it cannot hear now.
        """
        self._connect = connect
        self._lock = lock
        self._name = name
        self._tell = tell
        self._store = store
        self._isStopped = False
        self._awake, self._wake = os.pipe()
        try:
            connection = self._enter()
        except BaseException:
            self._closePipe()
            raise
        self._thread = Thread(target=self._run, args=(connection,), name=f"{name} hears")
        self._thread.daemon = True
        self._thread.start()

    def stop(self) -> None:
        """
        Hear no more. Called in another thread.
        """
        self._isStopped = True
        os.write(self._wake, b".")
        self._thread.join()
        self._closePipe()

    def _closePipe(self) -> None:
        os.close(self._awake)
        os.close(self._wake)

    def _enter(self) -> Connection[Any]:
        """
        Return a connection that hears.
        """
        connection = self._connect()
        try:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channelOf(self._lock))))
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s, 1)", [self._lock])
                connection.execute(_ENTER, [self._name])
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailable(self._store, sentence(error)) from None
        return connection

    def _run(self, connection: Connection[Any]) -> None:
        while True:
            self._hear(connection)
            again = self._again()
            if again is None:
                return
            connection = again
            self._tell(_UNKNOWN)

    def _hear(self, connection: Connection[Any]) -> None:
        """
        Tell what is heard, until the connection is lost or this is stopped.
        """
        with connection, DefaultSelector() as selector:
            selector.register(self._awake, EVENT_READ)
            selector.register(connection.fileno(), EVENT_READ)
            try:
                while True:
                    self._tellAll(connection)
                    selector.select()
                    if self._isStopped:
                        connection.execute("DELETE FROM listener WHERE id = %s", [self._name])
                        return
                    connection.pgconn.consume_input()
            except psycopg.Error:
                # It is lost.
                return

    def _tellAll(self, connection: Connection[Any]) -> None:
        while (notify := connection.pgconn.notifies()) is not None:
            event = heard(notify.extra.decode(), self._name)
            if event is not None:
                self._tell(event)

    def _again(self) -> Connection[Any] | None:
        """
        Return a connection that hears, when there is one; C{None}: this is stopped.
        """
        delay = _FIRST_DELAY
        while not self._isStopped:
            try:
                return self._enter()
            except StoreUnavailable:
                self._wait(delay)
                delay = min(2 * delay, _LAST_DELAY)
        return None

    def _wait(self, seconds: float) -> None:
        with DefaultSelector() as selector:
            selector.register(self._awake, EVENT_READ)
            selector.select(seconds)
