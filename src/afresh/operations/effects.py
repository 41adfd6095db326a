"""What an operation makes stale, as data: recorded once, applied on every host.

There are three kinds: calls of compute methods, rows that changed (when the database tracks them),
and commands whose handlers say it themselves, in the block form of `is_invalidating()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from afresh.commands import CommandOf
from afresh.errors import LogDecodeError
from afresh.graph.scopes import RecordingInvalidations
from afresh.graph.table import Table

from .codec import LogCodec
from .services import Services, decode_key, encode_arguments

__all__ = ["Call", "Effects", "EffectsData", "Replay"]


class Call(NamedTuple):
    """A call of a compute method whose result is stale."""

    table: Table
    key: Any
    args: tuple[Any, ...]


class Replay(NamedTuple):
    """A command whose handler says what is stale."""

    command: CommandOf[Any]
    chain: str | None
    """Of an event, the id of the handler."""
    items: dict[str, Any]
    """What the handler left in the operation for it."""


class EffectsData(msgspec.Struct, omit_defaults=True):
    """Effects as they stand in the log."""

    calls: list[tuple[str, str, msgspec.Raw]] = []
    """The service, the method, and the arguments; with null for those, all results of it."""
    changes: msgspec.Raw = msgspec.Raw(b"null")
    """What changed in tables, as whoever tracks that wrote it."""
    replays: list[tuple[str, str | None, dict[str, Any]]] = []


_NULL = msgspec.Raw(b"null")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(EffectsData).decode


class Effects:
    """What an operation makes stale."""

    __slots__ = ("_calls", "changes", "replays")

    def __init__(self) -> None:
        self._calls: dict[tuple[Table, Any], tuple[Any, ...]] = {}
        self.replays: list[Replay] = []
        self.changes: Any = None
        """What changed in tables: plain values that JSON can hold."""

    @property
    def calls(self) -> list[Call]:
        """The calls whose results are stale, each once."""
        return [Call(table, key, args) for (table, key), args in self._calls.items()]

    def __bool__(self) -> bool:
        return bool(self._calls or self.replays or self.changes is not None)

    def recording(self) -> RecordingInvalidations:
        """Open a block in which calls of compute methods say what is stale."""
        return RecordingInvalidations(self._record)

    def _record(self, table: Table, key: Any, args: tuple[Any, ...]) -> None:
        self._calls[table, key] = args

    def add(self, effects: Effects) -> None:
        """Take over those of a nested command."""
        self._calls.update(effects._calls)
        self.replays += effects.replays

    def encode(self, services: Services, codec: LogCodec) -> str | None:
        """Return them as a text for the log; None if there are none.

        Raises:
            DefinitionError: other hosts have no name for a service or a command.
        """
        if not self:
            return None
        data = EffectsData()
        if self._calls:
            data.calls = [
                (*services.name_of(table), encode_arguments(table, args) or _NULL)
                for (table, _), args in self._calls.items()
            ]
        if self.changes is not None:
            data.changes = msgspec.Raw(_encode(self.changes))
        if self.replays:
            data.replays = [
                (codec.encode(command), chain, items) for command, chain, items in self.replays
            ]
        return _encode(data).decode()

    def apply(self, cause: str) -> None:
        """Make the results of the recorded calls stale, here and now."""
        for table, key in self._calls:
            table.invalidate_key(key, cause)

    def __repr__(self) -> str:
        shown = [call.table.definition.qualified_name for call in self.calls]
        shown += [type(replay.command).__qualname__ for replay in self.replays]
        if self.changes is not None:
            shown.append("changes in tables")
        return f"<Effects: {', '.join(shown) or 'none'}>"


def decode_effects(text: str) -> EffectsData:
    """Return effects as they stand in the log.

    Raises:
        LogDecodeError: the text is of another kind.
    """
    try:
        return _decode(text)
    except msgspec.MsgspecError as error:
        raise LogDecodeError(f"What an operation made stale can't be read: {error}") from error


def apply_calls(data: EffectsData, services: Services, cause: str) -> None:
    """Make the results of calls from the log stale.

    Arguments that the method does not take here, as after a change of its parameters, make all of
    its results stale; a method that a service does not have here, as after it was renamed, makes
    all results of that service stale.
    """
    for service, method, arguments in data.calls:
        table = services.table_of(service, method)
        if table is None:
            for other in services.tables_of(service):
                other.invalidate_all(cause)
            continue
        try:
            key = None if arguments == _NULL else (decode_key(table, arguments),)
        except Exception:
            key = None
        if key is not None:
            table.invalidate_key(*key, cause)
        else:
            table.invalidate_all(cause)


def run_replay(function: Callable[[CommandOf[Any]], Any], command: CommandOf[Any]) -> None:
    """Call a handler that says what is stale, in an invalidating scope.

    Raises:
        RuntimeError: it waited for something, so it did not return where it should have.
    """
    coroutine = function(command)
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError(
        f"{function!r} awaited something although is_invalidating() is true: it must return before "
        "it does anything else."
    )
