"""`cloud-recorder convert`: recorded files in other formats."""

from pathlib import Path
from typing import cast

import click

from cli._progress import bars
from recorder import log as logs
from recorder.tools.offline import OfflineError
from recorder.tools.offline.convert import SOURCES, TARGETS, Target, convert, convert_folder


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("formats", nargs=-1, required=True, metavar="[FROM] TO")
@click.option(
    "-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="name of the new file; default: the same with another suffix"
)
def command(*, source: Path, formats: tuple[str, ...], output: Path | None) -> None:
    """Convert SOURCE, a file, to the format TO; or every file of the format FROM in the folder SOURCE.

    \b
    cloud-recorder convert recording.m3u8 mp4
    cloud-recorder convert recordings/ ts mp3

    FROM: ts, webm, m3u8, mpd, mp4, m4a, aac, mp3, wav. TO: mp4, m4a, mp3, wav, aac, ts. Media is copied where the format allows it.
    """
    wrong = []
    if len(formats) != (2 if source.is_dir() else 1):
        wrong.append("a folder needs FROM and TO" if source.is_dir() else "a file needs TO alone")
    if formats[-1] not in TARGETS:
        wrong.append(f"TO must be one of {', '.join(TARGETS)}")
    if len(formats) == 2 and formats[0] not in SOURCES:
        wrong.append(f"FROM must be one of {', '.join(SOURCES)}")
    if len(formats) == 2 and formats[0] == formats[1]:
        wrong.append("FROM and TO are the same")
    if output and source.is_dir():
        wrong.append("-o is for a single file")
    if wrong:
        raise click.UsageError("; ".join(wrong))
    logs.configure("WARNING", json_lines=False)
    target = cast(Target, formats[-1])
    try:
        with bars() as progress:
            made = convert_folder(source, formats[0], target, progress) if source.is_dir() else [convert(source, target, output, progress)]
    except (OfflineError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for path in made:
        click.echo(click.format_filename(path))
