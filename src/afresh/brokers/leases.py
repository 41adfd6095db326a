"""Which host publishes which part of the outbox: leases, by the clock of the database.

Each part has one owner, so that messages of a key are published one after another. Who has died
loses his parts when the lease runs out; who comes gets his share as others give theirs up. A host
is known by a row of its own among the leases, so that it counts before it has any.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import Table, bindparam, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from afresh.db.logs.moments import moment
from afresh.db.shards import Shard
from afresh.primitives.clock import current_clock

from .outbox import BUCKETS

__all__ = ["BucketLeases"]

_OPTIONS = {"touches": ()}


class BucketLeases:
    """The leases of one host on parts of one outbox.

    Args:
        shard: where the outbox is.
        table: of the leases.
        owner: this host.
        ttl: seconds that a lease holds unless it is renewed.
    """

    def __init__(self, shard: Shard, table: Table, owner: str, ttl: float) -> None:
        self.owner: str = owner
        self.owned: frozenset[int] = frozenset()
        """The parts that this host publishes, as of the last renewal."""
        self._until = -math.inf
        self._shard = shard
        self._table = table
        self._ttl = ttl
        columns = table.c
        mine = columns.owner == owner
        alive = columns.expires_at > moment()
        buckets = columns.bucket.in_(bindparam("buckets", expanding=True))
        self._renew = update(table).where(mine, alive).values(expires_at=moment(ttl))
        self._all = select(columns.bucket, columns.owner, alive.label("is_alive"))
        self._enter = insert(table).values(owner=owner, epoch=0, expires_at=moment(ttl))
        self._forget = delete(table).where(columns.bucket < 0, columns.expires_at < moment(-ttl))
        self._claim = (
            update(table)
            .where(buckets, or_(columns.owner.is_(None), ~alive))
            .values(owner=owner, epoch=columns.epoch + 1, expires_at=moment(ttl))
        )
        self._mine = select(columns.bucket).where(mine, alive, columns.bucket >= 0)
        free = {"owner": None, "expires_at": moment()}
        self._give_up = update(table).where(mine, buckets).values(free)
        self._give_up_all = update(table).where(mine, columns.bucket >= 0).values(free)
        self._leave = delete(table).where(mine, columns.bucket < 0)

    def has(self, bucket: int) -> bool:
        """Whether this host may publish a part now.

        By this host's clock: nobody else takes over before, even if the database can't be reached.
        """
        return bucket in self.owned and current_clock().now() < self._until

    async def prepare(self) -> None:
        """Make sure that there is a row for each part."""
        async with self._shard.read.connect() as connection:
            there = set(await connection.scalars(select(self._table.c.bucket)))
        missing = [{"bucket": each} for each in range(BUCKETS) if each not in there]
        if not missing:
            return
        try:
            async with self._shard.write.begin() as connection:
                await connection.execute(
                    insert(self._table).values(owner=None, epoch=0, expires_at=moment()),
                    missing,
                    execution_options=_OPTIONS,
                )
        except IntegrityError:
            return  # another host was faster

    async def renew(self, busy: Callable[[], Collection[int]] = frozenset) -> frozenset[int]:
        """Renew the leases, give up what is beyond this host's share, and take what is free.

        Args:
            busy: returns the parts of which messages are under way. Where one of those is to be
                given up, nothing more of it is published, and others get it by a later renewal.

        Returns:
            The parts that this host has now.
        """
        since = current_clock().now()
        async with self._shard.write.begin() as connection:

            async def run(statement: Any, **values: Any) -> Any:
                return await connection.execute(statement, values, execution_options=_OPTIONS)

            await run(self._renew)
            rows = (await run(self._all)).all()
            owners = {row.owner for row in rows if row.is_alive and row.owner is not None}
            share = -(-BUCKETS // len(owners | {self.owner}))
            mine = {row.bucket for row in rows if row.is_alive and row.owner == self.owner}
            if not any(bucket < 0 for bucket in mine):
                await run(self._forget)
                await run(self._enter, bucket=_unused({row.bucket for row in rows}))
            mine = {bucket for bucket in mine if bucket >= 0}
            if len(mine) > share:
                under_way = busy()
                surplus = _surplus(mine, under_way, len(mine) - share)
                mine -= surplus
                self.owned = frozenset(mine)  # before anything more is published
                if idle := surplus.difference(under_way):
                    await run(self._give_up, buckets=sorted(idle))
            elif len(mine) < share:
                free = [
                    row.bucket
                    for row in rows
                    if row.bucket >= 0 and (row.owner is None or not row.is_alive)
                ]
                wanted = random.sample(free, min(len(free), share - len(mine)))
                if wanted:
                    await run(self._claim, buckets=sorted(wanted))
                    mine = set((await run(self._mine)).scalars())
        self.owned = frozenset(mine)
        self._until = since + self._ttl
        return self.owned

    async def release(self) -> None:
        """Give up all leases, so that others need not wait until they run out."""
        self.owned = frozenset()
        async with self._shard.write.begin() as connection:
            for statement in (self._give_up_all, self._leave):
                await connection.execute(statement, execution_options=_OPTIONS)


def _surplus(mine: set[int], busy: Collection[int], count: int) -> set[int]:
    """Parts to be given up, those first of which nothing is under way."""
    shuffled = random.sample(sorted(mine), len(mine))
    return set(sorted(shuffled, key=lambda bucket: bucket in busy)[:count])


def _unused(taken: set[int]) -> int:
    """A number for the row of a host."""
    while (number := -random.randint(1, 32_767)) in taken:
        pass
    return number
