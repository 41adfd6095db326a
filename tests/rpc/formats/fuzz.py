"""Frames and values from a fuzzer that looks for new paths through the code.

    python -m tests.rpc.formats.fuzz [FOLDER] [-max_total_time=SECONDS]

Needs atheris, which is not among the dependencies. It starts from the golden frames; FOLDER keeps
what it finds. Anything but a `FormatError` ends the run and is written to a file.
"""

import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import atheris
import msgspec

with atheris.instrument_imports(include=["afresh.rpc.formats", "afresh.rpc.streams.reference"]):
    from afresh.errors import FormatError
    from afresh.rpc.formats import (
        Moment,
        Open,
        Option,
        RecordNaming,
        Result,
        get_format,
        register_open_type,
    )
    from afresh.rpc.formats.sequences import decode_increasing

from tests.rpc.formats.golden import frame_of, load

FORMATS = [get_format(key) for key in ("json5np", "json5", "msgpack6", "msgpack6c-lz4f")]
MAX_SIZE = 1 << 20


class Line(msgspec.Struct, array_like=True):
    item_id: str
    count: int = 1


@dataclass
class Order:
    order_id: UUID
    placed_at: datetime
    lines: tuple[Line, ...] = ()
    total: Decimal | None = None


class Event(msgspec.Struct):
    number: int


class Paid(Event):
    order: Order | None = None


register_open_type(Event, {"paid": Paid})

TYPES: list[tuple[Any, ...]] = [
    (Any,),
    (int, str),
    (Order, timedelta | None),
    (Open[Event] | None, list[Open[Event]]),
    (Option[Line], Result[dict[int, bytes]], Moment),
    (float, set[int], bool | None),
]
CODECS = {
    each.key: [each.codec(types, naming) for types in TYPES for naming in RecordNaming]
    for each in FORMATS
}


def try_one(data: bytes) -> None:
    """Take the data for a frame of each format, and its sections for values of all types."""
    for each in FORMATS:
        frame = data
        compression = each.compression(is_server=True)
        if compression is not None:
            try:
                frame = compression.unpack(data, MAX_SIZE)
            except FormatError:
                continue
        messages, _ = each.decode(frame)
        for section in [data, *(message[3] for message in messages[:3])]:
            for codec in CODECS[each.key]:
                try:
                    values = codec.decode(section)
                except FormatError:
                    continue
                assert len(values) == len(codec.types)
    try:
        decode_increasing(data)
    except FormatError:
        pass


def main() -> None:
    """Write the golden frames where the fuzzer begins, and let it go."""
    with tempfile.TemporaryDirectory() as seeds:
        for key in ("json5np", "json5-polymorphic", "msgpack6", "msgpack6c"):
            for number, vector in enumerate(load(f"frames-{key}")["vectors"]):
                (Path(seeds) / f"{key}-{number}").write_bytes(frame_of(vector))
        atheris.Setup([*sys.argv, seeds], try_one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
