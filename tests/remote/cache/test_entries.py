"""Keys and entries are values."""

import pytest

from afresh.remote.cache import CacheEntry, CacheKey

from .entries import entry, key


def test_keys_are_equal_when_all_their_parts_are() -> None:
    assert key() == key()
    assert hash(key()) == hash(key())
    assert key() != CacheKey("Orders.for_user:1", b"b", "msgpack6c")
    assert key() != CacheKey("Orders.for_user:2", b"a", "msgpack6c")
    assert key() != CacheKey("Orders.for_user:1", b"a", "json5np")


@pytest.mark.parametrize(
    ("data", "hashed", "matches"),
    [
        (b"data", "", True),
        (b"data", "other", True),
        (b"other", "hash", True),
        (b"other", "", False),
        (b"other", "other", False),
    ],
)
def test_an_entry_matches_by_its_hash_or_by_its_bytes(
    data: bytes, hashed: str, matches: bool
) -> None:
    assert entry(hashed="hash").matches(data, hashed) is matches


def test_two_unknown_hashes_are_not_the_same_hash() -> None:
    assert not entry(hashed="").matches(b"other", "")


def test_the_size_of_an_entry_is_that_of_all_it_holds() -> None:
    assert CacheEntry(CacheKey("abc", b"de", "json5np"), b"fghi", "j").size == 3 + 2 + 4 + 1
