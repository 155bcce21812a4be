"""Offline tools: from the lists and slices of a finished recording to files that any player takes.

`lists` finds what is there, `timeline` places it on the wall clock, `media` reads and writes it, `merge` and `convert` are the tools.
"""


class OfflineError(Exception):
    """What was asked for cannot be done; the message says why, and names every file or option that is wrong."""
