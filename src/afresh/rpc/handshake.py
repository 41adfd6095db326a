"""What two peers tell each other of themselves before anything else."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from afresh.errors import FormatError, RpcError

if TYPE_CHECKING:
    from .formats import Format

__all__ = ["HANDSHAKE", "PROTOCOL_VERSION", "Handshake"]

HANDSHAKE = "$sys.Handshake:1"
PROTOCOL_VERSION = 2

_TOO_HIGH = 2**63
_NAMES = (
    "RemotePeerId",
    "RemoteApiVersionSet",
    "RemoteHubId",
    "ProtocolVersion",
    "Index",
    "Secret",
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """The first message on each connection, in both directions.

    Args:
        peer_id: of the sender's peer; whoever sees another one than before talks to another peer.
        hub_id: of the sender's hub.
        index: counts the connections of the sender's peer, from 1 on.
        secret: what the server wants proved on the next connection, or None.
        api_versions: such as "Api=1.0", or None.
        protocol_version: 2.
    """

    peer_id: uuid.UUID
    hub_id: uuid.UUID
    index: int
    secret: str | None = None
    api_versions: str | None = None
    protocol_version: int = PROTOCOL_VERSION

    def encode(self, format: Format) -> bytes:
        """Return the argument section of the message."""
        versions = self.api_versions
        values = (
            str(self.peer_id),
            versions if versions is None else [versions],
            str(self.hub_id),
            self.protocol_version,
            self.index,
            self.secret,
        )
        if format.is_text:
            value: Any = dict(zip(_NAMES, values, strict=True))
            value["RemoteApiVersionSet"] = versions if versions is None else {"value": versions}
        else:
            value = values
        return format.codec((Any,)).encode_one(value)

    @classmethod
    def decode(cls, format: Format, arguments: bytes) -> Handshake:
        """Read the argument section of the message: an object, or an array of at least five.

        Raises:
            FormatError: it is neither, or a member is missing or malformed.
            RpcError: the other side speaks another version of the protocol.
        """
        value = format.codec((Any,)).decode_one(arguments)
        try:
            if isinstance(value, dict):
                members: dict[str, Any] = {
                    str(name).casefold(): member for name, member in value.items()
                }
                fields: list[Any] = [members.get(name.casefold()) for name in _NAMES]
            else:
                fields = [*value[:6], None][:6]
            peer_id, versions, hub_id, version, index, secret = fields
            handshake = cls(
                uuid.UUID(peer_id),
                uuid.UUID(hub_id),
                int(index),
                secret[:1024] if isinstance(secret, str) else None,
                _versions(versions),
                int(version),
            )
        except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise FormatError(f"The handshake can't be read: {error}.") from None
        if not 0 <= handshake.index < _TOO_HIGH:
            raise FormatError("The handshake can't be read: its index is out of range.")
        if handshake.protocol_version != PROTOCOL_VERSION:
            raise RpcError(
                f"The other side speaks version {handshake.protocol_version} of the protocol; "
                f"this one speaks {PROTOCOL_VERSION}."
            )
        return handshake


def _versions(value: Any) -> str | None:
    if isinstance(value, dict):
        value = next(iter(value.values()), None)
    elif isinstance(value, list):
        value = value[0] if value else None
    return value[:512] if isinstance(value, str) else None
