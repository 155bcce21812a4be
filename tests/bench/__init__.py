"""Benchmarks: each file `bench_<subject>.py` offers `BENCHES: dict[str, Callable[[], Iterable[Result]]]`.

`python -m tests.bench.run` finds and runs them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One measured number. Further peers and variants of a bench are lines of their own, named `<bench>/<variant>`."""

    name: str
    value: float
    unit: str
    peer: str | None = None  # what the ratio compares with
    ratio: float | None = None  # value / the peer's value in the same run
