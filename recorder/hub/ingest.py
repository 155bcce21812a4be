"""A publisher's session: its tracks as sources, and the hub's feedback to it (NACK, PLI, receiver reports)."""

import asyncio
import time
from typing import Final

from recorder.frames import Kind
from recorder.hub import feedback
from recorder.hub.channel import Channel
from recorder.hub.messages import Mute, Participant
from recorder.hub.negotiation import OfferUnacceptable
from recorder.hub.session import Session
from recorder.hub.source import Repair, Source
from recorder.rtp.packet import Header, nack, parse_header, picture_loss_indication, receiver_report

SILENT_NS: Final = 3_000_000_000  # a track without packets for so long counts as muted
# A publisher without any sign of life for so long is gone. It believes in its session as long as its consent to send lasts
# (RFC 7675 section 5.1), and goes on in it after a shorter blackout without noticing.
DEAD_NS: Final = 30_000_000_000
REPAIR_SECONDS: Final = 0.02
_REPORT_INTERVAL_NS: Final = 1_000_000_000
_SSRC_LIMIT: Final = 16
_RETURN_NS: Final = 1_000_000_000  # an SSRC that was replaced may come back when its successor has been silent for so long


class Ingest:
    """One publisher of a channel."""

    def __init__(self, uid: int, channel: Channel, session: Session) -> None:
        self.uid = uid
        self.channel = channel
        self.session = session
        self.sources: dict[Kind, Source] = {}
        self._routes: dict[int, Source | Repair] = {}  # by payload type
        self._by_ssrc: dict[int, Source | Repair] = {}
        self._retired: dict[int, Source | Repair] = {}  # SSRCs that the sender has replaced: late packets must not bring them back
        self._alive_ns = 0
        self._reported_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        session.listen(self._on_rtp, self._on_rtcp)

    def negotiated(self) -> None:
        """Both descriptions are set: what comes is known from now on.

        Raises:
            OfferUnacceptable: nothing will come.
        """
        for media in self.session.tap.media():
            if media.direction != "recvonly" or not media.codecs:
                continue
            source = Source(media, self._changed)
            self.sources[media.kind] = source
            self._routes |= dict.fromkeys(source.payload_types, source)
            repaired = {c.payload_type: int(c.fmtp["apt"]) for c in media.codecs if c.name == "rtx" and "apt" in c.fmtp}
            self._routes |= dict.fromkeys(repaired, Repair(source, repaired))
        if not self.sources:
            raise OfferUnacceptable("the offer sends nothing in a codec known here")

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
        )

    def mute(self, wanted: Mute) -> None:
        now = time.monotonic_ns()
        for source in self.sources.values():
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
        for source in self.sources.values():
            source.last_packet_ns = self._alive_ns
        self.channel.join(self)

    def beat(self, now_ns: int) -> str | None:
        for source in self.sources.values():
            if not source.silent and not source.muted and now_ns - source.last_packet_ns > SILENT_NS:
                source.silent = True
                self._changed()
        self._give_feedback()
        if now_ns - self._reported_ns >= _REPORT_INTERVAL_NS:
            self._reported_ns = now_ns
            self._send_reports(now_ns)
        all_muted = all(source.muted for source in self.sources.values())
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
        sink = self._by_ssrc.get(header.ssrc) or self._bind(header, arrival_ns)
        if sink is None:
            return
        sink.receive(packet, header, arrival_ns)
        if isinstance(sink, Source) and sink.reception and sink.reception.has_gaps:
            self._come_back()

    def _on_rtcp(self, packet: bytes, arrival_ns: int) -> None:
        self._alive_ns = arrival_ns
        for message in feedback.parse(packet):
            sink = self._by_ssrc.get(message.ssrc)
            if isinstance(message, feedback.SenderInfo) and isinstance(sink, Source):
                sink.receive_report(message, arrival_ns)

    def _bind(self, header: Header, arrival_ns: int) -> Source | Repair | None:
        """Find the track of a new SSRC by its payload type, which is unique here: one codec for each kind."""
        sink = self._routes.get(header.payload_type)
        if sink is None:
            return None
        if header.ssrc in self._retired and isinstance(sink, Source) and arrival_ns - sink.last_packet_ns < _RETURN_NS:
            return None
        for ssrc in [ssrc for ssrc, other in self._by_ssrc.items() if other is sink]:
            del self._by_ssrc[ssrc]
            self._retired[ssrc] = sink
            if len(self._retired) > _SSRC_LIMIT:
                del self._retired[next(iter(self._retired))]
        self._retired.pop(header.ssrc, None)
        self._by_ssrc[header.ssrc] = sink
        return sink

    # ---- feedback ----

    def _repair(self) -> None:
        self._timer = None
        self._give_feedback()

    def _give_feedback(self) -> None:
        """Send what is due, and come back soon while there are gaps; a keyframe that must wait is asked for on a beat."""
        now = time.monotonic_ns()
        for source in self.sources.values():
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
        for source in self.sources.values():
            if source.reception:
                self.session.tap.send_rtcp(receiver_report(source.feedback_ssrc, source.reception.report_block(now_ns)))

    def _changed(self) -> None:
        self.channel.changed(self)
