"""
Post to a web page over many connections at once, and print the seconds of each request and those of
all, as a line of JSON. What to post is read from standard input.

Run it as C{python -m benchmarks.page_load PORT PATH CONNECTIONS REQUESTS}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter


async def post(port: int, path: str, body: bytes, left: list[None], times: list[float]) -> None:
    """
    Post again and again over one connection, as long as something is left.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /{path} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    while left:
        left.pop()
        start = perf_counter()
        writer.writelines([head, body])
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert answer.startswith(b"http/1.1 200"), answer
        length = int(answer.partition(b"content-length:")[2].split()[0])
        await reader.readexactly(length)
        times.append(perf_counter() - start)
    writer.close()


async def main(port: int, path: str, connections: int, requests: int) -> None:
    """
    Post, and print.
    """
    body = sys.stdin.buffer.read()
    times: list[float] = []
    left = [None] * requests
    start = perf_counter()
    await asyncio.gather(*(post(port, path, body, left, times) for _ in range(connections)))
    print(json.dumps({"seconds": perf_counter() - start, "times": times}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
