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
    with calls.running(tmp_path) as harness:
        operations = calls.operations(harness)
        assert {operation.label for operation in operations} >= {f"POST {TASK}/update", f"POST {TASK}/stop", f"GET {TASK}/query"}
        each = -(-CASES // (len(operations) * len(GenerationMode)))
        while (total := sum(seen.total() for seen in made.values())) < CASES:  # some operations take nothing to vary
            for operation in operations:
                for kind in GenerationMode:
                    made[operation.label, kind.value] += calls.statuses(harness, operation, kind, each, random=True)
    of_operation: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for (label, generated), seen in made.items():
        of_operation[label] += seen
        print(f"{seen.total():6} {generated:8} {label}: {', '.join(f'{status} x {times}' for status, times in sorted(seen.items()))}")
    print(f"{total} calls in {time.monotonic() - begin:.0f} s")
    never = [label for label, seen in of_operation.items() if not any(200 <= status < 300 for status in seen)]
    assert not never, "never accepted, so that what they do was not tried"
