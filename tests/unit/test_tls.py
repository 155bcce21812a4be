"""Which listeners may be opened, and how they speak."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from recorder.settings import Api, ConfigError, Hub
from recorder.tls import server_context
from tests.certificates import self_signed


def api(**values: object) -> Api:
    return Api.model_validate(values)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_plain_http_stays_on_this_machine(host: str) -> None:
    assert server_context("api", api(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "recorder.example.com", ""])
def test_plain_http_to_elsewhere_must_be_asked_for(host: str) -> None:
    with pytest.raises(ConfigError, match=r"api\.host .* is not loopback"):
        server_context("api", api(host=host))
    with pytest.raises(ConfigError, match=r"hub\.host .* is not loopback"):
        server_context("hub", Hub(host=host))
    assert server_context("api", api(host=host, allow_plain_http=True)) is None


def test_tls_is_1_2_or_newer_with_strong_ciphers_alone(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    context = server_context("api", api(host="0.0.0.0", tls_cert=cert, tls_key=key))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    for cipher in context.get_ciphers():
        assert cipher["aead"], cipher
        assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-"), cipher


def _missing(folder: Path) -> tuple[Path, Path]:
    return self_signed(folder)[0], folder / "absent.key"


def _swapped(folder: Path) -> tuple[Path, Path]:
    cert, key = self_signed(folder)
    return key, cert


def _of_two(folder: Path) -> tuple[Path, Path]:
    return self_signed(folder, "one")[0], self_signed(folder, "two")[1]


def _garbage(folder: Path) -> tuple[Path, Path]:
    cert, key = self_signed(folder)
    cert.write_text("no certificate")
    return cert, key


def _locked(folder: Path) -> tuple[Path, Path]:
    return self_signed(folder, password=b"canary")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_missing, r"api\.tls_key: .*absent\.key cannot be read"),
        (_swapped, "are not a certificate and its unprotected key"),
        (_of_two, "do not belong together"),
        (_garbage, "are not a certificate and its unprotected key"),
        (_locked, "are not a certificate and its unprotected key"),
    ],
)
def test_files_that_cannot_be_used_are_named_in_one_line(tmp_path: Path, make: Callable[[Path], tuple[Path, Path]], words: str) -> None:
    cert, key = make(tmp_path)
    with pytest.raises(ConfigError, match=words) as caught:
        server_context("api", api(tls_cert=cert, tls_key=key))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_one_file_alone_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="go together"):
        server_context("api", api(**{name: tmp_path / "x"}))
