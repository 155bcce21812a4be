"""Calls made from the served description, right and wrong: every answer must be one that it tells of, and none an error of ours."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from api.service import Patience
from tests.contract.conftest import Caller, Task, eventually
from tests.contract.model import Deployment

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
Operation = APIOperation[Any, Any, Any, Any]
_uids = count(1)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Deployment]:
    deployment = Deployment(folder, Patience(start_seconds=0, stop_seconds=0))
    deployment.run(deployment.start())
    deployment.run(deployment.connect())
    try:
        yield deployment
    finally:
        deployment.close()


def operations(deployment: Deployment) -> list[Operation]:
    schema = schemathesis.openapi.from_dict(deployment.world.plane.app.openapi())
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def statuses(deployment: Deployment, operation: Operation, kind: GenerationMode, cases: int, *, random: bool) -> Counter[int]:
    """Make at most so many calls of the operation and check the answers; returns how often each HTTP status came.

    `random`: other ones each time.
    """
    seen: Counter[int] = Counter()

    @settings(
        max_examples=cases,
        derandomize=not random,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    @given(case=operation.as_strategy(kind), known=st.integers(0, 3).map(lambda number: number < 3))
    def call(case: Case[Any], known: bool) -> None:
        try:
            answer = deployment.run(_send(deployment, case, known))
        except httpx.InvalidURL:  # longer than the client sends
            reject()
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    call()
    return seen


async def _send(deployment: Deployment, case: Case[Any], known: bool) -> httpx.Response:
    """`known`: with ids and names that exist; made-up ones are turned away before the rest is looked at."""
    caller = replace(deployment.world.caller, uid=str(next(_uids)))
    if known:
        await _make_known(deployment, caller, case)
    call: dict[str, Any] = case.as_transport_kwargs(base_url="http://api.test")
    body = {"json": call["json"]} if "json" in call else {"content": call.get("data")}
    return await caller.http.request(call["method"], call["url"], params=call.get("params"), **body)


async def _make_known(deployment: Deployment, caller: Caller, case: Case[Any]) -> None:
    path = case.path_parameters
    if "appid" in path:
        path["appid"] = caller.app_id
    if "resourceid" in path:
        task = await _running(deployment, caller) if "sid" in path else Task(caller, await caller.resource(), "")
        path |= {name: value for name, value in (("resourceid", task.resource), ("sid", task.sid), ("mode", task.mode)) if name in path}
    elif "sid" in path:
        path["sid"] = (await _running(deployment, caller)).sid
    if isinstance(case.body, dict):
        case.body |= {"cname": caller.cname, "uid": caller.uid}


async def _running(deployment: Deployment, caller: Caller) -> Task:
    task = await caller.started()
    await eventually(lambda: task.sid in deployment.agent.claimed)
    return task
