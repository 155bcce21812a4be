"""What is kept in the spool, and for how long."""

import os
from pathlib import Path

from recorder.agent.retention import forget
from storage.spool import Spool

DAY = 86_400
NOW = 2_000_000_000.0


def test_what_was_kept_for_its_time_goes_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for sid in ("old", "new", "busy", "moved", "bare"):
        recording = spool.recording(sid)
        recording.partial("x.ts").write_bytes(b"media")
        if sid != "bare":
            recording.commit("x.ts", {"type": "slice"})
            recording.uploads.append({"type": "epoch", "epoch": 1})
        recording.close()
    spool.set_aside("moved")
    for path in spool.root.rglob("*"):
        os.utime(path, (NOW - 31 * DAY, NOW - 31 * DAY))
    os.utime(spool.root / "new" / "uploads", (NOW - 29 * DAY, NOW - 29 * DAY))
    assert sorted(forget(spool, ["busy"], keep_days=30, now=lambda: NOW)) == [".moved.moved", "bare", "old"]
    assert spool.recordings() == ["busy", "new"]
    assert spool.recording("new").file("x.ts").read_bytes() == b"media"
    assert forget(spool, ["busy"], keep_days=30, now=lambda: NOW) == []
