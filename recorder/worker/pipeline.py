"""The straight line of the media path. Read this file first.

    connector → jitter buffer → timeline → EncodedFrame ─┬─ individual: one writer per track, video untouched
                                                         └─ composite: decode → latest picture → mixer → encoder → HLS, MP4
    both end in the spool: a committed slice, told to the event loop as a report.

A pipeline is synchronous and owns no clock: `take` and `advance` get the time, so that a capture replayed under a virtual
clock gives the same bytes. All times are nanoseconds on the recording's timeline.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mixer import layouts
from mixer.canvas import colour
from mixer.picture import Picture
from recorder.frames import EncodedFrame, Track
from recorder.outputs import Closed, Product, Shelf
from recorder.outputs.names import Names
from recorder.protocol import EventBody, File, FileOpened, SliceCommitted, TrackBegan, Warned
from recorder.settings import Recording
from recorder.spec import Layout, RecordingSpec, Subscription
from storage.spool import RecordingSpool


@dataclass(frozen=True, slots=True)
class Joined:
    """A participant who may send media is there."""

    uid: int


@dataclass(frozen=True, slots=True)
class Left:
    uid: int


@dataclass(frozen=True, slots=True)
class Started:
    """A track that is recorded begins, or goes on after a mute."""

    track: Track


@dataclass(frozen=True, slots=True)
class Stopped:
    track: Track


@dataclass(frozen=True, slots=True)
class ImageLoaded:
    """An image that the layout names, or one that is about to come."""

    url: str
    picture: Picture


@dataclass(frozen=True, slots=True)
class Thrift:
    """The disk fills up: what is encoded shall take half as much (`on`), or as much as was asked for again."""

    on: bool


# A `Layout` and a `Subscription` each replace the whole of the one before. An event belongs to the time it came: what is asked
# for takes effect at the next picture of the timeline, wherever the output is with its delay.
Event = Joined | Left | Started | Stopped | Layout | Subscription | ImageLoaded | Thrift
Input = EncodedFrame | Event

NEVER = 1 << 62  # a time that does not come


class Pipeline(Protocol):
    def take(self, item: Input, now_ns: int) -> None:
        """Take a frame or an event of the channel; `now_ns` is when it arrived."""

    def advance(self, now_ns: int) -> None:
        """Do everything that is due."""

    def due_ns(self) -> int:
        """When `advance` is wanted again; `NEVER`: not by a time, only for what comes."""

    def behind(self, late_ns: int, now_ns: int) -> None:
        """The caller is so late with what is due: a pipeline that can do less does."""

    def close(self, now_ns: int) -> None:
        """Record up to `now_ns` and close every file."""


def _always() -> bool:
    return True


def _at_once(job: Callable[[], object]) -> None:
    job()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What both kinds of pipeline are given."""

    spec: RecordingSpec
    settings: Recording
    spool: RecordingSpool
    epoch: int
    zero_utc_ns: int  # Unix time of the timeline's zero
    report: Callable[[EventBody], object]
    request_keyframe: Callable[[Track], object]
    defer: Callable[[Callable[[], object]], object] = _at_once  # for what may wait for the disk, in order
    aside: Callable[[Callable[[], object]], object] = _at_once  # for what may take its time and raises nothing, in order
    # Asked at the end: whether there is time to rewrite MP4 parts. Else that is left to the next worker: nobody records meanwhile.
    finish_parts: Callable[[], bool] = _always

    def shelf(self) -> Shelf:
        """Where the outputs put finished files; one for each recording."""
        return Shelf(self.spool, Names(self.spec.sid, self.spec.channel), epoch=self.epoch, epoch_utc_ns=self.zero_utc_ns)

    def tell(self, products: Iterable[Product]) -> None:
        """Commit and report what the outputs have made."""
        for product in products:
            self.defer(partial(self._tell, product))

    def warn(self, code: int, detail: str = "", uid: int | None = None) -> None:
        """Report that quality is lost; `uid`: whose, 0: that of all together."""
        self.defer(lambda: self.report(Warned(module=0, code=code, detail=detail, uid=uid)))

    def alarm(self, code: int, uid: int) -> None:
        """Report that what somebody sends is not worth to be recorded."""
        self.warn(code, uid=uid)

    def _tell(self, product: Product) -> None:
        if isinstance(product, File):
            self.report(FileOpened(file=product))
            if is_of_a_track(product):
                began = TrackBegan(
                    epoch=self.epoch,
                    playlist=product.name,
                    track=product.track,
                    uid=product.uid,
                    mixed=product.mixed,
                    start_ms=product.start_ms,
                )
                self.report(began)
        else:
            self.report(_committed(product) if isinstance(product, Closed) else SliceCommitted(slice=product))


def _committed(product: Closed) -> SliceCommitted:
    began = time.monotonic()
    return SliceCommitted(slice=product.commit(), seconds=round(time.monotonic() - began, 4))


def is_of_a_track(file: File) -> bool:
    """Whether it is a playlist with slices of its own."""
    return file.name.endswith(".m3u8") and (file.mixed or file.track != "audio_and_video")


def check_layout(layout: Layout) -> None:
    """See that the composite can draw it.

    Raises:
        ValueError: there is no such layout, or no such colour.
    """
    layouts.load(layout.number)
    colour(layout.background_color)


def create(around: Surroundings) -> Pipeline:
    if around.spec.mode == "mix":
        from recorder.worker.composite import Composite

        return Composite(around)
    from recorder.worker.individual import Individual

    return Individual(around)
