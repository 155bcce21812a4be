"""Every setting of the service, read once at start into one frozen object that is passed down by argument.

Sources, the later wins: defaults, one TOML file (`cloud-recorder --config FILE`), `CLOUD_RECORDER_*` variables
(`CLOUD_RECORDER_API__PORT=9000` sets `api.port`). A secret may also be given as the file that holds it, under the name of its
setting and `_file` (`CLOUD_RECORDER_API__DATABASE_URL_FILE`); a secret that is more than one word is JSON there.
"""

import hashlib
import ipaddress
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from recorder.usage import Category

# Linux allows 107 bytes in the path of a Unix socket, macOS 103.
_SOCKET_PATH_LIMIT = 90


class ConfigError(Exception):
    """The configuration is wrong; the message names every wrong field on one line."""


class _Section(BaseModel):
    """A secret of a section may be given as the file that holds it: `<name>_file` instead of `<name>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        read: dict[str, object] = {}
        for name, field in cls.model_fields.items():
            if f"{name}_file" in given and _is_secret(field.annotation):
                if name in given:
                    raise ValueError(f"{name} and {name}_file are both set")
                read[name] = _secret_from(f"{name}_file", str(given[f"{name}_file"]), as_json=field.annotation is not SecretStr)
        return {key: value for key, value in given.items() if key.removesuffix("_file") not in read} | read


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_is_secret(part) for part in get_args(annotation))


def _secret_from(setting: str, path: str, *, as_json: bool) -> object:
    try:
        text = Path(path).read_text("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{setting}: {path} is not text") from error
    except OSError as error:
        raise ValueError(f"{setting}: {path} cannot be read ({error.strerror})") from error
    if not text:
        raise ValueError(f"{setting}: {path} is empty")
    if not as_json:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{setting}: {path} is not JSON") from error


def _address(text: str) -> str:
    ipaddress.ip_address(text)  # a host name would be left out in silence where candidates are gathered
    return text


def _network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


Price = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]


class Api(_Section):
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    probe_port: int = Field(8082, ge=0, le=65535, description="/healthz, /readyz and /metrics")
    tls_cert: Path | None = Field(None, description="PEM file with the certificate and its chain; with tls_key: HTTPS, TLS 1.2 or newer")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's key")
    allow_plain_http: bool = Field(False, description="plain HTTP on an address other than loopback: only behind a proxy that does TLS")
    strict_start: bool = Field(
        False, description="start writes the recording's first file into the bucket and answers 400 when that fails; it takes longer"
    )
    requests_per_second: float = Field(10, gt=0, description="per app id; over it 429")
    max_recordings: int = Field(50, ge=0, description="at the same time, of each app that has no quota of its own; over it 406")
    audit_days: float = Field(365, gt=0, description="how long the audit log is kept")
    database_url: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL; default: SQLite in data_dir")


class Hub(_Section):
    host: str = "127.0.0.1"
    port: int = Field(8083, ge=0, le=65535, description="WHIP, WHEP and roster")
    addresses: tuple[Address, ...] = Field(
        ("127.0.0.1",), description="this machine's addresses offered as ICE candidates; empty: those of every interface but loopback"
    )
    tls_cert: Path | None = Field(None, description="as api.tls_cert; agent.hub_url then begins with https://")
    tls_key: Path | None = Field(None, description="as api.tls_key")
    allow_plain_http: bool = Field(False, description="as api.allow_plain_http: tokens and media descriptions travel in clear")
    allow_open_channels: bool = Field(False, description="apps without certificate accept publishers from other hosts too")
    certificates: dict[str, SecretStr] = Field(default_factory=dict, description="app id → certificate: its channels need an access token")


class Agent(_Section):
    node: str = "local"
    max_recordings: int | None = Field(None, ge=1, description="at most so many, whatever the machine carries; over it 502")
    cores: float | None = Field(None, gt=0, description="processors that recordings may take; default: nine tenths of this machine's")
    reserve_memory_megabytes: int = Field(256, ge=0, description="that must stay free beside what recordings are expected to take")
    reserve_disk_megabytes: int = Field(1024, ge=0, description="as much of the spool's disk")
    hub_url: str = Field("http://127.0.0.1:8083", description="where workers find the channel hub")
    addresses: tuple[Address, ...] = Field(
        ("127.0.0.1",), description="this machine's addresses workers offer as ICE candidates; empty: those of every interface but loopback"
    )
    replay: Path | None = Field(None, description="folder of a capture that every recording plays in a loop instead of joining a channel")
    second_spool: Path | None = Field(
        None, description="folder on another disk: recordings go on there when the disk of data_dir/spool fails; default: none, they end"
    )
    keep_days: float = Field(
        30, gt=0, description="after the end of a recording: how long the spool keeps what could not be stored; then it is removed"
    )
    upload_parallel: int = Field(4, ge=1, description="files of one recording uploaded at the same time")
    upload_megabits: float | None = Field(
        None, gt=0, description="per second, on average, of all uploads of the node; one file still goes as fast as the line allows"
    )
    rescue_days: float = Field(
        10, gt=0, description="after the end of a recording: how long files are tried to be brought to the customer's store"
    )
    local_root: Path | None = Field(None, description="root of vendor 100 (local folder); default: data_dir/recordings")
    allowed_networks: tuple[str, ...] = Field(
        (), description="CIDR blocks that are not public but may be used by customers' stores and image URLs, such as your own MinIO"
    )


class Backup(_Section):
    """The operator's own store, for what customers' stores do not take. Without a vendor there is none."""

    vendor: int | None = Field(None, description="number of the public API; 100: the folder root")
    region: int = Field(0, ge=0, description="code of the public API")
    bucket: str = Field("backup", min_length=1)
    endpoint: str | None = Field(None, description="of vendor 11; may be at any address")
    access_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    root: Path | None = Field(None, description="folder of vendor 100; default: data_dir/backup. Not on the disk of the spool")
    after_seconds: float = Field(300, gt=0, description="files go to the backup store when the customer's has failed for so long")


class Recording(_Section):
    slice_seconds: float = Field(15, gt=0)
    latency_ms: int = Field(600, ge=100, description="how far the composite picture runs behind the clock; late media beyond it is lost")
    jitter_ms: int = Field(500, ge=50, le=10_000, description="longest wait for a missing packet; composites wait for latency_ms at most")
    video_encoder: str = Field(
        "libx264",
        description="or h264_nvenc, h264_qsv, h264_v4l2m2m, h264_videotoolbox, libopenh264; tried out when the agent starts, which "
        "refuses one that does not work",
    )
    mp4_part_seconds: float = Field(7200, gt=0, description="a new MP4 begins at the first keyframe after so much media")
    mp4_part_bytes: int = Field(2_000_000_000, ge=1, description="or after so many bytes; closing a part takes as much again in the spool")
    lease_seconds: float = Field(12, gt=3, description="a worker that lost its agent for longer closes its slice and ends")
    max_restarts: int = Field(3, ge=0, description="a recording whose worker dies more often ends")
    timeline_file: bool = Field(
        True, description="beside each recording a JSON file that tells who came, went and muted, and where gaps are"
    )
    manifest: bool = Field(True, description="beside each recording a signed JSON file with size and SHA-256 of all its files")
    encrypt_at_rest: bool = Field(
        False,
        description="of the control plane: media of recordings started from now on lies encrypted in the spool, from the end of each "
        "file on, and in the backup store",
    )
    capture_dir: Path | None = Field(None, description="each worker writes what it receives, decrypted, into a folder in this one")
    capture_megabytes: int = Field(1024, ge=1, description="longest capture of one worker; then it ends and the recording goes on")


class Usage(_Section):
    report_seconds: float = Field(10, gt=0, description="a worker that is killed loses so much of its usage, and 3 s more")
    prices: dict[Category, Price] = Field(default_factory=dict, description="category → price of a minute; none: no money is shown")
    currency: str = Field("", max_length=16, description="shown beside money")
    merge_above_hd: bool = Field(False, description="one category hd+ in place of fhd, 2k and 2k+")


class Callbacks(_Section):
    retries: Literal["long", "quick"] = Field(
        "long", description="long: eleven retries in three days; quick: three within a minute, as the original service does"
    )
    late_uploads: bool = Field(
        False, description="event 31 once more when files of an ended recording have come from the backup store to the customer's"
    )
    allow_http: bool = Field(False, description="receivers may have http URLs: payloads and signatures travel in clear")
    allowed_networks: tuple[Network, ...] = Field((), description="CIDR blocks that are not public but may have receivers")
    authorities: Path | None = Field(None, description="PEM file with certificate authorities that are trusted beside the system's")
    addresses: tuple[Address, ...] = Field(
        (), description="where callbacks come from, as `/v1/ncs/ip` tells; default: this machine's address on its way out"
    )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CLOUD_RECORDER_", env_nested_delimiter="__", frozen=True, extra="forbid")

    data_dir: Path = Path("data")
    master_key_file: Path | None = Field(None, description="0600; default: data_dir/master.key. Made at the first start")
    log_level: str = "INFO"
    log_json: bool = False
    api: Api = Api()
    hub: Hub = Hub()
    agent: Agent = Agent()
    backup: Backup = Backup()
    recording: Recording = Recording()
    usage: Usage = Usage()
    callbacks: Callbacks = Callbacks()

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"

    @property
    def recordings_dir(self) -> Path:
        return self.agent.local_root or self.data_dir / "recordings"

    @property
    def backup_dir(self) -> Path:
        return self.backup.root or self.data_dir / "backup"

    @property
    def credentials_file(self) -> Path:
        return self.data_dir / "credentials.json"

    @property
    def operator_file(self) -> Path:
        return self.data_dir / "operator.json"

    @property
    def key_file(self) -> Path:
        return self.master_key_file or self.data_dir / "master.key"

    def for_worker(self) -> "Settings":
        """The copy that workers get: they store nothing outside the spool."""
        return self.without_secrets().model_copy(update={"backup": Backup()})

    def without_secrets(self) -> "Settings":
        """The copy that agents get: they have no business with the database, nor with certificates."""
        api = self.api.model_copy(update={"database_url": SecretStr("")})
        return self.model_copy(update={"api": api, "hub": self.hub.model_copy(update={"certificates": {}})})

    @property
    def database_url(self) -> str:
        return self.api.database_url.get_secret_value() or f"sqlite+aiosqlite:///{self.data_dir.absolute() / 'recorder.db'}"

    def runtime_dir(self) -> Path:
        """The 0700 folder of Unix sockets: `data_dir/run`, or a private folder below /tmp when that path is too long for a socket."""
        folder = self.data_dir.absolute() / "run"
        if len(bytes(folder)) > _SOCKET_PATH_LIMIT - len("/control.sock"):
            name = hashlib.sha256(bytes(folder)).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"cloud-recorder-{os.getuid()}-{name}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat()
        if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.getuid():
            raise ConfigError(f"{folder} belongs to somebody else")
        folder.chmod(0o700)
        return folder

    @property
    def control_socket(self) -> Path:
        """Control plane listens, agent connects."""
        return self.runtime_dir() / "control.sock"

    @property
    def agent_socket(self) -> Path:
        """Agent listens, workers connect."""
        return self.runtime_dir() / "agent.sock"


def check_addresses(setting: str, addresses: Iterable[str]) -> None:
    """See that media can be received on these local addresses.

    Raises:
        ConfigError: one is not of this machine.
    """
    for address in addresses:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError as error:
                raise ConfigError(f"{setting}: {address} is no address of this machine ({error.strerror})") from error


def load(config: Path | None = None) -> Settings:
    """Read the settings.

    Raises:
        ConfigError: with one line that names every wrong field.
    """

    class _WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            files = (TomlConfigSettingsSource(settings_cls, config),) if config else ()
            return (init_settings, env_settings, *files)

    if config and not config.is_file():
        raise ConfigError(f"no configuration file {config}")
    try:
        return Settings.model_construct(**dict(_WithFile()))  # a local class cannot be sent to a worker
    except ValidationError as error:
        raise ConfigError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from error
    except ValueError as error:  # broken TOML
        raise ConfigError(f"{config}: {error}") from error
