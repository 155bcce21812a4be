"""Every wrong option is named, each once, and nothing is made."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.convert import command as convert_command
from cli.main import group
from cli.merge import command as merge_command
from recorder.tools.offline.options import ALL, Options, effective


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["-t", "5"], ["-t goes with -b"]),
        (["-o", "x.mp4", "-m", "1"], ["-o goes with -u"]),
        (["-o", "x.mp4", "-u", "1", "-s"], ["-o goes with -m", "-s does not go with -m 0"]),
        (["-o", "../x.mp4", "-u", "1", "-m", "1"], ["without a folder"]),
        (["-o", "x.mp4", "-u", "1", "-m", "2"], ["ends with .m4a"]),
        (["-o", "list.m3u8", "-u", "1", "-m", "1"], ["ends with .mp4"]),
        (["-m", "1", "--avtype", "auto", "--width", "640"], ["-m and --avtype", "--width and --height go together"]),
        (["-r", "640", "360", "--width", "640", "--height", "360"], ["-r and --width"]),
        (["--width", "2000", "--height", "90"], ["--width must be", "--height must be"]),
        (["--recording_mode", "mix", "-m", "0", "-u", "5"], ["-m 0 is for individual", "-u/--uid is for individual"]),
        (
            ["-m", "4", "-p", "200", "-r", "0", "9000", "-u", "0"],
            ["-m must be", "-p/--video_framerate must be", "-r must be", "-u/--uid must be"],
        ),
        (["--video_bitrate", "10", "-c", "0", "-b", "-1", "-t", "nan"], ["--video_bitrate must be", "-c must be", "-b must", "-t must"]),
    ],
)
def test_every_wrong_option_is_named_at_once(tmp_path: Path, options: list[str], wrong: list[str]) -> None:
    answer = CliRunner().invoke(merge_command, ["-f", str(tmp_path), *options])
    assert answer.exit_code == 2
    said = " ".join(answer.output.partition("Error: ")[2].split()).split("; ")
    assert len(said) == len(wrong), said
    assert all(any(words in one for one in said) for words in wrong), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folders", [[], ["-f", ".", "--dir", "."]])
def test_one_folder_is_named(folders: list[str]) -> None:
    answer = CliRunner().invoke(merge_command, [*folders, "-t", "1"])
    assert answer.exit_code == 2
    assert "-f or --dir names the folder" in answer.output
    assert "-t goes with -b" in answer.output


def test_a_window_makes_one_file() -> None:
    options = Options(begin_s=5, output="a.mp4", uid=1, drop_absences=True)
    assert options.problems() == []
    assert effective(options).mode == ALL


@pytest.mark.parametrize(("asked", "works"), [(None, None), (0, 5), (3, 5), (5, 5), (120, 120)])
def test_a_low_rate_counts_as_five(asked: int | None, works: int | None) -> None:
    assert effective(Options(fps=asked)).fps == works


def test_odd_sizes_become_even() -> None:
    assert effective(Options(size=(641, 361))).size == (640, 360)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["mp9"], ["a folder needs FROM and TO", "TO must be one of"]),
        (["exe", "mp4", "-o", "x"], ["FROM must be one of", "-o is for a single file"]),
        (["mp4", "mp4"], ["FROM and TO are the same"]),
    ],
)
def test_every_wrong_word_of_convert_is_named_at_once(tmp_path: Path, words: list[str], wrong: list[str]) -> None:
    answer = CliRunner().invoke(convert_command, [str(tmp_path), *words])
    assert answer.exit_code == 2
    assert all(text in answer.output for text in wrong), answer.output


def test_the_commands_are_listed_and_what_they_share_is_not() -> None:
    listed = CliRunner().invoke(group, ["--help"]).output
    assert "merge" in listed
    assert "convert" in listed
    assert "_progress" not in listed
