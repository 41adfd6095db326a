"""Declarations that can't work are refused when the class is made, in words that say what to do."""

import asyncio
import math
import re
import sys
import textwrap
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from afresh import ComputeService, DefinitionError, compute_function, compute_method
from afresh.graph import ComputedOptions, default_options


def refused(define: Callable[[], object]) -> str:
    """What the DefinitionError says that `define` ends with."""
    with pytest.raises(DefinitionError) as caught:
        define()
    assert isinstance(caught.value, TypeError)
    return str(caught.value).replace(f"{define.__qualname__}.<locals>.", "")


def test_a_method_that_is_not_async_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_method
            def get(self) -> int:
                return 1

    assert refused(define) == (
        "Service.get must be declared with 'async def' to be computed and cached."
    )


def test_a_function_that_is_not_async_is_refused():
    def define() -> None:
        @compute_function
        def rate() -> int:
            return 1

    assert refused(define) == "rate must be declared with 'async def' to be computed and cached."


def test_a_generator_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_method
            def get(self):
                yield 1

    assert "Service.get must be declared with 'async def'" in refused(define)


def test_an_async_generator_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_method
            async def get(self):
                yield 1

    assert refused(define) == (
        "Service.get is an async generator; a compute method returns one value. "
        "Return a tuple instead of yielding."
    )


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_a_method_without_an_instance_is_refused(kind: Any):
    def inside() -> None:
        class Service(ComputeService):
            @compute_method
            @kind
            async def get(self: Any) -> int:
                return 1

    def outside() -> None:
        class Service(ComputeService):
            @kind
            @compute_method
            async def get(self: Any) -> int:
                return 1

    for define in (inside, outside):
        assert refused(define) == (
            f"Service.get: a {kind.__name__} can't be a compute method; its results belong to an "
            "instance. Use a plain async method, or @compute_function outside the class."
        )


def test_a_property_is_refused():
    def inside() -> None:
        class Service(ComputeService):
            @compute_method
            @property
            async def get(self) -> int:
                return 1

    def outside() -> None:
        class Service(ComputeService):
            @property
            @compute_method
            async def get(self) -> int:
                return 1

    for define in (inside, outside):
        assert refused(define).startswith("Service.get: a property can't be a compute method;")


def test_what_is_no_function_is_refused():
    assert "must be declared with 'async def'" in refused(lambda: compute_method(object()))


def test_a_method_without_self_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_method
            async def get() -> int:
                return 1

    assert refused(define) == (
        "Service.get has no 'self'; a compute method belongs to an instance."
    )


def test_a_method_declared_to_return_none_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_method
            async def get(self) -> None:
                pass

    assert refused(define) == (
        "Service.get is declared to return None; a compute method returns what is to be cached. "
        "Return the value, or make it an ordinary method."
    )


def test_so_is_one_whose_annotations_are_texts():
    source = """
        from __future__ import annotations
        from afresh import ComputeService, compute_method

        class Service(ComputeService):
            @compute_method
            async def get(self) -> None:
                pass
    """
    with pytest.raises(DefinitionError, match=r"^Service\.get is declared to return None"):
        exec(textwrap.dedent(source), {})


async def test_a_method_may_return_an_optional_value_or_have_no_annotation():
    class Service(ComputeService):
        @compute_method
        async def optional(self) -> int | None:
            return None

        @compute_method
        async def bare(self):
            return None

    service = Service()
    assert await service.optional() is None
    assert await service.bare() is None


def test_an_unknown_option_is_refused_with_the_one_that_was_probably_meant():
    def define() -> None:
        class Service(ComputeService):
            @compute_method(keepalive=3)
            async def get(self) -> int:
                return 1

    assert refused(define) == (
        "Service.get: there is no option 'keepalive'. Did you mean 'keep_alive'? The options are "
        "keep_alive, auto_invalidate, invalidation_delay, transient_error_delay, error_delay, "
        "consolidate, equals, key, ignore."
    )


def test_an_option_like_no_other_is_refused_with_the_list():
    def define() -> None:
        @compute_function(xyzzy=3)
        async def rate() -> int:
            return 1

    assert refused(define).startswith(
        "rate: there is no option 'xyzzy'. The options are keep_alive,"
    )


