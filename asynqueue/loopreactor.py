"""
A Twisted reactor on an asyncio loop that somebody else runs.

A program that was started by C{asyncio.run} has a loop and no reactor. Its queues use
one of these, which is installed nowhere: each loop has its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

_log = Logger()


class LoopReactor(AsyncioSelectorReactor):
    """
    Runs while its loop runs, and ends with it.

    C{asyncio.run}, as all code that closes a loop with care, calls the loop's
    C{shutdown_asyncgens} before that: then the "shutdown" event of this reactor is
    fired, and its triggers have their time. A loop that was closed without is found
    closed later: see L{abandon}.

    All callbacks run in empty contexts: they belong to no task of the program. Neither
    a signal handler nor a child watcher is installed.
    """

    # The thread that Twisted's functions ask for is that of the installed reactor.
    _registerAsIOThread = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        @raise TypeError: the loop cannot watch descriptors.
        """
        super().__init__(loop)
        self.loop = loop
        #: Whether all is over: the triggers of the "shutdown" event were called.
        self.ended = False
        self._ending: AsyncGenerator[None, None] = self._end()
        self.startRunning(installSignalHandlers=False)
        if asyncio._get_running_loop() is loop:
            self._awaitEnd()
        else:
            loop.call_soon(self._awaitEnd, context=Context())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.loop!r}>"

    def _awaitEnd(self) -> None:
        """
        Have the loop close an asynchronous generator of this reactor when it ends. It
        knows those that began while it ran; to begin, ours does not wait.
        """
        try:
            self._ending.asend(None).send(None)
        except StopIteration:
            # It has yielded.
            pass

    async def _end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            ended = self.loop.create_future()
            self.addSystemEventTrigger("after", "shutdown", ended.set_result, None)
            self.fireSystemEvent("shutdown")
            try:
                await ended
            finally:
                self.ended = True

    def abandon(self) -> None:
        """
        Have all triggers called after the loop was closed, without a word to this
        reactor. They find it closed, and can wait for nothing.
        """
        if not self.ended:
            self.ended = True
            self.fireSystemEvent("shutdown")

    def run(self, installSignalHandlers: bool = True) -> None:
        """
        @raise RuntimeError: always: the program runs the loop.
        """
        raise RuntimeError(f"{self!r} runs while its loop runs: run the loop")

    def crash(self) -> None:
        """
        Does not stop the loop, which belongs to the program.
        """
        self.running = False

    # A loop is woken by its own means.

    def installWaker(self) -> None:
        """
        Installs none.
        """

    def callFromThread(  # type: ignore[override]
        self, f: Callable[..., Any], *args: object, **kwargs: object
    ) -> None:
        """
        Call a function in the thread of the loop. When that is closed, nothing is called: nobody is
        left who could hear of it.
        """
        try:
            self.loop.call_soon_threadsafe(_logged, partial(f, *args, **kwargs), context=Context())
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    # What is registered with the loop keeps the context in which that is done.

    def addReader(self, reader: Any) -> None:
        Context().run(super().addReader, reader)

    def addWriter(self, writer: Any) -> None:
        Context().run(super().addWriter, writer)

    def removeReader(self, reader: Any) -> None:
        if self.loop.is_closed():
            self._readers.pop(reader, None)
        else:
            super().removeReader(reader)  # type: ignore[no-untyped-call]

    def removeWriter(self, writer: Any) -> None:
        if self.loop.is_closed():
            self._writers.pop(writer, None)
        else:
            super().removeWriter(writer)  # type: ignore[no-untyped-call]

    def _reschedule(self) -> None:
        # In a closed loop no time comes; who cleans up there may still set timers.
        if not self.loop.is_closed():
            Context().run(super()._reschedule)

    # Twisted's own would ask the installed reactor for the time.

    def connectSSL(
        self,
        host: Any,
        port: Any,
        factory: Any,
        contextFactory: Any,
        timeout: Any = 30,
        bindAddress: Any = None,
    ) -> Any:
        factory = TLSMemoryBIOFactory(contextFactory, True, factory, clock=self)
        return self.connectTCP(host, port, factory, timeout, bindAddress)

    def listenSSL(
        self, port: Any, factory: Any, contextFactory: Any, backlog: Any = 50, interface: Any = ""
    ) -> Any:
        factory = TLSMemoryBIOFactory(contextFactory, False, factory, clock=self)
        listening: Any = self.listenTCP(  # type: ignore[no-untyped-call]
            port, factory, backlog, interface
        )
        listening._type = "TLS"
        return listening

    # Threads look up names. None of them keeps the program from ending.

    def _initThreadPool(self) -> None:
        super()._initThreadPool()
        pool: Any = self.threadpool
        pool.threadFactory = partial(Thread, daemon=True)


def _logged(f: Callable[[], Any]) -> None:
    """
    Call what another thread wanted to be called, as reactors do.
    """
    try:
        f()
    except Exception:
        # Nobody else hears of it.
        _log.failure("a call from another thread failed")
