"""One session's receive path: packets in by hand, frames and feedback out."""

import math
import struct

import pytest

from recorder.frames import EncodedFrame
from recorder.rtp import packet as rtp
from recorder.rtp.receiver import MAX_STREAMS, REPAIR_SECONDS, URGENT_SECONDS, Route, SessionReceiver

MS = 1_000_000
ZERO = 5_000 * MS  # of the timeline, on the monotonic clock
VIDEO, AUDIO, RTX, H264, ORIENTATION = 97, 96, 98, 99, 4


class Session:
    def __init__(self, *, patience_ms: int = 500) -> None:
        self.frames: list[EncodedFrame] = []
        self.receiver = SessionReceiver(
            7,
            routes={VIDEO: Route("video", "vp8", 90000), H264: Route("video", "h264", 90000), AUDIO: Route("audio", "opus", 48000)},
            retransmissions={RTX: VIDEO},
            orientation_id=ORIENTATION,
            on_frame=self.frames.append,
            patience_ns=patience_ms * MS,
            zero_ns=ZERO,
        )

    def video(
        self, sequence: int, at_ms: int, *, key: bool = False, ssrc: int = 1, rotation: int | None = None, wrapped: int | None = None
    ) -> None:
        """One VP8 frame in one packet, 33 ms each; `wrapped`: as the retransmission of that sequence number."""
        extension = b"" if rotation is None else struct.pack("!HHBBH", 0xBEDE, 1, ORIENTATION << 4, rotation, 0)
        number, kind, source = (sequence, VIDEO, ssrc) if wrapped is None else (wrapped, RTX, 99)
        head = struct.pack("!BBHII", 0x90 if extension else 0x80, 0x80 | kind, number & 0xFFFF, sequence * 3000 & 0xFFFFFFFF, source)
        frame = b"\x00\x00\x00\x9d\x01\x2a\x80\x02\x68\x01" if key else b"\x01delta"
        original = b"" if wrapped is None else struct.pack("!H", sequence & 0xFFFF)
        self.receiver.packet(head + extension + original + b"\x10" + frame, ZERO + at_ms * MS)

    def other(self, sequence: int, at_ms: int, payload: bytes, *, kind: int, ssrc: int = 1, padding: int = 0) -> None:
        """One packet of any payload, and a frame of its own."""
        first, tail = (0xA0, bytes(padding - 1) + bytes([padding])) if padding else (0x80, b"")
        head = struct.pack("!BBHII", first, 0x80 | kind, sequence & 0xFFFF, sequence * 3000 & 0xFFFFFFFF, ssrc)
        self.receiver.packet(head + payload + tail, ZERO + at_ms * MS)

    def audio(self, sequence: int, at_ms: int, *, ssrc: int = 2) -> None:
        head = struct.pack("!BBHII", 0x80, AUDIO, sequence & 0xFFFF, sequence * 960 & 0xFFFFFFFF, ssrc)
        self.receiver.packet(head + b"\xfcsound", ZERO + at_ms * MS)

    def feedback(self, at_ms: int) -> tuple[list[int], int]:
        """Sequence numbers asked for again, and keyframe requests."""
        lost, keyframes = [], 0
        for data in self.receiver.tick(ZERO + at_ms * MS):
            if data[1] == rtp.RTPFB:
                lost += [struct.unpack_from("!H", data, 12)[0]]
            keyframes += data[1] == rtp.PSFB
        return lost, keyframes

    def sent(self) -> list[tuple[bool, int]]:
        return [(frame.keyframe, frame.time_ns // MS) for frame in self.frames]


def test_video_begins_with_a_keyframe_and_asks_for_one_until_it_comes() -> None:
    session = Session()
    session.video(1, 0)
    assert session.feedback(10) == ([], 1)
    session.video(2, 33)
    assert session.feedback(200) == ([], 0)  # not more than twice a second
    assert session.feedback(520) == ([], 1)
    session.video(16, 533, key=True)
    for sequence in range(3, 16):
        session.video(sequence, 540)
    session.video(17, 566)
    assert [frame.keyframe for frame in session.frames] == [True, False]
    assert (session.frames[0].width, session.frames[0].height) == (640, 360)
    assert session.feedback(1100) == ([], 0)


def test_a_repaired_loss_is_invisible_and_an_unrepaired_one_waits_for_a_keyframe() -> None:
    session = Session()
    session.video(1, 0, key=True)
    session.feedback(5)
    session.video(3, 66)
    assert session.feedback(80) == ([2], 0)
    session.video(2, 100, wrapped=500)
    assert len(session.frames) == 3
    session.video(5, 133)
    session.feedback(700)
    assert len(session.frames) == 3  # frame 5 refers to one that is missing
    assert session.feedback(710)[1] + session.feedback(1300)[1] >= 1
    session.video(6, 720, key=True)
    session.video(7, 753)
    assert [frame.keyframe for frame in session.frames] == [True, False, False, True, False]
    assert session.receiver.counters.frames_undecodable == 1


def test_sound_passes_over_a_loss() -> None:
    session = Session()
    for sequence in (1, 2, 4, 5):
        session.audio(sequence, sequence * 20)
    assert len(session.frames) == 2
    session.feedback(700)
    assert [time for _, time in session.sent()] == [20, 40, 80, 100]


def test_a_new_source_of_the_same_kind_takes_over() -> None:
    session = Session()
    session.video(1, 0, key=True)
    session.video(40000, 40, key=True, ssrc=5)
    session.video(40001, 73, ssrc=5)
    assert [frame.keyframe for frame in session.frames] == [True, True, False]
    for ssrc in range(100, 1100):
        session.video(1, 100, key=True, ssrc=ssrc)
    assert len(session.frames) == 1003
    assert len(session.receiver._by_ssrc) + len(session.receiver._retired) <= MAX_STREAMS + 2


def test_late_packets_of_a_replaced_source_do_not_bring_it_back() -> None:
    session = Session()
    session.video(1, 0, key=True)
    session.video(500, 40, key=True, ssrc=5)
    session.video(2, 45, key=True)  # sent before the other, overtaken on its way
    session.video(501, 73, ssrc=5)
    assert [frame.keyframe for frame in session.frames] == [True, True, False]
    assert session.receiver.counters.retired == 1
    session.video(3, 2000, key=True)  # the other one is silent: this is a return
    session.video(4, 2033)
    assert len(session.frames) == 5


def test_another_codec_takes_over_in_order() -> None:
    """A payload type that changes in mid-stream, its first packets overtaken: no packet is lost, and it does not flap."""
    session = Session()
    sps, idr = bytes.fromhex("6742c01f9a7402802dc80880000003008000000f078c1950"), bytes.fromhex("658884")
    session.video(1, 0, key=True)
    for sequence, payload in (
        (4, bytes.fromhex("419a24")),
        (3, b"\x18" + b"".join(len(n).to_bytes(2, "big") + n for n in (sps, bytes.fromhex("68ce3c80"), idr))),
    ):
        session.other(sequence, 70, payload, kind=H264)
    session.video(2, 75)
    assert [(frame.codec, frame.keyframe) for frame in session.frames] == [("vp8", True), ("vp8", False), ("h264", True), ("h264", False)]
    assert session.frames[2].width == 1280
    assert session.receiver.counters.streams == 1
    assert session.feedback(80)[0] == []


def test_packets_that_are_not_read_are_not_missing() -> None:
    """Padding that probes the bandwidth, tones of a telephone, comfort noise: they have sequence numbers of the stream."""
    session = Session()
    session.video(1, 0, key=True)
    session.other(2, 10, b"", kind=VIDEO, padding=200)
    session.other(3, 20, b"", kind=VIDEO)
    session.other(4, 30, b"telephone-event", kind=13)
    session.video(5, 40)
    session.feedback(10)
    assert session.feedback(700)[0] == []
    assert [frame.keyframe for frame in session.frames] == [True, False]
    assert (session.receiver.counters.unrouted, session.receiver.counters.malformed) == (1, 0)


def test_a_picture_beyond_all_measure_never_reaches_a_decoder() -> None:
    session = Session()
    session.other(1, 0, b"\x10\x00\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f", kind=VIDEO)
    session.video(2, 33)
    assert session.frames == []
    assert session.receiver.counters.malformed == 1
    session.video(3, 66, key=True)
    assert len(session.frames) == 1


def test_what_is_still_held_is_handed_over_at_the_end() -> None:
    session = Session()
    session.audio(1, 0)
    session.audio(3, 40)
    assert len(session.frames) == 1
    session.receiver.flush()
    assert len(session.frames) == 2


def test_one_report_tells_of_all_streams() -> None:
    session = Session()
    session.video(1, 0, key=True)
    session.audio(1, 0)
    (data,) = [d for d in session.receiver.tick(ZERO + 5 * MS) if d[1] == rtp.RR]
    assert data[0] & 0x1F == 2
    assert len(data) == 4 + 4 * int.from_bytes(data[2:4], "big")
    assert {struct.unpack_from("!I", data, offset)[0] for offset in (8, 32)} == {1, 2}
    assert [d for d in session.receiver.tick(ZERO + 900 * MS) if d[1] == rtp.RR] == []


def test_rotation_stays_until_it_changes() -> None:
    session = Session()
    for sequence, rotation in enumerate((None, 1, None, 2, 0)):
        session.video(sequence, sequence * 33, key=True, rotation=rotation)
    assert [frame.rotation for frame in session.frames] == [0, 90, 90, 180, 0]


def test_unknown_and_broken_packets_are_counted() -> None:
    session = Session()
    session.receiver.packet(b"\x80", ZERO)
    session.receiver.packet(struct.pack("!BBHII", 0x80, 50, 1, 1, 1) + b"x", ZERO)
    session.receiver.packet(struct.pack("!BBHII", 0x80, VIDEO, 1, 1, 1) + b"\x90\x80", ZERO)
    assert (session.receiver.counters.malformed, session.receiver.counters.unrouted) == (2, 1)
    assert session.frames == []


def test_receiver_reports_tell_losses_and_the_last_sender_report() -> None:
    session = Session()
    for sequence in (1, 2, 3, 6, 7, 8):
        session.audio(sequence, sequence * 20)
    report = struct.pack("!BBHIQIII", 0x80, rtp.SR, 6, 2, 0x0000AAAABBBB0000, 960, 1, 2)
    session.receiver.control(report, ZERO + 200 * MS)
    (data,) = [d for d in session.receiver.tick(ZERO + 700 * MS) if d[1] == rtp.RR]
    ssrc, lost, highest, _, last, delay = struct.unpack_from("!IIIIII", data, 8)
    assert (ssrc, lost >> 24, lost & 0xFFFFFF, highest) == (2, 2 * 256 // 8, 2, 8)
    assert (last, delay) == (0xAAAABBBB, 65536 // 2)


@pytest.mark.parametrize(("with_video", "expected_ms"), [(True, [0, 1000, 2000, 3000, 4000, 5000]), (False, [0, 5000])])
def test_reports_are_sent_each_second_and_of_sound_alone_every_five_seconds(with_video: bool, expected_ms: list[int]) -> None:
    session = Session()
    reported = []
    for sequence, at_ms in enumerate(range(0, 6000, 100)):
        session.audio(sequence, at_ms)
        if with_video:
            session.video(sequence, at_ms, key=True)
        reported += [at_ms for data in session.receiver.tick(ZERO + at_ms * MS) if data[1] == rtp.RR]
    assert reported == expected_ms


def test_a_report_before_the_first_packet_is_not_lost() -> None:
    """The hub repeats the sender's last report when somebody subscribes, so that the first packets can be placed."""
    session = Session()
    for ssrc, rtp_time in ((1, 3000), (2, 960)):  # of the same moment
        report = struct.pack("!BBHIQIII", 0x80, rtp.SR, 6, ssrc, 0xE0000000 << 32, rtp_time, 1, 2)
        session.receiver.control(report, ZERO)
    session.audio(1, 100)
    session.video(1, 400, key=True)  # late: repaired, or from a slower path
    for sequence in range(2, 100):
        session.audio(sequence, 80 + 20 * sequence)
        session.video(sequence, 367 + 33 * sequence, key=True)
    sound, picture = (max(f.time_ns for f in session.frames if f.track.kind == kind) for kind in ("audio", "video"))
    assert abs(sound - 98 * 20 * MS - 100 * MS) < 5 * MS
    assert abs(picture - 98 * 33_333_333 - 100 * MS) < 40 * MS  # not 400 ms, as its arrival says


def test_reports_of_a_sender_that_began_anew_count_from_there() -> None:
    session = Session()
    for sequence in (1, 2, 3, 40000, 40001, 40002):
        session.audio(sequence, 20)
    (data,) = [d for d in session.receiver.tick(ZERO + 700 * MS) if d[1] == rtp.RR]
    _, lost, highest = struct.unpack_from("!III", data, 8)
    assert (lost, highest) == (0, 40002)
    assert session.receiver.figures()["restarts"] == 1


def test_reports_of_sources_that_never_send_do_not_keep_out_others() -> None:
    session = Session()
    for ssrc in range(100, 100 + 3 * MAX_STREAMS):
        session.receiver.control(struct.pack("!BBHIQIII", 0x80, rtp.SR, 6, ssrc, 0xE0000000 << 32, 1, 1, 2), ZERO)
    session.receiver.control(struct.pack("!BBHIQIII", 0x80, rtp.SR, 6, 2, 0xE0000000 << 32, 960, 1, 2), ZERO)
    for sequence in range(1, 100):
        session.audio(sequence, 20 * sequence)
    assert session.receiver._streams["audio"].clock._wall_ns is not None
    assert len(session.receiver._early_reports) <= MAX_STREAMS


def test_another_session_goes_on_with_the_times_of_the_one_before_and_repeats_nothing() -> None:
    first, second = Session(), Session()
    second.receiver.sender = first.receiver.sender
    for sequence in range(1, 50):
        first.audio(sequence, 20 * sequence + 40)
    for sequence in range(47, 52):  # three that the first gave, on a path that is quicker by 35 ms
        second.audio(sequence, 20 * sequence + 5)
    first.audio(50, 20 * 50 + 40)  # of the path that is given up
    for sequence in range(52, 60):
        second.audio(sequence, 20 * sequence + 5)
    times = [frame.time_ns for frame in (*first.frames, *second.frames)]
    assert len(times) == 59
    assert all(17 * MS < after - before < 21 * MS for before, after in zip(times, times[1:], strict=False))  # noqa: RUF007
    assert second.receiver.counters.frames_repeated == 3
    assert first.receiver.counters.frames_repeated == 1


def test_another_session_with_other_timestamps_begins_by_their_arrival() -> None:
    first, second = Session(), Session()
    second.receiver.sender = first.receiver.sender
    for sequence in range(1, 50):
        first.audio(sequence, 20 * sequence)
    for sequence in range(5001, 5010):
        second.audio(sequence, 1000 + 20 * (sequence - 5000))
    assert [frame.time_ns // MS for frame in second.frames] == [1000 + 20 * count for count in range(1, 10)]
    assert second.receiver.figures()["clock_jumps"] == 0


def test_a_keyframe_that_another_session_gave_serves_the_frames_after_it() -> None:
    first, second = Session(), Session()
    second.receiver.sender = first.receiver.sender
    for session in (first, second):
        session.video(1, 33, key=True)
        session.video(2, 66)
    second.video(3, 100)
    assert [len(session.frames) for session in (first, second)] == [2, 1]
    assert second.receiver.counters.frames_undecodable == 0


def test_packets_are_measured_over_all_sources_of_a_kind() -> None:
    session = Session()
    for sequence in (1, 2, 5):
        session.audio(sequence, 20 * sequence)
    session.receiver.tick(ZERO + 900 * MS)  # what is missing is given up
    for ssrc in (1, 3):
        for sequence in range(1, 11):
            session.video(sequence, 1000 * ssrc + 33 * sequence, key=True, ssrc=ssrc)
    measured = session.receiver.measured()
    assert (measured["audio"].received, measured["audio"].lost) == (3, 2)
    assert (measured["video"].received, measured["video"].lost) == (20, 0)
    assert {(one.drift_ppm, one.av_offset_ns) for one in measured.values()} == {(None, None)}  # nobody has told anything


def test_the_measured_offset_is_what_the_reports_and_the_times_given_differ_by() -> None:
    session = Session()
    for ssrc, rtp_time in ((1, 3000), (2, 960)):  # of the same moment
        report = struct.pack("!BBHIQIII", 0x80, rtp.SR, 6, ssrc, 0xE0000000 << 32, rtp_time, 1, 2)
        session.receiver.control(report, ZERO)
    offsets = []
    for sequence in range(1, 100):
        session.audio(sequence, 80 + 20 * sequence)
        session.video(sequence, 367 + 33 * sequence, key=True)
        offset = session.receiver.measured()["video"].av_offset_ns
        if offset is not None:
            sound, picture = (next(f.time_ns for f in reversed(session.frames) if f.track.kind == kind) for kind in ("audio", "video"))
            apart = picture - sound - (sequence - 1) * (33_333_333 - 20 * MS)
            assert abs(offset - apart) < 8 * MS
            offsets.append(offset)
    assert offsets[0] > 100 * MS
    assert abs(offsets[-1]) < 8 * MS


def test_who_misses_a_packet_looks_again_soon_and_sooner_when_asking_for_it_was_in_vain() -> None:
    session = Session()
    session.video(1, 0, key=True)
    assert session.receiver.next_tick_seconds == math.inf
    session.video(3, 66)
    assert session.receiver.next_tick_seconds == REPAIR_SECONDS
    assert session.feedback(80) == ([2], 0)
    assert session.receiver.next_tick_seconds == REPAIR_SECONDS
    assert session.feedback(190) == ([2], 0)
    assert session.receiver.next_tick_seconds == URGENT_SECONDS
    session.video(2, 200)
    assert session.receiver.next_tick_seconds == math.inf


def test_a_short_patience_looks_again_in_proportion() -> None:
    session = Session(patience_ms=100)
    session.video(1, 0, key=True)
    session.video(3, 66)
    assert session.receiver.next_tick_seconds == pytest.approx(REPAIR_SECONDS / 5)


def test_picture_and_sound_under_one_ssrc() -> None:
    session = Session()
    for number in range(10):
        session.video(number, number * 33, key=not number)
        session.audio(number, number * 33, ssrc=1)
    assert [frame.track.kind for frame in session.frames] == ["video", "audio"] * 10
    assert (session.receiver.counters.unrouted, session.receiver.counters.streams) == (0, 2)
    session.video(10, 330, ssrc=5, key=True)  # the sender has noticed
    session.audio(10, 330, ssrc=1)
    session.video(11, 363, ssrc=5)
    assert [frame.track.kind for frame in session.frames[20:]] == ["video", "audio", "video"]
