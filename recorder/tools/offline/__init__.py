"""Offline tools: from the lists and slices of a finished recording to files that any player takes.

`lists` finds what a folder holds, `timeline` places it, `media` reads it, `sound` and `pictures` copy or encode it, `output` writes
it. `merge`, `shots` and `convert` are the tools. Times are integer nanoseconds: of Unix time in lists, of the output elsewhere.
"""


class OfflineError(Exception):
    """What was asked for cannot be done; the message says why, and names every file or option that is wrong."""
