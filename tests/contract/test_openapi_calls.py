"""A few calls made from the served description; `make fuzz` makes thousands of others."""

from collections.abc import Iterator

import pytest
from schemathesis import GenerationMode

from tests.contract.model import Deployment
from tests.fuzz import calls

CASES = 10  # of each kind, of each operation


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with calls.running(tmp_path_factory.mktemp("data")) as deployment:
        yield deployment


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", GenerationMode)
def test_answers_are_those_of_the_description(deployment: Deployment, kind: GenerationMode) -> None:
    for operation in calls.operations(deployment):
        assert calls.statuses(deployment, operation, kind, CASES, random=False), operation.label
