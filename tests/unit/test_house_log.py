import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from recorder import log as logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/a/b", "https://example.com/a/b"),
        ("https://user:secret@example.com:8443/a", "https://***@example.com:8443/a"),
        ("https://example.com/k?X-Amz-Signature=secret&list-type=2", "https://example.com/k?X-Amz-Signature=***&list-type=***"),
        ("https://example.com/#access_token=secret", "https://example.com/"),
        ("https://[::1]:9/x", "https://[::1]:9/x"),
        ("http://example.com:port/", "***"),
        ("http://example.com/a\u2028b", "http://example.com/a\\u2028b"),
    ],
)
def test_redact_hides_what_may_be_secret(url: str, shown: str) -> None:
    assert logs.redact(url) == shown


def test_a_line_for_people_carries_values_and_the_recording(stream: io.StringIO) -> None:
    logs.configure("info", stream=stream)
    logs.current_sid.set("5f3a")
    logging.getLogger("recorder.x").info("segment uploaded", extra={"sequence": 7})
    logs.current_sid.set(None)
    assert stream.getvalue().endswith("INFO    recorder.x: segment uploaded sequence=7 sid=5f3a\n")


def test_a_hostile_value_cannot_forge_a_line(stream: io.StringIO) -> None:
    logs.configure("info", stream=stream)
    logging.getLogger("recorder.x").warning("joined %s", "a\nb", extra={"channel": "c\r\x1b[31md\u2028e"})
    assert stream.getvalue().count("\n") == 1
    assert r"a\nb channel=c\r\x1b[31md\u2028e" in stream.getvalue()


def test_json_lines_and_the_process_wide_recording_in_threads(stream: io.StringIO) -> None:
    logs.configure("info", json_lines=True, sid="77", stream=stream)
    thread = threading.Thread(target=lambda: logging.getLogger("recorder.x").error("lost", extra={"codes": {1}}))
    thread.start()
    thread.join()
    fields = json.loads(stream.getvalue())
    assert fields.pop("time").endswith("+00:00")
    assert fields == {"level": "error", "logger": "recorder.x", "message": "lost", "sid": "77", "codes": "{1}"}


def test_a_traceback_is_kept(stream: io.StringIO) -> None:
    logs.configure("info", json_lines=True, stream=stream)
    try:
        int("broken")
    except ValueError:
        logging.getLogger("recorder.x").exception("failed")
    assert "ValueError: invalid literal" in json.loads(stream.getvalue())["traceback"]


def test_libraries_that_log_urls_are_quiet(stream: io.StringIO) -> None:
    logs.configure("debug", stream=stream)
    logging.getLogger("httpx").info("HTTP Request: GET https://example.com/?token=secret")
    logging.getLogger("uvicorn.access").info("GET /v1/apps/x")
    assert stream.getvalue() == ""


def test_libav_messages_arrive_once_pyav_is_loaded(stream: io.StringIO) -> None:
    import av

    before = av.logging.get_level()
    try:
        logs.configure("info", stream=stream)
        assert "av" in sys.modules
        assert av.logging.get_level() == av.logging.WARNING
    finally:
        av.logging.set_level(before)
