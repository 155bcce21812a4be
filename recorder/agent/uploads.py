"""From committed slices to a playlist in the customer's bucket: which slices exist, which are stored, what a playlist shows."""

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Final

from recorder import manifest
from recorder.agent.lists import RenderedList, render_lists
from recorder.destination import first_file, key_of, open_backup, open_destination
from recorder.outputs.names import Names
from recorder.protocol import (
    BackupProgress,
    BackupStarted,
    EventBody,
    Faulted,
    PlaylistPublished,
    Refused,
    Sign,
    Signed,
    Slice,
    SliceStored,
    Warned,
)
from recorder.settings import Settings
from recorder.spec import RecordingSpec, Storage
from storage import ObjectStore
from storage.errors import BadOptions, ChecksumMismatch, PermanentStorageError, StorageError, TransientStorageError
from storage.keys import object_key
from storage.pace import Pace
from storage.spool import RecordingSpool
from storage.uploader import (
    BackedUp,
    Backup,
    Destination,
    Diverted,
    Lost,
    MediaFile,
    Occupied,
    Publication,
    Published,
    RefusedByStore,
    Retrying,
    Uploader,
    UploadReport,
    Verified,
)

log = logging.getLogger(__name__)

UPLOADER: Final = 1  # the module of warnings and errors
_AGAIN, _TO_BACKUP = 31, 32  # warnings
_REFUSED: Final = 32  # an error
_MAJOR, _FATAL = 4, 5
_PROGRESS_SECONDS: Final = 60.0
_LISTING_TRIES: Final = 3

AskSignature = Callable[[Sign], Awaitable[Signed | Refused]]


