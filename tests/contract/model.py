"""The life of recordings as the contract has it, and a machine that holds the control plane to it.

One channel with two recorder uids, one node. Calls are repeated and made at the same time, workers die, the node goes away
and comes back with or without its recordings, the control plane is restarted, the clock jumps.

    acquired ─start→ 1 ─→ 2 ⇄ 4 ⇄ 5 ─stop, end→ 6 ─→ 7 ─→ finished (404)
        └ 5 min → 433          └ worker lost: next epoch, same sid
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar

import httpx
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from api.service import Patience
from api.tables import Recording as Row
from recorder.protocol import Claimed, Done, Ended, EventBody, Finished, Offer, PhaseChanged, Refused, SliceCommitted, Stop, WorkerLost
from recorder.settings import Callbacks
from tests.contract.conftest import Caller, Clock, Task, World, a_deployment, eventually, open_world
from tests.contract.fake_agent import FakeAgent, Script, a_slice

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
WINDOW_HOURS: Final = 2
NODE: Final = "node-1"
STATUS: Final = {"starting": 2, "ready": 4, "recording": 5, "stopping": 6}

ALREADY, CONFLICT, EXPIRED, EXITING = (201, 7), (400, 53), (400, 433), (400, 49)
GONE, NO_NODE, NOT_KNOWN, NOT_REACHED, WRONG = (404, 404), (500, 502), (206, 65), (504, 62), (400, 2)
OK = (200, None)

T = TypeVar("T")
Mode = Literal["individual", "mix"]
Call = Literal["query", "update", "updateLayout", "stop"]


class Deployment:
    """A control plane that lives between the steps of the machine, which are not asynchronous."""

    def __init__(self, folder: Path, patience: Patience, callbacks: Callbacks | None = None) -> None:
        self._settings = a_deployment(folder, callbacks=callbacks, max_recordings=1_000_000)  # they add up over the examples
        self._patience = patience
        self._runner = asyncio.Runner()
        self._lives: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self.clock = Clock()
        self.rooms = count()
        self.world: World
        self.agent: FakeAgent

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        async def end() -> None:
            for name in tuple(self._lives):
                await self._end(name)

        self.run(end())
        self._runner.close()

    async def start(self) -> None:
        world = await self._begin("plane", open_world(self._settings, self.clock, self._patience))
        self.world = world

    async def restart(self) -> None:
        await self._end("plane")
        await self.start()

    async def connect(self, live: tuple[str, ...] = (), script: Script | None = None) -> FakeAgent:
        self.agent = await self._begin("node", self.world.agent(NODE, live=live, script=script))
        return self.agent

    async def disconnect(self) -> None:
        await self._end("node")
        await eventually(lambda: self.world.plane.bus.connected == 0)

    async def _begin(self, name: str, context: contextlib.AbstractAsyncContextManager[T]) -> T:
        """Enter the context in a task of its own: task groups must be left by the task that entered them."""
        entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def live() -> None:
            try:
                async with context as value:
                    entered.set_result(value)
                    await over.wait()
            except BaseException as error:
                if entered.done():
                    raise
                entered.set_exception(error)

        self._lives[name] = over, asyncio.create_task(live())
        return await entered

    async def _end(self, name: str) -> None:
        if name in self._lives:
            over, life = self._lives.pop(name)
            over.set()
            await life


@dataclass(eq=False)
class Resource:
    """What acquire gave."""

    id: str
    uid: str
    issued_ms: int
    recording: "Recording | None" = None


@dataclass(eq=False)
class Recording:
    """What must be true of a recording."""

    task: Task
    uid: str
    mode: Mode
    started_ms: int
    epoch: int = 1
    status: int = 1
    finished: bool = False
    layout: int = 0
    only: int | None = None  # whose audio is recorded; None: everybody's
    slices: int = 0
    stops: int = 0  # that its node must have been told, at least
    former: Claimed | None = field(default=None, repr=False)

    @property
    def live(self) -> bool:
        return self.status < 7 and not self.finished

    @property
    def changeable(self) -> bool:
        return self.status < 6 and not self.finished

    def finish(self) -> None:
        self.finished = True


class Life(RuleBasedStateMachine):
    deployment: ClassVar[Deployment]

    resources = Bundle("resources")
    recordings = Bundle("recordings")

    def __init__(self) -> None:
        super().__init__()
        self.room = f"room {next(self.deployment.rooms)}"
        self.known: list[Recording] = []
        self.restarts = 0

    @initialize(target=recordings, mode=st.sampled_from(["mix", "individual"]))
    def begin(self, mode: Mode) -> Recording:
        """One recording is there already; what former examples left is over, for the node comes without it."""

        async def act() -> Recording:
            await self.deployment.disconnect()
            await self.deployment.connect()
            resource = Resource(await self._caller("1").resource(resourceExpiredHour=WINDOW_HOURS), "1", self._now())
            answer = await self._caller("1").start(resource.id, mode)
            await eventually(lambda: answer.json()["sid"] in self._agent.claimed)
            return self._begun(resource, answer.json()["sid"], mode)

        return self.deployment.run(act())

    # ---- calls -----------------------------------------------------------------------------------------------------

    @rule(target=resources, uid=st.sampled_from(["1", "2"]))
    def acquire(self, uid: str) -> Resource:
        async def act() -> Resource:
            return Resource(await self._caller(uid).resource(resourceExpiredHour=WINDOW_HOURS), uid, self._now())

        return self.deployment.run(act())

    @rule(target=recordings, resource=resources, mode=st.sampled_from(["mix", "individual"]), times=st.integers(1, 3))
    def start(self, resource: Resource, mode: Mode, times: int) -> Recording | Any:
        async def act() -> Recording | None:
            expected = self._of_start(resource)
            answers = await asyncio.gather(*(self._caller(resource.uid).start(resource.id, mode) for _ in range(times)))
            if expected != OK:
                assert {outcome(answer) for answer in answers} == {expected}
                if expected == ALREADY:
                    assert resource.recording
                    assert all(answer.json().items() >= resource.recording.task.identity.items() for answer in answers)
                return None
            assert Counter(map(outcome, answers)) == Counter([OK, *[ALREADY] * (times - 1)])
            (sid,) = {answer.json()["sid"] for answer in answers}
            await eventually(lambda: sid in self._agent.claimed)
            assert sum(isinstance(message, Offer) and message.sid == sid for message in self._agent.received) == 1
            return self._begun(resource, sid, mode)

        return self._or_nothing(self.deployment.run(act()))

    @rule(target=recordings, uid=st.sampled_from(["1", "2"]), mode=st.sampled_from(["mix", "individual"]))
    def acquire_and_start(self, uid: str, mode: Mode) -> Recording | Any:
        return self.start(self.acquire(uid), mode, 1)

    @rule(target=recordings, resource=resources)
    def start_that_the_node_answers_late(self, resource: Resource) -> Recording | Any:
        async def act() -> Recording | None:
            if self._of_start(resource) != OK:
                return None
            self._agent.silent.set()
            assert outcome(await self._caller(resource.uid).start(resource.id)) == NOT_KNOWN
            self._agent.silent.clear()
            sid = next(message.sid for message in reversed(self._agent.received) if isinstance(message, Offer))
            assert isinstance(await self._agent.claim(sid), Claimed)
            return self._begun(resource, sid, "mix")

        return self._or_nothing(self.deployment.run(act()))

    @rule(recording=recordings)
    def query(self, recording: Recording) -> None:
        async def act() -> None:
            answer = await recording.task.query()
            assert outcome(answer) == (OK if self._found(recording) else GONE)
            if self._found(recording):
                state = answer.json()["serverResponse"]
                assert state["status"] == recording.status
                assert state["fileListMode"] == ("string" if recording.mode == "mix" else "json")
                assert (state["sliceStartTime"] > 0) == (recording.slices > 0)

        self.deployment.run(act())

    @rule(recording=recordings, uid=st.integers(1, 3))
    def update(self, recording: Recording, uid: int) -> None:
        async def act() -> None:
            assert outcome(await self._call(recording, "update", uid)) == self._of_change(recording)
            if self._of_change(recording) == OK:
                recording.only = uid
                assert self._agent.commands(recording.task.sid)[-1].type == "subscribe"

        self.deployment.run(act())

    @rule(recording=recordings, layout=st.integers(0, 2))
    def update_layout(self, recording: Recording, layout: int) -> None:
        async def act() -> None:
            answer = outcome(await self._call(recording, "updateLayout", layout))
            if recording.mode == "individual":
                assert answer == WRONG
                return
            assert answer == self._of_change(recording)
            if answer == OK:
                recording.layout = layout
                assert self._agent.commands(recording.task.sid)[-1].type == "layout"

        self.deployment.run(act())

    @rule(recording=recordings, times=st.integers(1, 3))
    def stop(self, recording: Recording, times: int) -> None:
        async def act() -> None:
            expected = self._of_stop(recording)
            answers = [outcome(answer) for answer in await asyncio.gather(*(self._call(recording, "stop") for _ in range(times)))]
            if expected == OK:
                assert Counter(answers) == Counter([OK, *[EXITING] * (times - 1)])
                self._stopped(recording)
            else:
                assert set(answers) == {expected}

        self.deployment.run(act())

    @rule(recording=recordings)
    def stop_and_wait(self, recording: Recording) -> None:
        """The answer comes when the node has told that everything is stored."""

        async def act() -> None:
            if self._of_stop(recording) != OK:
                return
            told = len(self._agent.commands(recording.task.sid))
            async with asyncio.TaskGroup() as group:
                stopping = group.create_task(recording.task.stop())
                await eventually(lambda: len(self._agent.commands(recording.task.sid)) > told)
                await self._agent.finish(recording.task.sid)
            assert outcome(stopping.result()) == (OK if recording.slices else (206, 435))
            self._stopped(recording)
            recording.finish()

        self.deployment.run(act())

    # ---- the worker and the node -----------------------------------------------------------------------------------

    @rule(recording=recordings, phase=st.sampled_from(["starting", "ready", "recording", "stopping"]))
    def phase(self, recording: Recording, phase: str) -> None:
        self._emit(recording, PhaseChanged.model_validate({"phase": phase}))
        if recording.changeable:
            recording.status = STATUS[phase]

    @rule(recording=recordings)
    def slice(self, recording: Recording) -> None:
        name = f"{recording.epoch}-{recording.slices}.ts"
        self._emit(recording, SliceCommitted(slice=a_slice(name, recording.slices, epoch=recording.epoch)))
        if not recording.finished:
            recording.slices += 1

    @rule(recording=recordings, reason=st.sampled_from(["idle", "kicked", "token"]))
    def end(self, recording: Recording, reason: str) -> None:
        self._emit(recording, Ended.model_validate({"outcome": "complete", "reason": reason}))
        if not recording.finished:
            recording.status = 7

    @precondition(lambda self: any(not recording.live and not recording.finished for recording in self.known))
    @rule(recording=recordings)
    def everything_is_uploaded(self, recording: Recording) -> None:
        if recording.live:
            return
        self._emit(recording, Finished(outcome="complete", reason="idle", uploading="uploaded"))
        recording.finish()

    @rule(recording=recordings)
    def a_message_of_an_old_worker(self, recording: Recording) -> None:
        self.the_worker_dies(recording)
        if recording.epoch > 1:
            words: tuple[EventBody, ...] = (PhaseChanged(phase="stopping"), Ended(outcome="failed", reason="crashed"))
            for number, body in enumerate(words):
                self._emit(recording, body, epoch=recording.epoch - 1, sequence=10_000 + number)

    @rule(recording=recordings)
    def a_message_twice(self, recording: Recording) -> None:
        self._emit(recording, PhaseChanged(phase="ready"), epoch=recording.epoch, sequence=20_000)
        if recording.changeable:
            recording.status = 4
        self.phase(recording, "recording")
        self._emit(recording, PhaseChanged(phase="ready"), epoch=recording.epoch, sequence=20_000)

    @rule(recording=recordings)
    def the_worker_dies(self, recording: Recording) -> None:
        """Its successor has the next epoch and what was changed last; what is being stopped gets none."""

        async def act() -> None:
            await self._agent.emit(recording.task.sid, WorkerLost(detail="killed"), epoch=recording.epoch)
            answer = await self._agent.claim(recording.task.sid)
            if not recording.changeable:
                assert answer == Refused(reason="exiting")
                return
            assert isinstance(answer, Claimed)
            recording.epoch += 1
            assert answer.epoch == recording.epoch
            self._check_spec(recording, answer)

        self.deployment.run(act())

    @rule(recording=recordings, call=st.sampled_from(["query", "update", "updateLayout", "stop"]), back=st.integers(0, 3).map(bool))
    def the_node_is_away(self, recording: Recording, call: Call, back: bool) -> None:
        """One call meanwhile; then the node is back, with the recording or without it."""

        async def act() -> None:
            await self.deployment.disconnect()
            expected = self._of_unreached(recording, call, NOT_REACHED)
            assert outcome(await self._call(recording, call)) == expected
            self._after_unreached(recording, call, expected)
            await self._reconnect(without=None if back else recording)

        self.deployment.run(act())

    @rule(recording=recordings, call=st.sampled_from(["update", "stop"]))
    def the_node_does_not_answer(self, recording: Recording, call: Call) -> None:
        async def act() -> None:
            self._agent.silent.set()
            expected = self._of_unreached(recording, call, NOT_KNOWN)
            assert outcome(await self._call(recording, call)) == expected
            self._agent.silent.clear()
            self._after_unreached(recording, call, expected)
            await self._deliver(recording)

        self.deployment.run(act())

    @rule(resource=resources)
    def start_without_a_node(self, resource: Resource) -> None:
        async def act() -> None:
            expected = self._of_start(resource)
            await self.deployment.disconnect()
            answer = outcome(await self._caller(resource.uid).start(resource.id))
            assert answer == (NO_NODE if expected == OK else expected)
            await self._reconnect()

        self.deployment.run(act())

    @precondition(lambda self: self.restarts < 2)
    @rule()
    def the_control_plane_restarts(self) -> None:
        async def act() -> None:
            await self.deployment.disconnect()
            await self.deployment.restart()
            for recording in self.known:
                recording.task.caller = self._caller(recording.uid)
            await self._reconnect()

        self.restarts += 1
        self.deployment.run(act())

    # ---- time ------------------------------------------------------------------------------------------------------

    @rule(minutes=st.sampled_from([1, 1, 6, 61]))
    def time_passes(self, minutes: int) -> None:
        self.deployment.clock.ahead_ms += minutes * MINUTE_MS

    @rule(resource=consumes(resources))
    def forget(self, resource: Resource) -> None:
        """A client may."""

    # ---- what is always true ---------------------------------------------------------------------------------------

    @invariant()
    def the_database_agrees(self) -> None:
        async def act() -> None:
            async with self.deployment.world.plane.store.read() as session:
                rows = {row.sid: row for row in await session.scalars(select(Row).where(Row.channel == self.room))}
            assert rows.keys() == {recording.task.sid for recording in self.known}
            live = Counter(row.uid for row in rows.values() if row.live)
            assert all(number == 1 for number in live.values()), "one recording at a time for each uid"
            for recording in self.known:
                row = rows[recording.task.sid]
                assert (row.epoch, row.finished, row.live) == (recording.epoch, recording.finished, recording.live)
                assert (row.sealed_spec is None) == recording.finished, "secrets are kept until the end and no longer"
                assert row.finished or row.status == recording.status
                stops = [command for command in self._agent.commands(row.sid) if isinstance(command, Stop)]
                assert len(stops) >= recording.stops

        self.deployment.run(act())

    def teardown(self) -> None:
        """Every recording can be asked about after its end."""

        async def act() -> None:
            await self.deployment.disconnect()
            await self.deployment.connect()
            for recording in self.known:
                answer = await recording.task.caller.http.get(f"/v1/ext/recordings/{recording.task.sid}")
                assert answer.status_code == 200
                assert answer.json()["status"] in (8, 20)
                assert {"outcome", "reason", "endTime", "uploadingStatus"} <= answer.json().keys()
                assert outcome(await recording.task.query()) == GONE

        self.deployment.run(act())

    # ---- what the contract says ------------------------------------------------------------------------------------

    def _of_start(self, resource: Resource) -> tuple[int, int | None]:
        if resource.recording:
            return EXPIRED if resource.recording.finished else ALREADY
        if self._now() - resource.issued_ms > 5 * MINUTE_MS:
            return EXPIRED
        return CONFLICT if any(other.live and other.uid == resource.uid for other in self.known) else OK

    def _found(self, recording: Recording) -> bool:
        return not recording.finished and self._now() < recording.started_ms + WINDOW_HOURS * HOUR_MS

    def _of_change(self, recording: Recording) -> tuple[int, int | None]:
        return OK if self._found(recording) and recording.changeable else GONE

    def _of_stop(self, recording: Recording) -> tuple[int, int | None]:
        if not self._found(recording):
            return GONE
        return OK if recording.status < 6 else EXITING

    def _of_unreached(self, recording: Recording, call: Call, unreached: tuple[int, int]) -> tuple[int, int | None]:
        """When the node is not there, or does not answer."""
        match call:
            case "query":
                return OK if self._found(recording) else GONE
            case "updateLayout" if recording.mode == "individual":
                return WRONG
            case "stop":
                expected = self._of_stop(recording)
            case _:
                expected = self._of_change(recording)
        return unreached if expected == OK else expected

    def _after_unreached(self, recording: Recording, call: Call, answer: tuple[int, int | None]) -> None:
        if call == "stop" and answer in (NOT_REACHED, NOT_KNOWN):  # the wish is kept
            self._stopped(recording)

    def _stopped(self, recording: Recording) -> None:
        recording.status = max(recording.status, 6)
        recording.stops = 1

    # ---- doing -----------------------------------------------------------------------------------------------------

    @property
    def _agent(self) -> FakeAgent:
        return self.deployment.agent

    def _now(self) -> int:
        return self.deployment.clock()

    def _caller(self, uid: str) -> Caller:
        return replace(self.deployment.world.caller, cname=self.room, uid=uid)

    def _begun(self, resource: Resource, sid: str, mode: Mode) -> Recording:
        resource.recording = Recording(Task(self._caller(resource.uid), resource.id, sid, mode), resource.uid, mode, self._now())
        self.known.append(resource.recording)
        return resource.recording

    def _call(self, recording: Recording, call: Call, value: int = 1) -> Awaitable[httpx.Response]:
        match call:
            case "query":
                return recording.task.query()
            case "update":
                lists = {"audioUidList": {"subscribeAudioUids": [str(value)]}}
                return recording.task.post("update", {"streamSubscribe": lists})
            case "updateLayout":
                return recording.task.post("updateLayout", {"mixedVideoLayout": value})
            case "stop":
                return recording.task.stop(async_stop=True)

    def _emit(self, recording: Recording, body: EventBody, *, epoch: int | None = None, sequence: int | None = None) -> None:
        number = recording.epoch if epoch is None else epoch
        answer = self.deployment.run(self._agent.emit(recording.task.sid, body, epoch=number, sequence=sequence))
        assert answer == Done()

    async def _reconnect(self, without: Recording | None = None) -> None:
        former = self._agent
        back = [recording for recording in self.known if recording is not without and not recording.finished]
        agent = await self.deployment.connect(tuple(recording.task.sid for recording in back))
        agent.continue_from(former)
        if without:
            without.finish()
            without.stops = 0  # nobody is there to be told
        for recording in back:
            await self._deliver(recording)

    async def _deliver(self, recording: Recording) -> None:
        """What the node has not been told is told again."""
        await self.deployment.world.plane.recovery.look()

    def _check_spec(self, recording: Recording, claimed: Claimed) -> None:
        assert claimed.spec["layout"]["number"] == recording.layout
        audio = claimed.spec["subscription"]["audio"]
        assert (audio["kind"], audio["uids"]) == (("all", []) if recording.only is None else ("only", [recording.only]))

    @staticmethod
    def _or_nothing(recording: Recording | None) -> Recording | Any:
        return recording or multiple()


def outcome(answer: httpx.Response) -> tuple[int, int | None]:
    """HTTP status and code."""
    return answer.status_code, answer.json().get("code")


def live_through(folder: Path, *, examples: int, steps: int, repeatable: bool) -> None:
    """Run the machine; a failure prints the shortest way to it that was found."""
    machine = type("Life", (Life,), {"deployment": (deployment := Deployment(folder, Patience(start_seconds=5, stop_seconds=5)))})
    try:
        deployment.run(deployment.start())
        deployment.run(deployment.connect())
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=repeatable,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
                phases=[Phase.generate] if repeatable else [Phase.generate, Phase.shrink],  # which takes minutes
            ),
        )
    finally:
        deployment.close()
