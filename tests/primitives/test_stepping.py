"""Coroutines that run in a context of their own without a task of their own."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from afresh.primitives.stepping import rest_of

place: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="outside")


async def run(coroutine: Any, context: contextvars.Context) -> Any:
    try:
        yielded = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value
    return await rest_of(coroutine, yielded, context)


async def test_each_step_runs_in_the_context() -> None:
    async def body() -> list[str]:
        place.set("inside")
        seen = []
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(place.get())
        return seen

    assert await run(body(), contextvars.Context()) == ["inside"] * 3
    assert place.get() == "outside"


async def test_errors_and_results_of_what_it_waits_for_get_in() -> None:
    async def body(future: asyncio.Future[int]) -> int:
        try:
            return await future
        except ValueError:
            return -1

    loop = asyncio.get_running_loop()
    good, bad = loop.create_future(), loop.create_future()
    loop.call_soon(good.set_result, 5)
    loop.call_soon(bad.set_exception, ValueError())
    assert await run(body(good), contextvars.Context()) == 5
    assert await run(body(bad), contextvars.Context()) == -1


async def test_it_is_cancelled_with_the_task_that_steps_it() -> None:
    ended: list[str] = []

    async def body() -> None:
        place.set("inside")
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(place.get())

    task = asyncio.create_task(run(body(), contextvars.Context()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["inside"]


def test_it_is_closed_in_its_context() -> None:
    ended: list[str] = []

    class Never:
        def __await__(self) -> Any:
            yield

    async def body() -> None:
        place.set("inside")
        try:
            await Never()
        finally:
            ended.append(place.get())

    outer = run(body(), contextvars.Context())
    outer.send(None)
    outer.close()
    assert ended == ["inside"]
