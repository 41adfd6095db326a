"""Random deaths on both sides of a broker, and of the broker: nothing is lost, doubled, or swapped.

Two processes send letters and publish them, two receive them; PostgreSQL and RabbitMQ are real. A
short form runs always; AFRESH_SOAK=1 makes it 10,000 letters. AFRESH_SOAK_SEED=… repeats the
choices of a run, though not its timing.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from tests.hosts.hosts import Host, HostGone
from tests.hosts.letters import broker_tables
from tests.hosts.post import Post, post_between
from tests.servers.fixtures import made
from tests.servers.rabbitmq import RabbitMQ

IS_LONG = bool(os.environ.get("AFRESH_SOAK"))
LETTERS = 10_000 if IS_LONG else 400
RESTARTS = 3 if IS_LONG else 1
DEATHS = 20 if IS_LONG else 2
"""Of each role, at least; in the short form no more, or hardly."""
PROCESSES = 2
BATCH = 50
WRITERS = [f"w{number}" for number in range(20)]
PATIENCE = 90.0

POINTS = {
    "sender": (
        "before commit",
        "in commit",
        "after fetch",
        "before confirm",
        "after confirm",
        "after mark",
        "before renewal",
        "after renewal",
    ),
    "reader": ("before handling", "before inbox row", "after inbox row", "before ack", "after ack"),
}


@pytest.fixture
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """A running RabbitMQ of this test alone: to be stopped, and started again."""
    server = made(RabbitMQ)
    server.start()
    yield server
    server.close()


class Soak:
    """The processes, and what befalls them."""

    def __init__(self, post: Post, server: RabbitMQ, chance: random.Random) -> None:
        self.post = post
        self.server = server
        self.chance = chance
        self.alive: dict[str, list[Host]] = {}
        self.deaths: Counter[str] = Counter()
        self.restarts = 0

    async def sent(self) -> int:
        count = select(func.count()).select_from(broker_tables.outbox)
        return (await self.post.rows("sender", count))[0][0]

    async def is_over(self) -> bool:
        return (
            self.restarts >= RESTARTS
            and min(self.deaths[role] for role in POINTS) >= DEATHS
            and await self.sent() >= LETTERS
        )

    async def run(self) -> None:
        """Let letters go until there were enough of them, and of deaths."""
        for role in ("reader", "sender"):
            self.alive[role] = [await self.post.start(role) for _ in range(PROCESSES)]
        async with asyncio.TaskGroup() as group:
            group.create_task(self.restart_broker())
            for number in range(PROCESSES):
                group.create_task(self.keep_sending(number))
                group.create_task(self.keep_dying("reader", number))
                group.create_task(self.keep_dying("sender", number))
        for host in (*self.alive["sender"], *self.alive["reader"]):
            await host.ask("forget_faults")

    async def restart_broker(self) -> None:
        while self.restarts < RESTARTS:
            while await self.sent() < LETTERS * (self.restarts + 1) / (RESTARTS + 2):
                await asyncio.sleep(0.05)
            await asyncio.to_thread(self.server.restart)
            self.restarts += 1

    async def keep_sending(self, number: int) -> None:
        while not await self.is_over():
            if await self.sent() >= LETTERS * (self.restarts + 2) / (RESTARTS + 2):
                await asyncio.sleep(0.1)  # enough, until more has happened
                continue
            writers = self.chance.choices(WRITERS, k=BATCH)
            try:
                await self.alive["sender"][number].ask("send_many", writers, 4)
            except HostGone:
                await asyncio.sleep(0.05)

    async def keep_dying(self, role: str, number: int) -> None:
        pause = 4.0 if IS_LONG else 1.0
        while (IS_LONG or self.deaths[role] < DEATHS) and not await self.is_over():
            await asyncio.sleep(self.chance.uniform(0.2, 2) * pause)
            host = self.alive[role][number]
            point = self.chance.choice(POINTS[role])
            await host.fault(point, "kill", passes=self.chance.randrange(15))
            await host.ends_within(self.chance.uniform(0, 2) * pause)
            await host.kill()
            self.alive[role][number] = await self.post.start(role)
            self.deaths[role] += 1


@pytest.mark.soak
async def test_letters_arrive_once_and_in_order_whatever_dies(
    postgres: str, rabbitmq_server: RabbitMQ, tmp_path: Path
) -> None:
    seed = int(os.environ.get("AFRESH_SOAK_SEED") or random.randrange(2**31))
    print(f"AFRESH_SOAK_SEED={seed}")
    async with post_between(postgres, rabbitmq_server.url, tmp_path) as post:
        soak = Soak(post, rabbitmq_server, random.Random(seed))
        began = time.monotonic()
        await soak.run()
        await post.all_received(PATIENCE)
        seconds = time.monotonic() - began
        await post.check(LETTERS)
        published = await post.published()
        sent = await post.outbox()
        assert {row.attempts for row in sent} == {0}, "A broker that is away charges no attempts."
        again = len(published) - len(sent)
        print(
            f"{len(sent)} letters in {seconds:.0f} s, {dict(soak.deaths)} deaths, {soak.restarts} "
            f"restarts of the broker; {again} were published again, and took effect once."
        )
