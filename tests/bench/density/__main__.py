import asyncio
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

from recorder.agent.process import Launcher
from recorder.protocol import FileOpened
from recorder.settings import Agent, Settings
from tests.bench.composing import Room
from tests.bench.density import ROOMS
from tests.live import TestedWorker

CORES = 2
START_SECONDS = 0.2  # between two starts
FIRST_FILE_SECONDS = 60
SUMMARY = "media thread ended"


def _worker(room: Room, folder: Path, number: int) -> TestedWorker:
    folder.mkdir()
    settings = Settings(data_dir=folder, log_json=True, agent=Agent(replay=room.capture().folder))
    return TestedWorker(settings, room.spec(f"{number:032x}"))


async def _run(room: Room, count: int, seconds: float, folder: Path) -> None:
    Launcher().warm()
    await asyncio.sleep(2)  # it loads the media libraries
    async with contextlib.AsyncExitStack() as stack:
        workers = []
        for number in range(count):
            worker = await stack.enter_async_context(_worker(room, folder / str(number), number).running())
            workers.append(worker)
            await asyncio.sleep(START_SECONDS)
        for worker in workers:
            await worker.until(lambda worker=worker: any(isinstance(r.body, FileOpened) for r in worker.reports), FIRST_FILE_SECONDS)
        await asyncio.sleep(seconds)
        await asyncio.gather(*(worker.stop() for worker in workers))


def main() -> None:
    room, count, seconds = ROOMS[sys.argv[1]], int(sys.argv[2]), float(sys.argv[3])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            errors = os.dup(2)
            os.dup2(file.fileno(), 2)  # the workers inherit it
            try:
                asyncio.run(_run(room, count, seconds, Path(folder)))
            finally:
                os.dup2(errors, 2)
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    ended = [line for line in lines if SUMMARY in line.values()]
    if len(ended) != count:
        sys.exit(f"{len(ended)} of {count} workers came to their end: {lines[-3:]}")
    json.dump({"ticks": sum(line["advances"] for line in ended), "late": sum(line["late"] for line in ended)}, sys.stdout)


if __name__ == "__main__":
    main()
