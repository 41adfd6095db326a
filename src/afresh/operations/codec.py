"""How commands are written into logs: with a tag that stands for their type.

A tag finds a type because that was added to the registry of commands, and for no other reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from afresh.commands import CommandOf, CommandRegistry, Secret
from afresh.commands.command import upcast, version_of
from afresh.errors import DefinitionError, FormatError, LogDecodeError
from afresh.rpc.formats import Codec, get_format
from afresh.rpc.formats.types import reachable, shape_of

__all__ = ["MAX_SIZE", "LogCodec"]

MASK = "***"
"""What stands for a secret in a record."""

MAX_SIZE = 256 * 1024
"""Bytes that a command may take in a log: every host reads it."""


class _Envelope(msgspec.Struct, omit_defaults=True):
    t: str
    d: msgspec.Raw
    v: int = 1


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_fields = msgspec.json.Decoder(dict[str, Any]).decode
_write = msgspec.json.Encoder().encode


class LogCodec:
    """Writes and reads commands as JSON texts: ``{"t": tag, "d": fields, "v": version}``.

    Fields that are not known any more are left out, those that are missing take their defaults.
    Fields of an earlier version go through the upcasters of `@command` before they are read. The
    first version is not written.

    Args:
        registry: which types there are.
        max_size: bytes that a command may take.
    """

    def __init__(self, registry: CommandRegistry, *, max_size: int = MAX_SIZE) -> None:
        self.registry: CommandRegistry = registry
        self.max_size: int = max_size
        self._format = get_format("json5np")
        self._codecs: dict[type, Codec] = {}
        self._have_secrets: dict[type, bool] = {}

    def encode(self, command: CommandOf[Any]) -> str:
        """Return the text of a command, from which it can be read again.

        Raises:
            DefinitionError: its type is not registered, or can't be written.
            ValueError: it is too long.
        """
        return self._enclose(type(command), lambda codec: codec.encode_one(command))

    def record(self, command: CommandOf[Any]) -> str:
        """Return the text of a command as a record of what was done, without its secrets.

        Raises:
            DefinitionError: its type is not registered, or can't be written.
            ValueError: it is too long.
        """
        kind = type(command)
        has_secrets = self._have_secrets.get(kind)
        if has_secrets is None:
            has_secrets = self._have_secrets[kind] = any(
                getattr(each, "cls", None) is Secret for each in reachable([shape_of(kind)])
            )
        if not has_secrets:
            return self.encode(command)
        return self._enclose(kind, lambda _: msgspec.json.encode(command, enc_hook=self._masked))

    def _masked(self, value: Any) -> Any:
        if isinstance(value, Secret):
            return MASK
        return msgspec.Raw(self._codec(type(value)).encode_one(value))

    def _enclose(self, kind: type, write: Callable[[Codec], bytes]) -> str:
        tag = self.registry.tag_of(kind)
        if tag is None:
            raise DefinitionError(
                f"{kind.__qualname__} can't be written to a log, as the commander does not know "
                "it: add a service that handles it, or commander.registry.add(…)."
            )
        try:
            fields = msgspec.Raw(write(self._codec(kind)))
        except FormatError as error:
            raise DefinitionError(f"{kind.__qualname__} can't be written: {error}") from error
        data = _write(_Envelope(tag, fields, version_of(kind)))
        if len(data) > self.max_size:
            raise ValueError(
                f"{kind.__qualname__} takes {len(data):,} bytes in the log, where {self.max_size:,}"
                " are allowed: store what is large, and let the command say where it is."
            )
        return data.decode()

    def decode(self, text: str) -> CommandOf[Any]:
        """Return the command that a text stands for.

        Raises:
            LogDecodeError: no type is registered for its tag, or the rest does not fit the type.
        """
        try:
            envelope = _read_envelope(text)
        except msgspec.MsgspecError as error:
            raise LogDecodeError(f"What stands in the log is no command: {error}") from error
        kind = self.registry.type_of(envelope.t)
        if kind is None:
            raise LogDecodeError(
                f"{envelope.t!r} stands in the log, and no type of commands here has that tag: add "
                "a service that handles it, or keep the old name with @command(…, aliases=…).",
                tag=envelope.t,
            )
        version = version_of(kind)
        if envelope.v > version:
            raise LogDecodeError(
                f"A {envelope.t!r} of version {envelope.v} stands in the log, and {version} is the "
                "latest here: bring this host up to date.",
                tag=envelope.t,
            )
        try:
            data = bytes(envelope.d)
            if envelope.v < version:
                data = _write(upcast(kind, _read_fields(data), envelope.v))
            return cast("CommandOf[Any]", self._codec(kind).decode_one(data))
        except Exception as error:
            raise LogDecodeError(
                f"A {envelope.t!r} in the log does not fit {kind.__qualname__}: {error}",
                tag=envelope.t,
            ) from error

    def _codec(self, kind: type) -> Codec:
        codec = self._codecs.get(kind)
        if codec is None:
            codec = self._codecs[kind] = self._format.codec((kind,))
        return codec