class Uploads:
    """Everything of one recording that goes to the bucket. `run()` works until it is cancelled."""

    def __init__(
        self,
        spool: RecordingSpool,
        emit: Callable[[EventBody], Awaitable[None]],
        *,
        sign: AskSignature,
        turned_away: Callable[[], None] = lambda: None,
        pace: Pace | None = None,
        slices: Iterable[Slice] = (),
        stored: Iterable[str] = (),
        backed_up: Iterable[str] = (),
        announced: Iterable[str] = (),
    ) -> None:
        """`turned_away` is called when the store refuses us and never took anything.

        `slices`, `stored`, `backed_up` and the playlists that were `announced` are what a former life of this agent knew.
        """
        self.waits_for_signature = False  # which a control plane gives
        self._spool = spool
        self._emit = emit
        self._sign = sign
        self._turned_away = turned_away
        self._pace = pace
        self._slices: dict[str, Slice] = {}
        self._stored = set(stored)
        self._backed_up = set(backed_up)
        self._announced = set(announced)
        self._accepted = bool(self._stored)  # the customer's store has taken something
        self._lost: set[str] = set()
        self._occupied: set[str] = set()  # of the lost ones
        self._mismatches = 0  # since the last file that was stored
        self._published: dict[str, bytes] = {}  # the newest version of each list
        self._ended = False
        self._catching_up = False
        self._progress_at = 0.0
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
        """Every committed file is verified in the customer's store."""
        return self._stored >= self._slices.keys()

    @property
    def safe(self) -> bool:
        """Every committed file is verified in a store."""
        return self._stored | self._backed_up >= self._slices.keys()

    @property
    def behind(self) -> bool:
        """Something is in no other store than the backup store."""
        return self._uploader is not None and self._uploader.behind

    @property
    def lost(self) -> frozenset[str]:
        """Committed files that neither the spool nor a store has, or that the customer's store never takes."""
        return frozenset(self._lost)

    def add(self, committed: Slice) -> None:
        """Upload a file that the worker has committed."""
        self._slices[committed.name] = committed
        if self._uploader:
            self._uploader.add(self._media_file(committed))

    def start(self, spec: RecordingSpec, settings: Settings, *, ended: bool = False) -> None:
        """Now that the bucket is known: queue what has been committed so far. Playlists are published anew.

        `ended`: nothing more will be committed.
        """
        self._spec, self._settings, self._ended = spec, settings, ended
        self._uploader = Uploader(
            self._destination(spec.storage),
            self._report,
            parallel=settings.agent.upload_parallel,
            verified=self._stored,
            backup=self._backup(),
            pace=self._pace,
        )
        if not self._slices:
            self._try_out()
        for committed in self._slices.values():
            if committed.name in self._backed_up and settings.backup.vendor is not None:
                self._uploader.add_copy(self._media_file(committed))
            elif committed.name not in self._stored:
                self._uploader.add(self._media_file(committed))
        self._publish_all()

    @property
    def left(self) -> bool:
        """Nothing goes to the customer's store until `renew`."""
        return self._uploader is not None and self._uploader.left

    def leave(self) -> bool:
        """Have nothing more stored until `renew`, so that it can be in another place. False: something is stored, and nothing changes."""
        assert self._uploader
        if self._stored:
            return False
        self._uploader.leave()
        return True

    def renew(self, spec: RecordingSpec) -> None:
        """Go on with the storage that `spec` has now: the same place with other keys or, when it was left, another one."""
        assert self._uploader
        left = self._uploader.left
        self._spec = spec
        destination = self._destination(spec.storage)
        self._uploader.reopen(destination.open, destination.key)
        if left:
            self._accepted = False
            self._published.clear()
            if not self._slices:
                self._try_out()
            self._publish_all()

    async def run(self) -> None:
        assert self._uploader
        await self._uploader.run()

    async def settled(self) -> None:
        """Wait until nothing that was added is under way."""
        assert self._uploader
        await self._uploader.settled()

    async def finish(self) -> PermanentStorageError | None:
        """Wait until all files, the playlists with their end and the manifest are stored; returns the refusal when there was one.

        When the customer's store is away all is in the backup store then, and `behind` is true.
        """
        assert self._uploader
        await self._uploader.settled()
        self._ended = True
        if self.empty:
            await self._take_back()
            return self._uploader.refused
        await self._complete()
        if self._uploader.behind and not self._uploader.refused:
            for name in self._playlists():
                for one in self._rendered(name, self._stored | self._backed_up):
                    seal = self._spool.seal
                    self._uploader.keep(one.name, seal.write_bytes(one.data, one.name) if seal else one.data)
            await self._uploader.settled()
        return self._uploader.refused

    async def catch_up(self) -> None:
        """Wait until everything is at the customer's, through refusals and failures, however long that takes."""
        assert self._uploader
        self._ended = self._catching_up = True
        while True:
            self._publish_all()
            await self._uploader.caught_up()
            await self._complete()
            if not (self._uploader.behind or self._uploader.refused):
                break
        await self._uploader.clear_backup([*(self._slices.keys() - self._occupied), *self._published])

    async def _complete(self) -> None:
        """The end of the playlists, a look at what is there, and the manifest: as far as the customer's store goes along."""
        assert self._uploader
        for step in (self._reconcile, self._add_manifest):
            self._publish_all()
            await self._uploader.settled()
            if self._uploader.behind or self._uploader.refused:
                return
            await step()
        await self._uploader.settled()

    # ---- the first file and the last ------------------------------------------------------------------------------------

    def _try_out(self) -> None:
        assert self._spec
        assert self._settings
        assert self._uploader
        first = first_file(self._spec, with_manifest=self._settings.recording.manifest)
        if first:
            self._uploader.publish(Publication(*first, frozenset()))

    async def _take_back(self) -> None:
        """Nothing was recorded: the first file tells nobody anything. It stays where the keys don't let us delete."""
        assert self._uploader
        assert self._spec
        assert self._settings
        first = first_file(self._spec, with_manifest=self._settings.recording.manifest)
        if first is None or not self._accepted or self._uploader.refused:
            return
        key = self._key(first[0])
        try:
            await self._uploader.ask(lambda store: store.delete(key))
        except StorageError as error:
            log.info("the first file of an empty recording stays", extra={"error": str(error)})

    async def _reconcile(self) -> None:
        """See that the bucket has what it took. What is missing and still in the spool goes there again."""
        assert self._uploader
        assert self._spec
        names = Names(self._spec.sid, self._spec.channel)
        prefix = self._key(names.everything())
        for _ in range(_LISTING_TRIES):
            try:
                found = {one.key: one.size for one in await self._uploader.ask(lambda store: store.list(prefix))}
                break
            except TransientStorageError as error:
                log.info("the bucket cannot be listed", extra={"error": str(error)})
            except PermanentStorageError as error:  # keys may be write-only
                log.info("the bucket is not ours to list, the checks of each upload hold", extra={"error": str(error)})
                return
        else:
            return
        for name in [name for name in self._slices if name in self._stored]:
            if found.get(self._key(name)) != self._slices[name].size:
                await self._miss(name)

    async def _miss(self, name: str) -> None:
        """A file that was verified is not in the bucket any more, or is another one."""
        assert self._uploader
        self._stored.discard(name)
        self._published.clear()
        if self._spool.file(name).exists():
            self._uploader.add(self._media_file(self._slices[name]))
            return
        self._lost.add(name)
        log.error("a file has gone from the bucket", extra={"file": name})
        await self._emit(Warned(module=UPLOADER, code=0, detail=f"gone from the bucket: {name}"))

    async def _add_manifest(self) -> None:
        """Nothing is uploaded after it."""
        assert self._spec
        assert self._settings
        assert self._uploader
        if not self._settings.recording.manifest:
            return
        media = sorted((one for one in self._slices.values() if one.name in self._stored), key=lambda one: (one.epoch, one.sequence))
        objects = [manifest.Object(name=one.name, size=one.size, sha256=one.sha256) for one in media]
        for name, data in sorted(self._published.items()):
            objects.append(manifest.Object(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()))
        unsigned = manifest.build(self._spec.sid, self._spec.channel, objects, sorted(self._lost), created_ms=time.time_ns() // 1_000_000)
        self.waits_for_signature = True
        answer = await self._sign(Sign(sid=self._spec.sid, sha256=unsigned.digest()))
        self.waits_for_signature = False
        if isinstance(answer, Refused):
            log.error("the manifest is not signed, and left out", extra={"reason": answer.reason})
            return
        signed = unsigned.model_copy(update={"key": answer.key, "signature": answer.signature})
        name = Names(self._spec.sid, self._spec.channel).manifest()
        self._uploader.publish(Publication(name, signed.encode(), frozenset()))

    # ---- what the uploader tells ----------------------------------------------------------------------------------------

    async def _report(self, report: UploadReport) -> None:
        match report:
            case Verified(name, stored, seconds, retries):
                await self._note_stored(name, seconds, retries)
                log.debug("file stored", extra={"file": name, "verified": stored.verified, "seconds": round(seconds, 3)})
            case BackedUp(name, _, seconds, retries):
                if not self._backed_up:
                    await self._emit(BackupStarted())
                self._backed_up.add(name)
                content = self._slices[name].content
                await self._tell_stored(SliceStored(name=name, content=content, backup=True, seconds=seconds, retries=retries))
            case Diverted(name):
                log.warning("the customer's storage fails, a file goes to the backup store", extra={"file": name})
                await self._emit(Warned(module=UPLOADER, code=_TO_BACKUP, detail=name))
            case Retrying(name, attempt, error):
                log.warning("upload failed, trying again", extra={"file": name, "attempt": attempt, "error": str(error)})
                self._mismatches += isinstance(error, ChecksumMismatch)
                if attempt == 1 and name in self._slices:
                    await self._emit(Warned(module=UPLOADER, code=_AGAIN, detail=name))
            case Lost(name, error):
                self._lost.add(name)
                self._backed_up.discard(name)
                log.error("a committed file is lost", extra={"file": name, "error": str(error)})
                await self._emit(Warned(module=UPLOADER, code=0, detail=f"lost before it was uploaded: {name}"))
                self._publish(self._slices[name].playlist)
            case Occupied(name, error):
                self._lost.add(name)
                self._occupied.add(name)
                log.error("the store keeps another object under the name of a file", extra={"file": name, "error": str(error)})
                await self._emit(Warned(module=UPLOADER, code=0, detail=f"another object has the name: {name}"))
                self._publish(self._slices[name].playlist)
            case Published(name):
                self._accepted = True
                log.debug("playlist stored", extra={"file": name})
                await self._announce(name)
            case RefusedByStore(error):
                log.error("the customer's storage refuses us", extra={"error": str(error)})
                level = _MAJOR if self._accepted else _FATAL
                await self._emit(Faulted(module=UPLOADER, code=_REFUSED, level=level, detail=str(error)))
                if not self._accepted:
                    self._turned_away()

    async def _announce(self, name: str) -> None:
        """Tell of a playlist with slices, once."""
        if name.endswith(".m3u8") and name in self._published and name not in self._announced:
            self._announced.add(name)
            await self._emit(PlaylistPublished(name=name))

    async def _note_stored(self, name: str, seconds: float, retries: int) -> None:
        self._accepted = True
        moved = name in self._backed_up  # long ago: no figure for how fast we are
        self._stored.add(name)
        self._backed_up.discard(name)
        content = self._slices[name].content
        stored = SliceStored(name=name, content=content)
        await self._tell_stored(stored if moved else stored.model_copy(update={"seconds": seconds, "retries": retries}))
        if (moved or self._catching_up) and time.monotonic() >= self._progress_at + _PROGRESS_SECONDS:
            self._progress_at = time.monotonic()
            await self._emit(BackupProgress(left=len(self._slices.keys() - self._stored - self._lost)))
        self._publish(self._slices[name].playlist)

    async def _tell_stored(self, stored: SliceStored) -> None:
        mismatches, self._mismatches = self._mismatches, 0
        await self._emit(stored.model_copy(update={"mismatches": mismatches}))

    # ---- lists ------------------------------------------------------------------------------------------------------------

    def _playlists(self) -> list[str]:
        return list(dict.fromkeys(one.playlist for one in self._slices.values() if one.playlist))

    def _publish(self, name: str | None) -> None:
        """Upload this playlist, and what follows from it, unless they are the same as before."""
        assert self._uploader
        if name is None:
            return
        for one in self._rendered(name, self._stored):
            if self._published.get(one.name) != one.data:
                self._published[one.name] = one.data
                self._uploader.publish(Publication(one.name, one.data, one.names))

    def _publish_all(self) -> None:
        for name in self._playlists():
            self._publish(name)

    def _rendered(self, name: str, stored: Collection[str]) -> Iterator[RenderedList]:
        assert self._spec
        return render_lists(self._spec, name, self._slices.values(), stored=stored, lost=self._lost, ended=self._ended)

    # ---- stores -----------------------------------------------------------------------------------------------------------

    def _media_file(self, committed: Slice) -> MediaFile:
        return MediaFile(committed.name, self._spool.file(committed.name), committed.sha256, committed.size, self._spool.seal)

    def _key(self, name: str) -> str:
        assert self._spec
        return key_of(self._spec.storage, name)

    def _destination(self, where: Storage | None) -> Destination:
        assert self._settings
        settings = self._settings

        def open_store() -> ObjectStore:
            if where is None:
                raise BadOptions("the recording names no storage")
            return open_destination(where, settings)

        return Destination(open_store, lambda name: key_of(where, name))

    def _backup(self) -> Backup | None:
        assert self._settings
        assert self._spec
        settings, sid = self._settings, self._spec.sid
        if settings.backup.vendor is None:
            return None
        destination = Destination(lambda: open_backup(settings), lambda name: object_key((sid,), name))
        return Backup(destination, self._spool.folder / "returning", settings.backup.after_seconds)
