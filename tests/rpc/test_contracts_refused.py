"""Classes that can't be contracts are refused, in words that say what to write instead."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from afresh import ComputeService, DefinitionError, compute_method
from afresh.rpc.contracts import REGULAR, CallKind, NoWait, describe, rpc_method
from afresh.rpc.naming import PYTHON

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


def refused(contract: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        describe(contract)
    return re.sub(r"\S*<locals>\.\w+", "Service", str(caught.value))


def test_a_plain_def_is_refused():
    class Service:
        def get(self) -> int: ...

    assert refused(Service) == (
        "Service.get can't be called from elsewhere. Declare it with 'async def', or keep it out "
        "of the contract: by a name that starts with '_', or with @rpc_method(served=False)."
    )


def test_a_def_that_returns_an_awaitable_is_refused_too():
    class Service:
        def get(self) -> Awaitable[int]: ...

    assert "Declare it with 'async def'" in refused(Service)


def test_an_async_generator_is_refused():
    class Service:
        async def ticks(self) -> AsyncIterator[int]:
            yield 1

    assert refused(Service) == (
        "Service.ticks is an async generator. Declare it with '-> RpcStream[T]', and let it return "
        "RpcStream(…) around the generator."
    )


def test_an_async_generator_that_is_marked_is_refused_as_well():
    class Service:
        @rpc_method
        async def ticks(self) -> AsyncIterator[int]:
            yield 1

    assert "is an async generator" in refused(Service)


def test_an_async_iterator_as_the_result_is_refused():
    class Service:
        async def ticks(self) -> AsyncIterator[int]: ...

    assert "Service.ticks returns an async iterator. Declare it with '-> RpcStream[T]'" in refused(
        Service
    )


def test_a_parameter_without_an_annotation_is_refused():
    class Service:
        async def get(self, a: int, key) -> int: ...  # type: ignore[no-untyped-def]

    assert refused(Service) == (
        "Service.get: the parameter 'key' has no annotation, and what is read from the wire needs "
        "a type; write 'key: str' for example."
    )


def test_a_method_that_does_not_say_what_it_returns_is_refused():
    class Service:
        async def get(self, key: str): ...  # type: ignore[no-untyped-def]

    assert refused(Service) == (
        "Service.get does not say what it returns, and what is read from the wire needs a type; "
        "write '-> int' for example, '-> None' for nothing, '-> NoWait' for a call that is not "
        "answered at all."
    )


def test_arguments_of_any_number_are_refused():
    class Positional:
        async def get(self, *keys: str) -> int: ...

    class Named:
        async def get(self, **options: str) -> int: ...

    assert refused(Positional) == (
        "Service.get takes '*keys: 'str'', whose number and types a caller elsewhere can't know; "
        "take a list or a dict, and say of what."
    )
    assert "takes '**options: 'str''" in refused(Named)


def test_a_name_that_exists_for_type_checkers_only_is_refused():
    class Service:
        async def get(self) -> Decimal: ...

    assert refused(Service).startswith(
        "Service.get: the annotations name 'Decimal', which does not"
    )


def test_an_annotation_that_fails_is_refused():
    class Service:
        async def get(self) -> int[str]: ...  # type: ignore[type-arg]

    assert refused(Service).startswith("Service.get: its annotations can't be read: ")


def test_a_type_variable_that_nothing_stands_for_is_refused():
    class Plain:
        async def get(self, value: T) -> int: ...

    class Nested:
        async def get(self) -> list[T]: ...

    assert refused(Plain) == (
        "Service.get: ~T stands for any type, and what is read from the wire needs one; write it "
        "out, or derive the contract from the generic class with its types given."
    )
    assert "list[~T] stands for any type" in refused(Nested)


def test_two_methods_of_one_name_and_number_of_parameters_are_refused():
    class Service:
        @rpc_method(name="Get")
        async def by_id(self, key: str) -> int: ...

        @rpc_method(name="Get")
        async def by_name(self, name: str) -> int: ...

    assert refused(Service).endswith(
        "by_id and by_name are both 'Service.Get:2' on the wire, where methods of one name differ "
        "by the number of parameters only; give one of them another name with @rpc_method(name=…)."
    )


def test_a_class_without_methods_is_refused():
    class Service:
        limit: int = 1

        async def _get(self) -> int: ...

    assert "has no method that could be called" in refused(Service)


@pytest.mark.parametrize("contract", ["Orders", None, list[int]])
def test_what_is_no_class_is_refused(contract: Any):
    assert refused(contract) == f"A contract is a class, and {contract!r} is none."


def test_a_wrapper_that_hides_the_async_def_is_refused():
    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    class Service:
        @traced
        async def get(self) -> int: ...

    assert refused(Service) == (
        "Service.get is hidden behind a function that is no 'async def'; mark that with "
        "@rpc_method, or leave it out with @rpc_method(served=False)."
    )


def test_a_method_of_a_kind_that_is_not_known_is_refused():
    class Service(ComputeService):
        @compute_method
        async def get(self) -> int: ...

    assert refused(Service) == (
        "Service.get is a Method, which this hub can't serve. Make such methods known with "
        "RpcHub(kinds=…), as App and connect() do for compute methods, or leave it out with "
        "@rpc_method(served=False)."
    )


def test_what_calls_survive_can_not_be_said_where_nobody_waits():
    class Service:
        @rpc_method(survive_reconnect=True)
        async def ping(self) -> NoWait: ...

    assert refused(Service) == (
        "Service.ping is not answered: @rpc_method can't set survive_reconnect for it."
    )


def test_what_calls_survive_can_not_be_said_where_the_kind_says_it():
    class Fixed(CallKind):
        name = "compute"
        flags = 7

    class Service:
        @rpc_method(wait_for_connection=False)
        async def get(self) -> int: ...

    with pytest.raises(DefinitionError, match="is a compute call: @rpc_method can't set wait_for"):
        describe(Service, PYTHON, (Fixed(), REGULAR))


def test_a_method_of_another_kind_can_not_be_one_that_nobody_waits_for():
    class Live(CallKind):
        id = 1
        name = "compute"

    class Service:
        async def get(self) -> NoWait: ...

    with pytest.raises(DefinitionError, match="is a compute call, which lives by its answer"):
        describe(Service, PYTHON, (Live(),))


def test_a_call_that_survives_the_change_of_the_peer_must_survive_a_reconnect():
    class Service:
        @rpc_method(survive_reconnect=False, survive_peer_change=True)
        async def get(self) -> int: ...

    assert "leave out survive_reconnect=False or survive_peer_change=True" in refused(Service)
