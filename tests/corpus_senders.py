"""What participants of generated captures send, and what the network makes of it: packets with their times.

Everything but the encoding of the media (kept in build/media) is pure and seeded.
"""

import asyncio
import itertools
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.packet import Packet

from recorder.frames import Kind
from recorder.rtp import rtpdump
from recorder.rtp.packet import SR
from recorder.rtp.receiver import Route
from recorder.tools.content import Picture as Content
from recorder.tools.content import Style, sound
from recorder.tools.publish_media import AudioLoop, Library, VideoCodec, VideoEncoder, VideoLoop
from tests.coded import opus_with_fec

ROOT = Path(__file__).parent.parent
SECOND = 1_000_000_000
MS = 1_000_000
ZERO_UTC_NS = 1_700_000_000 * SECOND
LOOP_SECONDS = 8
DELAY_NS = 20 * MS  # of the network
REPAIR_NS = 60 * MS  # from a loss to its repair

OPUS, VP8, VP8_AGAIN, H264, H264_AGAIN, ORIENTATION = 96, 97, 98, 99, 100, 4
ROUTES = {OPUS: Route("audio", "opus", 48000), VP8: Route("video", "vp8", 90000), H264: Route("video", "h264", 90000)}
REPEATS = {VP8_AGAIN: VP8, H264_AGAIN: H264}
# "wrong": the wall clock of the video is an hour ahead and its RTP times are none of the stream's; "step": at
# `STEP_AT` the wall clock of the sender is set back by two seconds.
Reports = Literal["right", "none", "wrong", "step"]
STEP_AT = 2.0
_REPEATED_AS = {VP8: VP8_AGAIN, H264: H264_AGAIN}


@dataclass(frozen=True, slots=True)
class Picture:
    """What a sender's video is from a moment on."""

    at: float = 0.0  # seconds; later ones on half seconds, where a keyframe can be had, unless the sender encodes live
    codec: VideoCodec = "vp8"
    width: int = 320
    height: int = 180
    rotation: int = 0  # degrees, told by the CVO extension


@dataclass(frozen=True, slots=True)
class Sender:
    """One participant. Times are seconds on the timeline, and of the media: a flash and a beep at each full second."""

    uid: int = 101
    pictures: tuple[Picture, ...] = (Picture(),)  # empty: sends no video
    fps: int = 30
    bitrate_kbps: int = 300
    live: bool = False  # encodes as it sends: each picture begins with a keyframe, and no other is sent
    audio: bool = True
    fec: bool = False  # repeats in a packet of sound what mattered in the one before
    start: float = 0.0
    end: float | None = None  # leaves then
    muted: tuple[float, float] | None = None  # both tracks, announced
    silent: tuple[float, float] | None = None  # discontinuous transmission: no packet of sound, not announced
    audio_ppm: float = 0.0  # by how much the clock of the sound is fast
    video_ppm: float = 0.0
    wall_ppm: float = 0.0
    first_sequence: int = 1000
    first_timestamp: int = 50_000
    restarts: tuple[float, ...] = ()  # the SSRCs change then, with new sequence numbers and timestamps
    one_ssrc: bool = False  # of picture and sound
    leap: tuple[float, float] | None = None  # (when, seconds): the timestamps jump
    back_at: float | None = None  # the next timestamp is one tick less than the one before
    reports: Reports = "right"
    video_delay_ms: int = 0  # by how much longer the pictures are on their way than the sound
    padding_every: float | None = None  # seconds: a packet of nothing but padding, with a timestamp of its own


@dataclass(frozen=True, slots=True)
class Network:
    """What happens between the senders and the recorder."""

    loss: float = 0.0  # share of the RTP packets
    burst: int = 1  # packets lost together
    repaired: bool = False  # what is lost comes again
    overtaken: float = 0.0  # share of packets that others overtake, by up to 40 ms
    jitter_ms: int = 2
    seed: int = 1


