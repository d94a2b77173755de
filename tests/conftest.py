"""
How much hypothesis tries, which tests are models, and what several tests use.
"""

from __future__ import annotations

import gc
import os
import posix
import resource
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from hypothesis import settings

import asynqueue
from asynqueue.reactors import theReactor
from tests.postgres import Database, Server

# No deadline: nothing here asserts how long anything takes. Only a soak makes other runs each
# time.
settings.register_profile("test", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

# Where coverage is measured, processes that are started find here that theirs is, too.
_MEASURED = "COVERAGE_PROCESS_CONFIG"
_CONFIG = os.environ.get(_MEASURED)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """
    Measure coverage in the processes that a test starts only if it is marked: that more than
    doubles what a process costs, and most of them run what others have run.
    """
    if _CONFIG is not None and item.get_closest_marker("measured"):
        os.environ[_MEASURED] = _CONFIG
    else:
        os.environ.pop(_MEASURED, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Mark each state machine as a model, whoever wrote it: C{-m model} selects them. What
    hypothesis drives is bulk: which lines it runs is a matter of chance.
    """
    for item in items:
        test = getattr(item, "obj", None)
        if hasattr(test, "_hypothesis_state_machine_class"):
            item.add_marker("model")
        if getattr(test, "is_hypothesis_test", False):
            item.add_marker("bulk")


def _beginUnmeasured() -> None:
    """
    Measure no coverage in a fork of this process, if it is none in which that is to be measured:
    what the parent had run is written there once more when it ends, which takes longer than most
    forks live.
    """
    if _CONFIG is not None and _MEASURED not in os.environ:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        # Coverage has put another one in its place.
        os._exit = posix._exit


os.register_at_fork(after_in_child=_beginUnmeasured)


@contextmanager
def untraced() -> Iterator[None]:
    """
    Measure no coverage meanwhile: that makes Python several times slower.
    """
    ours, ofThreads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        threading.settrace(ofThreads)  # type: ignore[arg-type]
        sys.settrace(ours)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """
    Of all that is imported until the tests are found, measure our modules only. The garbage
    collector then leaves alone what there is: it is large, and stays to the end.
    """
    for module in walk_packages(asynqueue.__path__, "asynqueue."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    with untraced():
        collected = yield
    gc.collect()
    gc.freeze()
    return collected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """
    Measure no coverage during a bulk test: tests with less of the same run the same lines.
    """
    if item.get_closest_marker("bulk") is None:
        return (yield)
    with untraced():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """
    Let the end of a child interrupt the main thread where it waits for another one.

    Twisted has what waits go on, so Python does not see that signal for as long as the main
    thread waits; and until it has seen it, Python 3.11 never gets past the beginning of a
    function in a thread that is traced, as for coverage.
    """
    # Once the reactor runs, after it has said how it wants that signal.
    theReactor().callLater(0, signal.siginterrupt, signal.SIGCHLD, True)


@pytest.fixture
def fewFiles() -> Iterator[Callable[[int], None]]:
    """
    Lets so many files more be open than are.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(more: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        free = [os.dup(0) for _ in range(more + 1)]
        for descriptor in free:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], before[1]))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="session")
def emptyPostgres() -> Iterator[Path]:
    """
    What a PostgreSQL server begins with; none runs there.
    """
    server = Server()
    try:
        server.make()
        yield server.data
    finally:
        server.remove()


@pytest.fixture(scope="session")
def runningPostgres(emptyPostgres: Path) -> Iterator[Server]:
    """
    A PostgreSQL server that need not survive a power cut.
    """
    server = Server(fsync="off")
    try:
        server.copy(emptyPostgres)
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(runningPostgres: Server) -> Iterator[Database]:
    """
    An empty database of PostgreSQL.
    """
    database = runningPostgres.database()
    yield database
    database.drop()


@pytest.fixture
def postgresServer(emptyPostgres: Path) -> Iterator[Server]:
    """
    A PostgreSQL server of a test's own, which can be killed: that loses nothing that the kernel has
    heard of.
    """
    server = Server(fsync="off")
    try:
        server.copy(emptyPostgres)
        server.start()
        yield server
    finally:
        server.remove()
