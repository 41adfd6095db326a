"""What is measured where a message broker takes part."""

RELAY = "relay"
"""From the outbox to the broker."""

CONSUMER = "consumer"
"""From the broker to a handler that writes a row."""

OUTBOX = "outbox"
"""From an outbox that holds a million messages."""

BRIDGE = "bridge"
"""The workload that needs two processes: how soon a handler hears of a commit."""

IN_ONE_PROCESS = (RELAY, CONSUMER, OUTBOX)

WORKLOADS = (*IN_ONE_PROCESS, BRIDGE)

BODY_BYTES = 1_024
KEYS = 1_000
"""Different keys of messages."""

WINDOW = 128
"""Messages that are published, and not confirmed yet."""

WORKERS = 8
"""Messages that are handled at a time."""

SHORT, LONG = 1_000, 1_000_000
"""Messages that wait in an outbox."""

FURTHER = 20_000
"""Messages of the long outbox that are published while the process is weighed."""

RATE = 100
"""Commands a second, where delays are measured."""
