"""Who the audit log says it was."""

import os
import pwd
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from api import audit
from api.audit import Action, Actor
from api.tables import Audit

ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODYS = 4_000_000_000  # a uid without a name


@pytest.mark.parametrize(
    ("login", "name"),
    [
        (None, ME),
        ("4294967295", ME),  # nobody has logged in
        ("", ME),
        ("0\n", pwd.getpwuid(0).pw_name),
        (str(pwd.getpwnam("nobody").pw_uid), "nobody"),
        (str(NOBODYS), str(NOBODYS)),
    ],
)
def test_who_runs_a_command(tmp_path: Path, login: str | None, name: str) -> None:
    path = tmp_path / "loginuid"
    if login is not None:
        path.write_text(login)
    assert audit.command_line(path) == Actor(f"cli:{name}")


async def test_what_a_proxy_passes_on_is_kept_short_and_plain() -> None:
    async with AsyncSession() as session:  # of no database
        audit.add(session, Actor("customer:a", "192.0.2.1\x1b[2J\u2028" + "x" * 100), Action.APP_SET, "a", at_ms=1)
        (row,) = session.new
    assert isinstance(row, Audit)
    assert row.address == ("192.0.2.1[2J" + "x" * 100)[:64]


def test_an_erased_sid_is_found_by_who_has_it() -> None:
    assert audit.erased("a" * 32) == audit.erased("a" * 32) != audit.erased("b" * 32)
    assert len(audit.erased("a" * 32)) <= 64
