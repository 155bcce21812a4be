"""Two senders whose clocks are wrong, for hours of virtual time: stream clocks, laying of sound and the mixer's clock, no codecs.

Every second picture and voice of a sender show one event. Errors are measured where a viewer sees them: where the sample went
that was captured at a moment, and the capture time given to a picture of the same moment.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from mixer.audio import AudioMixer
from mixer.audio import Sound as Samples
from recorder.media.resample import Stretcher
from recorder.media.timeline import SenderClock, StreamClock
from recorder.worker.laying import RATE_HZ, Layer

SECOND = 1_000_000_000
MS = 1_000_000
LATENCY_NS = 600 * MS
BLOCK = 1024
PULSE = 0.5
_WALL_NS = 1_900_000_000 * SECOND
_PULSE_SAMPLES = 24


@dataclass(frozen=True, slots=True)
class Habits:
    """A sender: how much its clocks are faster than ours, and how long its packets take at least."""

    wall_ppm: float
    card_ppm: float  # of the sound card, which counts the voice's timestamps
    voice_delay_ms: float
    picture_delay_ms: float


@dataclass(slots=True)
class Person:
    habits: Habits
    clocks: dict[str, StreamClock]
    layer: Layer = field(default_factory=lambda: Layer(1, 0))
    errors: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: {"voice": [], "picture": []})  # true time, ms too late
    samples: int = 0
    first_cuts: int = 0  # in the first ten seconds: the first packet of a voice may have been late
    pulses_ns: list[int] = field(default_factory=list)  # true times of what is to be heard

    def error_ms(self, kind: str, seconds: tuple[float, float]) -> npt.NDArray[np.float64]:
        first, end = (bisect_left(self.errors[kind], second * SECOND, key=lambda pair: pair[0]) for second in seconds)
        return np.array([late for _, late in self.errors[kind][first:end]])


@dataclass(slots=True)
class Room:
    people: list[Person]
    mixer: AudioMixer
    pulses: list[float] = field(default_factory=list)  # seconds in the mix where one begins


def simulate(
    habits: list[Habits], *, seconds: int, piece_ms: int, fps: int, jitter_ms: float, seed: int, is_mixed: Callable[[float], bool]
) -> Room:
    """`is_mixed` tells in which seconds samples are laid and mixed; in the others only their places are computed."""
    chance = np.random.default_rng(seed)
    people = []
    for one in habits:
        sender = SenderClock()
        people.append(Person(one, {"voice": StreamClock(RATE_HZ, sender), "picture": StreamClock(90_000, sender)}))
    room = Room(people, AudioMixer(channels=1))
    noise = chance.uniform(-0.05, 0.05, (1, RATE_HZ)).astype(np.float32)
    for number, kind, true_ns, arrival_ns in _arrivals(people, seconds, piece_ms, fps, jitter_ms, chance):
        person = people[number]
        _mix(room, arrival_ns - LATENCY_NS, is_mixed)
        ppm = person.habits.card_ppm if kind == "voice" else person.habits.wall_ppm
        rate = RATE_HZ if kind == "voice" else 90_000
        # Both clocks wrap within the first hour.
        timestamp = (0xFFFFFFFF - 1800 * rate + round(true_ns * (1 + ppm / 1e6) * rate / SECOND)) & 0xFFFFFFFF
        clock = person.clocks[kind]
        time_ns = clock.capture_ns(timestamp, arrival_ns)
        if kind == "picture":
            person.errors[kind].append((true_ns, (time_ns - true_ns) / MS))
        else:
            _lay(room, number, true_ns, time_ns, piece_ms * RATE_HZ // 1000, noise if is_mixed(true_ns / SECOND) else None)
        if chance.random() < (1 / fps if kind == "picture" else piece_ms / 5000):  # as browsers do: each second, every five
            wrong_ns = round(chance.normal(0, 3 * MS))
            clock.report(timestamp, _WALL_NS + round(true_ns * (1 + person.habits.wall_ppm / 1e6)) + wrong_ns)
    return room


def judge(room: Room, seconds: int, *, between_ms: float) -> None:
    """At the end lips are on voices and senders together, nothing was cut, and as many samples are there as time has passed."""
    last = (seconds - 60, seconds)
    for person in room.people:
        voice, picture = person.error_ms("voice", last), person.error_ms("picture", last)
        assert len(voice) > 0
        assert abs(np.median(picture) - np.median(voice)) < 8
        assert np.ptp(voice) < 12
        assert np.ptp(picture) < 12
        # The same in what was mixed: every pulse is where its picture is.
        heard = [time for time in person.pulses_ns if seconds - 30 <= time / SECOND < seconds - 5]
        assert len(heard) >= 24
        wrong = [min(abs(pulse * 1000 - time / MS - np.median(picture)) for pulse in room.pulses) for time in heard]
        assert max(wrong) < 10
        # From the first seconds on, and in every minute between.
        for minute in range(5, seconds - 60, 600):
            part = (minute, minute + 20)
            assert abs(np.median(person.error_ms("picture", part)) - np.median(person.error_ms("voice", part))) < 12
        assert person.layer.places.cuts == person.first_cuts <= 2
        assert all(clock.jumps == 0 for clock in person.clocks.values())
        assert person.clocks["picture"].drift_ppm == pytest.approx(person.habits.wall_ppm, abs=15)
        assert person.clocks["voice"].drift_ppm == pytest.approx(person.habits.card_ppm, abs=15)
        # The number of samples is that of the time that passed for us, not for the sender.
        end = person.layer.places.next
        assert end is not None
        assert abs(end - (seconds + voice[-1] / 1000) * RATE_HZ) < 0.1 * RATE_HZ
        assert abs(person.samples - end - seconds * RATE_HZ * person.habits.card_ppm / 1e6) < 0.1 * RATE_HZ
    first, second = (np.median(person.error_ms("voice", last)) for person in room.people)
    assert abs(first - second) < between_ms
    assert (room.mixer.late, room.mixer.early) == (0, 0)


def _arrivals(
    people: list[Person], seconds: int, piece_ms: int, fps: int, jitter_ms: float, chance: np.random.Generator
) -> Iterator[tuple[int, str, int, int]]:
    """Person, kind, true capture time and arrival of every packet, by arrival, a minute at a time."""
    left: list[tuple[int, int, str, int]] = []
    newest = dict.fromkeys(((number, kind) for number in range(len(people)) for kind in ("voice", "picture")), 0)
    for minute in range(0, seconds, 60):
        for number, person in enumerate(people):
            one = person.habits
            piece_ns = piece_ms * MS / (1 + one.card_ppm / 1e6)  # of true time
            for kind, step_ns, delay_ms in (("voice", piece_ns, one.voice_delay_ms), ("picture", SECOND / fps, one.picture_delay_ms)):
                first, end = (int(np.ceil(min(second, seconds) * SECOND / step_ns)) for second in (minute, minute + 60))
                true = np.round(np.arange(first, end) * step_ns).astype(np.int64)
                delays = (delay_ms + np.minimum(chance.exponential(jitter_ms, len(true)), 10 * jitter_ms)) * MS
                arrivals = np.maximum.accumulate(np.maximum(true + delays.astype(np.int64), newest[number, kind]))  # the buffer sorts
                newest[number, kind] = int(arrivals[-1])
                left += zip(arrivals.tolist(), [number] * len(true), [kind] * len(true), true.tolist(), strict=True)
        left.sort()
        ready = [item for item in left if item[0] < (minute + 60) * SECOND]
        left = left[len(ready) :]
        for arrival_ns, number, kind, true_ns in ready:
            yield number, kind, true_ns, arrival_ns
    for arrival_ns, number, kind, true_ns in left:
        yield number, kind, true_ns, arrival_ns


def _lay(room: Room, number: int, true_ns: int, time_ns: int, count: int, noise: Samples | None) -> None:
    person = room.people[number]
    layer = person.layer
    if noise is None:
        start = layer.places.place(count, time_ns, lambda: False).start
    else:
        samples = noise[:, :count]
        index = person.samples // count
        if index % (RATE_HZ // count) == number * (RATE_HZ // count) // 2:
            samples = samples.copy()
            samples[:, :_PULSE_SAMPLES] = PULSE
            person.pulses_ns.append(true_ns)
        before = layer.places.next
        for chunk in layer.lay([(samples, time_ns)]):
            room.mixer.write(number, chunk.start, chunk.samples)
        start = before if before is not None else time_ns * RATE_HZ // SECOND - Stretcher.DELAY
    person.samples += count
    if true_ns < 10 * SECOND:
        person.first_cuts = layer.places.cuts
    person.errors["voice"].append((true_ns, (start + Stretcher.DELAY) * 1000 / RATE_HZ - true_ns / MS))


def _mix(room: Room, until_ns: int, is_mixed: Callable[[float], bool]) -> None:
    mixer = room.mixer
    while (mixer.position + BLOCK) * SECOND // RATE_HZ <= until_ns:
        seconds = mixer.position / RATE_HZ
        if not is_mixed(seconds):
            mixer.position += BLOCK
            continue
        for number, person in enumerate(room.people):
            for chunk in person.layer.release(mixer.position + BLOCK):
                mixer.write(number, chunk.start, chunk.samples)
        loud = np.flatnonzero(mixer.read(BLOCK)[0] > 0.3)
        if len(loud) and (not room.pulses or seconds + loud[0] / RATE_HZ - room.pulses[-1] > 0.1):
            room.pulses.append(seconds + float(loud[0]) / RATE_HZ)
