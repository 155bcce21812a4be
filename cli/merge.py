"""`cloud-recorder merge`: files that any player takes, from the slices of finished recordings."""

from pathlib import Path
from typing import Any

import click

from cli._progress import bars
from recorder import log as logs
from recorder.tools.offline import OfflineError
from recorder.tools.offline.merge import merge
from recorder.tools.offline.options import ALL, PICTURES, SEGMENTS, SOUND, Options, v2_size

_MODES = {"auto": ALL, "audio_video": ALL, "audio_only": SOUND, "video_only": PICTURES}
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@click.option("-f", "folder", type=_FOLDER, metavar="DIR", help="folder with lists and slices; the files are made in it")
@click.option("--dir", "v2_folder", type=_FOLDER, metavar="DIR", help="the same, with -m 1 for a default")
@click.option(
    "-m", "mode", type=int, metavar="0-3", help="0: each recording segment of a participant (default); 1: all; 2: sound; 3: video"
)
@click.option("--avtype", type=click.Choice(list(_MODES)), help="as -m 1, 1, 2, 3")
@click.option("--recording_mode", type=click.Choice(["individual", "mix", "web"]), help="default: individual")
@click.option("-s", "drop_absences", is_flag=True, help="leave out the time a participant was away; else the last picture stays")
@click.option(
    "--fill_strategy",
    "fill",
    type=click.Choice(["duplicate_prev", "black_frame"]),
    default="duplicate_prev",
    show_default=True,
    help="what is seen while no video comes",
)
@click.option("-p", "--video_framerate", "fps", type=int, metavar="FPS", help="5 to 120; default: the source's")
@click.option("-r", "size", type=int, nargs=2, metavar="W H", help="size; default: the source's largest")
@click.option("--width", type=int, help="120 to 1920, with --height")
@click.option("--height", type=int, help="120 to 1080, with --width")
@click.option("--video_bitrate", "kbps", type=int, metavar="KBPS", help="50 to 6300; default: the source's")
@click.option("-u", "--uid", type=int, help="only this participant")
@click.option("-a", "also_sound", is_flag=True, help="also the sound of each segment as M4A")
@click.option("-c", "shots_ms", type=int, metavar="MS", help="also a JPG every MS milliseconds")
@click.option("-b", "begin_s", type=float, metavar="SEC", help="begin there; makes one file for each participant")
@click.option("-t", "length_s", type=float, metavar="SEC", help="only so long, from -b on")
@click.option("-o", "output", metavar="NAME", help="name of the file; with -u")
@click.option("-e", "each_slice", is_flag=True, help="also an MP4 or M4A of each TS slice")
@click.option("--ignore-missing", is_flag=True, help="slices that are missing or broken are absences; else they are an error")
@click.option("--compat", is_flag=True, help="as the original tool: 15 FPS, always encoded")
def command(
    *,
    folder: Path | None,
    v2_folder: Path | None,
    mode: int | None,
    avtype: str | None,
    recording_mode: str | None,
    size: tuple[int, int] | None,
    width: int | None,
    height: int | None,
    **others: Any,  # fields of `Options`
) -> None:
    """Merge the slices of finished recordings into MP4 and M4A files beside them.

    Media is copied unless an option, or the media itself, asks for encoding. The options are those of the original's convert.py
    and convert_v2.
    """
    wrong = []
    where = folder or v2_folder
    if where is None or (folder and v2_folder):
        wrong.append("-f or --dir names the folder: give one of them")
    if mode is not None and avtype is not None:
        wrong.append("-m and --avtype say the same: give one of them")
    if size and (width is not None or height is not None):
        wrong.append("-r and --width with --height say the same: give one of them")
    wrong += v2_size(width, height)
    composite = recording_mode in ("mix", "web")
    if mode is None:
        mode = _MODES[avtype or "auto"] if avtype or recording_mode or v2_folder else SEGMENTS
    size = size or ((width, height) if width is not None and height is not None else None)
    options = Options(mode=mode, composite=composite, size=size, **others)
    wrong += options.problems()
    if wrong or where is None:
        raise click.UsageError("; ".join(wrong))
    logs.configure("WARNING", json_lines=False)
    try:
        with bars() as progress:
            made = merge(where, options, progress)
    except (OfflineError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for path in made:
        click.echo(click.format_filename(path))
