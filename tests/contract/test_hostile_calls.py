"""Callers who mean no good: names that look like paths, lines of a log or labels (M7, M12, M13), and bodies that cost time (M11, C8)."""

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder import log as logs
from recorder.metrics import exposition
from recorder.outputs.names import Names
from recorder.protocol import Warned
from storage.keys import object_key
from tests.contract.conftest import STORAGE, Caller, World, eventually
from tests.contract.fake_agent import FakeAgent

LARGEST = 65_536  # bytes of a body
ENOUGH_SECONDS = 0.5  # of CPU, for ten times what is asked for on a machine that is ten times slower than ours
MARK = "evil5f2b"
HOSTILE = (f"{MARK}\n2026-01-01 ERROR forged", f'{MARK}"}} 1\nforged_total 9\n', f"\x1b[2J{MARK}\r", f"{MARK}\u2028next")


# ---- names that look like paths ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cname=st.text(st.sampled_from("./\\%~\0 ab:"), min_size=1, max_size=20), prefix=st.lists(st.sampled_from(["d1", "D2"]), max_size=2))
def test_no_channel_leads_out_of_the_customers_folder(cname: str, prefix: list[str]) -> None:
    names = Names("0" * 32, cname)
    for name in (names.playlist(), names.mp4(0)):
        parts = object_key(prefix, name).split("/")
        assert parts[:-1] == prefix
        assert parts[-1].startswith("0" * 32 + "_")
        assert "\0" not in parts[-1]


@pytest.mark.parametrize("segment", ["..", "a/b", "/etc", ".", "a\\b", "a\0b", "%2e%2e", "a b", "ä", ""])
async def test_a_prefix_that_leads_elsewhere_is_refused(world: World, segment: str) -> None:
    given = {**STORAGE, "fileNamePrefix": ["d1", segment]}
    answer = await world.caller.start(await world.caller.resource(), storageConfig=given)
    assert (answer.status_code, answer.json()["code"]) == (400, 2)
    assert "clientRequest.storageConfig.fileNamePrefix" in answer.json()["reason"]


@pytest.mark.parametrize("half", [r"\ud800", r"room\udfff", r"\udc00\ud800"])
@pytest.mark.parametrize("field", ["cname", "uid"])
async def test_halves_of_characters_are_refused_like_other_names(world: World, agent: FakeAgent, field: str, half: str) -> None:
    task = await world.caller.started()
    good = {"cname": world.caller.cname, "uid": world.caller.uid}
    body = f'{{"{field}": "{half}", {", ".join(f"{json.dumps(name)}: {json.dumps(good[name])}" for name in good if name != field)}'
    for path in (f"{world.caller.base}/acquire", f"{task.path}/stop", f"{task.path}/update", f"{task.path}/updateLayout"):
        answer = await world.caller.http.post(
            path, content=f'{body}, "clientRequest": {{}}}}', headers={"Content-Type": "application/json"}
        )
        of_channel = field == "cname" and path.endswith("/acquire")
        assert (answer.status_code, answer.json()["code"]) == (400, 401 if of_channel else 2)
        assert ("invalid_channel_name" if of_channel else field) in answer.json()["reason"]
        assert field not in answer.json()  # it cannot be repeated


@pytest.mark.parametrize("bad", ["../../etc/passwd", "..%2f..%2fx", "%00", "a b", "é" * 40, "x" * 5000, "'; DROP TABLE recordings;--"])
async def test_ids_that_are_none_are_unknown(world: World, bad: str) -> None:
    inside = f"{world.caller.base}/resourceid/{quote(bad, safe='%')}"
    for path in (f"{inside}/sid/{'0' * 32}/mode/mix/query", f"{world.caller.base}/resourceid/r/sid/{quote(bad, safe='%')}/mode/mix/query"):
        answer = await world.caller.http.get(path)
        assert answer.status_code == 404
        assert answer.json().get("code", 404) == 404


