"""Integers of variable length: unsigned LEB128, and ascending sequences of ids in it.

Message framing has its own, inlined reading of short numbers; all else comes here.
"""

from __future__ import annotations

from collections.abc import Iterable

from afresh.errors import FormatError

__all__ = ["decode_increasing", "decode_varuint", "encode_increasing", "encode_varuint"]

MAXIMUM = 2**64 - 1
# Single bytes by their value: concatenating these is faster than making bytes from numbers.
BYTES = [bytes((value,)) for value in range(256)]


def encode_varuint(value: int) -> bytes:
    """Write a number from 0 to 2⁶⁴-1 with seven bits a byte, the lowest first.

    Raises:
        ValueError: the number is negative or larger.
    """
    if not 0 <= value <= MAXIMUM:
        raise ValueError(f"A varuint holds 0 to 2**64 - 1, not {value}.")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varuint(data: bytes, position: int = 0) -> tuple[int, int]:
    """Read a number of at most ten bytes; more bytes than needed are accepted.

    Returns:
        The number, and the position after it.

    Raises:
        FormatError: the data ends within the number, or it is larger than 2⁶⁴-1.
    """
    value = 0
    # Ten bytes hold 70 bits, so the last of them may add one bit only.
    for shift, byte in zip(range(0, 70, 7), data[position : position + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > MAXIMUM:
                break
            return value, position + shift // 7 + 1
    raise FormatError(f"There is no number of at most 64 bits at byte {position}.")


def encode_increasing(numbers: Iterable[int]) -> bytes:
    """Write ascending numbers as their differences: 3, 4, 10 becomes 3, 1, 6.

    Raises:
        ValueError: a number is smaller than the one before it, negative, or above 2⁶⁴-1.
    """
    parts = []
    previous = 0
    for number in numbers:
        if number < previous:
            raise ValueError(f"{number} follows {previous}; pass the numbers sorted.")
        parts.append(encode_varuint(number - previous))
        previous = number
    if previous > MAXIMUM:
        raise ValueError(f"Ids are 64-bit numbers; {previous} is larger.")
    return b"".join(parts)


def decode_increasing(data: bytes) -> list[int]:
    """Read what `encode_increasing` wrote.

    Raises:
        FormatError: the data ends within a number, or a number is larger than 2⁶⁴-1.
    """
    numbers = []
    number = position = 0
    while position < len(data):
        difference, position = decode_varuint(data, position)
        number += difference
        if number > MAXIMUM:
            raise FormatError("The sequence of ids goes beyond 64 bits.")
        numbers.append(number)
    return numbers
