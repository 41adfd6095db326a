"""Where a namespace of Azure Service Bus is, and by which key it is entered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from azure.core.pipeline.transport import RequestsTransport
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.management import ServiceBusAdministrationClient

__all__ = ["Place"]

_PORT = 5671
_EMULATOR_PORT = 5300


@dataclass(frozen=True, slots=True)
class Place:
    """Where a namespace is, and by which key."""

    host: str
    port: int
    key_name: str
    key: str
    signature: str
    is_emulator: bool
    administration_port: int

    @classmethod
    def read(cls, url: str) -> Place:
        """Read an address, or a connection string.

        Raises:
            ValueError: it is neither.
        """
        if url.lower().startswith("endpoint="):
            pairs = (each.partition("=") for each in url.split(";") if each)
            fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
            parts = urlsplit(fields["endpoint"])
            key_name = fields.get("sharedaccesskeyname", "")
            key = fields.get("sharedaccesskey", "")
            is_emulator = fields.get("usedevelopmentemulator") == "true"
            administration = None
        else:
            fields = {}
            parts = urlsplit(url)
            options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            key_name, key = unquote(parts.username or ""), unquote(parts.password or "")
            is_emulator = options.get("emulator") == "true"
            administration = options.get("administration")
        if parts.scheme not in {"sb", "servicebus"} or not parts.hostname:
            raise ValueError(
                "Give the connection string of a namespace, Endpoint=sb://…;SharedAccessKeyName=…;"
                "SharedAccessKey=…, or servicebus://key-name:key@namespace.servicebus.windows.net."
            )
        port = (parts.port or 5672) if is_emulator else _PORT
        signature = fields.get("sharedaccesssignature", "")
        administration_port = int(administration or _EMULATOR_PORT)
        return cls(parts.hostname, port, key_name, key, signature, is_emulator, administration_port)

    def _connection_string(self, port: int) -> str:
        host = f"{self.host}:{port}" if self.is_emulator else self.host
        fields = [f"Endpoint=sb://{host}/"]
        if self.signature:
            fields.append(f"SharedAccessSignature={self.signature}")
        else:
            fields += [f"SharedAccessKeyName={self.key_name}", f"SharedAccessKey={self.key}"]
        if self.is_emulator:
            fields.append("UseDevelopmentEmulator=true")
        return ";".join(fields)

    def client(self, credential: Any) -> ServiceBusClient:
        """What messages are sent and received by."""
        if credential is not None:
            return ServiceBusClient(self.host, credential, retry_total=0)
        return ServiceBusClient.from_connection_string(
            self._connection_string(self.port), retry_total=0
        )

    def administration(self) -> ServiceBusAdministrationClient | None:
        """What topics and subscriptions are made by; needs a key."""
        if not self.key and not self.signature:
            return None
        settings: dict[str, Any] = {"transport": _PlainHttp()} if self.is_emulator else {}
        return ServiceBusAdministrationClient.from_connection_string(
            self._connection_string(self.administration_port), **settings
        )


class _PlainHttp(RequestsTransport):  # type: ignore[misc]  # azure.core says nothing of it
    """HTTP without TLS, as the emulator speaks it; the SDK knows https:// only."""

    def send(self, request: Any, **settings: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **settings)
