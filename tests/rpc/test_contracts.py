"""What is read off an annotated class: its methods, what they take and give, and how they run."""

import functools
import gc
import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec
import pytest

from afresh import ComputeService, DefinitionError, compute_method
from afresh.rpc.contracts import (
    NO_DEFAULT,
    REGULAR,
    SURVIVE_PEER_CHANGE,
    SURVIVE_RECONNECT,
    WAIT_FOR_CONNECTION,
    CallKind,
    MethodDefinition,
    NoWait,
    Timeouts,
    describe,
    rpc_method,
    rpc_service,
)
from afresh.rpc.naming import DOTNET, PYTHON

T = TypeVar("T")


class Order(msgspec.Struct):
    id: str


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class Orders:
    limit = 5

    async def for_user(self, user_id: str, count: int = 10) -> tuple[Order, ...]:
        return tuple(Order(f"{user_id}-{index}") for index in range(count))

    async def clear(self) -> None: ...

    async def ping(self, text: str) -> NoWait: ...

    async def _sweep(self): ...

    @property
    def size(self) -> int:
        return 0

    @staticmethod
    async def parse(text: str) -> Order:
        return Order(text)

    @classmethod
    async def open(cls, path: str) -> "Orders":
        return cls()

    class Settings:
        pass


def method(contract: type, name: str = "get") -> MethodDefinition:
    return describe(contract).methods[name]


# -- which methods


def test_the_public_async_methods_are_the_contract():
    assert list(describe(Orders).methods) == ["for_user", "clear", "ping"]


def test_inherited_methods_are_part_of_the_contract():
    class Base(ABC):
        @abstractmethod
        async def get(self) -> int: ...

        @abstractmethod
        async def both(self) -> int: ...

    class Derived(Base):
        async def both(self) -> str: ...

        async def own(self) -> int: ...

    definition = describe(Derived)
    assert sorted(definition.methods) == ["both", "get", "own"]
    assert definition.methods["both"].result_type is str
    assert {method.service for method in definition.methods.values()} == {definition}


def test_a_protocol_is_a_contract():
    class Greeter(Protocol):
        async def greet(self, name: str) -> str: ...

    assert describe(Greeter).methods["greet"].wire_name == "Greeter.greet:2"


def test_an_inherited_method_can_be_taken_out_by_setting_it_to_none():
    class Derived(Orders):
        ping = None

    assert sorted(describe(Derived).methods) == ["clear", "for_user"]


def test_a_public_method_can_be_kept_out():
    class Counters:
        async def get(self) -> int: ...

        @rpc_method(served=False)
        def increment(self): ...

        @rpc_method(served=False)
        async def reset(self): ...

    class Derived(Counters):
        async def reset(self): ...

    assert list(describe(Counters).methods) == ["get"]
    assert list(describe(Derived).methods) == ["get"]


def test_a_function_around_an_async_one_is_a_method_when_it_is_marked():
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    class Service:
        @rpc_method
        @traced
        async def outer(self, a: int) -> str: ...

        @traced
        @rpc_method
        async def inner(self, a: int) -> str: ...

    for found in describe(Service).methods.values():
        assert (found.names, found.types, found.result_type) == (("a",), (int,), str)
    assert len(describe(Service).methods) == 2


class ComputeKind(CallKind):
    """Stands for the kind that `afresh.remote` brings."""

    id = 1
    name = "compute"
    flags = 7

    def function_of(self, attribute: object) -> Callable[..., Any] | None:
        definition = getattr(attribute, "definition", None)
        return None if definition is None else definition.function


COMPUTE = ComputeKind()


