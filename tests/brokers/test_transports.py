"""What every transport promises, held against every broker."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable, Sequence

import pytest

from afresh.brokers import (
    Ack,
    DeadLetter,
    DeadMessage,
    Disposition,
    IncomingMessage,
    Outcome,
    OutgoingMessage,
    Retry,
    Subscription,
    Transport,
)

WITHIN = 60.0
"""Seconds within which a message must have come, however busy the machine is."""

DEAD = 10_000
DEAD_IN_SHORT = {
    "memory": DEAD,
    "rabbitmq": DEAD,
    "redis": DEAD,
    "nats": 2_000,
    "kafka": 2_000,
    "servicebus": 500,
}
"""How many dead messages there are where the slow ones must not take long."""


def is_soaking() -> bool:
    return os.environ.get("AFRESH_SOAK") == "1"


class Seen:
    """A handler that keeps what it was handed, and answers as it is told."""

    def __init__(self, answer: Callable[[IncomingMessage], Disposition] | None = None) -> None:
        self.messages: list[IncomingMessage] = []
        self.answer = answer or (lambda message: Ack())
        self._changed = asyncio.Event()

    async def __call__(self, message: IncomingMessage) -> Disposition:
        self.messages.append(message)
        self._changed.set()
        return self.answer(message)

    async def wait(self, count: int) -> list[IncomingMessage]:
        """Wait until so many messages have come."""
        async with asyncio.timeout(WITHIN):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages


def message(number: int, destination: str, *, key: str | None = None) -> OutgoingMessage:
    name = f"m{number}"
    attributes = {"specversion": "1.0", "id": name, "source": "/tests", "type": "tests.made.v1"}
    return OutgoingMessage(
        name,
        destination,
        "tests.made.v1",
        b'{"number":%d}' % number,
        attributes=attributes,
        key=key,
    )


def ids(messages: list[IncomingMessage]) -> list[str]:
    return [each.attributes["id"] for each in messages]


async def test_what_is_published_is_confirmed_and_comes_as_it_was(
    any_transport: Transport, destination: str
) -> None:
    seen = Seen()
    subscribed = await any_transport.subscribe(Subscription(destination, "readers"), seen)
    sent = message(1, destination, key="k1")
    (result,) = await any_transport.publish([sent])
    assert result.is_confirmed, result
    (came,) = await seen.wait(1)
    assert came.body == sent.body
    assert dict(came.attributes) == dict(sent.attributes)
    assert came.content_type == "application/json"
    assert came.destination == destination
    assert came.deliveries == 1
    await subscribed.aclose()


async def test_a_group_shares_its_messages_and_each_group_gets_all(
    any_transport: Transport, connect_transport: Callable[[], Transport], destination: str
) -> None:
    other = connect_transport()
    await other.start()
    readers = Seen(), Seen()
    writers = Seen()
    subscriptions = [
        await any_transport.subscribe(Subscription(destination, "readers"), readers[0]),
        await other.subscribe(Subscription(destination, "readers"), readers[1]),
        await other.subscribe(Subscription(destination, "writers"), writers),
    ]
    sent = [message(number, destination, key=f"k{number}") for number in range(20)]
    assert all(each.is_confirmed for each in await any_transport.publish(sent))
    await writers.wait(20)
    async with asyncio.timeout(WITHIN):
        while sum(len(each.messages) for each in readers) < 20:
            await asyncio.sleep(0.01)
    names = sorted(ids(readers[0].messages) + ids(readers[1].messages))
    assert names == sorted(each.id for each in sent)
    for each in subscriptions:
        await each.aclose()


async def test_messages_of_a_key_come_in_order(any_transport: Transport, destination: str) -> None:
    seen = Seen()
    subscribed = await any_transport.subscribe(Subscription(destination, "readers"), seen)
    sent = [message(number, destination, key=f"k{number % 3}") for number in range(60)]
    for each in sent:
        assert (await any_transport.publish([each]))[0].is_confirmed
    await seen.wait(60)
    for key in ("k0", "k1", "k2"):
        wanted = [each.id for each in sent if each.key == key]
        assert [name for name in ids(seen.messages) if name in wanted] == wanted
    await subscribed.aclose()


async def test_a_message_that_is_to_be_retried_comes_again_after_the_delay(
    any_transport: Transport, destination: str
) -> None:
    times: list[float] = []

    def answer(came: IncomingMessage) -> Disposition:
        times.append(asyncio.get_running_loop().time())
        return Retry(0.5) if len(times) == 1 else Ack()

    seen = Seen(answer)
    subscription = Subscription(destination, "readers", ordered=False)
    subscribed = await any_transport.subscribe(subscription, seen)
    await any_transport.publish([message(1, destination)])
    first, again = await seen.wait(2)
    assert first.attributes == again.attributes
    assert first.body == again.body
    assert times[1] - times[0] >= 0.45
    assert again.deliveries == 2
    await subscribed.aclose()


async def test_a_message_that_holds_up_its_key_does_not_hold_up_others(
    any_transport: Transport, destination: str
) -> None:
    tries: list[str] = []

    def answer(came: IncomingMessage) -> Disposition:
        name = came.attributes["id"]
        tries.append(name)
        return Retry(0.3) if name == "m0" and tries.count("m0") < 3 else Ack()

    seen = Seen(answer)
    subscribed = await any_transport.subscribe(Subscription(destination, "readers"), seen)
    for number, key in enumerate(["a", "a", "b", "c"]):
        await any_transport.publish([message(number, destination, key=key)])
    await seen.wait(6)
    assert tries.index("m2") < tries.index("m1")
    assert tries.count("m0") == 3
    assert max(index for index, name in enumerate(tries) if name == "m0") < tries.index("m1")
    await subscribed.aclose()


async def test_a_dead_message_is_kept_with_the_reason_and_can_be_requeued_or_dropped(
    any_transport: Transport, destination: str
) -> None:
    is_fixed = False

    def answer(came: IncomingMessage) -> Disposition:
        return Ack() if is_fixed else DeadLetter("It is bad.", "ValueError")

    seen = Seen(answer)
    subscription = Subscription(destination, "readers")
    subscribed = await any_transport.subscribe(subscription, seen)
    await any_transport.publish([message(number, destination) for number in range(3)])
    await seen.wait(3)
    dead = []
    async with asyncio.timeout(WITHIN):
        while len(dead) < 3:
            await asyncio.sleep(0.05)
            dead = list(await any_transport.dead(subscription))
    assert sorted(ids([each.message for each in dead])) == ["m0", "m1", "m2"]
    assert {(each.reason, each.error) for each in dead} == {("It is bad.", "ValueError")}
    assert len(await any_transport.dead(subscription)) == 3, "looking takes nothing away"
    chosen = next(each for each in dead if each.message.attributes["id"] == "m1")
    assert await any_transport.drop_dead(subscription, [chosen.id]) == 1
    is_fixed = True
    assert await any_transport.requeue_dead(subscription) == 2
    came = (await seen.wait(5))[3:]
    assert sorted(ids(came)) == ["m0", "m2"]
    assert not await any_transport.dead(subscription)
    await subscribed.aclose()


async def test_a_handler_that_raises_gets_the_message_again(
    any_transport: Transport, destination: str
) -> None:
    seen = Seen()

    async def handle(came: IncomingMessage) -> Disposition:
        await seen(came)
        if len(seen.messages) == 1:
            raise RuntimeError("not yet")
        return Ack()

    subscribed = await any_transport.subscribe(Subscription(destination, "readers"), handle)
    await any_transport.publish([message(1, destination, key="k")])
    await seen.wait(2)
    await subscribed.aclose()


async def test_what_was_not_settled_when_a_subscription_is_closed_comes_again(
    any_transport: Transport, destination: str
) -> None:
    started = asyncio.Event()

    async def never(came: IncomingMessage) -> Disposition:
        started.set()
        await asyncio.Event().wait()
        return Ack()

    subscription = Subscription(destination, "readers", workers=2)
    first = await any_transport.subscribe(subscription, never)
    await any_transport.publish([message(number, destination) for number in range(4)])
    async with asyncio.timeout(WITHIN):
        await started.wait()
    await first.aclose(drain=0.05)
    seen = Seen()
    second = await any_transport.subscribe(subscription, seen)
    await seen.wait(4)
    assert sorted(set(ids(seen.messages))) == ["m0", "m1", "m2", "m3"]
    await second.aclose()


async def test_closing_a_subscription_lets_handlers_end(
    any_transport: Transport, destination: str
) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def slow(came: IncomingMessage) -> Disposition:
        started.set()
        await asyncio.sleep(0.2)
        ended.set()
        return Ack()

    subscription = Subscription(destination, "readers")
    subscribed = await any_transport.subscribe(subscription, slow)
    await any_transport.publish([message(1, destination)])
    async with asyncio.timeout(WITHIN):
        await started.wait()
    await subscribed.aclose()
    assert ended.is_set()
    seen = Seen()
    again = await any_transport.subscribe(subscription, seen)
    await any_transport.publish([message(2, destination)])
    await seen.wait(1)
    assert ids(seen.messages) == ["m2"], "what was handled does not come again"
    await again.aclose()


async def test_no_more_is_fetched_ahead_than_was_asked_for(
    any_transport: Transport, destination: str
) -> None:
    at_once = most = 0
    release = asyncio.Event()

    async def slow(came: IncomingMessage) -> Disposition:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await release.wait()
        at_once -= 1
        return Ack()

    subscription = Subscription(destination, "readers", workers=3, prefetch=6)
    subscribed = await any_transport.subscribe(subscription, slow)
    await any_transport.publish([message(number, destination) for number in range(30)])
    async with asyncio.timeout(WITHIN):
        while most < 3:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert most == 3
    assert subscribed.health()["in_flight"] <= 6
    release.set()
    await subscribed.aclose()


async def test_a_broadcast_reaches_every_subscriber_from_now_on(
    any_transport: Transport, destination: str
) -> None:
    await any_transport.publish([message(0, destination)])
    one, two = Seen(), Seen()
    subscription = Subscription(destination, "hosts", mode="broadcast")
    first = await any_transport.subscribe(subscription, one)
    second = await any_transport.subscribe(subscription, two)
    assert (await any_transport.publish([message(1, destination)]))[0].is_confirmed
    await one.wait(1)
    await two.wait(1)
    assert ids(one.messages) == ids(two.messages) == ["m1"]
    await first.aclose()
    await second.aclose()


async def test_a_message_that_is_too_large_is_refused_for_good(
    any_transport: Transport, destination: str
) -> None:
    limit = any_transport.capabilities.max_bytes
    subscribed = await any_transport.subscribe(Subscription(destination, "readers"), Seen())
    large = message(1, destination)
    large = OutgoingMessage(
        large.id, destination, large.type, b" " * (int(limit) + 1), attributes=large.attributes
    )
    small = message(2, destination)
    refused, taken = await any_transport.publish([large, small])
    assert refused.outcome is Outcome.PERMANENT
    assert taken.is_confirmed
    await subscribed.aclose()


async def test_headers_of_others_come_along(any_transport: Transport, destination: str) -> None:
    seen = Seen()
    subscribed = await any_transport.subscribe(Subscription(destination, "readers"), seen)
    sent = OutgoingMessage(
        "m1",
        destination,
        "tests.made.v1",
        b"{}",
        attributes=message(1, destination).attributes,
        headers={"x-tenant": "größer"},
    )
    await any_transport.publish([sent])
    (came,) = await seen.wait(1)
    assert came.headers["x-tenant"] == "größer"
    await subscribed.aclose()


async def test_closing_twice_is_closing_once(connect_transport: Callable[[], Transport]) -> None:
    transport = connect_transport()
    await transport.start()
    await transport.start()
    assert transport.health()["connected"]
    await transport.aclose()
    await transport.aclose()
    assert not transport.health()["connected"]


async def test_a_transport_can_be_closed_while_subscriptions_are_open(
    connect_transport: Callable[[], Transport], destination: str
) -> None:
    transport = connect_transport()
    await transport.start()
    seen = Seen()
    subscribed = await transport.subscribe(Subscription(destination, "readers"), seen)
    await transport.publish([message(1, destination)])
    await seen.wait(1)
    async with asyncio.timeout(WITHIN):
        await transport.aclose()
        await subscribed.aclose(0)


async def test_how_much_waits_for_a_group_is_told_with_and_without_a_subscriber(
    any_transport: Transport, connect_transport: Callable[[], Transport], destination: str
) -> None:
    release = asyncio.Event()
    seen = Seen()

    async def slow(came: IncomingMessage) -> Disposition:
        await seen(came)
        await release.wait()
        return Ack()

    subscription = Subscription(destination, "readers", workers=1, prefetch=2)
    subscribed = await any_transport.subscribe(subscription, slow)
    for number in range(20):
        assert (await any_transport.publish([message(number, destination)]))[0].is_confirmed
    await seen.wait(1)
    other = connect_transport()
    await other.start()
    told = await other.lag(subscription)
    assert told is not None
    # Those that were handed over count as well where the broker knows of settled ones only.
    assert 16 <= told <= 20
    release.set()
    await seen.wait(20)
    async with asyncio.timeout(WITHIN):
        while await subscribed.lag() or await other.lag(subscription):
            await asyncio.sleep(0.05)
    await subscribed.aclose()


async def test_two_subscribers_of_a_group_get_each_message_once_between_them(
    any_transport: Transport, connect_transport: Callable[[], Transport], destination: str
) -> None:
    other = connect_transport()
    await other.start()
    one, two = Seen(), Seen()
    subscription = Subscription(destination, "readers", ordered=False, workers=2)
    first = await any_transport.subscribe(subscription, one)
    second = await other.subscribe(subscription, two)
    sent = [message(number, destination) for number in range(200)]
    for start in range(0, 200, 20):
        assert all(
            each.is_confirmed for each in await any_transport.publish(sent[start : start + 20])
        )
    async with asyncio.timeout(WITHIN):
        while len(one.messages) + len(two.messages) < 200:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert sorted(ids(one.messages) + ids(two.messages)) == sorted(each.id for each in sent)
    assert {each.deliveries for each in one.messages + two.messages} == {1}
    await first.aclose()
    await second.aclose()


async def test_a_key_that_keeps_failing_stays_in_order_while_others_flow(
    any_transport: Transport, destination: str
) -> None:
    is_fixed = asyncio.Event()

    def answer(came: IncomingMessage) -> Disposition:
        return Retry(0.05) if came.key == "bad" and not is_fixed.is_set() else Ack()

    handled: list[str] = []

    async def handle(came: IncomingMessage) -> Disposition:
        await seen(came)
        disposition = answer(came)
        if isinstance(disposition, Ack):
            handled.append(came.attributes["id"])
        return disposition

    seen = Seen()
    subscription = Subscription(destination, "readers", workers=4, prefetch=64)
    subscribed = await any_transport.subscribe(subscription, handle)
    # "bad" shares its lane with none of the others.
    keys = [
        "bad",
        *(f"k{number}" for number in range(40) if lane_of(f"k{number}") != lane_of("bad")),
    ]
    sent = [message(number, destination, key=keys[number % 8]) for number in range(48)]
    for each in sent:
        assert (await any_transport.publish([each]))[0].is_confirmed
    others = {each.id for each in sent if each.key != "bad"}
    async with asyncio.timeout(WITHIN):
        while not others <= set(handled):
            await asyncio.sleep(0.01)
    assert not set(handled) - others, "the key that fails is held up"
    is_fixed.set()
    async with asyncio.timeout(WITHIN):
        while len(handled) < 48:
            await asyncio.sleep(0.01)
    for key in keys[:8]:
        wanted = [each.id for each in sent if each.key == key]
        assert [name for name in handled if name in wanted] == wanted
    await subscribed.aclose()


def lane_of(key: str) -> int:
    return zlib.crc32(key.encode()) % 4


async def test_a_slow_subscriber_starves_nobody_and_holds_no_more_than_it_fetches(
    any_transport: Transport, connect_transport: Callable[[], Transport], destination: str
) -> None:
    release = asyncio.Event()

    async def slow(came: IncomingMessage) -> Disposition:
        await release.wait()
        return Ack()

    other = connect_transport()
    await other.start()
    quick = Seen()
    slow_one = await any_transport.subscribe(
        Subscription(destination, "slow", workers=2, prefetch=5), slow
    )
    # Of one transport as well: a subscription that takes nothing more must not hold up another.
    beside = Seen()
    subscriptions = [
        slow_one,
        await any_transport.subscribe(Subscription(destination, "beside"), beside),
        await other.subscribe(Subscription(destination, "quick"), quick),
    ]
    held = 0
    for start in range(0, 100, 10):
        sent = [message(number, destination) for number in range(start, start + 10)]
        assert all(each.is_confirmed for each in await any_transport.publish(sent))
        held = max(held, slow_one.health()["in_flight"])
    async with asyncio.timeout(WITHIN):
        while len(quick.messages) < 100 or len(beside.messages) < 100 or held < 5:
            held = max(held, slow_one.health()["in_flight"])
            await asyncio.sleep(0.01)
    assert held == 5
    release.set()
    for each in subscriptions:
        await each.aclose()


async def test_what_nobody_can_read_is_handed_over_as_it_is(
    any_transport: Transport, destination: str
) -> None:
    poison = OutgoingMessage("p1", destination, "", b"\xff\x00\xfe{", content_type="")
    seen = Seen(lambda came: DeadLetter("It can't be read.") if not came.attributes else Ack())
    subscription = Subscription(destination, "readers")
    subscribed = await any_transport.subscribe(subscription, seen)
    assert all(
        each.is_confirmed for each in await any_transport.publish([poison, message(1, destination)])
    )
    await seen.wait(2)
    await asyncio.sleep(0.2)
    (came,) = (each for each in seen.messages if not each.attributes)
    assert came.body == poison.body
    assert came.deliveries == 1
    dead: list[DeadMessage] = []
    async with asyncio.timeout(WITHIN):
        while not dead:
            await asyncio.sleep(0.02)
            dead = list(await any_transport.dead(subscription))
    assert [each.message.body for each in dead] == [poison.body]
    assert await any_transport.drop_dead(subscription) == 1
    await subscribed.aclose()


async def test_headers_of_ours_that_others_wrote_do_no_harm(
    any_transport: Transport, destination: str
) -> None:
    bad = dict.fromkeys(
        ("x-afresh-deliveries", "x-afresh-due", "x-afresh-died-at", "x-delivery-count"), "no number"
    )
    seen = Seen()
    subscribed = await any_transport.subscribe(Subscription(destination, "readers"), seen)
    sent = OutgoingMessage(
        "m1", destination, "t", b"{}", attributes=message(1, destination).attributes, headers=bad
    )
    assert (await any_transport.publish([sent]))[0].is_confirmed
    (came,) = await seen.wait(1)
    assert came.deliveries == 1
    await subscribed.aclose()


@pytest.mark.soak
async def test_many_dead_messages_are_listed_and_requeued(
    any_transport: Transport, destination: str
) -> None:
    count = DEAD if is_soaking() else DEAD_IN_SHORT[any_transport.capabilities.name]
    is_fixed = False
    died, came = set[str](), set[str]()

    async def handle(message: IncomingMessage) -> Disposition:
        (came if is_fixed else died).add(message.attributes["id"])
        return Ack() if is_fixed else DeadLetter("It is bad.")

    subscription = Subscription(destination, "readers", prefetch=200)
    subscribed = await any_transport.subscribe(subscription, handle)
    for start in range(0, count, 500):
        sent = [message(number, destination) for number in range(start, min(count, start + 500))]
        assert all(each.is_confirmed for each in await any_transport.publish(sent))
    dead: Sequence[DeadMessage] = ()
    async with asyncio.timeout(20 * WITHIN):
        while len(died) < count or subscribed.health()["in_flight"]:
            await asyncio.sleep(0.05)
        while len(dead) < count:
            await asyncio.sleep(0.2)
            dead = await any_transport.dead(subscription, limit=count)
    assert len({each.id for each in dead}) == count
    assert len(await any_transport.dead(subscription, limit=7)) == 7
    chosen = [each.id for each in dead[10:20]]
    assert await any_transport.drop_dead(subscription, chosen) == 10
    is_fixed = True
    assert await any_transport.requeue_dead(subscription) == count - 10
    async with asyncio.timeout(20 * WITHIN):
        while len(came) < count - 10:
            await asyncio.sleep(0.05)
    assert not await any_transport.dead(subscription)
    await subscribed.aclose()


async def test_nothing_is_known_of_a_group_that_nobody_was_of(
    any_transport: Transport, destination: str
) -> None:
    subscription = Subscription(destination, "nobody")
    async with asyncio.timeout(WITHIN):
        assert await any_transport.lag(subscription) is None
        subscribed = await any_transport.subscribe(Subscription(destination, "readers"), Seen())
        assert await any_transport.lag(subscription) is None
        await subscribed.aclose()


async def test_a_broadcast_has_nothing_waiting_when_it_has_seen_all(
    any_transport: Transport, destination: str
) -> None:
    seen = Seen()
    subscription = Subscription(destination, "hosts", mode="broadcast")
    subscribed = await any_transport.subscribe(subscription, seen)
    for number in range(5):
        await any_transport.publish([message(number, destination)])
    await seen.wait(5)
    async with asyncio.timeout(WITHIN):
        while await subscribed.lag():
            await asyncio.sleep(0.05)
    await subscribed.aclose()


async def test_a_broadcast_that_is_to_be_retried_comes_again_after_the_delay(
    any_transport: Transport, destination: str
) -> None:
    times: list[float] = []

    def answer(came: IncomingMessage) -> Disposition:
        times.append(asyncio.get_running_loop().time())
        return Retry(0.3) if len(times) < 3 else Ack()

    seen = Seen(answer)
    subscription = Subscription(destination, "hosts", mode="broadcast", ordered=False)
    subscribed = await any_transport.subscribe(subscription, seen)
    await any_transport.publish([message(1, destination)])
    await seen.wait(3)
    await asyncio.sleep(0.2)
    assert [each.deliveries for each in seen.messages] == [1, 2, 3]
    assert times[2] - times[0] >= 0.55
    await subscribed.aclose()


async def test_what_fails_while_a_subscription_is_closed_goes_back_before_the_later_ones(
    any_transport: Transport, destination: str
) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def fail(came: IncomingMessage) -> Disposition:
        started.set()
        await release.wait()
        return Retry(0.2)

    subscription = Subscription(destination, "readers", workers=1)
    first = await any_transport.subscribe(subscription, fail)
    for number in range(4):
        await any_transport.publish([message(number, destination, key="k")])
    async with asyncio.timeout(WITHIN):
        await started.wait()
    closing = asyncio.create_task(first.aclose())
    await asyncio.sleep(0.05)
    release.set()
    await closing
    seen = Seen()
    second = await any_transport.subscribe(subscription, seen)
    assert ids(await seen.wait(4)) == ["m0", "m1", "m2", "m3"]
    await second.aclose()
