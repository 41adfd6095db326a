"""Hashes that both sides must agree on: of method names, and of results."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import xxhash

__all__ = ["method_hash", "result_hash"]


def method_hash(name: str) -> int:
    """The 32-bit number that stands for a method's full name in compact formats."""
    encoded = name.encode()
    salt = 67211 * len(encoded) & 0xFFFFFFFF
    return xxhash.xxh3_64_intdigest(salt.to_bytes(4, "little") + encoded) & 0xFFFFFFFF


def result_hash(section: bytes) -> str:
    """What a client that has a result cached sends instead of it: the hash of its bytes.

    Args:
        section: the argument section of the `$sys.Ok` that brings the result.

    Returns:
        24 characters: the first 18 bytes of its SHA-256 in base64.
    """
    return b64encode(hashlib.sha256(section).digest()[:18]).decode()
