"""Overriding, contracts, options that come down to those who override, and `super()`."""

import abc
import math
from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import pytest

from afresh import ComputeService, capture, compute_method
from afresh.graph import ComputedOptions, ComputeMethod, default_options, set_default_options

T = TypeVar("T")


class Orders(ComputeService):
    """A contract."""

    @compute_method(keep_alive=300, error_delay=5)
    @abstractmethod
    async def count(self, user: str) -> int: ...

    @compute_method(key=lambda users: tuple(users))
    @abstractmethod
    async def total(self, users: list[str]) -> int: ...

    @compute_method(ignore=("timeout",))
    @abstractmethod
    async def page(self, user: str, timeout: float = 1.0) -> int: ...


class Stored(Orders):
    """An implementation that repeats no decorator."""

    runs = 0

    async def count(self, user: str) -> int:
        self.runs += 1
        return len(user)

    async def total(self, users: list[str]) -> int:
        self.runs += 1
        return len(users)

    async def page(self, user: str, timeout: float = 1.0) -> int:
        self.runs += 1
        return len(user)


def test_a_contract_cannot_be_instantiated():
    with pytest.raises(TypeError, match="abstract"):
        Orders()


def test_an_implementation_must_be_complete():
    class Half(Orders):
        async def count(self, user: str) -> int:
            return 1

    with pytest.raises(TypeError, match=r"abstract.*page"):
        Half()


async def test_an_override_without_the_decorator_is_a_compute_method():
    stored = Stored()

    assert isinstance(Stored.count, ComputeMethod)
    assert await stored.count("ab") == 2
    assert await stored.count("ab") == 2
    assert stored.runs == 1


def test_it_has_the_options_of_what_it_overrides():
    options = Stored().count.options
    assert (options.keep_alive, options.error_delay) == (300, 5)


async def test_it_makes_keys_as_what_it_overrides():
    stored = Stored()
    assert await stored.total(["a", "b"]) == 2
    assert await stored.total(["a", "b"]) == 2
    assert await stored.page("a", 1.0) == 1
    assert await stored.page("a", timeout=2.0) == 1
    assert stored.runs == 2


def test_options_given_to_an_override_are_merged_over_those_of_the_contract():
    class Own(Stored):
        @compute_method(error_delay=7, auto_invalidate=100)
        async def count(self, user: str) -> int:
            return 1

        @compute_method(key=lambda users: len(users))
        async def total(self, users: list[str]) -> int:
            return 1

    options = Own().count.options

    assert (options.keep_alive, options.error_delay, options.auto_invalidate) == (300, 7, 100)
    assert options.transient_error_delay == default_options().transient_error_delay
    assert Own().total.existing(["a"]) is None
    assert Own.count.definition.given == {"error_delay": 7, "auto_invalidate": 100}


async def test_an_override_may_make_keys_of_its_own():
    class Own(Stored):
        @compute_method(key=lambda users: len(users))
        async def total(self, users: list[str]) -> int:
            self.runs += 1
            return 1

        @compute_method(ignore=())
        async def page(self, user: str, timeout: float = 1.0) -> int:
            self.runs += 1
            return 1

    own = Own()
    await own.total(["a"])
    await own.total(["b"])
    assert own.runs == 1
    await own.page("a", 1.0)
    await own.page("a", 2.0)
    assert own.runs == 3


def test_what_is_given_as_none_is_inherited():
    class Own(Stored):
        @compute_method(keep_alive=None, key=None)
        async def count(self, user: str) -> int:
            return 1

    assert Own().count.options.keep_alive == 300


async def test_a_parameter_that_an_override_does_not_have_needs_not_be_ignored():
    class Own(Stored):
        async def page(self, user: str, limit: int = 3) -> int:  # type: ignore[override]
            return limit

    own = Own()
    assert [await own.page("a", 1), await own.page("a", 2)] == [1, 2]


def test_an_override_must_have_a_default_for_what_its_contract_ignores():
    with pytest.raises(TypeError, match=r"Own\.page: the ignored parameter 'timeout' needs a def"):

        class Own(Stored):
            async def page(self, user: str, timeout: float) -> int:  # type: ignore[override]
                return 1


