"""Captures with known content and known faults, generated: nothing binary is stored.

    python -m tests.corpus OUT [NAME …]

A `Scenario` says who sends what and what the network does to it; `write` makes a capture of it. Everything but the encoding of
the media (kept in build/media) is pure and seeded: the same scenario gives the same bytes.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from recorder.frames import Kind
from recorder.rtp import rtpdump
from recorder.rtp.capture import DESCRIPTION, Capture, Description, Essentials, Happening, Session
from recorder.spec import Canvas, Layout, Mode
from tests.corpus_senders import DELAY_NS, ORIENTATION, REPEATS, ROUTES, SECOND, ZERO_UTC_NS, Network, Picture, Sender, received, sent_by

GOOD_NETWORK = Network()
CANVAS = Canvas(width=320, height=180, fps=30, bitrate_kbps=300)


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    rows: str  # of the fault table
    senders: tuple[Sender, ...] = (Sender(),)
    network: Network = GOOD_NETWORK
    seconds: float = 8.0
    canvas: Canvas = CANVAS
    layout: int = 1
    mode: Mode = "mix"
    looped: bool = False  # a whole number of the senders' own loops, so that it goes on with its beginning


SCENARIOS = (
    Scenario("clean", "N18"),
    Scenario("h264", "N18", (Sender(pictures=(Picture(codec="h264"),)),)),
    Scenario("loss_repaired", "N1", network=Network(loss=0.05, repaired=True)),
    Scenario("loss_burst_repaired", "N2", network=Network(loss=0.1, burst=6, repaired=True)),
    Scenario("loss", "N3", network=Network(loss=0.002, seed=7)),
    Scenario("loss_burst", "N3", network=Network(loss=0.03, burst=12, seed=7)),
    Scenario("reorder", "N5", network=Network(overtaken=0.1, jitter_ms=15)),
    Scenario("wrap", "N13", (Sender(first_sequence=0xFFFF - 60, first_timestamp=0xFFFFFFFF - 120_000),)),
    Scenario("jump_5_hours", "N14", (Sender(leap=(4.0, 5 * 3600)),)),
    Scenario("jump_1_tick_back", "N14", (Sender(back_at=4.0),)),
    Scenario("ssrc_change", "N15", (Sender(restarts=(3.0,)),)),
    Scenario("ssrc_collision", "N16", (Sender(one_ssrc=True),)),
    Scenario("ssrc_changes_often", "N16", (Sender(restarts=tuple(second / 2 for second in range(1, 16))),)),
    Scenario("resolution", "N17", (Sender(pictures=(Picture(), Picture(3.5, width=640, height=360), Picture(6.0, width=160, height=90))),)),
    Scenario(
        "resolution_often",
        "N17",
        (Sender(pictures=tuple(Picture(n / 5, width=320 * (1 + n % 2), height=180 * (1 + n % 2)) for n in range(40)), live=True),),
    ),
    Scenario(
        "aspect",
        "N18",
        (Sender(pictures=(Picture(), Picture(3.0, width=240, height=240), Picture(6.0, width=180, height=320))),),
        canvas=CANVAS.model_copy(update={"height": 320}),  # all of its shapes show their marks there
    ),
    Scenario("codec", "N17", (Sender(pictures=(Picture(), Picture(4.0, codec="h264"))),)),
    Scenario("rotation", "N18", (Sender(pictures=(Picture(), Picture(3.0, rotation=90), Picture(6.0, rotation=180))),)),
    Scenario("dtx", "N19", (Sender(silent=(2.5, 5.5)),)),
    Scenario("fec", "N20", (Sender(fec=True),)),
    Scenario("drift_fast", "N21", (Sender(audio_ppm=100, video_ppm=100, wall_ppm=100),)),
    Scenario("drift_apart", "N21", (Sender(audio_ppm=100, video_ppm=-100),)),
    Scenario("video_late", "N22", (Sender(video_delay_ms=80),)),
    Scenario("reports_missing", "N22", (Sender(reports="none"),)),
    Scenario("reports_wrong", "N22", (Sender(reports="wrong"),)),
    Scenario("reports_step", "T6", (Sender(reports="step"),)),
    Scenario("padding", "N23", (Sender(padding_every=0.37),)),
    Scenario("mute", "N24", (Sender(muted=(2.5, 5.0)),)),
    Scenario("join_leave", "N24", (Sender(), Sender(102, start=2.0, end=5.0))),
)


def nine(*, seconds: float = 32.0, people: int = 9, video: bool = True) -> Scenario:
    """What the benches play: so many participants of 360p15 with 500 kbit/s, in a loop."""
    pictures = (Picture(width=640, height=360),) if video else ()
    senders = tuple(Sender(101 + number, pictures, fps=15, bitrate_kbps=500) for number in range(people))
    canvas = Canvas(width=640, height=360, fps=15, bitrate_kbps=500)
    return Scenario("nine", "", senders, seconds=seconds, canvas=canvas, looped=True)


FOR_BENCHES = (nine(), replace(nine(people=17), name="seventeen"), replace(nine(people=3, video=False), name="three_speakers"))


def write(scenario: Scenario, folder: Path) -> Capture:
    """Make the capture of a scenario in a new folder."""
    folder.mkdir(parents=True)
    sessions: list[Session] = []
    happenings: list[Happening] = []
    for number, sender in enumerate(scenario.senders):
        tracks: list[Kind] = [*(["video"] if sender.pictures else []), *(["audio"] if sender.audio else [])]  # type: ignore[list-item]
        arrivals: list[rtpdump.Arrival] = []
        for kind in tracks:
            arrivals += received(list(sent_by(sender, kind, scenario.seconds)), scenario.network, 2 * number + (kind == "video"))
        arrivals.sort(key=lambda arrival: arrival.at_ns)
        end_ns = None if sender.end is None else round(sender.end * SECOND) + 2 * DELAY_NS
        session = Session(
            uid=sender.uid,
            file=f"{number + 1}-{sender.uid}.rtpdump",
            routes=ROUTES,
            retransmissions=REPEATS,
            orientation_id=ORIENTATION,
            ended_ns=end_ns,
        )
        sessions.append(session)
        happenings += _happenings(sender, tracks, end_ns)
        (folder / session.file).write_bytes(rtpdump.head(ZERO_UTC_NS) + b"".join(map(rtpdump.record, arrivals)))
    description = Description(
        zero_utc_ns=ZERO_UTC_NS,
        period_ns=round(scenario.seconds * SECOND) if scenario.looped else None,
        ended_ns=round(scenario.seconds * SECOND),
        recording=Essentials(mode=scenario.mode, canvas=scenario.canvas, layout=Layout(number=scenario.layout)),
        sessions=tuple(sessions),
        happenings=tuple(sorted(happenings, key=lambda happening: happening.at_ns)),
    )
    (folder / DESCRIPTION).write_text(description.model_dump_json(indent=1))
    return Capture(folder, description)


def _happenings(sender: Sender, tracks: list[Kind], end_ns: int | None) -> Iterator[Happening]:
    start_ns = round(sender.start * SECOND)
    yield Happening(at_ns=start_ns, what="joined", uid=sender.uid, host=True)
    for kind in tracks:
        yield Happening(at_ns=start_ns, what="started", uid=sender.uid, kind=kind)
        if sender.muted:
            yield Happening(at_ns=round(sender.muted[0] * SECOND) + DELAY_NS, what="stopped", uid=sender.uid, kind=kind)
            yield Happening(at_ns=round(sender.muted[1] * SECOND) + DELAY_NS, what="started", uid=sender.uid, kind=kind)
    if end_ns is not None:
        for kind in tracks:
            yield Happening(at_ns=end_ns, what="stopped", uid=sender.uid, kind=kind)
        yield Happening(at_ns=end_ns, what="left", uid=sender.uid)


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m tests.corpus OUT [NAME …]; names: " + ", ".join(s.name for s in (*SCENARIOS, *FOR_BENCHES)))
    known = {scenario.name: scenario for scenario in (*SCENARIOS, *FOR_BENCHES)}
    for name in sys.argv[2:] or [scenario.name for scenario in SCENARIOS]:
        if name not in known:
            sys.exit(f"no scenario is called {name}")
        print(write(known[name], Path(sys.argv[1]) / name).folder)


if __name__ == "__main__":
    main()
