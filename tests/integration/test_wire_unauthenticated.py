"""
A port that needs a key, and thousands who have none: the host still serves, with no
more memory than before, and has unpickled nothing.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, seed, settings, strategies as st
from twisted.protocols.amp import COMMAND

from asynqueue.codec import decode, encodeCall
from asynqueue.framing import packed
from asynqueue.wire.protocol.boxes import (
    BoxParser,
    canonical,
    chunkTail,
    packedBatch,
    packedBox,
    packedChunk,
)
from asynqueue.wire.protocol.commands import LEAST_LARGEST, Goodbye, Greet, Prove, Refuse, Welcome
from asynqueue.wire.protocol.messages import MessageKind, packedCall
from asynqueue.wire.protocol.session import Session
from tests.integration.process_checks import PATIENCE
from tests.wires import Side

KEY = "the key that nobody of them has."

PROGRAM = Path(__file__).with_name("wire_canary.py")

# Twice as many examples as is the rule, of so many streams each: 4,000, and 80,000 in
# C{make soak}.
IN_ONE = 20
EXAMPLES = 2 * settings.default.max_examples
STREAMS = EXAMPLES * IN_ONE

# So many stay connected, though it is all said.
STAYING = 50

# The memory that a host may have got in the end, beside what the first quarter cost it:
# an allocator keeps some of what it had at most. If a connection were kept, each would
# cost more than 5 kB: 15 MB.
SLACK = 8 << 20


class Canary:
    """
    Makes a folder when it is unpickled.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


class Host:
    """
    A host in a process of its own.

    @ivar folder: where marks are left.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), KEY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self._seen = psutil.Process(self.process.pid)

    def dial(self) -> socket.socket:
        """
        Connect to it.
        """
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def call(self, arguments: bytes | None) -> tuple[int, bytes]:
        """
        Have the key, and make a call.

        @return: the kind of the answer, and its body.
        """
        side = Side(Session("queue", True, key=KEY.encode()))
        side.session.start()
        parser = BoxParser(1 << 20, 100)
        isSent = False
        with self.dial() as connection:
            while not side.messages:
                connection.sendall(b"".join(side.say()))
                parser.add(connection.recv(1 << 16))
                while (box := parser.next()) is not None:
                    side.hear([box])
                assert side.error is None
                if side.session.peer is not None and not isSent:
                    isSent = True
                    side.session.send(MessageKind.CALL, 1, packedCall(0, "add", arguments))
        [(kind, _, body, _)] = side.messages
        return kind, body

    def serves(self) -> bool:
        """
        Whether somebody who has the key can make a call there.
        """
        kind, body = self.call(encodeCall((2, 3), {})[0])
        return kind == MessageKind.RETURNED and bool(decode(body) == 5)

    @property
    def memory(self) -> int:
        """
        The bytes that it has.
        """
        return int(self._seen.memory_info().rss)

    def descriptorsAlone(self) -> int:
        """
        How many it has open once nobody is connected.
        """
        end = monotonic() + PATIENCE
        while any(each.status != psutil.CONN_LISTEN for each in self._seen.net_connections()):
            assert monotonic() < end, self._seen.net_connections()
            os.sched_yield()
        return int(self._seen.num_fds())

    def marks(self) -> list[str]:
        """
        What nobody without a key may make happen.
        """
        return os.listdir(self.folder)

    def close(self) -> int:
        """
        End it.

        @return: its exit code.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """
    A host that needs a key.
    """
    host = Host(tmp_path_factory.mktemp("marks"))
    yield host
    assert host.close() == 0


def pickles(path: str) -> list[bytes]:
    """
    Messages that would leave a mark, if anybody took them.
    """
    pickled = pickle.dumps(Canary(path), 5)
    call = packedCall(0, "add", pickled)
    return [
        packed(MessageKind.CALL, 1, call),
        packed(MessageKind.DEFINE, 1, pickled),
        packed(MessageKind.RETURNED, 1, pickled),
        pickled,
    ]


