"""Depacketisers of H.264, VP8 and sound against aiortc's packetisers and crafted payloads."""

import fractions

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.video.codeccontext import VideoCodecContext

from recorder.frames import Codec
from recorder.rtp.depacketisers import MAX_UNIT_BYTES, AccessUnit, Depacketiser, create


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


START = b"\x00\x00\x00\x01"
SPS = bytes.fromhex("6742c01fd9005005ba10000003001000000303c8f1832480")  # 1280x720, id 0
SMALL_SPS = bytes.fromhex("6742c01ed900a02ff9610000030001000003003c8f162e48")  # 640x360, id 0
PPS = bytes.fromhex("68cb83cb20")  # id 0, of sequence 0
IDR, P = b"\x65\x88\x84IDR", b"\x41\x9aP"  # macroblock 0, parameter set 0
SECOND_SLICE = b"\x41\x4c"  # macroblock 1


def test_h264_parameter_sets_go_in_front_of_every_keyframe() -> None:
    depacketiser = create("h264")
    assert _feed(depacketiser, [SPS, PPS], 1) == []
    (unit,) = _feed(depacketiser, [IDR], 2)
    assert unit == AccessUnit(2, START + SPS + START + PPS + START + IDR, keyframe=True, width=1280, height=720)
    (unit,) = _feed(depacketiser, [b"\x09\xf0", IDR], 3)
    assert unit.payload == START + b"\x09\xf0" + START + SPS + START + PPS + START + IDR
    (unit,) = _feed(depacketiser, [P], 4)
    assert unit == AccessUnit(4, START + P, keyframe=False)


def test_h264_parameter_sets_that_change_replace_those_of_the_same_id() -> None:
    depacketiser = create("h264")
    other_pps = bytes.fromhex("68eb83cb20")  # id 0 again, though its first byte differs
    other_id = bytes.fromhex("684b83cb20")  # id 1
    assert _feed(depacketiser, [SPS, PPS, other_id], 1) == []
    assert _feed(depacketiser, [SMALL_SPS, other_pps], 2) == []
    (unit,) = _feed(depacketiser, [IDR], 3)
    assert unit.payload == START + SMALL_SPS + START + other_pps + START + other_id + START + IDR
    assert (unit.width, unit.height) == (640, 360)
    (unit,) = _feed(depacketiser, [SPS, PPS, IDR], 4)
    assert (unit.width, unit.height) == (1280, 720)


def test_h264_parameter_sets_without_a_marker_are_kept() -> None:
    depacketiser = create("h264")
    assert depacketiser.push(SPS, timestamp=1, marker=False) is None
    assert depacketiser.push(PPS, timestamp=1, marker=False) is None
    (unit,) = _feed(depacketiser, [IDR], 2)
    assert unit.width == 1280


def test_h264_picture_whose_parameter_sets_were_lost_is_no_keyframe() -> None:
    """A decoder cannot begin with it: another one is asked for."""
    depacketiser = create("h264")
    (unit,) = _feed(depacketiser, [IDR], 1)
    assert not unit.keyframe
    assert _feed(depacketiser, [SPS], 2) == []
    (unit,) = _feed(depacketiser, [IDR], 3)
    assert not unit.keyframe
    (unit,) = _feed(depacketiser, [PPS, IDR], 4)
    assert unit.keyframe


def test_h264_stap_a_and_fragments() -> None:
    depacketiser = create("h264")
    stap = b"\x78" + b"\x00\x02\x09\xf0" + b"\x00\x03\x41\x9ab"
    (unit,) = _feed(depacketiser, [stap], 1)
    assert unit.payload == b"\x00\x00\x00\x01\x09\xf0\x00\x00\x00\x01\x41\x9ab"
    (unit,) = _feed(depacketiser, [b"\x7c\x81one", b"\x7c\x01two", b"\x7c\x41three"], 2)
    assert unit.payload == b"\x00\x00\x00\x01\x61onetwothree"


def test_h264_slices_whose_beginning_was_lost_are_no_picture() -> None:
    depacketiser = create("h264")
    (whole,) = _feed(depacketiser, [P, SECOND_SLICE], 1)
    assert whole.payload == START + P + START + SECOND_SLICE
    depacketiser.reset()
    assert _feed(depacketiser, [b"\x7c\x01middle", b"\x7c\x41end", SECOND_SLICE], 2) == []
    assert len(_feed(depacketiser, [P, SECOND_SLICE], 3)) == 1


BROKEN: dict[str, list[bytes]] = {
    "h264": [
        b"\x7c",
        b"\x7c\x81",
        b"\x78\x00\xff\x41",
        b"\x78\x00\x00",
        b"\x1d\x00",
        b"\x67\x42",
        b"\x68\x00",
        b"\x67" + bytes(5000),
        b"\x7c\x81start",
    ],
    "vp8": [b"\x80", b"\x90\x80\x80", b"\x90", b"\x10\x00abc"],
}


@pytest.mark.parametrize(("codec", "payload"), [(codec, payload) for codec, payloads in BROKEN.items() for payload in payloads])
def test_what_is_broken_is_an_error_and_the_next_picture_is_fine(codec: Codec, payload: bytes) -> None:
    depacketiser = create(codec)
    with pytest.raises(ValueError):
        _feed(depacketiser, [payload], 1)
    assert _feed(depacketiser, [P if codec == "h264" else b"\x10\x01rest"], 2)


