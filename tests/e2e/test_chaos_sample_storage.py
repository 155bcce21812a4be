"""A short case of each row about customers' stores (S1–S20); `make chaos` runs all of them."""

from pathlib import Path

from tests import fault_store as faults
from tests.chaos import cloud_rows
from tests.chaos import storage_rows as rows


async def test_s1_s13_outage_through_the_end_and_a_killed_agent(tmp_path: Path) -> None:
    await rows.outage(tmp_path, {}, kills=1)


async def test_s2_refused_at_start(tmp_path: Path) -> None:
    await rows.refused_at_start(tmp_path, 403, "InvalidAccessKeyId")


async def test_s3_refused_midway(tmp_path: Path) -> None:
    await rows.refused_midway(tmp_path, 404, "NoSuchBucket")


async def test_s5_reset_before_the_reply(tmp_path: Path) -> None:
    await rows.passing(tmp_path, {}, faults.reset_before_the_reply)


async def test_s6_wrong_etag(tmp_path: Path) -> None:
    await rows.wrong_bytes(tmp_path, {}, faults.wrong_etag)


async def test_s7_ok_with_an_error(tmp_path: Path) -> None:
    await rows.passing(tmp_path, {}, faults.ok_with_an_error)


async def test_s8_name_taken(tmp_path: Path) -> None:
    await rows.name_taken(tmp_path, 412, "PreconditionFailed")


async def test_s9_old_epoch(tmp_path: Path) -> None:
    await rows.old_epoch(tmp_path)


async def test_s11_wrong_clock(tmp_path: Path) -> None:
    await cloud_rows.wrong_clock(tmp_path, {}, "oss", 2)


async def test_s16_left_open(tmp_path: Path) -> None:
    await cloud_rows.left_open(tmp_path, {}, "cos")


async def test_s20_signed_by_a_token_that_is_replaced(tmp_path: Path) -> None:
    await cloud_rows.new_token(tmp_path, "cos")


async def test_s10_redirected(tmp_path: Path) -> None:
    await rows.redirected(tmp_path)


async def test_s12_unknown_name(tmp_path: Path) -> None:
    await rows.unknown_name(tmp_path)


async def test_s19_address_inside(tmp_path: Path) -> None:
    await rows.address_inside(tmp_path)
