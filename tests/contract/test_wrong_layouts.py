"""Layouts as they must not be (row M10 of the faults), in start and in updateLayout alike: each wrong field is named."""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

import pytest
import pytest_asyncio

from api.gateway import LARGEST_BODY_BYTES
from recorder.protocol import SetLayout
from recorder.spec import Layout, Region, UserBackground
from tests.contract.conftest import Caller, World, a_deployment, open_world
from tests.contract.fake_agent import FakeAgent
from tests.contract.test_wrong_input import assert_invalid

# Nothing here changes the deployment, so that all tests share one.
pytestmark = pytest.mark.asyncio(loop_scope="module")
_channels = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with open_world(a_deployment(tmp_path_factory.mktemp("data"))) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def agent(world: World) -> AsyncIterator[FakeAgent]:
    async with world.agent() as agent:
        yield agent


@pytest.fixture
def caller(world: World) -> Caller:
    return replace(world.caller, cname=f"layout {next(_channels)}")


WHOLE = {"x_axis": 0, "y_axis": 0, "width": 1, "height": 1}
REST = {key: value for key, value in WHOLE.items() if key != "width"}
ANY = "https://example.com/a.jpg"
R = "layoutConfig[0]"
B = "backgroundConfig[0]"


def regions(*given: object, layout: object = 3) -> dict[str, object]:
    return {"mixedVideoLayout": layout, "layoutConfig": list(given)}


NOTHING: list[object] = [-0.1, 1.1, "0", None, True, []]
ABSURD: list[object] = [{}, {"uid": "x"}, {"x_axis": 1e308}, [], 1]

WRONG: Sequence[tuple[Mapping[str, object], Sequence[str]]] = [
    ({"mixedVideoLayout": 4}, ["mixedVideoLayout"]),
    ({"mixedVideoLayout": -1}, ["mixedVideoLayout"]),
    ({"mixedVideoLayout": 1.0}, ["mixedVideoLayout"]),
    ({"mixedVideoLayout": True}, ["mixedVideoLayout"]),
    ({"mixedVideoLayout": "1"}, ["mixedVideoLayout"]),
    ({"mixedVideoLayout": None}, ["mixedVideoLayout"]),
    ({"mixedVideoLayout": 10**30}, ["mixedVideoLayout"]),
    ({"mixedVideoLayout": 3}, ["layoutConfig"]),
    ({"mixedVideoLayout": 3, "layoutConfig": []}, ["layoutConfig"]),
    ({"mixedVideoLayout": 3, "layoutConfig": {}}, ["layoutConfig"]),
    ({"layoutConfig": "all"}, ["layoutConfig"]),
    (regions(*[WHOLE] * 18), ["layoutConfig"]),
    (regions(*[WHOLE] * 18, layout=0), ["layoutConfig"]),
    (regions("x"), [R]),
    (regions({}), [f"{R}.{key}" for key in WHOLE]),
    (regions(REST), [f"{R}.width"]),
    *[(regions(WHOLE | {key: value}), [f"{R}.{key}"]) for key in WHOLE for value in NOTHING],
    *[(regions(WHOLE | {key: float(value)}), [f"{R}.{key}"]) for key in WHOLE for value in ("nan", "inf", "-inf")],
    *[(regions(WHOLE | {key: value}), [f"{R}.{key}"]) for key in ("width", "height") for value in (10**400, -(10**400), 1e308)],
    (regions(WHOLE | {"x_axis": 0.1}), [f"{R}.width"]),
    (regions(WHOLE | {"x_axis": 0.1, "y_axis": 0.000001}), [f"{R}.width", f"{R}.height"]),
    (regions(WHOLE, WHOLE | {"y_axis": 1}), ["layoutConfig[1].height"]),
    *[(regions(WHOLE | {"uid": uid}), [f"{R}.uid"]) for uid in (7, "0", "-1", "4294967296", "1.0", " 1", "x", None, "\u0661")],
    *[(regions(WHOLE | {"alpha": value}), [f"{R}.alpha"]) for value in (-0.01, 1.01, "1", float("nan"))],
    *[(regions(WHOLE | {"render_mode": value}), [f"{R}.render_mode"]) for value in (2, -1, "0", 0.0, False)],
    *[({"maxResolutionUid": uid, "mixedVideoLayout": 2}, ["maxResolutionUid"]) for uid in (7, "0", "4294967296", "all", None)],
    *[
        ({"backgroundColor": value}, ["backgroundColor"])
        for value in (
            "",
            "red",
            "#fff",
            "#12345",
            "#1234567",
            "#12345g",
            "123456",
            "#123456\n",
            "#\uff11\uff11\uff11\uff11\uff11\uff11",
            0,
            None,
        )
    ],
    ({"backgroudColor": "red"}, ["backgroudColor"]),
    *[
        ({field: url}, [field])
        for field in ("backgroundImage", "defaultUserBackgroundImage")
        for url in (
            "ftp://example.com/a.jpg",
            "file:///etc/passwd",
            "data:image/png;base64,iVBORw0KGgo=",
            "gopher://example.com/",
            "//example.com/a.jpg",
            "/a.jpg",
            "http://",
            "http:///a.jpg",
            "http://example.com:0x50/",
            "http://example.com:99999/",
            "http://[::1/",
            "http://user:pw@example.com/a.jpg",
            "http://example.com/a b.jpg",
            "http://example.com/\r\nHost: x",
            "http://example.com/\x00",
            "http://example.com/" + "a" * 2048,
            7,
            None,
            [ANY],
        )
    ],
    ({"backgroundConfig": {}}, ["backgroundConfig"]),
    ({"backgroundConfig": [{}]}, [f"{B}.uid", f"{B}.image_url"]),
    ({"backgroundConfig": [{"uid": "", "image_url": ""}]}, [f"{B}.uid", f"{B}.image_url"]),
    ({"backgroundConfig": [{"uid": 1, "image_url": 1, "render_mode": 2}]}, [f"{B}.uid", f"{B}.image_url", f"{B}.render_mode"]),
    ({"backgroundConfig": [{"uid": "1", "image_url": "http://a@b/"}]}, [f"{B}.image_url"]),
    ({"backgroundConfig": [{"uid": str(n), "image_url": ANY} for n in range(1, 51)]}, ["backgroundConfig"]),
    (
        regions(WHOLE | {"alpha": 2}, {"uid": "0"}) | {"backgroundColor": "red", "backgroundImage": "x", "maxResolutionUid": "y"},
        [f"{R}.alpha", *(f"layoutConfig[1].{key}" for key in ("uid", *WHOLE)), "backgroundColor", "backgroundImage", "maxResolutionUid"],
    ),
]


