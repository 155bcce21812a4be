"""Rows of the fault matrix about callbacks: a real control plane, scripted nodes, a receiver that misbehaves as told."""

import asyncio
import contextlib
import itertools
import json
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import insert, select, update
from standardwebhooks import Webhook

from api.accounts import Accounts, open_deployment, unix_ms
from api.audit import SERVICE
from api.hosts import OPEN_SECONDS, Hosts
from api.store import Store
from api.tables import Endpoint, Notice
from cli.demo.processes import free_ports, spawned
from recorder.protocol import Ended, Finished, PhaseChanged, StreamChanged, UploaderStarted
from recorder.settings import Api, Callbacks, Settings
from recorder.tools.api_client import Credentials
from tests.certificates import self_signed
from tests.contract.conftest import Caller
from tests.contract.fake_agent import START_MS, FakeAgent, connected
from tests.notices import LOOPBACK, Clock, office
from tests.receiver import HOSTS, Received, Receiver, receiver

Measured = dict[str, Any]

WHOLE: Final = [30, 40, 43, 43, 41, 33, 31, 11]  # what a recording of `Plane.record` tells
_ROOMS: Final = itertools.count()
_LEASE_SECONDS: Final = 20
_TOLERANCE_SECONDS: Final = 300  # of receivers
_OTHERS_WAIT: Final = 5.0  # seconds, at most, for receivers that answer: those that hang take 10


