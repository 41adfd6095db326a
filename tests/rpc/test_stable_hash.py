"""Hashes of keys that every process agrees on.

The expected numbers were computed by another implementation, from the rule of .NET peers: the low
32 bits of XXH3-64 over UTF-16, as a signed number.
"""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.rpc.stable_hash import stable_hash


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", 953390274),
        ("a", 136543707),
        ("chat-1", -1505339802),
        ("Grüße", -968073938),
        ("订单 5", 426798900),
        ("🜁", 424630426),
        ("x" * 8, 2030317974),
        ("x" * 9, 953512562),
        ("x" * 64, 1370003660),
        ("x" * 65, 360841950),
        ("x" * 120, 2137446033),
        ("x" * 121, 915329206),
        ("x" * 600, -1779097927),
    ],
)
def test_text_hashes_as_on_other_platforms(key: str, expected: int) -> None:
    assert stable_hash(key) == expected


def test_bytes_are_hashed_as_they_are() -> None:
    assert stable_hash(b"") == 953390274
    assert stable_hash(b"\x00\x01\x02\xff") == -2055525537
    assert stable_hash("chat-1".encode("utf-16-le")) == stable_hash("chat-1")


@given(st.one_of(st.text(), st.binary()))
def test_hashes_are_signed_numbers_of_32_bits(key: str | bytes) -> None:
    assert -(2**31) <= stable_hash(key) < 2**31


def test_half_of_a_surrogate_pair_has_a_hash() -> None:
    assert stable_hash("\ud83d") == stable_hash(b"\x3d\xd8")


@pytest.mark.parametrize("key", [5, None, 1.5, ("a",), bytearray(b"a")])
def test_other_keys_are_refused_with_advice(key: object) -> None:
    with pytest.raises(TypeError, match=r"pass str\(\.\.\.\)"):
        stable_hash(key)  # type: ignore[arg-type]


def test_hashes_do_not_depend_on_the_seed_of_the_process() -> None:
    code = "from afresh.rpc.stable_hash import stable_hash; print(stable_hash('order 5'))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert answers == {"824209966"}
