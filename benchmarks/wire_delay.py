"""
A long line: C{python -m benchmarks.wire_delay PORT SECONDS} passes on to a port of this
machine whatever comes, in each direction so many seconds later, at any speed.
"""

from __future__ import annotations

import sys
from collections import deque
from time import monotonic
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol


class Direction:
    """
    What is on its way to one side.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._under: deque[tuple[float, bytes | None]] = deque()
        self._timer: Any = None
        self.side: Any = None

    def put(self, data: bytes | None) -> None:
        """
        Something comes in, or the end.
        """
        self._under.append((monotonic() + self._seconds, data))
        if self._timer is None:
            self._timer = reactor.callLater(self._seconds, self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        now = monotonic()
        while self._under and self._under[0][0] <= now:
            data = self._under.popleft()[1]
            if data is None:
                self.side.transport.loseConnection()
            else:
                self.side.transport.write(data)
        if self._under:
            self._timer = reactor.callLater(self._under[0][0] - now, self._deliver)


class Side(Protocol):
    """
    One end of the line.
    """

    def __init__(self, there: Direction) -> None:
        self._there = there

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        self._there.put(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._there.put(None)


class Line(Factory):
    """
    Makes a line for each connection.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds

    def buildProtocol(self, address: Any) -> Side:
        there, back = Direction(self._seconds), Direction(self._seconds)
        near, far = Side(there), Side(back)
        back.side, there.side = near, far
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self._port)
        connectProtocol(endpoint, far)
        return near


def main(port: int, seconds: float) -> None:
    """
    Be the line.
    """

    def listening(port: Any) -> None:
        print(port.getHost().port, flush=True)

    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    endpoint.listen(Line(port, seconds)).addCallback(listening)
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