@dataclass
class Plane:
    """`cloud-recorder api`, however often it is started, and a node that records nothing and tells of recordings."""

    settings: Settings
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    starts: int = 0
    process: asyncio.subprocess.Process = field(init=False)
    node: FakeAgent = field(init=False)
    store: Store = field(init=False)
    accounts: Accounts = field(init=False)
    http: httpx.AsyncClient = field(init=False)
    live: set[str] = field(default_factory=set)
    secrets: dict[str, str] = field(default_factory=dict)  # of apps

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.settings.data_dir.mkdir(exist_ok=True)
        callbacks, former = self.settings.callbacks, getattr(self, "node", None)
        own = {
            "DATA_DIR": str(self.settings.data_dir),
            "API__PORT": str(self.ports[0]),
            "API__PROBE_PORT": str(self.ports[1]),
            "API__REQUESTS_PER_SECOND": str(self.settings.api.requests_per_second),
            "CALLBACKS__ALLOW_HTTP": "true",
            "CALLBACKS__ALLOWED_NETWORKS": json.dumps([str(network) for network in callbacks.allowed_networks]),
            "CALLBACKS__RETRIES": callbacks.retries,
            **({"CALLBACKS__AUTHORITIES": str(callbacks.authorities)} if callbacks.authorities else {}),
        }
        self.starts += 1
        log = self.settings.data_dir / f"api-{self.starts}.log"
        async with spawned(log, "api", environment={f"CLOUD_RECORDER_{name}": value for name, value in own.items()}) as self.process:
            async with asyncio.timeout(40):
                while not await self._answers():
                    assert self.process.returncode is None, log.read_text()
                    await asyncio.sleep(0.05)
            credentials = Credentials.read(self.settings.credentials_file)
            auth = (credentials.customer_id, credentials.customer_secret.get_secret_value())
            async with (
                open_deployment(self.settings) as (self.store, key),
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.ports[0]}", auth=auth, trust_env=False, timeout=30) as self.http,
                connected(self.settings.control_socket, live=tuple(self.live)) as self.node,
            ):
                if former:
                    self.node.continue_from(former)
                self.accounts = Accounts(self.store, key, by=SERVICE)
                yield
        for secret in self.secrets.values():
            assert secret not in log.read_text(errors="replace")

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def app(self, url: str) -> str:
        """An app whose notices go there."""
        app_id = await self.accounts.create_app(Credentials.read(self.settings.credentials_file).customer_id)
        self.secrets[app_id] = (await self.put(app_id, url)).json()["secret"]
        return app_id

    async def put(self, app_id: str, url: str) -> httpx.Response:
        return await self.http.put(f"/v1/ext/apps/{app_id}/callbacks", json={"url": url})

    async def post(self, app_id: str, call: str, **body: object) -> dict[str, Any]:
        answer = await self.http.post(f"/v1/ext/apps/{app_id}/callbacks/{call}", json=body)
        assert answer.status_code == httpx.codes.OK, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def begin(self, app_id: str) -> str:
        """The sid of a new recording, of which two events are told."""
        task = await Caller(self.http, app_id, cname=f"room {next(_ROOMS)}").started("mix")
        async with asyncio.timeout(5):
            while task.sid not in self.node.claimed:
                await asyncio.sleep(0.01)
        self.live.add(task.sid)
        await self.node.emit(task.sid, UploaderStarted(), PhaseChanged(phase="starting"), PhaseChanged(phase="ready"))
        return task.sid

    async def stream(self, sid: str, times: int = 1) -> None:
        """So many events; each is committed when this returns."""
        for number in range(times):
            await self.node.emit(sid, StreamChanged(epoch=1, uid=5, kind="audio", receiving=number % 2 == 0, at_ms=START_MS))

    async def end(self, sid: str) -> None:
        await self.node.emit(sid, PhaseChanged(phase="stopping"), Ended(outcome="complete", reason="stopped"))
        await self.node.emit(sid, Finished(outcome="complete", reason="stopped", uploading="uploaded"))
        self.live.discard(sid)

    async def record(self, app_id: str) -> str:
        """A whole recording: it tells `WHOLE`."""
        sid = await self.begin(app_id)
        await self.stream(sid, 2)
        await self.end(sid)
        return sid

    async def notices(self, app_id: str, *states: str) -> list[Notice]:
        wanted = select(Notice).where(Notice.app_id == app_id, *((Notice.state.in_(states),) if states else ()))
        async with self.store.read() as session:
            return list((await session.scalars(wanted.order_by(Notice.sid, Notice.sequence))).all())

    async def until_none_waits(self, apps: Collection[str], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while [app for app in apps if await self.notices(app, "waiting")]:
                await asyncio.sleep(0.1)

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient(trust_env=False) as client:
            lines = (await client.get(f"http://127.0.0.1:{self.ports[1]}/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    async def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"http://127.0.0.1:{self.ports[1]}/healthz")).status_code == httpx.codes.OK
        return False


def plane(folder: Path, **callbacks: Any) -> Plane:
    settings = Callbacks(**({"allow_http": True, "allowed_networks": LOOPBACK} | callbacks))
    return Plane(Settings(data_dir=folder / "data", api=Api(requests_per_second=10_000), callbacks=settings))


async def everything_came(it: Plane, there: Receiver, app_id: str, path: str, *, in_order: bool = True) -> int:
    """All notices of the app were taken, each with its signatures; how many came more than once."""
    accepted = await there.accepted(path)
    said = await it.notices(app_id)
    assert {notice.state for notice in said} == {"sent"}
    came = Counter(one.notice["noticeId"] for one in accepted)
    assert came.keys() == {notice.notice_id for notice in said}
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    for one in accepted:
        assert _verified(one, it.secrets[app_id])
        sequences[one.notice["sid"]].append(one.notice["payload"]["sequence"])
    for numbers in sequences.values():
        assert sorted(set(numbers)) == list(range(len(set(numbers))))
        assert not in_order or list(dict.fromkeys(numbers)) == sorted(set(numbers))
    return came.total() - len(came)


def waits(accepted: Sequence[Received], said: Sequence[Notice]) -> list[float]:
    """How many seconds each notice took to arrive."""
    created = {notice.notice_id: notice.created_ms / 1000 for notice in said}
    return [one.at - created[one.notice["noticeId"]] for one in accepted]


async def misbehaving(folder: Path, measured: Measured, likes: Sequence[str], *, times: int = 2, seconds: float = 12) -> None:
    """H1, H2, H6: receivers that misbehave so many times, each in its way, one that is gone for good, and one that is well."""
    it = plane(folder)
    async with receiver() as there, it.running():
        bad: dict[str, str] = {}
        for number, like in enumerate(likes):
            await there.behave(f"/{number}", *[like] * times)
            bad[await it.app(there.url(f"/{number}", HOSTS[number % (len(HOSTS) - 2)]))] = like
        await there.behave("/gone", then="410")
        gone, healthy = await it.app(there.url("/gone", HOSTS[-2])), await it.app(there.url("/healthy", HOSTS[-1]))
        for app in (*bad, gone):
            assert await it.record(app)
        sid, until = await it.begin(healthy), asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            await it.stream(sid)
            await asyncio.sleep(0.2)
        await it.end(sid)
        await it.until_none_waits([*bad, healthy], 120)

        for number, (app, like) in enumerate(bad.items()):
            assert (like, await everything_came(it, there, app, f"/{number}")) == (like, 0)
            tried = await there.received(f"/{number}")
            assert Counter(one.answered for one in tried) == {like: times, "200": len(WHOLE)}, like
            assert [one.notice["eventType"] for one in await there.accepted(f"/{number}")] == WHOLE
            if like.startswith("429"):
                pause = int(like.rpartition(" ")[2])
                assert all(later.at - earlier.at >= pause for earlier, later in pairwise(tried[: times + 1]))
        assert await everything_came(it, there, healthy, "/healthy") == 0
        measured["healthy_seconds"] = round(max(waits(await there.received("/healthy"), await it.notices(healthy))), 2)
        assert measured["healthy_seconds"] < _OTHERS_WAIT
        assert await there.received("/canary") == []

        assert [one.answered for one in await there.received("/gone")] == ["410"]
        assert {notice.state for notice in await it.notices(gone)} == {"dead"}
        await it.record(gone)  # what still happens is kept
        await there.behave("/gone")
        assert (await it.put(gone, there.url("/gone", HOSTS[-2]))).status_code == httpx.codes.OK
        await it.post(gone, "replay")
        await it.until_none_waits([gone])
        assert await everything_came(it, there, gone, "/gone") == 0
        assert len(await there.accepted("/gone")) == 2 * len(WHOLE)


async def down(folder: Path, measured: Measured, *, seconds: float) -> None:
    """H1: nobody listens for a while; what happened meanwhile arrives when somebody does, and others did not wait."""
    it = plane(folder)
    async with receiver() as there, receiver() as well, it.running():
        away, healthy = await it.app(there.url("/away")), await it.app(well.url("/healthy"))
        await there.down()
        sids = [await it.begin(away) for _ in range(8)]
        sid, until = await it.begin(healthy), asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < until:
            for one in (*sids, sid):
                await it.stream(one)
            await asyncio.sleep(seconds / 20)
        assert await it.metric("recorder_callback_hosts_open") == 1
        for one in (*sids, sid):
            await it.end(one)
        assert not await it.notices(away, "sent")
        await there.up()
        began = asyncio.get_running_loop().time()
        await it.until_none_waits([away, healthy], 120 + 2 * seconds)
        measured["recovered_seconds"] = round(asyncio.get_running_loop().time() - began, 1)
        assert await everything_came(it, there, away, "/away", in_order=seconds < 60) == 0
        assert await everything_came(it, well, healthy, "/healthy") == 0
        measured["healthy_seconds"] = round(max(waits(await well.received(), await it.notices(healthy))), 2)
        assert measured["healthy_seconds"] < _OTHERS_WAIT


async def down_for_days(folder: Path, measured: Measured, like: str) -> None:
    """H3: three days of refusals to a receiver that is there, on a clock of the test's; then a dead letter, and its replay."""
    clock = Clock(unix_ms())
    async with receiver() as there, office(folder, now_ms=clock, hosts=Hosts(now=clock.seconds)) as post:
        await there.behave("/hook", then=like)
        app = await post.app(there.url("/hook"))
        (said,) = await post.say(app, await post.recording(app), 40)
        began_ms = clock()
        while await post.count("waiting"):
            await post.round()
            for notice in await post.notices(state="waiting"):
                clock.now_ms = max(clock.now_ms + 1000, notice.next_ms)  # a host that does not answer may be left alone
        measured["attempts"], measured["days"] = len(await there.received()), round((clock() - began_ms) / 86_400_000, 2)
        assert measured["attempts"] == 12
        assert 2.9 < measured["days"] < 3.4
        assert {one.notice["noticeId"] for one in await there.received()} == {said}
        await there.behave("/hook")
        assert await post.endpoints.replay(app) == 1
        clock.now_ms += round(1000 * OPEN_SECONDS)
        await post.round()
        assert [one.notice["noticeId"] for one in await there.accepted()] == [said]


async def killed_before_sending(folder: Path, measured: Measured) -> None:
    """H4: what was committed and not sent yet is sent by the next control plane."""
    it = plane(folder)
    async with receiver() as there:
        await there.behave("/hook", "429 Retry-After: 12")
        async with it.running():
            app = await it.app(there.url("/hook"))
            sid = await it.begin(app)
            async with asyncio.timeout(10):
                while not [notice for notice in await it.notices(app) if notice.failure == "429"]:
                    await asyncio.sleep(0.02)
            await it.stream(sid, 5)
            await it.kill()
            assert [one.answered for one in await there.received("/hook")] == ["429 Retry-After: 12"]
        async with it.running():
            await it.end(sid)
            await it.until_none_waits([app])
            assert await everything_came(it, there, app, "/hook") == 0
            assert [one.notice["eventType"] for one in await there.accepted("/hook")] == [30, 40, *[43] * 5, 41, 33, 31, 11]
            measured["notices"] = len(await there.accepted("/hook"))


async def killed_after_sending(folder: Path, measured: Measured) -> None:
    """H4: a notice that was taken, but not written down as such, comes once more under its id."""
    it = plane(folder)
    async with receiver() as there:
        await there.behave("/hook", "wait 2")
        async with it.running():
            app = await it.app(there.url("/hook"))
            sid = await it.begin(app)
            async with asyncio.timeout(10):
                while not await there.received("/hook"):
                    await asyncio.sleep(0.01)
            it.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2.5)  # by now the answer waits to be read
            await it.kill()
        killed = asyncio.get_running_loop().time()
        async with it.running():
            await it.end(sid)
            await it.until_none_waits([app], _LEASE_SECONDS + 40)
            measured["taken_over_seconds"] = round(asyncio.get_running_loop().time() - killed, 1)
            assert await everything_came(it, there, app, "/hook") == 1
            first, again, *_ = await there.accepted("/hook")
            assert first.notice["noticeId"] == again.notice["noticeId"]


async def one_that_fails(folder: Path, measured: Measured) -> None:
    """H5: a notice that its receiver refuses holds the later ones for a minute; each keeps its number."""
    it = plane(folder)
    async with receiver() as there, it.running():
        await there.behave("/hook", then='refuse "sequence":1}')
        app = await it.app(there.url("/hook"))
        sid = await it.record(app)
        async with asyncio.timeout(100):
            while len(await it.notices(app, "sent")) < len(WHOLE) - 1:
                await asyncio.sleep(0.1)
        late = waits([one for one in await there.accepted("/hook") if one.notice["payload"]["sequence"] > 1], await it.notices(app))
        measured["held_seconds"] = [round(min(late), 1), round(max(late), 1)]
        assert 58 <= min(late) <= max(late) < 70
        await there.behave("/hook")
        async with it.store.write() as session:  # not in five minutes, but now
            await session.execute(update(Notice).where(Notice.state == "waiting").values(next_ms=0))
        await it.until_none_waits([app])
        assert await everything_came(it, there, app, "/hook", in_order=False) == 0
        assert [one.notice["payload"]["sequence"] for one in await there.accepted("/hook")] == [0, 2, 3, 4, 5, 6, 7, 1]
        assert {one.notice["sid"] for one in await there.accepted("/hook")} == {sid}


async def endless(folder: Path, measured: Measured) -> None:
    """H6: answers without an end are read no further than needed, and delay nobody."""
    it = plane(folder)
    async with receiver() as there, it.running():
        await there.behave("/endless", then="endless")
        app, healthy = await it.app(there.url("/endless", HOSTS[0])), await it.app(there.url("/healthy", HOSTS[1]))
        await it.record(app)
        await it.record(healthy)
        await it.until_none_waits([app, healthy])
        assert await everything_came(it, there, app, "/endless") == 0
        measured["healthy_seconds"] = round(max(waits(await there.received("/healthy"), await it.notices(healthy))), 2)
        assert measured["healthy_seconds"] < _OTHERS_WAIT
        resident = next(line for line in Path(f"/proc/{it.process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        measured["peak_mb"] = int(resident.split()[1]) // 1024
        assert measured["peak_mb"] < 300


async def bad_certificate(folder: Path, measured: Measured) -> None:
    """H7: nothing is said to a receiver that cannot show who it is; its notices become dead letters that say why."""
    own, another = self_signed(folder, "own"), self_signed(folder, "another")
    async with receiver(*own) as there:
        distrusting = plane(folder, authorities=another[0], retries="quick")
        async with distrusting.running():
            app = await distrusting.app(there.url("/hook"))
            assert (await distrusting.post(app, "test"))["code"] == 592
            await distrusting.begin(app)
            await distrusting.until_none_waits([app], 400)  # the host counts as one that does not answer
            assert {(notice.state, notice.failure) for notice in await distrusting.notices(app)} == {("dead", "tls")}
            assert await there.received() == []
        trusting = plane(folder, authorities=own[0])
        trusting.secrets, trusting.live = distrusting.secrets, distrusting.live
        async with trusting.running():
            assert (await trusting.post(app, "test"))["code"] == httpx.codes.OK
            await trusting.post(app, "replay")
            await trusting.until_none_waits([app])
            accepted = [one for one in await there.accepted("/hook") if one.notice["sid"] != "test_webhook"]
            assert [one.notice["eventType"] for one in accepted] == [30, 40]
            measured["notices"] = len(accepted)


async def rotated(folder: Path, measured: Measured) -> None:
    """H8: in the middle of a recording, for a receiver that knows the old secret and one that knows the new one."""
    it = plane(folder)
    async with receiver() as there, it.running():
        app = await it.app(there.url("/hook"))
        sid = await it.begin(app)
        await it.until_none_waits([app])
        old = it.secrets[app]
        new = it.secrets[app] = str((await it.post(app, "secret"))["secret"])
        await it.end(sid)
        await it.until_none_waits([app])
        accepted = await there.accepted("/hook")
        by_old, by_new = ([_verified(one, secret) for one in accepted] for secret in (old, new))
        assert by_old == [True] * len(accepted)
        assert by_new == [False] * 2 + [True] * (len(accepted) - 2)
        measured["notices"] = len(accepted)
        last = it.secrets[app] = str((await it.post(app, "secret", oldHours=0))["secret"])
        await it.record(app)
        await it.until_none_waits([app])
        for one in (await there.accepted("/hook"))[len(accepted) :]:
            assert [_verified(one, secret) for secret in (old, new, last)] == [False, False, True]


def _verified(one: Received, secret: str) -> bool:
    """Whether it was right when it came: `Webhook.verify` takes none that is more than five minutes old by now."""
    name, stamp = one.headers["webhook-id"], int(one.headers["webhook-timestamp"])
    due = Webhook(secret).sign(name, datetime.fromtimestamp(stamp, UTC), one.body.decode())
    return abs(one.at - stamp) < _TOLERANCE_SECONDS and due in one.headers["webhook-signature"].split()


async def private_address(folder: Path, measured: Measured) -> None:
    """H9: an address that is not allowed is refused when it is set, and again when it is sent to."""
    it = plane(folder, allowed_networks=("127.0.0.1/32",))
    async with receiver() as there, it.running():
        app, inside = await it.app(there.url("/hook")), there.url("/inside", "127.0.0.2")
        refused = await it.put(app, inside)
        assert (refused.status_code, "not allowed" in refused.text) == (httpx.codes.BAD_REQUEST, True)
        async with it.store.write() as session:  # as when the name has another address since
            await session.execute(update(Endpoint).where(Endpoint.app_id == app).values(url=inside))
        await it.record(app)
        async with asyncio.timeout(30):
            while (await it.notices(app))[0].failure != "forbidden":
                await asyncio.sleep(0.1)
        measured["blocked"] = await it.metric("recorder_ssrf_blocked_total")
        assert measured["blocked"] >= 2
        assert (await it.put(app, there.url("/hook"))).status_code == httpx.codes.OK
        await it.until_none_waits([app])
        assert await everything_came(it, there, app, "/hook") == 0
        assert await there.received("/inside") == []


async def flood(folder: Path, measured: Measured, *, queued: int) -> None:
    """H10: one app has thousands of notices waiting; another one's are not behind them."""
    it = plane(folder)
    async with receiver() as there, it.running():
        busy, other = await it.app(there.url("/busy", HOSTS[0])), await it.app(there.url("/other", HOSTS[1]))
        now_ms = unix_ms()
        rows = [
            {"notice_id": f"{number:032x}", "app_id": busy, "event_type": 40, "product_id": 3, "payload": "{}"}
            | {"created_ms": now_ms, "next_ms": now_ms}
            for number in range(queued)
        ]
        async with it.store.write() as session:
            await session.execute(insert(Notice), rows)
        began = asyncio.get_running_loop().time()
        took: list[float] = []
        while await it.notices(busy, "waiting") and len(took) < 20:
            await it.record(other)
            await it.until_none_waits([other])
            took = waits(await there.received("/other"), await it.notices(other))
        measured["other_seconds"] = round(max(took), 2)
        assert measured["other_seconds"] < _OTHERS_WAIT
        await it.until_none_waits([busy], 600)
        measured["queued_seconds"] = round(asyncio.get_running_loop().time() - began, 1)
        accepted = await there.accepted("/busy")
        assert len(accepted) == queued
        assert len({one.notice["noticeId"] for one in accepted}) == queued
