"""Bodies by the rules that a schema cannot tell: each field within its limits, at them and beyond, and which fields that makes wrong.

A strategy here gives a value and the paths of what is wrong in it: none, for a body that must be taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from api.endpoints import EVENT_TYPES
from storage.regions import REGIONS
from tests.contract.conftest import STORAGE

Wrong = tuple[str, ...]
Judged = SearchStrategy[tuple[Any, Wrong]]

UIDS: Final = st.sampled_from(["1", "7", "4294967295"]) | st.integers(1, 2**32 - 1).map(str)
_NO_UID: Final = st.sampled_from(["0", "01", "-1", "4294967296", "1.0", " 1", "x", 7, None, True])
_NO_TEXT: Final[list[Any]] = [7, True, [], {}]
_IMAGES: Final = st.sampled_from(
    ["http://example.com/a.jpg", "HTTPS://example.com:8443/\u00fc.bmp?x=1", "https://example.com/" + "a" * 2028]
)
_NO_IMAGE: Final = ["ftp://example.com/a", "/a.jpg", "http://", "http://a@b/", "http://a b/", "https://example.com/" + "a" * 2029, 7, None]
_FRACTIONS: Final = st.sampled_from([0, 0.0, 0.000001, 0.5])
_NO_FRACTION: Final = [-0.000001, 1.000001, "0", True, None, 10**30]


@dataclass(frozen=True)
class Field:
    """`bad` values are wrong at the path `at` below the field."""

    good: SearchStrategy[Any]
    bad: SearchStrategy[Any]
    at: str = ""
    required: bool = False

    def judged(self, wrong: bool) -> Judged:
        return st.tuples(self.bad, st.just((self.at,))) if wrong else st.tuples(self.good, st.just(()))


@dataclass(frozen=True)
class Part:
    """A field that is an object or a list of its own."""

    judged_by: Callable[[bool], Judged]
    required: bool = False

    def judged(self, wrong: bool) -> Judged:
        return self.judged_by(wrong)


Shape = dict[str, Field | Part]


def number(least: int, most: int, bad: tuple[Any, ...] = (), **options: Any) -> Field:
    beyond = [least - 1, most + 1, str(least), True, 10**30, *bad]
    return Field(st.sampled_from([least, most]) | st.integers(least, most), st.sampled_from(beyond), **options)


def text(good: SearchStrategy[Any], bad: list[Any], **options: Any) -> Field:
    return Field(good, st.sampled_from([*_NO_TEXT, *bad]), **options)


def judged(shape: Shape, *, wrong: bool) -> Judged:
    """An object of some of these fields, and of those that it must have. `wrong`: at least one field is, if any is made."""

    @st.composite
    def make(draw: DrawFn) -> tuple[dict[str, Any], Wrong]:
        value: dict[str, Any] = {}
        found: list[str] = []
        chosen = draw(st.sets(st.sampled_from(sorted(shape))))
        bad = draw(st.sets(st.sampled_from(sorted(shape)), min_size=1, max_size=3)) if wrong else set()
        for name, field in shape.items():
            if field.required or name in chosen or name in bad:
                value[name], below = draw(field.judged(name in bad))
                found += [_join(name, path) for path in below]
        return value, tuple(found)

    return make()


def _join(name: str, path: str) -> str:
    return f"{name}.{path}" if path and not path.startswith("[") else name + path


def part(shape: Shape, *, required: bool = False) -> Part:
    return Part(lambda wrong: judged(shape, wrong=wrong), required)


def parts(shape: Shape, most: int, least: int = 0, *, required: bool = False) -> Part:
    """A list of objects. Wrong: the first of them, or their number."""

    def listed(wrong: bool) -> Judged:
        others = st.lists(judged(shape, wrong=False).map(_value), min_size=least, max_size=3)
        if wrong:
            first = judged(shape, wrong=True)
            long = judged(shape, wrong=False).map(lambda one: ([one[0]] * (most + 1), ("",)))
            return st.tuples(first, others).map(lambda both: ([both[0][0], *both[1]], tuple(f"[0].{path}" for path in both[0][1]))) | long
        full = judged(shape, wrong=False).map(lambda one: [one[0]] * most)
        return st.tuples(others | full, st.just(()))

    return Part(listed, required)


def _value(one: tuple[Any, Wrong]) -> Any:
    return one[0]


# ---- layouts -----------------------------------------------------------------------------------------------------

_REGION: Final[Shape] = {
    "x_axis": Field(_FRACTIONS, st.sampled_from(_NO_FRACTION), required=True),
    "y_axis": Field(_FRACTIONS, st.sampled_from(_NO_FRACTION), required=True),
    "width": Field(_FRACTIONS, st.sampled_from(_NO_FRACTION), required=True),
    "height": Field(_FRACTIONS, st.sampled_from(_NO_FRACTION), required=True),
    "uid": Field(UIDS | st.just(""), _NO_UID),
    "alpha": Field(st.sampled_from([0, 1, 0.5, 1.0]), st.sampled_from(_NO_FRACTION)),
    "render_mode": number(0, 1),
}
_USER: Final[Shape] = {
    "uid": Field(UIDS, _NO_UID, required=True),
    "image_url": text(st.just("http://example.com/a.jpg"), [*_NO_IMAGE, ""], required=True),
    "render_mode": number(0, 1),
}
_BACKGROUND: Final = text(st.sampled_from(["#000000", "#ffFF09"]), ["", "red", "#fff", "#1234567", "#12345g", None])
_SCENERY: Final[Shape] = {
    "maxResolutionUid": Field(UIDS | st.just(""), _NO_UID),
    "backgroundColor": _BACKGROUND,
    "backgroundImage": text(_IMAGES | st.just(""), _NO_IMAGE),
    "defaultUserBackgroundImage": text(_IMAGES | st.just(""), _NO_IMAGE),
    "backgroundConfig": parts(_USER, 49),
}
_PLAIN_LAYOUT: Final[Shape] = _SCENERY | {
    "mixedVideoLayout": Field(st.integers(0, 2), st.sampled_from([-1, 4, "1", True, None, 10**30])),
    "layoutConfig": parts(_REGION, 17),
}
_CUSTOM_LAYOUT: Final[Shape] = _SCENERY | {
    "mixedVideoLayout": Field(st.just(3), st.sampled_from([4, "3"]), required=True),
    "layoutConfig": parts(_REGION, 17, least=1, required=True),
}
_LAYOUTS: Final = (_PLAIN_LAYOUT, _CUSTOM_LAYOUT)


def layout(*, wrong: bool) -> Judged:
    """The `clientRequest` of updateLayout."""
    return st.one_of(*(judged(shape, wrong=wrong) for shape in _LAYOUTS))


# ---- subscriptions -----------------------------------------------------------------------------------------------

_SOME: Final = st.lists(UIDS, min_size=1, max_size=3) | st.just([str(uid) for uid in range(1, 33)])
_NOT_UIDS: Final[list[Any]] = [["0"], ["1", "4294967296"], ["#allstream#", "1"], [str(uid) for uid in range(1, 34)], "1", 7]
_SPELLINGS: Final = {
    "Audio": ("unSubscribeAudioUids", "unsubscribeAudioUids"),
    "Video": ("unSubscribeVideoUids", "unsubscribeVideoUids", "unsunscribeVideoUids"),
}


def uids(kind: str) -> list[Shape]:
    """The ways to say whose audio or video is recorded, one of which stands there."""
    allowed = Field(_SOME | st.just(["#allstream#"]), st.sampled_from(_NOT_UIDS), required=True)
    blocked = Field(_SOME, st.sampled_from([["#allstream#"], *_NOT_UIDS]), required=True)
    return [{name: field} for name, field in [(f"subscribe{kind}Uids", allowed), *((name, blocked) for name in _SPELLINGS[kind])]]


def _lists(kind: str) -> Part:
    return Part(lambda wrong: st.one_of(*(judged(shape, wrong=wrong) for shape in uids(kind))))


def subscription(*, audio: bool = True, video: bool = True, wrong: bool) -> Judged:
    """`streamSubscribe` of update."""
    lists: Shape = {"audioUidList": _lists("Audio")} if audio else {}
    lists |= {"videoUidList": _lists("Video")} if video else {}
    return judged(lists, wrong=wrong).filter(lambda one: bool(one[0]))


# ---- storage -----------------------------------------------------------------------------------------------------


def _printable(**options: Any) -> Field:
    return text(st.sampled_from(["a", "A" * 4096, "\u00fc "]), ["a\nb", "\x00", "A" * 4097], **options)


def _storage_of(vendor: int) -> Shape:
    codes = sorted(REGIONS[vendor]) if vendor in REGIONS else [0, 99]
    beyond: list[Any] = ["0", True, None, *([max(codes) + 1, -1] if vendor in REGIONS else [])]
    extension: Shape = {}
    if vendor != 100:
        good = st.sampled_from(["s3.example.com", "https://s3.example.com:9000", "http://s3.example.com/"])
        bad = ["http://user@host", "https://host/path", "ftp://host", "h" * 256, ""]
        extension["endpoint"] = text(good, bad, required=vendor == 11)
    if vendor in (1, 11):
        extension["sse"] = text(st.sampled_from(["kms", "aes256"]), ["none", "KMS", ""])
    if vendor in (1, 2, 11):
        extension["tag"] = text(st.sampled_from(["RETENTION_DAYS=30"]), ["a\nb"])
    shape: Shape = {
        "region": Field(st.sampled_from(codes), st.sampled_from(beyond), required=True),
        "bucket": text(st.sampled_from(["b", "rec.1-2_x", "b" * 255]), ["", "../etc", "b" * 256, "-b", "a b", None], required=True),
        "accessKey": _printable(required=True),
        "secretKey": _printable(required=True),
        "stsExpiration": number(0, 2**63 - 1),
        "fileNamePrefix": Field(
            st.sampled_from([[], ["d1"], ["d" * 127], ["d" * 63] * 2]), st.sampled_from([["d" * 128], ["d" * 64, "e" * 63], "d1", {}, None])
        ),
    }
    if vendor in (1, 2, 3, 11):
        shape["stsToken"] = text(st.sampled_from(["t", "t" * 16384]), ["a\nb", "t" * 16385])
    if extension:
        shape["extensionParams"] = part(extension, required=vendor == 11)
    return shape


def _of_vendor(vendor: int, *, wrong: bool) -> Judged:
    return judged(_storage_of(vendor), wrong=wrong).map(lambda one: (one[0] | {"vendor": vendor}, one[1]))


VENDORS: Final = (0, 1, 2, 3, 4, 11, 100)
_NO_VENDOR: Final = st.sampled_from([5, 6, 7, 8, 9, -1, "11", True, None]).map(
    lambda vendor: (STORAGE | {"vendor": vendor, "extensionParams": {}}, ("vendor",))
)


def storage(*, wrong: bool) -> Judged:
    """`storageConfig`. The vendor decides what the rest means, and is wrong alone."""
    ways = [_of_vendor(vendor, wrong=wrong) for vendor in VENDORS]
    return st.one_of(*ways, *([_NO_VENDOR] if wrong else []))


def other_keys(place: Mapping[str, Any], *, wrong: bool) -> Judged:
    """`storageConfig` of update: `place` with other keys; wrong: another place."""
    keys = judged({"accessKey": _printable(required=True), "secretKey": _printable(required=True)}, wrong=False)
    moved: Judged = st.sampled_from([("bucket", "elsewhere"), ("fileNamePrefix", ["elsewhere"])]).map(lambda one: (dict([one]), (one[0],)))
    return st.tuples(keys, moved if wrong else st.just(({}, ()))).map(lambda both: ({**place, **both[0][0], **both[1][0]}, both[1][1]))


# ---- start -------------------------------------------------------------------------------------------------------

_CONFIG: Final[Shape] = {
    "channelType": number(0, 1),
    "streamTypes": Field(st.just(2), st.sampled_from([-1, 3, "2", None, 2.0])),
    "videoStreamType": number(0, 1),
    "maxIdleTime": number(5, 2_592_000, bad=(None,)),
    "privateParams": text(st.sampled_from(["", "x", '{"correctEXTINF":true}', "[" * 5000]), [None]),
    "decryptionMode": Field(st.just(0), st.sampled_from([-1, 9, "1", None])),
    "secret": text(st.sampled_from(["", "s"]), [None]),
    "salt": text(st.sampled_from(["", "s"]), [None]),
}
_INDIVIDUAL: Final[Shape] = {
    "streamMode": text(st.sampled_from(["default", "standard", "original"]), ["raw", "Default", "", None]),
    "subscribeUidGroup": number(0, 5),
}
_CANVAS: Final[Shape] = {
    "fps": Field(st.sampled_from([1, 7, 10, 15, 24, 30, 60, 25, 0, -1]), st.sampled_from(["15", 1.5, True, None])),
    "bitrate": number(1, 6500),
}
_SIDES: Final = (
    {"width": number(16, 1920, bad=(0, -1)), "height": Field(st.integers(16, 1080), st.sampled_from([15, 1921, "640", True, None, -1]))},
    {"width": Field(st.integers(16, 1080), st.sampled_from([15, 1921, "360", None])), "height": number(16, 1920, bad=(0, -1))},
)
_SHOTS: Final[Shape] = {
    "captureInterval": number(1, 3600),
    "fileType": Field(st.just(["jpg"]), st.sampled_from([[], ["jpg", "jpg"], "jpg", None]), required=True),
}


def transcoding(*, wrong: bool) -> Judged:
    """`transcodingConfig`."""
    return st.one_of(*(judged(_CANVAS | sides | shape, wrong=wrong) for sides in _SIDES for shape in _LAYOUTS))


def _config(mode: str, kinds: tuple[str, ...], *, wrong: bool) -> Judged:
    """`recordingConfig` with lists for these kinds of media."""

    def made(lists: tuple[Shape, ...]) -> Judged:
        shape: Shape = dict(_CONFIG)
        for one in lists:
            shape |= one
        if mode == "individual":
            shape |= _INDIVIDUAL
        else:
            shape |= {"audioProfile": number(0, 2), "transcodingConfig": Part(lambda bad: transcoding(wrong=bad))}
        if len(kinds) == 1:
            del shape["streamTypes"]
            fixed = {"streamTypes": 0 if kinds == ("Audio",) else 1}
            return judged(shape, wrong=wrong).map(lambda one: (one[0] | fixed, one[1]))
        return judged(shape, wrong=wrong)

    return st.tuples(*(st.sampled_from(uids(kind)) for kind in kinds)).flatmap(made)


def start(mode: str, *, wrong: bool) -> Judged:
    """The `clientRequest` of start; wrong: in some of its parts."""

    def made(kinds: tuple[str, ...]) -> Judged:
        shape: Shape = {
            "token": text(st.sampled_from(["", "t", "t" * 4096]) | st.none(), ["t" * 4097]),
            "storageConfig": Part(lambda bad: storage(wrong=bad), required=True),
            "recordingConfig": Part(lambda bad: _config(mode, kinds, wrong=bad)),
            "recordingFileConfig": part({"avFileType": _file_types(mode)}),
        }
        if mode == "individual" and kinds != ("Audio",):
            shape["snapshotConfig"] = part(_SHOTS)
        return judged(shape, wrong=wrong)

    return st.sampled_from([(), ("Audio",), ("Video",), ("Audio", "Video")]).flatmap(made)


def _file_types(mode: str) -> Field:
    more = [["hls", "mp4"], ["mp4", "hls"]]
    good = [["hls"], ["hls", "hls"], *(more if mode == "mix" else [])]
    bad: list[Any] = [["mp4"], [], "hls", None, ["hls"] * 3, *(more if mode == "individual" else [])]
    return Field(st.sampled_from(good), st.sampled_from(bad))


# ---- calls of ours -----------------------------------------------------------------------------------------------

CALLBACK_URLS: Final = st.sampled_from(["https://127.0.0.1:1024/", "https://127.0.0.1/a?b=c", "https://127.0.0.2:1024/\u00fc"])
_ENDPOINT: Final[Shape] = {
    "url": text(CALLBACK_URLS, ["", "ftp://127.0.0.1", "http://127.0.0.1:9/", "https://a@127.0.0.1/", "https://10.0.0.1/"], required=True),
    "events": Field(st.none() | st.lists(st.sampled_from(sorted(EVENT_TYPES)), max_size=5), st.sampled_from([5, "all"])),
    "enabled": Field(st.booleans(), st.sampled_from([0, "true", None])),
}
_ROTATION: Final[Shape] = {
    "secret": Field(st.none() | st.sampled_from(["!" * 8, "~" * 128]), st.sampled_from(["!" * 7, "~" * 129, 7])),
    "oldHours": Field(st.sampled_from([0, 0.5, 720]), st.sampled_from([-0.1, 720.1, "1", None])),
}
_REPLAY: Final[Shape] = {"noticeIds": Field(st.none() | st.lists(st.just("x" * 64), max_size=3), st.sampled_from([["x" * 65], "x", [7]]))}
_ACQUIRE: Final[Shape] = {
    "scene": Field(st.just(0), st.sampled_from([1, 2, 3, "0", None])),
    "resourceExpiredHour": number(1, 720),
    "region": text(st.sampled_from(["CN", "AP", "EU", "NA"]), ["US", ""]),
    "regionAffinity": number(0, 4),
    "excludeResourceIds": Field(st.just(["r"]), st.sampled_from(["r", [7], None])),
}


def fitting(call: str, place: Mapping[str, Any]) -> SearchStrategy[Any]:
    """For the last word of an operation's path: a body, or its `clientRequest`, mostly right. `place`: the storage of what is recorded."""
    ways: dict[str, Callable[[bool], Judged]] = {
        "acquire": lambda wrong: judged(_ACQUIRE, wrong=wrong),
        "mix/start": lambda wrong: start("mix", wrong=wrong),
        "individual/start": lambda wrong: start("individual", wrong=wrong),
        "update": lambda wrong: _update(place, wrong=wrong),
        "updateLayout": lambda wrong: layout(wrong=wrong),
        "stop": lambda wrong: judged({"async_stop": Field(st.booleans(), st.sampled_from([1, "true", None]))}, wrong=wrong),
        "callbacks": lambda wrong: judged(_ENDPOINT, wrong=wrong),
        "secret": lambda wrong: judged(_ROTATION, wrong=wrong),
        "replay": lambda wrong: judged(_REPLAY, wrong=wrong),
        "storage": lambda wrong: judged({"storageConfig": Part(lambda bad: other_keys(place, wrong=bad), required=True)}, wrong=wrong),
        "storage/test": lambda wrong: judged({"storageConfig": Part(lambda bad: _here(wrong=bad), required=True)}, wrong=wrong),
    }
    made = ways[call]
    return st.one_of(made(False), made(False), made(True)).map(_value)


def _here(*, wrong: bool) -> Judged:
    """Storage whose test asks nobody outside: a folder, or an address that is not allowed."""
    inside = STORAGE | {"extensionParams": {"endpoint": "http://127.0.0.1:1024"}}
    return st.one_of(_of_vendor(100, wrong=wrong), other_keys(inside, wrong=wrong))


def _update(place: Mapping[str, Any], *, wrong: bool) -> Judged:
    lists, keys = Part(lambda bad: subscription(wrong=bad)), Part(lambda bad: other_keys(place, wrong=bad))
    return judged({"streamSubscribe": lists, "storageConfig": keys}, wrong=wrong).filter(lambda one: bool(one[0]))
