"""The life of recordings as the contract has it, and a machine that holds the control plane to it.

One channel with three recorder uids, one node. Calls are repeated and made at the same time, workers die, the node goes away
and comes back with or without its recordings, the control plane is restarted or killed in the middle of a call, the clock jumps.

    acquired ─start→ 1 ─→ 2 ⇄ 4 ⇄ 5 ─stop, end→ 6 ─→ 7 ─→ finished (404) ─→ its files have come from the backup store
        │            │         └ worker lost: next epoch, same sid    └ failed: as well, what there is is uploaded
        └ 5 min: 433 └ claimed by nobody for 60 s, or stopped before: finished
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
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
from sqlalchemy import select, update

from api.service import Patience
from api.tables import Endpoint, Notice, SeenEvent
from api.tables import Recording as Row
from api.tables import Slice as SliceRow
from recorder.protocol import (
    BackupDone,
    BackupProgress,
    Claim,
    Claimed,
    Done,
    Ended,
    EventBody,
    Finished,
    Offer,
    Outcome,
    PhaseChanged,
    Reason,
    Refused,
    SliceCommitted,
    SliceStored,
    Stop,
    Uploading,
    WorkerLost,
)
from recorder.settings import Callbacks
from tests.canary import secret
from tests.contract.conftest import STORAGE, Caller, Clock, Task, World, a_deployment, eventually, open_world
from tests.contract.fake_agent import FakeAgent, Script, a_slice
from tests.notices import LOOPBACK

SECOND_MS: Final = 1000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
WINDOW_HOURS: Final = 2
TOLD_DAYS, RESCUE_DAYS = 7, 11  # how long an ended recording can be asked about, and may have the keys of its bucket
NODE: Final = "node-1"
ERROR, FAILOVER, EXIT, UPLOADED, BACKUPED, STARTED, LEFT = 1, 12, 11, 31, 32, 40, 41
STORAGE_KEY: Final = str(STORAGE["accessKey"])
STATUS: Final = {"starting": 2, "ready": 4, "recording": 5, "stopping": 6}

ALREADY, CONFLICT, EXPIRED, EXITING = (201, 7), (400, 53), (400, 433), (400, 49)
GONE, NO_NODE, NOT_KNOWN, NOT_REACHED, WRONG = (404, 404), (500, 502), (206, 65), (504, 62), (400, 2)
OK = (200, None)

T = TypeVar("T")
Mode = Literal["individual", "mix"]
Call = Literal["query", "update", "updateLayout", "storage", "stop"]
How = tuple[Outcome, Reason]
UIDS: Final = st.sampled_from(["1", "2", "3"])
CALLS: Final[tuple[Call, ...]] = ("query", "update", "updateLayout", "storage", "stop")
ENDS: Final[tuple[How, ...]] = (
    ("complete", "idle"),
    ("complete", "stopped"),
    ("aborted", "kicked"),
    ("aborted", "token_expired"),
    ("limit_reached", "stopped"),
    ("failed", "token"),
    ("failed", "storage"),
    ("interrupted", "crashed"),
)
FILES: Final[tuple[tuple[Uploading, bool], ...]] = (  # where they are, and whether some are still to be brought
    ("uploaded", False),
    ("backuped", False),
    ("backuped", True),
    ("unknown", False),
    ("unknown", True),
)


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

    async def kill(self, *calls: asyncio.Future[Any]) -> None:
        """Nothing of it goes on, not even these calls, which it has not answered; what is committed stays. Its node notices."""
        _, life = self._lives.pop("plane")
        for ended in (*calls, life):
            ended.cancel()
        await asyncio.gather(*calls, life, return_exceptions=True)
        await self._end("node")
        await self.start()

    async def connect(self, live: tuple[str, ...] = (), script: Script | None = None, *, claims: bool = True) -> FakeAgent:
        self.agent = await self._begin("node", self.world.agent(NODE, live=live, script=script, claims=claims))
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
    key: str = STORAGE_KEY  # of the customer's bucket
    slices: dict[str, str | None] = field(default_factory=dict)  # by name, and in which store they are
    lost: int = 0  # workers
    told_again: int = 0  # the last epoch whose loss was
    stops: int = 0  # that its node must have been told, at least
    how: str | None = None  # it has ended
    uploading: str | None = None
    finished_ms: int = 0
    behind: bool = False  # it has ended, and its node still brings files to the customer's store
    ways: list[str] = field(default_factory=list, repr=False)  # the states it has been in

    @property
    def live(self) -> bool:
        return self.status < 7 and not self.finished

    @property
    def changeable(self) -> bool:
        return self.status < 6 and not self.finished

    @property
    def is_heard(self) -> bool:
        """What its node tells is noted."""
        return not self.finished or self.behind

    @property
    def state(self) -> str:
        if self.finished:
            return "backup" if self.behind else "failed" if self.how in ("failed", "interrupted") else "done"
        return "offered" if self.epoch == 0 else {6: "stopping", 7: "uploading"}.get(self.status, "recording")

    def note(self) -> None:
        """Keep its state, when that is another one than before."""
        if self.ways[-1:] != [self.state]:
            self.ways.append(self.state)

    def finish(self, how: str, uploading: str, now_ms: int, *, behind: bool = False) -> None:
        if self.finished:
            return
        self.note()
        self.finished, self.finished_ms = True, now_ms
        self.how, self.uploading, self.behind = how, uploading, behind
        self.note()


class Life(RuleBasedStateMachine):
    deployment: ClassVar[Deployment]
    ways: ClassVar[Counter[tuple[str, str]]]  # from one state to the next, over all examples

    resources = Bundle("resources")
    recordings = Bundle("recordings")

    def __init__(self) -> None:
        super().__init__()
        self.room = f"room {next(self.deployment.rooms)}"
        self.known: list[Recording] = []
        self.restarts = self.ages = 0

    @initialize(target=recordings, mode=st.sampled_from(["mix", "individual"]))
    def begin(self, mode: Mode) -> Recording:
        """One recording is there already; what former examples left is over, for the node comes without it."""

        async def act() -> Recording:
            await self.deployment.disconnect()
            await self.deployment.connect()
            resource = await self._acquire("1")
            answer = await self._caller("1").start(resource.id, mode)
            await eventually(lambda: answer.json()["sid"] in self._agent.claimed)
            return self._begun(resource, answer.json()["sid"], mode)

        return self.deployment.run(act())

    # ---- calls -----------------------------------------------------------------------------------------------------

    @rule(target=resources, uid=UIDS)
    def acquire(self, uid: str) -> Resource:
        return self.deployment.run(self._acquire(uid))

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

    @rule(target=recordings, uid=UIDS, mode=st.sampled_from(["mix", "individual"]))
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

    @rule(
        target=recordings,
        uid=UIDS,
        mode=st.sampled_from(["mix", "individual"]),
        meanwhile=st.sampled_from(CALLS[:-1]),
        then=st.sampled_from(["claimed late", "given up", "stopped", "restarted"]),
    )
    def start_that_no_node_claims_at_once(self, uid: str, mode: Mode, meanwhile: Call, then: str) -> Recording | Any:
        """What is asked for meanwhile is there when it is claimed."""

        async def act() -> Recording | None:
            resource = await self._acquire(uid)
            if self._of_start(resource) != OK:
                return None
            self._agent.claims = False
            answer = await self._caller(resource.uid).start(resource.id, mode)
            recording = self._begun(resource, answer.json()["sid"], mode, epoch=0)
            recording.note()
            assert outcome(await self._call(recording, meanwhile, 2)) == (
                WRONG if (meanwhile, mode) == ("updateLayout", "individual") else OK
            )
            self._changed(recording, meanwhile, 2)
            assert self._agent.commands(recording.task.sid) == []
            match then:
                case "stopped":
                    assert outcome(await self._call(recording, "stop")) == (206, 435)
                    recording.finish("aborted", "unknown", self._now())
                case "given up":
                    await self._pass(61 * SECOND_MS)
                    recording.finish("failed", "unknown", self._now())
                    assert outcome(await self._caller(resource.uid).start(resource.id, mode)) == EXPIRED
                case "restarted":
                    await self._kill(claims=False)
                case _:
                    await self._pass(MINUTE_MS // 2)
                    await eventually(lambda: self._offers(recording.task.sid) == 2)
            self._agent.claims = True
            await self._claim(recording)
            return recording

        return self._or_nothing(self.deployment.run(act()))

    @precondition(lambda self: self.restarts < 2)
    @rule(target=recordings, uid=UIDS, at_once=st.booleans())
    def start_in_which_the_control_plane_is_killed(self, uid: str, at_once: bool) -> Recording | Any:
        """Its node has been offered the recording: it claims it, or is offered it once more."""

        async def act() -> Recording | None:
            resource = await self._acquire(uid)
            if self._of_start(resource) != OK:
                return None
            self._agent.silent.set()
            before = sum(isinstance(message, Offer) for message in self._agent.received)
            calling = asyncio.create_task(self._caller(resource.uid).start(resource.id))
            await eventually(lambda: sum(isinstance(message, Offer) for message in self._agent.received) > before)
            sid = next(message.sid for message in reversed(self._agent.received) if isinstance(message, Offer))
            await self._kill(calling, claims=not at_once)
            recording = self._begun(resource, sid, "mix", epoch=0)
            recording.note()
            if at_once:
                await self._claim(recording)
                self._agent.claims = True
            else:
                recording.epoch = 1
                await self._pass(MINUTE_MS // 2)
                await eventually(lambda: sid in self._agent.claimed)
            await self._pass(MINUTE_MS // 2)  # and nobody claims it a second time
            return recording

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
                assert (state["sliceStartTime"] > 0) == bool(recording.slices)

        self.deployment.run(act())

    @rule(recording=recordings, uid=st.integers(1, 3))
    def update(self, recording: Recording, uid: int) -> None:
        async def act() -> None:
            assert outcome(await self._call(recording, "update", uid)) == self._of_change(recording)
            if self._of_change(recording) == OK:
                self._changed(recording, "update", uid)
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
                self._changed(recording, "updateLayout", layout)
                assert self._agent.commands(recording.task.sid)[-1].type == "layout"

        self.deployment.run(act())

    @rule(recording=recordings, number=st.integers(1, 3), after_all=st.booleans())
    def renew_keys(self, recording: Recording, number: int, after_all: bool) -> None:
        """Of the bucket: by `update`, or by the call that can be made as long as files wait, `after_all`. The node claims them."""

        async def act() -> None:
            taken = recording.is_heard if after_all else self._found(recording)
            told = len(self._agent.commands(recording.task.sid))
            if after_all:
                answer = await recording.task.caller.http.post(
                    f"/v1/ext/recordings/{recording.task.sid}/storage", json={"storageConfig": storage(number)}
                )
            else:
                answer = await self._call(recording, "storage", number)
            assert outcome(answer) == (OK if taken else GONE)
            assert [command.type for command in self._agent.commands(recording.task.sid)[told:]] == ["renew_storage"] * taken
            if taken:
                self._changed(recording, "storage", number)
                claimed = await self._agent.claim(recording.task.sid, resume=recording.epoch)
                assert isinstance(claimed, Claimed)
                self._check_spec(recording, claimed)

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
            recording.finish("complete", "uploaded", self._now())

        self.deployment.run(act())

    # ---- the worker and the node -----------------------------------------------------------------------------------

    @rule(recording=recordings, phase=st.sampled_from(["starting", "ready", "recording", "stopping"]))
    def phase(self, recording: Recording, phase: str) -> None:
        self._emit(recording, PhaseChanged.model_validate({"phase": phase}))
        if recording.changeable:
            recording.status = STATUS[phase]

    @rule(recording=recordings)
    def slice(self, recording: Recording) -> None:
        name = f"{recording.epoch}-{len(recording.slices)}.ts"
        self._emit(recording, SliceCommitted(slice=a_slice(name, len(recording.slices), epoch=recording.epoch)))
        if recording.is_heard:
            recording.slices[name] = None

    @rule(recording=recordings, backup=st.booleans())
    def a_slice_is_stored(self, recording: Recording, backup: bool) -> None:
        waiting = [name for name, store in recording.slices.items() if store is None or (store == "backup" and not backup)]
        if waiting:
            self._emit(recording, SliceStored(name=waiting[0], backup=backup))
            if recording.is_heard:
                recording.slices[waiting[0]] = "backup" if backup else "customer"

    @rule(recording=recordings, how=st.sampled_from(ENDS), files=st.none() | st.sampled_from(FILES))
    def end(self, recording: Recording, how: How, files: tuple[Uploading, bool] | None) -> None:
        """However it ends, in whatever state: what was recorded is still uploaded, by and by or at once."""
        self._emit(recording, Ended(outcome=how[0], reason=how[1]))
        if not recording.finished:
            recording.note()
            recording.status = 7
        if files:
            self._finished(recording, how, *files)

    @precondition(lambda self: any(not recording.live and not recording.finished for recording in self.known))
    @rule(how=st.sampled_from(ENDS), files=st.sampled_from(FILES))
    def everything_is_uploaded(self, how: How, files: tuple[Uploading, bool]) -> None:
        """Or as much as can be for now."""
        recording = next(recording for recording in self.known if not recording.live and not recording.finished)
        self._finished(recording, how, *files)

    @rule(recording=recordings)
    def the_disk_fails(self, recording: Recording) -> None:
        """The agent's last words, which it may also have to say of a recording that has ended already."""
        self._finished(recording, ("failed", "spool_full"), "unknown", behind=False)

    @precondition(lambda self: any(recording.behind for recording in self.known))
    @rule(uploading=st.sampled_from(["uploaded", "backuped", "unknown"]))
    def what_was_left_behind_is_settled(self, uploading: Uploading) -> None:
        """All files have come from the backup store, or their time is over. What is told after that is too late."""
        recording = next(recording for recording in self.known if recording.behind)
        if uploading == "uploaded":
            for name in [name for name, store in recording.slices.items() if store != "customer"]:
                self._emit(recording, SliceStored(name=name))
                recording.slices[name] = "customer"
        self._emit(recording, BackupProgress(left=0))
        self._emit(recording, BackupDone(uploading=uploading))
        recording.uploading, recording.behind = uploading, False
        self._emit(recording, BackupDone(uploading="unknown"))

    @precondition(lambda self: any(recording.behind for recording in self.known) and not self.ages)
    @rule()
    def the_node_never_settles_it(self) -> None:
        """So its secrets are wiped in the end."""

        async def act() -> None:
            await self._pass((RESCUE_DAYS + 1) * DAY_MS)
            for recording in self.known:
                recording.note()
                recording.behind = False

        self.ages += 1
        self.deployment.run(act())

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
            recording.lost += recording.is_heard
            await self._claim(recording)

        self.deployment.run(act())

    @rule(recording=recordings)
    def an_epoch_goes_astray(self, recording: Recording) -> None:
        """The agent is killed after a claim and before it has noted the answer: nobody uses that epoch."""

        async def act() -> None:
            if recording.changeable:
                former = recording.epoch
                await self._agent.peer.request(Claim(sid=recording.task.sid, node=NODE))
                recording.epoch += 1
                assert await self._agent.claim(recording.task.sid, resume=former) == Refused(reason="stale")
                await self._claim(recording)

        self.deployment.run(act())

    @rule(recording=recordings, call=st.sampled_from(CALLS), back=st.integers(0, 3).map(bool))
    def the_node_is_away(self, recording: Recording, call: Call, back: bool) -> None:
        """One call meanwhile; then the node is back, with the recording or without it."""

        async def act() -> None:
            await self.deployment.disconnect()
            expected = self._of_unreached(recording, call, NOT_REACHED)
            assert outcome(await self._call(recording, call)) == expected
            self._after_unreached(recording, call, expected)
            await self._reconnect(without=None if back else recording)

        self.deployment.run(act())

    @rule(recording=recordings, call=st.sampled_from(["update", "storage", "stop"]))
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

    @precondition(lambda self: self.restarts < 2)
    @rule(recording=recordings, call=st.sampled_from(CALLS[1:]))
    def the_control_plane_is_killed_in_a_call(self, recording: Recording, call: Call) -> None:
        """The node has the command, and nobody hears its answer: a stop and keys are kept, other changes are not."""

        async def act() -> None:
            if self._of_unreached(recording, call, NOT_KNOWN) != NOT_KNOWN:
                return
            self._agent.silent.set()
            told = len(self._agent.commands(recording.task.sid))
            calling = asyncio.ensure_future(self._call(recording, call, 2))
            await eventually(lambda: len(self._agent.commands(recording.task.sid)) > told)
            await self._kill(calling)
            self._after_unreached(recording, call, NOT_KNOWN, 2)

        self.deployment.run(act())

    @precondition(lambda self: self.restarts < 2)
    @rule(recording=recordings)
    def the_control_plane_is_killed_before_it_answers_the_node(self, recording: Recording) -> None:
        """What it noted is told again, and counts once."""

        async def act() -> None:
            event = WorkerLost(detail="killed")
            await self._agent.emit(recording.task.sid, event, epoch=recording.epoch, sequence=30_000)
            if recording.is_heard and recording.told_again != recording.epoch:
                recording.lost, recording.told_again = recording.lost + 1, recording.epoch
            await self._kill()
            await self._agent.emit(recording.task.sid, event, epoch=recording.epoch, sequence=30_000)

        self.deployment.run(act())

    # ---- time ------------------------------------------------------------------------------------------------------

    @rule(minutes=st.sampled_from([1, 1, 6, 61]))
    def time_passes(self, minutes: int) -> None:
        self.deployment.run(self._pass(minutes * MINUTE_MS))

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
                assert (row.sealed_spec is None) == (not recording.is_heard), "secrets are kept as long as there is something to upload"
                assert (row.outcome, row.uploading) == (recording.how, recording.uploading) or not row.finished
                assert row.status == ((20 if recording.how in ("failed", "interrupted") else 8) if row.finished else recording.status)
                assert row.workers_lost == recording.lost
                recording.note()
                stops = [command for command in self._agent.commands(row.sid) if isinstance(command, Stop)]
                assert len(stops) >= recording.stops

        self.deployment.run(act())

    def teardown(self) -> None:
        """Every recording can be asked about after its end."""

        async def act() -> None:
            former = self._agent
            await self.deployment.disconnect()
            (await self.deployment.connect()).continue_from(former)
            for recording in self.known:
                recording.finish("interrupted", "unknown", self._now())
                self.ways.update(pairwise(["acquired", *recording.ways]))
                answer = await recording.task.caller.http.get(f"/v1/ext/recordings/{recording.task.sid}")
                if self._now() < recording.finished_ms + TOLD_DAYS * DAY_MS:
                    assert answer.status_code == 200
                    assert answer.json()["status"] in (8, 20)
                    assert {"outcome", "reason", "endTime", "uploadingStatus"} <= answer.json().keys()
                else:
                    assert answer.status_code == 404
                assert outcome(await recording.task.query()) == GONE
                await self._check_what_was_told(recording)

        self.deployment.run(act())
        self.the_database_agrees()

    async def _check_what_was_told(self, recording: Recording) -> None:
        """By the node, and of it to the customer."""
        sid = recording.task.sid
        async with self.deployment.world.plane.store.read() as session:
            slices = (await session.scalars(select(SliceRow).where(SliceRow.sid == sid))).all()
            notices = (await session.scalars(select(Notice).where(Notice.sid == sid).order_by(Notice.sequence))).all()
            seen = (await session.scalars(select(SeenEvent).where(SeenEvent.sid == sid))).all()
        assert {slice_.name: slice_.stored for slice_ in slices} == recording.slices
        assert recording.is_heard or not seen, "what nobody tells any more need not be remembered"
        assert [notice.sequence for notice in notices] == [*range(len(notices))], "without a hole"
        kinds = [notice.event_type for notice in notices]
        assert kinds[-1] == EXIT
        assert max(kinds.count(kind) for kind in (EXIT, ERROR, LEFT, UPLOADED, BACKUPED)) == 1
        assert kinds.count(FAILOVER) == max(0, recording.epoch - 1)

    # ---- what the contract says ------------------------------------------------------------------------------------

    def _of_start(self, resource: Resource) -> tuple[int, int | None]:
        if resource.recording:
            return EXPIRED if resource.recording.finished else ALREADY
        if self._now() - resource.issued_ms > 5 * MINUTE_MS:
            self.ways["acquired", "expired"] += 1
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
            case "storage":
                expected = OK if self._found(recording) else GONE
            case _:
                expected = self._of_change(recording)
        return unreached if expected == OK else expected

    def _after_unreached(self, recording: Recording, call: Call, answer: tuple[int, int | None], value: int = 1) -> None:
        if answer not in (NOT_REACHED, NOT_KNOWN):
            return
        match call:
            case "stop":  # the wish is kept
                self._stopped(recording)
            case "storage":
                self._changed(recording, call, value)

    def _changed(self, recording: Recording, call: Call, value: int) -> None:
        match call:
            case "update":
                recording.only = value
            case "updateLayout" if recording.mode == "mix":
                recording.layout = value
            case "storage":
                recording.key = key(value)

    def _stopped(self, recording: Recording) -> None:
        recording.note()
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

    async def _acquire(self, uid: str) -> Resource:
        return Resource(await self._caller(uid).resource(resourceExpiredHour=WINDOW_HOURS), uid, self._now())

    def _begun(self, resource: Resource, sid: str, mode: Mode, *, epoch: int = 1) -> Recording:
        task = Task(self._caller(resource.uid), resource.id, sid, mode)
        resource.recording = Recording(task, resource.uid, mode, self._now(), epoch)
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
            case "storage":
                return recording.task.post("update", {"storageConfig": storage(value)})
            case "stop":
                return recording.task.stop(async_stop=True)

    def _emit(self, recording: Recording, body: EventBody, *, epoch: int | None = None, sequence: int | None = None) -> None:
        number = recording.epoch if epoch is None else epoch
        answer = self.deployment.run(self._agent.emit(recording.task.sid, body, epoch=number, sequence=sequence))
        assert answer == Done()

    def _finished(self, recording: Recording, how: How, uploading: Uploading, behind: bool) -> None:
        self._emit(recording, Finished(outcome=how[0], reason=how[1], uploading=uploading, leaves_behind=behind))
        recording.finish(how[0], uploading, self._now(), behind=behind)

    async def _claim(self, recording: Recording) -> None:
        """For a new worker, which what is being stopped does not get."""
        answer = await self._agent.claim(recording.task.sid)
        if not recording.changeable:
            assert answer == Refused(reason="exiting")
            return
        assert isinstance(answer, Claimed)
        recording.epoch += 1
        assert answer.epoch == recording.epoch
        self._check_spec(recording, answer)

    def _offers(self, sid: str) -> int:
        return sum(isinstance(message, Offer) and message.sid == sid for message in self._agent.received)

    async def _pass(self, milliseconds: int) -> None:
        """Time, and what is due is done at once."""
        self.deployment.clock.ahead_ms += milliseconds
        await self.deployment.world.plane.recovery.look()

    async def _kill(self, *calls: asyncio.Future[Any], claims: bool = True) -> None:
        self.restarts += 1
        await self.deployment.kill(*calls)
        for recording in self.known:
            recording.task.caller = self._caller(recording.uid)
        await self._reconnect(claims=claims)

    async def _reconnect(self, without: Recording | None = None, *, claims: bool = True) -> None:
        former = self._agent
        back = [recording for recording in self.known if recording is not without and not recording.finished]
        agent = await self.deployment.connect(tuple(recording.task.sid for recording in back), claims=claims)
        agent.continue_from(former)
        if without and not without.finished:
            without.finish("interrupted", "unknown", self._now())
            without.stops = 0  # nobody is there to be told
        for recording in back:
            await self._deliver(recording)

    async def _deliver(self, recording: Recording) -> None:
        """What the node has not been told is told again."""
        await self.deployment.world.plane.recovery.look()

    def _check_spec(self, recording: Recording, claimed: Claimed) -> None:
        assert claimed.spec["layout"]["number"] == recording.layout
        assert claimed.spec["storage"]["access_key"] == recording.key
        audio = claimed.spec["subscription"]["audio"]
        assert (audio["kind"], audio["uids"]) == (("all", []) if recording.only is None else ("only", [recording.only]))

    @staticmethod
    def _or_nothing(recording: Recording | None) -> Recording | Any:
        return recording or multiple()


