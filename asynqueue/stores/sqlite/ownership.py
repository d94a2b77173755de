"""
Which program owns the file of a store: a lock of the operating system, on a file beside it.

The lock is that of C{flock}: it goes with the last descriptor, so a program that is killed leaves
none behind; two stores of one program exclude each other; and on network file systems it holds for
all their clients. The file stays when it is let go, since who waits for it may have it open; it has
the ID of the process that owns it, for people. No Twisted.
"""

from __future__ import annotations

import errno
import fcntl
import os

from asynqueue.forks import tellForks
from asynqueue.stores.errors import StoreBusy, StoreUnavailable

_HELD = frozenset({errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN})


class Ownership:
    """
    The lock on a file.
    """

    def __init__(self, store: str, path: str) -> None:
        """
        @param store: the name of the store, for errors.
        @param path: of the file beside the database; it is made.
        """
        self._store = store
        self._path = path
        self._descriptor: int | None = None
        tellForks(self)

    def forked(self) -> None:
        """
        Close the descriptor in a fork, or the lock would outlive the parent. It stays locked there.
        """
        self.release()

    def take(self) -> None:
        """
        Own the file.

        @raise StoreBusy: another program, or another store of this one, does.
        @raise StoreUnavailable: the file beside it cannot be made or locked.
        """
        while self._descriptor is None:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                reason = f"{self._path} cannot be opened: {error.strerror}"
                raise StoreUnavailable(self._store, reason) from error
            try:
                self._lock(descriptor)
            except BaseException:
                os.close(descriptor)
                raise

    def release(self) -> None:
        """
        Own it no more.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise StoreBusy(self._store, _pidIn(descriptor)) from None
            reason = f"{self._path} cannot be locked: {error.strerror}"
            raise StoreUnavailable(self._store, reason) from error
        if not _isAt(self._path, descriptor):
            # Somebody has removed it meanwhile; another program may lock the next one.
            os.close(descriptor)
            return
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            # The disk is full: it is only for people.
            pass
        self._descriptor = descriptor


def _isAt(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _pidIn(descriptor: int) -> int | None:
    words = os.pread(descriptor, 100, 0).split()
    return int(words[0]) if words and words[0].isdigit() else None
