"""Messages between control plane, agent and worker.

All are small pydantic models told apart by `type`, carried by `recorder.peer.Peer`. Media never travels here.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from recorder.frames import Kind
from recorder.spec import Canvas, Layout, Mode, RecordingSpec, Subscription
from recorder.usage import Category

Outcome = Literal["complete", "failed", "aborted", "limit_reached", "interrupted"]
Reason = Literal[
    "stopped",  # asked by the customer
    "idle",
    "nothing_recorded",
    "kicked",
    "token",  # missing or wrong: the public API's error 110
    "token_expired",  # 109
    "channel",  # could not be joined, or lost for good
    "storage",  # the customer's storage refuses us
    "crashed",
    "spool_full",
    "shutdown",
]
Phase = Literal["starting", "ready", "recording", "stopping"]
ImageFault = Literal["address", "download", "picture", "time"]
Uploading = Literal["uploaded", "backuped", "unknown"]
Content = Literal["media", "snapshot", "timeline"]

IMAGES_FOLDER = "images"  # of a recording: agent writes, worker reads


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class File(_Message):
    """One entry of the customer's file list: a playlist or an MP4."""

    name: str  # object name without the customer's prefix
    track: Literal["audio", "video", "audio_and_video"]
    uid: int  # 0 in mix
    mixed: bool
    playable: bool
    start_ms: int  # Unix ms of its first media


class Slice(_Message):
    """A committed file: durable in the spool, named in the journal."""

    name: str  # object name without the customer's prefix
    playlist: str | None  # the playlist it belongs to; None: stands alone (MP4, JPG, JSON)
    content: Content = "media"
    epoch: int
    sequence: int  # counts committed files of one epoch from 0
    size: int
    sha256: str
    start_ms: int  # Unix ms
    start_ns: int  # on the recording timeline
    duration_ns: int
    discontinuity: bool = False
    tags: tuple[str, ...] = ()  # vendor tags that precede it in the playlist, whole lines


# ---- events: worker -> agent -> control plane --------------------------------------------------------------------


class PhaseChanged(_Message):
    type: Literal["phase"] = "phase"
    phase: Phase


class FileOpened(_Message):
    type: Literal["file"] = "file"
    file: File


class TrackBegan(_Message):
    """The worker of `epoch` has begun the first slice of a playlist."""

    type: Literal["began"] = "began"
    epoch: int
    playlist: str  # object name without the customer's prefix
    track: Literal["audio", "video", "audio_and_video"]
    uid: int  # 0 in mix
    mixed: bool
    start_ms: int  # Unix ms


class StreamChanged(_Message):
    """Media of a stream comes in, or comes in no more."""

    type: Literal["stream"] = "stream"
    epoch: int  # of the worker
    uid: int  # 0: the mixed stream
    kind: Kind
    receiving: bool
    at_ms: int  # Unix ms


class SliceCommitted(_Message):
    type: Literal["slice"] = "slice"
    slice: Slice
    seconds: float | None = None  # that the disk took; None: nobody measured


class SliceStored(_Message):
    """Agent only: the object is verified in the customer's store (or the backup store)."""

    type: Literal["stored"] = "stored"
    name: str
    content: Content = "media"  # each stored snapshot is one event 45
    backup: bool = False
    seconds: float | None = None  # from the commit to the verified upload
    retries: int = 0
    mismatches: int = 0  # uploads of this recording, since the last event of this kind, whose verification failed


class UploaderStarted(_Message):
    """Agent only, once: what will be committed is taken to the customer's store from now on."""

    type: Literal["uploader"] = "uploader"


class PlaylistPublished(_Message):
    """Agent only, once for each: an M3U8 is in the customer's store for the first time."""

    type: Literal["published"] = "published"
    name: str


class Progress(_Message):
    """Agent only, once a minute while the recording goes on: how many of the committed files are stored."""

    type: Literal["progress"] = "progress"
    stored: int
    committed: int


class Warned(_Message):
    type: Literal["warning"] = "warning"
    module: int  # 0 recorder, 1 uploader
    code: int
    detail: str = ""
    uid: int | None = None  # of an alarm: whose media it is; 0: that of all together


