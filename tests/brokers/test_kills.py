"""Processes that publish and handle messages die at every step: nothing is lost, or done twice.

PostgreSQL and RabbitMQ are real, and so is SIGKILL.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.hosts.post import Post

LETTERS = ["ann", "bob", "cid"] * 4


@pytest.mark.parametrize("point", ["after fetch", "before confirm", "after confirm", "after mark"])
async def test_a_relay_that_dies_loses_nothing_and_repeats_under_the_same_name(
    post: Post, point: str
) -> None:
    await post.start("reader")
    doomed = await post.start("sender")
    await doomed.fault(point, "kill")
    doomed.ask("send", {"writers": LETTERS})
    await doomed.gone()
    await post.start("sender")
    await post.all_received()
    await post.check(len(LETTERS))
    times = Counter(each.message_id for each in await post.published())
    if point in {"before confirm", "after confirm"}:
        assert max(times.values()) == 2, "What the broker has, and the outbox does not know of."


@pytest.mark.parametrize("point", ["before renewal", "after renewal"])
async def test_a_relay_that_dies_while_it_renews_its_leases_loses_nothing(
    post: Post, point: str
) -> None:
    await post.start("reader")
    doomed = await post.start("sender")
    await doomed.ask("send", {"writers": LETTERS})
    await doomed.fault(point, "kill")
    doomed.ask("send_many", LETTERS * 500, 4)
    await doomed.gone()
    await post.start("sender")
    await post.all_received()
    await post.check(len(LETTERS))


@pytest.mark.parametrize(
    "point", ["before handling", "before inbox row", "after inbox row", "before ack", "after ack"]
)
async def test_a_consumer_that_dies_loses_nothing_and_does_nothing_twice(
    post: Post, point: str
) -> None:
    sender = await post.start("sender")
    doomed = await post.start("reader")
    await doomed.fault(point, "kill", passes=2)
    await sender.ask("send", {"writers": LETTERS})
    await doomed.gone()
    heir = await post.start("reader")
    await post.all_received()
    await post.check(len(LETTERS))
    (counts,) = (await heir.ask("health"))["broker"]["subscriptions"]
    if point == "before ack":
        assert counts["duplicate"] > 0, "What is done, and the broker does not know of."
