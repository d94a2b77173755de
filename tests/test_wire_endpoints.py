"""
Endpoint strings, who must prove itself where, and keys.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import MemoryReactor

from asynqueue.errors import IdentityRequired, KeyFileRefused, WireError
from asynqueue.wire.transport import endpoints
from asynqueue.wire.transport.certificates import makeKeys
from asynqueue.wire.transport.connecting import ConnectionFactory
from asynqueue.wire.transport.endpoints import (
    ENVIRONMENT,
    Description,
    clientEndpoint,
    dialedAs,
    isLoopback,
    keyFor,
    loadKey,
    requireIdentity,
    serverEndpoint,
)

# Twisted hands them over, and pyOpenSSL says that it will have to learn it in a new way.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

KEY = b"k" * 32

FACTORY = ConnectionFactory(lambda address: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A directory with a key and certificates.
    """
    directory = tmp_path_factory.mktemp("keys")
    makeKeys(directory, ["db.example.org"])
    return directory


@pytest.fixture
def registry() -> Iterator[Any]:
    """
    The module, which forgets what it was told here.
    """
    yield endpoints
    endpoints.forget("unix:/spawned")


@pytest.fixture(autouse=True)
def _noKeyAround(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def keyFile(folder: Path, content: bytes = KEY, mode: int = 0o600) -> Path:
    """
    A file with a key.
    """
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


# Descriptions


def test_descriptionIsTakenApart() -> None:
    """
    Arguments with and without names are told apart, and a backslash quotes.
    """
    parsed = Description.parsed(r"TCP:4000:interface=\:\:1:path=a\=b=c")
    assert parsed.kind == "tcp"
    assert parsed.args == ("4000",)
    assert parsed.named == {"interface": "::1", "path": "a=b=c"}


@pytest.mark.parametrize("text", ["", "tcp", "/run/sock", "=a:b", ":1"])
def test_noDescription(text: str) -> None:
    """
    What is no endpoint string is refused, with an example of one.
    """
    with pytest.raises(ValueError, match=r"tcp:4000:interface=127\.0\.0\.1"):
        Description.parsed(text)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::1%lo"]
)
def test_loopback(host: str) -> None:
    """
    All addresses of a machine for itself are known.
    """
    assert isLoopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.1", "fe80::1", "localhost.evil.org"])
def test_notLoopback(host: str) -> None:
    """
    No other address is taken for one of these, and no name is believed.
    """
    assert not isLoopback(host)


# Who must prove itself


@pytest.mark.parametrize(
    "description",
    [
        "unix:/run/sock",
        "stdio:",
        "tcp:4000:interface=127.0.0.1",
        "tcp:4000:127.0.0.1",
        r"tcp6:4000:interface=\:\:1",
        "ssl:4000:interface=localhost",
        "tls:4000:interface=127.0.0.1:certificate=a:privateKey=b",
        "tls:4000:certificate=a:privateKey=b:trustRoots=c",
        "systemd:domain=UNIX:index=0",
    ],
)
def test_listensWithoutKey(description: str) -> None:
    """
    On this machine, and where certificates of both sides are wanted, there need be no
    key.
    """
    requireIdentity(description, None)


@pytest.mark.parametrize(
    "description",
    [
        "tcp:4000",
        "tcp:4000:interface=10.0.0.1",
        "tcp6:4000",
        "ssl:4000:privateKey=a",
        "tls:4000:certificate=a:privateKey=b",
        "tls:/etc/certificates",
        "haproxy:tcp:4000:interface=127.0.0.1",
        "onion:80",
        "systemd:domain=INET:index=9999",
        "systemd:domain=INET:name=wire",
    ],
)
def test_listensWithKeyOnly(description: str) -> None:
    """
    Where others can connect, or nobody knows who can, a key is required; with one it is
    all right.
    """
    with pytest.raises(IdentityRequired, match="asynqueue keys"):
        requireIdentity(description, None)
    requireIdentity(description, KEY)


