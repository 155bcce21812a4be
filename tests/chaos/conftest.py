"""Rows of the fault matrix: selected by `--rows N1,W3`, and reported with what they measured in build/chaos.json."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

_REPORT: Final = Path(__file__).parents[2] / "build" / "chaos.json"
_SECONDS: Final = 900  # of one case

Measured = dict[str, Any]
_measured_key = pytest.StashKey[Measured]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", default="", help="ids of fault rows, with commas between them; default: all")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(*ids): the fault rows a case belongs to")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Results())


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


class _Results:
    """Of the whole run, also when several processes share the cases."""

    def __init__(self) -> None:
        self._results: list[dict[str, object]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case = dict(report.user_properties).get("chaos")
        if not isinstance(case, str):
            return
        result = json.loads(case)
        self._results.append(result | {"outcome": report.outcome, "seconds": round(report.duration, 1)})
        if result["measured"]:
            print(f"\n{result['case']}: {result['measured']}")

    def pytest_sessionfinish(self) -> None:
        if self._results:
            _REPORT.parent.mkdir(exist_ok=True)
            _REPORT.write_text(json.dumps(sorted(self._results, key=_place), indent=1) + "\n")


def _place(result: dict[str, object]) -> tuple[str, str]:
    return str(result["row"]), str(result["case"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report: pytest.TestReport = yield
    if call.when == "call" or (call.when == "setup" and report.outcome != "passed"):
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        case = {
            "row": "-".join(_rows(item)),
            "seed": parameters.get("seed"),
            "case": item.name,
            "measured": item.stash.get(_measured_key, {}),
        }
        report.user_properties.append(("chaos", json.dumps(case, default=str)))
    return report


def _rows(item: pytest.Item) -> tuple[str, ...]:
    marker = item.get_closest_marker("row")
    return tuple(marker.args) if marker else ()
