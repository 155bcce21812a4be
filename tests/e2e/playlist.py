"""Reading a stored recording as a customer does: playlist first, then what it names."""

from pathlib import Path
from urllib.parse import unquote


def entries(playlist: Path) -> list[Path]:
    """The slices of a closed playlist, in order."""
    lines = playlist.read_text().splitlines()
    assert lines[0] == "#EXTM3U"
    assert lines[-1] == "#EXT-X-ENDLIST"
    return [playlist.with_name(unquote(line)) for line in lines if line and not line.startswith("#")]


def joined(playlist: Path, target: Path) -> Path:
    """All slices of a closed playlist as one file."""
    target.write_bytes(b"".join(path.read_bytes() for path in entries(playlist)))
    return target
