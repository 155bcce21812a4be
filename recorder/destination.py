"""From what a specification says of the customer's bucket to the open store, and the first file that goes there."""

from recorder import manifest
from recorder.outbound import AddressPolicy
from recorder.outputs import playlist
from recorder.outputs.names import Names
from recorder.settings import Settings
from recorder.spec import RecordingSpec, Storage
from storage import ObjectStore, StoreOptions, open_store
from storage.keys import object_key

_EVERYWHERE = ("0.0.0.0/0", "::/0")


def open_destination(where: Storage, settings: Settings) -> ObjectStore:
    """The customer's bucket. Connects to nothing yet.

    Raises:
        BadOptions: there is no such vendor, region or endpoint.
    """
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


def open_backup(settings: Settings) -> ObjectStore:
    """The operator's own store, which may be at any address.

    Raises:
        BadOptions: as `open_destination`.
    """
    backup = settings.backup
    assert backup.vendor is not None
    options = StoreOptions(
        vendor=backup.vendor,
        region=backup.region,
        bucket=backup.bucket,
        access_key=backup.access_key.get_secret_value(),
        secret_key=backup.secret_key.get_secret_value(),
        endpoint=backup.endpoint,
        root=settings.backup_dir,
    )
    return open_store(options, AddressPolicy(_EVERYWHERE).check)


def key_of(where: Storage | None, name: str) -> str:
    return object_key(where.prefix if where else (), name)


def first_file(spec: RecordingSpec, *, with_manifest: bool) -> tuple[str, bytes] | None:
    """Name and content of what is written before anything is recorded, to learn whether the store takes it.

    A composite's playlist without slices; where lists are not known yet, the place of the manifest. None: there is neither.
    """
    names = Names(spec.sid, spec.channel)
    if spec.mode == "mix":
        return names.playlist(), playlist.render([], ended=False, correct_extinf=spec.correct_extinf).encode()
    return (names.manifest(), manifest.opening(spec.sid)) if with_manifest else None
