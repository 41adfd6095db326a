"""How messages go out and come in, as seen from outside of the app."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from afresh.brokers import Broker, Subscription

from .output import duration, reason_of, table

__all__ = ["BrokerStatus", "OutboxStatus", "SubscriptionStatus", "show_status"]

_MOST_PENDING = 10_000
_MOST_DEAD = 1000
_CLEAR = "\x1b[H\x1b[2J"


class OutboxStatus(msgspec.Struct, kw_only=True):
    """What stands in the outbox of a shard.

    Args:
        shard: which; "" where there is just one.
        pending: how many messages are to be published; 10,000 stands for any more.
        oldest: for how many seconds the oldest of them has been waiting.
        dead: how many were given up.
        owners: the hosts that publish, and how many of its 64 parts each has.
        error: why that is not known.
    """

    shard: str
    pending: int | None = None
    oldest: float | None = None
    dead: int | None = None
    owners: dict[str, int] = {}
    error: str | None = None

    def problems(self) -> Iterator[str]:
        """Yield what is not well."""
        title = f"The outbox of {self.shard}" if self.shard else "The outbox"
        if self.error is not None:
            yield f"{title} can't be read: {self.error}"
        if self.pending and not self.owners:
            yield f"{title} is published by nobody: start a host of the app."
        if self.dead:
            yield f"{title} has {_shown(self.dead)} dead."


class SubscriptionStatus(msgspec.Struct, kw_only=True):
    """How a group gets on with a channel.

    Args:
        destination: the channel.
        group: the group.
        mode: "group"; or "broadcast", of which only the hosts themselves know more.
        lag: how many messages the group has not been handed yet; None where the broker does not
            tell.
        dead: how many it could not handle; 1000 stands for any more.
        error: why that is not known.
    """

    destination: str
    group: str
    mode: str
    lag: int | None = None
    dead: int | None = None
    error: str | None = None

    def problems(self) -> Iterator[str]:
        """Yield what is not well."""
        if self.error is not None:
            yield f"{self.destination} for {self.group} can't be asked for: {self.error}"
        if self.dead:
            dead = _shown(self.dead, _MOST_DEAD)
            yield f"{self.group} has {dead} dead of {self.destination}."


class BrokerStatus(msgspec.Struct, kw_only=True):
    """How messages go out and come in.

    Args:
        transport: the kind of broker.
        connected: whether it can be reached from here.
        error: why not.
        outbox: of each shard.
        subscriptions: what is received.
    """

    transport: str
    connected: bool
    error: str | None
    outbox: list[OutboxStatus]
    subscriptions: list[SubscriptionStatus]

    def problems(self) -> Iterator[str]:
        """Yield what is not well."""
        if not self.connected:
            yield f"Not connected: {self.error}"
        for outbox in self.outbox:
            yield from outbox.problems()
        for subscription in self.subscriptions:
            yield from subscription.problems()


async def show_status(
    broker: Broker, source: str, *, is_json: bool, watch: float | None, timeout: float
) -> int:
    """Show how it is, once or again and again; return 0 if all is well, else 1.

    Args:
        broker: of an app.
        source: where the app was found.
        is_json: for programs: an object on a line for each look.
        watch: seconds between two looks; None for one.
        timeout: seconds that the broker, and the database, get to answer.
    """
    while True:
        status = await _status_of(broker, timeout)
        problems = list(status.problems())
        if is_json:
            text = msgspec.json.encode(status).decode() + "\n"
        else:
            text = _text_of(status, problems, source)
        if watch is not None and not is_json and sys.stdout.isatty():
            text = _CLEAR + text
        print(text, end="", flush=True)
        if watch is None:
            return 1 if problems else 0
        await asyncio.sleep(watch)


async def _status_of(broker: Broker, timeout: float) -> BrokerStatus:
    status = BrokerStatus(
        transport=broker.transport.capabilities.name,
        connected=False,
        error=None,
        outbox=[OutboxStatus(shard=name) for name in broker.shards],
        subscriptions=[
            SubscriptionStatus(destination=each.destination, group=each.group, mode=each.mode)
            for each in broker.subscriptions
        ],
    )
    for outbox in status.outbox:
        with _noting(outbox):
            async with asyncio.timeout(timeout):
                desk = broker.outbox(outbox.shard)
                figures = await desk.figures()
                outbox.owners = await desk.owners()
            outbox.pending, outbox.dead = figures.pending, figures.dead
            outbox.oldest = round(figures.oldest, 3)
    with _noting(status):
        async with asyncio.timeout(timeout):
            await broker.transport.start()
        status.connected = True
    if status.connected:
        for each, subscription in zip(status.subscriptions, broker.subscriptions, strict=True):
            if subscription.mode == "group":
                await _ask(broker, subscription, each, timeout)
    return status


async def _ask(
    broker: Broker, subscription: Subscription, status: SubscriptionStatus, timeout: float
) -> None:
    with _noting(status):
        async with asyncio.timeout(timeout):
            status.lag = await broker.transport.lag(subscription)
            status.dead = len(await broker.transport.dead(subscription, _MOST_DEAD))


@contextmanager
def _noting(status: OutboxStatus | SubscriptionStatus | BrokerStatus) -> Iterator[None]:
    """Note what goes wrong, and go on."""
    try:
        yield
    except TimeoutError:
        status.error = "there was no answer in time; see --timeout."
    except Exception as error:
        status.error = reason_of(error)


# -- for people


def _shown(count: int | None, most: int | None = None) -> str:
    if count is None:
        return "?"
    return f"{count:,}{'+' if most is not None and count >= most else ''}"


def _text_of(status: BrokerStatus, problems: list[str], source: str) -> str:
    state = "connected" if status.connected else "not connected"
    parts = [f"{source} by {status.transport}, {state}\n"]
    if status.outbox:
        outboxes = [
            (
                each.shard or "-",
                _shown(each.pending, _MOST_PENDING),
                "?" if each.oldest is None else duration(each.oldest) if each.pending else "-",
                _shown(each.dead),
                ", ".join(f"{host} ({parts})" for host, parts in each.owners.items()) or "nobody",
            )
            for each in status.outbox
        ]
        numbers = {"PENDING", "OLDEST", "DEAD"}
        parts.append(
            table(("OUTBOX", "PENDING", "OLDEST", "DEAD", "PUBLISHED BY"), outboxes, numbers)
        )
    if status.subscriptions:
        groups = [
            (
                each.destination,
                each.group if each.mode == "group" else f"{each.group} (broadcast)",
                _shown(each.lag) if each.mode == "group" else "-",
                _shown(each.dead, _MOST_DEAD) if each.mode == "group" else "-",
            )
            for each in status.subscriptions
        ]
        parts.append(table(("RECEIVED", "GROUP", "LAG", "DEAD"), groups, {"LAG", "DEAD"}))
    if problems:
        parts.append("".join(f"{each}\n" for each in problems))
    are_dead = [each.dead for each in status.outbox] + [each.dead for each in status.subscriptions]
    if any(are_dead):
        parts[-1] += f"See them: afresh brokers dead {source}\n"
    return "\n".join(parts)
