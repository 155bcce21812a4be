"""Every field of acquire and start: what it is when it is left out, what it may be and then means, what it must not be."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest

from recorder.spec import RecordingSpec
from tests.contract.conftest import STORAGE, Caller, Listener
from tests.contract.test_wrong_input import assert_invalid

pytestmark = pytest.mark.asyncio(loop_scope="module")

MISSING: Final = object()
NO_NUMBER: Final[Sequence[object]] = (None, "0", 0.5, True, [])
NO_TEXT: Final[Sequence[object]] = (None, 0, [], {})
NO_OBJECT: Final[Sequence[object]] = ("x", 0, [])
NO_LIST: Final[Sequence[object]] = (None, "x", 0, {})
ALL, NOBODY = {"kind": "all", "uids": []}, {"kind": "none", "uids": []}


def only(*uids: int) -> dict[str, object]:
    return {"kind": "only", "uids": list(uids)}


def excepting(*uids: int) -> dict[str, object]:
    return {"kind": "except", "uids": list(uids)}


def uids(number: int) -> list[str]:
    return [str(uid) for uid in range(1, number + 1)]


@dataclass(frozen=True)
class Row:
    """A field of start's `clientRequest`."""

    path: str
    meaning: str  # the path of what it becomes in the recording's spec
    default: object  # of that; MISSING: the field is required
    taken: Sequence[tuple[object, object]]  # what may be sent, and what it means
    refused: Sequence[object]
    beside: Mapping[str, object] = field(default_factory=dict)  # what must stand with it
    modes: Sequence[str] = ("individual", "mix")


MIX, INDIVIDUAL = ("mix",), ("individual",)
S, R, T = "storageConfig", "recordingConfig", "recordingConfig.transcodingConfig"
S3 = {"vendor": 1, "region": 0, "bucket": "rec", "accessKey": "AK", "secretKey": "SK"}
ON_S3: Final = {S: S3}

