"""The parsers of the receive path: what a search once found worth keeping (rows M1 and M2 of the faults), and whatever else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.kept import ENTRIES, kept

ANYTHING_IS_SOUND = {"g722", "pcma", "pcmu"}


@pytest.mark.parametrize("name", ENTRIES)
def test_kept_inputs_are_read_or_refused(name: str) -> None:
    """`python -m tests.fuzz.kept` looks for more of them."""
    accepted = {ENTRIES[name](data) for data in kept()[name]}
    assert accepted == {True, False} or name in ANYTHING_IS_SOUND


@pytest.mark.parametrize("name", ENTRIES)
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_anything_is_read_or_refused(name: str, data: bytes) -> None:
    ENTRIES[name](data)
