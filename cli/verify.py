"""`cloud-recorder verify`: is everything there that was recorded, byte for byte?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import ValidationError

from api.masterkey import load_master_key
from api.schemas.storage import LOCAL_FOLDER, StorageConfig
from api.signer import Signer
from recorder import log as logs
from recorder.destination import open_destination
from recorder.settings import Settings, load
from recorder.tools.verify import Checked, verify
from storage import ObjectStore, StoreOptions, open_store
from storage.errors import StorageError

_EVERYWHERE: Final = ("0.0.0.0/0", "::/0")  # whoever runs the command may reach what the machine can reach


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--storage", type=click.File("rb"), help="instead of FOLDER: a file with the storageConfig of start, or - for stdin")
@click.option("--sid", help="only this recording")
@click.option("--key", "key_file", type=click.File("rb"), help="public key: a PEM file, or the answer of /v1/ext/keys")
@click.option("--unsigned", is_flag=True, help="do not look at signatures")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings: whose key is taken without --key")
def command(
    *, folder: Path | None, storage: BinaryIO | None, sid: str | None, key_file: BinaryIO | None, unsigned: bool, config: Path | None
) -> None:
    """Hold recordings against their signed manifests.

    \b
    cloud-recorder verify data/recordings/lessons
    cloud-recorder verify --storage bucket.json --key keys.json

    Every object that a manifest names must be there with its size and SHA-256. Ends with 1 when anything is missing or different,
    when a manifest itself says that files were lost, and when there is no manifest.
    """
    if (folder is None) == (storage is None):
        raise click.UsageError("give FOLDER or --storage")
    logs.configure("WARNING", json_lines=False)
    keys = [] if unsigned else _keys(key_file.read() if key_file else None, config)
    try:
        store, prefix = _opened(folder, storage.read() if storage else b"")
        checked = list(verify(store, keys, prefix=prefix, sid=sid))
        store.close()
    except StorageError as error:
        raise click.ClickException(str(error)) from error
    if not _tell(checked):
        raise SystemExit(1)


def _tell(checked: Sequence[Checked]) -> bool:
    """Print what was found; whether all is well."""
    for one in checked:
        for problem in one.problems:
            click.echo(f"{one.key}: {problem!r}")
        for name in one.lost:
            click.echo(f"{one.key}: {name!r} was lost while it was recorded")
        if not (one.problems or one.lost):
            click.echo(f"{one.key}: {one.objects} objects, {one.size} bytes, all as recorded")
    if not checked:
        click.echo("there is no manifest", err=True)
    return bool(checked) and not any(one.problems or one.lost for one in checked)


def _opened(folder: Path | None, storage_json: bytes) -> tuple[ObjectStore, str]:
    if folder is not None:
        whole = folder.resolve()
        return open_store(StoreOptions(vendor=LOCAL_FOLDER, bucket=whole.name, root=whole.parent), lambda _host: ()), ""
    try:
        where = StorageConfig.model_validate_json(storage_json).to_spec()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False))
        raise click.ClickException(f"not a storageConfig: {wrong}") from error
    settings = Settings()
    everywhere = settings.model_copy(update={"agent": settings.agent.model_copy(update={"allowed_networks": _EVERYWHERE})})
    return open_destination(where, everywhere), "".join(f"{part}/" for part in where.prefix)


def _keys(given: bytes | None, config: Path | None) -> list[Ed25519PublicKey]:
    if given is None:
        path = load(config).key_file
        if not path.exists():
            raise click.UsageError("give --key (or --unsigned): this machine has no key of a deployment")
        pems = [one.pem for one in Signer(load_master_key(path)).published()]
    else:
        pems = _pems(given)
    try:
        keys = [load_pem_public_key(pem.encode()) for pem in pems]
    except ValueError as error:
        raise click.ClickException("the key is not PEM") from error
    found = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not found:
        raise click.ClickException("there is no Ed25519 key")
    return found


def _pems(given: bytes) -> list[str]:
    try:
        text = given.decode("ascii")
        return [text] if text.lstrip().startswith("-----") else [str(one["pem"]) for one in json.loads(text)["keys"]]
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException("the key is neither PEM nor an answer of /v1/ext/keys") from error
