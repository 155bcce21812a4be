"""What all tests share: a time limit by kind, so that a hanging test names itself instead of stopping the run."""

import os
from pathlib import Path

import pytest

from cli.demo import processes

pytest.register_assert_rewrite("tests.chaos")  # cases that several suites run

# Of several processes that share the tests, each takes ports of its own.
WORKERS, WORKER = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
processes.PORTS = processes.PORTS[int(WORKER.removeprefix("gw")) :: WORKERS]

SECONDS = {"unit": 20, "contract": 30, "integration": 60, "e2e": 300}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        kind = item.path.relative_to(here).parts[0]
        if kind == "e2e":
            item.add_marker(pytest.mark.alone)
        if kind in SECONDS and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS[kind]))
