"""Hosts tell each other over PostgreSQL, Valkey and NATS, whatever happens to their connections."""

from __future__ import annotations

import asyncio
import logging

import pytest

from afresh.testing import FakeClock
from tests.db.watchers.conftest import Place, cleared, until


async def test_a_change_wakes_up_the_readers_of_other_hosts(place: Place):
    here, there = await place.started(), await place.started()
    signal, other_log, other_shard = (
        cleared(there),
        cleared(there, "events"),
        cleared(there, shard="north"),
    )
    here.changed("operations")
    assert await asyncio.wait_for(signal.wait(), 20)
    assert not other_log.is_set
    assert not other_shard.is_set
    here.changed("events", "grüße 'n\"orth'\n")
    here.changed("operations", "north")
    assert await asyncio.wait_for(other_shard.wait(), 20)
    assert not other_log.is_set
    assert there.health()["unreadable"] == 0


async def test_any_name_of_a_shard_arrives(place: Place):
    name = "grüße 'n\"orth'\n\\ \U0001f600 %s $1"
    here, there = await place.started(), await place.started()
    signal = cleared(there, "events", name)
    here.changed("events", name)
    assert await asyncio.wait_for(signal.wait(), 20)


async def test_own_readers_are_woken_up_at_once_and_not_again_by_the_own_message(place: Place):
    here, there = await place.started(), await place.started()
    own, foreign = cleared(here), cleared(there)
    here.changed("operations")
    assert own.is_set
    own.clear()
    assert await asyncio.wait_for(foreign.wait(), 20)
    there.changed("events")  # what comes after it shows that the own message has come by
    await until(lambda: here.health()["received"] == 1)
    assert not own.is_set


async def test_databases_of_different_names_do_not_hear_each_other(place: Place):
    one, other = await place.started(name="one"), await place.started(name="other")
    same = await place.started(name="one")
    stranger, friend = cleared(other), cleared(same)
    one.changed("operations")
    assert await asyncio.wait_for(friend.wait(), 20)
    other.changed("events")
    assert not stranger.is_set
    assert other.health()["received"] == 0


async def test_whoever_has_started_listens(place: Place):
    for _ in range(30):
        here, there = await place.started(), await place.started()
        signal = cleared(there)
        here.changed("operations")
        assert await asyncio.wait_for(signal.wait(), 20)
        await here.aclose()
        await there.aclose()


async def test_a_burst_of_changes_costs_few_messages(place: Place):
    here, there = await place.started(), await place.started()
    signal = cleared(there)
    for _ in range(1_000):
        here.changed("operations")
        here.changed("events")
    await until(lambda: here.health()["sent"] == 1)
    assert await asyncio.wait_for(signal.wait(), 20)
    assert there.health()["received"] == 1


async def test_one_message_is_under_way_and_one_waits(place: Place):
    here, there = await place.started(behind_wire=True), await place.started()
    signal = cleared(there)
    place.wire.clog()
    for _ in range(1_000):
        here.changed("operations")
        await asyncio.sleep(0)
    place.wire.clear()
    assert await asyncio.wait_for(signal.wait(), 20)
    await until(lambda: here.health()["sent"] == 2)
    await asyncio.sleep(0.05)
    assert here.health()["sent"] == 2


async def test_a_list_of_shards_that_is_too_long_means_all_of_them(place: Place):
    here, there = await place.started(), await place.started()
    signal = cleared(there, shard="quite another one")
    for number in range(1_000):
        here.changed("operations", f"shard {number}")
    assert await asyncio.wait_for(signal.wait(), 20)
    await until(lambda: here.health()["sent"] == 1)


