"""
Logs are summed up by all cores, while a web server of the same program answers.

    access-1.log ─┐
    access-2.log ─┼▶ ProcessQueue.map(summary) ──▶ totals ──▶ page ──▶ browser
    access-3.log ─┘     (processes)                 (reactor)

The program writes the logs itself, and is its own browser, which asks for the page
twenty times a second: how long it waits shows whether anything blocks the reactor.
"""

import random
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, react
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import Site

from asynqueue import ProcessQueue

FILES = 25
LINES = 8000

PATHS = ["/", "/news", "/login", "/search", "/img/logo.png", "/api/items", "/api/orders"]
STATUSES = [200] * 90 + [304] * 5 + [404] * 4 + [500]

# The format that web servers call "combined".
LINE = re.compile(
    r"(?P<host>\S+) \S+ \S+ \[(?P<time>[^]]+)\] "
    r'"(?P<method>\S+) (?P<path>\S+) [^"]*" (?P<status>\d{3}) (?P<bytes>\d+|-)'
)


def writeLog(path, seed):
    """
    Write a log as a web server would. This runs in a process.
    """
    chance = random.Random(seed)
    with open(path, "w", encoding="ascii") as file:
        for n in range(LINES):
            host = f"192.0.2.{chance.randrange(256)}"
            moment = f"01/Mar/2024:{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02} +0000"
            status = chance.choice(STATUSES)
            size = chance.randrange(200, 20_000) if status == 200 else 0
            file.write(
                f'{host} - - [{moment}] "GET {chance.choice(PATHS)} HTTP/1.1"'
                f' {status} {size or "-"} "-" "Mozilla/5.0"\n'
            )
    return path


def summary(path):
    """
    Sum up a log. This runs in a process.

    @return: how many requests there were for each status and each path, and the
        bytes of all answers.
    """
    statuses, paths, size = Counter(), Counter(), 0
    with open(path, encoding="ascii") as file:
        for match in map(LINE.match, file):
            statuses[match["status"]] += 1
            paths[match["path"]] += 1
            if match["bytes"] != "-":
                size += int(match["bytes"])
    return statuses, paths, size


class Page(Resource):
    """
    Shows the totals as they are now.
    """

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.files = 0
        self.bytes = 0
        self.statuses = Counter()
        self.paths = Counter()

    def add(self, statuses, paths, size):
        self.files += 1
        self.statuses += statuses
        self.paths += paths
        self.bytes += size

    def lines(self):
        yield f"{self.files} of {FILES} logs, {self.statuses.total():,} requests"
        yield f"{self.bytes:,} bytes sent"
        for name, counter in (("status", self.statuses), ("path", self.paths)):
            for key, count in counter.most_common(4):
                yield f"{name} {key:<14} {count:>7,}"

    def render_GET(self, request):
        request.setHeader("content-type", "text/plain; charset=utf-8")
        return "\n".join([*self.lines(), ""]).encode()


class Body(Protocol):
    """
    Reads an answer to its end.
    """

    def __init__(self):
        self.read = Deferred()

    def connectionLost(self, reason):
        self.read.callback(None)


class Browser:
    """
    Asks for a page again and again.
    """

    def __init__(self, reactor, address):
        self._pool = HTTPConnectionPool(reactor)
        self._agent = Agent(reactor, pool=self._pool)
        self._address = address
        self._loop = LoopingCall(self._ask)
        self._ended = None
        self.seconds = []

    def start(self):
        self._ended = self._loop.start(0.05)

    async def stop(self):
        if self._loop.running:
            self._loop.stop()
        # If a request failed, that fails.
        await self._ended
        await self._pool.closeCachedConnections()

    async def _ask(self):
        asked = time.perf_counter()
        answer = await self._agent.request(b"GET", self._address)
        body = Body()
        answer.deliverBody(body)
        await body.read
        self.seconds.append(time.perf_counter() - asked)


async def main(reactor):
    page = Page()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(page))
    browser = Browser(reactor, f"http://127.0.0.1:{port.getHost().port}/".encode())
    queue = ProcessQueue()
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"access-{n}.log") for n in range(FILES)]
        browser.start()
        await gatherResults([queue.call(writeLog, path, n) for n, path in enumerate(paths)])
        started = time.perf_counter()
        async for result in queue.map(summary, paths, ordered=False):
            page.add(*result)
        seconds = time.perf_counter() - started
    await browser.stop()
    await queue.shutdown()
    await port.stopListening()

    print("\n".join(page.lines()))
    print(f"\nwritten and summed up, the latter in {seconds:.2f} s; meanwhile")
    slowest = max(browser.seconds) * 1000
    print(f"the page was served {len(browser.seconds)} times, at worst in {slowest:.0f} ms")
    assert page.statuses.total() == FILES * LINES


if __name__ == "__main__":
    react(main)
