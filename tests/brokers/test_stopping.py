"""A process that is stopped in order ends what it has begun, in time, and loses nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.hosts.hosts import PATIENCE
from tests.hosts.post import Post

LETTERS = ["ann", "bob", "cid"] * 10
"""More than are fetched ahead: so others are given some while the first ones are handled."""


async def has_received(post: Post, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(await post.received()) < count:
            await asyncio.sleep(0.02)


async def test_a_consumer_that_is_stopped_ends_what_it_handles_and_leaves_the_rest(
    post: Post,
) -> None:
    sender = await post.start("sender")
    reader = await post.start("reader", seconds=0.3, consumer={"drain": 10.0})
    await sender.ask("send", {"writers": LETTERS})
    await has_received(post, 1)
    heir = await post.start("reader")
    assert await reader.terminate() < 5.0
    await post.all_received()
    await post.check(len(LETTERS))
    processes = Counter(row.process_id for row in await post.received())
    assert len(processes) == 2, "It was stopped while there was more."
    (counts,) = (await heir.ask("health"))["broker"]["subscriptions"]
    assert counts["handled"] in processes.values()
    assert counts["duplicate"] == 0, "What it had done, the broker knew."


async def test_a_handler_that_takes_too_long_is_cancelled_and_its_message_comes_again(
    post: Post,
) -> None:
    sender = await post.start("sender")
    reader = await post.start("reader", seconds=600.0, consumer={"drain": 0.5})
    await reader.fault("before handling", "wait", seconds=0)
    await sender.ask("send", {"writers": LETTERS})
    await reader.reached("before handling")
    await post.start("reader")
    assert 0.4 < await reader.terminate() < 5.0
    await post.all_received()
    await post.check(len(LETTERS))


async def test_a_relay_that_is_stopped_marks_what_is_confirmed_and_another_goes_on_at_once(
    post: Post,
) -> None:
    await post.start("reader")
    relay = {"lease": 60.0, "window": 2}
    sender = await post.start("sender", relay=relay)
    await sender.ask("send", {"writers": LETTERS * 8})
    while not await post.published():
        await asyncio.sleep(0.005)
    assert await sender.terminate() < 10.0
    await post.start("sender", relay=relay)
    await post.all_received()
    await post.check(8 * len(LETTERS))
    published = await post.published()
    assert len(published) == len(set(published)), "It marked all that it had published."
