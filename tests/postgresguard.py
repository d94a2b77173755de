"""
Run a PostgreSQL server that ends with the process that asked for it, even if that is killed.

    python -I -S postgresguard.py FOLDER USER COMMAND...

The command is the server's, run as C{UID:GID}, if that is not empty. What the server says is
appended to C{FOLDER/log}. Standard output has its PID when it is ready, and is closed when all
its processes are gone: they share the pipe to which they say things. The server is stopped when
standard input has something to read. If that is an end, who has asked is gone, and the folder
goes, too.

It is no child of who asks: tests count theirs.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys

READY = b"database system is ready to accept connections"
# In seconds: from being asked to stop until it is killed.
GRACE = 20.0


def start(user: str, command: list[str]) -> subprocess.Popen[bytes]:
    """
    Start the server, in a session of its own: an interrupt from a terminal is not for it.
    """
    uid, _, gid = user.partition(":")
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=int(uid) if uid else None,
        group=int(gid) if gid else None,
        extra_groups=[] if uid else None,
    )


def guard(folder: str, server: subprocess.Popen[bytes]) -> bool:
    """
    Log what a server says until all its processes are gone. Return whether who has asked
    is gone, too.
    """
    assert server.stdout is not None
    said, asked, isLeft = server.stdout.fileno(), 0, False
    seen: bytes | None = b""
    timeout = None
    with selectors.DefaultSelector() as selector, open(f"{folder}/log", "ab") as log:
        selector.register(said, selectors.EVENT_READ)
        selector.register(asked, selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select(timeout)]
            if not ready:
                server.kill()
            if asked in ready:
                isLeft = not os.read(asked, 1)
                selector.unregister(asked)
                # A fast shutdown; SIGTERM would wait for clients for ever.
                server.send_signal(signal.SIGINT)
                timeout = GRACE
            if said in ready:
                text = os.read(said, 65536)
                if not text:
                    return isLeft
                log.write(text)
                log.flush()
                if seen is not None:
                    seen += text
                    if READY in seen:
                        seen = None
                        os.write(1, b"%d\n" % server.pid)


def main() -> None:
    """
    Leave who has asked alone, and guard the server.
    """
    folder, user, *command = sys.argv[1:]
    if os.fork():
        os._exit(0)
    os.setsid()
    # It is told by the pipe, where nobody can read any more.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    server = start(user, command)
    isLeft = guard(folder, server)
    server.wait()
    if isLeft:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
