"""The golden data of tests/rpc/vectors, and values in the spelling of its files."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "vectors"


def load(name: str) -> Any:
    """The content of a file."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def vectors(name: str, key: str = "name") -> list[Any]:
    """The vectors of a file as parameters of a test, named by one of their members."""
    return [
        pytest.param(vector, id=str(vector.get(key, number))[:40])
        for number, vector in enumerate(load(name)["vectors"])
    ]


def frame_of(vector: dict[str, Any]) -> bytes:
    """The bytes of a frame that is given as text or in hexadecimal."""
    if "text" in vector:
        return str(vector["text"]).encode()
    return bytes.fromhex(vector["hex"])


def value_of(spelled: Any) -> Any:
    """The value that one with `$bytes`, `$bigint`, `$date`, `$map` or `$undefined` spells."""
    match spelled:
        case {"$bytes": data}:
            return bytes.fromhex(data)
        case {"$bigint": digits}:
            return int(digits)
        case {"$date": text}:
            return datetime.fromisoformat(text).astimezone(UTC)
        case {"$map": pairs}:
            return {value_of(key): value_of(value) for key, value in pairs}
        case {"$undefined": _}:
            return None
        case dict():
            return {key: value_of(value) for key, value in spelled.items()}
        case list():
            return [value_of(value) for value in spelled]
    return spelled


def with_text_keys(value: Any) -> Any:
    """The value with the keys of maps as text, which is how the files show them."""
    match value:
        case dict():
            return {str(key): with_text_keys(each) for key, each in value.items()}
        case list() | tuple():
            return [with_text_keys(each) for each in value]
    return value
