"""Captures with known content and known faults, generated: nothing binary is stored.

    python -m tests.corpus OUT [NAME …]

A `Scenario` says who sends what and what the network does to it; `write` makes a capture of it. Everything but the encoding of
the media (kept in build/media) is pure and seeded: the same scenario gives the same bytes.
"""

import asyncio
import random
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.packet import Packet

from recorder.frames import Kind
from recorder.rtp import rtpdump
from recorder.rtp.capture import DESCRIPTION, Capture, Description, Essentials, Happening, Session
from recorder.rtp.packet import SR
from recorder.rtp.receiver import Route
from recorder.spec import Canvas, Layout, Mode
from recorder.tools.content import Style
from recorder.tools.publish_media import AudioLoop, Library, VideoCodec, VideoLoop

ROOT = Path(__file__).parent.parent
SECOND = 1_000_000_000
MS = 1_000_000
ZERO_UTC_NS = 1_700_000_000 * SECOND
DELAY_NS = 20 * MS  # of the network
REPAIR_NS = 60 * MS  # from a loss to its repair

OPUS, VP8, VP8_AGAIN, H264, H264_AGAIN, ORIENTATION = 96, 97, 98, 99, 100, 4
ROUTES = {OPUS: Route("audio", "opus", 48000), VP8: Route("video", "vp8", 90000), H264: Route("video", "h264", 90000)}
REPEATS = {VP8_AGAIN: VP8, H264_AGAIN: H264}
CANVAS = Canvas(width=320, height=180, fps=30, bitrate_kbps=300)
# "wrong": the wall clock of the video is an hour ahead and its RTP times are none of the stream's; "step": then the wall clock
# of the sender is set back by two seconds.
Reports = Literal["right", "none", "wrong", "step"]
STEP_AT = 2.0
_REPEATED_AS = {VP8: VP8_AGAIN, H264: H264_AGAIN}


@dataclass(frozen=True, slots=True)
class Picture:
    """What a sender's video is from a moment on."""

    at: float = 0.0  # seconds; later ones on half seconds, where a keyframe can be had
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
    audio: bool = True
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


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    rows: str  # of the fault table
    senders: tuple[Sender, ...] = (Sender(),)
    network: Network = Network()
    seconds: float = 8.0
    canvas: Canvas = CANVAS
    layout: int = 1
    mode: Mode = "mix"
    looped: bool = False  # a whole number of the senders' own loops, so that it goes on with its beginning


SCENARIOS = (
    Scenario("clean", "N18"),
    Scenario("h264", "N18", (Sender(pictures=(Picture(codec="h264"),)),)),
    Scenario("loss_repaired", "N1", network=Network(loss=0.05, repaired=True)),
    Scenario("loss_burst_repaired", "N2", network=Network(loss=0.1, burst=6, repaired=True)),
    Scenario("loss", "N3", network=Network(loss=0.002, seed=7)),
    Scenario("loss_burst", "N3", network=Network(loss=0.03, burst=12, seed=7)),
    Scenario("reorder", "N5", network=Network(overtaken=0.1, jitter_ms=15)),
    Scenario("wrap", "N13", (Sender(first_sequence=0xFFFF - 60, first_timestamp=0xFFFFFFFF - 120_000),)),
    Scenario("jump_5_hours", "N14", (Sender(leap=(4.0, 5 * 3600)),)),
    Scenario("jump_1_tick_back", "N14", (Sender(back_at=4.0),)),
    Scenario("ssrc_change", "N15", (Sender(restarts=(3.0,)),)),
    Scenario("ssrc_changes_often", "N16", (Sender(restarts=tuple(second / 2 for second in range(1, 16))),)),
    Scenario("resolution", "N17", (Sender(pictures=(Picture(), Picture(3.5, width=640, height=360), Picture(6.0, width=160, height=90))),)),
    Scenario("codec", "N17", (Sender(pictures=(Picture(), Picture(4.0, codec="h264"))),)),
    Scenario("rotation", "N18", (Sender(pictures=(Picture(), Picture(3.0, rotation=90), Picture(6.0, rotation=180))),)),
    Scenario("dtx", "N19", (Sender(silent=(2.5, 5.5)),)),
    Scenario("drift_fast", "N21", (Sender(audio_ppm=100, video_ppm=100, wall_ppm=100),)),
    Scenario("drift_apart", "N21", (Sender(audio_ppm=100, video_ppm=-100),)),
    Scenario("video_late", "N22", (Sender(video_delay_ms=80),)),
    Scenario("reports_missing", "N22", (Sender(reports="none"),)),
    Scenario("reports_wrong", "N22", (Sender(reports="wrong"),)),
    Scenario("reports_step", "T6", (Sender(reports="step"),)),
    Scenario("padding", "N23", (Sender(padding_every=0.37),)),
    Scenario("mute", "N24", (Sender(muted=(2.5, 5.0)),)),
    Scenario("join_leave", "N24", (Sender(), Sender(102, start=2.0, end=5.0))),
)


def nine(*, seconds: float = 32.0, people: int = 9, video: bool = True) -> Scenario:
    """What the benches play: so many participants of 360p15 with 500 kbit/s, in a loop."""
    pictures = (Picture(width=640, height=360),) if video else ()
    senders = tuple(Sender(101 + number, pictures, fps=15, bitrate_kbps=500) for number in range(people))
    canvas = Canvas(width=640, height=360, fps=15, bitrate_kbps=500)
    return Scenario("nine", "", senders, seconds=seconds, canvas=canvas, looped=True)


