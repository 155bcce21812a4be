"""Rows M1-M4: hostile packets, bitstreams, pictures and floods, in greater numbers than `make test` has time for."""

import multiprocessing
import random

import pytest

from recorder.frames import Codec
from recorder.media.decode import AudioDecoder, VideoDecoder
from tests.chaos.life_rows import Measured
from tests.coded import video_payloads
from tests.good_streams import good_streams
from tests.hostile import Attack
from tests.integration import test_rtp_giants as giants
from tests.integration import test_rtp_hostile as sockets

_VIDEO: tuple[Codec, ...] = ("vp8", "vp9", "h264", "av1")


@pytest.mark.row("M1")
@pytest.mark.parametrize("seed", range(10))
def test_mutated_packets(measured: Measured, seed: int) -> None:
    attack = Attack(good_streams(), seed)
    attack.run(50_000)
    attack.check()
    measured |= attack.receiver.figures()


@pytest.mark.row("M1")
async def test_hostile_datagrams(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    await sockets.test_hostile_datagrams_do_not_disturb_the_media(caplog)
    await sockets.test_hostile_datagrams_do_not_disturb_the_handshake(monkeypatch)


@pytest.mark.row("M2")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("codec", _VIDEO)
def test_mutated_bitstreams(measured: Measured, codec: Codec, seed: int) -> None:
    """In a process of its own: what a decoder's death costs is another row's (W6)."""
    good = video_payloads(codec, 160, 90, 8, noise=24)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        decoded, errors = pool.apply_async(_decode_broken, (codec, good, seed)).get(120)
    measured |= {"decoded": decoded, "errors": errors}
    assert errors


def _decode_broken(codec: Codec, good: list[bytes], seed: int) -> tuple[int, int]:
    dice = random.Random(seed)
    decoded = errors = 0
    for _ in range(100):
        decoder = VideoDecoder(codec)  # type: ignore[arg-type]  # a video codec
        for number, data in enumerate(good):
            broken = bytearray(data)
            for _ in range(dice.choice((0, 1, 3, 20))):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            decoded += len(decoder.decode(bytes(broken[: dice.randrange(1, len(broken) + 1)]), number))
        errors += decoder.errors
    sound = AudioDecoder("opus", 1)
    for number in range(5000):
        decoded += len(sound.decode(dice.randbytes(dice.randrange(1, 200)), number * 20_000_000))
    return decoded, errors + sound.errors


@pytest.mark.row("M3")
@pytest.mark.parametrize("codec", _VIDEO)
def test_giants(codec: Codec) -> None:
    giants.test_a_giant_never_reaches_a_decoder(codec)
    giants.test_a_decoder_refuses_a_giant_by_itself(codec)


@pytest.mark.row("M4")
async def test_floods(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets.test_a_flood_of_streams_and_packets_leaves_the_memory_flat()
    await sockets.test_a_flood_of_one_sender_does_not_starve_another(monkeypatch)
