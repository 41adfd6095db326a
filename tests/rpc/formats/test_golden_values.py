"""Values that other implementations wrote, and numbers, sequences and hashes that all agree on."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import xxhash

from afresh.rpc.exceptions import ExceptionInfo
from afresh.rpc.formats import (
    Moment,
    Option,
    RecordNaming,
    Result,
    VersionSet,
    get_format,
    result_hash,
)
from afresh.rpc.formats.sequences import (
    decode_increasing,
    decode_varuint,
    encode_increasing,
    encode_varuint,
)
from tests.rpc.formats.golden import value_of, vectors, with_text_keys

INSTANT = datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

DOTNET_VALUES: dict[str, tuple[Any, Any]] = {
    "Moment": (Moment, Moment.of(INSTANT)),
    "DateTime (UTC)": (datetime, INSTANT),
    "TimeSpan 1.5 s": (timedelta, timedelta(seconds=1.5)),
    "TimeSpan -1d 2h 3m 4s": (timedelta, -timedelta(days=1, hours=2, minutes=3, seconds=4)),
    "Guid": (UUID, UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")),
    "byte[]": (bytes, b"\1\2\3"),
    "Unit (void result)": (None, None),
    "Option<int> none": (Option[int], Option()),
    "Option<int> 5": (Option[int], Option.some(5)),
    "Result<int> 5": (Result[int], Result(5)),
    "Nullable<int> null": (int | None, None),
    "ExceptionInfo none": (ExceptionInfo, ExceptionInfo()),
    "Session": (str, "~"),
    "VersionSet": (VersionSet, VersionSet("Api=1.0")),
    "decimal 1.5": (Decimal, Decimal("1.5")),
    "long 9007199254740993": (int, 9007199254740993),
}

# .NET reads these forms as well; they are shorter, or what msgspec writes.
OTHER_SPELLINGS = {
    "Option<int> none": b'{"hasValue":false}',
    "DateTime (UTC)": b'"2024-01-02T03:04:05.678000Z"',
}


@pytest.mark.parametrize("naming", RecordNaming)
@pytest.mark.parametrize("vector", vectors("dotnet-values", "type"))
def test_values_of_dotnet_peers_are_read_and_written(vector: Any, naming: RecordNaming) -> None:
    annotation, value = DOTNET_VALUES[vector["type"]]
    text = get_format("json5np").codec((annotation,), naming)
    assert text.decode_one(vector["json"].encode()) == value
    expected = OTHER_SPELLINGS.get(vector["type"], vector["json"].encode())
    assert text.encode_one(value) == expected
    if vector["msgpackHex"] is not None:
        packed = bytes.fromhex(vector["msgpackHex"])
        binary = get_format("msgpack6").codec((annotation,), naming)
        assert binary.decode_one(packed) == value
        assert binary.encode_one(value) == packed


def test_every_dotnet_value_is_tried() -> None:
    assert {parameter.values[0]["type"] for parameter in vectors("dotnet-values")} == set(
        DOTNET_VALUES
    )


@pytest.mark.parametrize("vector", vectors("msgpack-values", "hex"))
def test_values_of_typescript_peers_are_read(vector: Any) -> None:
    codec = get_format("msgpack6").codec((Any,))
    packed = bytes.fromhex(vector["hex"])
    value = value_of(vector["value"])
    decoded = codec.decode_one(packed)
    assert decoded == value
    is_wide = isinstance(value, int) and packed[0] in {0xCB, 0xCF, 0xD3}
    if is_wide:
        # Their numbers beyond 32 bits are floats, and their bigints have no short form.
        assert get_format("msgpack6").codec((int,)).decode_one(packed) == value
    else:
        assert codec.encode_one(decoded) == packed


@pytest.mark.parametrize("vector", vectors("varuint", "value"))
def test_varuints(vector: Any) -> None:
    encoded = bytes.fromhex(vector["hex"])
    assert encode_varuint(int(vector["value"])) == encoded
    assert decode_varuint(b"\xff" + encoded + b"\xff", 1) == (
        int(vector["value"]),
        1 + len(encoded),
    )


@pytest.mark.parametrize("vector", vectors("increasing-seq", "hex"))
def test_sequences_of_ids(vector: Any) -> None:
    encoded = encode_increasing(vector["ids"])
    assert encoded.hex() == vector["hex"]
    assert decode_increasing(encoded) == vector["ids"]
    text = get_format("json5").codec((bytes,))
    assert text.encode_one(encoded).decode() == f'"{vector["base64"]}"'


@pytest.mark.parametrize("vector", vectors("xxh3-64", "length"))
def test_the_hash_function(vector: Any) -> None:
    data = bytes((number * 31 + 7) % 256 for number in range(vector["length"]))
    assert xxhash.xxh3_64_intdigest(data) == int(vector["hash"])


@pytest.mark.parametrize("vector", vectors("result-hash", "hash"))
def test_result_hashes(vector: Any) -> None:
    section = bytes.fromhex(vector["argumentDataHex"])
    assert result_hash(section) == vector["hash"]
    if "value" in vector:
        assert get_format(vector["format"]).codec((Any,)).encode_one(vector["value"]) == section


def test_keys_of_maps_may_be_numbers_only_in_binary_formats() -> None:
    value = {1: "x"}
    codec = get_format("msgpack6").codec((Any,))
    assert codec.decode_one(codec.encode_one(value)) == value
    text = get_format("json5").codec((Any,))
    assert text.decode_one(text.encode_one(value)) == with_text_keys(value)
