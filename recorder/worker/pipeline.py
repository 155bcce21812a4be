"""The straight line of the media path. Read this file first.

    connector → jitter buffer → timeline → EncodedFrame ─┬─ individual: one writer per track, video untouched
                                                         └─ composite: decode → latest picture → mixer → encoder → HLS, MP4
    both end in the spool: a committed slice, told to the event loop as a report.

A pipeline is synchronous and owns no clock: `take` and `advance` get the time, so that a capture replayed under a virtual
clock gives the same bytes. All times are nanoseconds on the recording's timeline.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from mixer import layouts
from mixer.canvas import colour
from mixer.picture import Picture
from recorder.frames import EncodedFrame, Track
from recorder.outputs import Product, Shelf
from recorder.outputs.names import Names
from recorder.protocol import EventBody, File, FileOpened, SliceCommitted
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


# A `Layout` and a `Subscription` each replace the whole of the one before. An event belongs to the time it came: what is asked
# for takes effect at the next picture of the timeline, wherever the output is with its delay.
Event = Joined | Left | Started | Stopped | Layout | Subscription | ImageLoaded
Input = EncodedFrame | Event


class Pipeline(Protocol):
    def take(self, item: Input, now_ns: int) -> None:
        """Take a frame or an event of the channel; `now_ns` is when it arrived."""

    def advance(self, now_ns: int) -> None:
        """Do everything that is due."""

    def due_ns(self) -> int:
        """When `advance` has something to do again."""

    def close(self, now_ns: int) -> None:
        """Record up to `now_ns` and close every file."""


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

    def shelf(self) -> Shelf:
        """Where the outputs put finished files; one for each recording."""
        return Shelf(self.spool, Names(self.spec.sid, self.spec.channel), epoch=self.epoch, epoch_utc_ns=self.zero_utc_ns)

    def tell(self, products: Iterable[Product]) -> None:
        """Report what the outputs have made."""
        for product in products:
            self.report(FileOpened(file=product) if isinstance(product, File) else SliceCommitted(slice=product))


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
