"""Rows of the fault matrix: selected by `--rows N1,W3`, and reported with what they measured in build/chaos.json."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

_REPORT: Final = Path(__file__).parents[2] / "build" / "chaos.json"
_SECONDS: Final = 900  # of one case

Measured = dict[str, Any]
_measured_key = pytest.StashKey[Measured]()
_results_key = pytest.StashKey[list[dict[str, object]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", default="", help="ids of fault rows, with commas between them; default: all")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(*ids): the fault rows a case belongs to")
    config.stash[_results_key] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {row.strip() for row in str(config.getoption("--rows", default="")).split(",") if row.strip()}
    cases = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in cases:
        if not _rows(item):
            raise pytest.UsageError(f"{item.nodeid} names no fault row")
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SECONDS))
    if unknown := wanted - {row for item in cases for row in _rows(item)}:
        raise pytest.UsageError(f"no case for {', '.join(sorted(unknown))}")
    if wanted:
        items[:] = [item for item in items if wanted & set(_rows(item))]


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """What a case measures; it goes into the report even when the case fails."""
    figures: Measured = {}
    request.node.stash[_measured_key] = figures
    return figures


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if figures := dict(report.user_properties).get("measured"):
        print(f"\n{report.nodeid.rsplit('::', 1)[-1]}: {figures}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report: pytest.TestReport = yield
    if call.when == "call" or (call.when == "setup" and report.outcome != "passed"):
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        measured = item.stash.get(_measured_key, {})
        report.user_properties.append(("measured", measured))
        item.config.stash[_results_key].append(
            {
                "row": "-".join(_rows(item)),
                "seed": parameters.get("seed"),
                "case": item.name,
                "outcome": report.outcome,
                "measured": measured,
                "seconds": round(report.duration, 1),
            }
        )
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    results = session.config.stash[_results_key]
    if results:
        _REPORT.parent.mkdir(exist_ok=True)
        _REPORT.write_text(json.dumps(results, indent=1, default=str) + "\n")


def _rows(item: pytest.Item) -> tuple[str, ...]:
    marker = item.get_closest_marker("row")
    return tuple(marker.args) if marker else ()
