"""TLS for listeners, and the rule that credentials do not travel in clear to other machines."""

import ipaddress
import ssl
from pathlib import Path
from typing import Final, Protocol

from recorder.settings import ConfigError

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good


class Listener(Protocol):
    """The part of `[api]` or `[hub]` that says how it listens."""

    @property
    def host(self) -> str: ...
    @property
    def allow_plain_http(self) -> bool: ...
    @property
    def tls_cert(self) -> Path | None: ...
    @property
    def tls_key(self) -> Path | None: ...


def server_context(section: str, listener: Listener) -> ssl.SSLContext | None:
    """What the listener of settings `section` is to speak; None: plain HTTP.

    Raises:
        ConfigError: the files cannot be used, or plain HTTP would leave this machine.
    """
    if listener.tls_cert is None or listener.tls_key is None:
        if listener.tls_cert or listener.tls_key:
            raise ConfigError(f"{section}.tls_cert and {section}.tls_key go together: one of them is not set")
        _check_plain(section, listener)
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    for name, path in (("tls_cert", listener.tls_cert), ("tls_key", listener.tls_key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{section}.{name}: {path} cannot be read ({error.strerror})") from error
    try:
        context.load_cert_chain(listener.tls_cert, listener.tls_key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        why = "do not belong together" if "KEY_VALUES_MISMATCH" in str(error) else "are not a certificate and its unprotected key, in PEM"
        raise ConfigError(f"{section}.tls_cert {listener.tls_cert} and {section}.tls_key {listener.tls_key} {why}") from error
    return context


def client_context(certificate: Path) -> ssl.SSLContext:
    """For a look at one's own listener: exactly this certificate is trusted, whatever name it is for.

    Raises:
        OSError, ssl.SSLError: it cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_plain(section: str, listener: Listener) -> None:
    if not listener.allow_plain_http and not is_loopback(listener.host):
        raise ConfigError(
            f"{section}.host {listener.host} is not loopback: credentials would travel in clear; set {section}.tls_cert and "
            f"{section}.tls_key, or put a proxy that does TLS in front and set {section}.allow_plain_http"
        )


def _no_password() -> str:
    raise ValueError("the key is protected by a password")  # else OpenSSL would ask the terminal
