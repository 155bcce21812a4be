"""A short case of each row about people in a channel (N24–N26, N28–N30, N32, T5); `make chaos` runs all of them."""

from pathlib import Path

from tests.chaos import life_rows as rows


async def test_n24_coming_and_going(tmp_path: Path) -> None:
    await rows.coming_and_going(tmp_path, {}, seed=1, cycles=4)


async def test_n25_nobody_left(tmp_path: Path) -> None:
    await rows.nobody_left(tmp_path, {}, idle_seconds=5)


async def test_n26_nobody_sends(tmp_path: Path) -> None:
    await rows.nobody_sends(tmp_path, {})


async def test_n28_duplicate_identity(tmp_path: Path) -> None:
    await rows.duplicate_identity(tmp_path, {}, seconds=4)


async def test_n28_duplicate_before_media(tmp_path: Path) -> None:
    await rows.duplicate_before_media(tmp_path, {})


async def test_t5_idle_across_workers(tmp_path: Path) -> None:
    await rows.idle_across_workers(tmp_path, {}, idle_seconds=8, deaths=1)


async def test_n29_no_keyframe(tmp_path: Path) -> None:
    await rows.no_keyframe(tmp_path, {}, seconds=6)


async def test_n30_narrow_path(tmp_path: Path) -> None:
    await rows.narrow_path(tmp_path, {}, seconds=10)


async def test_n32_crowd(tmp_path: Path) -> None:
    await rows.crowd(tmp_path, {}, people=10)
