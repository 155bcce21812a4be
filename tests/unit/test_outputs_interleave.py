"""The order of sound and picture, and where files are cut."""

from recorder.outputs.interleave import Interleaver, MediaPacket

MS = 1_000_000


def seen(packets: list[MediaPacket]) -> list[tuple[str, int, bool]]:
    return [(packet.kind, packet.time_ns // MS, packet.cut) for packet in packets]


def test_time_orders_and_the_picture_comes_first() -> None:
    order = Interleaver(video=True, audio=True, limit_ns=1000 * MS)
    assert order.push("audio", b"", 0) == []
    assert seen(order.push("video", b"", 0)) == [("video", 0, True), ("audio", 0, False)]
    assert order.push("audio", b"", 21 * MS) == []
    assert order.push("audio", b"", 43 * MS) == []
    assert seen(order.push("video", b"", 33 * MS, keyframe=False)) == [("audio", 21, False), ("video", 33, False)]
    assert seen(order.flush()) == [("audio", 43, False)]
    assert order.flush() == []


def test_cuts_at_the_first_keyframe_past_the_limit() -> None:
    order = Interleaver(video=True, audio=False, limit_ns=100 * MS)
    assert order.cut_ns is None
    frames = [(0, False), (10, True), (50, True), (110, False), (120, True), (219, True), (220, True)]
    cuts = [time for time, keyframe in frames for packet in order.push("video", b"", time * MS, keyframe=keyframe) if packet.cut]
    assert cuts == [10, 120, 219]  # 219: within the rounding of a keyframe made for 220
    assert order.cut_ns == 319 * MS


def test_sound_alone_is_cut_everywhere() -> None:
    order = Interleaver(video=False, audio=True, limit_ns=40 * MS)
    packets = [packet for time in (0, 21, 43, 64, 85) for packet in order.push("audio", b"", time * MS)]
    assert [packet.time_ns // MS for packet in packets if packet.cut] == [0, 43, 85]


def test_a_stream_that_lags_or_never_comes_is_not_waited_for_longer_than_a_second() -> None:
    order = Interleaver(video=True, audio=True, limit_ns=1000 * MS)
    assert order.push("video", b"", 0) == []
    assert order.push("video", b"", 999 * MS) == []
    assert seen(order.push("video", b"", 1000 * MS)) == [("video", 0, True)]
    assert seen(order.push("audio", b"", 5 * MS)) == [("audio", 5, False)]  # late: at once
