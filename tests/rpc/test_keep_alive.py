"""Signs of life: proxies see no idle connection, and the dead are told from the sleeping."""

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest

from afresh.primitives.clock import current_clock, use_clock
from afresh.rpc.limits import Limits
from afresh.rpc.transports.memory import MemoryLink
from afresh.testing import FakeClock
from tests.rpc.pair import Pair, until
from tests.rpc.workshop import OpenWorkshop, Workshop

PROXY_PATIENCE = 25.0
"""Seconds after which the strictest of common proxies cut an idle connection."""


class Leaping(FakeClock):
    """A clock that can leap, as that of a machine that was suspended does on some systems."""

    def leap(self, seconds: float) -> None:
        """Let time pass with nobody awake to see it; timers fire afterwards, late."""
        self._now += seconds


@pytest.fixture
def leaping() -> Iterator[Leaping]:
    with use_clock(Leaping()) as clock:
        yield clock


def listen(link: MemoryLink) -> dict[str, list[float]]:
    """Note at what time frames go which way."""
    times: dict[str, list[float]] = {"to_server": [], "to_client": []}

    def note(way: str) -> Callable[[bytes], list[bytes]]:
        def pass_on(frame: bytes) -> list[bytes]:
            times[way].append(current_clock().now())
            return [frame]

        return pass_on

    for way in times:
        getattr(link, way).alter = note(way)
    return times


@pytest.mark.parametrize("offset", [0.0, 3.3, 9.99])
async def test_no_proxy_sees_an_idle_connection(
    clock: FakeClock, pair: Pair, offset: float
) -> None:
    await clock.advance(offset)
    await pair.peer.connect()
    link = pair.connector.links[-1]
    started = current_clock().now()
    times = listen(link)
    await clock.advance(600)
    for way in times.values():
        moments = [started, *way, current_clock().now()]
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert max(gaps) < PROXY_PATIENCE / 2
        assert len(way) == pytest.approx(60, abs=1)
    assert pair.connector.links == [link]


async def test_signs_of_life_go_on_while_others_are_busy(clock: FakeClock) -> None:
    pair = Pair()
    workshop = pair.service(Workshop, OpenWorkshop())
    call = asyncio.create_task(workshop.work("long"))
    await clock.advance(3600)
    assert pair.connector.attempts == 1
    assert not call.done()
    call.cancel()
    await pair.aclose()


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_the_side_that_hears_nothing_for_25_seconds_gives_up(
    clock: FakeClock, way: str
) -> None:
    pair = Pair()
    await pair.peer.connect()
    await clock.advance(20)
    link = pair.connector.links[-1]
    getattr(link, way).hold()
    deaf = pair.server_peer if way == "to_server" else pair.peer
    errors: list[Exception | None] = []
    deaf.on_connection_change(lambda state: errors.append(state.error))
    await clock.advance(24)
    assert deaf.link is not None
    assert pair.connector.links[-1] is link
    await clock.advance(2)
    assert "Nothing was heard of the other side for 25 s" in str(errors)
    await until(lambda: pair.connector.links[-1] is not link)
    await pair.aclose()


@pytest.mark.parametrize("offset", [0, 3, 7])
async def test_a_clock_that_leaps_an_hour_costs_one_reconnection_and_nothing_else(
    leaping: Leaping, offset: float
) -> None:
    pair = Pair()
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    call = asyncio.create_task(workshop.work("a"))
    numbers = aiter(await workshop.count_to(20_000))
    assert [await anext(numbers) for _ in range(10)] == list(range(10))
    await leaping.advance(offset)
    pair.cut()
    await leaping.advance(34)
    assert pair.connector.attempts == 2
    leaping.leap(3600)
    await leaping.advance(1)
    await pair.peer.connect()
    assert pair.connector.attempts == 3
    open_workshop.gate.set()
    assert await call == "a"
    assert open_workshop.runs == {"a": 1}
    assert [number async for number in numbers] == list(range(10, 20_000))
    await pair.aclose()
    assert leaping.timers == 0


async def test_a_machine_that_was_suspended_for_a_day_finds_its_server_again(
    leaping: Leaping,
) -> None:
    """The server's clock went on meanwhile, so it has forgotten the client."""
    pair = Pair()
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    call = asyncio.create_task(workshop.work("a"))
    await until(lambda: open_workshop.running)
    pair.connector.links[-1].client.lose()
    pair.connector.error = OSError("no network while asleep")
    pair.server_peer.close()
    leaping.leap(86_400)
    await leaping.advance(0)
    pair.connector.error = None
    await leaping.advance(20)
    open_workshop.gate.set()
    assert await call == "a"
    assert open_workshop.runs == {"a": 2}
    await pair.aclose()


async def test_a_leap_between_two_attempts_brings_the_next_one_forward(leaping: Leaping) -> None:
    pair = Pair(client={"limits": Limits(reconnect_delays=Limits().reconnect_delays.fixed(600))})
    pair.connector.error = OSError("off")
    pair.peer.wanted()
    await until(lambda: pair.connector.attempts == 1)
    pair.connector.error = None
    leaping.leap(3600)
    await leaping.advance(0)
    await until(lambda: pair.peer.is_connected)
    await pair.aclose()


async def test_a_stream_that_nobody_mentions_is_released_after_125_seconds(
    clock: FakeClock,
) -> None:
    pair = Pair()
    workshop = pair.service(Workshop, OpenWorkshop())
    stream = await workshop.count_to(10)
    assert len(pair.server_peer.streams) == 1
    await clock.advance(120)
    assert len(pair.server_peer.streams) == 1
    await clock.advance(20)
    assert len(pair.server_peer.streams) == 0
    with pytest.raises(Exception, match="not found"):
        await anext(stream)
    await pair.aclose()


async def test_a_stream_that_is_read_slowly_is_kept_by_mentioning_it(clock: FakeClock) -> None:
    pair = Pair()
    workshop = pair.service(Workshop, OpenWorkshop())
    numbers = aiter(await workshop.count_to(10_000))
    assert await anext(numbers) == 0
    await clock.advance(1000)
    assert len(pair.server_peer.streams) == 1
    assert [number async for number in numbers] == list(range(1, 10_000))
    await pair.aclose()
