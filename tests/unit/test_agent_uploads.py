"""What a playlist may show while its slices are still on their way."""

from recorder.agent.lists import listed
from recorder.protocol import Slice


def _slice(sequence: int, epoch: int = 1, *, discontinuity: bool = False) -> Slice:
    name = f"{epoch}-{sequence}.ts"
    return Slice(
        name=name,
        playlist="p.m3u8",
        epoch=epoch,
        sequence=sequence,
        size=1,
        sha256="",
        start_ms=0,
        start_ns=0,
        duration_ns=1,
        discontinuity=discontinuity,
    )


def _shown(slices: list[Slice], stored: str, lost: str = "") -> list[tuple[str, bool]]:
    return [(one.name.removesuffix(".ts"), one.discontinuity) for one in listed(slices, _names(stored), _names(lost))]


def _names(text: str) -> set[str]:
    return {f"{name}.ts" for name in text.split()}


def test_agent_uploads_list_up_to_the_first_that_is_missing() -> None:
    slices = [_slice(n) for n in range(4)]
    assert _shown(slices, "") == []
    assert _shown(slices, "1-1 1-2") == []
    assert _shown(slices, "1-0 1-1 1-3") == [("1-0", False), ("1-1", False)]
    assert [name for name, _ in _shown(slices, "1-0 1-1 1-2 1-3")] == ["1-0", "1-1", "1-2", "1-3"]


def test_agent_uploads_list_in_the_order_of_commits() -> None:
    slices = [_slice(1, 2), _slice(5), _slice(0, 2), _slice(3)]
    assert [name for name, _ in _shown(slices, "1-3 1-5 2-0 2-1")] == ["1-3", "1-5", "2-0", "2-1"]


def test_agent_uploads_mark_where_another_worker_begins() -> None:
    assert _shown([_slice(0), _slice(0, 2), _slice(1, 2)], "1-0 2-0 2-1") == [("1-0", False), ("2-0", True), ("2-1", False)]


def test_agent_uploads_mark_where_a_slice_is_lost() -> None:
    assert _shown([_slice(n) for n in range(4)], "1-0 1-3", "1-1 1-2") == [("1-0", False), ("1-3", True)]


def test_agent_uploads_keep_the_discontinuities_of_the_worker() -> None:
    assert _shown([_slice(0), _slice(1, discontinuity=True)], "1-0 1-1") == [("1-0", False), ("1-1", True)]
