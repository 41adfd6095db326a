"""Two processes of one service: a message has one effect, and both see what it makes stale."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.brokers.gate import Gate
from tests.hosts.hosts import PATIENCE, Host, HostGone
from tests.hosts.post import Post

LETTER: dict[str, Any] = {
    "destination": "letters",
    "body": b64encode(b'{"writer":"ann","number":1}').decode(),
    "attributes": {
        "specversion": "1.0",
        "id": "m1",
        "source": "/sender",
        "type": "letters.sent.v1",
    },
}


async def both_handle(post: Post) -> tuple[Host, Host, asyncio.Future[str], asyncio.Future[str]]:
    """Two hosts that handle one message at the same time; the first has noted it, open still."""
    first, second = await post.start("reader"), await post.start("reader")
    await first.fault("after inbox row", "wait", seconds=1.0)
    one = first.ask("deliver", LETTER)
    await first.reached("after inbox row")
    two = second.ask("deliver", LETTER)
    await asyncio.sleep(0.3)
    assert not two.done(), "It waits for the transaction of the first."
    return first, second, one, two


async def duplicates(host: Host) -> int:
    (counts,) = (await host.ask("health"))["broker"]["subscriptions"]
    return int(counts["duplicate"])


async def test_a_message_that_two_hosts_handle_at_once_has_one_effect(post: Post) -> None:
    first, second, one, two = await both_handle(post)
    assert [await one, await two] == ["Ack", "Ack"]
    assert len(await post.received()) == 1
    assert [await duplicates(first), await duplicates(second)] == [0, 1]


async def test_a_host_takes_over_a_message_from_one_whose_transaction_is_undone(
    post: Post,
) -> None:
    first, second, one, two = await both_handle(post)
    await first.kill()
    with pytest.raises(HostGone):
        await one
    assert await two == "Ack"
    assert len(await post.received()) == 1
    assert await duplicates(second) == 0


async def test_what_an_event_makes_stale_is_seen_on_both_hosts(post: Post) -> None:
    readers = [await post.start("reader") for _ in range(2)]
    sender = await post.start("sender")
    assert [await each.ask("count", "ann") for each in readers] == [0, 0]
    following = [each.ask("follow_count", "ann", 3) for each in readers]
    for _ in range(3):
        await sender.ask("send", {"writers": ["ann"]})
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*following)


async def test_a_broadcast_is_heard_by_each_host_which_sweeps_after_it_was_away(
    post: Post,
) -> None:
    gate = Gate(urlsplit(post.broker_url).port or 0)
    await gate.open()
    by_gate = f"amqp://guest:guest@127.0.0.1:{gate.port}/"
    listeners = [await post.start("listener", broker=by_gate) for _ in range(2)]
    sender = await post.start("sender")
    following = [each.ask("follow_heard", "ann", 1) for each in listeners]
    await sender.ask("send", {"writers": ["ann"]})
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*following)
    stale = [each.ask("when_stale", "ann") for each in listeners]
    await gate.close()
    await sender.ask("send", {"writers": ["ann"]})  # which they miss
    await asyncio.sleep(0.2)
    assert not any(each.done() for each in stale)
    await gate.open()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*stale)
    following = [each.ask("follow_heard", "ann", 3) for each in listeners]
    await sender.ask("send", {"writers": ["ann"]})
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*following)
    await gate.close()
