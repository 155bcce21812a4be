"""A process that makes events and delivers them, and that can be told where to die.

    python -m tests.callback_plane FOLDER APP SIDS EVENTS DIES [DATABASE]

It writes EVENTS transactions, each with an event of one of SIDS (with commas), and then says `written`. DIES: never; claimed:
killed when the first notice is about to be sent; sent: when the first was accepted, before that is written down.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from api.sending import Destination, Letter, Outcome, Sender
from recorder.outbound import AddressPolicy
from recorder.outbound_http import open_client
from tests.notices import LOOPBACK, delivering, office

LEASE_MS = 4_000  # shorter than in service, for the tests to be


class DyingSender(Sender):
    dies = "never"

    async def send(self, letter: Letter, destination: Destination, *, attempt: int, now_ms: int) -> Outcome:
        if self.dies == "claimed":
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = await super().send(letter, destination, attempt=attempt, now_ms=now_ms)
        if self.dies == "sent" and outcome.failure is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome


async def main(folder: str, app: str, sids: str, events: str, dies: str, database_url: str | None = None) -> None:
    async with open_client(AddressPolicy(LOOPBACK), plain_http=True) as client:
        sender = DyingSender(client)
        sender.dies = dies
        async with office(Path(folder), sender=sender, database_url=database_url, lease_ms=LEASE_MS) as post, delivering(post):
            for number in range(int(events)):
                await post.say(app, sids.split(",")[number % len(sids.split(","))], 43)
                print(f"committed {number}", flush=True)
            print("written", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
