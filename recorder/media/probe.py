"""Checks the video encoder of the settings once, at the start of an agent: `python -m recorder.media.probe NAME`.

In a process of its own: drivers of hardware may hang or crash, and the agent loads no media library.
"""

import asyncio
import contextlib
import sys
from typing import Final

from recorder.settings import ConfigError

TRUSTED: Final = "libx264"  # FFmpeg's own wheels and packages have it; starting must not take longer for it
PROBE_SECONDS: Final = 20.0


async def check_video_encoder(name: str) -> None:
    """
    Raises:
        ConfigError: this machine cannot encode with it.
    """
    if name == TRUSTED:
        return
    command = (sys.executable, "-m", __name__, name)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    try:
        said, _ = await asyncio.wait_for(process.communicate(), PROBE_SECONDS)
    except TimeoutError:
        raise ConfigError(f"recording.video_encoder: {name} hangs") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode:
        raise ConfigError(f"recording.video_encoder: {name}: {said.decode().strip() or 'trying it out crashed'}")


def main() -> None:
    from recorder.media.encode import why_unusable

    problem = why_unusable(sys.argv[1])
    if problem:
        print(problem)  # noqa: T201  # the answer to the parent
        sys.exit(1)


if __name__ == "__main__":
    main()