TOP = [
    Row("token", "token", None, [("t", "t"), ("", None), (None, None), ("x" * 4096, "x" * 4096)], [0, [], "x" * 4097]),
    Row(S, "storage.vendor", MISSING, [(S3, 1), (STORAGE, 11)], [None, *NO_OBJECT]),
    Row(R, "max_idle_seconds", 30, [({}, 30), ({"maxIdleTime": 60}, 60)], NO_OBJECT),
    Row("recordingFileConfig", "mp4", False, [({}, False)], NO_OBJECT),
]
STORAGE_CONFIG = [
    Row(
        f"{S}.vendor",
        "storage.vendor",
        MISSING,
        [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (11, 11), (100, 100)],
        [*NO_NUMBER, -1, 5, 6, 7, 8, 9, 12, 10**20],
        {S: STORAGE},
    ),
    Row(f"{S}.region", "storage.region", MISSING, [(0, 0), (14, 14), (25, 25), (28, 28)], [*NO_NUMBER, -1, 26, 27, 29, 10**20], ON_S3),
    Row(f"{S}.bucket", "storage.bucket", MISSING, [("a.b-c_1", "a.b-c_1")], [*NO_TEXT, "", "a/b", "../a", "a b", "a" * 256]),
    Row(f"{S}.accessKey", "storage.access_key", MISSING, [("k", "k"), ("k" * 4096, "k" * 4096)], [*NO_TEXT, "", "a\n", "k" * 4097]),
    Row(f"{S}.secretKey", "storage.secret_key", MISSING, [("k+/=", "k+/=")], [*NO_TEXT, "", "a\x00", "k" * 4097]),
    Row(f"{S}.stsToken", "storage.sts_token", None, [("t", "t"), ("", None), (None, None)], [0, [], "a\n", "t" * 16_385], ON_S3),
    Row(f"{S}.stsExpiration", "storage.sts_expires_at", None, [(0, 0), (2**40, 2**40), (None, None)], ["0", 0.5, True, -1]),
    Row(
        f"{S}.fileNamePrefix",
        "storage.prefix",
        [],
        [([], []), (["d1", "D2"], ["d1", "D2"]), (["a" * 63, "b" * 63], ["a" * 63, "b" * 63])],
        [*NO_LIST, ["a", "b/c"], ["a_b"], [""], ["[a]"], ["ä"], [1], ["a" * 64, "b" * 63]],
    ),
    Row(f"{S}.extensionParams", "storage.sse", None, [({}, None), ({"sse": "kms"}, "kms")], [None, *NO_OBJECT], ON_S3),
    Row(f"{S}.extensionParams.sse", "storage.sse", None, [("kms", "kms"), ("aes256", "aes256")], ["KMS", "", 0, []], ON_S3),
    Row(f"{S}.extensionParams.tag", "storage.tag", None, [("A=b", "A=b"), ("", None)], [0, [], "a\n"], ON_S3),
    Row(
        f"{S}.extensionParams.endpoint",
        "storage.endpoint",
        MISSING,
        [(text, text) for text in ("s3.example.com", "s3.example.com:9000", "http://10.0.0.1:9000", "https://s3.example.com/")],
        ["", None, 0, "ftp://a", "a b", "https://u:p@a", "https://a/b", "https://a?b", "https://a:x", "a" * 256],
        {S: STORAGE},
    ),
]
RECORDING_CONFIG = [
    Row(f"{R}.channelType", "live_broadcast", False, [(0, False), (1, True)], [*NO_NUMBER, -1, 2]),
    Row(f"{R}.streamTypes", "audio", True, [(0, True), (1, False), (2, True)], [*NO_NUMBER, -1, 3]),
    Row(f"{R}.streamTypes", "video", True, [(0, False), (1, True), (2, True)], []),
    Row(f"{R}.decryptionMode", "audio", True, [(0, True)], [*NO_NUMBER, -1, 9], {R: {"secret": "s"}}),
    Row(f"{R}.secret", "audio", True, [("", True), ("s", True)], NO_TEXT),
    Row(f"{R}.salt", "audio", True, [("", True)], NO_TEXT),
    Row(f"{R}.videoStreamType", "low_stream", False, [(0, False), (1, True)], [*NO_NUMBER, -1, 2]),
    Row(f"{R}.maxIdleTime", "max_idle_seconds", 30, [(5, 5), (2_592_000, 2_592_000)], [*NO_NUMBER, -1, 0, 4, 2_592_001, 2**32 - 1]),
    *[
        Row(
            f"{R}.subscribe{kind.title()}Uids",
            f"subscription.{kind}",
            ALL,
            [
                (["#allstream#"], ALL),
                (["1"], only(1)),
                (["4294967295", "1"], only(1, 4294967295)),
                (uids(32), only(*range(1, 33))),
                ([], ALL),
            ],
            [*NO_LIST, ["0"], ["01"], ["-1"], ["4294967296"], ["x"], [""], [1], ["#allstream#", "1"], uids(33)],
        )
        for kind in ("audio", "video")
    ],
    *[
        Row(
            f"{R}.{spelling}{kind.title()}Uids",
            f"subscription.{kind}",
            ALL,
            [(["7"], excepting(7)), (uids(32), excepting(*range(1, 33))), ([], ALL)],
            [*NO_LIST, ["0"], [7], ["#allstream#"], uids(33)],
        )
        for kind in ("audio", "video")
        for spelling in ("unSubscribe", "unsubscribe")
    ],
    Row(f"{R}.subscribeUidGroup", "subscription.audio", ALL, [(number, ALL) for number in range(6)], [*NO_NUMBER, -1, 6], modes=INDIVIDUAL),
    Row(
        f"{R}.streamMode",
        "stream_mode",
        "default",
        [("default", "default"), ("standard", "standard"), ("original", "original")],
        [*NO_TEXT, "", "raw", "Default"],
        {R: {"streamTypes": 0}},
        modes=INDIVIDUAL,
    ),
    Row(
        f"{R}.privateParams",
        "correct_extinf",
        False,
        [
            ('{"correctEXTINF":true}', True),
            ('{"correctEXTINF":1}', False),
            ('{"x":[]}', False),
            ("[]", False),
            ("no json", False),
            ("", False),
        ],
        NO_TEXT,
    ),
    Row(f"{R}.audioProfile", "audio_profile", 0, [(0, 0), (1, 1), (2, 2)], [*NO_NUMBER, -1, 3], modes=MIX),
    Row(T, "canvas.width", 360, [({}, 360), ({"width": 640}, 640)], [None, *NO_OBJECT], modes=MIX),
]
TRANSCODING_CONFIG = [
    Row(f"{T}.width", "canvas.width", 360, [(16, 16), (1920, 1920), (641, 640)], [*NO_NUMBER, -1, 0, 15, 1921], modes=MIX),
    Row(f"{T}.height", "canvas.height", 640, [(16, 16), (1920, 1920), (361, 360)], [*NO_NUMBER, -1, 0, 15, 1921], modes=MIX),
    Row(
        f"{T}.fps",
        "canvas.fps",
        15,
        [*((fps, fps) for fps in (1, 7, 10, 15, 24, 30, 60)), *((fps, 15) for fps in (0, 2, 25, 61, -1, 1000))],
        NO_NUMBER,
        modes=MIX,
    ),
    Row(f"{T}.bitrate", "canvas.bitrate_kbps", 500, [(1, 1), (6500, 6500)], [*NO_NUMBER, -1, 0, 6501], modes=MIX),
    Row(f"{T}.mixedVideoLayout", "layout.number", 0, [(0, 0), (1, 1), (2, 2)], [*NO_NUMBER, -1, 4], modes=MIX),
    Row(f"{T}.maxResolutionUid", "layout.max_resolution_uid", None, [("7", 7), ("", None)], [*NO_TEXT, "0", "4294967296"], modes=MIX),
    Row(f"{T}.layoutConfig", "layout.regions", [], [([], [])], [*NO_LIST, [{}] * 18], modes=MIX),
    Row(
        f"{T}.backgroundColor",
        "layout.background_color",
        "#000000",
        [("#FF00aa", "#FF00aa")],
        [*NO_TEXT, "", "#FFF", "#GG0000", "FF0000"],
        modes=MIX,
    ),
    *[
        Row(
            f"{T}.{name}",
            f"layout.{meaning}",
            None,
            [("http://a/b.jpg", "http://a/b.jpg"), ("https://a/b.bmp", "https://a/b.bmp"), ("", None)],
            [*NO_TEXT, "ftp://a/b.jpg", "a.jpg", "https://u@a/b.jpg"],
            modes=MIX,
        )
        for name, meaning in (
            ("backgroundImage", "background_image"),
            ("defaultUserBackgroundImage", "default_user_background_image"),
        )
    ],
    Row(
        f"{T}.backgroundConfig",
        "layout.user_backgrounds",
        [],
        [
            ([], []),
            ([{"uid": "7", "image_url": "http://a/b.jpg"}], [{"uid": 7, "url": "http://a/b.jpg", "fit": False}]),
            ([{"uid": "7", "image_url": "http://a/b.jpg", "render_mode": 1}], [{"uid": 7, "url": "http://a/b.jpg", "fit": True}]),
        ],
        NO_LIST,
        modes=MIX,
    ),
]
FILE_CONFIG = [
    Row(
        "recordingFileConfig.avFileType",
        "mp4",
        False,
        [(["hls"], False), (["hls", "mp4"], True), (["mp4", "hls"], True)],
        [*NO_LIST, [], ["mp4"], ["HLS"], ["hls", "webm"], ["hls", "mp4", "hls"]],
        modes=MIX,
    ),
    Row("recordingFileConfig.avFileType", "mp4", False, [(["hls"], False)], [*NO_LIST, [], ["mp4"], ["hls", "mp4"]], modes=INDIVIDUAL),
]
ROWS = TOP + STORAGE_CONFIG + RECORDING_CONFIG + TRANSCODING_CONFIG + FILE_CONFIG


