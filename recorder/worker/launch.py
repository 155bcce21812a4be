"""What a worker process is started with; travels over the forkserver's pipe, never in argv or environment."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recorder.settings import Settings


class Launch(BaseModel):
    model_config = ConfigDict(frozen=True)

    spec_json: bytes = Field(repr=False)  # RecordingSpec.for_worker().with_secrets()
    settings: Settings
    epoch: int
    folder: Path  # the recording's spool folder
    task: Literal["record", "salvage"] = "record"  # salvage: only finish what workers left open

    @field_validator("settings")
    @classmethod
    def _leave_out_secrets(cls, settings: Settings) -> Settings:
        return settings.for_worker()
