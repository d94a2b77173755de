"""
AMP by itself: a server, C{python -m benchmarks.wire_floor ENDPOINT}, and what a client
gets from it. Large things go as AMP's own users send them: in chunks, each of which
waits for the answer to the one before.
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

from twisted.internet import endpoints, reactor
from twisted.internet.protocol import Factory
from twisted.protocols import amp

from benchmarks.process_figures import percentiles, thereAndBack
from benchmarks.wire_figures import (
    CHUNK,
    DELAY_SECONDS,
    LARGE,
    ONE_BY_ONE,
    PART_OF_LARGE,
    Figures,
    Hosts,
)


class Noop(amp.Command):
    """
    Nothing.
    """


class Put(amp.Command):
    """
    Keep a chunk.
    """

    arguments = [(b"data", amp.String())]


class Get(amp.Command):
    """
    Give a chunk back.
    """

    arguments = [(b"index", amp.Integer())]
    response = [(b"data", amp.String())]


class Server(amp.AMP):
    """
    Keeps chunks, and gives them back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.chunks: list[bytes] = []

    @Noop.responder
    def noop(self) -> dict[str, Any]:
        """
        Nothing.
        """
        return {}

    @Put.responder
    def put(self, data: bytes) -> dict[str, Any]:
        """
        Keep it.
        """
        self.chunks.append(data)
        return {}

    @Get.responder
    def get(self, index: int) -> dict[str, Any]:
        """
        Give it back.
        """
        return {"data": self.chunks[index]}


async def connected(description: str) -> Any:
    """
    A client.
    """
    return await endpoints.connectProtocol(
        endpoints.clientFromString(reactor, description), amp.AMP()
    )


async def roundTrip(reactor: Any) -> Figures:
    """
    One empty command at a time.
    """
    with Hosts() as hosts:
        socket = f"unix:{hosts.path('amp')}"
        hosts.start("benchmarks.wire_floor", socket)
        client = await connected(socket)
        times = []
        for _ in range(ONE_BY_ONE):
            start = perf_counter()
            await client.callRemote(Noop)
            times.append(perf_counter() - start)
        client.transport.loseConnection()
    return percentiles(times)


async def _stopAndWait(description: str, size: int) -> Figures:
    client = await connected(description)
    data = bytes(size)
    start = perf_counter()
    count = 0
    for at in range(0, size, CHUNK):
        await client.callRemote(Put, data=data[at : at + CHUNK])
        count += 1
    parts = [(await client.callRemote(Get, index=index))["data"] for index in range(count)]
    assert len(b"".join(parts)) == size
    seconds = perf_counter() - start
    client.transport.loseConnection()
    return thereAndBack(1, size, seconds)


async def large(reactor: Any) -> Figures:
    """
    64 MB there and back.
    """
    with Hosts() as hosts:
        line = hosts.start("benchmarks.wire_floor", "tcp:0:interface=127.0.0.1")
        return await _stopAndWait(f"tcp:127.0.0.1:{line.split()[-1]}", LARGE)


async def largeFarAway(reactor: Any) -> Figures:
    """
    The same over a long line.
    """
    with Hosts() as hosts:
        line = hosts.start("benchmarks.wire_floor", "tcp:0:interface=127.0.0.1")
        port = hosts.start("benchmarks.wire_delay", line.split()[-1], str(DELAY_SECONDS))
        return await _stopAndWait(f"tcp:127.0.0.1:{port}", PART_OF_LARGE)


def main(description: str) -> None:
    """
    Serve.
    """
    endpoint = endpoints.serverFromString(reactor, description)

    def listening(port: Any) -> None:
        print("ready", getattr(port.getHost(), "port", 0), flush=True)

    endpoint.listen(Factory.forProtocol(Server)).addCallback(listening)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
