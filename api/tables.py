"""The tables of the control plane; valid on SQLite and PostgreSQL. Times are Unix milliseconds, `*_ns` are recording time."""

from typing import ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint, false, text, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    type_annotation_map: ClassVar = {int: BigInteger, list[str]: JSON, list[int]: JSON(none_as_null=True)}


class Customer(Table):
    __tablename__ = "customers"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_ms: Mapped[int]
    name: Mapped[str] = mapped_column(String(64), default="", server_default="")  # for people
    # At the same time, over all its apps; None: no limit of its own.
    max_recordings: Mapped[int | None]
    max_streams: Mapped[int | None]  # people's tracks that its recordings may record
    max_pixels: Mapped[int | None]  # per second, that its composites encode
    max_spool_bytes: Mapped[int | None]  # committed and in no store yet; over it nothing is started
    max_callbacks: Mapped[int | None]  # waiting for delivery; what is more becomes a dead letter


class Operator(Table):
    __tablename__ = "operators"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    created_ms: Mapped[int]


class Secret(Table):
    """One of the secrets with which a customer or an operator may sign in. The secret itself is nowhere."""

    __tablename__ = "secrets"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)  # names it, and tells nothing about it
    role: Mapped[str] = mapped_column(String(8))  # customer, operator
    owner_id: Mapped[str] = mapped_column(String(64))
    digest: Mapped[bytes] = mapped_column(LargeBinary)  # keyed by the master key of this id:
    key_id: Mapped[str | None] = mapped_column(String(8))  # None: one that was there before keys had ids
    created_ms: Mapped[int]
    expires_ms: Mapped[int | None]


Index("secrets_of", Secret.role, Secret.owner_id)


class App(Table):
    __tablename__ = "apps"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    created_ms: Mapped[int]
    name: Mapped[str] = mapped_column(String(64), default="", server_default="")
    sealed_certificate: Mapped[bytes | None] = mapped_column(LargeBinary)  # its channels then need access tokens
    open_channels: Mapped[bool] = mapped_column(default=False, server_default=false())  # without certificate: to other machines too
    max_recordings: Mapped[int | None]  # at the same time; None: what the settings say
    removed_ms: Mapped[int | None]  # its recordings still name it


