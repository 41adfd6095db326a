"""Whose results they are: each instance has its own, for as long as it lives."""

import copy
import gc
import pickle
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

from afresh import ComputeService, compute_method
from tests.graph.services import Counters


class Plain:
    """No `ComputeService`."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.runs = 0

    @compute_method
    async def get(self, key: int) -> int:
        self.runs += 1
        return self.number + key

    @compute_method
    async def twice(self, key: int) -> int:
        return 2 * await self.get(key)


class Service(ComputeService):
    """The same with it."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.runs = 0

    @compute_method
    async def get(self, key: int) -> int:
        self.runs += 1
        return self.number + key

    @compute_method
    async def twice(self, key: int) -> int:
        return 2 * await self.get(key)


both_kinds = pytest.mark.parametrize("kind", [Plain, Service])


async def test_instances_do_not_share_results():
    one, other = Counters(), Counters()
    one.values["a"] = 1

    first, second = await one.get.capture("a"), await other.get.capture("a")

    assert (first.value, second.value) == (1, 0)
    assert (one.runs["a"], other.runs["a"]) == (1, 1)
    one.get.invalidate("a")
    assert first.is_invalidated
    assert second.is_consistent


async def test_very_many_instances_do_not_share_results():
    services = [Service(number) for number in range(1000)]
    for _ in range(2):
        assert [await service.get(1) for service in services] == list(range(1, 1001))
        assert [await service.twice(1) for service in services] == list(range(2, 2002, 2))
    assert {service.runs for service in services} == {1}


async def test_a_new_instance_in_the_place_of_a_dead_one_starts_empty():
    for number in range(100):
        service = Service(number)
        assert await service.get(0) == number
        del service
        gc.collect(0)


@both_kinds
async def test_a_plain_class_may_have_compute_methods(kind: Any):
    service = kind(5)

    assert await service.get(1) == 6
    assert await service.twice(key=1) == 12
    assert service.runs == 1
    assert service.get.invalidate(1)
    assert service.twice.existing(1) is None
    assert await service.twice(1) == 12
    assert service.runs == 2


@both_kinds
async def test_the_class_can_be_asked_for_the_method_of_an_instance(kind: Any):
    service = kind(5)
    assert await kind.get(service, 1) == 6
    assert await service.get(1) == 6
    assert service.runs == 1
    with pytest.raises(TypeError):
        kind.get()


@both_kinds
async def test_a_bound_method_can_be_kept_and_passed_on(kind: Any):
    service = kind(5)
    get = service.get
    assert [await each for each in map(get, (1, 2, 1))] == [6, 7, 6]
    assert service.runs == 2
    assert get == service.get
    assert get.existing(1) is service.get.existing(1)


@both_kinds
async def test_equality_and_hash_of_a_service_do_not_matter(kind: Any):
    class AllTheSame(kind):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, AllTheSame)

        def __hash__(self) -> int:
            return 1

    class Unhashable(kind):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("must not be compared")

    for strange in (AllTheSame, Unhashable):
        one, other = strange(1), strange(2)
        assert (await one.get(1), await other.get(1)) == (2, 3)
        assert one.get.invalidate(1)
        assert other.get.existing(1) is not None


async def test_a_dataclass_may_be_a_service():
    @dataclass
    class Point(ComputeService):
        x: int

        @compute_method
        async def get(self) -> int:
            return self.x

    @dataclass(frozen=True)
    class Frozen(ComputeService):
        x: int

        @compute_method
        async def get(self) -> int:
            return self.x

    for kind in (Point, Frozen):
        assert await kind(1).get() == 1
        assert await kind(2).get() == 2
        assert kind(1) == kind(1)


async def test_a_class_that_handles_attributes_itself_may_have_compute_methods():
    class Guarded(Plain):
        def __setattr__(self, name: str, value: Any) -> None:
            assert name in {"number", "runs"}
            super().__setattr__(name, value)

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"looked for {name}")

        def __bool__(self) -> bool:
            raise AssertionError("must not be asked")

        def __len__(self) -> int:
            raise AssertionError("must not be asked")

    guarded = Guarded(1)
    assert await guarded.get(1) == 2
    assert await guarded.get(1) == 2
    assert guarded.runs == 1


