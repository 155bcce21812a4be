"""A few calls made from the served description; `make fuzz` makes thousands of others."""

from collections.abc import Iterator

import pytest
from schemathesis import GenerationMode

from tests.fuzz import calls

CASES = 10  # of each kind, of each operation
TAKEN = ("/query", "/update", "/updateLayout", "/stop")  # calls of a recording, which are to get as far as that


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[calls.Harness]:
    with calls.running(tmp_path_factory.mktemp("data")) as harness:
        yield harness


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", GenerationMode)
def test_answers_are_those_of_the_description(harness: calls.Harness, kind: GenerationMode) -> None:
    for operation in calls.operations(harness):
        seen = calls.statuses(harness, operation, kind, CASES, random=False)
        assert seen, operation.label
        if operation.path.endswith(TAKEN):
            assert seen[200], operation.label
