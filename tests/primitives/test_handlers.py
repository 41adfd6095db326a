import logging

import pytest

from afresh.primitives.handlers import Handlers

logger = logging.getLogger("test.handlers")


@pytest.fixture
def handlers() -> Handlers[str]:
    return Handlers(logger)


def test_handlers_are_called_in_the_order_they_were_added(handlers):
    seen: list[str] = []
    for name in "abc":
        handlers.add(lambda event, name=name: seen.append(name + event))
    handlers.call("1")
    assert seen == ["a1", "b1", "c1"]


def test_a_handler_is_taken_out_once_even_if_added_twice(handlers):
    seen: list[str] = []
    remove = handlers.add(seen.append)
    handlers.add(seen.append)
    remove()
    remove()
    handlers.call("1")
    assert seen == ["1"]
    assert len(handlers) == 1


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_failing_handler_is_logged_and_the_others_are_called(handlers, caplog, size):
    seen: list[int] = []

    def fail(event: str) -> None:
        raise ValueError(event)

    for number in range(size):
        handlers.add(fail)
        handlers.add(lambda _, number=number: seen.append(number))
    handlers.call("x")
    assert seen == list(range(size))
    assert [record.name for record in caplog.records] == ["test.handlers"] * size


def test_handlers_added_meanwhile_wait_and_those_taken_out_are_not_called(handlers):
    seen: list[str] = []

    def first(event: str) -> None:
        seen.append("first")
        handlers.add(lambda _: seen.append("added"))
        remove_second()

    handlers.add(first)
    remove_second = handlers.add(lambda _: seen.append("second"))
    handlers.call("x")
    assert seen == ["first"]
    handlers.clear()
    handlers.call("x")
    assert seen == ["first"]
