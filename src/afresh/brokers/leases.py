"""Which host publishes which part of the outbox: leases, by the clock of the database.

Each part has one owner, so that messages of a key are published one after another. Who has died
loses his parts when the lease runs out; who comes gets his share as others give theirs up.
"""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import Table, bindparam, distinct, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from afresh.db.logs.moments import moment
from afresh.db.shards import Shard

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
        self._shard = shard
        self._table = table
        columns = table.c
        mine = columns.owner == owner
        alive = columns.expires_at > moment()
        self._live_owners = select(func.count(distinct(columns.owner))).where(
            alive, columns.owner.is_not(None), columns.owner != owner
        )
        self._renew = update(table).where(mine, alive).values(expires_at=moment(ttl))
        self._mine = select(columns.bucket).where(mine, alive)
        self._free = select(columns.bucket).where(
            or_(columns.owner.is_(None), columns.expires_at <= moment())
        )
        self._claim = (
            update(table)
            .where(
                columns.bucket.in_(bindparam("buckets", expanding=True)),
                or_(columns.owner.is_(None), columns.expires_at <= moment()),
            )
            .values(owner=owner, epoch=columns.epoch + 1, expires_at=moment(ttl))
        )
        self._release = (
            update(table)
            .where(mine, columns.bucket.in_(bindparam("buckets", expanding=True)))
            .values(owner=None, expires_at=moment())
        )

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

    async def renew(self) -> frozenset[int]:
        """Renew the leases, give up what is beyond this host's share, and take what is free.

        Returns:
            The parts that this host has now.
        """
        async with self._shard.write.begin() as connection:

            async def run(statement: Any, **values: Any) -> Any:
                return await connection.execute(statement, values, execution_options=_OPTIONS)

            others = (await run(self._live_owners)).scalar_one()
            share = -(-BUCKETS // (others + 1))
            await run(self._renew)
            mine = set((await run(self._mine)).scalars())
            if len(mine) > share:
                surplus = random.sample(sorted(mine), len(mine) - share)
                await run(self._release, buckets=surplus)
                mine -= set(surplus)
            elif len(mine) < share:
                free = sorted((await run(self._free)).scalars())
                wanted = random.sample(free, min(len(free), share - len(mine)))
                if wanted:
                    await run(self._claim, buckets=wanted)
                    mine = set((await run(self._mine)).scalars())
        self.owned = frozenset(mine)
        return self.owned

    async def release(self) -> None:
        """Give up all leases, so that others need not wait until they run out."""
        if self.owned:
            async with self._shard.write.begin() as connection:
                await connection.execute(
                    self._release, {"buckets": sorted(self.owned)}, execution_options=_OPTIONS
                )
            self.owned = frozenset()
