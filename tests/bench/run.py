"""Run the benchmarks: one JSON object per line on stdout, and all of them in build/bench.json.

Progress and errors go to stderr, so that stdout stays readable by programs.
"""

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import tests.bench
from tests.bench import Result

REPORT = Path("build/bench.json")

Bench = Callable[[], Iterable[Result]]


def find() -> dict[str, Bench]:
    """Every bench of this package by name."""
    benches: dict[str, Bench] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(tests.bench.__path__)):
        if module.startswith("bench_"):
            benches |= importlib.import_module(f"tests.bench.{module}").BENCHES
    return benches


def run(benches: dict[str, Bench], report: Path) -> bool:
    """Run them one after the other; `report` holds what is measured so far. Returns whether all went through."""
    report.parent.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    well = True
    for name, bench in benches.items():
        print(f"bench {name} …", file=sys.stderr, flush=True)
        try:
            for result in bench():
                results.append(result)
                print(json.dumps(asdict(result)), flush=True)
        except Exception as error:  # noqa: BLE001  # one broken bench does not hide the numbers of the others
            print(f"bench {name} failed: {error!r}", file=sys.stderr)
            well = False
        report.write_text("".join(json.dumps(asdict(result)) + "\n" for result in results))
    return well


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__)
    parser.add_argument("--only", help="the bench of this name, and its variants")
    only: str | None = parser.parse_args().only
    benches = find()
    if only:
        benches = {name: bench for name, bench in benches.items() if name == only.partition("/")[0]}
        if not benches:
            print(f"no bench {only!r}; there are: {', '.join(find()) or 'none yet'}", file=sys.stderr)
            return 2
    return 0 if run(benches, REPORT) else 1


if __name__ == "__main__":
    sys.exit(main())