class Faulted(_Message):
    """An error the customer has to know of at once."""

    type: Literal["fault"] = "fault"
    module: int  # 0 recorder, 1 uploader, 2 service
    code: int  # of a recorder: 111 the channel is away; of an uploader: 32 the storage refuses us
    level: int = 4  # 1 debug to 5 fatal
    detail: str = ""


class BackupStarted(_Message):
    """Agent only: the customer's store has failed for so long that files go to the backup store."""

    type: Literal["backup_started"] = "backup_started"


class BackupProgress(_Message):
    """Agent only: files come from the backup store, or the spool of a recording that has ended, to the customer's."""

    type: Literal["backup_progress"] = "backup_progress"
    left: int  # files that are not there yet


class BackupDone(_Message):
    """Agent only, after a `Finished` that leaves files behind: nothing will be brought to the customer's store any more."""

    type: Literal["backup_done"] = "backup_done"
    uploading: Uploading  # uploaded: everything is there now
    detail: str = ""


class ImageFailed(_Message):
    """Agent only: an image of the layout cannot be shown; what the layout falls back to shows."""

    type: Literal["image_failed"] = "image_failed"
    why: ImageFault
    detail: str = ""


class UsedTime(_Message):
    """Time that counts in one category on one UTC day."""

    day: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    category: Category
    milliseconds: int = Field(ge=0)


class Metered(_Message):
    """How long the worker of `epoch` has recorded so far, in all: the largest figure of a day and category holds."""

    type: Literal["usage"] = "usage"
    epoch: int
    used: tuple[UsedTime, ...]


class Ended(_Message):
    """The worker has written its last file."""

    type: Literal["ended"] = "ended"
    outcome: Outcome
    reason: Reason
    detail: str = ""


class WorkerLost(_Message):
    """Agent only: the worker died; `next_epoch` goes on (None: it was the last try)."""

    type: Literal["lost"] = "lost"
    detail: str = ""


class WorkerFenced(_Message):
    """Agent only: a worker whose epoch is over has come, and was turned away before it could tell anything."""

    type: Literal["fenced"] = "fenced"
    epoch: int  # of that worker


class Finished(_Message):
    """Agent only: everything that will be stored is stored, but for what it leaves behind."""

    type: Literal["finished"] = "finished"
    outcome: Outcome
    reason: Reason
    uploading: Uploading
    leaves_behind: bool = False  # the node goes on to bring files to the customer's store; `BackupDone` ends that
    detail: str = ""


EventBody = Annotated[
    PhaseChanged
    | (FileOpened | TrackBegan | SliceCommitted | SliceStored | PlaylistPublished | Metered)
    | (StreamChanged | UploaderStarted | Progress)
    | (Warned | Faulted | ImageFailed | WorkerLost | WorkerFenced)
    | (BackupStarted | BackupProgress | BackupDone)
    | (Ended | Finished),
    Field(discriminator="type"),
]


class Event(_Message):
    """What happened in one recording. `(sid, epoch, sequence)` is its identity: repeated delivery changes nothing."""

    type: Literal["event"] = "event"
    sid: str
    epoch: int
    sequence: int  # per (sid, epoch) from 0, without holes
    at_ms: int  # Unix ms
    body: EventBody


# ---- control plane <-> agent -------------------------------------------------------------------------------------


class AgentHello(_Message):
    """First message of an agent's connection. Answered by Done."""

    type: Literal["agent_hello"] = "agent_hello"
    node: str
    live: tuple[str, ...] = ()  # sids this node still works on


class AskApp(_Message):
    """Hub -> control plane: who may come into channels of this app? Answered by App, or Refused when there is none."""

    type: Literal["ask_app"] = "ask_app"
    app_id: str


class App(_Message):
    """Answer to AskApp."""

    type: Literal["app"] = "app"
    certificate: str | None = Field(None, repr=False)  # a secret; its channels need an access token
    open_channels: bool = False  # without certificate: publishers may come from other machines


