"""What shows where there is no video, and changes while recording: the composite under a virtual clock, exact to one picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame

from mixer.canvas import colour
from mixer.fit import Size
from mixer.picture import Colour, Picture, Planes
from recorder.frames import Track
from recorder.hub.ingest import SILENT_NS
from recorder.spec import Canvas, Layout, RecordingSpec, Region, Subscription, UidRule, UserBackground
from recorder.tools import measure
from recorder.tools.content import tone_hz
from recorder.tools.publish_media import VideoCodec
from recorder.worker.pipeline import ImageLoaded, Joined, Left, Started, Stopped
from tests.integration.media import SECOND, Person
from tests.integration.straight_line import Recorded

FPS = 30
RED, GREEN, BLUE, WHITE, BLACK = (colour(text) for text in ("#ff0000", "#00ff00", "#0000ff", "#ffffff", "#000000"))
LEFT, RIGHT = measure.Rect(0, 0, 160, 180), measure.Rect(160, 0, 160, 180)
WHOLE = measure.Rect(0, 0, 320, 180)


def spec(**changes: object) -> RecordingSpec:
    canvas = Canvas(width=320, height=180, fps=FPS, bitrate_kbps=2000)
    made = RecordingSpec(sid="a" * 32, app_id="app", channel="room", uid=1, mode="mix", canvas=canvas, audio=False)
    return made.model_copy(update={"layout": Layout(number=1), **changes})


def person(uid: int, codec: VideoCodec = "h264", **options: Any) -> Person:
    return Person(uid, codec, width=320, height=180, **options)


def beeps(path: Path, uid: int) -> list[int]:
    """The full seconds of the recording at which somebody is heard."""
    zero = next(iter(measure.video_frames(path)))[0]
    return [round(at - zero) for at in measure.beep_onsets(path, tone_hz(uid))]


def image(url: str, shown: Colour, width: int = 320, height: int = 360) -> ImageLoaded:
    return ImageLoaded(url, Picture(Planes.filled(Size(width, height), shown)))


def record(folder: Path, made: RecordingSpec, people: Iterable[Person], events: Sequence[tuple[float, object]], until: float) -> Path:
    """Play media, which arrives 20 ms after its capture, and events at their seconds; returns the recording."""
    recorded = Recorded(folder / "spool")
    pipeline = recorded.pipeline(made)
    items: list[tuple[int, object]] = [(round(second * SECOND), event) for second, event in events]
    items += [(frame.time_ns + 20_000_000, frame) for person in people for frame in person.frames()]
    for now, item in sorted(items, key=lambda pair: pair[0]):
        pipeline.take(item, now)  # type: ignore[arg-type]
        pipeline.advance(now)
    pipeline.close(round(until * SECOND))
    return recorded.joined(folder)


def pictures(path: Path) -> list[VideoFrame]:
    return [frame for _, frame in measure.video_frames(path)]


def shows(frame: VideoFrame, rect: measure.Rect) -> str | int | None:
    """Whose video, or which colour, a place shows."""
    found = np.array(measure.mean_colour(frame, rect))
    for name, wanted in (("red", RED), ("green", GREEN), ("blue", BLUE), ("white", WHITE), ("black", BLACK)):
        if np.abs(found - wanted).max() < 12:
            return name
    return measure.who(frame, [101, 102, 103], rect)


def first(frames: Sequence[VideoFrame], rect: measure.Rect, wanted: str | int, after: int = 0) -> int:
    """The number of the first picture that shows it."""
    return next(number for number in range(after, len(frames)) if shows(frames[number], rect) == wanted)


VIDEO = Track(102, "video")
TWO = [(0.0, Joined(101)), (0.0, Joined(102)), (0.0, Started(VIDEO))]


def test_an_image_takes_the_place_of_stopped_video_after_exactly_three_and_a_half_seconds(tmp_path: Path) -> None:
    layout = Layout(number=1, default_user_background_image="u")
    people = [person(101, sound=False), person(102, "vp8", sound=False, end=2), person(102, "vp8", sound=False, start=8, end=10)]
    events = [*TWO, (0.1, image("u", GREEN)), (2.01, Stopped(VIDEO)), (8.01, Started(VIDEO))]
    frames = pictures(record(tmp_path, spec(layout=layout), people, events, 10))
    assert first(frames, RIGHT, "green", after=30) == 164  # the last picture of 102 is number 59, and 3.5 s are 105
    assert {shows(frame, RIGHT) for frame in frames[30:164]} == {102}
    assert {shows(frame, RIGHT) for frame in frames[164:239]} == {"green"}
    assert {shows(frame, RIGHT) for frame in frames[242:]} == {102}
    assert {shows(frame, LEFT) for frame in frames[30:]} == {101}


def test_who_mutes_by_sending_nothing_is_replaced_no_later(tmp_path: Path) -> None:
    """The hub tells of a client without `PUT mute` when nothing came for `SILENT_NS`."""
    layout = Layout(number=1, default_user_background_image="u")
    people = [person(101, sound=False), person(102, "vp8", sound=False, end=2)]
    events = [*TWO, (0.1, image("u", GREEN)), (2.0 + SILENT_NS / SECOND, Stopped(VIDEO))]
    frames = pictures(record(tmp_path, spec(layout=layout), people, events, 7))
    assert 160 <= first(frames, RIGHT, "green", after=60) <= 165


def test_without_an_image_the_last_picture_stays_until_one_is_set(tmp_path: Path) -> None:
    people = [person(101, sound=False), person(102, "vp8", sound=False, end=2)]
    own = Layout(number=1, user_backgrounds=(UserBackground(uid=102, url="own"),))
    events = [*TWO, (2.0, Stopped(VIDEO)), (6.999, image("own", BLUE)), (7.0, own), (8.0, Layout(number=1)), (9.0, Left(102))]
    frames = pictures(record(tmp_path, spec(), people, events, 10))
    assert {shows(frame, RIGHT) for frame in frames[30:210]} == {102}
    assert {shows(frame, RIGHT) for frame in frames[210:240]} == {"blue"}
    assert {shows(frame, RIGHT) for frame in frames[240:270]} == {102}  # no image is set any more
    assert {shows(frame, WHOLE) for frame in frames[272:]} == {101}  # leaving frees the place at once


def test_a_pause_shorter_than_that_changes_nothing(tmp_path: Path) -> None:
    layout = Layout(number=1, default_user_background_image="u")
    people = [person(101, sound=False), person(102, "vp8", sound=False, end=2), person(102, "vp8", sound=False, start=4, end=10)]
    events = [*TWO, (0.0, image("u", GREEN)), (2.0, Stopped(VIDEO)), (4.0, Started(VIDEO))]
    frames = pictures(record(tmp_path, spec(layout=layout), people, events, 10))
    assert {shows(frame, RIGHT) for frame in frames[6:]} == {102}


def test_images_by_their_precedence(tmp_path: Path) -> None:
    """101 sends; 102 has an image of their own, 103 that of everybody; 104 is not there and its place shows the canvas."""
    regions = tuple(Region(uid=uid, x=i * 0.2, y=0, width=0.2, height=1) for i, uid in enumerate((101, 102, 103, 104)))
    own = (UserBackground(uid=102, url="own", fit=True),)
    whole = Layout(number=3, regions=regions, background_image="back", default_user_background_image="all", user_backgrounds=own)
    events = [(0.0, Joined(uid)) for uid in (101, 102, 103)]
    arrivals = [
        (1.0, image("back", WHITE)),
        (2.0, image("all", GREEN)),
        (3.0, image("own", BLUE, 64, 64)),
        (4.0, Layout(number=3, regions=regions)),
    ]
    made = spec(layout=whole.model_copy(update={"background_color": "#ff0000"}))
    frames = pictures(record(tmp_path, made, [person(101, sound=False)], [*events, *arrivals], 5))
    tiles = [measure.Rect(i * 64, 0, 64, 180) for i in range(5)]

    def seen(number: int) -> list[str | int | None]:
        return [shows(frames[number], tile) for tile in tiles]

    assert seen(25) == [101, "red", "red", "red", "red"]
    assert seen(30) == seen(55) == [101, "white", "white", "white", "white"]
    assert seen(60) == seen(85) == [101, "green", "green", "white", "white"]
    assert seen(90)[2:] == ["green", "white", "white"]
    # Fitted into 64 x 180: the middle 64 rows are the image, the rest is bars.
    assert [shows(frames[100], measure.Rect(64, y, 64, 20)) for y in (10, 80, 150)] == ["black", "blue", "black"]
    assert seen(120) == seen(140) == [101, "black", "black", "black", "black"]  # every omitted member is back at its default


@pytest.mark.parametrize(("own", "then"), [((), "black"), ((UserBackground(uid=102, url="own"),), "green")])
def test_a_region_of_somebody_who_left_shows_nothing_of_them(tmp_path: Path, own: tuple[UserBackground, ...], then: str) -> None:
    regions = (Region(uid=101, x=0, y=0, width=0.5, height=1), Region(uid=102, x=0.5, y=0, width=0.5, height=1))
    people = [person(101, sound=False), person(102, "vp8", sound=False, end=2)]
    events = [*TWO, (0.1, image("own", GREEN)), (2.2, Stopped(VIDEO)), (2.2, Left(102))]
    made = spec(layout=Layout(number=3, regions=regions, user_backgrounds=own))
    frames = pictures(record(tmp_path, made, people, events, 4))
    assert {shows(frame, RIGHT) for frame in frames[30:66]} == {102}
    assert {shows(frame, RIGHT) for frame in frames[66:]} == {then}


def test_an_image_that_comes_after_its_layout_was_replaced_does_not_show(tmp_path: Path) -> None:
    events = [(0.0, Joined(101)), (1.0, Layout(number=1, background_image="new")), (2.0, image("old", RED)), (3.0, image("new", BLUE))]
    made = spec(layout=Layout(number=3, regions=(Region(uid=9, x=0, y=0, width=1, height=1),), background_image="old"))
    people = [person(101, sound=False, end=0.5)]
    grid = Layout(number=3, regions=(Region(uid=9, x=0, y=0, width=1, height=1),), background_image="new")
    events[1] = (1.0, grid)
    frames = pictures(record(tmp_path, made, people, events, 4))
    assert {shows(frame, WHOLE) for frame in frames[:90]} == {"black"}
    assert {shows(frame, WHOLE) for frame in frames[90:]} == {"blue"}


@pytest.mark.parametrize("second", [2.0, 2.01, 2.0333])
def test_a_layout_shows_from_the_next_picture_on(tmp_path: Path, second: float) -> None:
    people = [person(101, sound=False), person(102, "vp8", sound=False)]
    events = [*TWO, (second, Layout(number=0))]
    frames = pictures(record(tmp_path, spec(), people, events, 3))
    expected = -int(-second * FPS // 1)  # the first picture whose time is not before the event
    assert first(frames, measure.Rect(200, 0, 100, 100), 101, after=30) == expected


def test_unsubscribed_people_go_and_come_back_in_their_place(tmp_path: Path) -> None:
    """101 is neither seen nor heard from 3 to 6 s; 102 is heard only from 7 s on."""
    people = [person(101), person(102, "vp8"), person(103)]
    only = UidRule(kind="only", uids=frozenset((102, 103)))
    heard = Subscription(video=UidRule(kind="except", uids=frozenset((102,))))
    changes = [(3.0, Subscription(audio=only, video=only)), (6.0, Subscription()), (7.0, heard)]
    joined = [(0.0, Joined(person.uid)) for person in people]
    path = record(tmp_path, spec(audio=True), people, [*joined, *changes], 10)
    frames = pictures(path)
    tiles = [measure.Rect(0, 0, 160, 90), measure.Rect(160, 0, 160, 90), measure.Rect(0, 90, 160, 90)]
    assert [shows(frames[80], tile) for tile in tiles] == [101, 102, 103]
    for number in (90, 170):
        assert [shows(frames[number], tile) for tile in (LEFT, RIGHT)] == [102, 103]
    # 101 is first again, and shows from its next keyframe on, which here comes every two seconds.
    assert [shows(frames[185], tile) for tile in tiles] == [101, 102, 103]
    assert [shows(frames[215], tile) for tile in tiles] == [101, "black", 103]
    assert {uid: beeps(path, uid) for uid in (101, 102, 103)} == {101: [0, 1, 2, 6, 7, 8, 9], 102: list(range(10)), 103: list(range(10))}
    assert measure.decode_errors([path]) == []


def test_what_is_on_its_way_when_a_subscription_ends_is_left_out(tmp_path: Path) -> None:
    """Media goes on for half a second as if the channel had not heard of it; a keyframe is among it."""
    layout = Layout(number=1)
    people = [person(101), person(102, "vp8", start=0.5, end=3)]
    nobody = UidRule(kind="except", uids=frozenset((102,)))
    events = [(0.0, Joined(101)), (0.0, Joined(102)), (1.9, Subscription(audio=nobody)), (1.91, Subscription(video=nobody, audio=nobody))]
    path = record(tmp_path, spec(audio=True, layout=layout), people, events, 4)
    assert {shows(frame, WHOLE) for frame in pictures(path)[58:]} == {101}
    assert beeps(path, 102) == [1]


def test_who_is_not_recorded_from_the_start_has_no_place(tmp_path: Path) -> None:
    only = UidRule(kind="only", uids=frozenset((102,)))
    people = [person(102, "vp8", sound=False)]
    made = spec(subscription=Subscription(audio=UidRule(kind="none"), video=only), audio=True)
    frames = pictures(record(tmp_path, made, people, [(0.0, Joined(101)), (0.0, Joined(102))], 2))
    assert {shows(frame, WHOLE) for frame in frames[3:]} == {102}