async def test_after_each_reconnection_everything_is_read(
    place: Place, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    there = await place.started(behind_wire=True)
    caplog.set_level(logging.INFO, "afresh.db")
    for round_ in range(2):
        signals = [cleared(there), cleared(there, "events"), cleared(there, shard="north")]
        place.wire.cut()
        await until(lambda: not there.health()["connected"])
        assert there.health()["error"]
        assert not any(signal.is_set for signal in signals)
        await clock.advance(11)
        await until(lambda: there.health()["connected"])
        assert all(signal.is_set for signal in signals)
        assert there.health()["error"] is None
        assert there.health()["connections"] == round_ + 2
        await clock.advance(11)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2


async def test_what_changes_without_a_connection_is_told_when_there_is_one(
    place: Place, clock: FakeClock
):
    here, there = await place.started(behind_wire=True), await place.started()
    signal, events = cleared(there), cleared(there, "events")
    await place.wire.unplug()
    await until(lambda: not here.health()["connected"])
    for _ in range(1_000):
        here.changed("operations")
    await clock.advance(1.2)
    await place.wire.plug()
    await clock.advance(11)
    assert await asyncio.wait_for(signal.wait(), 20)
    assert not events.is_set
    assert there.health()["received"] == 1


async def test_what_was_being_sent_when_the_connection_broke_is_sent_again(
    place: Place, clock: FakeClock
):
    here, there = await place.started(behind_wire=True), await place.started()
    signal = cleared(there)
    place.wire.clog()
    here.changed("operations")
    await asyncio.sleep(0.02)
    place.wire.cut()
    place.wire.clear()
    await until(lambda: not here.health()["connected"])
    await clock.advance(11)
    assert await asyncio.wait_for(signal.wait(), 20)


async def test_a_connection_that_went_dead_silently_is_noticed(
    place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    there = await place.started(behind_wire=True)
    place.wire.clog()
    await clock.advance(14)
    await asyncio.sleep(0.05)
    assert there.health()["connected"]
    with monkeypatch.context() as patch:
        patch.setattr("afresh.db.watchers.channel._PATIENCE", 0.05)
        await clock.advance(2)
        await until(lambda: not there.health()["connected"])
    assert "does not answer" in str(there.health()["error"])
    place.wire.cut()
    place.wire.clear()
    await clock.advance(11)
    await until(lambda: there.health()["connected"])


async def test_a_connection_that_is_idle_is_kept(place: Place, clock: FakeClock):
    here, there = await place.started(), await place.started()
    for _ in range(5):
        await clock.advance(16)
        await asyncio.sleep(0.02)
    assert there.health()["connections"] == 1
    signal = cleared(there)
    here.changed("operations")
    assert await asyncio.wait_for(signal.wait(), 20)


async def test_a_host_starts_without_the_server_and_listens_once_it_is_there(
    place: Place, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    await place.wire.unplug()
    there = place.make(behind_wire=True)
    await asyncio.wait_for(there.start(), 20)
    assert there.health()["connected"] is False
    assert there.health()["error"]
    for _ in range(5):
        await clock.advance(11)
        await asyncio.sleep(0.01)
    assert [record.levelname for record in caplog.records if record.name == "afresh.db"] == [
        "WARNING"
    ]
    assert "polling" in caplog.text
    signal = cleared(there)
    await place.wire.plug()
    await clock.advance(11)
    assert await asyncio.wait_for(signal.wait(), 20)
    here = await place.started()
    signal.clear()
    here.changed("operations")
    assert await asyncio.wait_for(signal.wait(), 20)


async def test_a_server_that_accepts_and_says_nothing_does_not_keep_a_host_from_starting(
    place: Place, clock: FakeClock
):
    place.wire.clog()
    there = place.make(behind_wire=True)
    starting = asyncio.create_task(there.start())
    await until(lambda: place.wire.connections)
    assert not starting.done()
    await clock.advance(3.1)
    assert starting.done()
    assert there.health()["connected"] is False
    place.wire.cut()
    place.wire.clear()


async def test_what_was_committed_last_is_told_before_the_end(place: Place):
    here, there = await place.started(), await place.started()
    signal = cleared(there)
    here.changed("operations")
    await here.aclose()
    assert await asyncio.wait_for(signal.wait(), 20)
    assert here.health()["connected"] is False


async def test_a_watcher_closes_while_the_server_is_away(place: Place, clock: FakeClock):
    here = await place.started(behind_wire=True)
    await place.wire.unplug()
    await until(lambda: not here.health()["connected"])
    here.changed("operations")
    await asyncio.wait_for(here.aclose(), 20)


async def test_a_watcher_closes_while_the_server_does_not_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("afresh.db.watchers.channel._LAST_WORDS", 0.05)
    here = await place.started(behind_wire=True)
    place.wire.clog()
    here.changed("operations")
    await asyncio.wait_for(here.aclose(), 20)
    place.wire.cut()
    place.wire.clear()


async def test_a_watcher_can_be_started_again(place: Place):
    here, there = await place.started(), await place.started()
    await there.aclose()
    await there.start()
    signal = cleared(there)
    here.changed("operations")
    assert await asyncio.wait_for(signal.wait(), 20)
