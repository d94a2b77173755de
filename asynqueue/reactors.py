"""
Which reactor drives a queue: the one place that looks up the installed reactor and the
running asyncio loop.

Nothing is looked up before it is needed, and then it is kept: what was given; or else
that of the asyncio loop that runs now; or else the installed one. Only where none of
these is, the default reactor is installed.
"""

from __future__ import annotations

import asyncio
import sys
from selectors import EVENT_READ, DefaultSelector
from time import monotonic
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred

from asynqueue.errors import LoopError
from asynqueue.loopreactor import LoopReactor

# The reactors of loops on which none is installed. Those of closed loops go when
# another one comes.
_ofLoops: dict[asyncio.AbstractEventLoop, LoopReactor] = {}


# Who has one of these is a reactor, or the double of one.
_ABILITIES = ("callLater", "callFromThread", "addReader")


def theReactor(given: Any = None) -> Any:
    """
    Return the reactor to use now. It may install the default one.

    @param given: a reactor; an asyncio loop, which has one; or C{None}.
    @raise TypeError: it is none of these.
    @raise LoopError: it is a loop that is closed.
    """
    if given is None:
        given = asyncio._get_running_loop()
        if given is None:
            # Importing this name installs the default reactor, if there is none.
            from twisted.internet import reactor

            return reactor
    elif not isinstance(given, asyncio.AbstractEventLoop):
        return checkedReactor(given)
    installed = installedReactor()
    if loopOf(installed) is given:
        return installed
    return _reactorOn(given)


def checkedReactor(given: Any) -> Any:
    """
    Return what was given as a reactor, for later: it is not looked up yet.

    @raise TypeError: it is neither a reactor nor an asyncio loop nor C{None}.
    """
    if (
        given is not None
        and not isinstance(given, asyncio.AbstractEventLoop)
        and not any(callable(getattr(given, name, None)) for name in _ABILITIES)
    ):
        raise TypeError(
            f"reactor={given!r} cannot drive anything: give a Twisted reactor, an asyncio loop,"
            " or None for the one that runs"
        )
    return given


def runningReactor(given: Any = None) -> Any:
    """
    Return the reactor that was given or runs now, or C{None}. It installs nothing.

    @raise TypeError: C{given} is neither a reactor nor an asyncio loop.
    @raise LoopError: it is a loop that is closed.
    """
    if given is not None or asyncio._get_running_loop() is not None:
        return theReactor(given)
    installed = installedReactor()
    return installed if installed is not None and installed.running else None


def presentReactor(given: Any = None) -> Any:
    """
    Return the reactor that was given, or runs, or is installed; or C{None}. It installs nothing.

    @raise TypeError: C{given} is neither a reactor nor an asyncio loop.
    @raise LoopError: it is a loop that is closed.
    """
    if given is None and asyncio._get_running_loop() is None:
        return installedReactor()
    return theReactor(given)


def installedReactor() -> Any:
    """
    Return the reactor that is installed, or C{None}.
    """
    return sys.modules.get("twisted.internet.reactor")


def loopOf(reactor: Any) -> asyncio.AbstractEventLoop | None:
    """
    Return the asyncio loop that a reactor is on, or C{None}.
    """
    if isinstance(reactor, AsyncioSelectorReactor):
        return reactor._asyncioEventloop
    return None


def runningLoop() -> asyncio.AbstractEventLoop | None:
    """
    Return the asyncio loop that runs this code, or C{None}.
    """
    return asyncio._get_running_loop()


def isGone(reactor: Any) -> bool:
    """
    Tell whether a reactor runs no more, as its asyncio loop has ended.
    """
    return isinstance(reactor, LoopReactor) and (reactor.ended or reactor.loop.is_closed())


def loopIsClosed(reactor: Any) -> bool:
    """
    Tell whether the asyncio loop of a reactor is closed, so that nothing can be waited for.
    """
    loop = loopOf(reactor)
    return loop is not None and loop.is_closed()


def readUntil(reactor: Any, done: Deferred[Any], seconds: float) -> None:
    """
    Read what comes, in the place of a reactor whose loop is closed: until a Deferred has
    fired, or the seconds have passed.
    """
    end = monotonic() + seconds
    while not done.called and (left := end - monotonic()) > 0:
        with DefaultSelector() as selector:
            for reader in reactor.getReaders():
                selector.register(reader, EVENT_READ)
            for key, _ in selector.select(left):
                reading: Any = key.fileobj
                reading.doRead()


def checkDrives(reactor: Any, what: str) -> None:
    """
    Look whether a reactor can drive what is waited for here, as far as that is known.

    @param what: what is to be called or waited for, for the error.
    @raise LoopError: it surely cannot.
    """
    loop = asyncio._get_running_loop()
    own = loopOf(reactor)
    if own is not None:
        if own.is_closed():
            raise LoopError(what, "the asyncio loop of its queue is closed")
        if loop is not None and loop is not own:
            raise LoopError(what, "its queue belongs to another asyncio loop")
    elif loop is not None and isinstance(reactor, ReactorBase):
        raise LoopError(what, "its queue is driven by a reactor that does not run this loop")
    if loop is None:
        library = _otherLibrary()
        if library:
            raise LoopError(what, f"{library} runs this code, and cannot wait for Deferreds")


def _otherLibrary() -> str:
    """
    Return the library that runs this code, if it is neither Twisted nor asyncio; or nothing.
    """
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is None:
        # Who has a loop of his own says so there.
        return ""
    try:
        name: str = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return ""
    return "" if name in ("asyncio", "twisted") else name


def _reactorOn(loop: asyncio.AbstractEventLoop) -> LoopReactor:
    """
    Return the reactor of a loop on which none is installed.
    """
    reactor = _ofLoops.get(loop)
    if reactor is None or (reactor.ended and not loop.is_closed()):
        for other in [other for other in list(_ofLoops) if other.is_closed()]:
            closed = _ofLoops.pop(other, None)
            if closed is not None:
                closed.abandon()
        if loop.is_closed():
            raise LoopError("anything", "this asyncio loop is closed")
        reactor = _ofLoops[loop] = LoopReactor(loop)
    return reactor
