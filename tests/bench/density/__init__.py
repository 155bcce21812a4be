"""So many workers at once on two cores, each recording the same capture in real time; how many of its ticks were late.

    python -m tests.bench.density KIND COUNT SECONDS

A program of its own, because the workers' figures are the last lines of their logs.
"""

from tests.bench.composing import SMALL, Room

ROOMS = {"pictures": Room(9, SMALL, seconds=32), "voices": Room(3, SMALL, None, seconds=32)}
