"""What a cache of remote results holds: what was asked, and what the answer was, as bytes.

How arguments and results become bytes is left to the formats of `afresh.rpc`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheEntry", "CacheKey"]


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What was asked.

    Args:
        method: the full name of the method, as it goes over the wire.
        arguments: the argument section, as it goes over the wire.
        format_key: the format that both sections are in, such as "msgpack6c".
    """

    method: str
    arguments: bytes
    format_key: str


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What was answered.

    Args:
        key: what was asked.
        data: the section with the result, as it came over the wire.
        hash: what the server calls this result; "" when it did not say.
    """

    key: CacheKey
    data: bytes
    hash: str = ""

    @property
    def size(self) -> int:
        """How many bytes of keys and data it holds."""
        key = self.key
        return len(self.data) + len(self.hash) + len(key.arguments) + len(key.method)

    def matches(self, data: bytes, hash: str = "") -> bool:
        """Whether a result is the same as this one: by its hash if there is one, or by its bytes.

        Args:
            data: the section with the result.
            hash: what the server calls it; "" when it did not say.
        """
        return (hash != "" and hash == self.hash) or data == self.data
