"""Notes what happens in the channel, for the timeline file: who comes, goes, begins and stops, what is sent, how it was received.

The notes go to a journal of the spool's as they come, so that a killed worker's are not lost; its next worker goes on in the same
one. Nothing is forced to disk, and a journal that cannot be written costs the timeline file alone.
"""

import logging
from collections.abc import Mapping

from recorder.frames import EncodedFrame, Figures, Track
from recorder.worker.pipeline import Input, Joined, Left, Started, Stopped
from storage.errors import SpoolError
from storage.journal import Journal

log = logging.getLogger(__name__)

EVENTS = 20_000  # of one worker; what happens after that is counted


class Chronicle:
    def __init__(self, journal: Journal, *, epoch: int, zero_utc_ns: int, limit: int = EVENTS) -> None:
        self._journal = journal
        self._room = limit
        self._left_out = 0
        self._broken = False
        self._formats: dict[Track, tuple[str, int, int, int]] = {}
        self._write({"type": "worker", "epoch": epoch, "zero_utc_ns": zero_utc_ns})

    def observe(self, item: Input, now_ns: int) -> None:
        """What a pipeline takes. Called by one thread."""
        match item:
            case EncodedFrame():
                self._look(item)
            case Joined(uid=uid):
                self._event("joined", now_ns, uid)
            case Left(uid=uid):
                self._event("left", now_ns, uid)
            case Started(track=track):
                self._event("started", now_ns, track.uid, kind=track.kind)
            case Stopped(track=track):
                self._formats.pop(track, None)
                self._event("stopped", now_ns, track.uid, kind=track.kind)

    def measured(self, figures: Mapping[Track, Figures], now_ns: int) -> None:
        """What is known of every track by now; replaces what was. May be called by another thread."""
        tracks = [
            {
                "uid": track.uid,
                "kind": track.kind,
                "received": known.received,
                "lost": known.lost,
                "drift_ppm": known.drift_ppm,
                "av_offset_ns": known.av_offset_ns,
            }
            for track, known in figures.items()
        ]
        self._write({"type": "figures", "at_ns": now_ns, "left_out": self._left_out, "tracks": tracks})

    def _look(self, frame: EncodedFrame) -> None:
        seen = (frame.codec, frame.width, frame.height, frame.rotation)
        if self._formats.get(frame.track) == seen:
            return
        self._formats[frame.track] = seen
        track = frame.track
        picture = {"width": frame.width, "height": frame.height, "rotation": frame.rotation} if track.kind == "video" else {}
        self._event("format", frame.time_ns, track.uid, kind=track.kind, codec=frame.codec, **picture)

    def _event(self, kind_of_event: str, at_ns: int, uid: int, **more: object) -> None:
        if self._room <= 0:
            self._left_out += 1
            return
        self._room -= 1
        self._write({"type": kind_of_event, "at_ns": at_ns, "uid": uid, **more})

    def _write(self, note: Mapping[str, object]) -> None:
        if self._broken:
            return
        try:
            self._journal.append(note, durable=False)
        except SpoolError as error:
            self._broken = True
            log.warning("the timeline file will lack what happens from now on", extra={"error": str(error)})
