"""An agent process with short deadlines and real workers, both with the faults of the environment; settings on stdin."""

import asyncio
import signal
import sys

from recorder import log as logs
from recorder.agent.agent import Agent
from recorder.agent.process import MEDIA_LIBRARIES, Grace, Launcher
from recorder.agent.supervisor import Timing
from recorder.settings import Settings
from recorder.worker.launch import Launch
from tests.chaos.disk_faults import install


def run_worker(launch: Launch) -> None:
    from recorder.worker import main

    install("worker")
    main.run(launch)


async def main() -> None:
    settings = Settings.model_validate_json(sys.stdin.read())
    logs.configure("DEBUG")
    install("agent")
    lost = Grace(ask=1, terminate=2, kill=5)
    timing = Timing(lease=settings.recording.lease_seconds, lease_every=1, reconnect=1, lost=lost)
    agent = Agent(
        settings, launcher=Launcher("tests.chaos.disk_agent:run_worker", (*MEDIA_LIBRARIES, "recorder.worker.main")), timing=timing
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.drain)
    await agent.run()


if __name__ == "__main__":
    asyncio.run(main())
