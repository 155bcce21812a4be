"""The other peer: GStreamer's webrtcbin, depayloading and nothing more. Run it with Debian's Python, where GStreamer is.

Packages: gstreamer1.0-nice gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad python3-gi
gir1.2-gst-plugins-bad-1.0.
"""

import sys
import time
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")

from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402  # after the versions are chosen

from tests.bench import receive  # noqa: E402

_CAPS = {
    "video": "application/x-rtp,media=video,encoding-name=VP8,payload=97,clock-rate=90000,rtcp-fb-nack=true,rtcp-fb-nack-pli=true",
    "audio": "application/x-rtp,media=audio,encoding-name=OPUS,payload=96,clock-rate=48000,encoding-params=(string)2",
}
_DEPAYLOADERS = {"VP8": "rtpvp8depay", "OPUS": "rtpopusdepay"}


class _Session:
    """One WHEP session; calls block and turn the main loop."""

    def __init__(self, pipeline: Gst.Pipeline, url: str) -> None:
        self._url = url
        self._pipeline = pipeline
        self._bin = Gst.ElementFactory.make("webrtcbin")
        self.sinks: list[Gst.Element] = []
        self._bin.set_property("bundle-policy", "max-bundle")
        pipeline.add(self._bin)
        # libnice leaves loopback out unless it is told an address.
        self._agent = self._bin.get_property("ice-agent")  # kept: Python takes the only reference over
        self._agent.emit("add-local-ip-address", "127.0.0.1")
        self._bin.connect("pad-added", self._depayload)
        self._bin.sync_state_with_parent()
        for caps in _CAPS.values():
            direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            transceiver = self._bin.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
            transceiver.set_property("do-nack", True)

    def open(self) -> None:
        reply = self._ask("create-offer", None)  # kept: the offer lives in it
        self._ask("set-local-description", reply.get_value("offer"))
        _turn(lambda: self._bin.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE)
        # GStreamer's certificate is RSA, and aiortc's ciphers are ECDSA's: the hub has to be the server of the handshake.
        text = self._bin.get_property("local-description").sdp.as_text().replace("a=setup:actpass", "a=setup:active")
        request = urllib.request.Request(self._url, text.encode(), {"Content-Type": "application/sdp"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            _, message = GstSdp.SDPMessage.new_from_text(answer.read().decode())
        self._ask("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message))

    def packets(self) -> tuple[int, int]:
        """Received and missing, of both streams."""
        counts = []

        def count(_field: int, value: Gst.Structure) -> bool:
            if isinstance(value, Gst.Structure) and value.get_name() == "inbound-rtp":
                counts.append((value.get_value("packets-received"), value.get_value("packets-lost")))
            return True

        self._ask("get-stats", None).foreach(count)
        return sum(received for received, _ in counts), sum(lost for _, lost in counts)

    def frames(self) -> int:
        return sum(sink.get_property("stats").get_value("rendered") for sink in self.sinks)

    def _depayload(self, _bin: Gst.Element, pad: Gst.Pad) -> None:
        """On a thread of GStreamer."""
        depayloader = Gst.ElementFactory.make(_DEPAYLOADERS[pad.get_current_caps().get_structure(0).get_value("encoding-name")])
        sink = Gst.ElementFactory.make("fakesink")
        sink.set_property("sync", False)
        sink.set_property("async", False)
        for element in (depayloader, sink):
            self._pipeline.add(element)
            element.sync_state_with_parent()
        depayloader.link(sink)
        pad.link(depayloader.get_static_pad("sink"))
        self.sinks.append(sink)

    def _ask(self, signal: str, argument: object) -> Gst.Structure:
        promise = Gst.Promise.new()
        self._bin.emit(signal, argument, promise)
        promise.wait()
        return promise.get_reply()


def _turn(done: object) -> None:
    assert callable(done)
    deadline = time.monotonic() + 30
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError
        GLib.MainContext.default().iteration(False)
        time.sleep(0.01)


def _read(sessions: list[_Session]) -> receive.Reading:
    packets = [session.packets() for session in sessions]
    frames = sum(session.frames() for session in sessions)
    return receive.read(sum(received for received, _ in packets), sum(missing for _, missing in packets), frames)


def _run(room: receive.Room) -> None:
    pipeline = Gst.Pipeline.new()
    pipeline.set_state(Gst.State.PLAYING)
    sessions = [_Session(pipeline, f"{room.hub}/whep/{room.path}/{uid}?uid=902") for uid in room.uids]
    for session in sessions:
        session.open()
    _turn(lambda: all(len(session.sinks) == 2 and session.frames() for session in sessions))
    time.sleep(room.warm_seconds)
    first = _read(sessions)
    time.sleep(room.measured_seconds)
    last = _read(sessions)
    receive.tell(receive.between(first, last, missing=last.missing - first.missing, note=Gst.version_string()))
    pipeline.set_state(Gst.State.NULL)


def _lacking() -> list[str]:
    elements = ("webrtcbin", "nicesrc", "dtlssrtpdec", "srtpdec", "rtpvp8depay", "rtpopusdepay")
    return [name for name in elements if Gst.ElementFactory.find(name) is None]


if __name__ == "__main__":
    Gst.init(None)
    if lacking := _lacking():
        sys.exit(f"GStreamer lacks {', '.join(lacking)}")
    if sys.argv[1:] == ["--check"]:
        sys.exit()
    _run(receive.arguments(__doc__))
