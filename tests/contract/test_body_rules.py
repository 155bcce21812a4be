"""Rules on values, which no schema tells: every field of start, update and updateLayout at its limits and beyond.

Right bodies are taken, wrong ones answered with one error that names each wrong field and no other.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api.service import Patience
from tests.contract.conftest import STORAGE, Caller, Task, eventually
from tests.contract.model import Deployment
from tests.fuzz import bodies

EXAMPLES = 80  # of each
_rooms = count()

some = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("data"), Patience(start_seconds=0, stop_seconds=0))
    deployment.run(deployment.start())
    deployment.run(deployment.connect())
    yield deployment
    deployment.close()


@pytest.fixture(scope="module")
def task(deployment: Deployment) -> Task:
    async def begin() -> Task:
        task = await _caller(deployment).started(storageConfig=STORAGE)
        await eventually(lambda: task.sid in deployment.agent.claimed)
        return task

    return deployment.run(begin())


def _caller(deployment: Deployment) -> Caller:
    return replace(deployment.world.caller, cname=f"rules {next(_rooms)}")


def check(answer: httpx.Response, wrong: bodies.Wrong, below: str = "clientRequest") -> None:
    if not wrong:
        assert answer.status_code == 200, answer.text
        return
    assert (answer.status_code, answer.json()["code"]) == (400, 2), answer.text
    assert {part.split(":")[0] for part in answer.json()["reason"].split("; ")} == {f"{below}.{path}" for path in wrong}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("mode", ["mix", "individual"])
def test_start(deployment: Deployment, mode: str, wrong: bool) -> None:
    @some
    @given(bodies.start(mode, wrong=wrong))
    def start(made: tuple[dict[str, Any], bodies.Wrong]) -> None:
        async def call() -> httpx.Response:
            caller = _caller(deployment)
            return await caller.start(await caller.resource(), mode, **made[0])

        check(deployment.run(call()), made[1])

    start()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("wrong", [False, True])
def test_update_layout(deployment: Deployment, task: Task, wrong: bool) -> None:
    @some
    @given(bodies.layout(wrong=wrong))
    def update(made: tuple[dict[str, Any], bodies.Wrong]) -> None:
        check(deployment.run(task.post("updateLayout", made[0])), made[1])

    update()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("wrong", [False, True])
def test_update(deployment: Deployment, task: Task, wrong: bool) -> None:
    lists, keys = bodies.subscription(wrong=wrong), bodies.other_keys(STORAGE, wrong=wrong)

    @some
    @given(st.one_of(st.tuples(st.just("streamSubscribe"), lists), st.tuples(st.just("storageConfig"), keys)))
    def update(made: tuple[str, tuple[Any, bodies.Wrong]]) -> None:
        name, (value, problems) = made
        check(deployment.run(task.post("update", {name: value})), problems, f"clientRequest.{name}")

    update()