class Load(_Message):
    """What of a recording decides how much it takes of a node. Nothing of it is secret."""

    mode: Mode = "mix"
    video: bool = True
    canvas: Canvas = Canvas()
    mp4: bool = False

    @classmethod
    def of(cls, spec: RecordingSpec) -> "Load":
        return cls(mode=spec.mode, video=spec.video, canvas=spec.canvas, mp4=spec.mp4)


class Offer(_Message):
    """Control plane -> agent: a recording to claim. Answered by Done when the node takes it on, else Refused."""

    type: Literal["offer"] = "offer"
    sid: str
    load: Load = Load()


class Claim(_Message):
    """Agent -> control plane. `resume` is the epoch the node already owns (after the agent's own restart).

    `moves`: nothing is stored and nothing will be before the answer, so that another place the customer wants becomes the place.
    """

    type: Literal["claim"] = "claim"
    sid: str
    node: str
    resume: int | None = None
    moves: bool = False


class Claimed(_Message):
    """Answer to Claim: the only message that carries secrets of a recording. `spec` is `RecordingSpec.with_secrets()`."""

    type: Literal["claimed"] = "claimed"
    sid: str
    epoch: int
    spec: dict[str, Any]


class Sign(_Message):
    """Agent -> control plane: sign the manifest of a recording of this node. Answered by Signed or Refused."""

    type: Literal["sign"] = "sign"
    sid: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Signed(_Message):
    type: Literal["signed"] = "signed"
    key: str  # which of the deployment's keys
    signature: str  # base64


class Done(_Message):
    type: Literal["done"] = "done"


class Refused(_Message):
    type: Literal["refused"] = "refused"
    reason: Literal["unknown", "not_yours", "no_capacity", "exiting", "bad_request", "stale"]
    detail: str = ""


# ---- commands: control plane -> agent -> worker. Answered by Done or Refused. ---------------------------------------


class Stop(_Message):
    type: Literal["stop"] = "stop"
    sid: str
    reason: Reason = "stopped"


class Subscribe(_Message):
    type: Literal["subscribe"] = "subscribe"
    sid: str
    subscription: Subscription


class SetLayout(_Message):
    type: Literal["layout"] = "layout"
    sid: str
    layout: Layout


class RenewStorage(_Message):
    """The customer has given new keys of the bucket: claim again with `resume` to get them. Secrets travel in no command.

    `moves`: it is another place. Refused with `bad_request` when a part of the recording is stored in the first.
    """

    type: Literal["renew_storage"] = "renew_storage"
    sid: str
    moves: bool = False


# ---- worker <-> agent --------------------------------------------------------------------------------------------


class WorkerHello(_Message):
    """First message of a worker's connection to its agent; repeated when it reconnects to a restarted agent."""

    type: Literal["worker_hello"] = "worker_hello"
    sid: str
    epoch: int
    pid: int


class Lease(_Message):
    """Agent -> worker every 3 s, answered by Done: goes on for `seconds` more, counted from its arrival."""

    type: Literal["lease"] = "lease"
    seconds: float = 12.0


class ImageReady(_Message):
    """Agent -> worker: the image behind a URL of the layout, as raw pixels. Answered by Done when it is read.

    The file in `IMAGES_FOLDER` of the recording holds the planes Y, U, V of 4:2:0, BT.601 in full range, without padding.
    """

    type: Literal["image"] = "image"
    url: str
    file: str = Field(pattern=r"^[0-9]+$")
    width: int  # even, as height
    height: int


class SaveSpace(_Message):
    """Agent -> worker: the disk of the spool fills up, encode with less (`on`), or as usual again. Answered by Done."""

    type: Literal["save_space"] = "save_space"
    on: bool


class Report(_Message):
    """Worker -> agent: an event of the worker; the agent numbers and forwards it."""

    type: Literal["report"] = "report"
    at_ms: int
    body: EventBody


Message = Annotated[
    Event
    | (AgentHello | Offer | Claim | Claimed | Done | Refused | AskApp | App | Sign | Signed)
    | (Stop | Subscribe | SetLayout | RenewStorage)
    | (WorkerHello | Lease | ImageReady | SaveSpace | Report),
    Field(discriminator="type"),
]
message_adapter: TypeAdapter[Message] = TypeAdapter(Message)