# ---- lines of the log, and labels --------------------------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("DEBUG", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("text", HOSTILE)
async def test_what_callers_and_nodes_say_forges_no_line_and_makes_no_label(
    world: World, agent: FakeAgent, logged: io.StringIO, text: str
) -> None:
    caller = world.caller
    task = await caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    await agent.emit(task.sid, Warned(module=0, code=10006, detail=text))
    for path in (f"{caller.base}/{quote(text)}", f"/v1/apps/{quote(text)}/cloud_recording/acquire", f"/v1/ext/recordings/{quote(text)}"):
        assert (await caller.http.post(path, json={})).status_code in (400, 404)
        assert (await caller.http.get(path)).status_code in (400, 404)
    assert (await replace(caller, cname=text).acquire()).status_code == 400
    assert (await caller.start(await caller.resource(), token=text, storageConfig={**STORAGE, "bucket": text})).status_code == 400
    answer = await caller.http.post(f"{caller.base}/acquire", content=text.encode(), auth=(text.splitlines()[0], text))
    assert answer.status_code == 401
    assert MARK in logged.getvalue()  # what the node said is a line, and one only
    for line in logged.getvalue().split("\n"):
        assert line == "" or line[:8].count(":") == 2, line
        assert line.isprintable()
    assert MARK not in exposition().decode()


# ---- bodies that cost time ---------------------------------------------------------------------------------------


def many(entry: str, between: str = ",") -> Callable[[int], str]:
    return lambda size: between.join([entry] * ((size - 200) // (len(entry) + 1)))


BODIES: dict[str, Callable[[int], str]] = {
    "deep arrays": lambda size: "[" * (size // 2 - 100) + "]" * (size // 2 - 100),
    "deep objects": lambda size: '{"a":' * (size // 7) + "1" + "}" * (size // 7),
    "one digit after the other": lambda size: "9" * (size - 200),
    "a fraction without end": lambda size: "0." + "1" * (size - 200),
    "regions": lambda size: f'{{"mixedVideoLayout":3,"layoutConfig":[{many("{}")(size)}]}}',
    "uids": lambda size: f'{{"streamSubscribe":{{"audioUidList":{{"subscribeAudioUids":[{many(chr(34) + "7" + chr(34))(size)}]}}}}}}',
    "one key again and again": lambda size: f"{{{many(chr(34) + 'scene' + chr(34) + ':0')(size)}}}",
    "a long string": lambda size: f'{{"region":"{"x" * (size - 200)}"}}',
    "escapes": lambda size: f'{{"region":"{many(chr(92) + "ud800", "")(size)[: (size - 200) // 6 * 6]}"}}',
    "blanks": lambda size: " " * (size - 200) + "{}",
}


@pytest.mark.parametrize("kind", BODIES)
async def test_no_body_costs_much(world: World, agent: FakeAgent, kind: str) -> None:
    task = await world.caller.started()
    await eventually(lambda: task.sid in agent.claimed)
    for call in ("acquire", "start", "update", "updateLayout"):
        for size in (LARGEST, LARGEST * 4):
            path = _path(task.path, world.caller, call, await world.caller.resource())
            body = BODIES[kind](size)
            status, seconds = await _post(world.caller, path, body)
            assert status in ((200, 400) if size <= LARGEST else (413,)), (call, status)
            if seconds > ENOUGH_SECONDS:  # once it may be something else of this process: collecting garbage, another thread
                seconds = min([(await _post(world.caller, path, body))[1] for _ in range(3)])
            assert seconds < ENOUGH_SECONDS, call


def _path(task: str, caller: Caller, call: str, resource: str) -> str:
    match call:
        case "acquire":
            return f"{caller.base}/acquire"
        case "start":
            return f"{caller.base}/resourceid/{resource}/mode/mix/start"
        case _:
            return f"{task}/{call}"


async def _post(caller: Caller, path: str, request: str) -> tuple[int, float]:
    body = f'{{"cname":{json.dumps(caller.cname)},"uid":{json.dumps(caller.uid)},"clientRequest":{request}}}'
    begin = time.process_time()
    answer = await caller.http.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    return answer.status_code, time.process_time() - begin
