"""
The floor: the least that a pool of Python processes has to do for a call.

Two children, started afresh, echo pickled messages over socket pairs; the parent
waits for them with epoll. There is no queue, no choice, no Deferred. (A parent that
asks again and again instead of waiting may be faster where two CPUs wake each other.)
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
import subprocess
import sys
from time import perf_counter
from typing import Any

from benchmarks.process_figures import (
    CPU_SECONDS,
    CPU_TASKS,
    ONE_BY_ONE,
    WARM_UP,
    WORKERS,
    Figures,
    fractionOfIdeal,
    percentiles,
    stayOnOneCpu,
)

_LENGTH = struct.Struct("!I")
# Enough for a whole message, of which there is one on its way.
_READ = 65536

_CHILD = """
import pickle, socket, struct, sys
length = struct.Struct("!I")
connection = socket.socket(fileno=int(sys.argv[1]))
while data := connection.recv(65536):
    message = pickle.loads(memoryview(data)[length.size:])
    payload = pickle.dumps(message, 5)
    connection.sendall(length.pack(len(payload)) + payload)
"""


_BURNER = """
import sys
from benchmarks.process_calls import burn
sys.stdout.write("ready")
sys.stdout.flush()
sys.stdin.read(1)
for _ in range(int(sys.argv[1])):
    burn(float(sys.argv[2]))
"""


def burnAlone() -> Figures:
    """
    The tasks that use a CPU, without any pool: what this machine has to give now.
    """
    command = [sys.executable, "-c", _BURNER, str(CPU_TASKS // WORKERS), str(CPU_SECONDS)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(WORKERS)
    ]
    for child in children:
        assert child.stdout
        child.stdout.read(len("ready"))
    start = perf_counter()
    for child in children:
        assert child.stdin
        child.stdin.close()
    for child in children:
        child.wait()
    return fractionOfIdeal(perf_counter() - start)


def startChild() -> socket.socket:
    """
    Start a child that echoes.

    @return: our end of its socket pair.
    """
    ours, its = socket.socketpair()
    with its:
        command = [sys.executable, "-c", _CHILD, str(its.fileno())]
        subprocess.Popen(command, pass_fds=[its.fileno()])
    return ours


def echoLatencyOnOneCpu() -> Figures:
    """
    The same with all processes on one CPU.
    """
    stayOnOneCpu()
    return echoLatency()


def echoLatency() -> Figures:
    """
    The time of one message there and back, one at a time, always with the same of
    both children: another one would be less likely in a cache.
    """
    poller = select.epoll()
    children = [startChild() for _ in range(WORKERS)]
    byDescriptor = {child.fileno(): child for child in children}
    for descriptor in byDescriptor:
        poller.register(descriptor, select.EPOLLIN)

    def trip(child: socket.socket, message: tuple[Any, ...]) -> None:
        payload = pickle.dumps(message, 5)
        child.sendall(_LENGTH.pack(len(payload)) + payload)
        [(descriptor, _)] = poller.poll()
        data = byDescriptor[descriptor].recv(_READ)
        echo = pickle.loads(memoryview(data)[_LENGTH.size :])
        assert echo == message

    for child in children:
        for number in range(WARM_UP):
            trip(child, (number, "noop", ()))
    times = []
    for number in range(ONE_BY_ONE):
        start = perf_counter()
        trip(children[0], (number, "noop", ()))
        times.append(perf_counter() - start)
    for child in children:
        child.close()
    return percentiles(times)
