"""Argument sections: how many values, which types, and what is said when they do not fit."""

import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.errors import DefinitionError, FormatError
from afresh.rpc.formats import NO_DEFAULT, Format, Moment, RecordNaming, get_format


@pytest.fixture(params=["json5np", "json5", "msgpack6", "msgpack6c"])
def wire(request: pytest.FixtureRequest) -> Format:
    return get_format(request.param)


@pytest.fixture(params=RecordNaming)
def naming(request: pytest.FixtureRequest) -> RecordNaming:
    return request.param


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Color(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict, total=False):
    dry_run: bool
    max_age: timedelta


class Line(msgspec.Struct, frozen=True):
    item_id: str
    count: int = 1


@dataclass(frozen=True)
class Order:
    order_id: UUID
    lines: tuple[Line, ...]
    follows: "Order | None" = None


@attrs.frozen
class Customer:
    full_name: str
    orders: list[Order] = attrs.field(factory=list)


class Square(msgspec.Struct, tag=True, frozen=True):
    side_length: float


class Circle(msgspec.Struct, tag=True, frozen=True):
    radius: float


class Range(msgspec.Struct, array_like=True, frozen=True):
    first_item: int
    last_item: int = 9


OrderId = NewType("OrderId", str)

ID = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
ORDER = Order(ID, (Line("tea"), Line("milk", 2)), Order(ID, ()))

