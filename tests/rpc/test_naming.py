"""What Python names become on the wire."""

import pytest

from afresh import DefinitionError
from afresh.rpc.contracts import describe, rpc_method, rpc_service
from afresh.rpc.naming import DOTNET, PYTHON, DotnetNaming, NamingPolicy


class Orders:
    async def for_user(self, user_id: str) -> int: ...

    async def get(self) -> int: ...


class IClock:
    async def utc_now_v2(self) -> float: ...


class Inventory:
    async def count(self) -> int: ...


def wire_names(contract: type, naming: NamingPolicy, name: str | None = None) -> list[str]:
    methods = describe(contract, naming, name=name).methods.values()
    return [method.wire_name for method in methods]


def test_names_travel_as_they_are_and_count_the_cancellation_slot():
    assert wire_names(Orders, PYTHON) == ["Orders.for_user:2", "Orders.get:1"]


def test_dotnet_peers_know_a_service_by_an_interface_and_methods_in_pascal_case():
    assert wire_names(Orders, DOTNET) == ["IOrders.ForUser:2", "IOrders.Get:1"]


def test_a_contract_named_like_an_interface_keeps_its_name():
    assert wire_names(IClock, DOTNET) == ["IClock.UtcNowV2:1"]


def test_a_name_that_only_starts_with_an_i_is_no_interface():
    assert wire_names(Inventory, DOTNET) == ["IInventory.Count:1"]


def test_a_policy_of_your_own_names_what_it_wants_to():
    class Versioned(DotnetNaming):
        def service_name(self, contract: type) -> str:
            return f"shop.{super().service_name(contract)}V2"

    assert wire_names(Orders, Versioned()) == ["shop.IOrdersV2.ForUser:2", "shop.IOrdersV2.Get:1"]


@pytest.mark.parametrize("naming", [PYTHON, DOTNET])
def test_what_a_contract_says_of_its_names_comes_before_any_policy(naming: NamingPolicy):
    @rpc_service(name="orders")
    class Named:
        @rpc_method(name="byUser")
        async def for_user(self, user_id: str) -> int: ...

    assert wire_names(Named, naming) == ["orders.byUser:2"]


def test_a_name_given_when_it_is_served_comes_before_what_the_contract_says():
    @rpc_service(name="orders")
    class Named:
        async def get(self) -> int: ...

    assert wire_names(Named, PYTHON, "eu.orders") == ["eu.orders.get:1"]


def test_the_name_of_a_contract_is_not_that_of_contracts_derived_from_it():
    @rpc_service(name="orders")
    class Named:
        async def get(self) -> int: ...

    class Derived(Named): ...

    assert wire_names(Derived, PYTHON) == ["Derived.get:1"]


def test_a_method_without_a_cancellation_slot_counts_its_parameters_only():
    class Calculator:
        @rpc_method(cancellation_slot=False)
        async def add(self, a: int, b: int) -> int: ...

    assert wire_names(Calculator, DOTNET) == ["ICalculator.Add:2"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "must not be empty"),
        ("$sys", "nor start with '\\$'"),
        ("orders\ud800", "no UTF-8 form"),
        ("o" * 1024, "has 1035 bytes of UTF-8 and may have 1024"),
        ("é" * 510, "has 1031 bytes"),
    ],
)
def test_a_service_name_that_the_wire_can_not_carry_is_refused(name: str, complaint: str):
    class Policy(NamingPolicy):
        def service_name(self, contract: type) -> str:
            return name

    with pytest.raises(DefinitionError, match=complaint):
        describe(Orders, Policy())


def test_a_name_may_have_1024_bytes():
    length = 1024 - len(".get:1")
    assert len(wire_names(IClock, PYTHON, "é" * 500)[0].encode()) == 1000 + len(".utc_now_v2:1")

    class Get:
        async def get(self) -> int: ...

    assert len(wire_names(Get, PYTHON, "o" * length)[0]) == 1024


@pytest.mark.parametrize("name", ["get.all", "get:2"])
def test_a_method_name_with_a_separator_in_it_is_refused(name: str):
    class Service:
        @rpc_method(name=name)
        async def get(self) -> int: ...

    with pytest.raises(DefinitionError, match=r"nor contain '\.' or ':'"):
        describe(Service)
