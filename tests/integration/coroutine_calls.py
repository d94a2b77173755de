"""
Coroutines that are called in processes of L{ProcessQueue}: all that needs C{asyncio}, whose
import would cost each process as much as everything else it has.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import NoReturn

from asynqueue.testing.calls import Token
from tests.integration.process_calls import note


async def loopNumber() -> tuple[int, int]:
    """
    The process, and which event loop runs this.
    """
    await asyncio.sleep(0)
    return os.getpid(), id(asyncio.get_running_loop())


async def asyncRaise() -> NoReturn:
    """
    Fail.
    """
    await asyncio.sleep(0)
    raise LookupError("from a coroutine")


async def asyncExit() -> NoReturn:
    """
    Leave.
    """
    await asyncio.sleep(0)
    sys.exit(5)


async def asyncNumbers(end: int) -> AsyncIterator[int]:
    """
    Some numbers.
    """
    for number in range(end):
        await asyncio.sleep(0)
        yield number


async def waitCancelled(gate: Token, path: str) -> None:
    """
    Wait in an event loop, and note what ends that.
    """
    try:
        gate.signal()
        await asyncio.sleep(60)
    except BaseException as error:
        note(path, f"{type(error).__module__}.{type(error).__name__}")
        raise
    finally:
        note(path, "finally")


async def swallowCancelled(gate: Token) -> None:
    """
    A coroutine that will not be cancelled.
    """
    gate.signal()
    while True:
        # It is cancelled where it waits only.
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass
