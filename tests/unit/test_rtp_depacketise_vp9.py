"""VP9 payloads (RFC 9628), byte by byte and through an encoder, our packetiser and a decoder."""

import pytest

from recorder.media.decode import VideoDecoder
from recorder.rtp.depacketisers import AccessUnit, Depacketiser, create
from recorder.tools.packetise import PAYLOAD_BYTES, Vp9Packetiser
from tests.coded import video_payloads

KEY_320X180 = b"\x82\x49\x83\x42\x00\x13\xf0\x0b\x30key"  # shown keyframe of profile 0, up to its size
KEY_640X360 = b"\x82\x49\x83\x42\x00\x27\xf0\x16\x70key"
DELTA = b"\x86\x00\x40\x92"  # refers to frames of the same size
SID_1_NEEDS_0 = 0x03


def bits(*fields: str) -> bytes:
    """An uncompressed header (VP9 bitstream specification, section 6.2) out of binary digits."""
    return int("".join(fields).ljust(160, "0"), 2).to_bytes(20, "big")


def push_all(depacketiser: Depacketiser, payloads: list[bytes], timestamp: int) -> list[AccessUnit]:
    units = (depacketiser.push(payload, timestamp=timestamp, marker=index == len(payloads) - 1) for index, payload in enumerate(payloads))
    return [unit for unit in units if unit]


@pytest.mark.parametrize(
    "descriptor",
    [
        "0c",  # nothing optional
        "8c11",  # short picture id
        "8c8111",  # long picture id
        "ac811100aa",  # layers, non-flexible: TL0PICIDX
        "bc811100",  # layers, flexible
        "8e8111" + "10" + "01400168",  # structure: one size of 320x360, wrong: the frame itself is right
        "8e8111" + "08" + "02" + "00" + "2401" + "",  # groups of pictures
        "8e8111" + "38" + "0140016802800168" + "01" + "0c010203",  # sizes of two layers, a group with three references
        "8e8111" + "00",
    ],
)
def test_descriptors_are_taken_off(descriptor: str) -> None:
    [unit] = push_all(create("vp9"), [bytes.fromhex(descriptor) + KEY_320X180], 1)
    assert unit == AccessUnit(1, KEY_320X180, keyframe=True, width=320, height=180)


@pytest.mark.parametrize("descriptor", ["dc8111" + "02", "dc8111" + "0304", "dc8111" + "030506", "fc8111" + "00" + "02", "ec81110055"])
def test_predicted_pictures_of_both_modes(descriptor: str) -> None:
    depacketiser = create("vp9")
    push_all(depacketiser, [b"\x0c" + KEY_320X180], 1)
    [unit] = push_all(depacketiser, [bytes.fromhex(descriptor) + DELTA], 2)
    assert unit == AccessUnit(2, DELTA, keyframe=False, width=320, height=180)


def test_layers_of_a_picture_are_one_superframe() -> None:
    depacketiser = create("vp9")
    base = [b"\xa8\x01\x00\x00" + KEY_320X180[:5], b"\xa4\x01\x00\x00" + KEY_320X180[5:]]
    [unit] = push_all(depacketiser, [*base, b"\x2c\x03\x00" + KEY_640X360], 7)
    index = b"\xc1" + bytes([len(KEY_320X180), len(KEY_640X360)]) + b"\xc1"
    assert unit == AccessUnit(7, KEY_320X180 + KEY_640X360 + index, keyframe=True, width=640, height=360)
    large = bytes(300)
    [unit] = push_all(depacketiser, [b"\x4c" + DELTA + large, b"\x4c" + DELTA], 8)
    assert unit.payload[-6:] == b"\xc9\x30\x01\x04\x00\xc9"
    assert not unit.keyframe


def test_layers_are_shown_by_a_decoder() -> None:
    low, high = (video_payloads("vp9", width, height, 2) for width, height in ((160, 90), (320, 180)))
    depacketiser, decoder = create("vp9"), VideoDecoder("vp9")
    [unit] = push_all(depacketiser, [b"\x2c\x00\x00" + low[0], b"\x2c\x02\x00" + high[0]], 1)
    assert unit.keyframe
    assert (unit.width, unit.height) == (320, 180)
    frame = decoder.decode(unit.payload, 5)[-1][0]
    alone = VideoDecoder("vp9").decode(high[0], 5)[0][0]
    assert (frame.to_ndarray() == alone.to_ndarray()).all()


def test_only_a_shown_intra_picture_of_the_base_layer_is_a_keyframe() -> None:
    depacketiser = create("vp9")
    [predicted] = push_all(depacketiser, [b"\x4c" + KEY_320X180], 1)
    assert not predicted.keyframe
    intra_only = bits("10000100100", f"{0x498342:024b}", "00000001", f"{159:016b}", f"{89:016b}")
    [unit] = push_all(depacketiser, [b"\x0c" + intra_only], 2)
    assert not unit.keyframe
    assert (unit.width, unit.height) == (160, 90)
    assert depacketiser.push(b"\x0c\x88", timestamp=3, marker=True) == AccessUnit(3, b"\x88", False, 160, 90)  # slot 0 shown again


def test_sizes_follow_references_and_resizing_between_keyframes() -> None:
    depacketiser = create("vp9")
    push_all(depacketiser, [b"\x0c" + KEY_320X180], 1)
    inter = "1000011000"  # shown, refers to three slots
    resized = bits(inter, "00000001", "000000100100", "000", f"{639:016b}", f"{359:016b}")  # into slot 0
    [unit] = push_all(depacketiser, [b"\x4c" + resized], 2)
    assert (unit.width, unit.height, unit.keyframe) == (640, 360, False)
    for slot, size in ((0, (640, 360)), (1, (320, 180))):
        as_its_reference = bits(inter, "00000000", f"{slot:03b}000100100", "1")
        [unit] = push_all(depacketiser, [b"\x4c" + as_its_reference], 3 + slot)
        assert (unit.width, unit.height) == size


@pytest.mark.parametrize(
    "payload",
    [
        b"\x0c",
        b"\x8c\x81",
        b"\xac\x81\x11\x00",
        b"\xdc\x81\x11\x03\x05\x07\x02data",  # four references
        b"\x8e\x81\x11\x38\x01",
        b"\x8e\x81\x11\x08\xff\x0c",
        b"\x08" + KEY_320X180,  # a marker inside a frame
        b"\x0c\x00data",  # not VP9
        b"\x0c\x82\x00\x00\x00\x00\x00",  # keyframe without its sync code
        b"\x0c\x82",
    ],
)
def test_what_is_broken_is_an_error_and_the_next_picture_is_fine(payload: bytes) -> None:
    depacketiser = create("vp9")
    with pytest.raises(ValueError, match=r"VP9|header"):
        push_all(depacketiser, [payload], 1)
    assert push_all(depacketiser, [b"\x0c" + KEY_320X180], 2)


def test_incomplete_pictures_are_dropped() -> None:
    depacketiser = create("vp9")
    assert push_all(depacketiser, [b"\x40middle", b"\x44end"], 1) == []  # joined in the middle of a picture
    assert push_all(depacketiser, [b"\x6c" + bytes([SID_1_NEEDS_0]) + b"\x00" + DELTA], 1) == []
    assert push_all(depacketiser, [b"\x0c" + KEY_320X180], 2)
    assert depacketiser.push(b"\x48" + DELTA, timestamp=3, marker=False) is None
    depacketiser.reset()
    assert push_all(depacketiser, [b"\x44end"], 3) == []
    # Nothing was lost, yet something is missing: the sender's fault is told.
    assert push_all(depacketiser, [b"\x4c" + DELTA], 4)
    for payloads in ([b"\x44end"], [b"\x6c\x03\x00" + DELTA], [b"\x48" + DELTA, b"\x4c" + DELTA], [b"\x4c" + DELTA] * 9):
        with pytest.raises(ValueError, match="VP9"):
            push_all(depacketiser, payloads, 5)
        assert push_all(depacketiser, [b"\x4c" + DELTA], 6)


def test_a_picture_that_ends_early_is_told_unless_a_keyframe_heals_it() -> None:
    depacketiser = create("vp9")
    assert depacketiser.push(b"\x48" + DELTA, timestamp=1, marker=False) is None
    with pytest.raises(ValueError, match="end"):
        depacketiser.push(b"\x48" + DELTA, timestamp=2, marker=False)
    [unit] = push_all(depacketiser, [b"\x44rest"], 2)
    assert unit.payload == DELTA + b"rest"
    assert depacketiser.push(b"\x48" + DELTA, timestamp=3, marker=False) is None
    [unit] = push_all(depacketiser, [b"\x0c" + KEY_640X360], 4)
    assert unit.keyframe


def test_a_picture_whose_upper_layers_were_left_out_is_whole() -> None:
    """Senders drop them when they have sent the lower ones already: no packet then bears the marker."""
    depacketiser = create("vp9")
    assert depacketiser.push(b"\x0c" + KEY_320X180, timestamp=1, marker=False) is None
    assert depacketiser.push(b"\x4c" + DELTA, timestamp=2, marker=True) == AccessUnit(1, KEY_320X180, True, 320, 180)
    assert depacketiser.push(b"\x48" + DELTA, timestamp=3, marker=False) == AccessUnit(2, DELTA, False, 320, 180)
    assert depacketiser.push(b"\x44rest", timestamp=3, marker=True) == AccessUnit(3, DELTA + b"rest", False, 320, 180)
    assert depacketiser.push(b"\x4c" + DELTA, timestamp=4, marker=True) == AccessUnit(4, DELTA, False, 320, 180)


def test_a_picture_without_an_end_is_given_up() -> None:
    depacketiser = create("vp9")
    payloads = [b"\x48" + DELTA, *[b"\x40" + bytes(60_000)] * 100]
    with pytest.raises(ValueError, match="without an end"):
        push_all(depacketiser, payloads, 1)
    assert push_all(depacketiser, [b"\x4c" + DELTA], 2)


@pytest.mark.parametrize("flexible", [False, True])
def test_round_trip_is_bit_equal(flexible: bool) -> None:
    packetiser, depacketiser = Vp9Packetiser(), create("vp9")
    decoder, reference = VideoDecoder("vp9"), VideoDecoder("vp9")
    packets = 0
    for number, data in enumerate(video_payloads("vp9", 322, 178, 6, noise=40)):
        payloads = packetiser.payloads(data)
        if flexible:  # predicted pictures name one reference behind their picture id
            payloads = [bytes([p[0] | 0x10]) + p[1:3] + (b"\x02" if p[0] & 0x40 else b"") + p[3:] for p in payloads]
        packets += len(payloads)
        assert max(map(len, payloads)) <= PAYLOAD_BYTES + 8
        [unit] = push_all(depacketiser, payloads, number)
        assert unit == AccessUnit(number, data, keyframe=number == 0, width=322, height=178)
        [(frame, _)], [(expected, _)] = decoder.decode(unit.payload, 0), reference.decode(data, 0)
        assert (frame.to_ndarray() == expected.to_ndarray()).all()
    assert packets > 20
