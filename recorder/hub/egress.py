"""A subscriber's session: the tracks of one publisher, passed on as they come."""

from collections.abc import Mapping

from recorder.frames import Kind
from recorder.hub import feedback
from recorder.hub.ingest import Ingest
from recorder.hub.session import Session
from recorder.hub.source import Outlet, Source


class Egress:
    """One subscriber of one publisher."""

    def __init__(self, session: Session, ingest: Ingest, sources: Mapping[Kind, Source]) -> None:
        """`sources` of the publisher's are passed on, as far as the session takes them."""
        self.session = session
        self.ingest = ingest
        self.channel = ingest.channel
        self._sources = sources
        self._outlets: dict[int, Outlet] = {}  # by our SSRC
        session.listen(self._on_rtp, self._on_rtcp)

    # ---- Part of a session ----

    def connected(self) -> None:
        tap = self.session.tap
        for media in tap.media():
            source = self._sources.get(media.kind)
            if source is None or media.direction != "sendonly":
                continue
            outlet = Outlet(source, media, tap.send_rtp, tap.send_rtcp)
            self._outlets[outlet.ssrc] = outlet
            source.attach(outlet)
            self.ingest.request_keyframe(source)

    def beat(self, now_ns: int) -> str | None:
        return "the publisher left" if self.ingest.session.is_over else None

    def ended(self) -> None:
        for outlet in self._outlets.values():
            outlet.source.detach(outlet)

    # ---- packets ----

    def _on_rtp(self, packet: bytes, arrival_ns: int) -> None:
        """Nothing is received from a subscriber."""

    def _on_rtcp(self, packet: bytes, arrival_ns: int) -> None:
        for message in feedback.parse(packet):
            outlet = self._outlets.get(message.ssrc)
            if outlet is None:
                continue
            if isinstance(message, feedback.Nack):
                outlet.source.resend(outlet, message.sequences)
            elif isinstance(message, feedback.KeyframeRequest):
                self.ingest.request_keyframe(outlet.source)
