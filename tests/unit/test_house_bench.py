import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import Result
from tests.bench.run import run


def good() -> Iterator[Result]:
    yield Result("good", 1.5, "s")
    yield Result("good/ffmpeg", 3.0, "s", peer="ffmpeg", ratio=0.5)


def broken() -> Iterator[Result]:
    yield Result("broken", 2.0, "s")
    raise ValueError("no such device")


def test_each_result_is_one_json_object_on_stdout_and_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run({"good": good}, tmp_path / "b" / "bench.json")
    printed = capsys.readouterr().out
    assert [json.loads(line) for line in printed.splitlines()] == [
        {"name": "good", "value": 1.5, "unit": "s", "peer": None, "ratio": None},
        {"name": "good/ffmpeg", "value": 3.0, "unit": "s", "peer": "ffmpeg", "ratio": 0.5},
    ]
    assert (tmp_path / "b" / "bench.json").read_text() == printed


def test_a_broken_bench_fails_the_run_but_keeps_the_numbers_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run({"broken": broken, "good": good}, tmp_path / "bench.json")
    captured = capsys.readouterr()
    assert [json.loads(line)["name"] for line in captured.out.splitlines()] == ["broken", "good", "good/ffmpeg"]
    assert "no such device" in captured.err
