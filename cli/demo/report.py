"""Shows the demo's result to people, and to programs as build/demo.json."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cli.demo.judge import Verdict
from cli.demo.session import Take


def write(verdict: Verdict, take: Take, path: Path) -> None:
    """Paths in it are relative to the current folder, the root of the repository."""
    result = {
        "ok": verdict.ok,
        "recorded_seconds": {one.mode: round((take.stopped_ms - one.started_ms) / 1000, 3) for one in take.recordings},
        "files": [asdict(file) | {"path": os.path.relpath(file.path)} for file in verdict.files],
        "checks": [asdict(check) for check in verdict.checks],
    }
    path.write_text(json.dumps(result, indent=2) + "\n")


def show(verdict: Verdict, console: Console) -> None:
    """The table of files (slices counted, not listed), then the checks that failed."""
    table = Table(Column("name", overflow="fold"), title="recorded files")
    for heading in ("kind", "codec", "size", "duration", "A/V offset"):
        table.add_column(heading, no_wrap=True)
    for file in verdict.files:
        if file.kind == "slice":
            continue
        slices = sum(other.kind == "slice" and other.track == file.track for other in verdict.files)
        kind = f"{file.track}, slices: {slices}" if file.kind == "playlist" else f"{file.track}, MP4"
        picture = f" {file.width}x{file.height}" if file.width else ""
        offset = "–" if file.av_offset_ms is None else f"{file.av_offset_ms:+.1f} ms"
        table.add_row(escape(file.path.name), kind, "+".join(file.codecs) + picture, _bytes(file.size), f"{file.duration:.2f} s", offset)
    console.print(table)
    for check in verdict.checks:
        if not check.ok:
            console.print(f"[red]FAILED[/red] {escape(check.name)}: {escape(check.detail)}")
    passed = sum(check.ok for check in verdict.checks)
    console.print(f"{passed} of {len(verdict.checks)} checks hold")
    for folder in sorted({str(file.path.parent) for file in verdict.files}):
        console.print(f"files: {escape(folder)}")


def _bytes(size: int) -> str:
    return f"{size / 1_000_000:.2f} MB" if size >= 100_000 else f"{size} B"
