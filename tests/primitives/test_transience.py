import asyncio
import io
import json
import logging
import math

import pytest

from afresh.errors import (
    DefinitionError,
    InvalidStateError,
    NotCapturedError,
    ReentrantComputeError,
)
from afresh.primitives.transience import (
    Transience,
    prefer_non_transient,
    prefer_transient,
    retry_delay_of,
    set_transience_resolver,
    transience_of,
)

TRANSIENT = Transience.TRANSIENT
NON_TRANSIENT = Transience.NON_TRANSIENT
TERMINAL = Transience.TERMINAL


class Tagged(ValueError):
    transience = Transience.SUPER_TRANSIENT


def json_error() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


@pytest.fixture
def resolver():
    """Puts resolvers in place, and the default one back."""
    previous = set_transience_resolver(prefer_transient)
    yield set_transience_resolver
    set_transience_resolver(previous)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), TRANSIENT),
        (ConnectionError(), TRANSIENT),
        (ConnectionResetError(), TRANSIENT),
        (OSError(), TRANSIENT),
        (BlockingIOError(), TRANSIENT),
        (asyncio.CancelledError(), TRANSIENT),
        (FileNotFoundError(), NON_TRANSIENT),
        (PermissionError(), NON_TRANSIENT),
        (NotADirectoryError(), NON_TRANSIENT),
        (io.UnsupportedOperation(), NON_TRANSIENT),
        (TypeError(), NON_TRANSIENT),
        (ValueError(), NON_TRANSIENT),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), NON_TRANSIENT),
        (json_error(), NON_TRANSIENT),
        (LookupError(), NON_TRANSIENT),
        (KeyError(), NON_TRANSIENT),
        (AttributeError(), NON_TRANSIENT),
        (NameError(), NON_TRANSIENT),
        (AssertionError(), NON_TRANSIENT),
        (ZeroDivisionError(), NON_TRANSIENT),
        (NotImplementedError(), NON_TRANSIENT),
        (RecursionError(), NON_TRANSIENT),
        (RuntimeError(), NON_TRANSIENT),
        (ImportError(), NON_TRANSIENT),
        (InvalidStateError(), NON_TRANSIENT),
        (ReentrantComputeError(), NON_TRANSIENT),
        (DefinitionError(), NON_TRANSIENT),
        (NotCapturedError(), NON_TRANSIENT),
        (SystemExit(), TERMINAL),
        (KeyboardInterrupt(), TERMINAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.value,
)
def test_known_errors_are_of_one_kind_for_both_resolvers(error, kind):
    assert prefer_transient(error) is kind
    assert prefer_non_transient(error) is kind
    assert transience_of(error) is kind


@pytest.mark.parametrize("error", [Exception(), EOFError(), MemoryError()])
def test_an_unknown_error_is_what_the_resolver_prefers(error):
    assert prefer_transient(error) is TRANSIENT
    assert prefer_non_transient(error) is NON_TRANSIENT
    assert transience_of(error) is TRANSIENT


@pytest.mark.parametrize("kind", [kind for kind in Transience if kind is not Transience.UNKNOWN])
def test_a_tag_counts_for_more_than_the_class(kind):
    error = ValueError()
    error.transience = kind
    assert transience_of(error) is kind
    assert prefer_non_transient(error) is kind


def test_a_class_can_be_tagged():
    assert transience_of(Tagged()) is Transience.SUPER_TRANSIENT


@pytest.mark.parametrize("tag", [Transience.UNKNOWN, "transient", None, 5])
def test_a_tag_that_says_nothing_is_left_out(tag):
    error = ValueError()
    error.transience = tag
    assert transience_of(error) is NON_TRANSIENT


def test_a_cancellation_is_transient_whatever_tag_or_resolver_say(resolver):
    error = asyncio.CancelledError()
    error.transience = TERMINAL
    resolver(lambda _: TERMINAL)
    assert transience_of(error) is TRANSIENT
    assert prefer_non_transient(error) is TRANSIENT


def test_a_group_is_what_its_gravest_member_is():
    group = ExceptionGroup("both", [TimeoutError(), ExceptionGroup("in", [ValueError()])])
    assert transience_of(group) is NON_TRANSIENT
    assert transience_of(ExceptionGroup("waits", [TimeoutError(), OSError()])) is TRANSIENT
    assert transience_of(ExceptionGroup("tagged", [Tagged(), TimeoutError()])) is TRANSIENT
    assert transience_of(BaseExceptionGroup("end", [SystemExit(), Tagged()])) is TERMINAL
    unknown = ExceptionGroup("unknown", [TimeoutError(), EOFError()])
    assert prefer_transient(unknown) is TRANSIENT
    assert prefer_non_transient(unknown) is NON_TRANSIENT


def test_the_resolver_can_be_replaced_and_is_returned(resolver):
    def mine(error: BaseException) -> Transience:
        return TERMINAL if isinstance(error, EOFError) else prefer_transient(error)

    assert resolver(mine) is prefer_transient
    assert transience_of(EOFError()) is TERMINAL
    assert transience_of(ValueError()) is NON_TRANSIENT
    assert resolver(prefer_transient) is mine


def test_a_resolver_may_say_that_it_does_not_know(resolver):
    resolver(lambda _: Transience.UNKNOWN)
    assert transience_of(ValueError()) is Transience.UNKNOWN


def test_a_throwing_resolver_is_logged_and_the_error_counts_as_transient(resolver, caplog):
    def broken(error: BaseException) -> Transience:
        raise ZeroDivisionError

    resolver(broken)
    with caplog.at_level(logging.ERROR, "afresh.transience"):
        assert transience_of(ValueError("the error")) is TRANSIENT
    (record,) = caplog.records
    assert "the error" in record.message
    assert record.exc_info[0] is ZeroDivisionError


def test_a_resolver_that_returns_nothing_is_logged_too(resolver, caplog):
    resolver(lambda _: None)
    assert transience_of(ValueError()) is TRANSIENT
    assert "no Transience" in caplog.text


@pytest.mark.parametrize(
    ("delay", "expected"),
    [(1, 1.0), (0.25, 0.25), (math.inf, math.inf)]
    + [(bad, None) for bad in (0, -1, math.nan, None, "5", True)],
)
def test_an_error_may_ask_for_a_retry_delay(delay, expected):
    error = ValueError()
    error.retry_delay = delay
    assert retry_delay_of(error) == expected


def test_an_error_without_the_attribute_asks_for_no_retry_delay():
    assert retry_delay_of(ValueError()) is None


def test_a_group_asks_for_the_longest_retry_delay_of_its_members():
    short, long = ValueError(), ValueError()
    short.retry_delay, long.retry_delay = 1, 2
    assert retry_delay_of(ExceptionGroup("", [short, ValueError(), long])) == 2.0
    assert retry_delay_of(ExceptionGroup("", [ValueError()])) is None