def boxes(path: str) -> st.SearchStrategy[bytes]:
    """
    What may be said by somebody who knows the protocol, but not the key.
    """
    numbers = st.integers(-1, 1 << 40)
    greetings = st.builds(
        lambda **said: packedBox(Greet, **said),
        versions=st.lists(st.sampled_from([0, 1, 1, 1, 2, 1 << 70]), max_size=3),
        software=st.text(max_size=20),
        python=st.just("3.12.1"),
        role=st.sampled_from(["queue", "queue", "queue", "host", "boss"]),
        nonce=st.sampled_from([b"n" * 32, b"n" * 32, b"n", b""]),
        codec=st.sampled_from(["pickle", "pickle", "pickle", "cbor"]),
        keyed=st.sampled_from([True, True, True, False]),
    )
    messages = st.sampled_from(pickles(path))
    some = st.one_of(
        greetings,
        st.binary(max_size=40).map(lambda proof: packedBox(Prove, proof=proof)),
        st.builds(
            lambda window, about: packedBox(
                Welcome, window=window, largest=LEAST_LARGEST, about=about
            ),
            numbers,
            st.sampled_from(["{}", "[" * 500, '{"series": []}']),
        ),
        messages.map(lambda frame: packedBatch([frame], len(frame))),
        messages.map(lambda frame: packedChunk([frame], len(frame), chunkTail(1))),
        messages.map(lambda data: canonical({COMMAND: b"Prove", b"proof": data})),
        messages.map(lambda data: canonical({COMMAND: data[:200], b"frames": data})),
        st.text(max_size=50).map(lambda text: packedBox(Goodbye, reason=text)),
        st.text(max_size=50).map(lambda text: packedBox(Refuse, code="busy", text=text)),
        st.binary(max_size=200),
        st.dictionaries(
            st.one_of(st.just(COMMAND), st.binary(min_size=1, max_size=20)),
            st.one_of(st.binary(max_size=50), messages),
            min_size=1,
            max_size=5,
        ).map(canonical),
    )
    return st.one_of(some, greetings.flatmap(lambda greet: some.map(lambda box: greet + box)))


def streams(path: str) -> st.SearchStrategy[bytes]:
    """
    Such boxes one after the other, cut off somewhere, or with some bytes changed.
    """

    def mangled(data: bytes, at: int, how: str, byte: int) -> bytes:
        at %= len(data) + 1
        match how:
            case "cut":
                return data[:at]
            case "changed":
                return data[:at] + bytes([byte]) + data[at + 1 :]
            case "much":
                return data + bytes([byte]) * 20_000
        return data

    whole = st.lists(boxes(path), min_size=1, max_size=4).map(b"".join)
    return st.builds(
        mangled,
        whole,
        st.integers(0, 10_000),
        st.sampled_from(["whole", "whole", "cut", "changed", "much"]),
        st.integers(0, 255),
    )


def attack(host: Host, said: bytes, staying: deque[socket.socket]) -> None:
    """
    Say it. Some leave at once, some break the connection, and some stay.
    """
    connection = host.dial()
    try:
        connection.sendall(said)
    except ConnectionError:
        # It was refused before all was said.
        pass
    match len(said) % 4:
        case 0:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
        case 1:
            staying.append(connection)
            if len(staying) > STAYING:
                staying.popleft().close()
        case _:
            connection.close()


@pytest.mark.bulk
@pytest.mark.random
def test_thousandsOfStrangers(host: Host) -> None:
    """
    Thousands of streams of bytes, most of them made by somebody who knows the protocol,
    leave the host as it was.
    """
    canary = str(host.folder / "canary")
    staying: deque[socket.socket] = deque()
    count = 0
    memory: list[int] = []
    assert host.serves()
    descriptors = host.descriptorsAlone()
    # That call was one of somebody who has the key.
    known = set(host.marks())

    @seed(4)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(streams(canary), min_size=IN_ONE, max_size=IN_ONE))
    def strangers(some: list[bytes]) -> None:
        nonlocal count
        for said in some:
            attack(host, said, staying)
        count += len(some)
        if count % (STREAMS // 10) == 0:
            memory.append(host.memory)
            assert host.process.poll() is None
            assert host.serves()
            assert set(host.marks()) == known

    strangers()
    for connection in staying:
        connection.close()
    assert count >= STREAMS
    assert memory[-1] - memory[len(memory) // 4] < SLACK, memory
    assert host.serves()
    assert host.descriptorsAlone() <= descriptors
    assert set(host.marks()) == known


def test_theCanarySings(host: Host) -> None:
    """
    The mark would be seen: with the key, the same message leaves it.
    """
    canary = str(host.folder / "canary")
    pickled = pickle.dumps(Canary(canary), 5)
    host.call(pickled)
    assert {"canary", "pickle.find_class"} <= set(host.marks())
