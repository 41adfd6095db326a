"""Which calls are the same call: spellings, types, and arguments that can't be compared."""

import asyncio
import enum
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import pytest

from afresh import Computed, ComputeService, compute_function, compute_method


class Recorder(ComputeService):
    """A method of each shape; a result is what its body was given."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    @compute_method
    async def one(self, key: Any) -> Any:
        return self._record(key)

    @compute_method
    async def none(self) -> Any:
        return self._record("nothing")

    @compute_method
    async def two(self, a: Any, b: Any = 2) -> Any:
        return self._record((a, b))

    @compute_method
    async def positional(self, a: Any, b: Any = 2, /) -> Any:
        return self._record((a, b))

    @compute_method
    async def mixed(self, a: Any, /, b: Any, *, c: Any = 3) -> Any:
        return self._record((a, b, c))

    @compute_method
    async def keywords(self, *, a: Any, b: Any = 2) -> Any:
        return self._record((a, b))

    @compute_method
    async def rest(self, a: Any, *rest: Any) -> Any:
        return self._record((a, *rest))

    @compute_method
    async def everything(self, a: Any = 1, *rest: Any, c: Any = 3, **named: Any) -> Any:
        return self._record((a, rest, c, tuple(named.items())))

    def _record(self, given: Any) -> Any:
        self.runs.append(given)
        return given


SPELLINGS: dict[str, list[Callable[[Recorder], Any]]] = {
    "one": [lambda r: r.one(1), lambda r: r.one(key=1)],
    "two": [
        lambda r: r.two(1),
        lambda r: r.two(1, 2),
        lambda r: r.two(1, b=2),
        lambda r: r.two(a=1),
        lambda r: r.two(b=2, a=1),
    ],
    "positional": [lambda r: r.positional(1), lambda r: r.positional(1, 2)],
    "mixed": [
        lambda r: r.mixed(1, 2),
        lambda r: r.mixed(1, b=2),
        lambda r: r.mixed(1, 2, c=3),
        lambda r: r.mixed(1, c=3, b=2),
    ],
    "keywords": [
        lambda r: r.keywords(a=1),
        lambda r: r.keywords(a=1, b=2),
        lambda r: r.keywords(b=2, a=1),
    ],
    "rest": [lambda r: r.rest(1), lambda r: r.rest(1, *())],
    "everything": [
        lambda r: r.everything(1, 2, x=1, y=2),
        lambda r: r.everything(1, 2, y=2, x=1),
        lambda r: r.everything(1, 2, y=2, x=1, c=3),
    ],
}


@pytest.mark.parametrize("name", SPELLINGS)
async def test_all_spellings_of_a_call_share_one_result(name: str):
    recorder = Recorder()

    results = [await call(recorder) for call in SPELLINGS[name]]

    assert len(recorder.runs) == 1
    assert set(results) == set(recorder.runs)


@pytest.mark.parametrize("name", SPELLINGS)
async def test_the_first_spelling_does_not_matter(name: str):
    for call in SPELLINGS[name]:
        recorder = Recorder()
        first = await call(recorder)
        for other in SPELLINGS[name]:
            assert await other(recorder) == first
        assert len(recorder.runs) == 1


async def test_all_that_a_method_carries_knows_the_same_spellings():
    recorder = Recorder()
    computed = await recorder.two.capture(b=2, a=1)

    assert recorder.two.existing(1) is computed
    assert recorder.two.existing(a=1, b=2) is computed
    assert await recorder.two.capture(1, b=2) is computed
    assert recorder.two.invalidate(1, 2)
    assert computed.is_invalidated


async def test_calls_with_different_arguments_are_different_in_every_shape():
    recorder = Recorder()
    calls: list[Callable[[], Any]] = [
        lambda: recorder.two(1, 3),
        lambda: recorder.two(3, 1),
        lambda: recorder.mixed(1, 2, c=4),
        lambda: recorder.mixed(1, 3),
        lambda: recorder.keywords(a=1, b=3),
        lambda: recorder.rest(1, 2),
        lambda: recorder.rest(1, 2, 3),
        lambda: recorder.rest(1, (2, 3)),
        lambda: recorder.everything(1, 2),
        lambda: recorder.everything(1, c=2),
        lambda: recorder.everything(1, x=2),
        lambda: recorder.everything(1, y=2),
        lambda: recorder.everything(x=1),
    ]
    for call in calls:
        await call()
        await call()
    assert len(recorder.runs) == len(calls)


async def test_a_method_without_arguments_has_one_result():
    recorder = Recorder()
    await recorder.none()
    await recorder.none()
    assert recorder.runs == ["nothing"]


async def test_a_body_gets_its_arguments_as_they_were_passed():
    recorder = Recorder()
    assert await recorder.everything(1, 2, 3, c=4, x=5) == (1, (2, 3), 4, (("x", 5),))
    assert await recorder.mixed(1, 2, c=4) == (1, 2, 4)
    assert await recorder.keywords(a=1) == (1, 2)


MISFITS = [
    (lambda r: r.two(), "two() missing 1 required positional argument: 'a'"),
    (lambda r: r.two(1, 2, 3), "two() takes from 1 to 2 positional arguments but 3 were given"),
    (lambda r: r.two(1, c=3), "two() got an unexpected keyword argument 'c'"),
    (lambda r: r.two(1, a=1), "two() got multiple values for argument 'a'"),
    (lambda r: r.none(1), "none() takes 0 positional arguments but 1 was given"),
    (lambda r: r.keywords(), "keywords() missing 1 required keyword-only argument: 'a'"),
    (lambda r: r.one.invalidate(), "one() missing 1 required positional argument: 'key'"),
    (lambda r: r.one.existing(1, 2), "one() takes 1 positional argument but 2 were given"),
]


@pytest.mark.parametrize(("call", "words"), MISFITS, ids=[words for _, words in MISFITS])
def test_arguments_that_do_not_fit_are_refused_at_the_call(
    call: Callable[[Recorder], Any], words: str
):
    with pytest.raises(TypeError) as caught:
        call(Recorder())
    assert str(caught.value) == f"Recorder.{words}"


def test_arguments_that_do_not_fit_a_function_are_refused_at_the_call():
    with pytest.raises(TypeError, match=r"^function\(\) missing 1 required positional argument"):
        function()


@compute_function
async def function(a: int) -> int:
    return a


class Number(int):
    """Equal to the number it is."""


class Text(str):
    """Equal to the text it is."""

    __slots__ = ()


class Color(enum.IntEnum):
    RED = 1


class Size(enum.IntEnum):
    SMALL = 1


class Word(enum.StrEnum):
    ONE = "1"


class Point(NamedTuple):
    x: int
    y: int


class Span(NamedTuple):
    start: int
    end: int


LOOK_ALIKES = {
    "ones": [
        1, True, 1.0, Decimal(1), Decimal("1.0"), Fraction(1), 1 + 0j,
        Number(1), Color.RED, Size.SMALL, "1", Text("1"), Word.ONE, b"1",
    ],
    "zeros": [0, False, 0.0, -0.0, Decimal(0), Decimal("-0"), None, "", b"", (), frozenset()],
    "pairs": [
        (1, 2), (1, 2.0), (True, 2), Point(1, 2), Span(1, 2), (1, (2,)), ((1, 2),), "(1, 2)",
    ],
    "sets": [frozenset({1}), frozenset({1.0}), frozenset({True}), (1,)],
    "nans": [math.nan, Decimal("NaN"), complex(math.nan, 0)],
}  # fmt: skip


@pytest.mark.parametrize("values", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
async def test_values_that_python_calls_equal_do_not_share_a_result(values: list[Any]):
    for order in (values, values[::-1]):
        recorder = Recorder()
        for _, value in itertools.product(range(2), order):
            found = await recorder.one(value)
            assert type(found) is type(value)
            assert repr(found) == repr(value)
        assert len(recorder.runs) == len(values)


@pytest.mark.parametrize("values", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
async def test_among_several_arguments_they_do_not_share_a_result_either(values: list[Any]):
    recorder = Recorder()
    for _, value in itertools.product(range(2), values):
        assert [type(item) for item in await recorder.two(value, value)] == [type(value)] * 2
        assert len(await recorder.rest(0, value)) == 2
        assert len(await recorder.keywords(a=value)) == 2
    assert len(recorder.runs) == 3 * len(values)


async def test_deep_inside_tuples_types_count_as_well():
    recorder = Recorder()
    await recorder.one(("a", (1, (2, frozenset({3})))))
    await recorder.one(("a", (1, (2, frozenset({3.0})))))
    await recorder.one(("a", (1, (2.0, frozenset({3})))))
    await recorder.one(("a", (1, (2, frozenset({3})))))
    assert len(recorder.runs) == 3


async def test_any_nan_finds_the_result_of_another():
    recorder = Recorder()
    for _ in range(3):
        assert math.isnan(await recorder.one(float("nan")))
        assert math.isnan((await recorder.one((float("nan"),)))[0])
    assert len(recorder.runs) == 2


async def test_equal_values_of_one_type_share_a_result():
    recorder = Recorder()
    pairs: list[tuple[Any, Any]] = [
        ("x" * 1000, "x" * 500 + "x" * 500),
        (10**50, 10**25 * 10**25),
        ((1, ("a", None)), (1, ("a", None))),
        (Point(1, 2), Point(1, 2)),
        (Decimal("1.50"), Decimal("1.50")),
        (1.5, 3 / 2),
        (b"bytes", bytes(bytearray(b"bytes"))),
        (frozenset({1, 2}), frozenset({2, 1})),
    ]
    for first, second in pairs:
        assert await recorder.one.capture(first) is await recorder.one.capture(second)


async def test_values_with_an_equality_of_their_own_are_compared_by_it():
    @dataclass(frozen=True)
    class Order:
        number: int

    recorder = Recorder()
    for _ in range(2):
        await recorder.one(Order(1))
        await recorder.one(Order(2))
    assert recorder.runs == [Order(1), Order(2)]


async def test_objects_without_an_equality_are_themselves_only():
    class Thing:
        pass

    recorder = Recorder()
    one, other = Thing(), Thing()
    for _ in range(2):
        await recorder.one(one)
        await recorder.one(other)
    assert recorder.runs == [one, other]


async def test_a_missing_list_is_an_argument_like_any_other():
    recorder = Recorder()
    assert await recorder.one.capture(None) is await recorder.one.capture(None)


@dataclass
class Unfrozen:
    number: int


UNHASHABLE: list[Any] = [[1], {"a": 1}, {1}, bytearray(b"1"), Unfrozen(1), ([1],), ("a", {})]


@pytest.mark.parametrize("value", UNHASHABLE, ids=str)
def test_an_argument_that_cannot_be_hashed_is_named_at_the_call(value: Any):
    recorder = Recorder()
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("Recorder.one(): argument 'key'", lambda: recorder.one(value)),
        ("Recorder.one(): argument 'key'", lambda: recorder.one(key=value)),
        ("Recorder.two(): argument 'b'", lambda: recorder.two(1, value)),
        ("Recorder.keywords(): argument 'a'", lambda: recorder.keywords(a=value)),
        ("Recorder.one(): argument 'key'", lambda: recorder.one.invalidate(value)),
        ("Recorder.one(): argument 'key'", lambda: recorder.one.existing(value)),
    ]
    for words, call in calls:
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == (
            f"{words} ({type(value).__name__}) can't be part of a cache key because it is not "
            "hashable; pass a tuple, a frozenset or a frozen dataclass instead, or say how to make "
            "a key of the arguments: @compute_method(key=...)."
        )
        assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize("value", UNHASHABLE, ids=str)
def test_among_collected_arguments_the_one_that_cannot_be_hashed_is_named(value: Any):
    recorder = Recorder()
    with pytest.raises(TypeError, match=r"^Recorder\.rest\(\): argument 'rest\[1\]' \("):
        recorder.rest(1, 2, value)
    with pytest.raises(TypeError, match=r"^Recorder\.everything\(\): argument 'x' \("):
        recorder.everything(1, x=value)


async def test_an_unhashable_argument_is_refused_also_where_others_were_fine():
    recorder = Recorder()
    await recorder.one((1, 2))
    with pytest.raises(TypeError, match="argument 'key'"):
        recorder.one((1, [2]))
    with pytest.raises(TypeError, match="argument 'key'"):
        await recorder.one.capture((1, [2]))


def test_errors_of_a_users_own_hash_or_equality_come_through():
    class Broken:
        def __hash__(self) -> int:
            raise RuntimeError("broken hash")

    with pytest.raises(RuntimeError, match="broken hash"):
        Recorder().one(Broken())


async def test_a_key_function_makes_the_key():
    class Search(ComputeService):
        runs = 0

        @compute_method(key=lambda terms, limit=10: (frozenset(terms), limit))
        async def find(self, terms: list[str], limit: int = 10) -> list[str]:
            self.runs += 1
            return terms[:limit]

    search = Search()

    assert await search.find(["a", "b"]) == ["a", "b"]
    assert await search.find(["b", "a"], 10) == ["a", "b"]
    assert await search.find(limit=10, terms=["a", "b"]) == ["a", "b"]
    assert search.runs == 1
    assert await search.find(["a", "b"], 1) == ["a"]
    assert search.find.invalidate(["b", "a"])
    assert await search.find(["b", "a"]) == ["b", "a"]


async def test_a_key_function_is_called_as_the_method_is():
    class Shapes(ComputeService):
        @compute_method(key=lambda a, *rest, c, **named: (tuple(a), rest, c, len(named)))
        async def get(self, a: list[int], *rest: int, c: int = 3, **named: int) -> int:
            return len(a)

    shapes = Shapes()
    first = await shapes.get.capture([1], 2, x=3)
    assert await shapes.get.capture([1], 2, c=3, y=4) is first
    assert await shapes.get.capture([1], 2, c=3, x=4, y=4) is not first


async def test_types_count_in_what_a_key_function_makes():
    class Halves(ComputeService):
        @compute_method(key=lambda value: value[0])
        async def get(self, value: list[Any]) -> Any:
            return value[0]

    halves = Halves()
    assert [type(await halves.get([value])) for value in (1, True, 1.0)] == [int, bool, float]


def test_a_key_function_must_make_something_hashable():
    class Wrong(ComputeService):
        @compute_method(key=lambda value: [value])
        async def get(self, value: int) -> int:
            return value

    with pytest.raises(TypeError) as caught:
        Wrong().get(1)
    assert str(caught.value) == (
        f"{Wrong.__qualname__}.get(): key= returned [1], which is not hashable."
    )


def test_errors_of_a_key_function_come_through_at_the_call():
    class Wrong(ComputeService):
        @compute_method(key=lambda value: value.missing)
        async def get(self, value: int) -> int:
            return value

    with pytest.raises(AttributeError, match="missing"):
        Wrong().get(1)


async def test_an_ignored_parameter_is_no_part_of_the_key():
    class Fetcher(ComputeService):
        def __init__(self) -> None:
            self.runs: list[float] = []

        @compute_method(ignore=("timeout",))
        async def get(self, key: int, timeout: float = 5.0) -> int:
            self.runs.append(timeout)
            return key

    fetcher = Fetcher()

    computed = await fetcher.get.capture(1, timeout=1.0)
    assert await fetcher.get.capture(1, 2.0) is computed
    assert await fetcher.get.capture(1) is computed
    assert fetcher.runs == [1.0]
    assert await fetcher.get.capture(2) is not computed


async def test_what_is_ignored_is_not_kept_for_the_next_computation():
    class Fetcher(ComputeService):
        def __init__(self) -> None:
            self.runs: list[Any] = []

        @compute_method(ignore=("token",))
        async def get(self, key: int, token: Any = None) -> int:
            self.runs.append(token)
            return key

    fetcher = Fetcher()
    computed: Computed[int] = await fetcher.get.capture(1, ["a list may be ignored"])
    assert computed.args == (1, None)

    computed.invalidate()
    await computed.update()

    assert fetcher.runs == [["a list may be ignored"], None]


async def test_all_parameters_may_be_ignored():
    class Fetcher(ComputeService):
        @compute_method(ignore=("timeout",))
        async def get(self, timeout: float = 5.0) -> float:
            return timeout

    fetcher = Fetcher()
    assert [await fetcher.get(1.0), await fetcher.get(2.0), await fetcher.get()] == [1.0] * 3


async def test_a_renewal_computes_with_the_original_arguments():
    recorder = Recorder()
    first = await recorder.everything.capture(1, 2, 3, c=4, x=5)
    recorder.everything.invalidate(1, 2, 3, c=4, x=5)

    second = await first.update()

    assert second is not first
    assert recorder.runs[0] == recorder.runs[1] == (1, (2, 3), 4, (("x", 5),))


async def test_many_types_of_arguments_can_be_used_at_the_same_time():
    recorder = Recorder()
    values: list[Any] = [1, "a", None, b"b", 2.5, (1,), Point(1, 2), Color.RED, int, recorder]
    for _ in range(2):
        assert await asyncio.gather(*map(recorder.one, values)) == values
        assert await asyncio.gather(*(recorder.two(value, value) for value in values)) == [
            (value, value) for value in values
        ]
    assert len(recorder.runs) == 2 * len(values)
