"""`cloud-recorder publish`: participants with generated, measurable media."""

import asyncio
import dataclasses
import signal
from pathlib import Path
from typing import cast

import click
from pydantic import SecretStr

from recorder.rtp.negotiation import use_addresses
from recorder.tools.publish import Publication, Publisher, PublishError, local_addresses
from recorder.tools.publish_media import AudioCodec, Library, VideoCodec


async def publish(publication: Publication, *, count: int, seconds: float | None, cache: Path | None) -> None:
    """Publish as `count` participants with consecutive uids, until the time is over or SIGTERM or SIGINT comes.

    Raises:
        PublishError: refused, or a connection ended early.
    """
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    library = Library(cache)
    publishers = [Publisher(dataclasses.replace(publication, uid=publication.uid + i), library) for i in range(count)]
    try:
        for publisher in publishers:
            await publisher.start()
            click.echo(f"publishing as {publisher.publication.uid}")
        await _first_of(over, [publisher.closed for publisher in publishers], seconds)
        lost = [publisher.publication.uid for publisher in publishers if publisher.closed.is_set()]
        if lost:
            raise PublishError(f"the channel closed the connection of {', '.join(map(str, lost))}")
    finally:
        await asyncio.gather(*(publisher.stop() for publisher in publishers))


async def _first_of(over: asyncio.Event, closed: list[asyncio.Event], seconds: float | None) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in (over, *closed)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    width, _, height = value.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 64 <= int(width) <= 4096 and 64 <= int(height) <= 4096):
        raise click.BadParameter("WIDTHxHEIGHT, each from 64 to 4096")
    if int(width) % 2 or int(height) % 2:
        raise click.BadParameter("both sides must be even")
    return int(width), int(height)


@click.command()
@click.option("--hub", required=True, help="URL of the channel hub, such as http://127.0.0.1:8083")
@click.option("--app", "app_id", required=True, help="app id")
@click.option("--channel", required=True)
@click.option("--uid", type=click.IntRange(1, 2**32 - 1), required=True, help="of the first participant")
@click.option("--video", type=click.Choice(["h264", "vp8", "vp9", "av1", "none"]), default="h264", show_default=True)
@click.option("--audio", type=click.Choice(["opus", "pcmu", "pcma", "g722", "none"]), default="opus", show_default=True)
@click.option("--size", callback=_size, default="640x360", show_default=True)
@click.option("--fps", type=click.IntRange(1, 60), default=30, show_default=True)
@click.option("--bitrate", type=click.IntRange(50, 20_000), default=600, show_default=True, help="of the video, kbit/s")
@click.option("--low", callback=_size, metavar="SIZE", help="send the video in this size too, as the low stream")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="how long; default: until it is interrupted")
@click.option("--token-file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="file with the access token")
@click.option("--count", type=click.IntRange(1, 100), default=1, show_default=True, help="participants, with consecutive uids")
@click.option("--live", is_flag=True, help="encode while publishing: exact answers to keyframe requests, much more CPU")
@click.option("--shared-content", is_flag=True, help="one encode for all participants, without colour, number and tone of their own")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="folder that keeps encoded media for the next time")
def command(
    *,
    hub: str,
    app_id: str,
    channel: str,
    uid: int,
    video: str,
    audio: str,
    size: tuple[int, int],
    fps: int,
    bitrate: int,
    low: tuple[int, int] | None,
    seconds: float | None,
    token_file: Path | None,
    count: int,
    live: bool,
    shared_content: bool,
    cache: Path | None,
) -> None:
    """Publish generated media into a channel: moving picture, frame counter, and a flash and beep at each full second."""
    publication = Publication(
        hub=hub,
        app_id=app_id,
        channel=channel,
        uid=uid,
        token=SecretStr(token_file.read_text().strip()) if token_file else None,
        video=None if video == "none" else cast(VideoCodec, video),
        audio=None if audio == "none" else cast(AudioCodec, audio),
        width=size[0],
        height=size[1],
        fps=fps,
        bitrate_kbps=bitrate,
        low=low,
        live=live,
        own_content=not shared_content,
    )
    if publication.video is None and publication.audio is None:
        raise click.UsageError("nothing to publish: --video none --audio none")
    if publication.low and publication.video is None:
        raise click.UsageError("--low does not go with --video none")
    if publication.live and publication.video == "av1":
        raise click.UsageError("--live does not go with --video av1, which is encoded in a process of its own")
    use_addresses(local_addresses(hub))
    try:
        asyncio.run(publish(publication, count=count, seconds=seconds, cache=cache))
    except PublishError as error:
        raise click.ClickException(str(error)) from error
