"""`cloud-recorder demo`: shows on this machine that the service records, and proves it by measuring the files."""

import asyncio
import shutil
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli.demo import report
from cli.demo.judge import judge
from cli.demo.processes import DemoError
from cli.demo.session import Take, run
from recorder.tools.api_client import ApiError

SHORTEST_SECONDS = 15
LOG_WIDTH = 180  # columns of a table that goes into a file


@click.command()
@click.option("--seconds", type=click.IntRange(SHORTEST_SECONDS, 7000), default=30, show_default=True, help="how long to record")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build"), show_default=True, help="where the results go")
def command(seconds: int, folder: Path) -> None:
    """Record a channel with three real publishers through the public API, then check every file.

    Everything runs on loopback. The files stay in build/demo, the result is in build/demo.json; the exit code is 0 only
    when every check holds.
    """
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    data, summary = folder / "demo", folder / "demo.json"
    summary.unlink(missing_ok=True)  # what an earlier run proved says nothing of this one
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    try:
        take = _record(console, data, seconds)
    except (DemoError, ApiError, ExceptionGroup) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise click.ClickException(str(reason)) from error
    with console.status("watching and measuring what was recorded"):
        verdict = judge(take)
    report.write(verdict, take, summary)
    report.show(verdict, console)
    console.print(f"summary: {summary}")
    sys.exit(0 if verdict.ok else 1)


def _record(console: Console, data: Path, seconds: int) -> Take:
    columns = (TextColumn("recording"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=seconds, visible=False)

        def tick(passed: float, what: str) -> None:
            progress.update(bar, completed=passed, description=what, visible=True)
            if not console.is_terminal:
                console.print(f"{passed:5.1f} s  {what}")

        return asyncio.run(run(data, seconds, console.print, tick))


def _reason(error: BaseException) -> DemoError | ApiError | None:
    """What the demo stopped at, out of a group of tasks that ended with it."""
    if isinstance(error, DemoError | ApiError):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((reason for each in inner if (reason := _reason(each))), None)
