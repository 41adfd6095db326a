"""Commands in the log: by tags and versions, and by nothing that would find a type by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest

from afresh.commands import Command, CommandOf, CommandRegistry, Secret, command
from afresh.commands.command import version_of
from afresh.errors import DefinitionError, LogDecodeError
from afresh.operations import LogCodec


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Line(msgspec.Struct, frozen=True):
    name: str
    price: Decimal
    size: Size = Size.SMALL


@command("shop.place", aliases=("Place", "PlaceOrder"))
class Place(Command[int], frozen=True, kw_only=True):
    user: UUID
    lines: tuple[Line, ...] = ()
    at: datetime | None = None
    within: timedelta = timedelta(0)
    data: bytes = b""
    notes: dict[str, list[int]] = {}


@dataclass(frozen=True, slots=True)
class Rename(CommandOf[None]):
    id: int
    name: str = "new"


@attrs.frozen
class Tag(CommandOf[None]):
    id: int
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SignIn(CommandOf[str]):
    name: str
    password: Secret[str]


@dataclass(frozen=True)
class Odd(CommandOf[None]):
    thing: object = field(default_factory=object)


def doubled(fields: dict[str, Any]) -> dict[str, Any]:
    return {"amount": fields["amount"] * 2}


def with_currency(fields: dict[str, Any]) -> dict[str, Any]:
    return {"price": {"amount": fields["amount"], "currency": "EUR"}}


class Price(msgspec.Struct, frozen=True):
    amount: int
    currency: str


@command("shop.price", version=4, upcasters={1: doubled, 2: with_currency})
class SetPrice(Command[None], frozen=True):
    price: Price
    note: str = ""


@pytest.fixture
def codec() -> LogCodec:
    registry = CommandRegistry()
    registry.add(Place, Rename, Tag, SignIn, SetPrice)
    return LogCodec(registry)


USER = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    "value",
    [
        Place(user=USER),
        Place(
            user=USER,
            lines=(Line("tea", Decimal("1.10")), Line("cake", Decimal(2), Size.LARGE)),
            at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            within=timedelta(seconds=1.5),
            data=b"\x00\xff",
            notes={"a": [1, 2]},
        ),
        Rename(1),
        Rename(2**60, 'quotes " and \x1f separators, ünïcode \N{SNOWMAN}'),
        Tag(1, frozenset({"a", "b"})),
        SetPrice(Price(5, "USD")),
    ],
)
def test_a_command_is_read_as_it_was_written(codec: LogCodec, value: CommandOf[Any]) -> None:
    assert codec.decode(codec.encode(value)) == value


def test_a_command_is_written_with_its_tag(codec: LogCodec) -> None:
    assert codec.encode(Rename(1)) == '{"t":"Rename","d":{"id":1,"name":"new"}}'
    assert codec.encode(Place(user=USER)).startswith('{"t":"shop.place","d":{"user":"12345678-')


@pytest.mark.parametrize("tag", ["Place", "PlaceOrder", "shop.place"])
def test_earlier_names_are_read(codec: LogCodec, tag: str) -> None:
    text = codec.encode(Place(user=USER)).replace("shop.place", tag)
    assert codec.decode(text) == Place(user=USER)


def test_fields_that_are_gone_are_left_out_and_new_ones_take_their_defaults(
    codec: LogCodec,
) -> None:
    assert codec.decode('{"t":"Rename","d":{"id":1,"old":[{}]},"x":1}') == Rename(1)


def test_a_secret_is_written_bare_and_shown_masked(codec: LogCodec) -> None:
    text = codec.encode(SignIn("ann", Secret("tea")))
    assert '"tea"' in text
    found = codec.decode(text)
    assert found == SignIn("ann", Secret("tea"))
    assert "tea" not in repr(found)


def test_the_record_of_a_command_has_no_secrets(codec: LogCodec) -> None:
    text = codec.record(SignIn("ann", Secret("tea")))
    assert text == '{"t":"SignIn","d":{"name":"ann","password":"***"}}'
    assert codec.record(Rename(1)) == codec.encode(Rename(1))


# -- versions


def test_the_version_is_written_from_the_second_on(codec: LogCodec) -> None:
    assert codec.encode(SetPrice(Price(1, "EUR"))).endswith('},"v":4}')
    assert '"v"' not in codec.encode(Rename(1))
    assert (version_of(SetPrice), version_of(Rename)) == (4, 1)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ('{"t":"shop.price","d":{"amount":1}}', 2),
        ('{"t":"shop.price","d":{"amount":1},"v":1}', 2),
        ('{"v":2,"t":"shop.price","d":{"amount":1}}', 1),
        ('{"t":"shop.price","d":{"price":{"amount":1,"currency":"EUR"}},"v":3}', 1),
    ],
)
def test_fields_of_an_earlier_version_go_through_the_upcasters(
    codec: LogCodec, text: str, amount: int
) -> None:
    assert codec.decode(text) == SetPrice(Price(amount, "EUR"))


def test_a_version_of_the_future_is_not_guessed_at(codec: LogCodec) -> None:
    with pytest.raises(
        LogDecodeError, match="version 5 stands in the log, and 4 is the latest"
    ) as e:
        codec.decode('{"t":"shop.price","d":{"price":{"amount":1,"currency":"EUR"}},"v":5}')
    assert e.value.tag == "shop.price"


def test_an_upcaster_that_fails_makes_the_command_unreadable(codec: LogCodec) -> None:
    with pytest.raises(LogDecodeError, match="does not fit SetPrice"):
        codec.decode('{"t":"shop.price","d":{"sum":1}}')
    with pytest.raises(LogDecodeError, match="does not fit SetPrice"):
        codec.decode('{"t":"shop.price","d":[]}')


@pytest.mark.parametrize(
    ("version", "upcasters"), [(0, {}), (1, {1: doubled}), (2, {2: doubled}), (2, {0: doubled})]
)
def test_upcasters_are_for_earlier_versions(version: int, upcasters: Any) -> None:
    with pytest.raises(DefinitionError, match="versions count from 1"):
        command("tag", version=version, upcasters=upcasters)


def test_subclasses_have_neither_the_tag_nor_the_version(codec: LogCodec) -> None:
    class Other(SetPrice, frozen=True):
        pass

    codec.registry.add(Other)
    assert version_of(Other) == 1
    assert codec.encode(Other(Price(1, "EUR"))).startswith('{"t":"Other"')


# -- what can't be written or read


def test_a_type_that_is_not_registered_is_not_written(codec: LogCodec) -> None:
    class Special(Rename):
        pass

    with pytest.raises(DefinitionError, match="does not know it: add a service that handles it"):
        codec.encode(Special(1))


def test_a_type_that_can_t_be_written_is_refused(codec: LogCodec) -> None:
    codec.registry.add(Odd)
    with pytest.raises(DefinitionError, match=r"Odd can't be written: .*object can't travel"):
        codec.encode(Odd())


def test_a_command_that_is_too_long_is_refused() -> None:
    registry = CommandRegistry()
    registry.add(Rename)
    codec = LogCodec(registry, max_size=100)
    assert codec.decode(codec.encode(Rename(1, "x" * 63))) == Rename(1, "x" * 63)
    with pytest.raises(ValueError, match="takes 101 bytes in the log, where 100 are allowed"):
        codec.encode(Rename(1, "x" * 64))
    with pytest.raises(ValueError, match="Rename takes"):
        codec.encode(Rename(1, "ü" * 40))


def test_a_quarter_of_a_megabyte_is_allowed(codec: LogCodec) -> None:
    assert codec.encode(Rename(1, "x" * (256 * 1024 - 100)))
    with pytest.raises(ValueError, match="where 262,144 are allowed"):
        codec.encode(Rename(1, "x" * 256 * 1024))


@pytest.mark.parametrize(
    "tag", ["Unknown", "builtins.object", "tests.operations.test_codec:Rename", ""]
)
def test_an_unknown_tag_is_not_looked_for_anywhere(codec: LogCodec, tag: str) -> None:
    with pytest.raises(LogDecodeError, match="no type of commands here has that tag") as raised:
        codec.decode(f'{{"t":"{tag}","d":{{}}}}')
    assert raised.value.tag == tag


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "{}", "1", '"Rename"', "{", '{"t":"Rename"}', '{"d":{}}', "\x00"),
        *('{"t":1,"d":{}}', '{"t":"Rename","d":{"id":1}', '{"t":"Rename","d":{"id":1},"v":"1"}'),
        '{"t":"Rename","d":}',
    ],
)
def test_garbage_is_refused(codec: LogCodec, text: str) -> None:
    with pytest.raises(LogDecodeError, match="What stands in the log is no command"):
        codec.decode(text)


@pytest.mark.parametrize(
    "fields", ["null", "[]", "{}", '{"id":"x"}', '{"id":1.5}', '{"id":1,"name":null}', "1"]
)
def test_fields_that_do_not_fit_are_refused(codec: LogCodec, fields: str) -> None:
    with pytest.raises(LogDecodeError, match="A 'Rename' in the log does not fit Rename") as raised:
        codec.decode(f'{{"t":"Rename","d":{fields}}}')
    assert raised.value.tag == "Rename"
