"""
A web page of twisted.web that has its work done in two processes: thumbnails of photos, and sums
of CSV files, that are posted over 32 connections by another program.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ProcessProtocol
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from benchmarks.page_work import file, photo, sums, thumbnail
from benchmarks.process_calls import pause
from benchmarks.process_figures import WORKERS, Activity, Figures, percentiles
from benchmarks.rounds import ROOT, runRounds, table

CONNECTIONS = 32
REQUESTS = {"thumbnails": 400, "sums": 400}
WORK = {"thumbnails": (photo, thumbnail), "sums": (file, sums)}

Call = Callable[..., Deferred[Any]]


class Page(Resource):
    """
    Answers with what a function makes of what was posted.
    """

    isLeaf = True

    def __init__(self, call: Call, f: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._call = call
        self._f = f

    def render_POST(self, request: Any) -> Any:
        def answer(made: bytes) -> None:
            request.setHeader(b"content-length", str(len(made)).encode())
            request.write(made)
            request.finish()

        def fail(failure: Any) -> None:
            request.setResponseCode(500)
            request.finish()
            print(failure, file=sys.stderr)

        self._call(self._f, request.content.read()).addCallback(answer).addErrback(fail)
        return NOT_DONE_YET


class Load(ProcessProtocol):
    """
    The program that posts.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._said = b""
        self.ended: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._body)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._said += data

    def errReceived(self, data: bytes) -> None:
        sys.stderr.buffer.write(data)

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(json.loads(self._said))


async def measured(
    reactor: Any, call: Call, work: str, children: Callable[[], Iterable[int]]
) -> Figures:
    """
    Serve a page, and have it asked.

    @param children: gives the processes that work for it.
    """
    make, f = WORK[work]
    body = make()
    await gatherResults([call(pause) for _ in range(WORKERS)])
    await gatherResults([call(f, body) for _ in range(2 * WORKERS)])
    port = reactor.listenTCP(0, Site(Page(call, f)), interface="127.0.0.1")
    words = [port.getHost().port, "page", CONNECTIONS, REQUESTS[work]]
    load = Load(body)
    command = [sys.executable, "-m", "benchmarks.page_load", *map(str, words)]
    reactor.spawnProcess(load, sys.executable, command, env=None, path=str(ROOT))
    activity = Activity(children())
    its = await load.ended
    used = activity.figures()["cpu ms"] / REQUESTS[work]
    await port.stopListening()
    speed = REQUESTS[work] / its["seconds"]
    return {"requests/s": speed, "CPU ms": used, **percentiles(its["times"], "ms", 1e3)}


async def ours(work: str, reactor: Any) -> Figures:
    """
    With our ProcessQueue.
    """
    from asynqueue import ProcessQueue

    queue = ProcessQueue(WORKERS)

    def pids() -> list[int]:
        return [pid for worker in queue.workers() for pid in worker.pids]

    figures = await measured(reactor, queue.call, work, pids)
    await queue.shutdown()
    return figures


async def executor(method: str, work: str, reactor: Any) -> Figures:
    """
    With the ProcessPoolExecutor.
    """
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:

        def call(f: Callable[..., Any], *args: Any) -> Deferred[Any]:
            d: Deferred[Any] = Deferred()
            future = pool.submit(f, *args)
            future.add_done_callback(
                lambda future: reactor.callFromThread(lambda: d.callback(future.result()))
            )
            return d

        return await measured(reactor, call, work, lambda: pool._processes)


async def pool(method: str, work: str, reactor: Any) -> Figures:
    """
    With the Pool of multiprocessing.
    """
    with multiprocessing.get_context(method).Pool(WORKERS) as pool:

        def call(f: Callable[..., Any], *args: Any) -> Deferred[Any]:
            d: Deferred[Any] = Deferred()
            pool.apply_async(
                f, args, callback=lambda value: reactor.callFromThread(d.callback, value)
            )
            return d

        return await measured(reactor, call, work, lambda: [each.pid for each in pool._pool])


oursThumbnails, oursSums = partial(ours, "thumbnails"), partial(ours, "sums")
executorThumbnails = partial(executor, "forkserver", "thumbnails")
executorSums = partial(executor, "forkserver", "sums")
poolThumbnails = partial(pool, "forkserver", "thumbnails")
poolSums = partial(pool, "forkserver", "sums")


def pages(rounds: int) -> str:
    """
    Both kinds of work.
    """
    text = []
    for title, kind in (("Thumbnails by Pillow", "Thumbnails"), ("Sums by pandas", "Sums")):
        names = {
            "asynqueue ProcessQueue": f"pages:ours{kind}",
            "ProcessPoolExecutor (forkserver)": f"pages:executor{kind}",
            "multiprocessing.Pool (forkserver)": f"pages:pool{kind}",
        }
        figures = runRounds(list(names.values()), rounds)
        least = figures[f"pages:ours{kind}"]["requests/s"]
        rows = [
            [
                name,
                f"{its['requests/s']:,.0f}",
                f"{least / its['requests/s']:.2f}",
                f"{its['CPU ms']:.1f}",
                f"{its['p50 ms']:.0f}",
                f"{its['p99 ms']:.0f}",
            ]
            for name, its in ((name, figures[contender]) for name, contender in names.items())
        ]
        columns = ["what", "requests/s", "ours / its", "CPU ms each", "p50 ms", "p99 ms"]
        title = f"{title} behind a web page, {CONNECTIONS} connections"
        text.append(table(title, columns, rows))
    return "\n".join(text)
