"""
What stands between a program and its PostgreSQL server, and cuts connections when a test says so.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread

_NAME = ".s.PGSQL.5432"


class Proxy:
    """
    Passes on what is said, over UNIX sockets.

    @ivar cuts: whether the next connection on which a commit is asked for is cut then.
    @ivar isAsked: whether the server hears of that commit before: the program then does not hear
        of its answer.
    """

    def __init__(self, folder: Path) -> None:
        """
        @param folder: where the socket of the server is.
        """
        self.cuts = False
        self.isAsked = True
        self._server = str(folder / _NAME)
        self.folder = Path(mkdtemp(prefix="pg-", dir=folder.parent))
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.folder / _NAME))
        self._listening.listen()
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """
        Accept no more. Connections must be closed.
        """
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()
        os.unlink(self.folder / _NAME)
        self.folder.rmdir()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            thread = Thread(target=_Connection(self, client, server).run)
            self._threads.append(thread)
            thread.start()


class _Connection:
    """
    Passes on what a program asks, and what is answered.
    """

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._isCut = False

    def run(self) -> None:
        """
        Pass on until one end is closed, or a commit is asked for that is to be cut.
        """
        back = Thread(target=self._answer)
        with self._client, self._server:
            back.start()
            while not self._isCut and (asked := _received(self._client)):
                if self._proxy.cuts and b"COMMIT\0" in asked:
                    self._proxy.cuts, self._isCut = False, True
                if not self._isCut or self._proxy.isAsked:
                    self._server.sendall(asked)
            if not self._isCut or not self._proxy.isAsked:
                _shut(self._server)
            back.join()

    def _answer(self) -> None:
        while (answered := _received(self._server)) and not self._isCut:
            try:
                self._client.sendall(answered)
            except OSError:
                break
        _shut(self._client)
        _shut(self._server)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
