"""
The files that hosts prove themselves with.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from asynqueue.wire.transport.certificates import makeKeys
from asynqueue.wire.transport.endpoints import loadKey

NAMES = ["shared.key", "ca.key", "server.pem", "server.key", "client.pem", "client.key"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A directory with keys for some hosts.
    """
    directory = tmp_path_factory.mktemp("keys") / "new"
    makeKeys(directory, ["db.example.org", "10.0.0.7", "[fd00::7]", "*.crew.example.org"], days=30)
    return directory


def certificate(path: Path) -> x509.Certificate:
    """
    The certificate of a file.
    """
    return x509.load_pem_x509_certificate(path.read_bytes())


def store(directory: Path) -> Store:
    """
    What those trust who have the directory.
    """
    return Store([certificate(directory / "trust" / "ca.pem")])


def test_allIsThere(tmp_path: Path) -> None:
    """
    What is returned are the files that were made, and nothing else is left.
    """
    paths = makeKeys(tmp_path)
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert set(paths) == found == {tmp_path / name for name in [*NAMES, "trust/ca.pem"]}


def test_hostsAreNoString(tmp_path: Path) -> None:
    """
    One name of a host is no list of them: the letters would get the certificates.
    """
    with pytest.raises(TypeError, match="hosts is a string"):
        makeKeys(tmp_path, "db.example.org")
    assert list(tmp_path.iterdir()) == []


def test_secretsAreSecret(made: Path) -> None:
    """
    Nobody but their owner reads the keys or lists the directory, whatever the umask.
    """
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.rglob("*.*")}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "shared.key",
        "ca.key",
        "server.key",
        "client.key",
    }
    assert {mode for name, mode in modes.items() if name.endswith(".pem")} == {0o644}


def test_umaskTakesNothingAway(tmp_path: Path) -> None:
    """
    An unusual umask does not make a key unreadable, or a certificate secret.
    """
    before = os.umask(0o777)
    try:
        (tmp_path / "new").mkdir()
        (tmp_path / "new").chmod(0o700)
        (tmp_path / "new" / "trust").mkdir()
        (tmp_path / "new" / "trust").chmod(0o700)
        makeKeys(tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "shared.key").stat().st_mode) == 0o600


def test_keyCanBeLoaded(made: Path, tmp_path: Path) -> None:
    """
    The shared key is one that is accepted, and no two are the same.
    """
    makeKeys(tmp_path)
    assert len(loadKey(made / "shared.key")) >= 32
    assert loadKey(made / "shared.key") != loadKey(tmp_path / "shared.key")


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("db.example.org"),
        x509.DNSName("seven.crew.example.org"),
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("10.0.0.7")),
        x509.IPAddress(ip_address("fd00::7")),
        x509.IPAddress(ip_address("127.0.0.1")),
    ],
)
def test_serverIsVerified(name: x509.DNSName | x509.IPAddress, made: Path) -> None:
    """
    The certificate of a server holds for the names and addresses that were given, and for
    this machine.
    """
    verifier = PolicyBuilder().store(store(made)).build_server_verifier(name)
    assert verifier.verify(certificate(made / "server.pem"), [])


def test_serverIsNobodyElse(made: Path) -> None:
    """
    It does not hold for another name.
    """
    verifier = PolicyBuilder().store(store(made)).build_server_verifier(x509.DNSName("evil.org"))
    with pytest.raises(VerificationError):
        verifier.verify(certificate(made / "server.pem"), [])


def test_clientIsNoServer(made: Path) -> None:
    """
    A certificate of those who dial does not make them a host that is dialed.
    """
    verifier = PolicyBuilder().store(store(made)).build_server_verifier(x509.DNSName("localhost"))
    with pytest.raises(VerificationError):
        verifier.verify(certificate(made / "client.pem"), [])


def test_foreignAuthorityIsNotTrusted(made: Path, tmp_path: Path) -> None:
    """
    Each directory has an authority of its own.
    """
    makeKeys(tmp_path)
    verifier = (
        PolicyBuilder().store(store(tmp_path)).build_server_verifier(x509.DNSName("localhost"))
    )
    with pytest.raises(VerificationError):
        verifier.verify(certificate(made / "server.pem"), [])


def test_lifeOfCertificates(made: Path) -> None:
    """
    They hold for as many days as was said, and began a little ago, as clocks differ.
    """
    now = datetime.now(UTC)
    found = certificate(made / "server.pem")
    assert found.not_valid_before_utc < now - timedelta(minutes=30)
    assert timedelta(days=29) < found.not_valid_after_utc - now <= timedelta(days=30)


@pytest.mark.parametrize("name", ["ca", "server", "client"])
def test_keysBelongToCertificates(name: str, made: Path) -> None:
    """
    Each certificate has its private key beside it.
    """
    path = made / "trust/ca.pem" if name == "ca" else made / f"{name}.pem"
    privateKey = load_pem_private_key((made / f"{name}.key").read_bytes(), None)
    assert privateKey.public_key() == certificate(path).public_key()


def test_nothingIsOverwritten(tmp_path: Path) -> None:
    """
    Where one of the files is there, none is written, and the message says what to do.
    """
    (tmp_path / "client.key").write_text("precious")
    with pytest.raises(FileExistsError, match=r"client\.key.*--force"):
        makeKeys(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["client.key"]
    assert (tmp_path / "client.key").read_text() == "precious"


def test_forceReplaces(tmp_path: Path) -> None:
    """
    Who wants all of them new gets that, with the right modes.
    """
    (tmp_path / "shared.key").write_text("old")
    (tmp_path / "shared.key").chmod(0o666)
    makeKeys(tmp_path, force=True)
    assert len(loadKey(tmp_path / "shared.key")) >= 32


@pytest.mark.parametrize("host", ["", "a b", "http://x", "-", "a..b", "a/b", "x" * 80, "*"])
def test_whatIsNoHost(host: str, tmp_path: Path) -> None:
    """
    What is no name of a host is refused before anything is made.
    """
    with pytest.raises(ValueError, match="name nor the IP address"):
        makeKeys(tmp_path / "new", [host])
    assert not (tmp_path / "new").exists()


def test_nameOfAnotherAlphabet(tmp_path: Path) -> None:
    """
    Names that are not ASCII are written as they are looked up.
    """
    makeKeys(tmp_path, ["bücher.example"])
    names = certificate(tmp_path / "server.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "xn--bcher-kva.example" in names.value.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_noLifeAtAll(days: float, tmp_path: Path) -> None:
    """
    Certificates that never hold are not made.
    """
    with pytest.raises(ValueError, match="days"):
        makeKeys(tmp_path, days=days)
