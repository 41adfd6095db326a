"""What every wire format offers: messages into frames and back, and codecs for the values in them.

How messages are laid out is left to the formats, how values are written to the codecs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias

from afresh.errors import FormatError

from .codec import Codec
from .naming import RecordNaming
from .reading import ValueReader
from .writing import ValueWriter

__all__ = [
    "MAX_HEADERS",
    "MAX_MESSAGES",
    "MAX_METHOD_NAME",
    "Format",
    "FrameError",
    "Headers",
    "Incoming",
    "Writer",
]

Headers: TypeAlias = Sequence[tuple[str, str]]
"""Keys and values that travel beside the arguments of a message."""

Incoming: TypeAlias = tuple[int, int, Hashable, bytes, tuple[tuple[str, str], ...]]
"""A message as it came: call type, related id, method key, argument section, headers."""

MAX_MESSAGES = 65_536
"""How many messages of a frame are read: tiny ones take many times their size in memory."""
TOO_MANY_MESSAGES = f"there are {MAX_MESSAGES:,} messages before it"
MAX_METHOD_NAME = 1024
"""How many bytes the full name of a method may have."""
MAX_HEADERS = 31
"""How many headers a message may have; each key up to 255 bytes, each value up to 1,024."""
MAX_HEADER_KEY = 255
MAX_HEADER_VALUE = 1024


class FrameError(FormatError):
    """A frame can't be read from some message on."""


class Writer(Protocol):
    """Makes messages to one method."""

    def __call__(self, related_id: int, arguments: bytes, headers: Headers = ()) -> bytes:
        """Return one message.

        Args:
            related_id: the id of the call, or of what else the message is about; 0 for none.
            arguments: the argument section, as a codec wrote it.
            headers: at most `MAX_HEADERS` keys and values.

        Raises:
            FormatError: the headers are too many or too long.
        """


class Compression(Protocol):
    """Compresses and decompresses the frames of one connection."""

    def pack(self, frame: bytes) -> bytes:
        """Return what is sent for a frame; call it for each frame, in the order of sending."""

    def unpack(self, frame: bytes, max_size: int) -> bytes:
        """Return the frame that was received; call it for each, in the order of their coming.

        Args:
            frame: as it came.
            max_size: how many bytes it may have when decompressed.

        Raises:
            FrameError: it is damaged or too large. Later frames may build upon it, so the
                connection has to be closed.
        """


class Format(ABC):
    """One way to write messages and values as bytes.

    There is one object of each format; it knows no connections. All methods may be called with
    bytes from anywhere: what can't be read raises `FormatError` or is reported, and takes no more
    memory than a small multiple of its size.
    """

    is_text: ClassVar[bool]
    """Whether frames are text (in UTF-8), which WebSockets tell apart from binary messages."""
    key: str
    """What the format is called where it is chosen."""

    _codec_class: ClassVar[type[Codec]]

    def __init__(self, key: str, *, has_markers: bool = True) -> None:
        self.key = key
        self._has_markers = has_markers
        self._codecs: dict[Any, Codec] = {}
        self._values: dict[RecordNaming, tuple[ValueReader, ValueWriter]] = {}

    @abstractmethod
    def method_key(self, name: str) -> Hashable:
        """What `decode` gives as the method of messages to the method of this full name."""

    @abstractmethod
    def method_name(self, key: Hashable) -> str:
        """The full name for a method key, or what comes closest to it, for people to read."""

    @abstractmethod
    def writer(self, name: str, call_type: int = 0) -> Writer:
        """Return the function that makes messages to the method of this full name.

        Args:
            name: such as ``Calculator.add:3``.
            call_type: 0 for regular calls, up to 7.

        Raises:
            FormatError: the name is too long.
        """

    @abstractmethod
    def join(self, messages: Sequence[bytes]) -> bytes:
        """Return the frame that carries `messages`."""

    @abstractmethod
    def decode(self, frame: bytes) -> tuple[list[Incoming], FrameError | None]:
        """Take a frame apart.

        Returns:
            The messages, up to the first that can't be read, and why that one can't.
        """

    def compression(self, *, is_server: bool) -> Compression | None:
        """Return what compresses the frames of a new connection; None if they are not compressed.

        Args:
            is_server: whether this side accepted the connection.
        """
        return None

    def codec(
        self,
        types: Sequence[Any],
        naming: RecordNaming = RecordNaming.PYTHON,
        defaults: Sequence[Any] = (),
    ) -> Codec:
        """Return the codec of argument sections with one value for each of `types`.

        Args:
            types: annotations.
            naming: how fields of records are called on the wire.
            defaults: stand in for values that are missing at the end: as many as there are types,
                `NO_DEFAULT` where there is none; or none at all.

        Raises:
            DefinitionError: values of a type can't travel.
        """
        key = tuple(types), naming, tuple(map(id, defaults))
        try:
            found = self._codecs.get(key)
        except TypeError:  # what annotates a type need not be hashable
            return self._make_codec(key[0], naming, defaults)
        if found is None:
            found = self._codecs[key] = self._make_codec(key[0], naming, defaults)
        return found

    def _make_codec(
        self, types: tuple[Any, ...], naming: RecordNaming, defaults: Sequence[Any]
    ) -> Codec:
        values = self._values.get(naming)
        if values is None:
            values = self._values[naming] = (
                ValueReader(naming, is_text=self.is_text),
                ValueWriter(naming, is_text=self.is_text),
            )
        # Between Python peers, tags of open types are members of the values everywhere.
        has_markers = self._has_markers and naming is RecordNaming.DOTNET
        return self._codec_class(types, defaults, *values, has_markers=has_markers)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"


def encode_method_name(name: str) -> bytes:
    """Return the name as bytes, if it is not too long."""
    encoded = name.encode()
    if len(encoded) > MAX_METHOD_NAME:
        raise FormatError(
            f"The name {name[:60]}… takes {len(encoded)} bytes; {MAX_METHOD_NAME} are allowed. "
            "Give the method or its service a shorter name on the wire."
        )
    return encoded


def check_call_type(call_type: int) -> None:
    """Refuse what does not fit into the three bits that there are for it."""
    if not 0 <= call_type <= 7:
        raise ValueError(f"A call type is a number from 0 to 7, not {call_type}.")


def encode_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers as bytes, if they are not too many or too long."""
    try:
        encoded = [(key.encode(), value.encode()) for key, value in headers]
    except UnicodeEncodeError as error:
        raise FormatError(f"A header has no UTF-8 form: {error}.") from None
    if len(encoded) > MAX_HEADERS:
        raise FormatError(f"A message has at most {MAX_HEADERS} headers, not {len(encoded)}.")
    for key, value in encoded:
        if len(key) > MAX_HEADER_KEY or len(value) > MAX_HEADER_VALUE:
            raise FormatError(
                f"The header {key[:40].decode(errors='replace')!r} is too long: keys have at most "
                f"{MAX_HEADER_KEY} bytes, values {MAX_HEADER_VALUE}."
            )
    return encoded
