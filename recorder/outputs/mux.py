"""Media files on top of libav's muxers: MPEG-TS, WebM and MP4. Encoded bytes go in as they are.

Times are nanoseconds; decode times that do not rise are moved. What belongs into which file is decided elsewhere.
"""

import contextlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.logging
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from recorder.outputs import TS_ZERO_NS

AAC_RATE_HZ = 48_000
AAC_FRAME_NS = 1024 * 1_000_000_000 // AAC_RATE_HZ

_NANOSECONDS = Fraction(1, 1_000_000_000)

_TS_OPTIONS = {
    "mpegts_copyts": "1",  # our times, not shifted by the muxer
    "mpegts_flags": "initial_discontinuity",  # packet counters start anew in each slice: tells decoders of joined slices
    "max_delay": "200000",  # µs that the clock reference runs ahead; half of it is the longest audio packet
    "pat_period": "86400",  # tables stand at the start (and before video keyframes), not ten times a second: 40 kbit/s
    "sdt_period": "86400",
}
_WEBM_OPTIONS = {
    "cluster_time_limit": "1000",  # ms: a cluster is in memory until it is full
    "fflags": "+bitexact",  # else the track has a random number, and the same media gives other bytes each time
}
_FRAGMENTED_MP4_OPTIONS = {
    # delay_moov: the parameter sets come with the first packets, and the edit list needs their times.
    "movflags": "empty_moov+delay_moov+default_base_moof",
    "frag_duration": "1000000",  # µs
}
_WHOLE_MP4_OPTIONS = {
    "movflags": "faststart",
    "flush_packets": "0",
}
_SHARED_OPTIONS = {
    "flush_packets": "1",  # what a killed process leaves ends with the last whole packet
    "max_interleave_delta": "1",  # µs: packets come in order and must not wait for the other stream
}

_TS_NULL_PACKET = b"\x47\x1f\xff\x10" + b"\xff" * 184  # ISO/IEC 13818-1 section 2.4.1: ignored by every receiver
_TS_LEAST_PACKETS = 16  # libav takes the last breath of a recording, a slice of fewer packets, for MP2 sound


class TsFile:
    """One slice of a recording: H.264 in Annex B form, AAC in ADTS form or Opus, or both.

    Times are those of the recording's timeline plus a constant, so slices play on without a seam. 26.5 hours after the
    zero the 33 bits of TS time stamps wrap, which players expect.
    """

    def __init__(self, path: Path, *, video: bool, audio: Literal["aac", "opus"] | None) -> None:
        self._path = path
        self._muxer = _Muxer(path, "mpegts", _TS_OPTIONS)
        self._video = self._muxer.add_video("h264", step_ns=11_112) if video else None
        self._audio = {"aac": self._muxer.add_audio, "opus": self._muxer.add_opus}[audio]() if audio else None

    def write_video(self, data: bytes, pts_ns: int, dts_ns: int, *, keyframe: bool) -> None:
        assert self._video
        self._video.write(data, pts_ns + TS_ZERO_NS, dts_ns + TS_ZERO_NS, keyframe=keyframe)

    def write_audio(self, data: bytes, pts_ns: int, duration_ns: int = AAC_FRAME_NS) -> None:
        assert self._audio
        self._audio.write(data, pts_ns + TS_ZERO_NS, pts_ns + TS_ZERO_NS, duration_ns=duration_ns)

    @property
    def size(self) -> int:
        """Bytes on disk so far."""
        return self._muxer.size

    def close(self) -> None:
        self._muxer.close()
        missing = _TS_LEAST_PACKETS - self._path.stat().st_size // len(_TS_NULL_PACKET) if self._path.exists() else 0
        if missing > 0:
            with self._path.open("ab") as file:
                file.write(_TS_NULL_PACKET * missing)


class WebmFile:
    """One slice of VP8, VP9 or AV1, or of Opus.

    Times are relative to the slice: a WebM file stands alone (no player joins a list of them), its place in the recording
    is in its name. The rotation is not written: it may change within a file, and the playlist tells it.
    """

    def __init__(self, path: Path, codec: Literal["vp8", "vp9", "av1", "opus"], *, width: int = 0, height: int = 0) -> None:
        self._muxer = _Muxer(path, "webm", _WEBM_OPTIONS)
        if codec == "opus":
            self._stream = self._muxer.add_opus()
        else:
            self._stream = self._muxer.add_video(codec, step_ns=1_000_000, width=width, height=height)

    def write(self, data: bytes, time_ns: int, *, keyframe: bool, duration_ns: int) -> None:
        """`time_ns` counts from the start of the slice. WebM keeps whole milliseconds of it."""
        self._stream.write(data, max(0, time_ns), max(0, time_ns), keyframe=keyframe, duration_ns=duration_ns)

    def close(self) -> None:
        self._muxer.close()