def test_methods_of_a_kind_from_outside_are_found_by_it():
    class Counters(ComputeService):
        @compute_method
        async def get(self, key: str) -> int: ...

        @rpc_method(name="Total")
        @compute_method
        async def total(self) -> int: ...

        @compute_method
        @rpc_method(name="Sum")
        async def sum(self) -> int: ...

        async def put(self, key: str) -> int: ...

    methods = describe(Counters, PYTHON, (COMPUTE, REGULAR)).methods
    assert {name: found.kind.id for name, found in methods.items()} == {
        "get": 1,
        "total": 1,
        "sum": 1,
        "put": 0,
    }
    assert methods["get"].types == (str,)
    assert methods["total"].wire_name == "Counters.Total:1"
    assert methods["sum"].wire_name == "Counters.Sum:1"


def test_an_override_without_the_decorator_has_the_marks_of_what_it_overrides():
    class Contract(ComputeService):
        @rpc_method(name="Get")
        @compute_method
        async def get(self, key: str) -> int: ...

    class Derived(Contract):
        async def get(self, key: str) -> int: ...

    found = describe(Derived, PYTHON, (COMPUTE, REGULAR)).methods["get"]
    assert found.kind is COMPUTE
    assert found.wire_name == "Derived.Get:2"


# -- what they take and give


def test_types_are_resolved():
    for_user = method(Orders, "for_user")
    assert for_user.names == ("user_id", "count")
    assert for_user.types == (str, int)
    assert for_user.defaults == (NO_DEFAULT, 10)
    assert for_user.result_type == tuple[Order, ...]
    assert for_user.function is Orders.for_user


def test_what_an_annotation_says_besides_the_type_is_kept():
    short = Annotated[str, msgspec.Meta(max_length=5)]

    class Service:
        async def get(self, text: short) -> short: ...

    assert method(Service).types == (short,)
    assert method(Service).result_type == short


def test_annotations_may_be_texts_and_name_what_the_body_of_the_class_defines():
    class Service:
        class Item(msgspec.Struct):
            id: int

        async def get(self, item: "Item") -> "list[Service.Item] | None": ...

        async def local(self, item: "Item") -> "list[Item] | None": ...

    class Fine:
        Item = Service.Item
        local = Service.local

    assert method(Fine, "local").types == (Service.Item,)
    assert method(Fine, "local").result_type == list[Service.Item] | None


def test_a_method_that_returns_nothing_has_no_result_type():
    assert method(Orders, "clear").result_type is None
    assert not method(Orders, "clear").is_no_wait


async def test_a_method_may_say_that_nobody_waits_for_it():
    ping = method(Orders, "ping")
    assert ping.is_no_wait
    assert ping.result_type is None
    assert await Orders().ping("x") is None
    assert repr(NoWait).endswith("[NoneType, NoWait]")


def test_a_generic_contract_is_one_when_its_types_are_given():
    K = TypeVar("K")

    class Reader(Protocol[T]):
        async def get(self, key: str) -> T | None: ...

    class Repository(Reader[T], Generic[K, T]):
        async def find(self, key: K) -> list[T]: ...

        async def page(self) -> Page[T]: ...

        async def bare(self) -> Page: ...  # type: ignore[type-arg]

    class OrderRepository(Repository[int, Order]): ...

    class Special(OrderRepository): ...

    for contract in (OrderRepository, Special):
        methods = describe(contract).methods
        assert methods["get"].result_type == Order | None
        assert methods["find"].types == (int,)
        assert methods["find"].result_type == list[Order]
        assert methods["page"].result_type == Page[Order]
        assert methods["bare"].result_type is Page


def test_generic_bases_may_use_the_same_type_variable():
    class First(Generic[T]):
        async def first(self, value: T) -> list[T]: ...

    class Second(Generic[T]):
        async def second(self, value: T) -> list[T]: ...

    class Wrapped(Second[list[T]]): ...

    class Both(First[int], Wrapped[str]): ...

    methods = describe(Both).methods
    assert methods["first"].types == (int,)
    assert methods["first"].result_type == list[int]
    assert methods["second"].types == (list[str],)
    assert methods["second"].result_type == list[list[str]]


# -- arguments


