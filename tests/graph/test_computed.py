"""A `Computed`: its states, what can be read when, and how it shows itself."""

import asyncio
import copy
import pickle
from typing import Any

import pytest

from afresh import AfreshError, Computed, ComputeService, InvalidStateError, compute_method
from tests.graph.services import Counters, Gated


class Mixed(ComputeService):
    @compute_method(error_delay=5)
    async def divide(self, a: int, b: int = 1) -> float:
        return a / b


async def test_it_is_computing_then_consistent_then_invalidated():
    gated = Gated()
    call = asyncio.ensure_future(gated.get())
    await gated.started.wait()
    computed = gated.get.existing()
    assert computed is not None

    def states() -> tuple[bool, bool, bool]:
        return computed.is_computing, computed.is_consistent, computed.is_invalidated

    assert states() == (True, False, False)
    gated.gate.set()
    await call
    assert states() == (False, True, False)
    computed.invalidate()
    assert states() == (False, False, True)


async def test_nothing_can_be_read_while_it_is_computed():
    gated = Gated()
    call = asyncio.ensure_future(gated.get("a"))
    await gated.started.wait()
    computed = gated.get.existing("a")
    assert computed is not None
    words = r"^<Computed Gated.get\('a'\) #\d+ computing> has no result yet; await the call, or"

    reads: list[Any] = [
        lambda: computed.value,
        lambda: computed.error,
        lambda: computed.output,
        lambda: computed.value_or_none,
        lambda: tuple(computed),
        lambda: computed.use(allow_inconsistent=True),
        lambda: computed.send(None),
    ]
    for read in reads:
        with pytest.raises(InvalidStateError, match=words) as caught:
            read()
        assert isinstance(caught.value, AfreshError)
    with pytest.raises(InvalidStateError, match=words):
        await computed
    assert computed.version > 0
    assert computed.args == ("a",)
    assert computed.invalidation_cause is None

    gated.gate.set()
    await call
    assert computed.value == 0


async def test_a_value_can_be_read_for_ever():
    computed = await Mixed().divide.capture(6, 3)
    for _ in range(2):
        assert computed.value == 2.0
        assert computed.error is None
        assert computed.value_or_none == 2.0
        assert (computed.output.value, computed.output.error) == (2.0, None)
        assert tuple(computed) == (2.0, None)
        assert await computed == 2.0
        computed.invalidate()


async def test_an_error_can_be_read_for_ever():
    computed = await Mixed().divide.capture(6, 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            _ = computed.value
        assert isinstance(computed.error, ZeroDivisionError)
        assert computed.value_or_none is None
        assert computed.output.error is computed.error
        value, error = computed
        assert (value, error) == (None, computed.error)
        with pytest.raises(ZeroDivisionError):
            await computed
        computed.invalidate()


async def test_it_never_changes_its_result():
    counters = Counters()
    first = await counters.get.capture("a")
    counters.set("a", 1)
    second = await counters.get.capture("a")
    assert (first.value, second.value) == (0, 1)
    assert first.version < second.version


async def test_it_knows_its_options_and_what_it_is_a_result_of():
    mixed = Mixed()
    computed = await mixed.divide.capture(6, b=3)
    assert computed.options is mixed.divide.options
    assert computed.options.error_delay == 5
    assert computed.category == "Mixed.divide"
    assert computed.describe() == "Mixed.divide(6, 3)"
    assert computed.args == (6, 3)


async def test_its_category_names_the_class_that_serves():
    class Special(Mixed):
        pass

    computed = await Special().divide.capture(1)
    assert computed.category.endswith("Special.divide")
    assert "~" not in computed.category


async def test_the_hidden_source_of_a_consolidated_result_has_a_marked_category():
    class Consolidating(ComputeService):
        @compute_method(consolidate=0)
        async def get(self) -> int:
            return 1

    computed = await Consolidating().get.capture()
    assert computed.consolidation is not None
    assert computed.consolidation.source.category == "~" + computed.category
    assert (await Mixed().divide.capture(1)).consolidation is None


async def test_it_shows_what_it_is_and_how_it_fares():
    mixed = Mixed()
    computed = await mixed.divide.capture(6, 3)
    assert repr(computed) == f"<Computed Mixed.divide(6, 3) #{computed.version} consistent>"
    computed.invalidate(cause="a test")
    assert repr(computed) == (
        f"<Computed Mixed.divide(6, 3) #{computed.version} invalidated by a test>"
    )
    failed = await mixed.divide.capture(6, 0)
    assert repr(failed) == (
        f"<Computed Mixed.divide(6, 0) #{failed.version} consistent with ZeroDivisionError>"
    )


async def test_it_shows_long_arguments_in_short():
    computed = await Counters().get.capture("x" * 1000)
    assert computed.describe() == f"Counters.get('{'x' * 56}...)"


async def test_it_shows_arguments_that_cannot_show_themselves():
    class Secretive:
        def __repr__(self) -> str:
            raise RuntimeError("no comment")

    computed = await Counters().get.capture(Secretive())
    assert computed.describe() == "Counters.get(<Secretive>)"
    assert "<Secretive>" in repr(computed)


async def test_it_cannot_be_copied_or_pickled():
    computed = await Counters().get.capture("a")
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(
            TypeError,
            match=r"^A Computed can't be pickled or copied: it is a place in this process's graph\."
            r" Take its value\.$",
        ):
            duplicate(computed)


async def test_it_equals_itself_only():
    counters = Counters()
    first, second = await counters.get.capture("a"), await counters.get.capture("b")
    assert first == first
    assert first != second
    assert {first: 1}[first] == 1
    assert len({first, second, first}) == 2


async def test_nothing_else_can_be_put_on_it():
    computed = await Counters().get.capture("a")
    with pytest.raises(AttributeError):
        computed.note = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        computed.value = 1  # type: ignore[misc]


async def test_it_is_generic_for_annotations():
    assert Computed[int].__origin__ is Computed
