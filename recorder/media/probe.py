"""Checks the video encoder of the settings once, at the start of an agent: `python -m recorder.media.probe NAME`.

In a process of its own: drivers of hardware may hang or crash, and the agent loads no media library.
"""

import asyncio
import contextlib
import logging
import sys
from typing import Final

from recorder.settings import ConfigError

log = logging.getLogger(__name__)

FALLBACK: Final = "libx264"  # `encode.SOFTWARE_ENCODER`, which this process must not load
PROBE_SECONDS: Final = 60.0  # it takes one; a machine that starts many things at once must not count as one that cannot


async def check_video_encoder(name: str) -> None:
    """See that this machine can encode with it; warn when there is nothing to fall back to.

    Raises:
        ConfigError: it cannot.
    """
    await _try_out(name)
    if name != FALLBACK:
        try:
            await _try_out(FALLBACK)
        except ConfigError as error:
            log.warning("a recording fails when the encoder takes no more", extra={"error": str(error)})


async def _try_out(name: str) -> None:
    command = (sys.executable, "-m", __name__, name)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            said, _ = await process.communicate()
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
