"""TLS, and the commands that change customers and apps beside a running control plane: real processes, real sockets."""

import asyncio
import contextlib
import json
import os
import sqlite3
import ssl
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import httpx
import pytest
from sqlalchemy import create_engine

import api as api_package
from api.accounts import Accounts
from api.audit import SERVICE
from api.auth import Gatekeeper
from api.digests import Digests
from api.masterkey import load_master_key
from api.store import open_store
from cli.demo.processes import free_ports, spawned, until_said
from tests.certificates import self_signed

QUOTAS = ("recordings", "streams", "pixels", "spool-megabytes", "callbacks")


@dataclass
class Running:
    data: Path
    url: str
    log: Path

    async def command(self, *argv: str, given: bytes = b"", good: bool = True) -> str:
        """What `cloud-recorder …` prints on stdout, or on stderr when it is to fail."""
        return await command(self.data, *argv, given=given, good=good)

    async def json(self, *argv: str) -> Any:
        return json.loads(await self.command(*argv, "--json"))


async def command(data: Path, *argv: str, given: bytes = b"", good: bool = True) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUD_RECORDER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", *argv),
        env=clean | {"CLOUD_RECORDER_DATA_DIR": str(data)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, errors = await process.communicate(given)
    assert (process.returncode == 0) == good, errors.decode()
    assert b"Traceback" not in errors
    return (output if good else errors).decode()


@contextlib.asynccontextmanager
async def api(folder: Path, **settings: object) -> AsyncIterator[Running]:
    data, log = folder / "data", folder / "api.log"
    port, probes = free_ports(2)
    values = {"DATA_DIR": data, "API__PORT": port, "API__PROBE_PORT": probes, **settings}
    environment = {f"CLOUD_RECORDER_{name}": str(value) for name, value in values.items()}
    async with spawned(log, "api", environment=environment) as process:
        await until_said(process, log, f":{port} (", "the API")
        scheme = "https" if "API__TLS_CERT" in settings else "http"
        yield Running(data, f"{scheme}://127.0.0.1:{port}", log)


def client(url: str, login: dict[str, str], **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, auth=(login["customer_id"], login["customer_secret"]), trust_env=False, **options)


async def status(http: httpx.AsyncClient) -> int:
    return (await http.get("/v1/ncs/ip")).status_code


# ---- TLS ---------------------------------------------------------------------------------------------------------


def peer(cert: Path, *, most: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> ssl.SSLContext:
    """A client that is content with the weakest."""
    context = ssl.create_default_context(cafile=str(cert))
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what the server must refuse is deprecated
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = most
    return context


@contextlib.asynccontextmanager
async def lenient(cert: Path, key: Path) -> AsyncIterator[int]:
    """A server that takes everybody; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def shakes_hands(port: int, context: ssl.SSLContext) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
    except (ssl.SSLError, ConnectionError):
        return False
    writer.close()
    return True


@pytest.mark.timeout(90)
async def test_the_api_over_tls(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    async with api(tmp_path, API__TLS_CERT=cert, API__TLS_KEY=key, API__HOST="0.0.0.0") as service:
        login = json.loads((service.data / "credentials.json").read_text())
        for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            async with client(service.url, login, verify=peer(cert, most=most)) as http:
                assert await status(http) == 200
        weak = [
            peer(cert, most=ssl.TLSVersion.TLSv1_1),
            peer(cert, most=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"),
            peer(cert, most=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0"),
        ]
        async with lenient(cert, key) as lenient_port:
            for context in weak:
                assert await shakes_hands(lenient_port, context)  # it is not the client that refuses
                assert not await shakes_hands(httpx.URL(service.url).port or 0, context)
        async with client(service.url, login) as http:  # nobody vouches for the certificate
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await status(http)
        async with client(service.url.replace("https", "http"), login) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await status(http)
        assert login["customer_secret"] not in service.log.read_text()


@pytest.mark.parametrize(("section", "words"), [("API", "api.tls_key"), ("HUB", "hub.tls_key")])
async def test_wrong_tls_ends_the_start_with_one_line(tmp_path: Path, section: str, words: str) -> None:
    cert, _ = self_signed(tmp_path)
    ports = free_ports(3)
    settings: dict[str, object] = {f"{section}__TLS_CERT": cert, f"{section}__TLS_KEY": tmp_path / "absent", "DATA_DIR": tmp_path / "data"}
    settings |= {"API__PORT": ports[0], "API__PROBE_PORT": ports[1], "HUB__PORT": ports[2]}
    environment = os.environ | {f"CLOUD_RECORDER_{name}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", "serve", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert words in errors.decode()
    assert len(errors.decode().splitlines()) == 1


# ---- guessing ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(90)
async def test_who_guesses_is_locked_out_and_nobody_else(tmp_path: Path) -> None:
    async with api(tmp_path) as service:
        login = json.loads((service.data / "credentials.json").read_text())
        right, wrong = (client(service.url, login | changed) for changed in ({}, {"customer_secret": "guess"}))
        async with right, wrong:
            assert await status(right) == 200

            async def behind_proxy(http: httpx.AsyncClient, address: str) -> int:
                return (await http.get("/v1/ncs/ip", headers={"X-Forwarded-For": address})).status_code

            assert [await behind_proxy(wrong, "198.51.100.7") for _ in range(11)] == [401] * 10 + [429]
            assert await behind_proxy(right, "198.51.100.7") == 429  # not even told that this one is right
            assert await behind_proxy(right, "203.0.113.9") == 429  # the id is held for those who never signed in
            assert await status(right) == 200
            assert [await status(wrong) for _ in range(11)] == [401] * 10 + [429]
            locked = await right.get("/v1/ncs/ip")
            assert (locked.status_code, locked.json()) == (429, {"message": "API rate limit exceeded"})
            assert 25 <= int(locked.headers["retry-after"]) <= 30


# ---- commands ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_rotation_beside_a_running_service(tmp_path: Path) -> None:
    async with api(tmp_path) as service:
        first = await service.json("customers", "create", "--name", "Ünïcode & Co.")
        app = (await service.json("apps", "create", first["customer_id"]))["app_id"]
        async with client(service.url, first) as old:
            answer = await old.post(f"/v1/apps/{app}/cloud_recording/acquire", json={"cname": "r", "uid": "7", "clientRequest": {}})
            assert answer.status_code == 200
            second = await service.json("customers", "rotate", first["customer_id"])
            async with client(service.url, second) as new:
                assert [await status(old), await status(new)] == [200, 200]
                await service.command("customers", "revoke", first["customer_id"], "--secret", first["secret_id"])
                assert [await status(old), await status(new)] == [401, 200]
                await service.command("apps", "set", app, "--max-recordings", "0")
                answer = await new.post(f"/v1/apps/{app}/cloud_recording/acquire", json={"cname": "r", "uid": "7", "clientRequest": {}})
                assert answer.json()["code"] == 406
                await service.command("apps", "remove", app)
                answer = await new.post(f"/v1/apps/{app}/cloud_recording/acquire", json={"cname": "r", "uid": "7", "clientRequest": {}})
                assert answer.json() == {"message": "appid is invalid"}
        (listed,) = [one for one in await service.json("customers", "list") if one["id"] == first["customer_id"]]
        assert listed["name"] == "Ünïcode & Co."
        assert [secret["id"] for secret in listed["secrets"]] == [second["secret_id"]]
        everything = service.log.read_text() + await service.command("customers", "list")
        everything += "".join(file.read_bytes().decode("latin-1") for file in service.data.glob("recorder.db*"))
        for secret in (first["customer_secret"], second["customer_secret"]):
            assert secret not in everything


@pytest.mark.timeout(120)
async def test_operators_have_credentials_of_their_own(tmp_path: Path) -> None:
    async with api(tmp_path) as service:
        made = await service.json("operators", "create")
        assert made.keys() == {"operator_id", "operator_secret", "secret_id"}
        listed = await service.json("operators", "list")
        assert [one["id"] for one in listed][1:] == [made["operator_id"]]
        assert listed[1].keys() == {"id", "name", "created_ms", "secrets"}
        async with client(service.url, {"customer_id": made["operator_id"], "customer_secret": made["operator_secret"]}) as http:
            assert await status(http) == 401
        await service.command("operators", "revoke", made["operator_id"], "--all")
        assert "cannot sign in" in await service.command("operators", "list")


@pytest.mark.timeout(120)
async def test_certificates_come_from_files_or_are_made(tmp_path: Path) -> None:
    async with api(tmp_path) as service:
        app = json.loads((service.data / "credentials.json").read_text())["app_id"]
        await service.command("apps", "set", app, "--certificate-file", "-", "--open-channels", given=b"canary-certificate-from-stdin\n")
        (listed,) = await service.json("apps", "list")
        assert (listed["certificate"], listed["open_channels"]) == (True, True)
        printed = await service.command("apps", "set", app, "--new-certificate", "--no-open-channels")
        made = printed.split()[1]
        assert len(made) == 32
        await service.command("apps", "set", app, "--no-certificate")
        (listed,) = await service.json("apps", "list")
        assert (listed["certificate"], listed["open_channels"]) == (False, False)
        kept = b"".join(file.read_bytes() for file in service.data.glob("recorder.db*"))
        assert b"canary" not in kept
        assert made.encode() not in kept


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("customers", "rotate", "nobody"), "there is no customer 'nobody'"),
        (("customers", "revoke", "nobody"), "name one secret (--secret ID) or --all"),
        (("customers", "set", "nobody"), "nothing to change"),
        (("customers", "set", "nobody", "--max-streams", "1"), "there is no customer 'nobody'"),
        *((("customers", "set", "nobody", f"--max-{what}", "-1"), "must be a number, or none") for what in QUOTAS),
        (("customers", "set", "nobody", "--max-spool-megabytes", "9" * 13), "must be a number, or none"),
        (("customers", "create", "--name", "x" * 65), "at most 64 characters"),
        (("customers", "create", "--name", "a\nb"), "control character"),
        (("apps", "create", "nobody"), "there is no customer 'nobody'"),
        (("apps", "create", "nobody", "--id", "a/b"), "the id of the app must have"),
        (("apps", "set", "none"), "nothing to change"),
        (("apps", "set", "none", "--open-channels"), "there is no app 'none'"),
        (("apps", "set", "none", "--new-certificate", "--no-certificate"), "exclude each other"),
        (("apps", "set", "none", "--certificate-file", "absent.txt"), "cannot be read"),
        (("apps", "remove", "none"), "there is no app 'none'"),
    ],
)
async def test_mistakes_are_named(deployment: Path, argv: tuple[str, ...], words: str) -> None:
    assert words in await command(deployment, *argv, good=False)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose service is not running."""
    data = tmp_path_factory.mktemp("deployment")

    async def make() -> None:
        load_master_key(data / "master.key")
        async with open_store(f"sqlite+aiosqlite:///{data / 'recorder.db'}"):
            pass

    asyncio.run(make())
    return data


async def test_quotas_are_set_one_by_one_and_cleared(deployment: Path) -> None:
    customer = json.loads(await command(deployment, "customers", "create", "--name", "ACME", "--json"))["customer_id"]

    async def told() -> dict[str, int | None]:
        (listed,) = [one for one in json.loads(await command(deployment, "customers", "list", "--json")) if one["id"] == customer]
        return {name: value for name, value in listed.items() if name.startswith("max_")}

    none = dict.fromkeys(("max_recordings", "max_streams", "max_pixels", "max_spool_bytes", "max_callbacks"))
    assert await told() == none
    most = "9" * 12
    await command(deployment, "customers", "set", customer, *(word for what in QUOTAS for word in (f"--max-{what}", most)))
    everything = {**dict.fromkeys(none, int(most)), "max_spool_bytes": int(most) << 20}
    assert await told() == everything
    await command(deployment, "customers", "set", customer, "--max-spool-megabytes", "5", "--max-streams", "none", "--max-pixels", "0")
    assert await told() == {**everything, "max_streams": None, "max_pixels": 0, "max_spool_bytes": 5 << 20}
    line = next(line for line in (await command(deployment, "customers", "list")).splitlines() if customer in line)
    assert line.endswith(f"ACME  at most {most} recordings, 0 pixels per second, 5 MB in the spool, {most} callbacks waiting")
    await command(deployment, "customers", "set", customer, *(word for what in QUOTAS for word in (f"--max-{what}", "none")))
    assert await told() == none


async def test_no_deployment_is_made_by_mistake(tmp_path: Path) -> None:
    said = await command(tmp_path / "elsewhere", "customers", "create", good=False)
    assert "no deployment here" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
async def test_the_data_of_another_user_is_left_alone(tmp_path: Path) -> None:
    load_master_key(tmp_path / "master.key")
    os.chown(tmp_path / "master.key", 12345, -1)
    assert "belongs to the user with id 12345" in await command(tmp_path, "customers", "list", good=False)
    assert [file.name for file in tmp_path.iterdir()] == ["master.key"]


# ---- the database of the version before --------------------------------------------------------------------------


async def test_customers_of_the_version_before_still_sign_in(tmp_path: Path) -> None:
    key, path = load_master_key(tmp_path / "master.key"), tmp_path / "recorder.db"
    migrated(path, "0001")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO customers VALUES ('me', ?, 7)", (Digests(key).of("customer", "me", "s" * 32).digest,))
        database.execute("INSERT INTO apps VALUES ('app', 'me', 7)")
        database.commit()
    async with open_store(f"sqlite+aiosqlite:///{path}") as store:
        keeper = Gatekeeper(store, key)
        assert await keeper.customer(httpx.BasicAuth("me", "s" * 32)._auth_header, "", "app") == "me"
        (app,) = await Accounts(store, key, by=SERVICE).list_apps()
        assert (app.certificate, app.open_channels, app.max_recordings) == (False, False, None)
    migrated(path, "0001")
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT * FROM customers").fetchall() == [("me", 7, Digests(key).of("customer", "me", "s" * 32).digest)]


def migrated(path: Path, revision: str) -> None:
    """Bring the database to this revision, up or down, with foreign keys kept as the service keeps them."""
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(api_package.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        config.attributes["connection"] = connection
        there = connection.dialect.has_table(connection, "alembic_version")
        (alembic.command.downgrade if there else alembic.command.upgrade)(config, revision)
    engine.dispose()
