"""The loops that are timed: for each workload a coroutine function that sets them up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import perf_counter

from sqlalchemy import func, insert, select

from afresh import ComputeService, compute_method
from afresh.db import Database
from afresh.db.entities import EntityLoader
from afresh.operations import Effects, Freshness, new_uuid
from benchmarks.db.places import Place
from benchmarks.db.services import AddItem, ChangeItem, Item, ItemRow, new_row
from benchmarks.sampling import Sampler, Timed

Prepare = Callable[[list[Place], bool], Awaitable[dict[str, Sampler]]]

WRITERS = {"one by one": 1, "10 at a time": 10}
"""Commands under way at a time."""

READERS = 100
ITEMS = 1_000
BURST = 100
"""Reads of a reader before the others have their turn: results that are there need no waiting."""

OPERATIONS = 2_000
"""Operations of another host that are applied in a sample."""


class Numbers(ComputeService):
    """Results that need no database, to be made stale."""

    @compute_method
    async def get(self, key: int) -> int:
        return key


def _adding(add: Callable[[str], Awaitable[int]], writers: int) -> Timed:
    async def writer(count: int) -> None:
        for _ in range(count):
            await add("Tea")

    async def run(count: int) -> float:
        each = -(-count // writers)
        start = perf_counter()
        await asyncio.gather(*(writer(each) for _ in range(writers)))
        return (perf_counter() - start) * count / (each * writers)

    return run


async def writes(places: list[Place], quick: bool) -> dict[str, Sampler]:
    """A transaction that inserts one row, and a command that does."""
    samplers: dict[str, Sampler] = {}
    for place in places:
        for words, writers in WRITERS.items():
            if place.name == "SQLite" and writers > 1:
                continue  # it has one writer at a time
            case = f"{place.name}, {words}"
            samplers |= {
                f"SQLAlchemy, {case}": Sampler(
                    _adding(place.plain.add, writers), is_collected=True
                ),
                f"afresh, {case}": Sampler(_adding(_commands(place), writers), is_collected=True),
            }
    return samplers


def _commands(place: Place) -> Callable[[str], Awaitable[int]]:
    async def add(name: str) -> int:
        return await place.app.call(AddItem(name))

    return add


def _reading(
    get: Callable[[int], Awaitable[Item]], change: Callable[[Item], Awaitable[None]], burst: int
) -> Timed:
    """So many reads of random items by 100 readers, while a writer changes random items."""
    chance = random.Random(42)
    item_ids = [chance.randrange(ITEMS) + 1 for _ in range(50_021)]
    is_done = False

    async def write() -> None:
        while not is_done:
            item = await get(chance.randrange(ITEMS) + 1)
            name = f"Item-{item.id}-{item.version + 1}"
            await change(Item(item.id, item.version, item.created_at, name))

    async def run(count: int) -> float:
        nonlocal is_done
        is_done = False
        done = 0

        async def read(start: int) -> None:
            nonlocal done
            while done < count:
                for item_id in item_ids[start : start + burst]:
                    assert (await get(item_id)).id == item_id
                start = (start + burst) % (len(item_ids) - burst)
                done += burst
                await asyncio.sleep(0)

        writer = asyncio.create_task(write())
        start = perf_counter()
        await asyncio.gather(*(read(chance.randrange(40_000)) for _ in range(READERS)))
        elapsed = perf_counter() - start
        is_done = True
        await writer
        return elapsed * count / done

    return run


async def reads(places: list[Place], quick: bool) -> dict[str, Sampler]:
    """The reference's own benchmark: 1,000 items, 100 readers, one writer."""
    samplers: dict[str, Sampler] = {}
    for place in places:
        async with place.plain.sessions.begin() as session:
            session.add_all(new_row("Tea") for _ in range(ITEMS))
        async with place.app.database.operation() as operation:
            operation.session.add_all(new_row("Tea") for _ in range(ITEMS))
        change = _changes(place)
        samplers |= {
            f"SQLAlchemy, {place.name}": _read_sampler(
                _reading(place.plain.get, place.plain.change, 1), quick
            ),
            f"afresh, {place.name}": _read_sampler(_reading(place.items.get, change, BURST), quick),
        }
    return samplers


def _read_sampler(run: Timed, quick: bool) -> Sampler:
    # Once, and long enough for many changes: the shortest of several would have the fewest.
    return Sampler(run, loops=1, seconds=0.2 if quick else 1, is_collected=True)


def _changes(place: Place) -> Callable[[Item], Awaitable[None]]:
    async def change(item: Item) -> None:
        await place.app.call(ChangeItem(item))

    return change


async def foreign(places: list[Place], quick: bool) -> dict[str, Sampler]:
    """Operations of another host, each of which makes one result stale: reading them from the log,
    and applying them.
    """
    return {
        f"afresh, {place.name}": Sampler(
            await _applying(place, 500 if quick else OPERATIONS),
            count=OPERATIONS,
            is_collected=True,
        )
        for place in places
    }


async def _applying(place: Place, many: int) -> Timed:
    numbers = place.app.add(Numbers())
    effects = []
    for key in range(many):
        made_stale = Effects()
        with made_stale.recording():
            numbers.get(key)
        operations = place.app.operations
        effects.append(made_stale.encode(operations.services, operations.codec))

    async def run(count: int) -> float:
        held = [await numbers.get.capture(key) for key in range(many)]
        log = place.app.database.tables.operations
        now = datetime.now(UTC)
        rows = [
            {"uuid": new_uuid(), "host_id": "elsewhere", "logged_at": now, "effects": each}
            for each in effects
        ]
        async with place.app.database.shard().write.begin() as connection:
            await connection.execute(insert(log), rows)
            last = await connection.scalar(select(func.max(log.c.index)))
        start = perf_counter()
        assert await place.app.wait_until_fresh(str(Freshness({("default", ""): last})), 60)
        elapsed = perf_counter() - start
        assert not any(computed.is_consistent for computed in held)
        return elapsed * count / many

    return run


async def entities(places: list[Place], quick: bool) -> dict[str, Sampler]:
    """Rows by their keys: all at once through an entity loader, and one by one."""
    samplers: dict[str, Sampler] = {}
    for place in places:
        async with place.app.database.operation() as operation:
            operation.session.add_all(new_row("Tea") for _ in range(ITEMS))
        loader = EntityLoader(place.app.database, ItemRow)
        samplers |= {
            f"one by one, {place.name}": Sampler(
                _one_by_one(place.app.database), count=200 if quick else ITEMS, is_collected=True
            ),
            f"at once, {place.name}": Sampler(_at_once(loader), count=ITEMS, is_collected=True),
        }
    return samplers


def _one_by_one(database: Database) -> Timed:
    async def run(count: int) -> float:
        start = perf_counter()
        for item_id in range(1, count + 1):
            async with database.read() as session:
                row = await session.get_one(ItemRow, item_id)
            assert row.id == item_id
        return perf_counter() - start

    return run


def _at_once(loader: EntityLoader[ItemRow]) -> Timed:
    async def run(count: int) -> float:
        start = perf_counter()
        rows = await asyncio.gather(*(loader.get(item_id) for item_id in range(1, count + 1)))
        elapsed = perf_counter() - start
        assert all(row is not None for row in rows)
        return elapsed

    return run


WORKLOADS: dict[str, Prepare] = {
    "writes": writes,
    "reads": reads,
    "foreign": foreign,
    "entities": entities,
}
"""Workload name to the coroutine function that sets it up."""
