"""Whose audio and whose video is recorded: lists of uids, in start and in update."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, AliasChoices, Field, TypeAdapter, ValidationError

from api.schemas.wire import LARGEST_UID, Given, Problem, Uid, Wire, wrong
from recorder.spec import Subscription, UidRule

EVERYONE: Final = "#allstream#"
MOST_UIDS: Final = 32

AUDIO: Final = ("subscribeAudioUids", "unSubscribeAudioUids", "unsubscribeAudioUids")
VIDEO: Final = ("subscribeVideoUids", "unSubscribeVideoUids", "unsubscribeVideoUids", "unsunscribeVideoUids")

_UID: Final[TypeAdapter[str]] = TypeAdapter(Uid)


def _uids(uids: list[str]) -> list[str]:
    try:
        for uid in uids:
            _UID.validate_python(uid)
    except ValidationError as error:
        raise wrong(f"must hold integers in quotes, from 1 to {LARGEST_UID}") from error
    return uids


def _uids_or_everyone(uids: list[str]) -> list[str]:
    return uids if uids == [EVERYONE] else _uids(uids)


# An empty list in start counts as none: taken by the letter it would record nobody.
Allowed = Annotated[list[str], AfterValidator(_uids_or_everyone), Field(max_length=MOST_UIDS, description='uids, or ["#allstream#"]')]
Blocked = Annotated[list[str], AfterValidator(_uids), Field(max_length=MOST_UIDS, description="everyone except these uids")]


class AudioUidList(Wire):
    subscribe_audio_uids: Allowed = Field([])
    un_subscribe_audio_uids: Blocked = Field([], validation_alias=AliasChoices(*AUDIO[1:]))

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        yield from exactly_one(given, AUDIO)


class VideoUidList(Wire):
    subscribe_video_uids: Allowed = Field([])
    un_subscribe_video_uids: Blocked = Field([], validation_alias=AliasChoices(*VIDEO[1:]))

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        yield from exactly_one(given, VIDEO)


class StreamSubscribe(Wire):
    audio_uid_list: AudioUidList | None = None
    video_uid_list: VideoUidList | None = None

    @classmethod
    def rules(cls, given: Given) -> Iterator[Problem]:
        if given.get("audioUidList") is None and given.get("videoUidList") is None:
            yield "audioUidList", "is required when there is no videoUidList"

    def to_spec(self) -> Subscription:
        audio, video = self.audio_uid_list, self.video_uid_list
        return subscription(
            uid_rule(audio.subscribe_audio_uids, audio.un_subscribe_audio_uids) if audio else None,
            uid_rule(video.subscribe_video_uids, video.un_subscribe_video_uids) if video else None,
        )


def given_lists(given: Given, names: Sequence[str]) -> list[str]:
    """The names under which a list that holds something was given."""
    return [name for name in names if given.get(name)]


def exactly_one(given: Given, names: Sequence[str]) -> Iterator[Problem]:
    lists = given_lists(given, names)
    if not lists:
        yield names[0], f"or {names[1]} must hold 1 to {MOST_UIDS} uids"
    if len(lists) > 1:
        yield lists[1], f"must not stand beside {lists[0]}"


def uid_rule(allowed: list[str], blocked: list[str]) -> UidRule | None:
    """None: no list was given."""
    if allowed == [EVERYONE]:
        return UidRule()
    if allowed:
        return UidRule(kind="only", uids=frozenset(map(int, allowed)))
    return UidRule(kind="except", uids=frozenset(map(int, blocked))) if blocked else None


def subscription(audio: UidRule | None, video: UidRule | None) -> Subscription:
    """A list for one kind alone unsubscribes from the other kind; no list at all subscribes to everything."""
    if audio is None and video is None:
        return Subscription()
    nobody = UidRule(kind="none")
    return Subscription(audio=audio or nobody, video=video or nobody)
