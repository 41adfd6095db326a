"""Message brokers: how other services hear of what was committed here, and this one of theirs.

Needs the extra `db` for the outbox and the inbox, and one for the broker: `rabbitmq`, `kafka`,
`nats`, `redis-broker` or `servicebus`; none for the broker in memory.
"""

from .broker import Broker
from .consumer import ConsumerOptions
from .dead import DeadOutboxMessage, OutboxDesk, OutboxFigures
from .envelope import Envelope
from .events import EventType, EventTypes, event, event_type_of, json_schemas
from .handlers import Delivery, EventHandler, EventMeta, current_event, on_event
from .relay import Relay, RelayOptions
from .tables import (
    BrokerTables,
    InboxMixin,
    OutboxLeaseMixin,
    OutboxMixin,
    OutboxState,
    add_broker_tables,
    find_broker_tables,
)
from .transport import (
    Ack,
    Capabilities,
    DeadLetter,
    DeadMessage,
    Disposition,
    IncomingMessage,
    Outcome,
    OutgoingMessage,
    PublishResult,
    Retry,
    Subscribed,
    Subscription,
    Transport,
)
from .transports import MemoryTransport, open_transport
from .watching import HandledMessage, PublishedMessage

__all__ = [
    "Ack",
    "Broker",
    "BrokerTables",
    "Capabilities",
    "ConsumerOptions",
    "DeadLetter",
    "DeadMessage",
    "DeadOutboxMessage",
    "Delivery",
    "Disposition",
    "Envelope",
    "EventHandler",
    "EventMeta",
    "EventType",
    "EventTypes",
    "HandledMessage",
    "InboxMixin",
    "IncomingMessage",
    "MemoryTransport",
    "OutboxDesk",
    "OutboxFigures",
    "OutboxLeaseMixin",
    "OutboxMixin",
    "OutboxState",
    "Outcome",
    "OutgoingMessage",
    "PublishResult",
    "PublishedMessage",
    "Relay",
    "RelayOptions",
    "Retry",
    "Subscribed",
    "Subscription",
    "Transport",
    "add_broker_tables",
    "current_event",
    "event",
    "event_type_of",
    "find_broker_tables",
    "json_schemas",
    "on_event",
    "open_transport",
]
