"""From committed slices to a playlist in the customer's bucket: which slices exist, which are stored, what a playlist shows."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from recorder.frames import Track
from recorder.outbound import AddressPolicy
from recorder.outputs import merged, playlist
from recorder.outputs.names import Names
from recorder.protocol import EventBody, Slice, SliceStored, Warned
from recorder.settings import Settings
from recorder.spec import RecordingSpec
from storage import ObjectStore, StoreOptions, open_store
from storage.errors import BadOptions, PermanentStorageError
from storage.keys import object_key
from storage.spool import RecordingSpool
from storage.uploader import Destination, Lost, MediaFile, Publication, Published, Retrying, Uploader, Verified

log = logging.getLogger(__name__)

_MODULE: Final = 1  # of a warning: the uploader


class Uploads:
    """Everything of one recording that goes to the bucket. `run()` works until it is cancelled or the store refuses us."""

    def __init__(
        self,
        spool: RecordingSpool,
        emit: Callable[[EventBody], Awaitable[None]],
        *,
        slices: Iterable[Slice] = (),
        stored: Iterable[str] = (),
    ) -> None:
        """`slices` and `stored` are what a former life of this agent knew."""
        self._spool = spool
        self._emit = emit
        self._slices: dict[str, Slice] = {}
        self._stored = set(stored)
        self._lost: set[str] = set()
        self._published: dict[str, bytes] = {}  # the newest version of each list
        self._ended = False
        self._spec: RecordingSpec | None = None
        self._settings: Settings | None = None
        self._uploader: Uploader | None = None
        for known in slices:
            self._slices[known.name] = known

    @property
    def empty(self) -> bool:
        """Nothing was ever committed."""
        return not self._slices

    @property
    def complete(self) -> bool:
        """Every committed file is verified in the store."""
        return self._stored >= self._slices.keys()

    @property
    def lost(self) -> frozenset[str]:
        """Committed files that the spool does not have any more."""
        return frozenset(self._lost)

    def add(self, committed: Slice) -> None:
        """Upload a file that the worker has committed."""
        self._slices[committed.name] = committed
        if self._uploader:
            self._uploader.add(self._media_file(committed))

    def start(self, spec: RecordingSpec, settings: Settings) -> None:
        """Now that the bucket is known: queue what has been committed so far. Playlists are published anew."""
        self._spec, self._settings = spec, settings
        self._uploader = Uploader(
            Destination(lambda: _open(spec, settings), lambda name: _key(spec, name)),
            self._report,
            parallel=settings.agent.upload_parallel,
            verified=self._stored,
        )
        for committed in self._slices.values():
            if committed.name not in self._stored:
                self._uploader.add(self._media_file(committed))
        for name in self._playlists():
            self._publish(name)

    def renew(self, spec: RecordingSpec) -> None:
        """Go on with the keys that `spec` has now; the place is the same."""
        assert self._uploader
        assert self._settings
        settings = self._settings
        self._spec = spec
        self._uploader.reopen(lambda: _open(spec, settings))

    async def run(self) -> PermanentStorageError:
        assert self._uploader
        return await self._uploader.run()

    async def settled(self) -> None:
        """Wait until nothing that was added is under way."""
        assert self._uploader
        await self._uploader.settled()

    async def finish(self) -> PermanentStorageError | None:
        """Wait for all files, then for the playlists with their end; returns the refusal when there was one."""
        assert self._uploader
        await self._uploader.settled()
        self._ended = True
        for name in self._playlists():
            self._publish(name)
        await self._uploader.settled()
        return self._uploader.refused

    def _media_file(self, committed: Slice) -> MediaFile:
        return MediaFile(committed.name, self._spool.file(committed.name), committed.sha256)

    async def _report(self, report: Verified | Published | Retrying | Lost) -> None:
        match report:
            case Verified(name, stored, seconds, retries):
                self._stored.add(name)
                await self._emit(SliceStored(name=name, content=self._slices[name].content, seconds=seconds, retries=retries))
                log.debug("file stored", extra={"file": name, "verified": stored.verified, "seconds": round(seconds, 3)})
                self._publish(self._slices[name].playlist)
            case Retrying(name, attempt, error):
                log.warning("upload failed, trying again", extra={"file": name, "attempt": attempt, "error": str(error)})
            case Lost(name, error):
                self._lost.add(name)
                log.error("a committed file is lost", extra={"file": name, "error": str(error)})
                await self._emit(Warned(module=_MODULE, code=0, detail=f"lost before it was uploaded: {name}"))
                self._publish(self._slices[name].playlist)
            case Published(name):
                log.debug("playlist stored", extra={"file": name})

    def _playlists(self) -> list[str]:
        return list(dict.fromkeys(one.playlist for one in self._slices.values() if one.playlist))

    def _publish(self, name: str | None) -> None:
        assert self._spec
        if name is None:
            return
        shown = self._shown(name)
        if shown:
            self._put(name, playlist.render(shown, ended=self._ended, correct_extinf=self._spec.correct_extinf), shown)
            if self._spec.stream_mode == "standard":
                self._publish_merged(name)

    def _publish_merged(self, name: str) -> None:
        """The merged lists of the participant whose track this playlist is."""
        assert self._spec
        names = Names(self._spec.sid, self._spec.channel)
        track = names.track_of(name)
        if track is None:
            return
        shown = [self._shown(names.track_playlist(Track(track.uid, kind))) for kind in ("video", "audio")]
        video, audio = ([one for one in slices if one.name.endswith(".ts")] for slices in shown)
        if video or audio:
            self._put(names.merged_playlist(track.uid, "m3u8"), merged.multivariant(video, audio), [*video, *audio])
        video, audio = ([one for one in slices if one.name.endswith(".webm")] for slices in shown)
        if video or audio:
            self._put(names.merged_playlist(track.uid, "mpd"), merged.mpd(video, audio, ended=self._ended), [*video, *audio])

    def _shown(self, name: str) -> list[Slice]:
        return listed([one for one in self._slices.values() if one.playlist == name], self._stored, self._lost)

    def _put(self, name: str, text: str, shown: Sequence[Slice]) -> None:
        """Upload a list unless it is the same as before."""
        assert self._uploader
        data = text.encode()
        if self._published.get(name) != data:
            self._published[name] = data
            self._uploader.publish(Publication(name, data, frozenset(one.name for one in shown)))


def listed(committed: Sequence[Slice], stored: set[str], lost: set[str]) -> list[Slice]:
    """What a playlist may show: its slices in order, up to the first that is still on its way.

    A slice follows a discontinuity where one before it is lost or another worker begins.
    """
    shown: list[Slice] = []
    gap = False
    for one in sorted(committed, key=lambda one: (one.epoch, one.sequence)):
        if one.name in lost:
            gap = True
        elif one.name in stored:
            gap = gap or bool(shown and shown[-1].epoch != one.epoch)
            shown.append(one.model_copy(update={"discontinuity": True}) if gap else one)
            gap = False
        else:
            break
    return shown


def _key(spec: RecordingSpec, name: str) -> str:
    return object_key(spec.storage.prefix if spec.storage else (), name)


def _open(spec: RecordingSpec, settings: Settings) -> ObjectStore:
    where = spec.storage
    if where is None:
        raise BadOptions("the recording names no storage")
    options = StoreOptions(
        vendor=where.vendor,
        region=where.region,
        bucket=where.bucket,
        access_key=where.access_key.get_secret_value(),
        secret_key=where.secret_key.get_secret_value(),
        sts_token=where.sts_token.get_secret_value() if where.sts_token else None,
        endpoint=where.endpoint,
        sse=where.sse,
        tag=where.tag,
        root=settings.recordings_dir,
    )
    return open_store(options, AddressPolicy(settings.agent.allowed_networks).check)