@pytest.mark.parametrize(
    "description",
    [
        "unix:/run/sock",
        "tcp:127.0.0.1:4000",
        "tcp:host=localhost:port=4000",
        "tls:db.example.org:4000",
        "ssl:db.example.org:4000:hostname=db.example.org",
        "ssl:db.example.org:4000:caCertsDir=trust",
    ],
)
def test_dialsWithoutKey(description: str) -> None:
    """
    On this machine, and where the listener shows a certificate that is looked at, there
    need be no key.
    """
    requireIdentity(description, None, dials=True)


@pytest.mark.parametrize(
    "description", ["tcp:db.example.org:4000", "tcp:10.0.0.1:1", "ssl:db.example.org:4000", "x:y"]
)
def test_dialsWithKeyOnly(description: str) -> None:
    """
    Nobody is dialed elsewhere who need not prove itself.
    """
    with pytest.raises(IdentityRequired):
        requireIdentity(description, None, dials=True)
    requireIdentity(description, KEY, dials=True)


@pytest.mark.parametrize(("host", "isSafe"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_passedSocketIsLookedAt(host: str, isSafe: bool) -> None:
    """
    Of a socket that systemd has passed, the address decides.
    """
    with socket.socket() as passed:
        passed.bind((host, 0))
        # systemd counts from the first descriptor after the standard ones.
        where = f"systemd:domain=INET:index={passed.fileno() - 3}"
        if isSafe:
            requireIdentity(where, None)
        else:
            with pytest.raises(IdentityRequired):
                requireIdentity(where, None)


# Endpoints


def test_unixSocketIsPrivate() -> None:
    """
    A UNIX socket is the user's own, if nothing else is said.
    """
    reactor = MemoryReactor()
    for description in ("unix:/a", "unix:/b:mode=660", "unix:/c:666"):
        serverEndpoint(reactor, description).listen(FACTORY)
    assert [(server[0], server[3]) for server in reactor.unixServers] == [
        ("/a", 0o600),
        ("/b", 0o660),
        ("/c", 0o666),
    ]


def test_otherStringsAreTwisteds() -> None:
    """
    What is not ours is as Twisted has it.
    """
    reactor = MemoryReactor()
    serverEndpoint(reactor, "tcp:4000:interface=127.0.0.1").listen(FACTORY)
    clientEndpoint(reactor, "unix:/a").connect(FACTORY)
    assert reactor.tcpServers[0][0] == 4000
    assert reactor.unixClients[0][0] == "/a"


def test_tlsListens(made: Path) -> None:
    """
    C{tls:} with a port listens, and asks for certificates if it has roots of trust, which
    may be a file or a directory.
    """
    reactor = MemoryReactor()
    description = f"tls:4000:certificate={made}/server.pem:privateKey={made}/server.key"
    serverEndpoint(reactor, description).listen(FACTORY)
    serverEndpoint(reactor, f"{description}:trustRoots={made}/trust").listen(FACTORY)
    more = f"{description}:trustRoots={made}/trust/ca.pem:interface=127.0.0.1:backlog=7"
    serverEndpoint(reactor, more).listen(FACTORY)
    modes = [server[2].getContext().get_verify_mode() for server in reactor.sslServers]
    wanted = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    assert [mode & wanted for mode in modes] == [SSL.VERIFY_NONE, wanted, wanted]
    assert reactor.sslServers[-1][3:] == (7, "127.0.0.1")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        ":certificate=a",
        ":certificate=a:privateKey=b:color=red",
        ":c:certificate=a:privateKey=b",
    ],
)
def test_tlsWithWrongArguments(arguments: str) -> None:
    """
    What C{tls:} wants is said, if it is something else.
    """
    with pytest.raises(ValueError, match="should be tls:PORT:certificate=FILE"):
        serverEndpoint(MemoryReactor(), f"tls:4000{arguments}")


