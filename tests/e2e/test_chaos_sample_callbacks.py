"""A short case of rows about callbacks (H1, H2, H4, H9) against the control plane's process; `make chaos` runs all of them.

H3, H5–H8 and H10 have their short cases in tests/integration/test_callbacks_*.py.
"""

from pathlib import Path

from tests.chaos import callback_rows as rows


async def test_h1_h2_misbehaving_receivers(tmp_path: Path) -> None:
    await rows.misbehaving(tmp_path, {}, ["500", "301 Location: /canary", "429 Retry-After: 1", "reset", "garbage"], times=1, seconds=2)


async def test_h4_killed_before_sending(tmp_path: Path) -> None:
    await rows.killed_before_sending(tmp_path, {})


async def test_h9_private_address(tmp_path: Path) -> None:
    await rows.private_address(tmp_path, {})