VALUES: list[tuple[Any, Any]] = [
    (int, -(2**63)),
    (int, 2**64 - 1),
    (float, 1.5),
    (bool, True),
    (str, "Привет\x1e\x1f\n\0"),
    (bytes, b"\0\1\xff"),
    (bytearray, bytearray(b"\0\1")),
    (Decimal, Decimal("12345678901234567890.10")),
    (UUID, ID),
    (datetime, datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    (datetime, datetime(2024, 1, 2, 3, 4, 5)),  # noqa: DTZ001 - without a zone
    (Moment, Moment.of(datetime(1960, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))),
    (date, date(2024, 1, 2)),
    (time, time(3, 4, 5)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (Size, Size.LARGE),
    (Color, Color.RED),
    (Literal["a", 1], 1),
    (OrderId, OrderId("x")),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
    (int | None, None),
    (int | str | list[int] | None, [1]),
    (Any, {"a": [1, "x", None, 1.5]}),
    (list[int], [1, 2]),
    (tuple[int, str], (1, "x")),
    (tuple[timedelta, ...], (timedelta(1), timedelta(2))),
    (set[str], {"a"}),
    (frozenset[timedelta], frozenset({timedelta(1)})),
    (dict[str, int], {"a": 1}),
    (dict[int, bytes], {1: b"x"}),
    (dict[UUID, list[Line]], {ID: [Line("tea")]}),
    (Point, Point(1, 2.5)),
    (Options, {"dry_run": True, "max_age": timedelta(1)}),
    (Options, {}),
    (Line, Line("tea", 3)),
    (Order, ORDER),
    (Customer, Customer("A. Smith", [ORDER])),
    (list[Square | Circle], [Square(1.0), Circle(2.0)]),
    (Square | None, None),
    (Range, Range(1)),
    (list[Range | None], [Range(1, 2), None]),
    (Order | list[int] | None, ORDER),
]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=str)
def test_values_arrive_as_they_were(wire, naming, annotation, value):
    one = wire.codec((annotation,), naming)
    assert one.decode_one(one.encode_one(value)) == value
    assert type(one.decode_one(one.encode_one(value))) is type(value)
    assert list(one.decode(one.encode([value]))) == [value]
    assert one.encode([value]) == one.encode_one(value)
    some = wire.codec((str, annotation, int), naming)
    assert list(some.decode(some.encode(("a", value, 5)))) == ["a", value, 5]


def test_all_values_together_arrive_as_they_were(wire, naming):
    types, values = zip(*VALUES, strict=True)
    codec = wire.codec(types, naming)
    assert len(types) > 16
    assert list(codec.decode(codec.encode(values))) == list(values)


numbers = st.integers(-(2**63), 2**64 - 1)
trees = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("key", ["json5np", "msgpack6c"])
@given(values=st.lists(trees, max_size=18), naming=st.sampled_from(RecordNaming))
def test_values_of_any_type_arrive_as_they_were(key, values, naming):
    codec = get_format(key).codec((Any,) * len(values), naming)
    assert list(codec.decode(codec.encode(values))) == values


orders = st.recursive(
    st.builds(Order, st.uuids(), st.lists(st.builds(Line, st.text(), numbers)).map(tuple)),
    lambda inner: st.builds(Order, st.uuids(), st.just(()), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("key", ["json5np", "json5", "msgpack6c"])
@given(orders=st.lists(orders, max_size=3), naming=st.sampled_from(RecordNaming))
def test_records_arrive_as_they_were(key, orders, naming):
    codec = get_format(key).codec((list[Order],), naming)
    assert codec.decode_one(codec.encode_one(orders)) == orders


# -- numbers of the other kind


@pytest.mark.parametrize(
    ("annotation", "sent", "received"),
    [
        (float, 5, 5.0),
        (int, 5.0, 5),
        (int, 4294967296.0, 4294967296),
        (int | None, -(2.0**53), -(2**53)),
        (Size, 2.0, Size.LARGE),
        (list[int], [1, 2.0], [1, 2]),
        (tuple[int, str], (2.0, "x"), (2, "x")),
        (tuple[int, ...], (2.0,), (2,)),
        (dict[str, int], {"a": 2.0}, {"a": 2}),
        (int | str, 2.0, 2),
        (int | float, 2.0, 2.0),
        (Range, [1, 2.0], Range(1, 2)),
        (Line, {"item_id": "tea", "count": 2.0}, Line("tea", 2)),
        (Annotated[int, msgspec.Meta(ge=1)], 2.0, 2),
        (Point, [2.0, 3], Point(2, 3.0)),
        (dict[str, float] | list[int], [2.0], [2]),
    ],
    ids=str,
)
def test_integers_and_floats_stand_in_for_each_other(wire, naming, annotation, sent, received):
    section = wire.codec((Any,)).encode_one(sent)
    codec = wire.codec((annotation,), naming)
    assert codec.decode_one(section) == received
    assert type(codec.decode_one(section)) is type(received)


@pytest.mark.parametrize("sent", [5.5, float(2**65), "5", True, None, [5], {"a": 1}])
def test_what_is_no_integer_is_refused(wire, naming, sent):
    section = wire.codec((Any,)).encode_one(sent)
    with pytest.raises(FormatError, match=r"Value 1 of 1 can't be read: Expected `int`.*it is int"):
        wire.codec((int,), naming).decode_one(section)


def test_bounds_hold_for_numbers_of_the_other_kind_too(wire):
    codec = wire.codec((Annotated[int, msgspec.Meta(ge=1)],))
    with pytest.raises(FormatError, match=">= 1"):
        codec.decode_one(wire.codec((Any,)).encode_one(0.0))


def test_keys_of_objects_may_stand_for_numbers(wire, naming):
    section = wire.codec((Any,)).encode_one({"1": "x"})
    assert wire.codec((dict[int, str],), naming).decode_one(section) == {1: "x"}


# -- missing values and values in surplus


def test_a_method_without_a_result_returns_nothing(wire, naming):
    codec = wire.codec((None,), naming)
    nothing = codec.encode_one(None)
    assert nothing == (b"{}" if wire.is_text else b"\xc0")
    for section in (nothing, b"", b"null", b"{}", b"\xc0"):
        assert codec.decode_one(section) is None


def test_a_method_without_parameters_ignores_what_comes(wire, naming):
    codec = wire.codec((), naming)
    assert codec.encode(()) == b""
    assert list(codec.decode(b"")) == []
    assert list(codec.decode(b"\x01\x02")) == []


def test_values_in_surplus_are_left_out(wire, naming):
    for types in ((int,), (int, str), (int, timedelta)):
        value = (1, "x") if types[-1] is str else (1, timedelta(1))
        values = value[: len(types)]
        section = wire.codec((*types, dict[str, int], str), naming).encode(
            (*values, {"a": 1}, "more")
        )
        assert list(wire.codec(types, naming).decode(section)) == list(values)


def test_values_that_are_missing_at_the_end_are_their_defaults(wire, naming):
    defaults = (NO_DEFAULT, "none", timedelta(5))
    codec = wire.codec((int, str, timedelta), naming, defaults)
    assert list(codec.decode(wire.codec((int,)).encode((1,)))) == [1, "none", timedelta(5)]
    assert list(codec.decode(wire.codec((int, str)).encode((1, "a")))) == [1, "a", timedelta(5)]
    with pytest.raises(FormatError, match=r"Value 1 of 3 can't be read"):
        codec.decode(b"")


def test_values_that_are_missing_at_the_end_are_none_where_the_type_allows(wire, naming):
    codec = wire.codec((int | None, Any), naming)
    assert list(codec.decode(b"")) == [None, None]
    assert wire.codec((int | None,), naming).decode_one(b"") is None
    with pytest.raises(FormatError, match="Expected `int`, got `null`"):
        wire.codec((int,), naming).decode_one(b"")


def test_null_stands_for_the_default_where_the_type_has_no_none(wire, naming):
    # That is how JavaScript's undefined comes.
    section = wire.codec((Any, Any)).encode((None, 5))
    codec = wire.codec((int, int), naming, (3, NO_DEFAULT))
    assert list(codec.decode(section)) == [3, 5]
    codec = wire.codec((int | None, int), naming, (3, NO_DEFAULT))
    assert list(codec.decode(section)) == [None, 5]


def test_empty_texts_are_missing_values():
    codec = get_format("json5np").codec((int, str | None, int), defaults=(1, "x", NO_DEFAULT))
    assert list(codec.decode(b"\x1f\x1f5")) == [1, "x", 5]
    assert list(codec.decode(b'2\x1f"a"\x1f5')) == [2, "a", 5]


def test_long_sections_with_too_few_or_too_many_values_are_not_searched():
    codec = get_format("msgpack6").codec((bytes, int | None))
    assert list(codec.decode(get_format("msgpack6").codec((bytes,)).encode_one(b"x"))) == [
        b"x",
        None,
    ]
    with pytest.raises(FormatError, match="truncated"):
        codec.decode(get_format("msgpack6").codec((bytes,)).encode_one(bytes(1 << 20)))


def test_every_kind_of_value_can_be_skipped():
    binary = get_format("msgpack6")
    sample = [
        *(None, True, False, 5, -5, 200, -200, 60_000, -60_000, 2**31, -(2**31), 2**63, -(2**63)),
        *(1.5, "x", "x" * 40, "x" * 300, "x" * 70_000, b"x", b"x" * 300, b"x" * 70_000),
        *([1, [2]], list(range(20)), list(range(70_000)), {"a": {"b": 1}}),
        *({str(n): n for n in range(20)}, {str(n): n for n in range(70_000)}),
        *(msgspec.msgpack.Ext(5, bytes(size)) for size in (1, 2, 4, 8, 16, 3, 300, 70_000)),
    ]
    for value in sample:
        section = binary.codec((Any, int)).encode((value, 7))
        # The missing third value makes that the section is taken apart.
        assert list(binary.codec((Any, int, int | None)).decode(section)) == [value, 7, None]


# -- errors


class Unknown:
    pass


@pytest.mark.parametrize(
    "value", [Unknown(), {(1, 2): Unknown()}, [Unknown()], {"a": Unknown()}, "\ud800", object()]
)
def test_what_cannot_travel_is_named(wire, naming, value):
    with pytest.raises(FormatError, match="A value can't be written in"):
        wire.codec((Any,), naming).encode_one(value)
    with pytest.raises(FormatError, match="A value can't be written in"):
        wire.codec((Any, int), naming).encode((value, 1))


def test_the_class_of_what_cannot_travel_is_named(wire, naming):
    with pytest.raises(FormatError, match=r"Unknown can't travel; make it a msgspec\.Struct"):
        wire.codec((Any,), naming).encode_one([Unknown()])


def test_values_that_hold_themselves_are_refused(wire, naming):
    value: list[Any] = []
    value.append(value)
    for annotation in (Any, list[Any], list[Line]):
        with pytest.raises(FormatError, match="can't be written"):
            wire.codec((annotation,), naming).encode_one(value)


def test_a_class_that_is_no_record_cannot_be_read(wire, naming):
    with pytest.raises(FormatError, match="Unknown can't travel"):
        wire.codec((Unknown,), naming).decode_one(wire.codec((Any,)).encode_one({"a": 1}))


@pytest.mark.parametrize("annotation", ["NoSuchName", 5, Unknown | complex, list[1]])
def test_annotations_that_mean_no_type_are_refused_at_once(wire, annotation):
    with pytest.raises(DefinitionError, match=r"can't travel"):
        wire.codec((int, annotation))


def test_errors_of_records_are_reported(wire, naming):
    section = wire.codec((Any,)).encode_one({"item_id": "x", "count": "many"})
    with pytest.raises(FormatError, match=r"Expected `int`, got `str` - at `\$.count`"):
        wire.codec((Line,), naming).decode_one(section)
    section = wire.codec((Any,)).encode_one({"count": 5})
    with pytest.raises(FormatError, match="missing required field `item_id`"):
        wire.codec((Line,), naming).decode_one(section)


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    even: int

    def __post_init__(self):
        if self.even % 2:
            raise ValueError("must be even")


class Moody(msgspec.Struct):
    even: int

    def __post_init__(self):
        raise LookupError("not today")


def test_what_records_say_of_their_values_counts(wire, naming):
    anything = wire.codec((Any,))
    codec = wire.codec((Strict,), naming)
    assert codec.decode_one(anything.encode_one({"even": 2})) == Strict(2)
    assert codec.decode_one(anything.encode_one({"even": 2.0})) == Strict(2)
    for members, words in (
        ({"even": 3}, "must be even"),
        ({"even": 3.0}, "must be even"),
        ({"even": 2, "odd": 3}, "unknown field"),
    ):
        with pytest.raises(FormatError, match=words):
            codec.decode_one(anything.encode_one(members))
    with pytest.raises(FormatError, match="not today"):
        wire.codec((Moody,), naming).decode_one(anything.encode_one({"even": 2}))


def test_too_many_or_too_few_values_to_write_are_refused(wire, naming):
    codec = wire.codec((timedelta, int), naming)
    for values in ((timedelta(1),), (timedelta(1), 2, 3)):
        with pytest.raises(FormatError, match="can't be written"):
            codec.encode(values)


# -- one codec for equal types


def test_a_codec_is_made_once(wire):
    assert wire.codec((int, list[str])) is wire.codec([int, list[str]])
    assert wire.codec((int,)) is not wire.codec((int,), RecordNaming.DOTNET)
    assert wire.codec((int,)) is not wire.codec((int,), defaults=(5,))
    assert wire.codec((int,), defaults=(5,)) is wire.codec((int,), defaults=(5,))
    assert wire.codec((int,)).types == (int,)


def test_annotations_that_cannot_be_hashed_have_codecs_too(wire):
    codec = wire.codec((Annotated[int, ["a list"]],))
    assert codec.decode_one(codec.encode_one(5)) == 5