def outcome(answer: httpx.Response) -> tuple[int, int | None]:
    """HTTP status and code."""
    return answer.status_code, answer.json().get("code")


def key(number: int) -> str:
    return secret(f"access-key-{number}")


def storage(number: int) -> dict[str, object]:
    """The bucket, with other keys."""
    return STORAGE | {"accessKey": key(number)}


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[type[Life]]:
    """The machine, on a deployment of its own."""
    callbacks = Callbacks(allow_http=True, allowed_networks=LOOPBACK)
    deployment = Deployment(folder, Patience(start_seconds=5, stop_seconds=5), callbacks)
    try:
        deployment.run(deployment.start())
        deployment.run(_tell_nobody(deployment.world))
        deployment.run(deployment.connect())
        yield type("Life", (Life,), {"deployment": deployment, "ways": Counter()})
    finally:
        deployment.close()


def live_through(folder: Path, *, examples: int, steps: int, repeatable: bool) -> None:
    """Run the machine; a failure prints the shortest way to it that was found."""
    with machine(folder) as life:
        run_state_machine_as_test(
            life,
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


async def _tell_nobody(world: World) -> None:
    """Notices are written, for a receiver that is gone for good: nobody tries to deliver them."""
    url = "http://127.0.0.1:8009/callbacks"
    await world.plane.endpoints.set(world.caller.app_id, url=url, events=[ERROR, EXIT, FAILOVER, UPLOADED, BACKUPED, STARTED, LEFT])
    async with world.plane.store.write() as session:
        await session.execute(update(Endpoint).values(gone_ms=1))
