import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.settings import ConfigError, load


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("CLOUD_RECORDER_")]:
        monkeypatch.delenv(name)


def test_defaults_stay_on_loopback() -> None:
    settings = load()
    assert settings.api.host == settings.hub.host == "127.0.0.1"
    assert settings.hub.addresses == settings.agent.addresses == ("127.0.0.1",)
    assert not settings.api.allow_plain_http
    assert not settings.hub.allow_open_channels


def test_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.toml"
    config.write_text('data_dir = "/srv/rec"\n[api]\nport = 9000\nprobe_port = 9001\n')
    monkeypatch.setenv("CLOUD_RECORDER_API__PORT", "9100")
    settings = load(config)
    assert (settings.api.port, settings.api.probe_port, settings.data_dir) == (9100, 9001, Path("/srv/rec"))


@pytest.mark.parametrize("section", ["HUB", "AGENT"])
def test_addresses_for_media_are_addresses(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CLOUD_RECORDER_{section}__ADDRESSES", '["rec.example.com"]')
    with pytest.raises(ConfigError, match=f"{section.lower()}.addresses"):
        load()


def test_every_wrong_field_is_named_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "c.toml"
    config.write_text('colour = "red"\n[api]\nport = 70000\n[recording]\nlease_seconds = 1\n')
    monkeypatch.setenv("CLOUD_RECORDER_AGENT__MAX_RECORDINGS", "none")
    with pytest.raises(ConfigError) as caught:
        load(config)
    message = str(caught.value)
    assert "\n" not in message
    for field in ("colour", "api.port", "recording.lease_seconds", "agent.max_recordings"):
        assert field in message


@pytest.mark.parametrize("text", ["port = ", "[api", "\x00"])
def test_broken_toml_is_a_config_error(tmp_path: Path, text: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.toml"):
        load(config)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load(tmp_path / "absent.toml")


def test_wrong_values_are_not_repeated_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RECORDER_API__PORT", "hunter2")
    with pytest.raises(ConfigError) as caught:
        load()
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_the_socket_folder_is_private(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_RECORDER_DATA_DIR", str(short / "d"))
    folder = load().runtime_dir()
    assert folder == short / "d" / "run"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_long_data_dir_gets_a_short_socket_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = []
    for name in ("a", "b"):
        monkeypatch.setenv("CLOUD_RECORDER_DATA_DIR", str(tmp_path / (name * 100)))
        folders.append(load().runtime_dir())
    assert folders[0] != folders[1]
    assert all(folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700 for folder in folders)


def test_a_socket_folder_that_is_a_link_is_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "elsewhere").mkdir()
    (short / "d").mkdir()
    (short / "d" / "run").symlink_to(short / "elsewhere")
    monkeypatch.setenv("CLOUD_RECORDER_DATA_DIR", str(short / "d"))
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        load().runtime_dir()


def test_settings_reach_a_worker_as_they_are(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[api]\nport = 9000\n")
    settings = load(config)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.api.port == 9000


URL = "postgresql+asyncpg://recorder:canary-password@db/recorder"


def test_secrets_may_stand_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text(f"{URL}\n")
    (tmp_path / "certificates").write_text(f'{{"app": "{"c" * 32}"}}')
    config = tmp_path / "c.toml"
    config.write_text(f'[hub]\ncertificates_file = "{tmp_path / "certificates"}"\n')
    monkeypatch.setenv("CLOUD_RECORDER_API__DATABASE_URL_FILE", str(tmp_path / "url"))
    settings = load(config)
    assert settings.database_url == URL
    assert settings.hub.certificates["app"].get_secret_value() == "c" * 32
    assert "canary" not in repr(settings) + str(settings.model_dump())
    worker = settings.without_secrets()
    assert "canary-password" not in str(pickle.dumps(worker))
    assert "c" * 32 not in str(pickle.dumps(worker))
    assert worker.recording == settings.recording


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("API__DATABASE_URL_FILE", None, "api.*database_url_file.*cannot be read"),
        ("API__DATABASE_URL_FILE", b"", "api.*database_url_file.*is empty"),
        ("API__DATABASE_URL_FILE", b"\xff\xfe", "api.*database_url_file.*is not text"),
        ("HUB__CERTIFICATES_FILE", b"canary", "hub.*certificates_file.*is not JSON"),
        ("HUB__CERTIFICATES_FILE", b'["canary"]', "hub.certificates"),
        ("API__PORT_FILE", b"80", "api.port_file"),
    ],
)
def test_files_of_secrets_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(f"CLOUD_RECORDER_{name}", str(path))
    with pytest.raises(ConfigError, match=words) as caught:
        load()
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_secret_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text(URL)
    monkeypatch.setenv("CLOUD_RECORDER_API__DATABASE_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("CLOUD_RECORDER_API__DATABASE_URL", URL)
    with pytest.raises(ConfigError, match="database_url and database_url_file are both set"):
        load()
