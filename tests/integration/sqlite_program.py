"""
A program with a store in a file: does what it is told to, and prints what the store has answered.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from asynqueue.reactors import theReactor
from asynqueue.stores.errors import StoreUnavailable
from asynqueue.stores.operations import Add, Begin, Claim, End, Ended, Register, Want
from asynqueue.stores.parsing import storeFromString
from asynqueue.stores.records import Flow, JobState, NewJob, NodeRecord, Outcome

loop = theReactor()
store = storeFromString(f"sqlite:{sys.argv[2]}")


def say(*words: object) -> None:
    """
    Print a line in one write, which is whole or not there.
    """
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def job(number: int, size: int = 10) -> NewJob:
    """
    Return the job with a number.
    """
    return NewJob(id=str(UUID(int=number)), name="m:f", payload=bytes(size))


async def doAdd() -> None:
    """
    Adds jobs for ever, 20 at a time, each by its own operation.
    """
    number = 0

    async def one(new: NewJob) -> None:
        await store.do(Add((new,)))
        say("added", new.id)

    while True:
        await gatherResults([ensureDeferred(one(job(number + i))) for i in range(20)])
        number += 20


async def doLive() -> None:
    """
    Adds, claims, begins and ends jobs for ever, five chains of them at a time.
    """

    async def chain(first: int) -> None:
        number = first
        while True:
            await store.do(Add((job(number),)))
            say("added", job(number).id)
            number += 5
            claims = await store.do(Claim("n", (Want(Flow(), 1),)))
            for claimed in claims.claimed:
                attempt = claimed.attempt
                if await store.do(Begin("n", (attempt,))):
                    say("begun", attempt.id)
                await store.do(End("n", (Ended(attempt, Outcome(kind=JobState.DONE)),)))
                say("ended", attempt.id)

    await gatherResults([ensureDeferred(chain(first)) for first in range(5)])


async def doHold() -> None:
    """
    Has the file until it is killed.
    """
    say("open")
    await Deferred()


async def doLeave() -> None:
    """
    Ends with the store open, and something asked that nobody waits for.
    """
    await store.do(Add((job(1),)))
    say("added", job(1).id)
    for number in range(2, 500):
        store.do(Add((job(number),)))


async def doFill() -> None:
    """
    Adds until the file may not grow any more, and then, when it may, again.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    number = 0
    try:
        while True:
            await store.do(Add((job(number, 50_000),)))
            say("added", job(number).id)
            number += 1
    except StoreUnavailable as error:
        say("full", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.do(Add((job(number, 50_000),)))
    say("added", job(number).id)
    await store.close()


async def main(part: str) -> None:
    """
    Open the store, and do a part.
    """
    parts: dict[str, Any] = {
        "add": doAdd,
        "live": doLive,
        "hold": doHold,
        "leave": doLeave,
        "fill": doFill,
    }
    await store.open()
    await store.do(Register(NodeRecord(id="n", name="n", host="h", pid=os.getpid()), 3600))
    await parts[part]()


if __name__ == "__main__":
    running = ensureDeferred(main(sys.argv[1]))
    running.addErrback(lambda failure: say("failed", failure.getErrorMessage()))
    running.addBoth(lambda _: loop.callWhenRunning(loop.stop))
    loop.run()