@dataclass(slots=True)
class Sent:
    """One packet when it leaves its sender."""

    at_ns: int
    payload_type: int = 0
    sequence: int = 0
    timestamp: int = 0
    ssrc: int = 0
    marker: bool = False
    payload: bytes = b""
    rotation: int | None = None
    padding: bool = False  # nothing but padding
    report: bytes = b""  # RTCP instead

    def data(self, repeat: tuple[int, int] | None = None) -> bytes:
        """The packet; `repeat`: as a retransmission with that SSRC and sequence number."""
        if self.report:
            return self.report
        payload_type, ssrc, sequence = self.payload_type, self.ssrc, self.sequence
        payload = self.payload
        if repeat:
            payload_type, (ssrc, sequence) = _REPEATED_AS[payload_type], repeat
            payload = struct.pack("!H", self.sequence & 0xFFFF) + payload
        first = 0x80 | (0x10 if self.rotation is not None else 0) | (0x20 if self.padding else 0)
        head = struct.pack(
            "!BBHII", first, self.marker << 7 | payload_type, sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, ssrc & 0xFFFFFFFF
        )
        extension = b"" if self.rotation is None else struct.pack("!HHBBH", 0xBEDE, 1, ORIENTATION << 4, self.rotation // 90, 0)
        return head + extension + payload + (bytes(199) + b"\xc8" if self.padding else b"")


class _Stream:
    """Sequence numbers, timestamps and SSRC of one track of a sender."""

    def __init__(self, sender: Sender, kind: Kind) -> None:
        self.sender = sender
        self.rate = 48000 if kind == "audio" else 90000
        self.ppm = sender.audio_ppm if kind == "audio" else sender.video_ppm
        self.delay_ns = sender.video_delay_ms * MS if kind == "video" else 0
        self.wrong = sender.reports == "wrong" and kind == "video"
        self._ssrc = sender.uid * 16 + (8 if kind == "video" and not sender.one_ssrc else 0)
        self._restarts = list(sender.restarts)
        self._leap = sender.leap
        self._back_at = sender.back_at
        self._shift = sender.first_timestamp
        self._last_timestamp = 0
        self._pads = 1
        self.sequence = sender.first_sequence

    def begin(self, media_s: float) -> None:
        """A frame follows, captured at this time: do what is due to the numbers."""
        if self._restarts and media_s >= self._restarts[0]:
            self._restarts.pop(0)
            self._ssrc += 1 << 16
            self.sequence += 20_000
            self._shift += 1_000_000_000
        if self._leap and media_s >= self._leap[0]:
            self._shift += round(self._leap[1] * self.rate)
            self._leap = None
        if self._back_at is not None and media_s >= self._back_at:
            self._back_at = None
            self._shift += self._last_timestamp - 1 - self.timestamp(media_s)
        self._last_timestamp = self.timestamp(media_s)

    def timestamp(self, media_s: float) -> int:
        return round(media_s * self.rate) + self._shift

    def packets(self, media_s: float, payload_type: int, payloads: list[bytes], rotation: int | None = None) -> Iterator[Sent]:
        """One frame; its packets leave a tenth of a millisecond after each other."""
        for number, payload in enumerate(payloads):
            last = number == len(payloads) - 1
            at_ns = self.wall_ns(media_s) + self.delay_ns + number * MS // 10
            yield Sent(at_ns, payload_type, self.sequence, self.timestamp(media_s), self._ssrc, last, payload, rotation if last else None)
            self.sequence += 1
        if self.sender.padding_every and media_s >= self._pads * self.sender.padding_every:
            self._pads += 1
            at_ns = self.wall_ns(media_s) + self.delay_ns + 5 * MS
            yield Sent(at_ns, payload_type, self.sequence, self.timestamp(media_s) + 7, self._ssrc, padding=True)
            self.sequence += 1

    def wall_ns(self, media_s: float) -> int:
        """When the media of this time was captured: a fast clock gets there earlier."""
        return round(media_s * SECOND / (1 + self.ppm / 1e6))

    def report(self, wall_s: float) -> Sent:
        wrong_ns = 3600 * SECOND if self.wrong else -2 * SECOND if self.sender.reports == "step" and wall_s > STEP_AT else 0
        ntp_ns = ZERO_UTC_NS + round(wall_s * SECOND * (1 + self.sender.wall_ppm / 1e6)) + wrong_ns
        ntp = (ntp_ns // SECOND + 2_208_988_800 << 32) + (ntp_ns % SECOND << 32) // SECOND
        timestamp = self.timestamp(wall_s * (1 + self.ppm / 1e6)) + (12_345 * int(wall_s) if self.wrong else 0)
        data = struct.pack("!BBHIQIII", 0x80, SR, 6, self._ssrc & 0xFFFFFFFF, ntp, timestamp & 0xFFFFFFFF, 1, 1)
        return Sent(round(wall_s * SECOND) + self.delay_ns, report=data)


def sent_by(sender: Sender, kind: Kind, seconds: float) -> Iterator[Sent]:
    """Every packet of one track, in order."""
    stream = _Stream(sender, kind)
    end = min(seconds, sender.end or seconds)
    next_report = int(sender.start) + 0.5
    for media_s, payload_type, payloads, rotation in _video(sender, end) if kind == "video" else _audio(sender, end):
        if sender.muted and sender.muted[0] <= media_s < sender.muted[1]:
            continue
        while sender.reports != "none" and media_s > next_report:
            yield stream.report(next_report)
            next_report += 1
        stream.begin(media_s)
        yield from stream.packets(media_s, payload_type, payloads, rotation)


def _video(sender: Sender, end: float) -> Iterator[tuple[float, int, list[bytes], int | None]]:
    h264, vp8 = H264Encoder(), Vp8Encoder()
    vp8.picture_id = 0  # it begins at random
    for index, picture, data in (_encoded_live if sender.live else _looped)(sender, end):
        packet: Packet = Packet(data)  # type: ignore[type-arg]  # belongs to no stream
        packet.pts, packet.time_base = index, Fraction(1, sender.fps)
        payloads, _ = (h264 if picture.codec == "h264" else vp8).pack(packet)
        turned = any(other.rotation for other in sender.pictures)
        yield index / sender.fps, H264 if picture.codec == "h264" else VP8, payloads, picture.rotation if turned else None


def _shown(sender: Sender, end: float) -> Iterator[tuple[int, Picture]]:
    for index in range(round(sender.start * sender.fps), round(end * sender.fps)):
        yield index, [picture for picture in sender.pictures if picture.at <= index / sender.fps][-1]


def _style(sender: Sender, picture: Picture) -> Style:
    return Style(sender.uid, picture.width, picture.height, sender.fps, period_seconds=LOOP_SECONDS)


def _encoded_live(sender: Sender, end: float) -> Iterator[tuple[int, Picture, bytes]]:
    for picture, frames in itertools.groupby(_shown(sender, end), key=lambda one: one[1]):
        style = _style(sender, picture)
        content, encoder = _content(style), VideoEncoder(style, picture.codec, sender.bitrate_kbps)
        for number, (index, _) in enumerate(frames):
            yield index, picture, encoder.encode(content.draw(index % (sender.fps * LOOP_SECONDS)), keyframe=number == 0)


def _looped(sender: Sender, end: float) -> Iterator[tuple[int, Picture, bytes]]:
    run: int | None = None
    shown: Picture | None = None
    for index, picture in _shown(sender, end):
        media_s = index / sender.fps
        loop = video_loop(picture.codec, _style(sender, picture), sender.bitrate_kbps)
        position = index % loop.frames
        if picture is not shown or (sender.muted and sender.muted[0] <= media_s < sender.muted[1]):
            run, shown = None, picture
        if position % loop.gop == 0 or (run is None and loop.may_start(position)):
            run = position
        if run is not None:
            yield index, picture, loop.runs[run][position - run]


def _audio(sender: Sender, end: float) -> Iterator[tuple[float, int, list[bytes], int | None]]:
    packets = fec_packets(sender.uid) if sender.fec else audio_loop(sender.uid).packets
    for number in range(round(sender.start * 50), round(end * 50)):
        media_s = number / 50
        if not (sender.silent and sender.silent[0] <= media_s < sender.silent[1]):
            yield media_s, OPUS, [packets[number % len(packets)]], None


def received(sent: list[Sent], network: Network, seed: int) -> list[rtpdump.Arrival]:
    """What arrives of one track's packets, and when."""
    chance = random.Random(f"{network.seed}-{seed}")
    arrivals: list[tuple[int, int, Sent, tuple[int, int] | None]] = []
    latest_ns = losing = repeats = 0
    for order, packet in enumerate(sent):
        at_ns = latest_ns = max(latest_ns, packet.at_ns + DELAY_NS + chance.randrange(1 + network.jitter_ms * MS))
        if not packet.report and not losing and chance.random() < network.loss / network.burst:
            losing = network.burst
        repeat = None
        if losing and not packet.report:
            losing -= 1
            if not network.repaired:
                continue
            at_ns += REPAIR_NS
            if packet.payload_type in _REPEATED_AS:
                repeats += 1
                repeat = packet.ssrc + 1, repeats
        elif chance.random() < network.overtaken:
            at_ns += chance.randrange(40 * MS)
        arrivals.append((at_ns, order, packet, repeat))
    return [rtpdump.Arrival(at_ns, p.data(repeat), bool(p.report)) for at_ns, _, p, repeat in sorted(arrivals, key=lambda item: item[:2])]


@lru_cache(maxsize=32)
def video_loop(codec: VideoCodec, style: Style, bitrate_kbps: int) -> VideoLoop:
    return asyncio.run(Library(ROOT / "build" / "media").video(style, codec, bitrate_kbps))


@lru_cache(maxsize=4)
def _content(style: Style) -> Content:
    return Content(style)


@lru_cache(maxsize=4)
def fec_packets(uid: int) -> tuple[bytes, ...]:
    return tuple(opus_with_fec(sound(uid, LOOP_SECONDS), kbps=24))


@lru_cache(maxsize=32)
def audio_loop(uid: int) -> AudioLoop:
    return asyncio.run(Library(ROOT / "build" / "media").audio(uid))
