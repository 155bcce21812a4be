"""Certificates for tests of TLS: made by themselves or by an authority of the test, good for an hour and for 127.0.0.1."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey

LOOPBACK = "127.0.0.1"
_HOUR = timedelta(hours=1)


def self_signed(folder: Path, name: str = "server", *, password: bytes | None = None) -> tuple[Path, Path]:
    """Two PEM files in `folder`: the certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _written(folder, name, _certificate(LOOPBACK, key, LOOPBACK, key, authority=True), key, password)


class Authority:
    """Signs certificates of servers; `file` is what its clients trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file, _ = _written(folder, name, _certificate(name, self._key, name, self._key, authority=True), self._key)

    def server(self, name: str, *, host: str = LOOPBACK, ended: timedelta = -_HOUR) -> tuple[Path, Path]:
        """Certificate and key for `host`, an address or a name; `ended`: how long ago it was good last."""
        key = ec.generate_private_key(ec.SECP256R1())
        return _written(self._folder, name, _certificate(host, key, self._name, self._key, ended=ended), key)


def _certificate(
    host: str, key: Key, issuer: str, issuer_key: Key, *, authority: bool = False, ended: timedelta = -_HOUR
) -> x509.Certificate:
    subject, signer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (host, issuer))
    end = datetime.now(UTC) - ended
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - _HOUR - timedelta(minutes=5))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([_named(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
    )
    return builder.sign(issuer_key, SHA256())


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _written(folder: Path, name: str, certificate: x509.Certificate, key: Key, password: bytes | None = None) -> tuple[Path, Path]:
    cert_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return cert_file, key_file
