"""Calls made from the served description, right and wrong: every answer must be one that it tells of, and none an error of ours.

A schema does not tell which recordings there are, nor how fields depend on each other. So some recordings are kept, and most calls
name one of them; and many bodies are those of `bodies`, which keep to the rules.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from api.callback_routes import PATH as CALLBACKS
from api.service import Patience
from recorder.protocol import Message, Stop
from recorder.settings import Callbacks
from tests.contract.conftest import STORAGE, Caller, Task, eventually
from tests.contract.fake_agent import a_file
from tests.contract.model import Deployment, Mode
from tests.fuzz import bodies

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
Operation = APIOperation[Any, Any, Any, Any]
_LIVES: Final = 40  # calls that a recording is kept for; changes add up in it
_ENDPOINT: Final = {"url": "https://127.0.0.1:1024/"}


@dataclass
class _Kept:
    task: Task
    calls: int = 0


class Harness:
    """A deployment with a node, and recordings of each mode that go on: one without media, one with slices and files.

    The node ends a recording as soon as it is told to, with all of it stored.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._kept: dict[tuple[Mode, bool], _Kept] = {}
        self._uids = count(1)

    def run_node(self) -> None:
        self.deployment.run(self.deployment.connect(script=self._obey))

    def caller(self) -> Caller:
        return replace(self.deployment.world.caller, uid=str(next(self._uids)))

    async def recording(self, mode: Mode, *, media: bool) -> Task:
        kept = self._kept.get((mode, media))
        if kept is None or kept.calls >= _LIVES or (await kept.task.query()).json().get("serverResponse", {}).get("status", 8) >= 6:
            if kept:
                await kept.task.stop(async_stop=True)
            kept = self._kept[mode, media] = _Kept(await self._begun(mode, media))
        kept.calls += 1
        return kept.task

    async def _begun(self, mode: Mode, media: bool) -> Task:
        agent = self.deployment.agent
        more: dict[str, object] = {"recordingFileConfig": {"avFileType": ["hls", "mp4"]}} if mode == "mix" and media else {}
        task = await self.caller().started(mode, storageConfig=STORAGE, **more)
        await eventually(lambda: task.sid in agent.claimed)
        if media:
            await agent.record(task.sid, f"{task.sid}_1.ts", f"{task.sid}_2.ts")
            await agent.emit(task.sid, a_file(f"{task.sid}_0.mp4", uid=0 if mode == "mix" else 7, mixed=mode == "mix"))
        return task

    def _obey(self, message: Message) -> None:
        agent = self.deployment.agent
        if isinstance(message, Stop) and message.sid in agent.claimed:
            agent._tasks.create_task(agent.finish(message.sid))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Harness]:
    """Callbacks may go to this machine, where nobody takes them."""
    callbacks = Callbacks(allowed_networks=("127.0.0.0/8",))
    deployment = Deployment(folder, Patience(start_seconds=0, stop_seconds=5), callbacks)
    deployment.run(deployment.start())
    harness = Harness(deployment)
    harness.run_node()
    try:
        yield harness
    finally:
        deployment.close()


def operations(harness: Harness) -> list[Operation]:
    schema = schemathesis.openapi.from_dict(harness.deployment.world.plane.app.openapi())
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def statuses(harness: Harness, operation: Operation, kind: GenerationMode, cases: int, *, random: bool) -> Counter[int]:
    """Make at most so many calls of the operation and check the answers; returns how often each HTTP status came.

    `random`: other ones each time.
    """
    seen: Counter[int] = Counter()
    ours = _bodies(operation)

    @settings(
        max_examples=cases,
        derandomize=not random,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    @given(
        case=operation.as_strategy(kind),
        known=st.integers(0, 3).map(lambda number: number < 3),
        mode=st.sampled_from(["mix", "individual"]),
        media=st.booleans(),
        body=st.one_of(ours, ours, ours, st.none()),
    )
    def call(case: Case[Any], known: bool, mode: Mode, media: bool, body: Mapping[str, Any] | None) -> None:
        if body is not None:
            case.body = dict(body)
        try:
            answer = harness.deployment.run(_send(harness, case, known, mode, media))
        except httpx.InvalidURL:  # longer than the client sends
            reject()
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    call()
    return seen


def _bodies(operation: Operation) -> st.SearchStrategy[Any]:
    """By the rules; nothing for an operation without a body."""
    if operation.method.upper() not in ("POST", "PUT") or operation.path == f"{CALLBACKS}/test":
        return st.nothing()
    words = operation.path.split("/")
    name = "/".join(words[-2:]) if words[-2:] in (["mix", "start"], ["individual", "start"], ["storage", "test"]) else words[-1]
    made = bodies.fitting(name, STORAGE)
    return made.map(lambda request: {"clientRequest": request}) if "cloud_recording" in words else made


async def _send(harness: Harness, case: Case[Any], known: bool, mode: Mode, media: bool) -> httpx.Response:
    """`known`: with ids and names that exist; made-up ones are turned away before the rest is looked at."""
    caller = harness.caller()
    if known:
        await _make_known(harness, caller, case, mode, media)
    call: dict[str, Any] = case.as_transport_kwargs(base_url="http://api.test")
    body = {"json": call["json"]} if "json" in call else {"content": call.get("data")}
    return await caller.http.request(call["method"], call["url"], params=call.get("params"), **body)


async def _make_known(harness: Harness, caller: Caller, case: Case[Any], mode: Mode, media: bool) -> None:
    path = case.path_parameters
    template = case.operation.path
    if "appid" in path:
        path["appid"] = caller.app_id
    if template.startswith(CALLBACKS) and case.method.upper() != "PUT":
        await caller.http.put(CALLBACKS.format(appid=caller.app_id), json=_ENDPOINT)
    if "sid" in path:
        task = await harness.recording("mix" if template.endswith("updateLayout") else mode, media=media)
        caller = task.caller
        path |= {name: value for name, value in (("resourceid", task.resource), ("sid", task.sid), ("mode", task.mode)) if name in path}
    elif "resourceid" in path:
        path["resourceid"] = await caller.resource()
    if isinstance(case.body, dict) and "cloud_recording" in template:
        case.body |= {"cname": caller.cname, "uid": caller.uid}