@pytest.mark.parametrize(
    ("mode", "row"), [pytest.param(mode, row, id=f"{row.path}-{row.meaning}-{mode}") for row in ROWS for mode in row.modes]
)
async def test_a_field_of_start(somebody: Caller, listener: Listener, mode: str, row: Row) -> None:
    base = {S: STORAGE, **row.beside}

    async def start(sent: object) -> httpx.Response:
        listener.spec = None
        body = somebody.envelope(changed(base, row.path, sent))
        return await somebody.http.post(f"{somebody.base}/resourceid/r/mode/{mode}/start", json=body)

    for sent, meaning in row.taken if row.default is MISSING else (*row.taken, (MISSING, row.default)):
        answer = await start(sent)
        assert answer.status_code == 200, (sent, answer.text)
        assert listener.spec
        assert meant(listener.spec, row.meaning) == meaning, sent
    for sent in (*row.refused, MISSING) if row.default is MISSING else row.refused:
        answer = await start(sent)
        assert answer.status_code == 400, (sent, answer.text)
        assert listener.spec is None
        assert answer.json()["code"] == 2
        problems = answer.json()["reason"].split("; ")
        assert all(problem.startswith(f"clientRequest.{row.path}") for problem in problems), (sent, problems)


def meant(spec: RecordingSpec, path: str) -> object:
    """What the recorder is told."""
    value: Any = json.loads(spec.with_secrets())
    for step in path.split("."):
        value = value[step]
    if isinstance(value, dict) and "uids" in value:  # a set has no order
        value = value | {"uids": sorted(value["uids"])}
    return value


