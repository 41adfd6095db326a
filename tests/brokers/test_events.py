"""Names, versions and upcasters of events; old and new versions of a service side by side."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from afresh.brokers import EventTypes, OutgoingMessage, event, event_type_of, json_schemas
from afresh.brokers.envelope import STRUCTURED
from afresh.errors import DefinitionError, EnvelopeError

from .shop import OrderPlaced, world


@event("shop.paid")
class PaidBefore(msgspec.Struct, frozen=True):
    order_id: int
    amount: int  # in whole units of money


def in_cents(fields: dict[str, Any]) -> dict[str, Any]:
    return {"order_id": fields["order_id"], "cents": 100 * fields["amount"]}


@event("shop.paid", version=2, upcasters={1: in_cents})
class Paid(msgspec.Struct, frozen=True):
    order_id: int
    cents: int
    note: str = ""


def test_a_class_without_a_name_has_its_own() -> None:
    class Plain(msgspec.Struct):
        pass

    kind = event_type_of(Plain)
    assert (kind.name, kind.type, kind.channel) == ("Plain", "Plain.v1", "Plain")


def test_the_channel_is_the_domain_unless_another_is_named() -> None:
    @event("shop.billing.paid")
    @dataclass(frozen=True)
    class Ours:
        cents: int

    @event("paid", destination="ledger")
    @dataclass(frozen=True)
    class Theirs:
        cents: int

    assert event_type_of(Ours).channel == "shop.billing"
    assert event_type_of(Theirs).channel == "ledger"


def test_a_new_service_reads_what_an_old_one_has_published() -> None:
    types = EventTypes()
    types.add(Paid)
    written = event_type_of(PaidBefore).encode(PaidBefore(7, 3))
    found = types.find("shop.paid.v1")
    assert found is not None
    kind, version = found
    assert kind.decode(written, version) == Paid(7, 300)


def test_an_old_service_refuses_a_version_that_it_can_not_know() -> None:
    types = EventTypes()
    types.add(PaidBefore)
    found = types.find("shop.paid.v2")
    assert found is not None
    kind, version = found
    with pytest.raises(EnvelopeError, match=r"v2 is newer than version 1.*update this service"):
        kind.decode(b'{"order_id": 7, "amount": 300}', version)  # fits, but is in cents


def test_fields_that_are_not_known_are_left_out_and_missing_ones_take_their_defaults() -> None:
    kind = event_type_of(Paid)
    data = json.dumps({"order_id": 1, "cents": 2, "new": {"deep": [1]}}).encode()
    assert kind.decode(data, 2) == Paid(1, 2, "")


def test_a_version_without_an_upcaster_is_refused_with_what_to_do() -> None:
    @event("shop.lost", version=3)
    class Lost(msgspec.Struct):
        pass

    with pytest.raises(EnvelopeError, match="upcaster from 1"):
        event_type_of(Lost).decode(b"{}", 1)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"order_id": "x", "cents": 1}', b"\xff"])
def test_data_that_does_not_fit_is_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        event_type_of(Paid).decode(data, 2)


def test_two_classes_of_one_name_are_refused() -> None:
    types = EventTypes()
    types.add(Paid)
    with pytest.raises(DefinitionError, match=r"both called 'shop\.paid'"):
        types.add(PaidBefore)
    assert len(types) == 1


def test_a_type_is_found_by_an_earlier_name_and_without_a_version() -> None:
    @event("shop.moved", aliases=("old.moved",))
    class Moved(msgspec.Struct):
        pass

    types = EventTypes()
    types.add(Moved)
    assert types.find("old.moved.v1") == (event_type_of(Moved), 1)
    assert types.find("shop.moved") == (event_type_of(Moved), 1)
    assert types.find("shop.other.v1") is None


@pytest.mark.parametrize("name", ["", "shop placed", ".x", "shop..x", "ä"])
def test_a_name_that_can_not_be_one_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError):
        event(name)


def test_versions_count_from_one() -> None:
    with pytest.raises(DefinitionError):
        event("shop.x", version=0)


def test_schemas_tell_readers_what_to_hold_us_to() -> None:
    schemas = json_schemas(Paid, PaidBefore)
    assert set(schemas) == {"shop.paid.v2", "shop.paid.v1"}
    assert list(schemas["shop.paid.v1"]["$defs"]) == ["PaidBefore"]
    definition = schemas["shop.paid.v2"]["$defs"]["Paid"]
    assert definition["required"] == ["order_id", "cents"]
    assert definition["properties"]["cents"] == {"type": "integer"}


async def test_an_event_in_one_piece_and_with_more_fields_is_handled_like_any_other() -> None:
    async with world() as w:
        fields = {
            "specversion": "1.0",
            "id": "s1",
            "source": "/elsewhere",
            "type": "tests.order_placed.v1",
            "subject": "u1",
            "data": {"order_id": 7, "user_id": "u1", "note": "whole", "later": {"deep": [1]}},
        }
        body = json.dumps(fields).encode()
        message = OutgoingMessage("s1", "tests", "", body, f"{STRUCTURED}; charset=utf-8")
        await w.shop.broker.transport.publish([message, message])
        await w.settled(1)
        assert w.service.handed[0] == OrderPlaced(7, "u1", "whole")
        async with asyncio.timeout(10):
            while w.notes.health()["broker"]["subscriptions"][0]["duplicate"] < 1:
                await asyncio.sleep(0.01)
        assert await w.service.all() == ["whole"]
