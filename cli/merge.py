"""`cloud-recorder merge`: files that any player takes, from the slices of recordings."""

from pathlib import Path
from typing import Any

import click

from cli._progress import bars
from recorder import log as logs
from recorder.tools.offline import OfflineError
from recorder.tools.offline.merge import Options, merge

_MODES = {"auto": 1, "audio_video": 1, "audio_only": 2, "video_only": 3}
_LEAST_FPS, _MOST_FPS = 5, 120


def _fps(_context: click.Context, _parameter: click.Parameter, value: int | None) -> int | None:
    if value is not None and value > _MOST_FPS:
        raise click.BadParameter(f"at most {_MOST_FPS}")
    return None if value is None else max(_LEAST_FPS, value)


@click.command()
@click.option(
    "-f",
    "--dir",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="folder with lists and slices",
)
@click.option(
    "-m",
    "mode",
    type=click.IntRange(0, 3),
    help="0: each recording segment of a participant (default); 1: all of a participant in one file; 2: its sound; 3: its pictures",
)
@click.option("--avtype", type=click.Choice(list(_MODES)), help="as -m 1, 1, 2, 3")
@click.option("--recording_mode", type=click.Choice(["individual", "mix", "web"]), default="individual", show_default=True)
@click.option("-s", "drop_absences", is_flag=True, help="leave out the time a participant was away; without it the last picture stays")
@click.option(
    "--fill_strategy",
    "fill",
    type=click.Choice(["duplicate_prev", "black_frame"]),
    default="duplicate_prev",
    show_default=True,
    help="what is seen while a participant is away",
)
@click.option("-p", "--video_framerate", "fps", type=int, callback=_fps, help="pictures per second, 5 to 120; default: the source's")
@click.option("-r", "size", type=click.IntRange(16, 4096), nargs=2, help="width and height; default: the source's largest")
@click.option("--width", type=click.IntRange(120, 1920))
@click.option("--height", type=click.IntRange(120, 1080))
@click.option("--video_bitrate", "kbps", type=click.IntRange(50, 6300), help="kbit/s; default: the source's")
@click.option("-u", "--uid", type=click.IntRange(1, 2**32 - 1), help="only this participant")
@click.option("-a", "also_sound", is_flag=True, help="also the sound of each segment as M4A")
@click.option("-c", "shots_ms", type=click.IntRange(1), metavar="MS", help="also a JPG every MS milliseconds")
@click.option("-b", "begin_s", type=click.FloatRange(0), metavar="SECONDS", help="begin there; makes one file for a participant")
@click.option("-t", "length_s", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="only so long, from -b on")
@click.option("-o", "output", metavar="NAME", help="name of the file; with -u")
@click.option("-e", "each_slice", is_flag=True, help="also an MP4 or M4A of each TS slice")
@click.option("--compat", is_flag=True, help="the original tool's defaults: 15 pictures per second, always encoded")
@click.option("--ignore-missing", is_flag=True, help="treat missing slices as absence; without it they are an error")
def command(
    *,
    folder: Path,
    mode: int | None,
    avtype: str | None,
    recording_mode: str,
    width: int | None,
    height: int | None,
    size: tuple[int, int] | None,
    **others: Any,
) -> None:
    """Merge the slices of finished recordings in a folder into MP4 and M4A files beside them.

    Media is copied unless an option or the media itself asks for encoding. Options are those of the original's convert.py and convert_v2.
    """
    wrong = []
    if mode is not None and avtype is not None:
        wrong.append("-m and --avtype say the same: give one of them")
    if (width is None) != (height is None):
        wrong.append("--width and --height go together")
    if size and width:
        wrong.append("-r and --width/--height say the same: give one of them")
    if recording_mode != "individual" and mode == 0:
        wrong.append("-m 0 is for individual recordings")
    chosen = _MODES[avtype] if avtype else mode
    if chosen is None:
        chosen = 0 if recording_mode == "individual" else 1
    wanted_size = size or ((width, height) if width and height else None)
    options = Options(mode=chosen, composite=recording_mode != "individual", size=wanted_size, **others)
    wrong += options.problems()
    if wrong:
        raise click.UsageError("; ".join(wrong))
    logs.configure("WARNING", json_lines=False)
    try:
        with bars() as progress:
            made = merge(folder, options, progress)
    except OfflineError as error:
        raise click.ClickException(str(error)) from error
    for path in made:
        click.echo(path)
