"""The stand-in for Azure Service Bus does what the service's documentation says of queues."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from tests.servers.servicebus_entities import Lock, Namespace, NotFound, Queue, Topic


@pytest.fixture
def namespace() -> Namespace:
    made = Namespace()
    made.topics["orders"] = Topic(subscriptions={"readers": Queue(most_deliveries=3)})
    return made


def message(name: str) -> SimpleNamespace:
    return SimpleNamespace(id=name)


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
