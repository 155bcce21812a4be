"""The spine of the media path: encoded frames on the recording's timeline.

Connectors produce them; everything after a connector is the same for every kind of channel. What is made for each packet of
sound is a named tuple, here and elsewhere: a frozen dataclass takes four times as long to make.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["audio", "video"]
Codec = Literal["h264", "vp8", "vp9", "av1", "opus", "pcmu", "pcma", "g722"]


class Track(NamedTuple):
    """The audio or the video of one participant."""

    uid: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one track."""

    received: int  # packets
    lost: int  # packets given up
    drift_ppm: float | None = None  # by how much the sender's clock is faster than ours; None: not known in the first minutes
    av_offset_ns: int | None = None  # video: how much later than the sound it is laid, by the sender's own clock; None: not told


class EncodedFrame(NamedTuple):
    """One access unit (video) or one packet (audio) as the sender encoded it.

    `payload` is Annex B for H.264 and the bare frame for every other codec. `time_ns` is the capture time on the
    recording's timeline, whose zero is the moment the recorder joined; it may be slightly negative.
    """

    track: Track
    codec: Codec
    payload: bytes
    keyframe: bool  # always true for audio
    time_ns: int
    width: int = 0  # video: of the encoded picture, before rotation; 0 when not yet known
    height: int = 0
    rotation: int = 0  # degrees clockwise to turn the picture for display: 0, 90, 180, 270
