"""An agent process for tests: settings on stdin, scripted workers, short deadlines."""

import asyncio
import signal
import sys

from recorder import log as logs
from recorder.agent.agent import Agent
from recorder.agent.process import Grace, Launcher
from recorder.agent.supervisor import Timing
from recorder.settings import Settings


async def main() -> None:
    settings = Settings.model_validate_json(sys.stdin.read())
    logs.configure("DEBUG")
    timing = Timing(
        lease=settings.recording.lease_seconds,
        lease_every=0.3,
        silent=1.5,
        reconnect=1,
        stop=Grace(ask=2, terminate=1, kill=5),
        lost=Grace(ask=0.3, terminate=1, kill=5),
        drain=15,
    )
    agent = Agent(settings, launcher=Launcher("tests.integration.agent_worker:run", preload=()), timing=timing)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.drain)
    await agent.run()


if __name__ == "__main__":
    asyncio.run(main())
