"""`make fuzz`: the life of recordings for FUZZ_EXAMPLES runs (default 500), another choice each time; failures are made short."""

import os
from pathlib import Path

import pytest

from tests.contract.model import live_through

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))


@pytest.mark.timeout(3 * 3600)
def test_any_calls_and_faults_in_any_order(tmp_path: Path) -> None:
    live_through(tmp_path / "data", examples=EXAMPLES, steps=50, repeatable=False)
