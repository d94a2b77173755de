"""
What can be wrong with a store, or with what it is asked.
"""

from __future__ import annotations

from asynqueue.errors import AsynQueueError


class StoreError(AsynQueueError):
    """
    A store could not do what it was asked, and has changed nothing.
    """


class StoreLost(StoreError, ConnectionError):
    """
    The connection to a store broke as it was to commit: what it was asked may be done or not.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the connection to {self.store} was lost: {self.reason}; what was asked may be stored"
            " or not: ask again with the same key, or look for the job"
        )


class StoreUnavailable(StoreError, ConnectionError):
    """
    A store cannot be reached or opened for now; nothing was stored.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store} cannot be used: {self.reason}"


class OperationFailed(StoreError):
    """
    A store cannot do an operation, for a reason of its own; the operation was not done.
    """

    def __init__(self, store: str, operation: str, reason: str) -> None:
        super().__init__(store, operation, reason)
        self.store = store
        self.operation = operation
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.store} cannot do {self.operation}: {self.reason}"


class StoreDamaged(StoreError):
    """
    What a store has cannot be read: its file is damaged. The operation was not done.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(store, reason)
        self.store = store
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.store} is damaged: {self.reason}; stop all that use it, then restore it from a"
            " backup, or save what can be read, as by the .recover of SQLite's command"
        )


class StoreClosed(StoreError, RuntimeError):
    """
    A store was asked before it was opened or after it was closed.
    """

    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.store = store

    def __str__(self) -> str:
        return f"{self.store} is not open: call open() first, and nothing after close()"


class StoreBusy(StoreError, OSError):
    """
    Another program owns the file of a store.

    @ivar pid: of that program, C{None}: unknown.
    """

    def __init__(self, store: str, pid: int | None) -> None:
        super().__init__(store, pid)
        self.store = store
        self.pid = pid

    def __str__(self) -> str:
        owner = "another program" if self.pid is None else f"the process {self.pid}"
        return (
            f"{self.store} belongs to {owner}: one program owns such a file; end that one, enqueue"
            " through it, or use PostgreSQL, which several programs can share"
        )


class StoreVersionRefused(StoreError):
    """
    A database has another schema than this version of AsynQueue knows.
    """

    def __init__(self, store: str, found: str, known: int) -> None:
        super().__init__(store, found, known)
        self.store = store
        self.found = found
        self.known = known

    def __str__(self) -> str:
        return (
            f"the schema of {self.store} is {self.found}, and this AsynQueue knows those up to"
            f" {self.known}: use the version of AsynQueue that made it, or a newer one"
        )


class StoreStringRefused(StoreError, ValueError):
    """
    A string means no store.

    @ivar prefix: what it begins with; the rest may have a password.
    """

    def __init__(self, prefix: str, reason: str) -> None:
        super().__init__(prefix, reason)
        self.prefix = prefix
        self.reason = reason

    def __str__(self) -> str:
        what = f"{self.prefix}:" if self.prefix else "the string"
        return f"{what} means no store: {self.reason}"


class KeyTaken(StoreError, ValueError):
    """
    A job that has not ended, or another one, has the key of a new job, which was not stored.
    """

    def __init__(self, key: str, id: str) -> None:
        super().__init__(key, id)
        self.key = key
        self.id = id

    def __str__(self) -> str:
        return (
            f"the key {self.key!r} is taken by the job {self.id}: wait for it, cancel it, or choose"
            ' onTaken="join" or "replace"'
        )
