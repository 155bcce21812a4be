"""`cloud-recorder keys` beside a running control plane: real processes."""

import asyncio
import json
from pathlib import Path

import pytest

from api.masterkey import read
from tests.integration.test_tenants_command import api, client, command, status
from tests.rotation import make_old


@pytest.mark.timeout(120)
async def test_rotation_and_drop_beside_a_running_service(tmp_path: Path) -> None:
    async with api(tmp_path) as service:
        login = json.loads((service.data / "credentials.json").read_text())
        (old,) = read(service.data / "master.key").secrets
        await service.command("apps", "set", login["app_id"], "--certificate-file", "-", given=b"canary-certificate-of-keys\n")
        other = await service.json("customers", "create")
        async with client(service.url, login) as http, client(service.url, other) as late:
            done = await service.json("keys", "rotate")
            assert (done["sealed"]["certificates of apps"], done["digests"]) == (1, 2)
            assert (await service.json("keys", "list"))["keys"][0]["id"] == done["current"]
            assert await status(http) == 200
            answer = await service.command("keys", "drop", good=False)
            assert "1 secret of customers not used since the rotation" in answer
            assert len(answer.splitlines()) == 1
            assert len((await http.get("/v1/ext/keys")).json()["keys"]) == 2
            assert await status(late) == 200  # which is when its digest is made again
            async with asyncio.timeout(20):
                while any("secret" in one for one in (await service.json("keys", "list"))["left"]):
                    pass
            make_old(service.data / "master.key")
            assert "dropped: " in await service.command("keys", "drop")
            assert [await status(http), await status(late)] == [200, 200]
            assert len((await http.get("/v1/ext/keys")).json()["keys"]) == 2
        (new,) = read(service.data / "master.key").secrets
        everything = service.log.read_text() + json.dumps(done) + answer + await service.command("keys", "list")
        assert old.hex() not in everything + (service.data / "master.key").read_text()
        assert new.hex() not in everything
        assert (service.data / "master.key").stat().st_mode & 0o777 == 0o600


async def test_mistakes_are_named(tmp_path: Path) -> None:
    assert "no deployment here" in await command(tmp_path / "elsewhere", "keys", "rotate", good=False)
    (tmp_path / "master.key").touch(0o600)
    (tmp_path / "master.key").write_text("canary")
    said = await command(tmp_path, "keys", "list", good=False)
    assert "line 1 must hold" in said
    assert "canary" not in said
    (tmp_path / "master.key").write_text("00" * 32)
    assert "there is no key 'x'" in await command(tmp_path, "keys", "rotate", "--to", "x", good=False)
    assert await command(tmp_path, "keys", "drop") == "dropped: none, there is one key only\n"
