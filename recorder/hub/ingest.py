"""A publisher's session: its tracks as sources, and the hub's feedback to it (NACK, PLI, receiver reports)."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from recorder.frames import Kind
from recorder.hub import feedback
from recorder.hub.channel import Channel
from recorder.hub.messages import Mute, Participant
from recorder.hub.negotiation import OfferUnacceptable
from recorder.hub.session import Session
from recorder.hub.source import Repair, Source
from recorder.rtp.packet import Header, extensions, nack, parse_header, picture_loss_indication, receiver_report

SILENT_NS: Final = 3_000_000_000  # a track without packets for so long counts as muted
# A publisher without any sign of life for so long is gone. It believes in its session as long as its consent to send lasts
# (RFC 7675 section 5.1), and goes on in it after a shorter blackout without noticing.
DEAD_NS: Final = 30_000_000_000
REPAIR_SECONDS: Final = 0.02
MID: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
_REPORT_INTERVAL_NS: Final = 1_000_000_000
_SSRC_LIMIT: Final = 16
_RETURN_NS: Final = 1_000_000_000  # an SSRC that was replaced may come back when its successor has been silent for so long


@dataclass(frozen=True, slots=True)
class _Line:
    """One m-line that is received."""

    mid: str
    sinks: dict[int, Source | Repair]  # by payload type
    ssrcs: tuple[int, ...]  # that the offer names
    mid_extension: int  # its id; 0: not negotiated


class Ingest:
    """One publisher of a channel."""

    def __init__(self, uid: int, channel: Channel, session: Session) -> None:
        self.uid = uid
        self.channel = channel
        self.session = session
        self.sources: dict[Kind, Source] = {}
        self.low: Source | None = None  # the small one of two pictures of the camera
        self._lines: list[_Line] = []
        self._bound: dict[tuple[int, int], Source | Repair] = {}  # by SSRC and payload type: picture and sound may have picked one SSRC
        self._retired: dict[int, Source | Repair] = {}  # SSRCs that the sender has replaced: late packets must not bring them back
        self._alive_ns = 0
        self._reported_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        session.listen(self._on_rtp, self._on_rtcp)

    def negotiated(self, low: int | None = None) -> None:
        """Both descriptions are set: what comes is known from now on. `low` is the number of the low stream's m-line.

        Raises:
            OfferUnacceptable: nothing will come.
        """
        for number, media in enumerate(self.session.tap.media()):
            if media.direction != "recvonly" or not media.codecs:
                continue
            source = Source(media, self._changed)
            if number == low:
                self.low = source
            else:
                self.sources[media.kind] = source
            repaired = {c.payload_type: int(c.fmtp["apt"]) for c in media.codecs if c.name == "rtx" and "apt" in c.fmtp}
            sinks = dict.fromkeys(source.payload_types, source) | dict.fromkeys(repaired, Repair(source, repaired))
            self._lines.append(_Line(media.mid, sinks, media.remote_ssrcs, media.extensions.get(MID, 0)))
        if self.low and "video" not in self.sources:  # in a codec that is not known here
            self.sources["video"], self.low = self.low, None
        if not self.sources:
            raise OfferUnacceptable("the offer sends nothing in a codec known here")

    def picture(self, *, low: bool) -> Source | None:
        """What a subscriber gets who asks for the low stream, or does not: whoever sends only one gives that."""
        return self.low if low and self.low and not self.low.silent else self.sources.get("video")

    def _all(self) -> Iterator[Source]:
        yield from self.sources.values()
        if self.low:
            yield self.low

    def participant(self) -> Participant:
        """As the roster shows it."""
        audio, video = self.sources.get("audio"), self.sources.get("video")
        return Participant(
            uid=self.uid,
            host=True,
            audio=audio.codec if audio else None,
            video=video.codec if video else None,
            audio_muted=bool(audio and (audio.muted or audio.silent)),
            video_muted=bool(video and (video.muted or video.silent)),
            video_low=bool(self.low and not self.low.silent),
        )

    def mute(self, wanted: Mute) -> None:
        now = time.monotonic_ns()
        for source in self._all():
            source.set_muted(wanted.audio if source.kind == "audio" else wanted.video, now)
        self._changed()

    def end(self, reason: str) -> None:
        self.session.end(reason)

    def request_keyframe(self, source: Source) -> None:
        """Pass a subscriber's wish on, now or as soon as the rate allows."""
        source.request_keyframe()
        self._give_feedback()

    # ---- Part of a session ----

    def connected(self) -> None:
        self._alive_ns = time.monotonic_ns()
        for source in self._all():
            source.last_packet_ns = self._alive_ns
        self.channel.join(self)

    def beat(self, now_ns: int) -> str | None:
        for source in self._all():
            if not source.silent and not source.muted and now_ns - source.last_packet_ns > SILENT_NS:
                source.silent = True
                self._changed()
        self._give_feedback()
        if now_ns - self._reported_ns >= _REPORT_INTERVAL_NS:
            self._reported_ns = now_ns
            self._send_reports(now_ns)
        all_muted = all(source.muted for source in self._all())
        return "no sign of life" if not all_muted and now_ns - self._alive_ns > DEAD_NS else None

    def ended(self) -> None:
        if self._timer:
            self._timer.cancel()
        self.channel.leave(self)

    # ---- packets ----

    def _on_rtp(self, packet: bytes, arrival_ns: int) -> None:
        header = parse_header(packet)
        if header is None:
            return
        self._alive_ns = arrival_ns
        sink = self._bound.get((header.ssrc, header.payload_type)) or self._bind(packet, header, arrival_ns)
        if sink is None:
            return
        sink.receive(packet, header, arrival_ns)
        if isinstance(sink, Source) and sink.reception and sink.reception.has_gaps:
            self._come_back()

    def _on_rtcp(self, packet: bytes, arrival_ns: int) -> None:
        self._alive_ns = arrival_ns
        for message in feedback.parse(packet):
            if isinstance(message, feedback.SenderInfo):
                for source in {sink for (ssrc, _), sink in self._bound.items() if ssrc == message.ssrc and isinstance(sink, Source)}:
                    source.receive_report(message, arrival_ns)

    def _bind(self, packet: bytes, header: Header, arrival_ns: int) -> Source | Repair | None:
        """Take the packets of a new SSRC, or of another payload type under it, for those of their track."""
        line = self._line(packet, header)
        if line is None:
            return None
        sink = line.sinks[header.payload_type]
        if header.ssrc in self._retired and isinstance(sink, Source) and arrival_ns - sink.last_packet_ns < _RETURN_NS:
            return None
        for bound in [bound for bound, other in self._bound.items() if other is sink and bound[0] != header.ssrc]:
            del self._bound[bound]
            self._retired[bound[0]] = sink
            if len(self._retired) > _SSRC_LIMIT:
                del self._retired[next(iter(self._retired))]
        self._retired.pop(header.ssrc, None)
        self._bound[header.ssrc, header.payload_type] = sink
        return sink

    def _line(self, packet: bytes, header: Header) -> _Line | None:
        """By its payload type; two pictures of one codec are told apart by SSRC or MID (RFC 8843 section 9.2)."""
        lines = [line for line in self._lines if header.payload_type in line.sinks]
        if len(lines) > 1:
            named = [line for line in lines if header.ssrc in line.ssrcs]
            lines = named or [line for line in lines if extensions(packet, header).get(line.mid_extension) == line.mid.encode()]
        return lines[0] if lines else None

    # ---- feedback ----

    def _repair(self) -> None:
        self._timer = None
        self._give_feedback()

    def _give_feedback(self) -> None:
        """Send what is due, and come back soon while there are gaps; a keyframe that must wait is asked for on a beat."""
        now = time.monotonic_ns()
        for source in self._all():
            reception = source.reception
            if reception is None:
                continue
            lost = reception.lost(now)
            if lost:
                self.session.tap.send_rtcp(nack(source.feedback_ssrc, reception.ssrc, lost))
            if source.keyframe_due(now):
                self.session.tap.send_rtcp(picture_loss_indication(source.feedback_ssrc, reception.ssrc))
            if reception.has_gaps:
                self._come_back()

    def _come_back(self) -> None:
        if self._timer is None and not self.session.is_over:
            self._timer = asyncio.get_running_loop().call_later(REPAIR_SECONDS, self._repair)

    def _send_reports(self, now_ns: int) -> None:
        for source in self._all():
            if source.reception:
                self.session.tap.send_rtcp(receiver_report(source.feedback_ssrc, source.reception.report_block(now_ns)))

    def _changed(self) -> None:
        self.channel.changed(self)
