"""What msgspec is told of values that it does not know by itself."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["has_streams", "read_hook", "write_hook"]


def has_streams(types: Sequence[Any]) -> bool:
    return any(_mentions_stream(type) for type in types)


def _mentions_stream(type: Any) -> bool:
    from ..streams import RpcStream

    origin = typing.get_origin(type) or type
    return origin is RpcStream or any(map(_mentions_stream, typing.get_args(type)))


def write_hook(*, is_text: bool) -> Callable[[Any], Any]:
    def write(value: Any) -> Any:
        from ..streams import RpcStream
        from ..streams.reference import to_wire

        if isinstance(value, RpcStream):
            return to_wire(value)
        raise NotImplementedError(
            f"{type(value).__name__} is not a type of values that can travel."
        )

    return write


def read_hook(type: Any, data: Any) -> Any:
    from ..streams import RpcStream
    from ..streams.reference import from_wire

    if (typing.get_origin(type) or type) is RpcStream:
        return from_wire(type, data)
    raise NotImplementedError(f"{type} is not a type of values that can travel.")
