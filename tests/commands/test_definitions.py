"""What handlers, filters and commands look like, and what is refused when they are declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest

from afresh import ComputeService
from afresh.commands import (
    Command,
    Commander,
    CommandOf,
    CommandRegistry,
    command,
    command_filter,
    command_handler,
    result_type_of,
    tag_of,
)
from afresh.errors import DefinitionError
from tests.commands.services import Fail, MemoryOrders, Order, Orders, PlaceOrder

T = TypeVar("T")


# -- handlers


def test_a_handler_is_a_coroutine_function() -> None:
    with pytest.raises(DefinitionError, match="must be declared with 'async def'"):

        @command_handler  # type: ignore[arg-type]
        def place(self: Any, command: PlaceOrder) -> Order: ...


def test_a_handler_takes_a_command_and_nothing_else() -> None:
    with pytest.raises(DefinitionError, match="takes 2 parameters after self instead of 1"):

        @command_handler  # type: ignore[arg-type]
        async def place(self: Any, command: PlaceOrder, more: int) -> Order: ...


def test_a_handler_says_which_commands_it_is_for() -> None:
    with pytest.raises(DefinitionError, match="'command' has no annotation"):

        @command_handler
        async def place(self: Any, command) -> Order: ...  # type: ignore[no-untyped-def]


def test_a_static_method_is_no_handler() -> None:
    with pytest.raises(DefinitionError, match="a staticmethod can't be a command handler"):

        class Wrong:
            @command_handler  # type: ignore[arg-type]
            @staticmethod
            async def place(command: PlaceOrder) -> Order: ...


def test_an_override_of_a_handler_is_a_coroutine_function() -> None:
    with pytest.raises(DefinitionError, match=r"overrides the command handler Orders\.fail but"):

        class Wrong(Orders):
            def fail(self, command: Fail) -> None: ...  # type: ignore[override]


def test_an_override_takes_the_priority_of_what_it_overrides() -> None:
    class Base(ComputeService):
        @command_handler(priority=7)
        async def fail(self, command: Fail) -> None: ...

    class Derived(Base):
        async def fail(self, command: Fail) -> None: ...

    class Other(Base):
        @command_handler(priority=0)
        async def fail(self, command: Fail) -> None: ...

    assert Derived.fail.definition is not Base.fail.definition
    assert Derived.fail.definition.priority == 7
    assert Other.fail.definition.priority == 0


def test_a_contract_that_is_not_implemented_can_t_be_made() -> None:
    class Half(Orders):
        async def fail(self, command: Fail) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


async def test_a_body_from_a_mixin_is_a_handler(commander: Commander) -> None:
    class Body:
        async def place(self, command: PlaceOrder) -> Order:
            return Order(5, "mixin")

    class Mixed(Body, MemoryOrders):  # type: ignore[misc]
        pass

    mixed: Any = commander.add(Mixed())
    assert await commander.call(PlaceOrder("u1")) == await mixed.place(PlaceOrder("u1"))


# -- what is made stale


class Base(ComputeService):
    @command_handler
    async def place(self, command: PlaceOrder) -> Order:
        return Order(1, command.user_id)

    @place.invalidates
    def _(self, command: PlaceOrder, order: Order) -> None:
        self.stale = command, order

    @command_handler
    async def fail(self, command: Fail) -> None: ...


class Derived(Base):
    async def place(self, command: PlaceOrder) -> Order:
        return Order(2, command.user_id)


def test_a_definition_keeps_what_the_handler_makes_stale() -> None:
    service = Derived()
    invalidates = service.place.definition.invalidates
    assert invalidates is Base.place.definition.invalidates is not None
    invalidates(service, PlaceOrder("u1"), Order(1, "u1"))
    assert service.stale == (PlaceOrder("u1"), Order(1, "u1"))
    assert Base.fail.definition.invalidates is None


def test_what_is_made_stale_is_said_once() -> None:
    with pytest.raises(DefinitionError, match="used twice"):

        @Base.place.invalidates
        def _(self: Base, command: PlaceOrder, order: Order) -> None: ...


def test_what_is_made_stale_is_said_by_a_plain_function_of_two() -> None:
    with pytest.raises(DefinitionError, match="decorates a plain 'def'"):

        @Base.fail.invalidates  # type: ignore[arg-type]
        async def one(self: Base, command: Fail, result: None) -> None: ...

    with pytest.raises(DefinitionError, match="takes 1 parameters after self instead of 2"):

        @Base.fail.invalidates  # type: ignore[arg-type]
        def two(self: Base, command: Fail) -> None: ...


# -- filters


def test_a_filter_is_a_coroutine_function_that_takes_what_goes_on() -> None:
    with pytest.raises(DefinitionError, match="must be declared with 'async def'"):

        @command_filter  # type: ignore[type-var]
        def one(self: Any, command: PlaceOrder, proceed: Any) -> Order: ...

    with pytest.raises(DefinitionError, match="takes 1 parameters after self instead of 2"):

        @command_filter
        async def two(self: Any, command: PlaceOrder) -> Order: ...


# -- commands


class Upsert(Command[T], Generic[T], frozen=True):
    value: int


class UpsertOrder(Upsert[Order], frozen=True):
    pass


class Twice(UpsertOrder, frozen=True):
    pass


@dataclass(frozen=True)
class Plain(CommandOf[None]):
    text: str


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (PlaceOrder, Order),
        (Fail, type(None)),
        (UpsertOrder, Order),
        (Twice, Order),
        (Plain, type(None)),
    ],
)
def test_the_result_of_a_command_is_known_from_its_bases(kind: type, result: Any) -> None:
    assert result_type_of(kind) is result


def test_commands_are_values() -> None:
    assert PlaceOrder("u1") == PlaceOrder("u1")
    assert len({PlaceOrder("u1"), PlaceOrder("u1")}) == 1
    with pytest.raises(AttributeError):
        PlaceOrder("u1").user_id = "u2"  # type: ignore[misc]


# -- tags


@command("shop.rename", aliases=("Rename", "shop.name"))
@dataclass(frozen=True, slots=True)
class Rename(CommandOf[None]):
    name: str


@command("shop.rename")
class OtherRename(Command[None], frozen=True):
    pass


def test_the_tag_of_a_command_is_its_name_unless_given() -> None:
    assert tag_of(PlaceOrder) == "PlaceOrder"
    assert tag_of(Rename) == "shop.rename"


def test_a_registry_finds_types_by_tags_and_earlier_names() -> None:
    registry = CommandRegistry()
    registry.add(PlaceOrder, Rename)
    registry.add(Rename)
    assert registry.type_of("PlaceOrder") is PlaceOrder
    assert {registry.type_of(tag) for tag in ("shop.rename", "Rename", "shop.name")} == {Rename}
    assert registry.type_of("builtins.str") is None
    assert registry.tag_of(Rename) == "shop.rename"
    assert registry.tag_of(Fail) is None
    assert list(registry) == [PlaceOrder, Rename]
    assert len(registry) == 2
    assert Rename in registry
    assert repr(registry) == "<CommandRegistry of PlaceOrder, shop.rename>"


def test_a_registry_refuses_two_types_of_one_name_and_keeps_neither_half() -> None:
    registry = CommandRegistry()
    registry.add(Rename)
    with pytest.raises(DefinitionError, match=r"are both called 'shop\.rename'"):
        registry.add(Fail, OtherRename)
    assert list(registry) == [Rename]
    assert registry.type_of("Fail") is None
    with pytest.raises(DefinitionError, match="no type of commands"):
        registry.add(str)


def test_the_types_that_handlers_take_are_registered(commander: Commander) -> None:
    commander.add(MemoryOrders())
    assert set(commander.registry) == {PlaceOrder, Fail}


@pytest.mark.parametrize("wrong", ["", None])
def test_a_tag_is_a_name(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="takes the name to use"):
        command(wrong)


def test_only_types_of_commands_have_tags() -> None:
    with pytest.raises(DefinitionError, match="int is no type of commands"):
        command("number")(int)
