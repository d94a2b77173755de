"""
Where to listen and what to dial, as endpoint strings; who must prove itself there, and
with which key.

The strings are Twisted's, with these differences:

  - C{tls:PORT:certificate=FILE:privateKey=FILE[:trustRoots=FILE_OR_DIRECTORY]
    [:interface=ADDRESS][:backlog=N]} listens, too: the counterpart of the C{tls:} that
    dials. With C{trustRoots} those who connect must show a certificate of these.
  - C{unix:} listens with C{mode=600}, if it does not say another: the user's own
    programs connect.
  - What a L{ServerManager<asynqueue.wire.spawning.manager.ServerManager>} of this process has
    spawned is dialed with the string that was given to it, and its key is known.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from re import DOTALL, compile as regular
from typing import Any

from attrs import field, frozen
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    clientFromString,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    trustRootFromCertificates,
)

from asynqueue.errors import IdentityRequired, KeyFileRefused, WireError
from asynqueue.loopreactor import LoopReactor
from asynqueue.wire.transport.stdio import StdioEndpoint, isOneConnection
from asynqueue.wire.transport.tls import TLSClientEndpoint

ENVIRONMENT = "ASYNQUEUE_KEY_FILE"
"""The environment variable that names a file with a key, where nothing else is said."""

SMALLEST_KEY = 16
"""The least bytes of a key."""

# A key file has one line: a larger file is something else.
_LARGEST_KEY_FILE = 4096

# systemd passes descriptors from this one on.
_FIRST_PASSED = 3

_PEM = regular(rb"-----BEGIN CERTIFICATE-----\n.+?\n-----END CERTIFICATE-----\n?", DOTALL)


# Descriptions


@frozen
class Description:
    """
    An endpoint string, taken apart.

    @ivar text: the string.
    @ivar kind: what it begins with, in lower case.
    @ivar args: its arguments without names.
    @ivar named: those with names.
    """

    text: str
    kind: str
    args: tuple[str, ...] = ()
    named: Mapping[str, str] = field(factory=dict)

    @classmethod
    def parsed(cls, text: str) -> Description:
        """
        Take a string apart, as Twisted does: a colon ends an argument, an equals sign
        its name, and a backslash makes the next character an ordinary one.

        @raise ValueError: it has no kind.
        """
        words = _words(text)
        kind = words[0][1].lower()
        if not kind or words[0][0] is not None or len(words) < 2:
            raise ValueError(
                f"{text!r} is no endpoint: it should be like tcp:4000:interface=127.0.0.1,"
                " unix:/run/crew.sock or tls:host.example.org:4000"
            )
        return cls(
            text,
            kind,
            tuple(value for name, value in words[1:] if name is None),
            {name: value for name, value in words[1:] if name is not None},
        )

    def argument(self, name: str, position: int, default: str = "") -> str:
        """
        Return the value of an argument that may be given by name or by position, which
        counts from 0.
        """
        if name in self.named:
            return self.named[name]
        return self.args[position] if len(self.args) > position else default


def _words(text: str) -> list[tuple[str | None, str]]:
    """
    Return the parts between the colons: names, where there are any, and values.
    """
    words: list[tuple[str | None, str]] = []
    name: str | None = None
    word = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            word += next(characters, "")
        elif character == ":":
            words.append((name, word))
            name, word = None, ""
        elif character == "=" and name is None:
            name, word = word, ""
        else:
            word += character
    words.append((name, word))
    return words


# Who must prove itself


def requireIdentity(description: str, key: bytes | None, dials: bool = False) -> None:
    """
    Make sure that nobody can run calls here, or send us pickles, without having proved
    itself: unless it is a program of this machine.

    @param key: the key that both sides must have, if there is one.
    @param dials: whether the description is to be dialed, not listened on.
    @raise IdentityRequired: anybody could.
    @raise ValueError: it is no description.
    """
    if key is not None:
        return
    parsed = Description.parsed(description)
    if description in _spawned:
        return
    isTLS = parsed.kind == "tls"
    if not dials:
        safe = _listensHere(parsed) or (isTLS and "trustRoots" in parsed.named)
    elif parsed.kind == "unix" or isTLS:
        # TLS looks at the certificate of the listener.
        safe = True
    elif parsed.kind == "ssl" and not {"hostname", "caCertsDir"}.isdisjoint(parsed.named):
        # Twisted's ssl: does so only if it is told a name or an authority.
        safe = True
    else:
        safe = parsed.kind in ("tcp", "ssl") and isLoopback(parsed.argument("host", 0))
    if not safe:
        raise IdentityRequired(description)


def _listensHere(parsed: Description) -> bool:
    """
    Return whether only programs of this machine can connect there.
    """
    match parsed.kind:
        case "unix" | "stdio":
            return True
        case "tcp":
            return isLoopback(parsed.argument("interface", 1))
        case "tcp6" | "ssl" | "tls":
            return isLoopback(parsed.named.get("interface", ""))
        case "systemd":
            return _isPassedHere(parsed)
    # Something that we do not know: it may be reached from anywhere.
    return False


def isLoopback(host: str) -> bool:
    """
    Return whether an address, or the name of one, is that of this machine for itself. Names
    are not looked up: they may mean something else next time.
    """
    if host == "localhost":
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _isPassedHere(parsed: Description) -> bool:
    """
    Return whether a socket that systemd has passed to this process is reached from this
    machine only.
    """
    if parsed.named.get("domain", parsed.args[0] if parsed.args else "") == "UNIX":
        return True
    try:
        number = _FIRST_PASSED + int(parsed.named["index"])
        with socket.socket(fileno=os.dup(number)) as passed:
            return isLoopback(passed.getsockname()[0])
    except (KeyError, ValueError, OSError):
        # It has a name, whose number Twisted knows; or there is none, which is found
        # out when somebody listens.
        return False


# Endpoints


def serverEndpoint(reactor: Any, description: str) -> Any:
    """
    Return where to listen: an C{IStreamServerEndpoint}.

    @raise ValueError: it is no description, or a file that it names has not what it
        should have.
    @raise OSError: a file that it names cannot be read.
    """
    parsed = Description.parsed(description)
    if parsed.kind == "tls" and parsed.argument("port", 0).isdigit():
        return _tlsEndpoint(reactor, parsed)
    if parsed.kind == "stdio" and isOneConnection():
        return StdioEndpoint(reactor)
    if parsed.kind == "unix" and "mode" not in parsed.named and len(parsed.args) < 2:
        description += ":mode=600"
    return serverFromString(reactor, description)


def clientEndpoint(reactor: Any, description: str) -> Any:
    """
    Return what to dial: an C{IStreamClientEndpoint}.

    @raise ValueError: it is no description.
    @raise OSError: a file that it names cannot be read.
    """
    known = _spawned.get(description)
    if known is not None:
        return known
    parsed = Description.parsed(description)
    if parsed.kind == "tls" and isinstance(reactor, LoopReactor):
        return TLSClientEndpoint.made(reactor, parsed.args, dict(parsed.named))
    return clientFromString(reactor, description)


def dialedAs(description: str, address: Any) -> str:
    """
    Return how to dial, from this machine, what listens there.

    @param description: where it was to listen.
    @param address: where it listens: an C{IAddress}.
    """
    name = getattr(address, "name", None)
    if name is not None:
        return f"unix:{quoteStringArgument(os.fsdecode(name))}"
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if port is None:
        return description
    kind = Description.parsed(description).kind
    kind = kind if kind in ("ssl", "tls") else "tcp"
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1" if host != "::" else "::1"
    return f"{kind}:{quoteStringArgument(host)}:{port}"


def _tlsEndpoint(reactor: Any, parsed: Description) -> SSL4ServerEndpoint:
    known = {"port", "certificate", "privateKey", "trustRoots", "interface", "backlog"}
    unknown = set(parsed.named) - known
    missing = {"certificate", "privateKey"} - set(parsed.named)
    if unknown or missing or len(parsed.args) > 1:
        raise ValueError(
            f"{parsed.text!r} should be tls:PORT:certificate=FILE:privateKey=FILE, with"
            " :trustRoots=FILE_OR_DIRECTORY, :interface=ADDRESS, :backlog=N if wanted"
        )
    trusted = parsed.named.get("trustRoots")
    return SSL4ServerEndpoint(
        reactor,
        int(parsed.argument("port", 0)),
        _tlsOptions(parsed.named["certificate"], parsed.named["privateKey"], trusted),
        int(parsed.named.get("backlog", "50")),
        parsed.named.get("interface", ""),
    )


def _tlsOptions(certificate: str, privateKey: str, trusted: str | None) -> CertificateOptions:
    """
    Return what a listener shows, and what it wants to see.
    """
    shown, *chain = _certificates(Path(certificate))
    pair = PrivateCertificate.loadPEM(shown + b"\n" + Path(privateKey).read_bytes())
    roots = None
    if trusted is not None:
        place = Path(trusted)
        files = sorted(place.glob("*.pem")) if place.is_dir() else [place]
        found = [Certificate.loadPEM(pem) for file in files for pem in _certificates(file)]
        if not found:
            raise ValueError(f"there is no certificate in {trusted}: it needs a file *.pem")
        roots = trustRootFromCertificates(found)
    return CertificateOptions(
        privateKey=pair.privateKey.original,
        certificate=pair.original,
        extraCertChain=[Certificate.loadPEM(pem).original for pem in chain],
        trustRoot=roots,
    )


def _certificates(path: Path) -> list[bytes]:
    """
    Return the certificates of a file in PEM, one at the least.
    """
    found = _PEM.findall(path.read_bytes())
    if not found:
        raise ValueError(f"there is no certificate in {path}: it should be a file in PEM")
    return found


# Keys


def loadKey(path: str | os.PathLike[str]) -> bytes:
    """
    Read a key from its file, which is one line of text or a few bytes. White space around
    it does not count.

    @raise KeyFileRefused: others can read the file, or write to it, or there is no key in
        it.
    @raise OSError: it cannot be read.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileRefused(name, "that is no file")
        forbidden = 0o077 if status.st_uid == os.geteuid() else 0o007
        if status.st_mode & forbidden:
            raise KeyFileRefused(
                name,
                f"its mode is {stat.S_IMODE(status.st_mode):o}, so that it is no secret: say"
                f" `chmod 600 {name}`, or make another with `asynqueue keys DIRECTORY`",
            )
        content = file.read(_LARGEST_KEY_FILE + 1)
    key = content.strip()
    if not SMALLEST_KEY <= len(key) <= _LARGEST_KEY_FILE:
        raise KeyFileRefused(
            name,
            f"it has {len(key):,} bytes, and a key {SMALLEST_KEY:,} to {_LARGEST_KEY_FILE:,}:"
            " make one with `asynqueue keys DIRECTORY`",
        )
    return key


