"""Streams whose items have the type that the contract says, without anybody saying it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from datetime import timedelta

from afresh.rpc.streams import RpcStream
from tests.rpc.pair import Pair


async def days(count: int) -> AsyncIterator[timedelta]:
    for number in range(count):
        yield timedelta(days=number, microseconds=1)


class Calendar(ABC):
    @abstractmethod
    async def days(self, count: int) -> RpcStream[timedelta]: ...

    @abstractmethod
    async def total(self, days: RpcStream[timedelta]) -> timedelta: ...


class Gregorian(Calendar):
    async def days(self, count: int) -> RpcStream[timedelta]:
        return RpcStream(days(count))

    async def total(self, days: RpcStream[timedelta]) -> timedelta:
        total = timedelta()
        async for day in days:
            total += day
        return total


async def test_items_travel_as_the_contract_says(pair: Pair) -> None:
    calendar = pair.service(Calendar, Gregorian())
    got = [day async for day in await calendar.days(3)]
    assert got == [day async for day in days(3)]
    assert await calendar.total(RpcStream(days(3))) == timedelta(days=3, microseconds=3)
