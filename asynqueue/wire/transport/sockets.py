"""
What a connection wants of the transport below it.
"""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity.exceptions import VerificationError
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import ISSLTransport, ITCPTransport

from asynqueue.descriptors import abandon
from asynqueue.errors import IdentityRefused

# The kernel may hold so many bytes that were not sent yet: what comes later waits
# behind them.
_NOT_SENT = 1 << 17

# RFC 9266.
_BINDING_LABEL = b"EXPORTER-Channel-Binding"
_BINDING_BYTES = 32


def isSecure(transport: Any) -> bool:
    """
    Whether it is a TLS channel.
    """
    return ISSLTransport.providedBy(transport)


def bindingOf(transport: Any) -> bytes:
    """
    What only the two ends of a TLS channel know. The channel must stand.
    """
    handle = transport.getHandle()
    return bytes(handle.export_keying_material(_BINDING_LABEL, _BINDING_BYTES, b""))


def refusalOf(error: BaseException, description: str) -> IdentityRefused | None:
    """
    The error in our words, if it says that TLS believes one side not.
    """
    if isinstance(error, TLSError):
        reasons = [words[-1] for words in error.args[0]] if error.args else []
        text = ", ".join(filter(None, reasons)) or "the handshake failed"
    elif isinstance(error, VerificationError):
        text = "the certificate is another host's"
    else:
        return None
    return IdentityRefused(
        description, f"TLS: {text}; see to the certificates and the authorities of both sides"
    )


def describe(transport: Any) -> str:
    """
    Where the other side of a transport is.
    """
    peer = transport.getPeer()
    if isinstance(peer, UNIXAddress):
        # Who has dialed has no name, but the socket that it has dialed.
        name = peer.name or transport.getHost().name or b""
        return f"UNIX socket {name.decode(errors='replace')}".rstrip()
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    return f"host {host}:{port}" if host is not None else f"{peer}"


def closeWriting(transport: Any) -> None:
    """
    Send what was written, and say that nothing follows; the other side is still heard.
    """
    if isSecure(transport):
        # TLS says so to the other side, and waits until that does as well.
        transport.loseConnection()
    elif ITCPTransport.providedBy(transport):
        transport.loseWriteConnection()


def tune(transport: Any) -> None:
    """
    Have small messages leave at once, and wait for little.
    """
    # Twisted's UNIX sockets also say that they are of TCP.
    if not ITCPTransport.providedBy(transport) or isinstance(transport.getHost(), UNIXAddress):
        return
    transport.setTcpNoDelay(True)
    handle = _below(transport).getHandle()
    if isinstance(handle, socket.socket) and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT)


def letGo(transport: Any) -> None:
    """
    This is a fork: have a transport, or what listens for them, stand for a connection that
    has ended. What it stands for is the parent's, which goes on with it.
    """
    below = _below(transport)
    if isinstance(below, FileDescriptor):
        below.stopReading()
        below.stopWriting()
        abandon(below.fileno())


def _below(transport: Any) -> Any:
    """
    The transport that has the socket.
    """
    return transport.transport if isSecure(transport) else transport