class Audit(Table):
    """Something that was done to the deployment; see `api.audit`."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)  # SQLite numbers no other type
    at_ms: Mapped[int]
    actor: Mapped[str] = mapped_column(String(96))  # role:who
    address: Mapped[str] = mapped_column(String(64))  # of callers of the API
    action: Mapped[str] = mapped_column(String(32))  # api.audit.Action
    target: Mapped[str] = mapped_column(String(64))  # an id, of what the action names
    details: Mapped[dict[str, object]] = mapped_column(JSON)


Index("audit_by_time", Audit.at_ms)


class Recording(Table):
    __tablename__ = "recordings"

    sid: Mapped[str] = mapped_column(String(32), primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id"))
    channel: Mapped[str] = mapped_column(String(64))
    uid: Mapped[int]  # the recorder's own
    worker_uid: Mapped[int | None]  # as whom the present worker is in the channel; None: `uid`
    mode: Mapped[str] = mapped_column(String(16))
    resource_key: Mapped[str] = mapped_column(String(32), unique=True)  # one recording per resourceId
    resource_key_id: Mapped[str | None] = mapped_column(String(8))  # id of the master key that opens the resourceId; None: as above
    created_ms: Mapped[int]
    control_until_ms: Mapped[int]  # afterwards nobody can query or stop it; it goes on

    # What queries need to know of the spec when its secrets are gone.
    listing: Mapped[str] = mapped_column(String(8))  # string, json, none
    prefix: Mapped[str] = mapped_column(String(128))  # of object names, with its closing slash
    audio: Mapped[bool]
    video: Mapped[bool]
    files: Mapped[bool] = mapped_column(default=True, server_default=true())  # False: screenshots only
    # What it takes of its customer's quotas while it is live.
    streams: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # people's tracks, at most
    pixels: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # per second
    sealed_spec: Mapped[bytes | None] = mapped_column(LargeBinary)

    status: Mapped[int] = mapped_column(default=0)  # api.lifecycle.Status
    live: Mapped[bool] = mapped_column(default=True)  # holds its channel and uid
    finished: Mapped[bool] = mapped_column(default=False)  # nothing will change any more
    node: Mapped[str | None] = mapped_column(String(255))
    epoch: Mapped[int] = mapped_column(default=0)  # 0: not claimed yet
    offers: Mapped[int] = mapped_column(default=1)
    stop: Mapped[str | None] = mapped_column(String(8))  # None, sending, pending (not delivered), sent
    workers_lost: Mapped[int] = mapped_column(default=0)
    first_media_ms: Mapped[int | None]
    ended_ms: Mapped[int | None]  # when its last file was written, by the node's clock
    finished_ms: Mapped[int | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    uploading: Mapped[str | None] = mapped_column(String(16))
    notices: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # written so far; changed by api.outbox alone


_LIVE, _UNFINISHED = text("live"), text("NOT finished")
Index(
    "one_live_task",
    Recording.app_id,
    Recording.channel,
    Recording.uid,
    unique=True,
    sqlite_where=_LIVE,
    postgresql_where=_LIVE,
)
Index("live_of_app", Recording.app_id, sqlite_where=_LIVE, postgresql_where=_LIVE)
Index("unfinished", Recording.node, sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED)


class Slice(Table):
    """A committed media file. The truth about what a recording consists of."""

    __tablename__ = "slices"

    sid: Mapped[str] = mapped_column(ForeignKey("recordings.sid"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    playlist: Mapped[str | None]
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    start_ms: Mapped[int]
    start_ns: Mapped[int]
    duration_ns: Mapped[int]
    discontinuity: Mapped[bool]
    tags: Mapped[list[str]]
    stored: Mapped[str | None] = mapped_column(String(8))  # None, customer, backup


_UNSTORED = text("stored IS NULL")
Index("unstored_slices", Slice.sid, sqlite_where=_UNSTORED, postgresql_where=_UNSTORED)


class File(Table):
    """A playlist or an MP4, as the customer's file list names it."""

    __tablename__ = "files"

    sid: Mapped[str] = mapped_column(ForeignKey("recordings.sid"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    track: Mapped[str] = mapped_column(String(16))
    uid: Mapped[int]
    mixed: Mapped[bool]
    playable: Mapped[bool]
    start_ms: Mapped[int]


class SeenEvent(Table):
    """The inbox: what was applied already. Emptied when its recording is finished."""

    __tablename__ = "events"

    sid: Mapped[str] = mapped_column(ForeignKey("recordings.sid"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)


class Usage(Table):
    """How long the worker of an epoch has recorded in a category on a UTC day. It says whose by itself, to outlive its recording."""

    __tablename__ = "usage"

    sid: Mapped[str] = mapped_column(String(32), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)  # YYYY-MM-DD
    category: Mapped[str] = mapped_column(String(16), primary_key=True)
    customer_id: Mapped[str] = mapped_column(String(64))
    app_id: Mapped[str] = mapped_column(String(64))
    channel: Mapped[str] = mapped_column(String(64))
    mode: Mapped[str] = mapped_column(String(16))
    milliseconds: Mapped[int]


Index("usage_of_customer", Usage.customer_id, Usage.day)


class Endpoint(Table):
    """Where the notices of an app go."""

    __tablename__ = "endpoints"

    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id"), primary_key=True)
    url: Mapped[str] = mapped_column(String(2048))
    enabled: Mapped[bool] = mapped_column(default=True, server_default=true())  # by its owner; while it is not, no notice is written
    gone_ms: Mapped[int | None]  # when it answered 410; notices are kept, but none is sent
    event_types: Mapped[list[int] | None]  # what is sent; None: every event type, but no alarms
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    sealed_old_secret: Mapped[bytes | None] = mapped_column(LargeBinary)  # the one before, valid until:
    old_until_ms: Mapped[int | None]
    created_ms: Mapped[int]


class Notice(Table):
    """One callback, from the transaction of what it tells until some time after its delivery."""

    __tablename__ = "notices"

    notice_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    app_id: Mapped[str] = mapped_column(String(64))
    sid: Mapped[str | None] = mapped_column(String(32))
    sequence: Mapped[int | None]  # within the sid
    event_type: Mapped[int]
    product_id: Mapped[int]
    payload: Mapped[str] = mapped_column(Text)  # the JSON text that is sent, the same at each attempt
    created_ms: Mapped[int]
    state: Mapped[str] = mapped_column(String(8), default="waiting")  # waiting, sent, dead
    attempts: Mapped[int] = mapped_column(default=0)
    next_ms: Mapped[int]  # not tried earlier
    lease_ms: Mapped[int] = mapped_column(default=0)  # until then it is being sent by one control plane
    notify_ms: Mapped[int | None]  # of the last attempt
    first_failed_ms: Mapped[int | None]
    failure: Mapped[str | None] = mapped_column(String(16))  # of the last attempt
    done_ms: Mapped[int | None]  # when it was sent or given up

    __table_args__ = (UniqueConstraint("sid", "sequence"),)


_WAITING, _DEAD, _DONE = text("state = 'waiting'"), text("state = 'dead'"), text("state <> 'waiting'")
Index("waiting_notices", Notice.app_id, Notice.next_ms, sqlite_where=_WAITING, postgresql_where=_WAITING)
Index("waiting_of_sid", Notice.sid, Notice.sequence, sqlite_where=_WAITING, postgresql_where=_WAITING)
Index("dead_notices", Notice.app_id, Notice.done_ms, sqlite_where=_DEAD, postgresql_where=_DEAD)
Index("done_notices", Notice.state, Notice.done_ms, sqlite_where=_DONE, postgresql_where=_DONE)
