"""
TLS that is dialed by another reactor than the installed one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    clientFromString,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    KeyPair,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

# The arguments of a string, those that may stand without a name first.
_NAMES = (
    "host",
    "port",
    "timeout",
    "bindAddress",
    "certificate",
    "privateKey",
    "trustRoots",
    "endpoint",
)


@implementer(IStreamClientEndpoint)
@frozen
class TLSClientEndpoint:
    """
    What C{tls:} dials, as Twisted does, but with the time of a reactor that is given:
    Twisted's own asks the installed one, and installs one for that.
    """

    _reactor: Any
    _creator: Any
    _endpoint: Any

    @classmethod
    def made(cls, reactor: Any, args: tuple[str, ...], named: dict[str, str]) -> TLSClientEndpoint:
        """
        Make the endpoint of a string.

        @param args: the arguments without names.
        @raise ValueError: they are not those of C{tls:}.
        @raise OSError: a file that they name cannot be read.
        """
        given = {**dict(zip(_NAMES, args, strict=False)), **named}
        unknown = set(given) - set(_NAMES)
        if unknown or len(args) > len(_NAMES) or not {"host", "port"} <= set(given):
            raise ValueError(
                f"tls: is dialed with {', '.join(_NAMES)}, of which host and port are needed,"
                f" not with {[*args, *named]}"
            )
        creator = optionsForClientTLS(
            given["host"],
            trustRoot=_trustRoot(given.get("trustRoots")),
            clientCertificate=_pair(given.get("certificate"), given.get("privateKey")),
        )
        if "endpoint" in given:
            return cls(reactor, creator, clientFromString(reactor, given["endpoint"]))
        address = (given["bindAddress"], 0) if "bindAddress" in given else None
        # An endpoint that tries both kinds of address would ask for the installed reactor.
        kind = TCP6ClientEndpoint if ":" in given["host"] else TCP4ClientEndpoint
        seconds = float(given.get("timeout", 30))
        endpoint = kind(reactor, given["host"], int(given["port"]), seconds, address)
        return cls(reactor, creator, endpoint)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Connect, and put TLS below the protocol.
        """
        factory = TLSMemoryBIOFactory(self._creator, True, protocolFactory, clock=self._reactor)
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


def _trustRoot(directory: str | None) -> Any:
    """
    Return the certificates of a directory, or C{None} for those of the system.
    """
    if directory is None:
        return None
    files = sorted(Path(directory).iterdir())
    found = [path.read_bytes() for path in files if path.suffix.lower() == ".pem"]
    return trustRootFromCertificates([Certificate.loadPEM(pem) for pem in found])


def _pair(certificate: str | None, privateKey: str | None) -> Any:
    """
    Return what is shown to a host that wants to see a certificate, or C{None}.
    """
    if certificate is None:
        return None
    shown = Path(certificate).read_bytes()
    if privateKey is None:
        return PrivateCertificate.loadPEM(shown)
    return PrivateCertificate.fromCertificateAndKeyPair(
        Certificate.loadPEM(shown), KeyPair.load(Path(privateKey).read_bytes(), 1)
    )
