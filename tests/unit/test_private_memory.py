"""The processes of the service keep their memory to themselves."""

import subprocess
import sys

import pytest

COMMAND = "from cli import main; main.group(['agent', '--help'], standalone_mode=False)"
TELL = "import ctypes; print('dumpable', ctypes.CDLL(None).prctl(3))"  # PR_GET_DUMPABLE


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux'")
@pytest.mark.parametrize(("first", "answer"), [("pass", 1), (COMMAND, 0)])
def test_what_the_command_starts_cannot_be_read(first: str, answer: int) -> None:
    told = subprocess.run([sys.executable, "-c", f"{first}\n{TELL}"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == f"dumpable {answer}"
