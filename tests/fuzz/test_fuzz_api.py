"""`make fuzz`: at least FUZZ_CASES calls (default 20000) made from the served description, right and wrong ones of each operation."""

import os
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from schemathesis import GenerationMode

from tests.fuzz import calls

CASES = int(os.environ.get("FUZZ_CASES", "20000"))
TASK = "/v1/apps/{appid}/cloud_recording/resourceid/{resourceid}/sid/{sid}/mode/{mode}"


@pytest.mark.timeout(3 * 3600)
def test_calls_made_from_the_description(tmp_path: Path) -> None:
    made: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    begin = time.monotonic()
    with calls.running(tmp_path) as deployment:
        operations = calls.operations(deployment)
        assert {operation.label for operation in operations} >= {f"POST {TASK}/update", f"POST {TASK}/stop", f"GET {TASK}/query"}
        each = -(-CASES // (len(operations) * len(GenerationMode)))
        while (total := sum(seen.total() for seen in made.values())) < CASES:  # some operations take nothing to vary
            for operation in operations:
                for kind in GenerationMode:
                    made[operation.label, kind.value] += calls.statuses(deployment, operation, kind, each, random=True)
    for (label, generated), seen in made.items():
        print(f"{seen.total():6} {generated:8} {label}: {', '.join(f'{status} x {times}' for status, times in sorted(seen.items()))}")
    print(f"{total} calls in {time.monotonic() - begin:.0f} s")
    well = {label for (label, _), seen in made.items() if seen[200] + seen[206]}
    assert well >= {"POST /v1/apps/{appid}/cloud_recording/acquire", f"GET {TASK}/query", f"POST {TASK}/stop"}  # not all was turned away