TIMES = [
    "keep_alive",
    "auto_invalidate",
    "invalidation_delay",
    "transient_error_delay",
    "error_delay",
    "consolidate",
]


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-1, -0.001, math.nan, -math.inf])
def test_a_time_that_is_negative_or_no_number_is_refused(name: str, value: float):
    def define() -> None:
        class Service(ComputeService):
            @compute_method(**{name: value})
            async def get(self) -> int:
                return 1

    assert refused(define) == (
        f"Service.get: {name}={value!r}: a time in seconds can't be negative or NaN; "
        "use math.inf for never."
    )


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", ["1", True, (1,)])
def test_a_time_of_another_type_is_refused(name: str, value: Any):
    def define() -> None:
        @compute_function(**{name: value})
        async def rate() -> int:
            return 1

    assert refused(define) == f"rate: {name} is a time in seconds, not {value!r}."


@pytest.mark.parametrize("name", TIMES)
def test_zero_whole_numbers_and_infinity_are_times(name: str):
    for value in (0, 1, math.inf):

        class Service(ComputeService):
            @compute_method(**{name: value})
            async def get(self) -> int:
                return 1

        assert getattr(Service().get.options, name) == value


def test_a_comparison_without_a_delay_is_refused():
    def method() -> None:
        class Service(ComputeService):
            @compute_method(equals=lambda old, new: True)
            async def get(self) -> int:
                return 1

    def function() -> None:
        @compute_function(equals=lambda old, new: True)
        async def rate() -> int:
            return 1

    words = (
        ": equals= compares results that are consolidated, and nothing is without a delay; "
        "add consolidate=0 or more."
    )
    assert refused(method) == f"Service.get{words}"
    assert refused(function) == f"rate{words}"


def test_a_comparison_that_is_no_function_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_method(consolidate=1, equals=3)
            async def get(self) -> int:
                return 1

    assert refused(define) == "Service.get: equals=3: a function of two values is needed."


def test_a_comparison_may_rely_on_the_delay_of_what_it_overrides():
    class Contract(ComputeService):
        @compute_method(consolidate=1)
        @abstractmethod
        async def get(self) -> int: ...

    class Service(Contract):
        @compute_method(equals=max)
        async def get(self) -> int:
            return 1

    assert Service().get.options.consolidate == 1
    assert Service().get.options.equals is max


def test_a_key_that_is_no_function_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_method(key="user_id")
            async def get(self, user_id: int) -> int:
                return 1

    assert refused(define) == "Service.get: key='user_id' must be a function of the arguments."


def test_ignored_names_come_in_a_tuple():
    def define() -> None:
        class Service(ComputeService):
            @compute_method(ignore="timeout")
            async def get(self, timeout: int = 1) -> int:
                return 1

    assert refused(define) == ("Service.get: ignore= takes a tuple of names: ignore=('timeout',).")


def test_an_ignored_name_must_be_a_parameter():
    def define() -> None:
        class Service(ComputeService):
            @compute_method(ignore=("time_out",))
            async def get(self, key: int, timeout: int = 1) -> int:
                return 1

    def bare() -> None:
        @compute_function(ignore=("timeout",))
        async def rate() -> int:
            return 1

    assert refused(define) == (
        "Service.get: ignore= names 'time_out', which is no parameter of it; it has key, timeout."
    )
    assert refused(bare).endswith("which is no parameter of it; it has none.")


def test_an_ignored_parameter_needs_a_default():
    def define() -> None:
        class Service(ComputeService):
            @compute_method(ignore=("timeout",))
            async def get(self, timeout: int) -> int:
                return 1

    assert refused(define) == (
        "Service.get: the ignored parameter 'timeout' needs a default value, with which the "
        "result is computed when nobody passes one."
    )


def test_a_compute_function_in_a_service_is_refused():
    def define() -> None:
        class Service(ComputeService):
            @compute_function
            async def get(self) -> int:
                return 1

    assert refused(define) == (
        "Service.get is a @compute_function inside a class; use @compute_method there."
    )


