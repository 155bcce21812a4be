"""A worker process that notes whose pictures it decodes: a line for each in `NOTES`, in the folder of all data."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from recorder.frames import Track
from recorder.settings import Settings
from recorder.worker.launch import Launch

NOTES: Final = "decoded.txt"
TARGET: Final = "tests.chaos.noting_worker:run"


def run(launch: Launch) -> None:
    from mixer.picture import Picture
    from recorder.worker import composite, main
    from recorder.worker.sight import Sight

    noted = set[int]()

    class NotingSight(Sight):
        def __init__(self, track: Track, request_keyframe: Callable[[Track], object]) -> None:
            super().__init__(track, request_keyframe)
            self._uid = track.uid

        def latest(self, until_ns: int) -> Picture | None:
            picture = super().latest(until_ns)
            if picture and self._uid not in noted:
                noted.add(self._uid)
                with _notes(launch.settings).open("a") as notes:
                    notes.write(f"{self._uid}\n")
            return picture

    composite.Sight = NotingSight  # type: ignore[attr-defined]  # in this process only
    main.run(launch)


def decoded(of: Settings) -> set[int]:
    """Whose pictures were, so far."""
    return {int(line) for line in _notes(of).read_text().splitlines()}


def _notes(of: Settings) -> Path:
    return of.data_dir / NOTES
