"""
A web site is crawled by three hosts, one of which is killed while it is at work.

                   ┌─ WireWorker ── key ──▶ host 1 ── fetch ─┐
    crawl ─▶ queue ┼─ WireWorker ── key ──▶ host 2 ── fetch ─┼─▶ web site
    index ◀─       └─ WireWorker ── key ──▶ host 3 ── fetch ─┘

Each host runs `python -m asynqueue.wire`: on a machine of its own, which is a network
namespace, where that is allowed, and else just behind a UNIX socket. The program makes
the site, the machines and the key itself, and leaves nothing behind. In the middle it
kills a host with SIGKILL and starts it again. What that was fetching is fetched again,
and in the end each word of the site must be in the index with all its pages.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from _fetcher import Fetcher
from _machines import Namespaces, Sockets, moveIntoNamespace, namespacesAreAllowed
from _website import WebSite, deadLinks, indexOf
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater, react
from twisted.web.server import Site

from asynqueue import DeferredTracker, QueueObserver, TaskQueue, WireWorker
from asynqueue.wire.transport.certificates import newKey

UNIVERSE = "_fetcher.Fetcher"

HOSTS = 3

# So many pages are under way with each host.
AT_ONCE = 8

# A page is fetched again if its host was lost; not for ever.
RETRIES = 3

# The host that has an accident, the part of the pages after which it has it, and for how
# many seconds it is gone.
VICTIM = 1
ACCIDENT = 0.2
PAUSE = 0.4

# If it was not done after so many seconds, something is wrong.
PATIENCE = 90

# A line of progress for so many pages.
STEP = 100


class Watcher(QueueObserver):
    """
    Hears from the queue what happens, and tells what is interesting.

    @ivar fetched: how many pages each worker has fetched.
    @ivar lost: how many it was fetching when it was lost.
    @ivar hires: how often it was hired.
    """

    def __init__(self, tell, queue, names):
        self.fetched = Counter()
        self.lost = Counter()
        self.hires = Counter()
        self._tell = tell
        self._queue = queue
        self._names = names
        self._return = Deferred()

    def someReturn(self):
        """
        Wait until a worker is hired again.
        """
        return self._return

    def taskDone(self, task, outcome, worker):
        self.fetched[worker] += 1

    def taskLost(self, task, worker):
        self.lost[worker] += 1

    def workerHired(self, worker):
        self.hires[worker] += 1
        again = "" if self.hires[worker] == 1 else " again"
        self._tell(f"{self._names[worker]} is hired{again} ({worker.host})")
        if again and not self._return.called:
            self._return.callback(None)

    def workerLeft(self, worker):
        # At the end they just go.
        if self._queue.isRunning():
            self._tell(f"{self._names[worker]} has resigned: {worker.loss}")


class Crawl:
    """
    Follows all links of a site, and makes its index.

    @ivar index: for each word the paths of its pages, with how often it is there.
    @ivar pages: how many were read.
    @ivar dead: the addresses where there is nothing.
    @ivar failures: why other pages were not read.
    """

    def __init__(self, queue, address, progress):
        """
        @param progress: is called with the number of pages, after each one.
        """
        self.index = {}
        self.pages = 0
        self.dead = []
        self.failures = []
        self._queue = queue
        self._address = address
        self._progress = progress
        self._known = set()
        self._visits = DeferredTracker()

    @property
    def known(self):
        """
        How many addresses were seen.
        """
        return len(self._known)

    async def run(self):
        """
        Visit all pages.
        """
        self._follow(self._address)
        await self._visits.deferToAll()

    def _follow(self, address):
        if address not in self._known:
            self._known.add(address)
            visit = self._visits.put(Deferred.fromCoroutine(self._visit(address)))
            visit.addErrback(lambda failure: self.failures.append(failure.getErrorMessage()))

    async def _visit(self, address):
        try:
            words, links = await self._queue.call("fetch", address, retries=RETRIES)
        except LookupError:
            # It was raised on the host, and has its own type here.
            self.dead.append(address)
            return
        for word, count in words.items():
            self.index.setdefault(word, {})[urlsplit(address).path] = count
        self.pages += 1
        self._progress(self.pages)
        for link in links:
            self._follow(link)


class Program:
    """
    All of it, from the first host to the summary.
    """

    def __init__(self, reactor, machines, keyFile, pages):
        self._reactor = reactor
        self._machines = machines
        self._keyFile = keyFile
        self._pages = pages
        self._started = time.monotonic()
        self._queue = TaskQueue()
        self._workers = [
            WireWorker(Fetcher(), machine.dial, N_concurrent=AT_ONCE, keyFile=keyFile)
            for machine in machines
        ]
        names = {
            worker: machine.name for worker, machine in zip(self._workers, machines, strict=True)
        }
        self._watcher = Watcher(self._tell, self._queue, names)
        self._queue.addObserver(self._watcher)
        self._site = WebSite(reactor, pages)
        self._crawl = None
        self._accident = None
        self._running = None
        self._isInterrupted = False

    async def run(self, interface):
        """
        Do it.

        @param interface: the address where the site is served.
        @raise SystemExit: something is wrong.
        """
        # Ctrl-C is to be heard of here before the queue hears of it.
        self._reactor.addSystemEventTrigger("before", "shutdown", self._interrupt)
        self._running = Deferred.fromCoroutine(self._run(interface))
        try:
            await self._running.addTimeout(PATIENCE, self._reactor)
        except TimeoutError:
            raise SystemExit(f"wrong: it was not done after {PATIENCE} s") from None
        except Exception:
            if self._isInterrupted:
                raise SystemExit("interrupted") from None
            raise

    def _interrupt(self):
        self._isInterrupted = not self._running.called
        self._running.cancel()

    async def _run(self, interface):
        endpoint = TCP4ServerEndpoint(self._reactor, 0, interface=interface)
        port = await endpoint.listen(Site(self._site))
        address = f"http://{interface}:{port.getHost().port}/page/0"
        self._tell(f"a site of {self._pages} pages is served at {address}")
        await self._hire()
        self._crawl = Crawl(self._queue, address, self._progress)
        await self._crawl.run()
        self._tell(f"all links were followed: {self._counts()}")
        if self._accident is not None:
            # It is hired as soon as it is there, also if nothing is left to do.
            await gatherResults([self._accident, self._watcher.someReturn()])
        await self._queue.shutdown()
        await port.stopListening()
        statuses = [machine.stop() for machine in self._machines]
        self._tell("the hosts have ended")
        self._summary()
        self._check(statuses)

    async def _hire(self):
        for machine in self._machines:
            machine.start(UNIVERSE, self._keyFile)
        # Each is hired when its host is there and has proved that it knows the key.
        hired = [self._queue.attachWorker(worker) for worker in self._workers]
        await gatherResults(hired, consumeErrors=True)

    def _progress(self, pages):
        if pages % STEP == 0:
            self._tell(self._counts())
        if self._accident is None and pages >= ACCIDENT * self._pages:
            self._accident = Deferred.fromCoroutine(self._have())

    async def _have(self):
        """
        Have an accident.
        """
        machine = self._machines[VICTIM]
        machine.kill()
        self._tell(f"{machine.name} was killed with SIGKILL")
        await deferLater(self._reactor, PAUSE)
        machine.start(UNIVERSE, self._keyFile)
        self._tell(f"{machine.name} is started again")

    def _counts(self):
        crawl = self._crawl
        return f"{crawl.pages} pages read, {crawl.known} addresses known"

    def _tell(self, text):
        print(f"{time.monotonic() - self._started:6.2f} s  {text}", flush=True)

    def _summary(self):
        watcher = self._watcher
        print("\nhost      fetched   lost   hires")
        for machine, worker in zip(self._machines, self._workers, strict=True):
            counts = watcher.fetched[worker], watcher.lost[worker], watcher.hires[worker]
            print("{:<8} {:8} {:6} {:7}".format(machine.name, *counts))
        lost, crawl = watcher.lost.total(), self._crawl
        print(f"\n{lost} fetches were lost with their host and tried again")
        print(
            f"{crawl.pages} pages and {len(crawl.dead)} dead links,"
            f" for which the site was asked {self._site.requests} times"
        )
        words = Counter({word: len(pages) for word, pages in crawl.index.items()})
        most = ", ".join(f"{word} on {count} pages" for word, count in words.most_common(3))
        print(f"{len(words)} words: {most}, ...")

    def _check(self, statuses):
        """
        @raise SystemExit: something is wrong.
        """
        crawl, watcher = self._crawl, self._watcher
        wrong = crawl.failures[:3]
        if crawl.pages != self._pages or crawl.index != indexOf(self._pages):
            wrong.append("the index is not that of the site")
        if len(crawl.dead) != deadLinks(self._pages):
            wrong.append(f"there should be {deadLinks(self._pages)} dead links")
        if watcher.fetched.total() != crawl.known:
            wrong.append(f"{crawl.known} addresses, but {watcher.fetched.total()} results")
        if [watcher.hires[worker] for worker in self._workers] != [1, 2, 1]:
            wrong.append("the host that was killed should be hired twice, the others once")
        if any(statuses):
            wrong.append(f"the hosts ended with {statuses}, not 0")
        if wrong:
            raise SystemExit("\nwrong: " + "; ".join(wrong))
        print("\nthe index is right, and nothing was lost")


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0], epilog=__doc__.strip().split("\n\n")[-1]
    )
    parser.add_argument(
        "--network",
        choices=["auto", "namespaces", "sockets"],
        default="auto",
        help="what the hosts are: auto takes namespaces where they are allowed",
    )
    parser.add_argument("--pages", type=int, default=900, help="how many the site has")
    # The program has moved into a namespace of its own.
    parser.add_argument("--moved", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pages < STEP:
        parser.error(f"a site has {STEP} pages or more")
    if options.network == "auto":
        options.network = "namespaces" if namespacesAreAllowed() else "sockets"
    elif options.network == "namespaces" and not options.moved and not namespacesAreAllowed():
        parser.error("this machine does not allow network namespaces: try --network sockets")
    return options


def main():
    options = arguments()
    if options.network == "namespaces" and not options.moved:
        moveIntoNamespace(
            [__file__, "--moved", "--network", "namespaces", "--pages", str(options.pages)]
        )
    with tempfile.TemporaryDirectory(prefix="crawler-") as folder:
        keyFile = Path(folder) / "shared.key"
        keyFile.touch(mode=0o600)
        keyFile.write_bytes(newKey())
        with Namespaces() if options.moved else Sockets(folder) as network:
            machines = [network.machine(number + 1) for number in range(HOSTS)]
            print(f"{HOSTS} hosts: {network.inWords}")
            try:
                react(
                    lambda reactor: Program(reactor, machines, keyFile, options.pages).run(
                        network.address
                    )
                )
            finally:
                for machine in machines:
                    machine.stop()


if __name__ == "__main__":
    # Until the reactor sees to it, the end by SIGTERM is as orderly as that by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
