"""Which lists a recording has and what they say while slices are still on their way. Pure."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from recorder.frames import Track
from recorder.outputs import merged, playlist
from recorder.outputs.names import Names
from recorder.protocol import Slice
from recorder.spec import RecordingSpec


@dataclass(frozen=True, slots=True)
class RenderedList:
    name: str
    data: bytes
    names: frozenset[str]  # of the slices it shows


def render_lists(
    spec: RecordingSpec, name: str, slices: Iterable[Slice], *, stored: Collection[str], lost: Collection[str], ended: bool
) -> Iterator[RenderedList]:
    """The playlist `name`, and what else follows from it; nothing while it has nothing to show.

    A list has its end when nothing more will be committed (`ended`) and all its slices are stored or lost.
    """
    committed = list(slices)

    def shown(of: str) -> list[Slice]:
        return listed([one for one in committed if one.playlist == of], stored, lost)

    def over(*lists: str) -> bool:
        return ended and all(one.name in stored or one.name in lost for one in committed if one.playlist in lists)

    own = shown(name)
    if not own:
        return
    yield _rendered(name, playlist.render(own, ended=over(name), correct_extinf=spec.correct_extinf), own)
    names = Names(spec.sid, spec.channel)
    track = names.track_of(name)
    if spec.stream_mode != "standard" or track is None:
        return
    tracks = [names.track_playlist(Track(track.uid, kind)) for kind in ("video", "audio")]
    video, audio = ([one for one in shown(of) if one.name.endswith(".ts")] for of in tracks)
    if video or audio:
        yield _rendered(names.merged_playlist(track.uid, "m3u8"), merged.multivariant(video, audio), [*video, *audio])
    video, audio = ([one for one in shown(of) if one.name.endswith(".webm")] for of in tracks)
    if video or audio:
        yield _rendered(names.merged_playlist(track.uid, "mpd"), merged.mpd(video, audio, ended=over(*tracks)), [*video, *audio])


def listed(committed: Sequence[Slice], stored: Collection[str], lost: Collection[str]) -> list[Slice]:
    """What a playlist may show: its slices in order, up to the first that is still on its way.

    A slice follows a discontinuity where one before it is lost or another worker begins.
    """
    shown: list[Slice] = []
    gap = False
    for one in sorted(committed, key=lambda one: (one.epoch, one.sequence)):
        if one.name in lost:
            gap = True
        elif one.name in stored:
            gap = gap or bool(shown and shown[-1].epoch != one.epoch)
            shown.append(one.model_copy(update={"discontinuity": True}) if gap else one)
            gap = False
        else:
            break
    return shown


def _rendered(name: str, text: str, shown: Iterable[Slice]) -> RenderedList:
    return RenderedList(name, text.encode(), frozenset(one.name for one in shown))
