"""Depacketisers against aiortc's packetisers and crafted payloads."""

import fractions

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.video.codeccontext import VideoCodecContext
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.frames import Codec
from recorder.rtp.depacketisers import AccessUnit, Depacketiser, create


def _frames(count: int, width: int, height: int) -> list[av.VideoFrame]:
    chance = np.random.default_rng(1)
    frames = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(chance.integers(0, 255, (height * 3 // 2, width), dtype=np.uint8), format="yuv420p")
        frame.pts, frame.time_base = number * 3000, fractions.Fraction(1, 90000)
        frames.append(frame)
    return frames


def _feed(depacketiser: Depacketiser, payloads: list[bytes], timestamp: int) -> list[AccessUnit]:
    units = []
    for index, payload in enumerate(payloads):
        unit = depacketiser.push(payload, timestamp=timestamp, marker=index == len(payloads) - 1)
        if unit:
            units.append(unit)
    return units


def _decode(codec: str, units: list[AccessUnit]) -> list[tuple[int, int]]:
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, VideoCodecContext)
    pictures = []
    for unit in units:
        pictures += decoder.decode(av.Packet(unit.payload))
    pictures += decoder.decode(None)
    return [(p.width, p.height) for p in pictures]


@pytest.mark.parametrize(("codec", "encoder"), [("h264", H264Encoder), ("vp8", Vp8Encoder)])
def test_pictures_of_many_packets_come_back_whole(codec: Codec, encoder: type[H264Encoder] | type[Vp8Encoder]) -> None:
    sender, depacketiser = encoder(), create(codec)
    units = []
    packets = 0
    for number, frame in enumerate(_frames(8, 322, 178)):
        payloads, timestamp = sender.encode(frame, force_keyframe=number == 5)
        packets += len(payloads)
        units += _feed(depacketiser, payloads, timestamp & 0xFFFFFFFF)
    assert packets > 3 * 8
    assert [unit.keyframe for unit in units] == [True, False, False, False, False, True, False, False]
    assert (units[0].width, units[0].height) == (322, 178)
    assert _decode(codec, units) == [(322, 178)] * 8


def test_h264_parameter_sets_go_in_front_of_every_keyframe() -> None:
    depacketiser = create("h264")
    sps = bytes.fromhex("6742c01fda0140169b8080a00000030020000007951e30654000")[:-1]
    pps = bytes.fromhex("68ce3c80")
    assert _feed(depacketiser, [sps, pps], 1) == []
    (unit,) = _feed(depacketiser, [b"\x65IDR"], 2)
    start = b"\x00\x00\x00\x01"
    assert unit.payload == start + sps + start + pps + start + b"\x65IDR"
    assert unit.width > 0
    (unit,) = _feed(depacketiser, [b"\x41P"], 3)
    assert not unit.keyframe
    assert unit.payload == start + b"\x41P"


def test_h264_stap_a_and_fragments() -> None:
    depacketiser = create("h264")
    stap = b"\x78" + b"\x00\x02\x09\xf0" + b"\x00\x03\x41ab"
    (unit,) = _feed(depacketiser, [stap], 1)
    assert unit.payload == b"\x00\x00\x00\x01\x09\xf0\x00\x00\x00\x01\x41ab"
    (unit,) = _feed(depacketiser, [b"\x7c\x81one", b"\x7c\x01two", b"\x7c\x41three"], 2)
    assert unit.payload == b"\x00\x00\x00\x01\x61onetwothree"


def test_what_is_broken_is_an_error_and_the_next_picture_is_fine() -> None:
    h264, vp8 = create("h264"), create("vp8")
    for payload in (b"\x7c", b"\x7c\x01middle", b"\x78\x00\xff\x41", b"\x1d\x00", b"\x67\x42"):
        with pytest.raises(ValueError):
            for _ in _feed(h264, [payload], 1):
                pass
    assert _feed(h264, [b"\x41P"], 2)
    for payload in (b"\x80", b"\x90\x80\x80", b"\x10\x00abc"):
        with pytest.raises(ValueError):
            _feed(vp8, [payload], 1)
    assert _feed(vp8, [b"\x10\x01rest"], 2)


def test_a_picture_whose_start_is_missing_is_left_out() -> None:
    vp8 = create("vp8")
    assert _feed(vp8, [b"\x00\x01middle", b"\x00end"], 1) == []
    vp8.push(b"\x10\x01start", timestamp=2, marker=False)
    assert _feed(vp8, [b"\x00of another"], 3) == []


def test_empty_opus_packets_are_dropped() -> None:
    opus = create("opus")
    assert opus.push(b"", timestamp=1, marker=False) is None
    assert opus.push(b"\xfcsound", timestamp=2, marker=False) == AccessUnit(2, b"\xfcsound", keyframe=True)


@pytest.mark.parametrize("codec", ["h264", "vp8", "opus"])
@settings(max_examples=300)
@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 3), st.booleans()), max_size=12))
def test_nothing_but_value_errors(codec: Codec, packets: list[tuple[bytes, int, bool]]) -> None:
    depacketiser = create(codec)
    for payload, timestamp, marker in packets:
        try:
            unit = depacketiser.push(payload, timestamp=timestamp, marker=marker)
        except ValueError:
            continue
        assert unit is None or unit.payload