def test_tlsWithoutCertificates(made: Path, tmp_path: Path) -> None:
    """
    Files and directories without certificates are named.
    """
    pair = f"certificate={made}/server.pem:privateKey={made}/server.key"
    with pytest.raises(ValueError, match=str(tmp_path)):
        serverEndpoint(MemoryReactor(), f"tls:4000:{pair}:trustRoots={tmp_path}")
    with pytest.raises(ValueError, match=r"server\.key"):
        serverEndpoint(
            MemoryReactor(),
            f"tls:4000:certificate={made}/server.key:privateKey={made}/server.key",
        )


@pytest.mark.parametrize(
    ("description", "address", "dialed"),
    [
        ("tcp:0", IPv4Address("TCP", "0.0.0.0", 99), "tcp:127.0.0.1:99"),
        ("tcp6:0", IPv6Address("TCP", "::", 99), r"tcp:\:\:1:99"),
        ("tls:0", IPv4Address("TCP", "10.0.0.1", 99), "tls:10.0.0.1:99"),
        ("systemd:domain=UNIX:index=0", UNIXAddress(b"/a:b"), r"unix:/a\:b"),
        ("strange:1", object(), "strange:1"),
    ],
)
def test_dialedAs(description: str, address: Any, dialed: str) -> None:
    """
    Who listens can say how it is dialed.
    """
    assert dialedAs(description, address) == dialed


# Keys


def test_keyIsRead(tmp_path: Path) -> None:
    """
    A key is what its file has, without white space around it.
    """
    assert loadKey(keyFile(tmp_path, b" " + KEY + b"\n")) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_keyThatOthersCanReadIsRefused(mode: int, tmp_path: Path) -> None:
    """
    As with ssh, a file that others can use is refused, and the message says what to do.
    """
    path = keyFile(tmp_path, mode=mode)
    with pytest.raises(KeyFileRefused, match=f"chmod 600 {path}"):
        loadKey(path)


@pytest.mark.parametrize("content", [b"", b"short\n", b" " * 40, b"x" * 5000])
def test_fileWithoutKey(content: bytes, tmp_path: Path) -> None:
    """
    What can be no key is refused.
    """
    with pytest.raises(KeyFileRefused, match="asynqueue keys"):
        loadKey(keyFile(tmp_path, content))


def test_directoryIsNoKey(tmp_path: Path) -> None:
    """
    A directory in the place of a file is an error of its own.
    """
    with pytest.raises(OSError, match=str(tmp_path)):
        loadKey(tmp_path)


def test_deviceIsNoKey() -> None:
    """
    Nor is a device a file.
    """
    with pytest.raises(KeyFileRefused, match="no file"):
        loadKey(os.devnull)


def test_keyThatIsGiven(tmp_path: Path) -> None:
    """
    The key, or its file, is taken; not both.
    """
    assert keyFor("tcp:1", key=KEY) == KEY
    assert keyFor("tcp:1", keyFile=keyFile(tmp_path)) == KEY
    with pytest.raises(ValueError, match="not both"):
        keyFor("tcp:1", key=KEY, keyFile="x")
    with pytest.raises(WireError, match="16 bytes"):
        keyFor("tcp:1", key=b"short")


def test_keyOfTheEnvironment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without anything else the environment names the file; without that there is no key.
    """
    assert keyFor("tcp:1") is None
    monkeypatch.setenv(ENVIRONMENT, str(keyFile(tmp_path)))
    assert keyFor("tcp:1") == KEY
    assert keyFor("tcp:1", key=b"other" * 8) == b"other" * 8
    monkeypatch.setenv(ENVIRONMENT, "")
    assert keyFor("tcp:1") is None


def test_whatWasSpawnedIsKnown(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The key of a server that this process has spawned is found by its description, before
    that of the environment, until it is forgotten.
    """
    monkeypatch.setenv(ENVIRONMENT, "/nowhere")
    endpoint = object()
    registry.know("unix:/spawned", KEY, endpoint)
    assert keyFor("unix:/spawned") == KEY
    assert clientEndpoint(MemoryReactor(), "unix:/spawned") is endpoint
    registry.forget("unix:/spawned")
    monkeypatch.delenv(ENVIRONMENT)
    assert keyFor("unix:/spawned") is None
