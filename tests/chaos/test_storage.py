"""The rows of the fault matrix about customers' stores."""

from pathlib import Path

import pytest

from tests import fault_store as faults
from tests.chaos import storage_rows as rows
from tests.chaos.storage_rows import Measured


@pytest.mark.row("S1", "S13", "S14", "S15", "S18")
@pytest.mark.parametrize("kills", [0, 1, 3])
@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
async def test_outage(tmp_path: Path, measured: Measured, kills: int, status: int, code: str) -> None:
    await rows.outage(tmp_path, measured, kills=kills, status=status, code=code)


REFUSALS = [
    (403, "AccessDenied"),
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (404, "NoSuchBucket"),
    (400, "ExpiredToken"),
    (400, "KMS.DisabledException"),
]


@pytest.mark.row("S2")
@pytest.mark.parametrize(("status", "code"), REFUSALS)
async def test_refused_at_start(tmp_path: Path, status: int, code: str) -> None:
    await rows.refused_at_start(tmp_path, status, code)


@pytest.mark.row("S3", "S17")
@pytest.mark.parametrize(("status", "code"), REFUSALS)
async def test_refused_midway(tmp_path: Path, status: int, code: str) -> None:
    await rows.refused_midway(tmp_path, status, code)


@pytest.mark.row("S4")
async def test_hanging(tmp_path: Path, measured: Measured) -> None:
    await rows.passing(tmp_path, measured, faults.hang(50), at_least=2)


@pytest.mark.row("S5")
@pytest.mark.parametrize("fault", [faults.reset_at_half, faults.reset_before_the_reply], ids=["half", "before the reply"])
async def test_reset(tmp_path: Path, measured: Measured, fault: faults.Fault) -> None:
    await rows.passing(tmp_path, measured, fault, seconds=3)


@pytest.mark.row("S6")
@pytest.mark.parametrize("fault", [faults.wrong_etag, faults.answers(400, "BadDigest")], ids=["etag", "digest"])
async def test_wrong_bytes(tmp_path: Path, measured: Measured, fault: faults.Fault) -> None:
    await rows.wrong_bytes(tmp_path, measured, fault)


@pytest.mark.row("S7")
async def test_error_in_a_good_answer(tmp_path: Path, measured: Measured) -> None:
    await rows.passing(tmp_path, measured, faults.ok_with_an_error, seconds=3)


@pytest.mark.row("S8")
@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (409, "FileImmutable")])
async def test_name_taken(tmp_path: Path, status: int, code: str) -> None:
    await rows.name_taken(tmp_path, status, code)


@pytest.mark.row("S8")
async def test_conflict(tmp_path: Path, measured: Measured) -> None:
    await rows.passing(tmp_path, measured, faults.answers(409, "OperationAborted"), seconds=3)


@pytest.mark.row("S9")
async def test_old_epoch(tmp_path: Path) -> None:
    await rows.old_epoch(tmp_path)


@pytest.mark.row("S10")
async def test_redirected(tmp_path: Path) -> None:
    await rows.redirected(tmp_path)


@pytest.mark.row("S11")
async def test_skewed_clock(tmp_path: Path, measured: Measured) -> None:
    await rows.passing(tmp_path, measured, faults.answers(403, "RequestTimeTooSkewed"), seconds=3)


@pytest.mark.row("S12")
async def test_unknown_name(tmp_path: Path) -> None:
    await rows.unknown_name(tmp_path)


@pytest.mark.row("S19")
async def test_address_inside(tmp_path: Path) -> None:
    await rows.address_inside(tmp_path)