class Arguments:
    async def get(self, a: int, b: str = "b", *, c: float = 0.5, d: bool) -> int: ...

    async def two(self, a: int, b: int) -> int: ...

    async def only(self, a: int, /, b: int = 2) -> int: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "values"),
    [
        ((1,), {"d": True}, (1, "b", 0.5, True)),
        ((1, "x"), {"d": True, "c": 1.5}, (1, "x", 1.5, True)),
        ((), {"d": False, "a": 3}, (3, "b", 0.5, False)),
    ],
)
def test_arguments_line_up_with_the_parameters(
    args: tuple[Any, ...], kwargs: dict[str, Any], values: tuple[Any, ...]
):
    assert method(Arguments).bind(args, kwargs) == values


def test_arguments_that_line_up_already_are_taken_as_they_are():
    args = (1, 2)
    assert method(Arguments, "two").bind(args, {}) is args


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("two", (), {}),
        ("two", (1,), {}),
        ("two", (1,), {"c": 2}),
        ("two", (1, 2), {"b": 2}),
        ("get", (1,), {}),
        ("only", (), {"a": 1}),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_the_words_of_python(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
):
    with pytest.raises(TypeError) as expected:
        getattr(Arguments(), name)(*args, **kwargs)
    with pytest.raises(TypeError) as caught:
        method(Arguments, name).bind(args, kwargs)
    assert str(caught.value) == str(expected.value)


def test_positional_arguments_beyond_the_last_are_refused_and_never_taken_by_name():
    with pytest.raises(TypeError, match="takes from 1 to 2 positional arguments but 4 were given"):
        method(Arguments).bind((1, "b", 0.5, True), {})


async def test_an_implementation_is_called_with_values_by_position():
    class Implementation:
        async def get(self, a: int, b: str = "b", *, c: float = 0.5, d: bool) -> Any:
            return a, b, c, d

        async def two(self, a: int, b: int) -> Any:
            return a + b

    service = Implementation()
    assert await method(Arguments).of(service)(1, "x", 1.5, True) == (1, "x", 1.5, True)
    assert method(Arguments, "two").of(service) == service.two


@pytest.mark.parametrize("attribute", [None, 5])
def test_an_implementation_without_the_method_is_refused(attribute: Any):
    class Implementation:
        two = attribute

        def __repr__(self) -> str:
            return "<it>"

    with pytest.raises(DefinitionError, match=r"<it> can't be served as Arguments: .* 'two'"):
        method(Arguments, "two").of(Implementation())


def test_defaults_can_be_values_that_have_no_source_form():
    default = Order("none")

    class Service:
        async def get(self, order: Order = default) -> int: ...

    assert method(Service).bind((), {})[0] is default


# -- names and overloads


def test_calls_that_leave_out_defaults_at_the_end_come_in_under_a_name_of_their_own():
    definition = describe(Orders)
    for_user = definition.methods["for_user"]
    assert for_user.wire_name == "Orders.for_user:3"
    assert for_user.wire_names == ("Orders.for_user:3", "Orders.for_user:2")
    assert definition.endpoints["Orders.for_user:2"] is for_user
    assert set(definition.endpoints) == {
        "Orders.for_user:3",
        "Orders.for_user:2",
        "Orders.clear:1",
        "Orders.ping:2",
    }


def test_overloads_are_told_apart_by_the_number_of_parameters():
    class Calculator:
        @rpc_method(name="Add", cancellation_slot=False)
        async def add3(self, a: int, b: int, c: int = 0, d: int = 0) -> int: ...

        @rpc_method(name="Add", cancellation_slot=False)
        async def add2(self, a: int, b: int = 0) -> int: ...

    definition = describe(Calculator)
    add3, add2 = definition.methods.values()
    assert definition.endpoints == {
        "Calculator.Add:4": add3,
        "Calculator.Add:3": add3,
        "Calculator.Add:2": add2,
        "Calculator.Add:1": add2,
    }


# -- how they run


