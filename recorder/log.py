"""How every process logs: one line per record on stderr, for people or as JSON, with the recording's id.

Messages are constant text; values stand beside it in `extra`. What comes from users (names, URLs) is escaped, so that no
value can forge a line. Loads no media library: libav's own log is switched on only where PyAV is loaded already.
"""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final, TextIO
from urllib.parse import parse_qsl, urlsplit

current_sid: ContextVar[str | None] = ContextVar("current_sid", default=None)
"""The recording that the current task works on; it then stands in each line that the task logs."""

_HIDDEN: Final = "***"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "sid", "color_message"}

# At their usual level these write request URLs (with signatures in the query), SDP or one line per packet.
_QUIET: Final = (
    "aioice",
    "aiortc",
    "aiosqlite",
    "asyncio",
    "boto3",
    "botocore",
    "httpcore",
    "httpx",
    "urllib3",
    "uvicorn.access",
    "websockets",
)


def configure(level: str, *, json_lines: bool = False, sid: str | None = None, stream: TextIO | None = None) -> None:
    """Send all logs of this process to `stream` (stderr), each with `sid` unless its task works on another recording.

    Called once, at start; a process that loads PyAV calls it after that.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if json_lines else _Human())
    handler.addFilter(_AddSid(sid))
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("libav").setLevel(logging.WARNING)
    av: ModuleType | None = sys.modules.get("av")
    if av:
        av.logging.set_level(av.logging.WARNING)  # PyAV drops libav's messages unless told otherwise


def redact(url: str) -> str:
    """The URL without what may be secret: the login, the query's values and the fragment."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return _HIDDEN
    login = f"{_HIDDEN}@" if "@" in parts.netloc else ""
    query = "&".join(f"{name}={_HIDDEN}" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    return _escape(f"{scheme}{login}{host}{port}{parts.path}{'?' + query if query else ''}")


class _AddSid(logging.Filter):
    def __init__(self, default: str | None) -> None:
        super().__init__()
        self._default = default  # threads do not inherit context variables

    def filter(self, record: logging.LogRecord) -> bool:
        record.sid = getattr(record, "sid", None) or current_sid.get() or self._default
        return True


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _values(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        recording = getattr(record, "sid", None)
        words = [time, f"{record.levelname:<7}", f"{record.name}:", _escape(record.getMessage())]
        words += [f"{name}={_escape(str(value))}" for name, value in _values(record).items()]
        if recording:
            words.append(f"sid={recording}")
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        recording = getattr(record, "sid", None)
        if recording:
            fields["sid"] = recording
        fields |= {name: value for name, value in _values(record).items() if name not in fields}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)
