"""What all tests share: a time limit by kind, so that a hanging test names itself; a look for secrets; reports that can be sent."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from cli.demo import processes
from tests import canary

pytest.register_assert_rewrite("tests.chaos")  # cases that several suites run

# Of several processes that share the tests, each takes ports of its own.
WORKERS, WORKER = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
processes.PORTS = processes.PORTS[int(WORKER.removeprefix("gw")) :: WORKERS]

_WATCH = pytest.StashKey[canary.Watch]()

SECONDS = {"unit": 20, "contract": 30, "integration": 60, "e2e": 300}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_WATCH] = canary.Watch()
    config.stash[_WATCH].begin()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """No secret that a test used may be left anywhere."""
    watch = session.config.stash[_WATCH]
    watch.end()
    folder: Path = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    if "PYTEST_XDIST_WORKER" in os.environ:  # its files lie below those of the process that collects the results
        if watch.found:
            (folder / canary.FINDINGS).write_text("\n".join([canary.MARK, *sorted(watch.found)]))
        return
    found = [*sorted(watch.found), *canary.search(folder)]
    for path in folder.glob(f"popen-*/{canary.FINDINGS}"):
        found += path.read_text().splitlines()[1:]
    if found:
        print("\nsecrets of the tests are left behind:", *found, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, object, object]:
    """A report goes to the process that collects the results; one with half a character in it would end the whole run."""
    return _encodable((yield))


def _encodable(value: object) -> object:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(one) for key, one in value.items()}
        case list() | tuple():
            return type(value)(_encodable(one) for one in value)
        case _:
            return value


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        kind = item.path.relative_to(here).parts[0]
        if kind in SECONDS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS[kind]))
