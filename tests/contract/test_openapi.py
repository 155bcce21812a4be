"""The served description: it has every call, and says nothing that is not answered."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from recorder.metrics import REGISTRY
from tests.contract.conftest import World

APP = "/v1/apps/{appid}/cloud_recording"
TASK = APP + "/resourceid/{resourceid}/sid/{sid}"
CALLS = {
    f"{APP}/acquire": ("post", {"200", "400", "500", "default"}),
    f"{APP}/resourceid/{{resourceid}}/mode/mix/start": ("post", {"200", "201", "206", "400", "500", "default"}),
    f"{APP}/resourceid/{{resourceid}}/mode/individual/start": ("post", {"200", "201", "206", "400", "500", "default"}),
    f"{TASK}/mode/{{mode}}/query": ("get", {"200", "206", "400", "404", "500", "504", "default"}),
    f"{TASK}/mode/{{mode}}/update": ("post", {"200", "206", "400", "404", "500", "504", "default"}),
    f"{TASK}/mode/mix/updateLayout": ("post", {"200", "206", "400", "404", "500", "504", "default"}),
    f"{TASK}/mode/{{mode}}/stop": ("post", {"200", "206", "400", "404", "500", "504", "default"}),
    "/v1/ext/usage": ("get", {"200", "400", "500", "default"}),
    "/v1/ext/recordings/{sid}": ("get", {"200", "400", "404", "500", "default"}),
    "/v1/ext/recordings/{sid}/storage": ("post", {"200", "206", "400", "404", "500", "504", "default"}),
    "/v1/ext/storage/test": ("post", {"200", "400", "500", "default"}),
    "/v1/ext/keys": ("get", {"200", "400", "500", "default"}),
    "/v1/ncs/ip": ("get", {"200", "400", "500", "default"}),
}
CALLBACKS = "/v1/ext/apps/{appid}/callbacks"
CALLBACK_CALLS = {CALLBACKS: ("get", "put", "delete"), f"{CALLBACKS}/dead": ("get",)} | {
    f"{CALLBACKS}/{call}": ("post",) for call in ("secret", "test", "replay")
}
SNAKE_CASE_ON_THE_WIRE = {"async_stop", "x_axis", "y_axis", "render_mode", "image_url"}


@pytest.fixture
async def description(world: World) -> dict[str, Any]:
    answer = await world.caller.http.get("/openapi.json", auth=lambda request: request)
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


async def test_it_has_every_call_with_its_statuses(description: dict[str, Any]) -> None:
    described = {path: tuple(item) for path, item in description["paths"].items()}
    assert described == {path: (method,) for path, (method, _) in CALLS.items()} | CALLBACK_CALLS
    for path, methods in CALLBACK_CALLS.items():
        for method in methods:
            assert set(description["paths"][path][method]["responses"]) >= {"200", "400", "404", "500", "default"}, path
    for path, (method, statuses) in CALLS.items():
        operation = description["paths"][path][method]
        assert set(operation["responses"]) == statuses, path
        assert operation["security"] == [{"HTTPBasic": []}]
        assert ("requestBody" in operation) == (method == "post")


async def test_it_speaks_wire_names_and_bounds(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    for name in (property_ for schema in schemas.values() for property_ in schema.get("properties", {})):
        assert "_" not in name or name in SNAKE_CASE_ON_THE_WIRE
    assert not [key for default in _defaults(schemas) if isinstance(default, dict) for key in default]
    idle = schemas["MixRecordingConfig"]["properties"]["maxIdleTime"]
    assert (idle["minimum"], idle["maximum"], idle["default"]) == (5, 2_592_000, 30)
    assert set(schemas["StartMixRequest"]["required"]) == {"cname", "uid", "clientRequest"}


async def test_its_patterns_are_those_of_the_checks(description: dict[str, Any]) -> None:
    fields = description["components"]["schemas"]["AcquireRequest"]["properties"]
    characters = [chr(code) for code in range(0x250)]
    legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 !#$%&()+-:;<=.>?@[]^_{}|~,"
    assert {one for one in characters if re.search(fields["cname"]["pattern"], one)} == set(legal)
    assert re.search(fields["cname"]["pattern"], "x" * 63)
    assert not re.search(fields["cname"]["pattern"], "x" * 64)
    assert [uid for uid in ("0", "01", "1", "4294967295", "x", "12345678901") if re.search(fields["uid"]["pattern"], uid)] == [
        "1",
        "4294967295",
    ]


async def test_it_tells_what_update_needs(description: dict[str, Any]) -> None:
    update = description["components"]["schemas"]["UpdateParameters"]
    assert [choice["required"] for choice in update["anyOf"]] == [["streamSubscribe"], ["storageConfig"]]


async def test_it_requires_of_an_endpoint_only_what_every_answer_has(world: World, description: dict[str, Any]) -> None:
    answer = await world.caller.http.put(f"/v1/ext/apps/{world.caller.app_id}/callbacks", json={"url": "https://203.0.114.1/"})
    assert answer.status_code == 200
    assert answer.json().keys() >= set(description["components"]["schemas"]["Endpoint"]["required"])


async def test_every_answer_is_counted(world: World) -> None:
    def count(call: str, status: str) -> float:
        return REGISTRY.get_sample_value("recorder_requests_total", {"call": call, "status": status}) or 0

    before = (count("acquire", "200"), count("none", "404"), count("acquire", "401"))
    await world.caller.acquire()
    await world.caller.http.get("/nowhere")
    await world.caller.http.post(f"{world.caller.base}/acquire", auth=("a", "b"))
    assert (count("acquire", "200"), count("none", "404"), count("acquire", "401")) == tuple(number + 1 for number in before)


def _defaults(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        if "default" in node:
            yield node["default"]
        for value in node.values():
            yield from _defaults(value)
    elif isinstance(node, list):
        for value in node:
            yield from _defaults(value)