def keyFor(
    description: str,
    key: bytes | None = None,
    keyFile: str | os.PathLike[str] | None = None,
) -> bytes | None:
    """
    Find the key for what is listened on or dialed: the one that is given, that of a server
    which this process has spawned, or that of the file which the environment names.

    @return: C{None} if there is none of them.
    @raise KeyFileRefused: others can read the file, or there is no key in it.
    @raise WireError: the key that is given is too short.
    @raise OSError: its file cannot be read.
    @raise ValueError: both a key and a file are given.
    """
    if key is not None and keyFile is not None:
        raise ValueError("give the key, or the file that it is in, not both")
    if keyFile is not None:
        return loadKey(keyFile)
    if key is not None:
        if len(key) < SMALLEST_KEY:
            raise WireError(f"a key has {SMALLEST_KEY} bytes at the least, not {len(key)}")
        return bytes(key)
    shared = _keys.get(description)
    if shared is not None:
        return shared
    named = os.environ.get(ENVIRONMENT)
    return loadKey(named) if named else None


# What this process has spawned: keys, and endpoints of other kinds, by description.
_keys: dict[str, bytes] = {}
_spawned: dict[str, Any] = {}


def know(description: str, key: bytes, endpoint: Any = None) -> None:
    """
    Use this key for this description from now on.

    @param endpoint: an C{IStreamClientEndpoint} that is dialed in its place.
    """
    _keys[description] = key
    _spawned.pop(description, None)
    if endpoint is not None:
        _spawned[description] = endpoint


def forget(description: str) -> None:
    """
    Have the description mean nothing special any more.
    """
    _keys.pop(description, None)
    _spawned.pop(description, None)
