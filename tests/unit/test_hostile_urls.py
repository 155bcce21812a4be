"""The table of forms is as long as it is said to be."""

from tests.hostile_urls import hostile_urls


def test_there_are_300_forms_and_each_is_another() -> None:
    urls = hostile_urls(12_345)
    assert len(set(urls)) == len(urls) >= 300
