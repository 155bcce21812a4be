"""Object keys never leave their prefix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.keys import object_key


def test_storage_key_joins_prefix_and_name() -> None:
    assert object_key(("d1", "d2"), "sid_room.m3u8") == "d1/d2/sid_room.m3u8"
    assert object_key((), "sid_room.m3u8") == "sid_room.m3u8"
    assert object_key((), "sid_ä b#?%.ts") == "sid_ä b#?%.ts"


@pytest.mark.parametrize(
    ("name", "key"), [("../../x", "d/..-..-x"), ("/x", "d/-x"), ("..", "d/--"), (".", "d/-"), ("", "d/-"), ("a\0b", "d/a-b")]
)
def test_storage_key_disarms_hostile_names(name: str, key: str) -> None:
    assert object_key(("d",), name) == key


@given(st.lists(st.text()), st.text())
def test_storage_key_has_as_many_parts_as_it_was_given(prefix: list[str], name: str) -> None:
    parts = object_key(prefix, name).split("/")
    assert len(parts) == len(prefix) + 1
    assert not {"", ".", ".."} & set(parts)
    assert "\0" not in "".join(parts)