def changed(base: Mapping[str, object], path: str, value: object) -> dict[str, object]:
    """A copy of `base` with the value at `path`, or without what is there."""
    first, _, rest = path.partition(".")
    copy = dict(base)
    if rest:
        inner = copy.get(first, {})
        assert isinstance(inner, Mapping)
        copy[first] = changed(inner, rest, value)
    elif value is MISSING:
        copy.pop(first, None)
    else:
        copy[first] = value
    return copy


# ---- acquire -----------------------------------------------------------------------------------------------------

ACQUIRE: Sequence[tuple[str, Sequence[object], Sequence[object]]] = [
    ("scene", [0], [*NO_NUMBER, -1, 1, 2, 3]),
    ("resourceExpiredHour", [1, 72, 720], [*NO_NUMBER, -1, 0, 721]),
    ("excludeResourceIds", [[], ["a", "b"]], [*NO_LIST, [1]]),
    ("region", ["CN", "AP", "EU", "NA"], ["", "cn", "US", 0, []]),
    ("regionAffinity", [0, 1, 2, 3, 4], [*NO_NUMBER, -1, 5]),
    ("startParameter", [{}, {"storageConfig": STORAGE}, {"recordingConfig": {"maxIdleTime": -1}}, {"token": 7}, None], []),
]


@pytest.mark.parametrize(("name", "taken", "refused"), ACQUIRE, ids=[row[0] for row in ACQUIRE])
async def test_a_field_of_acquire(somebody: Caller, name: str, taken: Sequence[object], refused: Sequence[object]) -> None:
    for value in taken:
        assert (await somebody.acquire(**{name: value})).status_code == 200, value
    for value in refused:
        answer = await somebody.acquire(**{name: value})
        if name == "resourceExpiredHour":
            assert (answer.status_code, answer.json()["reason"]) == (400, "Acquire: invalid resourceExpiredHour value!")
        else:
            assert_invalid(answer, [f"clientRequest.{name}", *(["clientRequest.excludeResourceIds[0]"] if value == [1] else [])][-1:])


ENVELOPE: Sequence[tuple[str, Sequence[object], Sequence[object]]] = [
    ("cname", ["a", "x" * 63, "aZ 09!#$%&()+-:;<=.>?@[]^_{}|~,"], [None, 0, [], "", "x" * 64]),
    ("uid", ["1", "4294967295"], [None, 1, [], "", "0", "00", "01", "-1", "4294967296", "1.0", " 1", "1 ", "x", "١", "9" * 5000]),
    ("clientRequest", [{}], [None, 0, "", []]),
]


@pytest.mark.parametrize(("name", "taken", "refused"), ENVELOPE, ids=[row[0] for row in ENVELOPE])
async def test_a_field_of_the_envelope(somebody: Caller, name: str, taken: Sequence[object], refused: Sequence[object]) -> None:
    whole = somebody.envelope({})
    for value in taken:
        answer = await somebody.http.post(f"{somebody.base}/acquire", json=whole | {name: value})
        assert answer.status_code == 200, (value, answer.text)
    for body in (*(whole | {name: value} for value in refused), changed(whole, name, MISSING)):
        answer = await somebody.http.post(f"{somebody.base}/acquire", json=body)
        assert_invalid(answer, [name])
