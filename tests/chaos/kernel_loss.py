"""A recording while the kernel loses datagrams on loopback; run as root in a network namespace made for it.

`python -m tests.chaos.kernel_loss FOLDER PERCENT` prints what was measured as the last line, in JSON.
"""

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Final

from tests.chaos.live_room import UID, live_room

_SECONDS: Final = 20
_RULES: Final = """
table ip chaos {{
  chain input {{
    type filter hook input priority 0;
    ip protocol udp numgen random mod 100 < {percent} counter drop
  }}
}}
"""


async def record(folder: Path, percent: int) -> dict[str, float]:
    async with live_room(folder, leg=None, seed=0) as room:
        await _nft("-f", "-", rules=_RULES.format(percent=percent))
        await asyncio.sleep(_SECONDS)
        counted = re.search(r"counter packets (\d+)", await _nft("list", "table", "ip", "chaos"))
        recording = await room.finish()
    assert counted
    figures = {"dropped": int(counted[1]), "expected_seconds": round(recording.expected_seconds, 3)}
    return recording.seen[UID].figures() | figures


async def _nft(*arguments: str, rules: str = "") -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("nft", *arguments, stdin=pipe, stdout=pipe)
    said, _ = await process.communicate(rules.encode())
    assert process.returncode == 0
    return said.decode()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(record(Path(sys.argv[1]), int(sys.argv[2])))))
