"""Values of subclasses: told by tags that were registered, and by nothing else."""

import json
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from afresh.errors import DefinitionError, FormatError
from afresh.rpc.formats import Format, Open, RecordNaming, get_format, open_types
from afresh.rpc.formats import register_open_type as register


class Pet(msgspec.Struct):
    name: str


class Dog(Pet):
    tail_length: int = 10


class Puppy(Dog):
    pass


class Cat(Pet, array_like=True):
    lives: int = 9


class Event:
    """A base that is no record itself."""


@dataclass
class Paid(Event):
    order_id: int
    took: timedelta | None = None
    amount: Decimal = Decimal(0)


class Shipped(Event):
    """Not a record, so it can't travel."""


class Box(msgspec.Struct):
    best_pet: Open[Pet]
    other_pets: list[Open[Pet]] = []
    by_name: dict[str, Open[Pet]] = {}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations of this module, which end with each test."""
    monkeypatch.setattr(open_types, "_classes", {})
    monkeypatch.setattr(open_types, "_tags", {})
    register(Pet, {"Samples.Dog, Samples": Dog, "cat": Cat})
    register(Event, {"paid": Paid, "shipped": Shipped})


@pytest.fixture(params=["json5np", "json5", "msgpack6c"])
def wire(request: pytest.FixtureRequest) -> Format:
    return get_format(request.param)


PETS: list[Pet] = [Pet("a"), Dog("b", 5), Cat("c", 7)]


@pytest.mark.parametrize("naming", RecordNaming)
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        *((Open[Pet], pet) for pet in PETS),
        *((Open[Pet] | None, pet) for pet in [*PETS, None]),
        (list[Open[Pet]], PETS),
        (tuple[Open[Pet], ...], tuple(PETS)),
        (tuple[Open[Pet], int], (PETS[1], 5)),
        (dict[str, Open[Pet] | None], {"a": PETS[1], "b": None}),
        (Box, Box(PETS[1], PETS, {"c": PETS[2]})),
        (Open[Event], Paid(5, timedelta(1), Decimal("1.10"))),
        (list[Open[Event]], [Paid(5)]),
    ],
    ids=str,
)
def test_values_of_subclasses_arrive_as_they_were(wire, naming, annotation, value):
    one = wire.codec((annotation,), naming)
    assert one.decode_one(one.encode_one(value)) == value
    some = wire.codec((annotation, int, annotation), naming)
    assert list(some.decode(some.encode((value, 5, value)))) == [value, 5, value]
    items = wire.codec((list[annotation],), naming)
    if wire.is_text:
        joined = b"[" + b",".join([one.encode_item(value)] * 2) + b"]"
    else:
        joined = b"\x92" + one.encode_item(value) * 2
    assert items.decode_one(joined) == [value, value]


def test_a_tag_is_a_member_of_the_value():
    section = get_format("json5").codec((list[Open[Pet]],)).encode_one(PETS)
    assert json.loads(section) == [
        {"name": "a"},
        {"$type": "Samples.Dog, Samples", "name": "b", "tail_length": 5},
        {"$type": "cat", "name": "c", "lives": 7},
    ]


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        (
            "json5",
            [
                b'/* @= */{"name":"a"}',
                b'/* @=Samples.Dog, Samples */{"name":"b","tailLength":5}',
                b"/* @=0 */",
                b'/* @= */[{"$type":"Samples.Dog, Samples","name":"b","tailLength":5}]',
            ],
        ),
        (
            "json5np",
            [
                b'{"name":"a"}',
                b'{"$type":"Samples.Dog, Samples","name":"b","tailLength":5}',
                b"null",
                b'[{"$type":"Samples.Dog, Samples","name":"b","tailLength":5}]',
            ],
        ),
        (
            "msgpack6",
            [
                b"\0\0\x81\xa4Name\xa1a",
                b"\x14\0\xf9\x95Samples.Dog, Samples\x82\xa4Name\xa1b\xaaTailLength\x05",
                b"\1\0",
                b"\0\0\x91\x83\xa5$type\xb4Samples.Dog, Samples\xa4Name\xa1b\xaaTailLength\x05",
            ],
        ),
    ],
)
def test_dotnet_peers_get_a_marker_in_front_where_their_format_has_them(key, sections):
    types = Open[Pet] | None, Open[Pet] | None, Open[Pet] | None, list[Open[Pet]]
    values = PETS[0], PETS[1], None, [PETS[1]]
    codec = get_format(key).codec(types, RecordNaming.DOTNET)
    separator = b"\x1f" if key.startswith("json") else b""
    assert codec.encode(values) == separator.join(sections)
    assert list(codec.decode(separator.join(sections))) == list(values)
    for annotation, value, section in zip(types, values, sections, strict=True):
        codec = get_format(key).codec((annotation,), RecordNaming.DOTNET)
        assert codec.encode_one(value) == section
        assert codec.decode_one(section) == value


def test_markers_in_text_are_read_whatever_the_naming():
    codec = get_format("json5").codec((Open[Pet], int, list[Open[Pet]]))
    section = b'/* @=cat */{"name":"c"}\x1f/* @= */5\x1f/* @=Samples.Pet[], Samples */[]'
    assert list(codec.decode(section)) == [Cat("c"), 5, []]
    assert get_format("json5").codec((int | None,)).decode_one(b"/* @=0 */") is None


def test_peers_that_know_no_markers_may_leave_them_out():
    types = Open[Pet], list[Open[Pet]], Open[Pet] | None
    codec = get_format("msgpack6").codec(types, RecordNaming.DOTNET)
    section = b"\x82\xa5$type\xa3cat\xa4name\xa1c" + b"\x91\x81\xa4Name\xa1a" + b"\xc0"
    assert list(codec.decode(section)) == [Cat("c"), [Pet("a")], None]


def test_a_default_stands_in_for_a_missing_open_value(wire):
    codec = wire.codec((Open[Pet], Open[Pet]), RecordNaming.DOTNET, (PETS[0], PETS[1]))
    only = wire.codec((Open[Pet],), RecordNaming.DOTNET).encode_one(PETS[2])
    assert list(codec.decode(only)) == [PETS[2], PETS[1]]


# -- refusals


@pytest.mark.parametrize(
    "tag", ["nope", "Pet", "builtins.int", "os.system", "", "paid", "x" * 5000]
)
def test_a_tag_that_is_not_registered_for_the_base_is_refused(wire, tag):
    section = wire.codec((Any,)).encode_one({"$type": tag, "name": "x"})
    with pytest.raises(FormatError, match="is not the tag of a kind of Pet here") as caught:
        wire.codec((Open[Pet],)).decode_one(section)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("tag", [5, None, ["cat"], {"a": 1}])
def test_a_tag_that_is_no_text_is_refused(wire, tag):
    section = wire.codec((Any,)).encode_one({"$type": tag})
    with pytest.raises(FormatError):
        wire.codec((Open[Pet],)).decode_one(section)


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("json5", b'/* @=nope */{"name":"x"}'),
        ("json5", b'/* @=paid */{"order_id":1}'),
        ("json5", b'/* @=cat {"name":"x"}'),
        ("json5", b"/* @="),
        ("json5", b"/* @=\xff */1"),
        ("json5", b"/* @= */"),
        ("msgpack6", b"\0"),
        ("msgpack6", b"\0\0"),
        ("msgpack6", b"\x05\0\0\0nope!"),
        ("msgpack6", b"\xff\xff\0\0" + bytes(50)),
        ("msgpack6", b"\x14\0\xf9\x95Samples.Dog, Sample"),
        ("msgpack6", b"\x14\0\xf9\x96Samples.Dog, Samples\x81\xa4Name\xa1b"),
        ("msgpack6", b"\x14\0\xf9\x95Samples.Dog, Samples"),
    ],
)
def test_damaged_and_unknown_markers_are_refused(key, section):
    with pytest.raises(FormatError):
        get_format(key).codec((Open[Pet],), RecordNaming.DOTNET).decode_one(section)


def test_a_subclass_that_is_not_registered_is_refused(wire):
    for naming in RecordNaming:
        with pytest.raises(FormatError, match="Puppy is not registered as a kind of Pet"):
            wire.codec((Open[Pet],), naming).encode_one(Puppy("p"))


def test_a_base_that_is_no_record_needs_a_tag(wire):
    with pytest.raises(FormatError, match="Event"):
        wire.codec((Open[Event],)).encode_one(Event())
    with pytest.raises(FormatError, match="Event can't travel"):
        wire.codec((Open[Event],)).decode_one(wire.codec((Any,)).encode_one({}))


def test_a_kind_that_is_no_record_is_refused(wire):
    with pytest.raises(FormatError, match="Shipped, a kind of Event, is not a record"):
        wire.codec((Open[Event],)).encode_one(Shipped())
    section = wire.codec((Any,)).encode_one({"$type": "shipped"})
    with pytest.raises(FormatError, match="Shipped can't travel"):
        wire.codec((Open[Event],)).decode_one(section)


@pytest.mark.parametrize(
    ("base", "classes", "words"),
    [
        (Pet, {"paid": Paid}, "not a subclass of Pet"),
        (Pet, {"none": None}, "not a subclass of Pet"),
        (Pet, {"cat": Dog}, "registered already"),
        (Pet, {"kitten": Cat}, "registered already"),
        (Pet, {"puppy": Puppy, "pup": Puppy}, "registered already"),
        (Pet, {"": Puppy}, "can't be a tag"),
        (Pet, {"0": Puppy}, "can't be a tag"),
        (Pet, {"a*/b": Puppy}, "can't be a tag"),
    ],
    ids=str,
)
def test_registrations_that_make_no_sense_are_refused(base, classes, words):
    with pytest.raises(DefinitionError, match=words):
        register(base, classes)
    # Nothing of them stays.
    with pytest.raises(FormatError):
        get_format("json5").codec((Open[Pet],)).encode_one(Puppy("p"))


def test_more_classes_may_be_registered_later(wire):
    register(Pet, {"puppy": Puppy, "cat": Cat})
    codec = wire.codec((list[Open[Pet]],))
    assert codec.decode_one(codec.encode_one([Puppy("p"), PETS[1]])) == [Puppy("p"), PETS[1]]


def test_an_open_annotation_is_one_class_and_accepts_what_the_base_does():
    assert Open[Pet] is Open[Pet]
    assert Open[Pet] is not Open[Event]
    assert isinstance(Dog("x"), Open[Pet])
    assert not isinstance(Paid(1), Open[Pet])
    assert repr(Open[Pet]).endswith("Open[Pet]'>")
