"""Object keys. Hostile names never leave their prefix, in a bucket and in a folder."""

from collections.abc import Sequence


def object_key(prefix: Sequence[str], name: str) -> str:
    """`d1/d2/name`: each part keeps its characters but the ones that would make it something else than one part."""
    return "/".join(_part(part) for part in (*prefix, name))


def _part(text: str) -> str:
    clean = text.replace("/", "-").replace("\0", "-")
    if clean in ("", ".", ".."):  # a folder, or a step out of it
        return "-" * max(1, len(clean))
    return clean
