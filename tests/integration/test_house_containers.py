"""The image and the compose file, as far as they can be judged without a container engine."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from recorder.settings import load

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    argv = [str(TOOLS / "docker-compose"), "-f", str(ROOT / "docker-compose.yml"), "config", "--format", "json"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found: dict[str, Any] = json.loads(result.stdout)["services"]
    return found


def test_the_recorder_is_confined(services: dict[str, Any]) -> None:
    recorder = services["recorder"]
    assert recorder["read_only"] is True
    assert recorder["cap_drop"] == ["ALL"]
    assert recorder["security_opt"] == ["no-new-privileges:true"]


def test_the_store_can_write_without_capabilities(services: dict[str, Any]) -> None:
    assert services["store"]["cap_drop"] == ["ALL"]
    assert services["store"]["user"] == "1000:1000"  # to whom the image gives /data


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    for service in services.values():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ()))


def test_the_environment_is_understood_by_the_settings(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in services["recorder"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.hub.addresses == settings.agent.addresses == ("127.0.0.1",)
    assert settings.agent.allowed_networks == ("127.0.0.1/32",)
    assert settings.log_json
    assert (settings.api.port, settings.api.probe_port, settings.hub.port) == (8080, 8082, 8083)  # what image and comments name


def test_the_store_makes_its_own_keys_once(services: dict[str, Any], tmp_path: Path) -> None:
    weed = tmp_path / "weed"
    weed.write_text("#!/bin/sh\nexit 0\n")
    weed.chmod(0o700)
    script = services["store"]["command"][0].replace("$$", "$").replace("/data", str(tmp_path))
    keys = []
    for _ in range(2):
        argv = [*services["store"]["entrypoint"], script]
        subprocess.run(argv, check=True, timeout=20, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        keys.append((tmp_path / "s3.json").read_text())
    assert keys[0] == keys[1]
    (credential,) = json.loads(keys[0])["identities"][0]["credentials"]
    assert re.fullmatch("[0-9a-f]{20}", credential["accessKey"])
    assert re.fullmatch("[0-9a-f]{48}", credential["secretKey"])
    assert (tmp_path / "s3.json").stat().st_mode & 0o777 == 0o600


def test_hadolint_finds_nothing() -> None:
    result = subprocess.run([TOOLS / "hadolint", ROOT / "docker" / "Dockerfile"], capture_output=True, text=True, timeout=50, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_holds_every_package_and_what_it_copies_exists() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, flags=re.M) for word in line.split()}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.rstrip("*") for pattern in packages} <= copied
