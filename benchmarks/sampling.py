"""One sample: how often a loop runs, what is timed, and on which core."""

import gc
import os
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

Timed = Callable[[int], Awaitable[float]]
"""Runs an operation so many times and returns the seconds that took; setting up and tidying up are
not in them."""

LOOPS_PER_SAMPLE = 3
"""A sample is the shortest of so many loops: an interrupt rarely hits all of them."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True)
class Sampler:
    """One case of a workload.

    Arguments:
        run: the loop to time.
        count: operations in a loop; ``None`` lets ``calibrated`` choose.
        loops: loops in a sample.
        every: a sample is taken in each so-many-th round only, where setting up takes long.
        seconds: how long a loop is to last, where that differs from what the run says.
        is_collected: whether the garbage collector stays on, as in a server that lives long.
    """

    run: Timed
    count: int | None = None
    loops: int = LOOPS_PER_SAMPLE
    every: int = 1
    seconds: float | None = None
    is_collected: bool = False


async def calibrated(sampler: Sampler, seconds: float) -> Sampler:
    """The same sampler with a count that makes one loop last about ``seconds``."""
    if sampler.count is not None:
        await sampler.run(min(sampler.count, 1_000))
        return sampler
    seconds = sampler.seconds or seconds
    count = 8
    while True:
        elapsed = await sampler.run(count)
        if elapsed >= seconds / 4 or count >= 1_000_000:
            return replace(sampler, count=max(8, int(count * seconds / elapsed)))
        count *= 4


async def sample(sampler: Sampler) -> float:
    """Seconds for one operation: the shortest of the sampler's loops, with the garbage collector
    off unless the sampler says otherwise.
    """
    assert sampler.count is not None, "calibrate the sampler first"
    if not sampler.is_collected:
        gc.disable()
    try:
        return min([await sampler.run(sampler.count) for _ in range(sampler.loops)]) / sampler.count
    finally:
        gc.enable()


def own_copy(original: FunctionT) -> FunctionT:
    """A copy of a function with a code object of its own.

    The interpreter's inline caches live in the code object. One loop shared by all cases would be
    specialised for the first callee and miss for the others; copies keep the loop's shape and give
    each case its own caches.
    """
    function = cast(types.FunctionType, original)
    copy = types.FunctionType(
        function.__code__.replace(co_name=function.__name__),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return cast(FunctionT, copy)


def pin_to_one_core() -> int | None:
    """Keep this process on the last core it may use; returns the core, or ``None`` where the system
    has no such call.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core
