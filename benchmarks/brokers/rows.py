"""The rows of the table that tell of message brokers."""

from collections.abc import Callable

from benchmarks.brokers.cases import BRIDGE, CONSUMER, LONG, OUTBOX, RELAY, SHORT
from benchmarks.conductor import Measured
from benchmarks.db.rows import a_second
from benchmarks.rows import TIMES, Row, memory, microseconds, ratio

DIVIDED = "\N{DIVISION SIGN}"


def _milliseconds(which: str) -> Callable[[Measured], float]:
    return lambda measured: microseconds(BRIDGE, which)(measured) / 1e3


def _grown(measured: Measured) -> float:
    return memory("outbox, bytes grown")(measured) / 2**20


BROKER_ROWS: list[Row] = [
    Row(RELAY, f"messages from PostgreSQL's outbox to RabbitMQ {DIVIDED} aio-pika, no outbox",
        TIMES, ratio(RELAY, "aio-pika", "afresh"), 0.5, 0.5, at_least=True),
    Row(RELAY, "messages from PostgreSQL's outbox to RabbitMQ", "a second",
        a_second(RELAY, "afresh")),
    Row(RELAY, "messages to RabbitMQ by aio-pika, no outbox", "a second",
        a_second(RELAY, "aio-pika")),
    Row(CONSUMER, f"handler with inbox and one row {DIVIDED} by hand, aio-pika and asyncpg",
        TIMES, ratio(CONSUMER, "by hand", "afresh"), 0.5, 0.5, at_least=True),
    Row(CONSUMER, f"handler with inbox and one row {DIVIDED} by hand, aio-pika and SQLAlchemy",
        TIMES, ratio(CONSUMER, "by hand, SQLAlchemy", "afresh")),
    Row(CONSUMER, "messages handled with inbox and one row", "a second",
        a_second(CONSUMER, "afresh")),
    Row(CONSUMER, "messages handled by hand", "a second", a_second(CONSUMER, "by hand")),
    Row(OUTBOX, f"relay, {LONG:,} waiting (a tenth in a quick run) {DIVIDED} {SHORT:,}", TIMES,
        ratio(OUTBOX, "short", "long"), 0.8, 0.8, at_least=True),
    Row(OUTBOX, "growth while it publishes from a long outbox", "MiB", _grown, 8, 8),
    Row(BRIDGE, "commit until the handler in another service begins: median", "ms",
        _milliseconds("median"), 40, 40),
    Row(BRIDGE, "commit until the handler in another service begins: 99 %", "ms",
        _milliseconds("99 %"), 150, 150),
]  # fmt: skip
