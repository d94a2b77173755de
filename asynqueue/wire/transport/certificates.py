"""
Make what hosts prove themselves with: a key that they share, and certificates.

::

    DIRECTORY/shared.key               the key: enough by itself, if nobody listens in
              server.pem, server.key   certificate of those that are dialed
              client.pem, client.key   certificate of those that dial
              trust/ca.pem             the authority of both certificates
              ca.key                   makes more of them: keep it at home
"""

from __future__ import annotations

import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from asynqueue.checks import listOf

# The random bytes in a key.
_KEY_BYTES = 32

# Clocks of hosts differ: a certificate holds since this time ago.
_SLACK = timedelta(hours=1)

# The names of every machine for itself.
_LOCAL = ("localhost", "127.0.0.1", "::1")

# The most characters that the common name of a certificate has.
_LONGEST_NAME = 64

# From when until when a certificate holds.
_Life = tuple[datetime, datetime]

SECRET = 0o600
PUBLIC = 0o644
FOLDER = 0o700


@frozen
class _Pair:
    """
    A certificate, and its private key.
    """

    certificate: x509.Certificate
    privateKey: ec.EllipticCurvePrivateKey

    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def keyPEM(self) -> bytes:
        return self.privateKey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def newKey() -> bytes:
    """
    Return a random key, as a line of text.
    """
    return urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n"


def makeKeys(
    directory: str | os.PathLike[str],
    hosts: Iterable[str] = (),
    days: float = 825,
    force: bool = False,
    now: datetime | None = None,
) -> list[Path]:
    """
    Make a key, and certificates for those that dial and those that are dialed.

    @param directory: where to; it is made if it is not there.
    @param hosts: the names and IP addresses by which hosts are dialed. Those of each
        machine for itself are there anyway.
    @param days: how long the certificates hold.
    @param force: whether files that are there are replaced.
    @param now: since when they hold; C{None}: since now, with an hour for clocks that
        differ.
    @return: the files.
    @raise FileExistsError: there are such files, and nothing was made.
    @raise TypeError: C{hosts} is a string.
    @raise ValueError: something is neither a name nor an address of a host, or C{days}
        is not more than 0.
    @raise OSError: that cannot be written.
    """
    if not days > 0:
        raise ValueError(f"a certificate holds for more than 0 days, not for {days!r}: give days=")
    folder = Path(directory)
    since = now or datetime.now(UTC)
    names = _alternatives([*listOf(hosts, "hosts"), *_LOCAL])
    files = _made(names, (since - _SLACK, since + timedelta(days=days)))
    present = [name for name in files if (folder / name).exists()]
    if present and not force:
        raise FileExistsError(
            f"{folder} has {', '.join(present)}: hosts may use them; choose another"
            " directory, or replace them (--force)"
        )
    for place in (folder, folder / "trust"):
        place.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    for name, (content, mode) in files.items():
        _write(folder / name, content, mode)
    return [folder / name for name in files]


def _made(names: Sequence[x509.GeneralName], life: _Life) -> dict[str, tuple[bytes, int]]:
    """
    Return the names of the files, their contents and modes.
    """
    authority = _authority(life)
    first = names[0].value
    server = _signed(
        authority, f"{first}"[:_LONGEST_NAME], ExtendedKeyUsageOID.SERVER_AUTH, names, life
    )
    client = _signed(authority, "client", ExtendedKeyUsageOID.CLIENT_AUTH, (), life)
    return {
        "shared.key": (newKey(), SECRET),
        "ca.key": (authority.keyPEM(), SECRET),
        "trust/ca.pem": (authority.pem(), PUBLIC),
        "server.pem": (server.pem(), PUBLIC),
        "server.key": (server.keyPEM(), SECRET),
        "client.pem": (client.pem(), PUBLIC),
        "client.key": (client.keyPEM(), SECRET),
    }


def _alternatives(hosts: Iterable[str]) -> list[x509.GeneralName]:
    """
    Return what a certificate says of the hosts that may show it.
    """
    names: dict[x509.GeneralName, None] = {}
    for host in hosts:
        try:
            names[x509.IPAddress(ip_address(host.strip("[]")))] = None
        except ValueError:
            names[x509.DNSName(_dnsName(host))] = None
    return list(names)


def _dnsName(host: str) -> str:
    """
    Return a name as it stands in certificates.

    @raise ValueError: it is none.
    """
    try:
        # The codec of Python knows the older rules: names that they allow are allowed.
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    plain = name.removeprefix("*.")
    if not plain or not all(
        label and label.replace("-", "").replace("_", "").isalnum() for label in plain.split(".")
    ):
        raise ValueError(f"{host!r} is neither the name nor the IP address of a host")
    return name


def _authority(life: _Life) -> _Pair:
    """
    Make who signs the certificates: nobody but these two are signed by it.
    """
    privateKey = _newPrivateKey()
    # Authorities of different directories have different names: that tells them apart.
    name = _named(f"AsynQueue authority {secrets.token_hex(4)}")
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, privateKey, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _Pair(builder.sign(privateKey, hashes.SHA256()), privateKey)


def _signed(
    authority: _Pair,
    name: str,
    purpose: x509.ObjectIdentifier,
    alternatives: Sequence[x509.GeneralName],
    life: _Life,
) -> _Pair:
    """
    Make a certificate for one purpose.
    """
    privateKey = _newPrivateKey()
    issuer = authority.certificate
    builder = (
        _builder(_named(name), issuer.subject, privateKey, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.privateKey.public_key()),
            critical=False,
        )
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return _Pair(builder.sign(authority.privateKey, hashes.SHA256()), privateKey)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    privateKey: ec.EllipticCurvePrivateKey,
    life: _Life,
) -> x509.CertificateBuilder:
    publicKey = privateKey.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(publicKey)
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0])
        .not_valid_after(life[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(publicKey), critical=False)
    )


def _newPrivateKey() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def writeSecret(path: Path, content: bytes) -> None:
    """
    Write a file that nobody else can read.

    @raise OSError: that cannot be written.
    """
    _write(path, content, SECRET)


def _write(path: Path, content: bytes, mode: int) -> None:
    """
    Write a file that nobody reads before it is complete, and that has its mode from the
    beginning.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            # The umask may have taken something away.
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
