"""
C{asynqueue keys}: what hosts prove themselves with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asynqueue.wire.transport.certificates import makeKeys

_PURPOSES = {
    "shared.key": "the key: --key-file on both sides; enough by itself if nobody listens in",
    "server.pem": "certificate of those that are dialed ...",
    "server.key": "... and its private key",
    "client.pem": "certificate of those that dial ...",
    "client.key": "... and its private key",
    "ca.pem": "the authority of both: trustRoots= on both sides",
    "ca.key": "makes more certificates: keep it at home",
}

_HOW = """
A host with certificates of both sides, and the key:
  asynqueue worker --key-file {key} --allow MODULE \\
    --listen tls:4000:certificate={server}.pem:privateKey={server}.key:trustRoots={trust}
and those who use it:
  asynqueue map --key-file {key} MODULE:FUNCTION \\
    --hosts tls:HOST:4000:certificate={client}.pem:privateKey={client}.key:trustRoots={trust}
"""


def make(directory: str, hosts: Sequence[str], days: float, force: bool) -> str:
    """
    Make the files.

    @param hosts: the names and addresses by which hosts are dialed.
    @return: what to tell people: the files, and how to use them.
    @raise OSError: that cannot be written, or is there already.
    @raise ValueError: a host is no name or address, or the days are no time.
    """
    paths = makeKeys(directory, hosts, days, force)
    width = max(len(str(path)) for path in paths)
    lines = [f"{path!s:{width}}  {_PURPOSES.get(path.name, '')}".rstrip() for path in paths]
    folder = Path(directory)
    how = _HOW.format(
        key=folder / "shared.key",
        server=folder / "server",
        client=folder / "client",
        trust=folder / "trust",
    )
    return "\n".join(lines) + "\n" + how
