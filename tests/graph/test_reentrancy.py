"""A computation that needs its own result fails at once; one that is too deep says so."""

import asyncio
import sys

import pytest

from afresh import (
    AfreshError,
    Computed,
    ComputeService,
    ReentrantComputeError,
    capture,
    compute_method,
    isolated,
)
from tests.graph.services import Counters

WORDS = (
    r"^Circles\.{name} is needed to compute itself: it was called, directly or through other "
    r"compute methods, by its own body\. Break the circle, for example by moving what both need "
    r"into a compute method of its own\.$"
)


class Circles(ComputeService):
    @compute_method
    async def direct(self, key: int = 0) -> int:
        return await self.direct(key)

    @compute_method
    async def ping(self) -> int:
        return await self.pong()

    @compute_method
    async def pong(self) -> int:
        return await self.ping()

    @compute_method
    async def captured(self) -> int:
        return (await self.captured.capture()).value

    @compute_method
    async def captured_call(self) -> int:
        return (await capture(lambda: self.captured_call())).value

    @compute_method
    async def apart(self) -> int:
        with isolated():
            return await self.apart()

    @compute_method
    async def gathered(self) -> int:
        (value,) = await asyncio.gather(self.gathered())
        return value

    @compute_method
    async def in_task(self) -> int:
        return await asyncio.create_task(self.in_task())

    @compute_method
    async def through_plain(self) -> int:
        return await self._plain()

    async def _plain(self) -> int:
        return await self.through_plain()


@pytest.mark.parametrize(
    "name",
    [
        "direct",
        "ping",
        "captured",
        "captured_call",
        "apart",
        "gathered",
        "in_task",
        "through_plain",
    ],
)
async def test_a_call_of_itself_fails_at_once(name: str):
    circles = Circles()
    arguments = r"\(0\)" if name == "direct" else r"\(\)"
    async with asyncio.timeout(5):
        with pytest.raises(ReentrantComputeError, match=WORDS.format(name=name + arguments)) as e:
            await getattr(circles, name)()
    assert isinstance(e.value, AfreshError)


async def test_the_failure_is_the_result_until_it_expires():
    circles = Circles()
    computed = await circles.direct.capture(1)
    assert isinstance(computed.error, ReentrantComputeError)
    with pytest.raises(ReentrantComputeError):
        await circles.direct(1)
    assert circles.direct.existing(1) is computed


async def test_an_update_of_itself_fails_too():
    class Updating(ComputeService):
        computed: Computed[int] | None = None

        @compute_method
        async def get(self) -> int:
            if self.computed is None:
                return 0
            return (await self.computed.update()).value

    updating = Updating()
    updating.computed = await updating.get.capture()
    updating.computed.invalidate()
    async with asyncio.timeout(5):
        with pytest.raises(ReentrantComputeError):
            await updating.get()


async def test_other_arguments_are_no_circle():
    class Countdown(ComputeService):
        @compute_method
        async def get(self, number: int) -> int:
            return await self.get(number - 1) + 1 if number else 0

    assert await Countdown().get(20) == 20


async def test_another_instance_is_no_circle():
    class Linked(ComputeService):
        def __init__(self, following: "Linked | None") -> None:
            self.following = following

        @compute_method
        async def length(self) -> int:
            return 1 if self.following is None else 1 + await self.following.length()

    assert await Linked(Linked(Linked(None))).length() == 3


async def test_a_circle_that_a_body_catches_is_no_failure():
    class Catching(ComputeService):
        @compute_method
        async def get(self) -> int:
            try:
                return await self.get()
            except ReentrantComputeError:
                return -1

    assert await Catching().get() == -1


async def test_waiting_for_the_computation_of_another_is_no_circle():
    class Meeting(Counters):
        def __init__(self) -> None:
            super().__init__()
            self.gate = asyncio.Event()

        @compute_method
        async def slow(self) -> int:
            await self.gate.wait()
            return 1

        @compute_method
        async def left(self) -> int:
            return await self.slow() + 1

        @compute_method
        async def right(self) -> int:
            return await self.slow() + 2

        @compute_method
        async def both(self) -> int:
            return sum(await asyncio.gather(self.left(), self.right(), self.slow()))

    meeting = Meeting()
    call = asyncio.ensure_future(meeting.both())
    await asyncio.sleep(0)
    meeting.gate.set()
    assert await call == 6


async def test_a_task_that_outlives_the_computation_may_call_it_again():
    class Starting(ComputeService):
        runs = 0

        @compute_method
        async def get(self) -> asyncio.Task[object]:
            self.runs += 1

            async def later(gate: asyncio.Event) -> object:
                await gate.wait()
                return await self.get() if self.runs < 3 else None

            self.gate = asyncio.Event()
            return asyncio.create_task(later(self.gate))

    starting = Starting()
    task = await starting.get()
    gate = starting.gate
    starting.get.invalidate()
    gate.set()
    second = await task
    assert isinstance(second, asyncio.Task)
    starting.get.invalidate()
    starting.gate.set()
    third = await second
    assert isinstance(third, asyncio.Task)
    starting.gate.set()
    assert await third is None


class Deep(ComputeService):
    runs = 0

    @compute_method
    async def get(self, number: int) -> int:
        self.runs += 1
        return await self.get(number - 1) + 1 if number else 0


async def test_a_chain_that_is_too_deep_says_so_and_leaves_nothing_behind():
    deep = Deep()
    too_deep = 3 * sys.getrecursionlimit()

    for _ in range(3):
        with pytest.raises(RecursionError) as caught:
            await deep.get(too_deep)
        (note,) = caught.value.__notes__
        assert note == (
            "compute methods call each other deeper than Python's recursion limit allows; compute "
            "in smaller steps, starting with the deepest, or raise the limit with "
            "sys.setrecursionlimit()"
        )
        assert dict(deep.get.table.entries) == {}
        assert dict(deep.get.table.computing) == {}

    step = sys.getrecursionlimit() // 4
    for number in range(step, too_deep + 1, step):
        assert await deep.get(number) == number
    assert await deep.get(too_deep) == too_deep


async def test_too_deep_at_any_distance_from_the_limit_leaves_nothing_behind():
    def descend(levels: int, coroutine: object) -> object:
        if levels:
            return descend(levels - 1, coroutine)
        return coroutine.send(None)  # type: ignore[attr-defined]

    limit = sys.getrecursionlimit()
    deep = Deep()
    for spare in range(30):
        try:
            descend(limit - len_of_stack() - 200 + spare, deep.get(limit))
        except RecursionError:
            pass
        assert dict(deep.get.table.computing) == {}
        assert dict(deep.get.table.entries) == {}
    assert await deep.get(5) == 5


def len_of_stack() -> int:
    frame, length = sys._getframe(), 0
    while frame is not None:
        frame, length = frame.f_back, length + 1
    return length


async def test_with_a_higher_limit_a_deeper_chain_computes():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5 * limit)
    try:
        assert await Deep().get(limit) == limit
    finally:
        sys.setrecursionlimit(limit)
