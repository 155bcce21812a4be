"""Every metric of the service, declared in one place: prefix `recorder_`, base units, labels from closed sets, never ids.

The control plane alone counts, from what its callers ask and from the events of its nodes; its probe listener serves
`exposition()`. What another process counted would be seen by nobody.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()

REQUESTS = Counter("recorder_requests", "HTTP calls answered", ("call", "status"), registry=REGISTRY)
AUTHZ_DENIED = Counter(
    "recorder_authz_denied", "Calls for what is not the caller's, by what", ("what",), registry=REGISTRY
)  # login, app, …
FENCED = Counter(
    "recorder_fenced", "Losers kept from writing, by what they lost or still said", ("what",), registry=REGISTRY
)  # uid: to another recording of the channel; worker, event, claim: of an epoch that is over
RECORDINGS_STARTED = Counter("recorder_recordings_started", "Recordings accepted", ("mode",), registry=REGISTRY)
RECORDINGS_ENDED = Counter("recorder_recordings_ended", "Recordings that ended, by how", ("outcome", "reason"), registry=REGISTRY)
RECORDINGS_LIVE = Gauge("recorder_recordings_live", "Recordings that are running", registry=REGISTRY)
WORKERS_LOST = Counter("recorder_workers_lost", "Workers that died before their recording ended", registry=REGISTRY)
IMPAIRED = Counter("recorder_impaired", "Reports of lost quality, by warnCode", ("code",), registry=REGISTRY)  # 10006: encoder late
SLICES_COMMITTED = Counter("recorder_slices_committed", "Media files closed and safe in the spool", registry=REGISTRY)
COMMIT_SECONDS = Histogram(
    "recorder_commit_seconds",
    "What the disk of the spool takes for one media file, fsync and all",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
    registry=REGISTRY,
)
SLICES_STORED = Counter("recorder_slices_stored", "Media files verified in a store", ("store",), registry=REGISTRY)  # customer, backup
UPLOAD_SECONDS = Histogram(
    "recorder_upload_seconds",
    "From a closed media file to its verified upload",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)
UPLOAD_RETRIES = Counter("recorder_upload_retries", "Attempts that failed before media files were verified", registry=REGISTRY)
UPLOAD_MISMATCHES = Counter(
    "recorder_upload_mismatches", "Uploads whose verification failed: the store has, or says it has, other bytes", registry=REGISTRY
)

IMAGES_FAILED = Counter("recorder_images_failed", "Images of layouts that were left out; address: not allowed", ("why",), registry=REGISTRY)

CALLBACKS = Counter("recorder_callbacks", "Attempts to deliver a callback, by result; refused: not 200", ("result",), registry=REGISTRY)
CALLBACK_SECONDS = Histogram(
    "recorder_callback_seconds",
    "From the state change to the first attempt to deliver its callback",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 60),
    registry=REGISTRY,
)
CALLBACKS_WAITING = Gauge("recorder_callbacks_waiting", "Callbacks that are not delivered yet", registry=REGISTRY)
CALLBACKS_DEAD = Gauge("recorder_callbacks_dead", "Callbacks that were given up and can be replayed", registry=REGISTRY)
DEAD_LETTERS = Counter("recorder_dead_letters", "Callbacks given up by this process", registry=REGISTRY)
CALLBACK_HOSTS_OPEN = Gauge("recorder_callback_hosts_open", "Receivers' hosts that do not answer and are left alone", registry=REGISTRY)
SSRF_BLOCKED = Counter("recorder_ssrf_blocked", "Users' URLs with an address that is not allowed, by use", ("what",), registry=REGISTRY)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
