"""The command line and what a process of the control plane loads, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cli

MEDIA = ("av", "aiortc", "aioice", "numpy", "mixer")


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUD_RECORDER_")}
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=clean | environment, timeout=50, check=False)


@pytest.mark.parametrize("module", ["api.app", "cli.api", "cli.serve", "cli.agent"])
def test_the_control_plane_loads_no_media_library(module: str) -> None:
    script = f"import importlib, json, sys; importlib.import_module({module!r}); print(json.dumps(sorted(sys.modules)))"
    result = run("-c", script)
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)).isdisjoint(MEDIA)


def test_help_lists_every_subcommand_with_a_line_of_help() -> None:
    result = run("-m", "cli.main", "--help")
    assert result.returncode == 0, result.stderr
    listed = {line.split()[0]: line.split()[1:] for line in result.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    modules = Path(cli.__path__[0]).iterdir()
    files = {path.stem for path in modules if path.name[0] != "_" and (path.suffix == ".py" or (path / "__init__.py").exists())}
    assert set(listed) >= files - {"main"}
    assert all(listed[name] for name in files - {"main"})


@pytest.mark.parametrize("name", ["serve", "api", "agent", "hub"])
def test_wrong_configuration_is_one_clear_line(name: str, tmp_path: Path) -> None:
    result = run("-m", "cli.main", name, CLOUD_RECORDER_API__PORT="none", CLOUD_RECORDER_DATA_DIR=str(tmp_path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("cloud-recorder: api.port: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_configuration_file_is_one_clear_line(tmp_path: Path) -> None:
    result = run("-m", "cli.main", "serve", "--config", str(tmp_path / "absent.toml"))
    assert (result.returncode, result.stderr) == (2, f"cloud-recorder: no configuration file {tmp_path / 'absent.toml'}\n")


def test_an_unknown_subcommand_is_refused() -> None:
    result = run("-m", "cli.main", "os")
    assert result.returncode == 2
    assert "No such command 'os'" in result.stderr


@pytest.mark.parametrize("part", ["hub", "agent"])
def test_media_addresses_of_other_machines_are_refused(part: str, tmp_path: Path) -> None:
    setting = {f"CLOUD_RECORDER_{part.upper()}__ADDRESSES": '["192.0.2.123"]'}
    result = run("-m", "cli.main", part, CLOUD_RECORDER_HUB__PORT="0", CLOUD_RECORDER_DATA_DIR=str(tmp_path), **setting)
    assert result.returncode == 2
    assert result.stderr.startswith(f"cloud-recorder: {part}.addresses: 192.0.2.123 is no address of this machine")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("name", "why"), [("libx265", "there are libx264, h264_nvenc, "), ("h264_v4l2m2m", "")])
def test_a_video_encoder_that_does_not_work_is_refused(name: str, why: str, tmp_path: Path) -> None:
    result = run("-m", "cli.main", "agent", CLOUD_RECORDER_RECORDING__VIDEO_ENCODER=name, CLOUD_RECORDER_DATA_DIR=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith(f"cloud-recorder: recording.video_encoder: {name}: ")
    assert why in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_usual_video_encoder_is_tried_out_too(tmp_path: Path) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('of a build that does not fit')")
    result = run("-m", "cli.main", "agent", CLOUD_RECORDER_DATA_DIR=str(tmp_path), PYTHONPATH=f"{tmp_path}:{Path.cwd()}")
    assert result.returncode == 2
    assert result.stderr == "cloud-recorder: recording.video_encoder: libx264: trying it out crashed\n"


def test_the_hub_may_open_a_socket_for_each_of_its_sessions() -> None:
    script = """
import asyncio, resource
from cli import hub
from recorder.settings import load
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
async def serve(settings, stop, **_):
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
hub.server.serve = serve
asyncio.run(hub.serve(load()))
"""
    result = run("-c", script)
    assert result.returncode == 0, result.stderr