def test_options_that_are_omitted_are_the_default_ones():
    class Plain(ComputeService):
        @compute_method
        async def get(self) -> int:
            return 1

        @compute_method(error_delay=1.5)
        async def other(self) -> int:
            return 1

    assert Plain().get.options == default_options()
    assert Plain().other.options == default_options().replace(error_delay=1.5)
    assert Plain.other.definition.options is Plain().other.options


def test_the_default_options_are_those_of_the_reference_but_for_keep_alive():
    assert ComputedOptions() == ComputedOptions(
        keep_alive=60,
        auto_invalidate=math.inf,
        invalidation_delay=0,
        transient_error_delay=1,
        error_delay=30,
        consolidate=math.inf,
        equals=None,
    )


def test_default_options_can_be_replaced_for_methods_that_are_not_used_yet():
    class Early(ComputeService):
        @compute_method
        async def get(self) -> int:
            return 1

    early = Early()
    _ = early.get
    before = set_default_options(ComputedOptions(keep_alive=1, error_delay=2))
    try:

        class Late(ComputeService):
            @compute_method(error_delay=3)
            async def get(self) -> int:
                return 1

        assert (Late().get.options.keep_alive, Late().get.options.error_delay) == (1, 3)
        assert Early().get.options is early.get.options
        assert early.get.options == before
    finally:
        assert set_default_options(before).keep_alive == 1


async def test_sibling_classes_share_nothing():
    class Base(ComputeService):
        @compute_method(keep_alive=1)
        async def get(self, key: int) -> str:
            return "base"

    class First(Base):
        @compute_method(keep_alive=2)
        async def get(self, key: int) -> str:
            return "first"

        @compute_method
        async def own(self) -> int:
            return 1

    class Second(Base):
        async def get(self, key: int) -> str:
            return "second"

    class Third(Base):
        pass

    services: list[Any] = [Base(), First(), Second(), Third()]
    assert [service.get.options.keep_alive for service in services] == [1, 2, 1, 1]
    assert [await service.get(1) for service in services] == ["base", "first", "second", "base"]
    assert not hasattr(Second, "own")
    assert not hasattr(Base, "own")
    computed = [await service.get.capture(1) for service in services]
    assert len(set(computed)) == 4
    services[1].get.invalidate(1)
    assert [each.is_consistent for each in computed] == [True, False, True, True]


async def test_super_runs_the_body_that_is_overridden_inside_the_same_computation():
    class Base(ComputeService):
        runs = 0

        @compute_method
        async def part(self) -> int:
            return 1

        @compute_method
        async def get(self, key: int) -> int:
            self.runs += 1
            return key + await self.part()

    class Middle(Base):
        async def get(self, key: int) -> int:
            return 10 + await super().get(key)

    class Service(Middle):
        @compute_method
        async def get(self, key: int) -> int:
            return 100 + await super().get(key=key)

    service = Service()

    assert await service.get(1) == 112
    assert await service.get(1) == 112
    assert service.runs == 1
    computed = service.get.existing(1)
    assert computed is not None
    assert [each.category for each in computed.dependencies] == [f"{Service.__qualname__}.part"]

    service.part.invalidate()
    assert computed.is_invalidated
    assert await service.get(1) == 112


async def test_super_of_a_method_that_is_not_overridden_is_the_cached_one():
    class Base(ComputeService):
        runs = 0

        @compute_method
        async def get(self, key: int) -> int:
            self.runs += 1
            return key

    class Service(Base):
        async def other(self, key: int) -> int:
            return await super().get(key)

    service = Service()
    await service.other(1)
    await service.get(1)
    assert service.runs == 1


async def test_a_base_method_called_through_its_class_runs_its_body():
    class Base(ComputeService):
        @compute_method
        async def get(self, key: int) -> int:
            return key

    class Service(Base):
        async def get(self, key: int) -> int:
            return -await Base.get(self, key)

    assert await Service().get(1) == -1
    assert await Base.get(Base(), 1) == 1