def test_a_picture_whose_start_is_missing_is_left_out() -> None:
    vp8 = create("vp8")
    assert _feed(vp8, [b"\x00\x01middle", b"\x00end"], 1) == []  # joined in the middle of a picture
    assert _feed(vp8, [b"\x10\x01start"], 2)
    with pytest.raises(ValueError, match="start"):  # nothing was lost: the sender itself left it out
        vp8.push(b"\x00of another", timestamp=3, marker=False)
    assert _feed(vp8, [b"\x00\x01more", b"\x00end"], 3) == []
    vp8.reset()
    assert _feed(vp8, [b"\x00after a loss"], 4) == []
    assert _feed(vp8, [b"\x10\x01start"], 5)


VP8_KEYFRAME = b"\x10" + b"\x10\x02\x00\x9d\x01\x2a\x80\x02\x68\x01rest"


@pytest.mark.parametrize(
    ("codec", "delta", "rest", "keyframe"),
    [
        ("h264", P, b"\x41\x4c", b"\x78" + b"".join(len(nal).to_bytes(2, "big") + nal for nal in (SPS, PPS, IDR))),
        ("vp8", b"\x10\x01delta", b"\x00rest", VP8_KEYFRAME),
    ],
)
def test_a_picture_that_ends_early_is_told_unless_a_keyframe_heals_it(codec: Codec, delta: bytes, rest: bytes, keyframe: bytes) -> None:
    depacketiser = create(codec)
    assert depacketiser.push(delta, timestamp=1, marker=False) is None
    with pytest.raises(ValueError, match="end"):
        depacketiser.push(delta, timestamp=2, marker=False)
    (unit,) = _feed(depacketiser, [rest], 2)  # the error was about the one before
    assert unit.payload.count(b"\x41\x9aP" if codec == "h264" else b"delta") == 1
    assert depacketiser.push(delta, timestamp=3, marker=False) is None
    (unit,) = _feed(depacketiser, [keyframe], 4)
    assert unit.keyframe
    assert unit.width > 0


@pytest.mark.parametrize(
    ("codec", "start", "more"), [("h264", b"\x7c\x85", b"\x7c\x05"), ("h264", IDR, b"\x41"), ("vp8", b"\x10", b"\x00")]
)
def test_a_picture_without_an_end_is_given_up(codec: Codec, start: bytes, more: bytes) -> None:
    depacketiser = create(codec)
    filler = bytes(60_000)
    payloads = [start + filler, *[more + filler] * (MAX_UNIT_BYTES // len(filler) + 1)]
    with pytest.raises(ValueError, match="without an end"):
        _feed(depacketiser, payloads, 1)
    assert _feed(depacketiser, [P if codec == "h264" else b"\x10\x01rest"], 2)


@pytest.mark.parametrize("codec", ["opus", "pcmu", "pcma", "g722"])
def test_each_packet_of_sound_is_whole_and_empty_ones_are_ignored(codec: Codec) -> None:
    depacketiser = create(codec)
    assert depacketiser.push(b"", timestamp=1, marker=False) is None
    depacketiser.reset()
    assert depacketiser.push(b"\xfcsound", timestamp=2, marker=False) == AccessUnit(2, b"\xfcsound", keyframe=True)


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9", "av1"])
def test_empty_payloads_do_not_touch_a_picture(codec: Codec) -> None:
    halves = {
        "h264": (P, SECOND_SLICE),
        "vp8": (b"\x10\x01delta", b"\x00rest"),
        "vp9": (b"\x48\x86\x00\x40\x92rest", b"\x44more"),
        "av1": (b"\x50\x30\x32", b"\x90rest"),
    }[codec]
    depacketiser = create(codec)
    assert depacketiser.push(halves[0], timestamp=1, marker=False) is None
    for marker in (False, True):
        assert depacketiser.push(b"", timestamp=2, marker=marker) is None
    assert depacketiser.push(halves[1], timestamp=1, marker=True) is not None


OPUS_GOOD = [
    "08",  # discontinuous transmission
    "0800",
    "fc" + "11" * 1275,
    "f9" + "11" * 20,
    "fa" + "02" + "1122" + "33",
    "fa" + "fc01" + "11" * 256,
    "fb" + "03" + "11" * 9,  # three of equal size
    "fb" + "83" + "0102" + "11" + "2222" + "333333",
    "fb" + "43" + "02" + "11" * 9 + "0000",  # padding
    "fb" + "41" + "ff01" + "11" + "00" * 255,
    "e3" + "30",  # 48 of 2.5 ms, all empty
    "0b" + "06" + "11" * 6,  # six of 20 ms
]
OPUS_BAD = [
    "fc" + "11" * 1276,
    "f9" + "11" * 21,
    "fa",
    "fa" + "fc",
    "fa" + "03" + "1122",
    "fb",
    "fb" + "00",
    "fb" + "03" + "11" * 8,
    "0b" + "07" + "11" * 7,  # 140 ms
    "e3" + "31",  # 122.5 ms
    "fb" + "82" + "05" + "1111",
    "fb" + "43" + "ff",
    "fb" + "41" + "09" + "11" * 3,
    "fb" + "81" + "11" * 1276,
]


@pytest.mark.parametrize("packet", OPUS_GOOD)
def test_well_formed_opus_passes_as_it_is(packet: str) -> None:
    payload = bytes.fromhex(packet)
    assert create("opus").push(payload, timestamp=1, marker=False) == AccessUnit(1, payload, keyframe=True)


@pytest.mark.parametrize("packet", OPUS_BAD)
def test_malformed_opus_is_an_error(packet: str) -> None:
    with pytest.raises(ValueError):
        create("opus").push(bytes.fromhex(packet), timestamp=1, marker=False)