FOR_BENCHES = (nine(), replace(nine(people=17), name="seventeen"), replace(nine(people=3, video=False), name="three_speakers"))


# ---- from senders to packets --------------------------------------------------------------------------------------


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
        self._ssrc = sender.uid * 16 + (8 if kind == "video" else 0)
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
    run: int | None = None
    shown: Picture | None = None
    for index in range(round(sender.start * sender.fps), round(end * sender.fps)):
        media_s = index / sender.fps
        picture = [picture for picture in sender.pictures if picture.at <= media_s][-1]
        loop = video_loop(
            picture.codec, Style(sender.uid, picture.width, picture.height, sender.fps, period_seconds=8), sender.bitrate_kbps
        )
        position = index % loop.frames
        if picture is not shown or (sender.muted and sender.muted[0] <= media_s < sender.muted[1]):
            run, shown = None, picture
        if position % loop.gop == 0 or (run is None and loop.may_start(position)):
            run = position
        if run is None:
            continue
        packet: Packet = Packet(loop.runs[run][position - run])  # type: ignore[type-arg]  # belongs to no stream
        packet.pts, packet.time_base = index, Fraction(1, sender.fps)
        payloads, _ = (h264 if picture.codec == "h264" else vp8).pack(packet)
        turned = any(other.rotation for other in sender.pictures)
        yield media_s, H264 if picture.codec == "h264" else VP8, payloads, picture.rotation if turned else None


def _audio(sender: Sender, end: float) -> Iterator[tuple[float, int, list[bytes], int | None]]:
    loop = audio_loop(sender.uid)
    for number in range(round(sender.start * 50), round(end * 50)):
        media_s = number / 50
        if not (sender.silent and sender.silent[0] <= media_s < sender.silent[1]):
            yield media_s, OPUS, [loop.packets[number % len(loop.packets)]], None


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


# ---- from packets to a capture -----------------------------------------------------------------------------------


def write(scenario: Scenario, folder: Path) -> Capture:
    """Make the capture of a scenario in a new folder."""
    folder.mkdir(parents=True)
    sessions: list[Session] = []
    happenings: list[Happening] = []
    for number, sender in enumerate(scenario.senders):
        tracks: list[Kind] = [*(["video"] if sender.pictures else []), *(["audio"] if sender.audio else [])]  # type: ignore[list-item]
        arrivals: list[rtpdump.Arrival] = []
        for kind in tracks:
            arrivals += received(list(sent_by(sender, kind, scenario.seconds)), scenario.network, 2 * number + (kind == "video"))
        arrivals.sort(key=lambda arrival: arrival.at_ns)
        end_ns = None if sender.end is None else round(sender.end * SECOND) + 2 * DELAY_NS
        session = Session(
            uid=sender.uid,
            file=f"{number + 1}-{sender.uid}.rtpdump",
            routes=ROUTES,
            retransmissions=REPEATS,
            orientation_id=ORIENTATION,
            ended_ns=end_ns,
        )
        sessions.append(session)
        happenings += _happenings(sender, tracks, end_ns)
        (folder / session.file).write_bytes(rtpdump.head(ZERO_UTC_NS) + b"".join(map(rtpdump.record, arrivals)))
    description = Description(
        zero_utc_ns=ZERO_UTC_NS,
        period_ns=round(scenario.seconds * SECOND) if scenario.looped else None,
        ended_ns=round(scenario.seconds * SECOND),
        recording=Essentials(mode=scenario.mode, canvas=scenario.canvas, layout=Layout(number=scenario.layout)),
        sessions=tuple(sessions),
        happenings=tuple(sorted(happenings, key=lambda happening: happening.at_ns)),
    )
    (folder / DESCRIPTION).write_text(description.model_dump_json(indent=1))
    return Capture(folder, description)


def _happenings(sender: Sender, tracks: list[Kind], end_ns: int | None) -> Iterator[Happening]:
    start_ns = round(sender.start * SECOND)
    yield Happening(at_ns=start_ns, what="joined", uid=sender.uid, host=True)
    for kind in tracks:
        yield Happening(at_ns=start_ns, what="started", uid=sender.uid, kind=kind)
        if sender.muted:
            yield Happening(at_ns=round(sender.muted[0] * SECOND) + DELAY_NS, what="stopped", uid=sender.uid, kind=kind)
            yield Happening(at_ns=round(sender.muted[1] * SECOND) + DELAY_NS, what="started", uid=sender.uid, kind=kind)
    if end_ns is not None:
        for kind in tracks:
            yield Happening(at_ns=end_ns, what="stopped", uid=sender.uid, kind=kind)
        yield Happening(at_ns=end_ns, what="left", uid=sender.uid)


@lru_cache(maxsize=32)
def video_loop(codec: VideoCodec, style: Style, bitrate_kbps: int) -> VideoLoop:
    return asyncio.run(Library(ROOT / "build" / "media").video(style, codec, bitrate_kbps))


@lru_cache(maxsize=32)
def audio_loop(uid: int) -> AudioLoop:
    return asyncio.run(Library(ROOT / "build" / "media").audio(uid))


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m tests.corpus OUT [NAME …]; names: " + ", ".join(s.name for s in (*SCENARIOS, *FOR_BENCHES)))
    known = {scenario.name: scenario for scenario in (*SCENARIOS, *FOR_BENCHES)}
    for name in sys.argv[2:] or [scenario.name for scenario in SCENARIOS]:
        if name not in known:
            sys.exit(f"no scenario is called {name}")
        print(write(known[name], Path(sys.argv[1]) / name).folder)


if __name__ == "__main__":
    main()
