"""What the recordings of one node share."""

from dataclasses import dataclass, field

from recorder.agent.bus import Bus
from recorder.agent.disk import Disk
from recorder.agent.images import ImageHelpers
from recorder.agent.process import Launcher
from recorder.agent.supervisor import Timing
from recorder.settings import Settings
from storage.pace import Pace
from storage.spool import Spool


@dataclass(frozen=True, slots=True)
class Node:
    """Settings and services of the agent."""

    settings: Settings
    bus: Bus
    launcher: Launcher
    timing: Timing
    images: ImageHelpers
    disk: Disk
    pace: Pace = field(default_factory=Pace)  # of all uploads
    second_spool: Spool | None = None