async def test_slots_beside_a_dict_are_fine():
    class Slotted(ComputeService):
        __slots__ = ("number",)

        def __init__(self, number: int) -> None:
            self.number = number

        @compute_method
        async def get(self) -> int:
            return self.number

    service = Slotted(3)
    assert await service.get() == 3
    for double in (copy.copy(service), copy.deepcopy(service)):
        assert double.number == 3
        double.number = 4
        assert await double.get() == 4


@both_kinds
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda service: pickle.loads(pickle.dumps(service))],
    ids=["copied", "deeply copied", "pickled"],
)
async def test_a_copy_starts_without_results(kind: Any, duplicate: Any):
    service = kind(1)
    await service.get(1)
    await service.twice(1)

    double = duplicate(service)
    double.number = 2

    assert await double.get(1) == 3
    assert await service.get(1) == 2
    assert await double.twice(1) == 6
    assert await service.twice(1) == 4
    assert await double.get.capture(1) is not await service.get.capture(1)
    double.get.invalidate(1)
    assert service.twice.existing(1) is not None
    assert service.runs == 1


async def test_a_copy_that_is_used_first_leaves_the_original_alone():
    service = Plain(1)
    await service.get(1)
    double = copy.copy(service)
    double.number = 5
    assert await double.get(1) == 6
    assert await service.get(1) == 2
    assert service.runs == 1


async def test_a_class_with_a_state_of_its_own_is_pickled_by_that():
    class Named(Service):
        def __getstate__(self) -> Any:
            return {"number": self.number}

        def __setstate__(self, state: Any) -> None:
            self.__init__(**state)  # type: ignore[misc]

    service = Named(7)
    await service.get(1)
    double = copy.copy(service)
    assert await double.get(1) == 8
    assert double.runs == 1


@both_kinds
async def test_a_dropped_service_is_freed_with_its_results(kind: Any):
    service = kind(1)
    await service.twice(1)
    computed = await service.get.capture(1)
    gone = [weakref.ref(service), weakref.ref(computed)]

    del service, computed
    gc.collect()

    assert [reference() for reference in gone] == [None, None]


async def test_a_result_that_is_held_keeps_its_service():
    service = Service(1)
    computed = await service.get.capture(1)
    gone = weakref.ref(service)
    del service
    gc.collect()

    computed.invalidate()
    assert (await computed.update()).value == 2

    del computed
    gc.collect()
    assert gone() is None


@both_kinds
async def test_a_service_is_freed_after_errors_and_invalidations(kind: Any):
    class Failing(kind):
        @compute_method
        async def fail(self, key: int) -> int:
            local = [await self.get(key)]
            raise ValueError(local)

    service = Failing(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="1"):
            await service.fail(0)
    service.get.invalidate(0)
    gone = weakref.ref(service)

    del service
    gc.collect()

    assert gone() is None


async def test_a_class_made_on_the_fly_is_freed():
    class Local(ComputeService):
        @compute_method
        async def get(self, key: int) -> int:
            return key

    services = [Local() for _ in range(20)]  # more than a method remembers
    for service in services:
        await service.get(1)
    gone = weakref.ref(Local)

    del Local, services, service
    gc.collect()

    assert gone() is None


async def test_a_service_outlives_a_method_that_is_taken_from_its_class():
    class Local(ComputeService):
        @compute_method
        async def get(self, key: int) -> int:
            return key

    services = [Local() for _ in range(20)]
    for service in services:
        await service.get(1)

    del Local.get
    gc.collect()
    del services, service
    gc.collect()


async def test_a_method_can_be_replaced_on_one_instance(monkeypatch: pytest.MonkeyPatch):
    async def fake(key: int) -> int:
        return -1

    service, other = Service(1), Service(1)
    await service.get(1)
    with monkeypatch.context() as patch:
        patch.setattr(service, "get", fake)
        assert await service.get(1) == -1
        assert await other.get(1) == 2
    assert await service.get(1) == 2
    assert service.runs == 1