@pytest.mark.parametrize(("layout", "named"), WRONG)
async def test_start_and_update_name_every_wrong_field(
    caller: Caller, agent: FakeAgent, layout: dict[str, object], named: list[str]
) -> None:
    # Not by httpx's encoder, which refuses what Python's parser takes: NaN, infinities.
    resource = await caller.resource()
    task = await caller.started()
    start = caller.envelope({"storageConfig": {"vendor": 100, "region": 0, "bucket": "b", "accessKey": "", "secretKey": ""}})
    start["clientRequest"]["recordingConfig"] = {"transcodingConfig": layout}  # type: ignore[index]  # an object
    for path, body, prefix in (
        (f"{caller.base}/resourceid/{resource}/mode/mix/start", start, "clientRequest.recordingConfig.transcodingConfig"),
        (f"{task.path}/updateLayout", caller.envelope(layout), "clientRequest"),
    ):
        answer = await caller.http.post(path, content=json.dumps(body))
        assert_invalid(answer, [f"{prefix}.{name}" for name in named])
    assert agent.commands(task.sid) == []


async def test_an_update_replaces_everything(caller: Caller, agent: FakeAgent) -> None:
    task = await caller.started(
        recordingConfig={
            "transcodingConfig": {"mixedVideoLayout": 2, "maxResolutionUid": "7", "backgroundColor": "#ffffff", "backgroundImage": ANY}
        }
    )
    full = {
        "mixedVideoLayout": 3,
        "maxResolutionUid": "4294967295",
        "layoutConfig": [{"uid": "", "x_axis": 0.333333, "y_axis": 0, "width": 0.666667, "height": 1.0, "alpha": 0, "render_mode": 1}],
        "backgroudColor": "#12aBcD",
        "backgroundImage": "http://example.com:8080/a%20b.jpg?x=1",
        "defaultUserBackgroundImage": "HTTPS://example.com/\u00fc.bmp",
        "backgroundConfig": [{"uid": "9", "image_url": ANY, "render_mode": 1}],
        "unknown": {"deep": [float("1")]},
    }
    for layout in (full, {}, {"layoutConfig": [WHOLE], "mixedVideoLayout": 1}):
        assert (await task.post("updateLayout", layout)).status_code == 200
    sent = [command.layout for command in agent.commands(task.sid) if isinstance(command, SetLayout)]
    assert sent == [
        Layout(
            number=3,
            max_resolution_uid=4294967295,
            regions=(Region(x=0.333333, y=0, width=0.666667, height=1, alpha=0, fit=True),),
            background_color="#12aBcD",
            background_image="http://example.com:8080/a%20b.jpg?x=1",
            default_user_background_image="HTTPS://example.com/\u00fc.bmp",
            user_backgrounds=(UserBackground(uid=9, url=ANY, fit=True),),
        ),
        Layout(),
        Layout(number=1),
    ]


async def test_absurd_layouts_cost_no_more_than_their_length(caller: Caller, agent: FakeAgent) -> None:
    """Bodies of half the largest size and of the largest: twice the time, not four times, and little of it."""
    task = await caller.started()

    async def seconds(layout: dict[str, object]) -> float:
        content = json.dumps(caller.envelope(layout))
        assert len(content) < LARGEST_BODY_BYTES
        before = time.process_time()
        answer = await caller.http.post(f"{task.path}/updateLayout", content=content)
        assert answer.status_code == 400
        return time.process_time() - before

    for one in ABSURD:
        many = 60_000 // (len(json.dumps(one)) + 2)
        for field in ("layoutConfig", "backgroundConfig"):
            await seconds({field: [one] * (many // 2)})
            half = min([await seconds({field: [one] * (many // 2)}) for _ in range(2)])
            whole = min([await seconds({field: [one] * many}) for _ in range(2)])
            assert whole < max(3.5 * half, 0.05), (field, one, half, whole)
            assert whole < 2
    for text in ("9" * 4000, "#" + "0" * 60_000, "http://" + "a." * 30_000, "http://" + "[" * 60_000):
        assert await seconds({"backgroundColor": text, "maxResolutionUid": 0}) < 0.5
        assert await seconds({"backgroundImage": text[:60_000], "maxResolutionUid": text[:10]}) < 0.5
