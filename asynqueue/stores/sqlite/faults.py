"""
What an error of SQLite means for a store. No Twisted.
"""

from __future__ import annotations

import sqlite3

from asynqueue.stores.errors import StoreDamaged, StoreUnavailable

# Why a store cannot be used for now, or here, and what to do.
_REASONS = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked; have that end its transaction",
    sqlite3.SQLITE_LOCKED: "another program keeps it locked; have that end its transaction",
    sqlite3.SQLITE_CANTOPEN: "one of its files cannot be opened; look at the rights of its folder",
    sqlite3.SQLITE_FULL: "there is no room on the disk; make some, and ask again",
    sqlite3.SQLITE_IOERR: "a file could not be read or written; look at the disk and its limits",
    sqlite3.SQLITE_NOTADB: "the file is no database of SQLite, or an encrypted one; choose another",
    sqlite3.SQLITE_PERM: "its file may not be used; look at its rights",
    sqlite3.SQLITE_PROTOCOL: "its file system cannot lock files; choose one that can",
    sqlite3.SQLITE_READONLY: "its file cannot be written; look at its rights and its file system",
}

# Of those that come as it commits: the log has what was to be committed only in part, so it surely
# was not. Of any other the log may have all of it, and a restart would find that.
_NOT_COMMITTED = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY}
)


def inOurs(store: str, error: sqlite3.Error) -> Exception:
    """
    Return what to raise for an error after which nothing was done. If one operation is to blame it
    is the error itself.

    @param store: the name of the store.
    """
    code = _codeOf(error) & 0xFF
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreDamaged(store, str(error))
    if code in _REASONS:
        return StoreUnavailable(store, f"{_REASONS[code]} ({error})")
    return error


def mayBeCommitted(error: sqlite3.Error) -> bool:
    """
    Tell whether a commit that has failed so may have been one.
    """
    code = _codeOf(error)
    return code not in _NOT_COMMITTED and code & 0xFF in (sqlite3.SQLITE_IOERR, 0)


def _codeOf(error: sqlite3.Error) -> int:
    """
    Return the extended code of SQLite; 0: the error is Python's.
    """
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code