def test_plain_calls_wait_without_limit_and_survive_everything():
    for_user = method(Orders, "for_user")
    assert for_user.timeouts == Timeouts(math.inf, math.inf)
    assert for_user.flags == WAIT_FOR_CONNECTION | SURVIVE_PEER_CHANGE == 7
    assert for_user.has_cancellation_slot


def test_calls_that_nobody_waits_for_survive_nothing():
    assert method(Orders, "ping").flags == 0


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"wait_for_connection": False}, SURVIVE_PEER_CHANGE),
        ({"survive_peer_change": False}, WAIT_FOR_CONNECTION | SURVIVE_RECONNECT),
        ({"survive_reconnect": False}, WAIT_FOR_CONNECTION),
        ({"wait_for_connection": False, "survive_reconnect": False}, 0),
        ({"survive_reconnect": True, "survive_peer_change": True}, 7),
    ],
)
def test_a_method_says_what_its_calls_survive(options: dict[str, bool], flags: int):
    class Service:
        @rpc_method(**options)
        async def get(self) -> int: ...

    assert method(Service).flags == flags


def test_a_method_says_when_its_calls_time_out():
    class Service:
        @rpc_method(timeouts=Timeouts(connect=1.5, run=10))
        async def get(self) -> int: ...

    assert method(Service).timeouts == Timeouts(1.5, 10)


class CommandKind(CallKind):
    name = "command"
    timeouts = Timeouts(connect=1.5, run=10)
    backend_timeouts = Timeouts(connect=300, run=300)


def test_time_outs_depend_on_the_kind_of_the_method_and_on_whether_it_is_for_the_backend():
    class Front:
        async def get(self) -> int: ...

    @rpc_service(backend=True)
    class Back:
        async def get(self) -> int: ...

    kinds = (CommandKind(),)
    assert describe(Front, PYTHON, kinds).methods["get"].timeouts == Timeouts(1.5, 10)
    assert describe(Back, PYTHON, kinds).methods["get"].timeouts == Timeouts(300, 300)


def test_what_an_override_does_not_say_comes_from_the_method_that_it_overrides():
    class Contract:
        @rpc_method(name="Get", timeouts=Timeouts(run=1), cancellation_slot=False)
        async def get(self) -> int: ...

    class Implementation(Contract):
        @rpc_method(timeouts=Timeouts(run=2))
        async def get(self) -> int: ...

    found = method(Implementation)
    assert (found.wire_name, found.timeouts.run) == ("Implementation.Get:0", 2)
    assert method(Contract).timeouts.run == 1


def test_contracts_derived_from_one_for_the_backend_are_for_the_backend_too():
    @rpc_service(backend=True)
    class Store:
        async def get(self) -> int: ...

    @rpc_service(name="special")
    class Special(Store): ...

    @rpc_service(backend=False)
    class Public(Store): ...

    assert describe(Store).is_backend
    assert describe(Special).is_backend
    assert describe(Special).methods["get"].is_backend
    assert not describe(Public).is_backend
    assert not describe(Orders).is_backend


# -- how often


def test_a_contract_is_described_once_for_each_way_to_see_it():
    definition = describe(Orders)
    assert describe(Orders, PYTHON, (REGULAR,)) is definition
    assert describe(Orders, DOTNET) is not definition
    assert describe(Orders, name="eu") is not definition
    assert describe(Orders, PYTHON, (COMPUTE, REGULAR)) is not definition


def test_a_contract_that_nobody_uses_is_not_kept():
    def described() -> weakref.ref[type]:
        class Service:
            async def get(self) -> int: ...

        describe(Service)
        rpc_service(name="x")(Service)
        return weakref.ref(Service)

    kept = described()
    gc.collect()  # the definition
    gc.collect()  # the class that it was of
    assert kept() is None


def test_definitions_show_what_they_are():
    assert repr(describe(Orders, name="eu")) == "<ServiceDefinition eu of Orders>"
    assert repr(method(Orders, "clear")) == "<MethodDefinition Orders.clear:1>"
