"""`cloud-recorder replay`: makes a recording from a capture, without a channel and faster than real time."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from recorder import log as logs
from recorder.rtp.capture import CaptureError, load
from recorder.settings import Recording
from recorder.spec import RecordingSpec
from recorder.tools.replay import Replayed, replay

_LAYOUTS = {"floating": 0, "best-fit": 1, "vertical": 2, "custom": 3}


@click.command()
@click.argument("capture", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="new or empty folder for the files")
@click.option("--mode", type=click.Choice(["mix", "individual"]), help="default: as captured")
@click.option("--layout", type=click.Choice(list(_LAYOUTS)), help="of the composite; default: as captured")
@click.option("--fps", type=click.IntRange(1, 60), help="of the composite; default: as captured")
@click.option("--mp4/--no-mp4", default=None, help="composite as MP4 too; default: as captured")
@click.option("--slice-seconds", type=click.FloatRange(0, min_open=True), default=15, show_default=True, help="length of HLS slices")
def command(
    *, capture: Path, out: Path, mode: str | None, layout: str | None, fps: int | None, mp4: bool | None, slice_seconds: float
) -> None:
    """Record CAPTURE, a folder that a worker has written under --capture, once more.

    The same capture and options give the same bytes each time, whatever the load of the machine.
    """
    logs.configure("WARNING", json_lines=False)
    try:
        captured = load(capture)
        spec = _changed(captured.description.recording.spec(), mode, layout, fps, mp4)
        settings = Recording(jitter_ms=captured.description.jitter_ms, slice_seconds=slice_seconds)
        replayed = replay(captured, out, spec, settings)
    except (CaptureError, FileExistsError) as error:
        raise click.ClickException(str(error)) from error
    _show(replayed, Console())
    if not captured.description.complete:
        click.echo("the capture ended before its recording did")


def _changed(spec: RecordingSpec, mode: str | None, layout: str | None, fps: int | None, mp4: bool | None) -> RecordingSpec:
    wanted = {
        "mode": mode,
        "layout": layout and spec.layout.model_copy(update={"number": _LAYOUTS[layout]}),
        "canvas": fps and spec.canvas.model_copy(update={"fps": fps}),
        "mp4": mp4,
    }
    return spec.model_copy(update={name: value for name, value in wanted.items() if value is not None})


def _show(replayed: Replayed, console: Console) -> None:
    files = Table("playlist or file", "slices", "seconds", "kB")
    for name, slices in replayed.playlists().items():
        seconds = sum(item.duration_ns for item in slices) / 1e9
        files.add_row(name, str(len(slices)), f"{seconds:.3f}", str(sum(item.size for item in slices) // 1000))
    for item in replayed.slices:
        if item.playlist is None:
            files.add_row(item.name, "", f"{item.duration_ns / 1e9:.3f}", str(item.size // 1000))
    sessions = Table("uid", "packets", "malformed", "unrouted", "frames", "not decodable")
    for uid, counters in replayed.receivers:
        row = (uid, counters.packets, counters.malformed, counters.unrouted, counters.frames, counters.frames_undecodable)
        sessions.add_row(*map(str, row))
    console.print(files, sessions)
    console.print(f"{replayed.seconds:.1f} s in {replayed.took_seconds:.1f} s: {replayed.times_real_time:.1f} x real time")
