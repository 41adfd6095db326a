"""The stand-in for Azure Service Bus does what the service's documentation says of queues."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage
from azure.servicebus.exceptions import SessionCannotBeLockedError

from afresh.brokers.transports.servicebus_place import Place
from tests.servers.servicebus_entities import (
    Lock,
    Namespace,
    NotFound,
    Queue,
    SessionRefused,
    Topic,
)


@pytest.fixture
def namespace() -> Namespace:
    made = Namespace()
    made.topics["orders"] = Topic(subscriptions={"readers": Queue(most_deliveries=3)})
    return made


def message(name: str, session: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(id=name, group_id=session)


def received(queue: Queue) -> Lock:
    found = queue.receive("somebody")
    assert found is not None
    return found[1]


def test_a_lock_that_expires_frees_the_message_with_a_higher_delivery_count(
    namespace: Namespace,
) -> None:
    queue = namespace.queue("orders/Subscriptions/readers")
    namespace.send(namespace.topic("orders"), message("m1"))
    found = queue.receive("somebody")
    assert found is not None
    token, lock = found
    assert queue.receive("another") is None, "it is locked"
    namespace.tick(lock.until - 1)
    assert queue.receive("another") is None, "the lock still holds"
    namespace.tick(lock.until + 1)
    assert not queue.complete(token), "the lock is lost"
    assert received(queue).stored.deliveries == 1


def test_a_renewed_lock_holds_longer(namespace: Namespace) -> None:
    queue = namespace.queue("orders/Subscriptions/readers")
    namespace.send(namespace.topic("orders"), message("m1"))
    found = queue.receive("somebody")
    assert found is not None
    token, lock = found
    lock.until = time.time() + 1
    before = lock.until
    queue.renew(token)
    namespace.tick(before + 1)
    assert queue.complete(token)


def test_a_message_that_is_delivered_too_often_is_dead(namespace: Namespace) -> None:
    queue = namespace.queue("orders/Subscriptions/readers")
    namespace.send(namespace.topic("orders"), message("m1"))
    for _ in range(3):
        found = queue.receive("somebody")
        assert found is not None
        assert queue.release(found[0], has_failed=True)
    assert queue.receive("somebody") is None
    dead = namespace.queue("orders/Subscriptions/readers/$DeadLetterQueue")
    assert received(dead).stored.properties["DeadLetterReason"] == "MaxDeliveryCountExceeded"


def test_what_is_released_unharmed_is_not_counted_as_delivered(namespace: Namespace) -> None:
    queue = namespace.queue("orders/Subscriptions/readers")
    namespace.send(namespace.topic("orders"), message("m1"))
    found = queue.receive("somebody")
    assert found is not None
    queue.release(found[0], has_failed=False)
    assert received(queue).stored.deliveries == 0


def test_a_scheduled_message_waits_for_its_time(namespace: Namespace) -> None:
    queue = namespace.queue("orders/Subscriptions/readers")
    due = time.time() + 100
    namespace.send(namespace.topic("orders"), message("m1"), due)
    namespace.tick(due - 1)
    assert queue.receive("somebody") is None
    namespace.tick(due)
    assert received(queue).stored.message.id == "m1"


def test_a_topic_that_detects_duplicates_takes_an_id_once(namespace: Namespace) -> None:
    namespace.topics["orders"].duplicate_seconds = 60.0
    for name in ("m1", "m1", "m2"):
        namespace.send(namespace.topic("orders"), message(name))
    queue = namespace.queue("orders/Subscriptions/readers")
    assert [received(queue).stored.message.id for _ in range(2)] == ["m1", "m2"]
    assert queue.receive("somebody") is None


def test_every_subscription_gets_what_is_sent_after_it_was_made(namespace: Namespace) -> None:
    topic = namespace.topic("orders")
    namespace.send(topic, message("m1"))
    topic.subscriptions["writers"] = Queue()
    namespace.send(topic, message("m2"))
    writers = namespace.queue("orders/subscriptions/WRITERS")
    assert received(writers).stored.message.id == "m2"
    assert writers.receive("somebody") is None


def test_what_is_not_there_is_not_found(namespace: Namespace) -> None:
    with pytest.raises(NotFound):
        namespace.topic("nothing")
    with pytest.raises(NotFound):
        namespace.queue("orders/subscriptions/nobody")


def test_a_session_is_read_by_one_at_a_time_and_in_order(namespace: Namespace) -> None:
    queue = namespace.topics["orders"].subscriptions["readers"] = Queue(has_sessions=True)
    for name, session in [("a1", "a"), ("b1", "b"), ("a2", "a")]:
        namespace.send(namespace.topic("orders"), message(name, session))
    assert queue.accept("first", None) == "a"
    assert queue.accept("second", None) == "b"
    with pytest.raises(SessionRefused, match="No session"):
        queue.accept("third", None)
    with pytest.raises(SessionRefused, match="Somebody else"):
        queue.accept("third", "a")
    found = queue.receive("first")
    assert found is not None
    queue.release(found[0], has_failed=True)
    names = [
        each[1].stored.message.id
        for each in (queue.receive("first"), queue.receive("first"))
        if each
    ]
    assert names == ["a1", "a2"], "what was given back comes first"
    queue.forget("first")
    assert queue.accept("third", None) == "a"


def test_a_session_whose_lock_expires_is_for_others(namespace: Namespace) -> None:
    queue = namespace.topics["orders"].subscriptions["readers"] = Queue(has_sessions=True)
    namespace.send(namespace.topic("orders"), message("a1", "a"))
    queue.accept("first", "a")
    assert queue.receive("first") is not None
    namespace.tick(time.time() + queue.lock_seconds / 2)
    until = queue.renew_session("a")
    namespace.tick(until - 1)
    assert queue.session_of("first") == "a"
    namespace.tick(until + 1)
    assert queue.session_of("first") is None
    assert queue.accept("second", None) == "a"
    assert queue.receive("second") is not None


async def test_the_sdk_receives_sessions(servicebus: str) -> None:
    place = Place.read(servicebus)
    administration = place.administration()
    assert administration is not None
    topic = f"sessions-{secrets.token_hex(4)}"
    await asyncio.to_thread(administration.create_topic, topic)
    await asyncio.to_thread(
        administration.create_subscription, topic, "readers", requires_session=True
    )
    async with place.client(None) as client:
        async with client.get_topic_sender(topic) as sender:
            for name, session in [("a1", "a"), ("b1", "b"), ("a2", "a")]:
                await sender.send_messages(ServiceBusMessage(name, session_id=session))
        receive = partial(client.get_subscription_receiver, topic, "readers")
        async with receive(session_id=NEXT_AVAILABLE_SESSION) as first:
            assert first.session.session_id == "a"
            found = await first.receive_messages(5, max_wait_time=1)
            found += await first.receive_messages(5, max_wait_time=1) if len(found) < 2 else []
            assert [str(each) for each in found] == ["a1", "a2"]
            for each in found:
                await first.complete_message(each)
            await first.session.set_state(b"half-way")
            assert await first.session.get_state() == b"half-way"
            assert (await first.session.renew_lock()).timestamp() > time.time() + 30
            async with receive(session_id="b") as second:
                assert [
                    str(each) for each in await second.receive_messages(5, max_wait_time=1)
                ] == ["b1"]
            with pytest.raises(SessionCannotBeLockedError):
                async with receive(session_id="a"):
                    pass


async def test_the_sdk_schedules_and_the_topic_drops_what_it_knows(servicebus: str) -> None:
    place = Place.read(servicebus)
    administration = place.administration()
    assert administration is not None
    topic = f"known-{secrets.token_hex(4)}"
    await asyncio.to_thread(administration.create_topic, topic, requires_duplicate_detection=True)
    await asyncio.to_thread(administration.create_subscription, topic, "readers")
    async with place.client(None) as client:
        async with client.get_topic_sender(topic) as sender:
            due = datetime.now(UTC) + timedelta(seconds=2)
            await sender.schedule_messages(ServiceBusMessage("later", message_id="m2"), due)
            for _ in range(2):
                await sender.send_messages(ServiceBusMessage("now", message_id="m1"))
        async with client.get_subscription_receiver(topic, "readers") as receiver:
            found = await receiver.receive_messages(5, max_wait_time=5)
            assert [str(each) for each in found] == ["now"]
            found = await receiver.receive_messages(5, max_wait_time=5)
            assert [str(each) for each in found] == ["later"]
            assert datetime.now(UTC) >= due - timedelta(milliseconds=5)