async def test_super_works_through_a_diamond():
    class Root(ComputeService):
        @compute_method
        async def path(self) -> str:
            return "root"

    class Left(Root):
        async def path(self) -> str:
            return "left " + await super().path()

    class Right(Root):
        async def path(self) -> str:
            return "right " + await super().path()

    class Both(Left, Right):
        async def path(self) -> str:
            return "both " + await super().path()

    class Neither(Left, Right):
        pass

    assert await Both().path() == "both left right root"
    assert await Neither().path() == "left right root"
    assert await Left().path() == "left root"


async def test_a_mixin_that_stands_in_for_a_compute_method_is_cached():
    class Mixin:
        runs = 0

        async def count(self, user: str) -> int:
            self.runs += 1
            return 42

    class Service(Mixin, Stored):
        pass

    service = Service()
    assert [await service.count("a"), await service.count("a")] == [42, 42]
    assert service.runs == 1
    assert service.count.options.keep_alive == 300


def test_a_mixin_that_cannot_stand_in_is_refused():
    class Mixin:
        def count(self, user: str) -> int:
            return 42

    with pytest.raises(TypeError, match=r"Service\.count overrides the compute method .*Stored\.c"):

        class Service(Mixin, Stored):  # type: ignore[misc]
            pass


async def test_a_protected_abstract_method_is_captured_through_a_public_plain_one():
    class Base(ComputeService):
        @compute_method
        @abstractmethod
        async def _get(self, key: int) -> int: ...

        async def get(self, key: int) -> int:
            return await self._get(key)

    class Service(Base):
        async def _get(self, key: int) -> int:
            return key

    service = Service()
    computed = await capture(lambda: service.get(1))
    assert computed is service._get.existing(1)
    assert computed.value == 1


async def test_a_private_method_may_be_a_compute_method():
    class Base(ComputeService):
        @compute_method
        async def __get(self) -> str:
            return "base"

        async def get(self) -> str:
            return await self.__get()

    class Service(Base):
        @compute_method
        async def __get(self) -> str:
            return "service"

        async def both(self) -> tuple[str, str]:
            return await self.__get(), await super().get()

    assert await Service().both() == ("service", "base")


async def test_a_generic_service_is_a_service():
    class Repository(ComputeService, Generic[T]):
        @compute_method
        async def get(self, key: T) -> T:
            return key

    class Words(Repository[str]):
        async def get(self, key: str) -> str:
            return key * 2

    assert await Repository[int]().get(1) == 1
    assert await Words().get("a") == "aa"


async def test_a_protocol_may_stand_beside_a_service():
    class Gets(Protocol):
        async def get(self, key: int) -> int: ...

    class Service(ComputeService, Gets):
        @compute_method
        async def get(self, key: int) -> int:
            return key

    assert await Service().get(1) == 1
    assert isinstance(Service().get.options, ComputedOptions)


async def test_arguments_of_a_class_statement_go_on_to_other_bases():
    class Named:
        name = ""

        def __init_subclass__(cls, *, name: str, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            cls.name = name

    class Service(ComputeService, Named, name="served"):
        @compute_method
        async def get(self) -> str:
            return self.name

    assert await Service().get() == "served"


async def test_an_alias_is_the_same_method():
    class Service(ComputeService):
        runs = 0

        @compute_method
        async def get(self, key: int) -> int:
            self.runs += 1
            return key

        find = get

    service = Service()
    await service.get(1)
    await service.find(1)
    assert service.runs == 1
    assert service.find.invalidate(1)
    assert service.get.existing(1) is None


def test_what_subclasses_see_is_a_compute_method():
    assert isinstance(Orders.count, ComputeMethod)
    assert Orders.__abstractmethods__ == {"count", "total", "page"}
    assert Stored.__abstractmethods__ == set()
    assert isinstance(Stored, abc.ABCMeta)
    assert hasattr(Stored().count, "invalidate")


def test_the_abstract_mark_may_stand_above_or_below_the_decorator():
    class Contract(ComputeService):
        @abstractmethod
        @compute_method
        async def above(self) -> int: ...

        @compute_method
        @abstractmethod
        async def below(self) -> int: ...

    assert Contract.__abstractmethods__ == {"above", "below"}
    with pytest.raises(TypeError, match="abstract"):
        Contract()
