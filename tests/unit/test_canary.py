"""The search for secrets finds them."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from tests.canary import Watch, search

OTHER = "finch7788aa"  # the run itself is searched for the mark


def test_secrets_in_files_are_found(tmp_path: Path) -> None:
    secret = f"{OTHER}-key"
    (tmp_path / "clean").write_text("nothing of interest, finch7788, canary")
    (tmp_path / "empty").touch()
    assert list(search(tmp_path, OTHER)) == []
    leaks = {
        "serve.log": f"INFO key={secret}",
        "data.json": json.dumps({"a": [secret]}),
        "utf-16": secret.encode("utf-16-le").decode("latin1"),
    }
    for shift in range(3):
        leaks[f"header{shift}"] = f"Authorization: Basic {b64encode(('u' * shift + secret).encode()).decode()}"
    leaks["hex"] = secret.encode().hex()
    for name, text in leaks.items():
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / name).write_text(text, encoding="latin1")
    with sqlite3.connect(tmp_path / "deep" / "recorder.db") as database:
        database.execute("CREATE TABLE a (b)")
        database.execute("INSERT INTO a VALUES (?)", (secret,))
    database.close()
    found = list(search(tmp_path, OTHER))
    assert {line.rpartition("/")[2] for line in found} == {*leaks, "recorder.db"}


@pytest.mark.parametrize(("name", "key"), [("credentials.json", "customer_secret"), ("operator.json", "operator_secret")])
def test_secrets_of_a_deployment_are_found_outside_of_the_file_they_were_given_in(tmp_path: Path, name: str, key: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / name).write_text(json.dumps({key: "0123456789abcdef0123456789abcdef"}))
    (data / "serve.log").write_text("started 0123456789abcdef")
    assert list(search(tmp_path, OTHER)) == []
    (data / "serve.log").write_text("secret 0123456789abcdef0123456789abcdef\n")
    (line,) = search(tmp_path, OTHER)
    assert line.endswith("serve.log")
    (data / "serve.log").unlink()  # the run itself is searched too


@pytest.mark.parametrize("how", ["cmdline", "environ"])
def test_secrets_of_processes_are_found(how: str) -> None:
    mark = f"{OTHER}{how}"  # the other one may run at the same time
    watch = Watch(mark)
    watch.look_at_processes()
    assert watch.found == set()
    arguments = [f"{mark}-key"] if how == "cmdline" else []
    environment = {**os.environ, "KEY": f"{mark}-key"} if how == "environ" else None
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", *arguments], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()  # it is running
        watch.look_at_processes()
        process.communicate(b"\n")
    (line,) = watch.found
    assert line.startswith(f"the {how} of a process")


def test_secrets_in_lines_of_the_log_are_found() -> None:
    watch = Watch(OTHER)
    watch.begin()
    try:
        logging.getLogger("x").warning("nothing")
        assert not watch.found
        logging.getLogger("x").warning("stored", extra={"key": f"{OTHER}-key"})
    finally:
        watch.end()
    (line,) = watch.found
    assert "test_canary.py" in line
