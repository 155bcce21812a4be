"""The lock files: what CI, the image and a stranger's `make demo` install."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.txt", "requirements-dev.txt")


def pins(name: str) -> dict[str, tuple[str, int]]:
    """Package → (version, number of hashes); anything else in the file is an error."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.M).replace("\\\n", " ")
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"([a-z0-9.-]+)==(\S+?)(?: ;.*?)?((?:\s+--hash=sha256:[0-9a-f]{64})+)", line)
        assert match, line[:80]
        found[match[1]] = (match[2], match[3].count("--hash"))
    return found


def declared(text: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ]", text)[0]).lower()


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_is_an_exact_version_with_hashes_and_no_index(name: str) -> None:
    assert len(pins(name)) > 30
    assert "://" not in (ROOT / name).read_text()


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {declared(text) for text in project["dependencies"]} <= pins("requirements.txt").keys()
    assert {declared(text) for text in project["optional-dependencies"]["dev"]} <= pins("requirements-dev.txt").keys()


def test_both_locks_agree() -> None:
    runtime, dev = (pins(name) for name in LOCKS)
    assert runtime == {name: dev[name] for name in runtime}


def test_binary_packages_have_wheels_for_every_supported_python() -> None:
    for name in ("av", "numpy", "pydantic-core", "cffi"):
        assert pins("requirements.txt")[name][1] >= 10, name
