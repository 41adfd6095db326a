"""Where a process that publishes or handles messages can be made to die, wait or fail.

Points of the relay:
    after fetch: messages are taken from the outbox; none is published.
    before confirm: the broker's confirmation is here, and nobody has looked at it.
    after confirm: the relay knows; the outbox does not.
    after mark: the outbox knows.
    before renewal, after renewal: of the leases.
Points of the consumer:
    before handling: a message was delivered.
    before inbox row: the handler is done; its transaction is open.
    after inbox row: that is written in it, too.
    before ack: all is committed; the broker does not know.
    after ack: it knows.
Points of both, of `faults`:
    before store, before commit, in commit, after commit.
"""

from __future__ import annotations

from typing import Any

from aiormq.channel import Channel

from afresh.brokers.consumer import Consumer
from afresh.brokers.inbox import InboxGuard
from afresh.brokers.lanes import Lanes
from afresh.brokers.leases import BucketLeases
from afresh.brokers.relay import Relay

from .faults import Call, Faults, wrap


def install_message_faults(faults: Faults) -> None:
    """Wrap the methods that lead past the points."""

    def at(owner: type, name: str, before: str = "", after: str = "") -> None:
        async def around(original: Call, *args: Any, **options: Any) -> Any:
            if before:
                await faults.reach(before)
            result = await original(*args, **options)
            if after:
                await faults.reach(after)
            return result

        wrap(owner, name, around)

    async def fetch(original: Call, *args: Any) -> Any:
        rows = await original(*args)
        if rows:
            await faults.reach("after fetch")
        return rows

    faults.install()
    wrap(Relay, "_fetch", fetch)
    at(Channel, "_on_confirm_frame", before="before confirm")
    at(Relay, "note", before="after confirm", after="after mark")
    at(BucketLeases, "renew", before="before renewal", after="after renewal")
    at(Consumer, "handle", before="before handling", after="before ack")
    at(InboxGuard, "__call__", before="before inbox row", after="after inbox row")
    at(Lanes, "_handle", after="after ack")
