"""What fields are called on the wire, and which spellings of a record are understood."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from afresh.errors import FormatError
from afresh.rpc.exceptions import ExceptionInfo
from afresh.rpc.formats import Format, Option, RecordNaming, Result, VersionSet, get_format

T = TypeVar("T")


class Line(msgspec.Struct):
    item_id: str
    unit_price: float = 0.0


@dataclass
class Order:
    user_id: int
    lines: list[Line]
    note: str | None = None


@attrs.define
class Customer:
    full_name: str
    last_order: Order | None = None


class Options(TypedDict):
    dry_run: bool


class Place(NamedTuple):
    city_name: str
    post_code: str


class Page(msgspec.Struct, Generic[T]):
    page_items: list[T]


class Renamed(msgspec.Struct):
    item_id: int = msgspec.field(name="ID")
    other_field: int = 0


class Numbered(msgspec.Struct, array_like=True):
    first_item: int
    second_item: str = "b"
    third_items: list[int] = msgspec.field(default_factory=list)


class Square(msgspec.Struct, tag_field="kind", tag="square"):
    side_length: int


class Circle(msgspec.Struct, tag_field="kind", tag="circle"):
    circle_radius: int


class NumberedSquare(msgspec.Struct, tag_field="kind", tag="square", array_like=True):
    side_length: int


class Sparse(msgspec.Struct):
    present_field: int
    absent_field: int | msgspec.UnsetType = msgspec.UNSET


class Tree(msgspec.Struct):
    node_name: str
    sub_trees: "list[Tree]" = []


SAMPLES: list[tuple[Any, Any, Any, Any, Any]] = [
    (
        Order,
        Order(1, [Line("tea", 2.5)]),
        {"user_id": 1, "lines": [{"item_id": "tea", "unit_price": 2.5}], "note": None},
        {"userId": 1, "lines": [{"itemId": "tea", "unitPrice": 2.5}], "note": None},
        {"UserId": 1, "Lines": [{"ItemId": "tea", "UnitPrice": 2.5}], "Note": None},
    ),
    (
        Customer,
        Customer("A", Order(1, [])),
        {"full_name": "A", "last_order": {"user_id": 1, "lines": [], "note": None}},
        {"fullName": "A", "lastOrder": {"userId": 1, "lines": [], "note": None}},
        {"FullName": "A", "LastOrder": {"UserId": 1, "Lines": [], "Note": None}},
    ),
    (Options, {"dry_run": True}, {"dry_run": True}, {"dryRun": True}, {"DryRun": True}),
    (Place, Place("A", "1"), ["A", "1"], ["A", "1"], ["A", "1"]),
    (
        Page[Line],
        Page([Line("tea")]),
        {"page_items": [{"item_id": "tea", "unit_price": 0.0}]},
        {"pageItems": [{"itemId": "tea", "unitPrice": 0.0}]},
        {"PageItems": [{"ItemId": "tea", "UnitPrice": 0.0}]},
    ),
    (
        Renamed,
        Renamed(5),
        {"ID": 5, "other_field": 0},
        {"ID": 5, "otherField": 0},
        {"ID": 5, "OtherField": 0},
    ),
    (
        Numbered,
        Numbered(1),
        [1, "b", []],
        {"firstItem": 1, "secondItem": "b", "thirdItems": []},
        [1, "b", []],
    ),
    (
        list[Square | Circle],
        [Square(1), Circle(2)],
        [{"kind": "square", "side_length": 1}, {"kind": "circle", "circle_radius": 2}],
        [{"kind": "square", "sideLength": 1}, {"kind": "circle", "circleRadius": 2}],
        [{"kind": "square", "SideLength": 1}, {"kind": "circle", "CircleRadius": 2}],
    ),
    (
        NumberedSquare,
        NumberedSquare(1),
        ["square", 1],
        {"kind": "square", "sideLength": 1},
        ["square", 1],
    ),
    (Sparse, Sparse(1), {"present_field": 1}, {"presentField": 1}, {"PresentField": 1}),
    (
        Tree,
        Tree("a", [Tree("b")]),
        {"node_name": "a", "sub_trees": [{"node_name": "b", "sub_trees": []}]},
        {"nodeName": "a", "subTrees": [{"nodeName": "b", "subTrees": []}]},
        {"NodeName": "a", "SubTrees": [{"NodeName": "b", "SubTrees": []}]},
    ),
    (
        dict[str, Line] | None,
        {"some_key": Line("tea")},
        {"some_key": {"item_id": "tea", "unit_price": 0.0}},
        {"some_key": {"itemId": "tea", "unitPrice": 0.0}},
        {"some_key": {"ItemId": "tea", "UnitPrice": 0.0}},
    ),
]


@pytest.mark.parametrize(("annotation", "value", "python", "text", "binary"), SAMPLES, ids=str)
def test_fields_are_called_as_the_naming_says(annotation, value, python, text, binary):
    for key, naming, expected in (
        ("json5np", RecordNaming.PYTHON, python),
        ("msgpack6", RecordNaming.PYTHON, python),
        ("json5np", RecordNaming.DOTNET, text),
        ("msgpack6", RecordNaming.DOTNET, binary),
    ):
        wire = get_format(key)
        codec = wire.codec((annotation,), naming)
        section = codec.encode_one(value)
        assert wire.codec((Any,)).decode_one(section) == expected
        assert codec.decode_one(section) == value


@pytest.fixture(params=["json5np", "msgpack6c"])
def wire(request: pytest.FixtureRequest) -> Format:
    return get_format(request.param)


@pytest.mark.parametrize(("annotation", "value", "python", "text", "binary"), SAMPLES, ids=str)
def test_dotnet_names_are_read_in_any_spelling(wire, annotation, value, python, text, binary):
    codec = wire.codec((annotation,), RecordNaming.DOTNET)
    anything = wire.codec((Any,))
    for spelling in (python, text, binary):
        assert codec.decode_one(anything.encode_one(spelling)) == value


@pytest.mark.parametrize(
    "spelling",
    [
        {"USERID": 1, "LINES": [{"iTeMiD": "tea"}]},
        {"userid": 1, "lines": [{"Item_Id": "tea", "unknown": 5}], "More": None},
        [1, [["tea"]]],
        [1, [["tea", 0.0, "more"]], None, "more", []],
        [1.0, [{"itemId": "tea"}]],
    ],
    ids=str,
)
def test_dotnet_records_are_read_in_any_case_and_as_arrays(wire, spelling):
    section = wire.codec((Any,)).encode_one(spelling)
    codec = wire.codec((Order,), RecordNaming.DOTNET)
    assert codec.decode_one(section) == Order(1, [Line("tea")])


def test_python_names_are_read_as_they_are_only(wire):
    codec = wire.codec((Line,))
    for spelling in ({"itemId": "tea"}, {"ITEM_ID": "tea"}, ["tea"]):
        with pytest.raises(FormatError):
            codec.decode_one(wire.codec((Any,)).encode_one(spelling))


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ([1, "x", [2.0]], Numbered(1, "x", [2])),
        ([1], Numbered(1)),
        ({"firstItem": 1.0, "THIRDITEMS": [3]}, Numbered(1, "b", [3])),
        ({"secondItem": "x", "first_item": 1}, Numbered(1, "x")),
    ],
    ids=str,
)
def test_numbered_records_are_read_by_name_and_by_number(wire, spelling, value):
    codec = wire.codec((Numbered,), RecordNaming.DOTNET)
    assert codec.decode_one(wire.codec((Any,)).encode_one(spelling)) == value


def test_a_numbered_record_without_its_first_field_is_refused(wire):
    codec = wire.codec((Numbered,), RecordNaming.DOTNET)
    with pytest.raises(FormatError, match="at least length 1"):
        codec.decode_one(wire.codec((Any,)).encode_one({"secondItem": "x"}))


def test_what_does_not_tell_which_record_it_is_is_refused(wire):
    codec = wire.codec((Square | Circle,), RecordNaming.DOTNET)
    for spelling in ({"kind": "line"}, {"sideLength": 1}, [1], 5):
        with pytest.raises(FormatError, match="can't be read"):
            codec.decode_one(wire.codec((Any,)).encode_one(spelling))


def test_exact_names_go_before_those_in_any_case(wire):
    class Close(msgspec.Struct):
        ab: int
        a_b: int

    codec = wire.codec((Close,), RecordNaming.DOTNET)
    assert codec.decode_one(codec.encode_one(Close(1, 2))) == Close(1, 2)


def test_an_object_of_a_subclass_is_written_with_all_its_fields(wire):
    class Gift(Line):
        wrap_paper: str = "red"

    for naming in RecordNaming:
        codec = wire.codec((Line,), naming)
        section = codec.encode_one(Gift("tea"))
        assert len(wire.codec((Any,)).decode_one(section)) == 3
        assert codec.decode_one(section) == Line("tea")


def test_records_among_values_of_any_type_are_named_as_well(wire):
    values = [Line("tea"), {"k": (Order(1, []), timedelta(1))}, {1}, "x", None]
    anything = wire.codec((Any,))
    read = anything.decode_one(wire.codec((Any,), RecordNaming.DOTNET).encode_one(values))
    if wire.is_text:
        line, order, day = "itemId", "userId", "1.00:00:00"
    else:
        line, order, day = "ItemId", "UserId", 864_000_000_000
    assert line in read[0]
    assert order in read[1]["k"][0]
    assert read[1]["k"][1] == day
    assert read[2:] == [[1], "x", None]


def test_other_values_than_declared_are_written_as_they_are(wire):
    # As msgspec does: what arrives is checked by the reader.
    anything = wire.codec((Any,))
    for annotation in (Line, Order | None, timedelta, timedelta | Line, Option[int], Options):
        codec = wire.codec((annotation,), RecordNaming.DOTNET)
        assert anything.decode_one(codec.encode_one(5)) == 5
        assert anything.decode_one(codec.encode_one(None)) is None


# -- well-known types


@pytest.mark.parametrize("naming", RecordNaming)
@pytest.mark.parametrize(
    ("annotation", "spelling", "value"),
    [
        (ExceptionInfo, {"TypeRef": "A", "Message": "b"}, ExceptionInfo("A", "b")),
        (ExceptionInfo, {"typeRef": "A", "message": "b"}, ExceptionInfo("A", "b")),
        (ExceptionInfo, ["A", "b"], ExceptionInfo("A", "b")),
        (Option[int], [], Option()),
        (Option[int], [5], Option.some(5)),
        (Option[int | None], [None], Option.some(None)),
        (Option[int], {"HasValue": True, "ValueOrDefault": 5}, Option.some(5)),
        (Option[int], {"hasValue": False, "valueOrDefault": 0}, Option()),
        (Option[Line], [{"item_id": "tea"}], Option.some(Line("tea"))),
        (Result[int], [5, None], Result(5)),
        (Result[int], [None, {"TypeRef": "A", "Message": ""}], Result(None, ExceptionInfo("A"))),
        (Result[int], {"valueOrDefault": 5, "exceptionInfo": None}, Result(5)),
        (Result[int], {"exceptionInfo": ["A", "b"]}, Result(None, ExceptionInfo("A", "b"))),
        (VersionSet, ["Api=1.0"], VersionSet("Api=1.0")),
        (VersionSet | None, {"value": "Api=1.0"}, VersionSet("Api=1.0")),
        (VersionSet | None, None, None),
    ],
    ids=str,
)
def test_well_known_types_are_read_in_all_their_forms(wire, naming, annotation, spelling, value):
    codec = wire.codec((annotation,), naming)
    assert codec.decode_one(wire.codec((Any,)).encode_one(spelling)) == value
    assert codec.decode_one(codec.encode_one(value)) == value


def test_well_known_types_look_the_same_with_python_names(wire):
    value = Option.some(Result(Line("tea"), ExceptionInfo("A", "b")))
    section = wire.codec((Option[Result[Line]],)).encode_one(value)
    line = {"item_id": "tea", "unit_price": 0.0}
    assert wire.codec((Any,)).decode_one(section) == (
        {
            "hasValue": True,
            "valueOrDefault": {
                "valueOrDefault": line,
                "exceptionInfo": {"typeRef": "A", "message": "b"},
            },
        }
        if wire.is_text
        else [[line, {"TypeRef": "A", "Message": "b"}]]
    )


# -- exact numbers


@pytest.mark.parametrize("naming", RecordNaming)
def test_decimals_keep_their_digits_and_floats_beside_them_stay_floats(wire, naming):
    class Bill(msgspec.Struct):
        amount_due: Decimal
        tax_rate: float
        more_data: Any = None
        tax_or_none: float | None = None

    bill = Bill(Decimal("12345678901234567890.10"), 0.5, [1.5, {"a": 2.5}], 0.25)
    codec = wire.codec((Bill,), naming)
    read = codec.decode_one(codec.encode_one(bill))
    assert read == bill
    assert str(read.amount_due) == "12345678901234567890.10"
    assert type(read.tax_rate) is type(read.more_data[0]) is type(read.tax_or_none) is float
    assert type(read.more_data[1]["a"]) is float


def test_decimals_are_numbers_in_text_and_texts_in_binary_formats():
    value = Decimal("1.50")
    assert get_format("json5").codec((Decimal,)).encode_one(value) == b"1.50"
    assert get_format("msgpack6").codec((Decimal,)).encode_one(value) == b"\xa41.50"
    for number in (b"1.5", b'"1.5"', b"15e-1"):
        assert get_format("json5").codec((Decimal,)).decode_one(number) == Decimal("1.5")