class Mp4File:
    """One MP4 part of H.264 and AAC (ADTS): fragmented while it is open, to be rewritten by `index_in_front`.

    `origin_ns` is the moment of the recording that is zero in the file. What lies before it (the priming of the sound's
    decoder) is hidden by the edit list. `fragmented` False: worth nothing before it is closed, and has its index in front then.
    """

    def __init__(self, path: Path, *, origin_ns: int, size: tuple[int, int] | None, audio: bool, fragmented: bool = True) -> None:
        self._path = path
        self._origin_ns = origin_ns
        self._muxer = _Muxer(path, "mp4", _FRAGMENTED_MP4_OPTIONS if fragmented else _WHOLE_MP4_OPTIONS)
        self._video = self._muxer.add_video("h264", step_ns=11_112, width=size[0], height=size[1], exact=True) if size else None
        self._audio = self._muxer.add_audio(bare=True) if audio else None

    def write_video(self, data: bytes, time_ns: int, *, keyframe: bool, duration_ns: int, early_ns: int = 0) -> None:
        """`early_ns`: by how much it is decoded before it is shown."""
        assert self._video
        time_ns -= self._origin_ns
        self._video.write(data, time_ns, time_ns - early_ns, keyframe=keyframe, duration_ns=duration_ns)

    def write_audio(self, data: bytes, time_ns: int) -> None:
        assert self._audio
        time_ns -= self._origin_ns
        self._audio.write(data, time_ns, time_ns, duration_ns=AAC_FRAME_NS)

    @property
    def size(self) -> int:
        """Bytes on disk so far."""
        return self._muxer.size

    def close(self) -> None:
        for track in (self._video, self._audio):
            if track:
                track.flush()
        self._muxer.close()


def index_in_front(source: Path, target: Path) -> int:
    """Rewrite a fragmented MP4 with its index in front; returns the ns at which its media ends. Takes seconds per hour of media."""
    end_ns = 0
    with av.open(_url(source)) as old, av.open(_url(target), "w", format="mp4", options={"movflags": "faststart"}) as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:  # None: the end of a stream
                end_ns = max(end_ns, round((packet.pts + (packet.duration or 0)) * packet.time_base * 1_000_000_000))
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    return end_ns


class _Muxer:
    """One container that is being written."""

    def __init__(self, path: Path, container_format: str, options: Mapping[str, str]) -> None:
        self._path = path
        self._container: OutputContainer = av.open(_url(path), "w", format=container_format, options={**_SHARED_OPTIONS, **options})
        self._started = False

    def add_video(self, codec: str, *, step_ns: int, width: int = 0, height: int = 0, exact: bool = False) -> "_Track":
        return _Track(self, self._container.add_mux_stream(codec, width=width, height=height), step_ns, exact=exact)

    def add_audio(self, *, bare: bool = False) -> "_Track":
        """AAC in ADTS form. `bare`: for a container that keeps the facts of its headers once."""
        bare_aac = BitStreamFilterContext("aac_adtstoasc", "aac") if bare else None
        return _Track(self, self._container.add_mux_stream("aac", rate=AAC_RATE_HZ), 20_834, exact=bare, packet_filter=bare_aac)

    def add_opus(self) -> "_Track":
        # A stream without encoder would have no OpusHead, which WebM demands. Nothing is encoded; any Opus packet can be
        # decoded to two channels.
        return _Track(self, self._container.add_stream("libopus", rate=48_000, layout="stereo", bit_rate=64_000), 1_000_000)

    def mux(self, packet: "Packet[Stream]") -> None:
        # With the first packets PyAV asks for the headers of codecs that have none; libav calls that an error in its log.
        with contextlib.nullcontext() if self._started else av.logging.Capture():
            self._container.mux(packet)
        self._started = self._started or self._path.exists()

    @property
    def size(self) -> int:
        return self._path.stat().st_size if self._started else 0

    def close(self) -> None:
        with contextlib.nullcontext() if self._started else av.logging.Capture():
            self._container.close()


class _Track:
    """One stream of a container. `step_ns` is just over one unit of its clock.

    `exact`: each packet waits for the next, because it states its own duration. A fragment of MP4 begins where the last
    duration of the one before ends, not where its own first packet says.
    """

    def __init__(
        self,
        muxer: _Muxer,
        stream: Stream,
        step_ns: int,
        *,
        exact: bool = False,
        packet_filter: BitStreamFilterContext | None = None,
    ) -> None:
        self._muxer = muxer
        self._stream = stream
        self._step_ns = step_ns
        self._exact = exact
        self._filter = packet_filter
        self._last_dts_ns: int | None = None
        self._waiting: Packet[Stream] | None = None

    def write(self, data: bytes, pts_ns: int, dts_ns: int, *, keyframe: bool = True, duration_ns: int = 0) -> None:
        if self._last_dts_ns is not None:
            dts_ns = max(dts_ns, self._last_dts_ns + self._step_ns)
        if self._waiting and self._last_dts_ns is not None:
            self._waiting.duration = dts_ns - self._last_dts_ns
        self.flush()
        self._last_dts_ns = dts_ns
        packet: Packet[Stream] = Packet(data)
        packet.time_base = _NANOSECONDS
        packet.pts = max(pts_ns, dts_ns)
        packet.dts = dts_ns
        packet.duration = duration_ns
        packet.is_keyframe = keyframe
        self._waiting = packet
        if not self._exact:
            self.flush()

    def flush(self) -> None:
        packet, self._waiting = self._waiting, None
        if packet:
            for ready in self._filter.filter(packet) if self._filter else [packet]:
                ready.stream = self._stream
                ready.time_base = _NANOSECONDS
                self._muxer.mux(ready)


def _url(path: Path) -> str:
    """Names come from users: without the scheme libav takes a colon in a relative path for one."""
    return f"file:{path}"
