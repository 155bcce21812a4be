"""The life of recordings, any calls and faults in any order, held to the contract. `make fuzz` goes on for longer."""

from pathlib import Path

import pytest

from tests.contract.model import live_through


@pytest.mark.timeout(120)
def test_any_calls_and_faults_in_any_order(tmp_path: Path) -> None:
    live_through(tmp_path / "data", examples=20, steps=25, repeatable=True)
