"""Names of services in the log, and arguments there and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import pytest

from afresh import ComputeService, compute_function, compute_method
from afresh.commands import CommandRegistry
from afresh.errors import DefinitionError
from afresh.graph.table import Table
from afresh.operations import Effects, LogCodec, Services
from afresh.operations.effects import apply_calls, decode_effects
from tests.operations.library import Point


class Colour(Enum):
    RED = 1


class Connection:
    """Nothing that could be written."""


@compute_function
async def area(width: int, height: int = 1) -> int:
    return width * height


@compute_function
async def odd(value: Missing) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 1


class Shapes(ComputeService):
    @compute_method
    async def plain(self, number: int, text: str = "", flag: bool = False) -> int:
        return 1

    @compute_method
    async def rich(self, point: Point, colour: Colour, at: datetime, cost: Decimal) -> int:
        return 1

    @compute_method(ignore=("connection",))
    async def by(self, key: str, connection: Connection | None = None) -> int:
        return 1

    @compute_method(key=lambda text: text.lower())
    async def folded(self, text: str) -> int:
        return 1

    @compute_method
    async def anything(self, value: Any) -> int:
        return 1

    @compute_method
    async def untyped(self, value, other=1):  # type: ignore[no-untyped-def]
        return 1

    @compute_method
    async def any_number(self, *numbers: int, **named: str) -> int:
        return 1

    @compute_method
    async def strange(self, connection: Connection) -> int:
        return 1

    @compute_method
    async def union(self, value: int | str | None) -> int:
        return 1

    @compute_method
    async def nothing(self) -> int:
        return 1


class LateShapes(Shapes):
    """Overrides a method."""

    @compute_method
    async def plain(self, number: int, text: str = "", flag: bool = False) -> int:
        return 2


CODEC = LogCodec(CommandRegistry())


class Pair:
    """The same service on two hosts."""

    def __init__(self, kind: type[Shapes] = Shapes) -> None:
        self.here, self.there = kind(), kind()
        self.services = [Services(), Services()]
        for services, instance in zip(self.services, (self.here, self.there), strict=True):
            services.add("Shapes", instance)

    def text(self, say: Callable[[Any], Any]) -> str:
        """What is written of calls that are made stale here."""
        effects = Effects()
        with effects.recording():
            say(self.here)
        text = effects.encode(self.services[0], CODEC)
        assert text is not None
        return text

    def tell(self, say: Callable[[Any], Any]) -> None:
        """Make calls stale on the other host."""
        apply_calls(decode_effects(self.text(say)), self.services[1], "test")


@pytest.fixture
def pair() -> Pair:
    return Pair()


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("call", "others"),
    [
        (lambda s: s.plain(1), [lambda s: s.plain(2), lambda s: s.plain(1, "x")]),
        (lambda s: s.plain(1, flag=True), [lambda s: s.plain(1)]),
        (lambda s: s.plain(text="x", number=1), [lambda s: s.plain(1)]),
        (lambda s: s.plain(1, 'x\x1f"\\,\N{SNOWMAN}'), [lambda s: s.plain(1, "x")]),
        (
            lambda s: s.rich(Point(1, 2), Colour.RED, NOON, Decimal("1.0")),
            [lambda s: s.rich(Point(2, 1), Colour.RED, NOON, Decimal("1.0"))],
        ),
        (lambda s: s.by("a"), [lambda s: s.by("b")]),
        (lambda s: s.folded("ABC"), [lambda s: s.folded("ABD")]),
        (lambda s: s.any_number(1, 2, a="x"), [lambda s: s.any_number(1, 2)]),
        (lambda s: s.any_number(), [lambda s: s.any_number(1)]),
        (lambda s: s.union(1), [lambda s: s.union("1"), lambda s: s.union(None)]),
        (lambda s: s.union(None), [lambda s: s.union("")]),
        (lambda s: s.nothing(), [lambda s: s.plain(1)]),
        (lambda s: s.untyped("x", 2), [lambda s: s.untyped("x")]),
        (lambda s: s.anything(5), [lambda s: s.anything("5")]),
    ],
)
async def test_the_same_call_goes_stale_on_another_host_and_no_other(
    pair: Pair, call: Callable[[Any], Any], others: list[Callable[[Any], Any]]
) -> None:
    for each in (call, *others):
        await each(pair.there)
    pair.tell(call)
    assert existing(pair.there, call) is None
    assert all(existing(pair.there, each) is not None for each in others)


def existing(service: Any, call: Callable[[Any], Any]) -> Any:
    """The consistent result of a call, if there is one."""
    from afresh.graph import get_existing

    found = get_existing(lambda: call(service))
    return found if found is not None and found.is_consistent else None


@pytest.mark.parametrize(
    ("call", "fresh"),
    [
        # JSON would bring a point back as a dictionary, and a tuple as a list.
        (lambda s: s.anything(Point(1, 2)), lambda s: s.plain(1)),
        (lambda s: s.anything((1, 2)), lambda s: s.plain(1)),
        (lambda s: s.strange(Connection()), lambda s: s.plain(1)),
        (lambda s: s.plain(Decimal(1)), lambda s: s.nothing()),
    ],
)
async def test_arguments_that_do_not_survive_make_all_results_of_the_method_stale(
    pair: Pair, call: Callable[[Any], Any], fresh: Callable[[Any], Any]
) -> None:
    await call(pair.there)
    await fresh(pair.there)
    assert pair.text(call).endswith(",null]]}")
    pair.tell(call)
    assert existing(pair.there, call) is None
    assert existing(pair.there, fresh) is not None


async def test_arguments_of_a_method_that_can_t_be_read_here_make_all_its_results_stale(
    pair: Pair,
) -> None:
    await pair.there.strange(Connection())
    data = decode_effects('{"calls":[["Shapes","strange",[1]]]}')
    apply_calls(data, pair.services[1], "test")
    assert existing(pair.there, lambda s: s.strange(Connection())) is None


async def test_annotations_that_mean_nothing_are_no_obstacle(pair: Pair) -> None:
    await odd("a")
    await odd("b")
    pair.tell(lambda _: odd("a"))
    assert existing(None, lambda _: odd("a")) is None
    assert existing(None, lambda _: odd("b")) is not None


async def test_what_makes_no_difference_to_a_key_is_not_written(pair: Pair) -> None:
    def call(service: Any) -> Any:
        return service.by("a", Connection())

    await call(pair.there)
    await pair.there.by("b")
    assert pair.text(call) == '{"calls":[["Shapes","by",["a",null]]]}'
    await call(pair.here)  # which then knows the call by its result
    assert pair.text(call) == '{"calls":[["Shapes","by",["a",null]]]}'
    pair.tell(call)
    assert existing(pair.there, call) is None
    assert existing(pair.there, lambda s: s.by("b")) is not None


async def test_a_method_that_is_overridden_is_found_by_its_name(pair: Pair) -> None:
    late = Pair(LateShapes)
    await late.there.plain(1)
    late.tell(lambda s: s.plain(1))
    assert existing(late.there, lambda s: s.plain(1)) is None
    await late.there.plain(1)
    data = decode_effects(pair.text(lambda s: s.plain(1)))
    apply_calls(data, late.services[1], "test")
    assert existing(late.there, lambda s: s.plain(1)) is None


async def test_a_compute_function_is_found_by_its_module_and_name(pair: Pair) -> None:
    await area(2)
    assert pair.text(lambda _: area(2)) == (
        '{"calls":[["","tests.operations.test_services:area",[2,1]]]}'
    )
    pair.tell(lambda _: area(height=1, width=2))
    assert existing(None, lambda _: area(2)) is None


async def test_a_call_is_recorded_once(pair: Pair) -> None:
    def say(service: Any) -> None:
        for _ in range(3):
            service.plain(1)
        service.plain.invalidate(1)

    assert pair.text(say) == '{"calls":[["Shapes","plain",[1,"",false]]]}'


# -- names


def test_a_name_is_for_one_service() -> None:
    services, shapes = Services(), Shapes()
    services.add("Shapes", shapes)
    services.add("Shapes", shapes)
    with pytest.raises(DefinitionError, match=r"Two services are called 'Shapes'.*name=…"):
        services.add("Shapes", Shapes())
    assert shapes in services
    assert Shapes() not in services


def test_a_service_with_two_names_is_found_by_both_and_written_by_the_first() -> None:
    services, shapes = Services(), Shapes()
    services.add("first", shapes)
    services.add("second", shapes)
    table: Any = shapes.plain.definition.table_of(shapes)
    assert isinstance(table, Table)
    assert services.name_of(table) == ("first", "plain")
    assert services.table_of("first", "plain") is services.table_of("second", "plain") is table


@pytest.mark.parametrize("method", ["__init__", "gone", "__class__", "_afresh_tables", ""])
def test_only_compute_methods_are_found_by_name(method: str) -> None:
    services = Services()
    services.add("Shapes", Shapes())
    assert services.table_of("Shapes", method) is None
    assert services.table_of("Other", "plain") is None


def test_a_service_that_is_added_later_is_found() -> None:
    services, shapes = Services(), Shapes()
    assert services.table_of("Shapes", "plain") is None
    services.add("Shapes", shapes)
    assert services.table_of("Shapes", "plain") is not None
    assert services.tables_of("Other") == []


# -- effects


def test_effects_tell_what_they_are(pair: Pair) -> None:
    effects = Effects()
    assert repr(effects) == "<Effects: none>"
    assert not effects
    assert effects.encode(pair.services[0], CODEC) is None
    with effects.recording():
        pair.here.plain(1)
    effects.changes = []
    assert repr(effects) == "<Effects: Shapes.plain, changes in tables>"
    assert effects
    (call,) = effects.calls
    assert call.args == (1, "", False)


def test_effects_that_are_written_can_be_read(pair: Pair) -> None:
    effects = Effects()
    effects.changes = {"orders": [1, None, "x"]}
    text = effects.encode(pair.services[0], CODEC)
    assert text is not None
    assert msgspec.json.decode(decode_effects(text).changes) == {"orders": [1, None, "x"]}
