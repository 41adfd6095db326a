"""Hashes of keys that come out the same in every process, on every host and in every release.

Python's own `hash()` of a string differs from process to process, so it can't say which of several
servers a key belongs to. The numbers are those of .NET peers, so that both sides of a mixed system
agree on where a key lives.
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

__all__ = ["stable_hash"]


def stable_hash(key: str | bytes) -> int:
    """A hash of `key` that never changes: the low 32 bits of its XXH3-64 hash, as a signed number.

    Take the remainder to choose one of several: Python's `%` gives no negative ones.

    ```python
    url = urls[stable_hash(chat_id) % len(urls)]
    ```

    Args:
        key: text, hashed in UTF-16 as .NET does it, or bytes. Turn other keys into one of them in
            a way that lasts: `str(order_number)`, `uuid.bytes`.

    Returns:
        A number from -2**31 up to, but not including, 2**31.

    Raises:
        TypeError: `key` is neither text nor bytes.
    """
    if isinstance(key, str):
        # Half of a surrogate pair is legal in strings here as there.
        data = key.encode("utf-16-le", "surrogatepass")
    elif isinstance(key, bytes):
        data = key
    else:
        raise TypeError(
            f"stable_hash: {key!r} is neither text nor bytes; pass str(...) of it, if that is the "
            "same in all processes."
        )
    low = xxh3_64_intdigest(data) & 0xFFFF_FFFF
    return low - 0x1_0000_0000 if low & 0x8000_0000 else low
