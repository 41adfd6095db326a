"""Two hosts publish one outbox: what one is too slow for, the other takes over; nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter

from sqlalchemy import select, update

from afresh.brokers import OutboxState
from afresh.brokers.outbox_queries import RelayQueries
from tests.brokers.scripted import ScriptedTransport, shop_on, tables_of, until
from tests.brokers.shop import PlaceOrder
from tests.hosts.post import Post

LETTERS = ["ann", "bob", "cid"] * 10


async def test_an_owner_that_stood_still_beyond_its_lease_loses_and_unpublishes_nothing(
    post: Post,
) -> None:
    await post.start("reader")
    slow = await post.start("sender", relay={"window": 2})
    await slow.fault("after confirm", "wait", seconds=1.0)
    await slow.ask("send", {"writers": LETTERS})
    await slow.reached("after confirm")
    slow.pause()
    heir = await post.start("sender")
    await post.all_received()
    before = await post.outbox()
    slow.resume()
    await heir.ask("send", {"writers": LETTERS})
    await slow.ask("send", {"writers": LETTERS})
    await post.all_received()
    await post.check(3 * len(LETTERS))
    assert (await post.outbox())[: len(before)] == before, "What the heir had noted stays."
    times = Counter(each.message_id for each in await post.published())
    assert max(times.values()) == 2


async def test_who_has_lost_its_lease_notes_nothing(postgres_database: str) -> None:
    transport = ScriptedTransport()
    transport.is_away = True
    async with shop_on(transport, postgres_database) as app:
        await app.call(PlaceOrder("a", "a00"))
        tables, shard = tables_of(app), app.database.shard()
        await app.broker.relay().aclose()
        values = {"one": 1, "error": "late", "delay": 1.0}
        old, new = (RelayQueries(tables, name, shard.dialect) for name in ("old", "new"))
        async with shard.write.begin() as connection:
            options = {"touches": ()}
            owned = update(tables.leases).values(owner="new")
            await connection.execute(owned, execution_options=options)
            for statement, arguments in (
                (old.mark, {"ids": [1]}),
                (old.postpone, values),
                (old.bury, values),
            ):
                changed = await connection.execute(statement, arguments, execution_options=options)
                assert changed.rowcount == 0
            changed = await connection.execute(new.mark, {"ids": [1]}, execution_options=options)
            assert changed.rowcount == 1
            owned = update(tables.leases).values(owner="old")
            await connection.execute(owned, execution_options=options)
            for statement in (old.postpone, old.bury):
                changed = await connection.execute(statement, values, execution_options=options)
                assert changed.rowcount == 0, "What is published stays published."
            (row,) = (await connection.execute(select(tables.outbox))).all()
        assert (row.state, row.attempts) == (OutboxState.PUBLISHED, 0)


async def test_a_slow_broker_keeps_its_owner_busy_beyond_the_lease_and_each_message_goes_once(
    postgres_database: str,
) -> None:
    one, two = ScriptedTransport(seconds=0.1), ScriptedTransport(seconds=0.1)
    options = {"lease": 1.5, "renew": 0.3}
    one.is_away = two.is_away = True
    async with (
        shop_on(one, postgres_database, **options) as app,
        shop_on(two, postgres_database, **options),
    ):
        notes = [f"a{number:02}" for number in range(30)]
        for note in notes:
            await app.call(PlaceOrder("a", note))
        one.is_away = two.is_away = False
        await until(lambda: len({*one.confirmed, *two.confirmed}) == len(notes))
        await asyncio.sleep(0.3)
        assert sorted(one.confirmed + two.confirmed) == notes


async def test_hosts_share_the_outbox_also_where_one_had_all_of_it(postgres_database: str) -> None:
    one, two = ScriptedTransport(), ScriptedTransport()
    options = {"lease": 3.0, "renew": 0.1}
    async with shop_on(one, postgres_database, **options) as first:
        await until(lambda: first.broker.relay().health()["buckets"] == 64)
        async with shop_on(two, postgres_database, **options) as second:
            relays = first.broker.relay(), second.broker.relay()
            await until(lambda: [each.health()["buckets"] for each in relays] == [32, 32])
        await until(lambda: first.broker.relay().health()["buckets"] == 64, within=2.0)