def refused_in_plain_class(define: Callable[[], object]) -> str:
    """Likewise for classes that do not derive from ComputeService: what is found wrong when such a
    class is put together, Python 3.11 wraps into a RuntimeError.
    """
    with pytest.raises((DefinitionError, RuntimeError)) as caught:
        define()
    error: BaseException | None = caught.value
    if not isinstance(error, DefinitionError):
        assert sys.version_info < (3, 12)
        error = error.__cause__
    assert isinstance(error, DefinitionError)
    return str(error).replace(f"{define.__qualname__}.<locals>.", "")


def test_a_compute_function_in_a_plain_class_is_refused():
    def define() -> None:
        class Plain:
            @compute_function
            async def get(self) -> int:
                return 1

    assert refused_in_plain_class(define) == (
        "Plain.get is a @compute_function inside a class; use @compute_method there."
    )


def test_a_class_whose_instances_have_no_room_for_results_is_refused():
    def define() -> None:
        class Plain:
            __slots__ = ("values",)

            @compute_method
            async def get(self) -> int:
                return 1

    assert refused_in_plain_class(define) == (
        "Plain.get: instances of Plain have no __dict__ to keep results in; "
        "add '__dict__' to its __slots__, or remove them."
    )


def test_a_dataclass_with_slots_is_refused():
    def define() -> None:
        @dataclass(slots=True)
        class Plain:
            @compute_method
            async def get(self) -> int:
                return 1

    assert "Plain.get: instances of Plain have no __dict__" in refused_in_plain_class(define)


def test_a_dataclass_with_slots_and_a_service_for_base_has_room_for_results():
    @dataclass(slots=True)
    class Service(ComputeService):
        number: int

        @compute_method
        async def get(self) -> int:
            return self.number

    assert asyncio.run(Service(3).get()) == 3
    assert Service.get.__qualname__ == f"{Service.__qualname__}.get"


def test_an_override_that_is_not_async_is_refused():
    class Base(ComputeService):
        @compute_method
        async def get(self) -> int:
            return 1

    def define() -> None:
        class Service(Base):
            def get(self) -> int:
                return 1

    assert refused(define) == (
        f"Service.get overrides the compute method {Base.__qualname__}.get but is not declared "
        "with 'async def'."
    )


@pytest.mark.parametrize(
    "override",
    [None, 1, property(lambda self: 1), staticmethod(lambda: 1), classmethod(lambda cls: 1)],
    ids=lambda override: type(override).__name__,
)
def test_so_is_an_override_that_is_no_method(override: Any):
    class Base(ComputeService):
        @compute_method
        async def get(self) -> int:
            return 1

    with pytest.raises(DefinitionError, match=r"Service\.get overrides the compute method"):
        type("Service", (Base,), {"get": override})


def test_an_override_that_yields_is_refused_for_that():
    class Base(ComputeService):
        @compute_method
        async def get(self) -> int:
            return 1

    def define() -> None:
        class Service(Base):
            async def get(self):
                yield 1

    assert "Service.get is an async generator" in refused(define)


def test_an_override_declared_to_return_none_is_refused():
    class Base(ComputeService):
        @compute_method
        async def get(self) -> int | None:
            return 1

    def define() -> None:
        class Service(Base):
            async def get(self) -> None:
                return None

    assert "Service.get is declared to return None" in refused(define)


def test_options_are_checked_wherever_they_are_made():
    with pytest.raises(DefinitionError, match=r"^keep_alive=-1: a time in seconds"):
        ComputedOptions(keep_alive=-1)
    with pytest.raises(DefinitionError, match="equals="):
        default_options().replace(equals=max)


def test_what_is_declared_reads_as_what_it_is():
    class Service(ComputeService):
        @compute_method
        async def get(self, key: int) -> int:
            """Get it."""
            return key

    assert Service.get.__doc__ == Service().get.__doc__ == "Get it."
    assert Service.get.__name__ == Service().get.__name__ == "get"
    assert Service.get.__qualname__ == Service().get.__qualname__ == f"{Service.__qualname__}.get"
    assert Service.get.__module__ == Service().get.__module__ == __name__
    assert repr(Service.get) == f"<compute method {Service.__qualname__}.get>"
    assert re.search(r"Service\.get\b", repr(Service().get))
    assert repr(rate) == "<compute function rate>"
    assert (rate.__name__, rate.__qualname__, rate.__module__) == ("rate", "rate", __name__)


@compute_function
async def rate(currency: str, day: int = 0) -> float:
    """The rate."""
    return 1.0
