"""The loops that are timed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.loops import same_key
from benchmarks.rpc.cases import CALLS, STREAMS
from benchmarks.rpc.orders import Process

Load = Callable[[int], Awaitable[int]]
"""Does at least as many operations as asked for; returns how many it did."""


def calls(client: Any, in_flight: int) -> Load:
    """Sums of two ints by so many callers, each of which makes a call when the one before is
    answered.
    """
    if hasattr(client, "batches"):

        async def batches(count: int) -> int:
            rounds = -(-count // in_flight)
            await client.batches(in_flight, rounds)
            return rounds * in_flight

        return batches

    add = client.add

    async def caller(number: int, count: int) -> None:
        for index in range(count):
            assert await add(index, number) == index + number

    async def run(count: int) -> int:
        each = -(-count // in_flight)
        if in_flight == 1:
            await caller(1, each)
        else:
            await asyncio.gather(*(caller(number, each) for number in range(in_flight)))
        return each * in_flight

    return run


def items(client: Any, size: int) -> Load:
    """One stream from the server, read to its end."""

    async def run(count: int) -> int:
        assert await client.read(size, count) == count, "items are missing"
        return count

    return run


def hits(service: Any) -> Load:
    """A compute method with a result that is there."""
    loop = same_key(service, 7)

    async def run(count: int) -> int:
        await loop(count)
        return count

    return run


def broadcasts(crowd: Any, server: Process) -> Load:
    """Changes of a value; the next one comes when all of the crowd have the one before."""
    value = 0

    async def run(count: int) -> int:
        nonlocal value
        for _ in range(count):
            value += 1
            crowd.expect(value)
            server.tell("change", value)
            await crowd.all_told()
            server.answer()
        return count

    return run


def load_of(case: str, client: Any, server: Process) -> Load:
    """The loop of a case."""
    if case in CALLS:
        return calls(client, CALLS[case])
    if case in STREAMS:
        return items(client, STREAMS[case])
    if case == "broadcast":
        return broadcasts(client, server)
    return hits(client.values if case == "remote hit" else client.local_values)
