"""`cloud-recorder demo` from the outside: what a stranger sees after `make demo`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cli


def test_the_demo_records_and_proves_it(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__path__[0]).parent)}
    argv = [sys.executable, "-m", "cli.main", "demo", "--seconds", "20"]
    result = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False)
    summary = json.loads((tmp_path / "build" / "demo.json").read_text()) if (tmp_path / "build" / "demo.json").exists() else {}
    broken = [f"{check['name']}: {check['detail']}" for check in summary.get("checks", ()) if not check["ok"]]
    assert (result.returncode, broken) == (0, []), result.stdout[-3000:] + result.stderr[-3000:]
    assert summary["ok"] is True
    assert all((tmp_path / file["path"]).stat().st_size == file["size"] for file in summary["files"])
    assert {file["kind"] for file in summary["files"]} == {"playlist", "slice", "mp4"}
    composites = [file for file in summary["files"] if file["track"] == "composite" and file["kind"] != "slice"]
    assert all(abs(file["av_offset_ms"]) <= 40 for file in composites)
    assert "recorded files" in result.stdout
