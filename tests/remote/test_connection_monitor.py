"""What is told of a connection, and when."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from afresh.primitives.tasks import background_tasks
from afresh.remote.connection_monitor import ConnectionKind, ConnectionMonitor, ConnectionStatus
from afresh.testing import FakeClock
from tests.rpc.pair import Pair

from .fake_peer import FakePeer


@pytest.fixture
def peer(clock: FakeClock) -> FakePeer:
    return FakePeer()


@pytest.fixture
async def monitor(peer: FakePeer) -> AsyncIterator[ConnectionMonitor]:
    async with ConnectionMonitor(peer) as monitor:
        yield monitor
    assert len(peer.handlers) == 0
    assert background_tasks() == frozenset()


async def test_without_a_peer_it_is_always_connected(clock: FakeClock) -> None:
    async with ConnectionMonitor(None) as monitor:
        assert monitor.text == "Connected."
        await clock.advance(100)
        assert monitor.value == ConnectionStatus(ConnectionKind.CONNECTED)
        assert clock.timers == 0
        monitor.reconnect_now()


async def test_a_connection_goes_through_its_phases(
    peer: FakePeer, monitor: ConnectionMonitor, clock: FakeClock
) -> None:
    """The row of the catalogue, with its moments."""
    kinds: list[tuple[float, ConnectionKind]] = []

    async def watch(seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            await clock.advance(0.05)
            if not kinds or kinds[-1][1] is not monitor.value.kind:
                kinds.append((round(clock.now(), 2), monitor.value.kind))

    await watch(10)
    peer.disconnect()
    await watch(10)
    peer.connect()
    await watch(10)
    assert kinds == [
        (0.05, ConnectionKind.JUST_CONNECTED),
        (pytest.approx(1.65, abs=0.06), ConnectionKind.CONNECTED),
        (pytest.approx(10.05, abs=0.01), ConnectionKind.JUST_DISCONNECTED),
        (pytest.approx(13.15, abs=0.06), ConnectionKind.DISCONNECTED),
        (pytest.approx(20.05, abs=0.01), ConnectionKind.JUST_CONNECTED),
        (pytest.approx(21.65, abs=0.06), ConnectionKind.CONNECTED),
    ]
    assert clock.timers == 0  # nothing ticks while nothing changes


async def test_the_first_value_is_there_at_once(clock: FakeClock) -> None:
    connected, disconnected = FakePeer(), FakePeer(is_connected=False)
    await clock.advance(100)
    first, second = ConnectionMonitor(connected), ConnectionMonitor(disconnected)
    assert first.value.kind is ConnectionKind.CONNECTED
    assert second.value.kind is ConnectionKind.DISCONNECTED
    await first.aclose()
    await second.aclose()


@pytest.mark.parametrize(
    ("kind", "is_connected", "likely_connected", "text"),
    [
        (ConnectionKind.JUST_CONNECTED, True, True, "Just connected."),
        (ConnectionKind.CONNECTED, True, True, "Connected."),
        (ConnectionKind.JUST_DISCONNECTED, False, True, "Just disconnected, reconnecting..."),
        (ConnectionKind.DISCONNECTED, False, False, "Reconnecting..."),
    ],
)
def test_each_kind_has_its_words(
    kind: ConnectionKind, is_connected: bool, likely_connected: bool, text: str
) -> None:
    status = ConnectionStatus(kind)
    assert status.is_connected is is_connected
    assert status.likely_connected is likely_connected
    assert status.text == text
    assert ConnectionStatus(kind, ValueError("no")).describe(with_error=True) == text
    assert status.reconnects_in is None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, "Disconnected."),
        (ValueError("no route to host"), "Disconnected: no route to host."),
        (ValueError(" Who are you? "), "Disconnected: Who are you?"),
        (ValueError("No!"), "Disconnected: No!"),
        (ValueError("No."), "Disconnected: No."),
        (ConnectionResetError(), "Disconnected: ConnectionResetError."),
    ],
)
def test_the_error_is_told_on_request_while_waiting(error: Exception | None, text: str) -> None:
    status = ConnectionStatus(ConnectionKind.DISCONNECTED, error, reconnects_at=1e9)
    assert status.text == "Disconnected."
    assert status.describe(with_error=True) == text


async def test_the_time_to_the_next_attempt_runs_down(
    peer: FakePeer, monitor: ConnectionMonitor, clock: FakeClock
) -> None:
    peer.disconnect(ValueError("cut"))
    peer.wait(1)
    await clock.advance(5)
    peer.try_again()
    await clock.advance(0.1)
    assert (monitor.text, monitor.reconnects_in) == ("Reconnecting...", None)
    peer.wait(4, ValueError("no route"))
    await clock.advance(0.1)
    assert monitor.text == "Disconnected."
    assert monitor.value.describe(with_error=True) == "Disconnected: no route."
    assert monitor.reconnects_in == pytest.approx(3.9)
    await clock.advance(2)
    assert monitor.reconnects_in == pytest.approx(1.9)
    await clock.advance(0.85)
    assert monitor.reconnects_in == pytest.approx(1.05)
    await clock.advance(0.2)  # less than a second away counts as now
    assert (monitor.text, monitor.reconnects_in) == ("Reconnecting...", None)
    assert not monitor.likely_connected


async def test_time_never_runs_below_zero(clock: FakeClock) -> None:
    status = ConnectionStatus(ConnectionKind.DISCONNECTED, reconnects_at=clock.now() - 5)
    assert status.reconnects_in == 0


async def test_reconnecting_now_is_passed_on_and_shows(
    peer: FakePeer, monitor: ConnectionMonitor, clock: FakeClock
) -> None:
    peer.disconnect()
    peer.wait(60)
    await clock.advance(10)
    assert monitor.text == "Disconnected."
    monitor.reconnect_now()
    await clock.advance(0.05)
    assert peer.hurries == 1
    assert monitor.text == "Reconnecting..."
    peer.connect()
    await clock.advance(0.05)
    assert monitor.is_connected


async def test_a_peer_that_is_closed_never_reconnects(
    peer: FakePeer, monitor: ConnectionMonitor, clock: FakeClock
) -> None:
    peer.disconnect(ValueError("the server refuses this client"))
    peer.close()
    await clock.advance(0.05)
    status = monitor.value
    assert status.is_final
    assert not status.likely_connected
    assert status.text == "Disconnected."
    assert status.describe(with_error=True) == "Disconnected: the server refuses this client."


async def test_it_is_a_state_to_follow(
    peer: FakePeer, monitor: ConnectionMonitor, clock: FakeClock
) -> None:
    async def follow() -> None:
        async for status in monitor:
            if status.kind not in seen:
                seen.append(status.kind)

    seen: list[ConnectionKind] = []
    following = asyncio.ensure_future(follow())
    await clock.advance(1)
    peer.disconnect()
    await clock.advance(1)
    assert seen == [ConnectionKind.JUST_CONNECTED, ConnectionKind.JUST_DISCONNECTED]
    monitor.close()
    await clock.advance(1)
    assert following.done()


async def test_a_flapping_connection_always_looks_connected(
    peer: FakePeer, monitor: ConnectionMonitor, clock: FakeClock
) -> None:
    for _ in range(20):
        peer.disconnect()
        await clock.advance(1)
        assert monitor.likely_connected
        peer.connect()
        await clock.advance(0.5)
        assert monitor.likely_connected


@pytest.mark.parametrize("how", ["close", "dispose", "drop"])
async def test_nothing_is_left_behind(peer: FakePeer, clock: FakeClock, how: str) -> None:
    monitor = ConnectionMonitor(peer)
    await clock.advance(0.5)
    gone = weakref.ref(monitor)
    if how != "drop":
        getattr(monitor, how)()
        assert len(peer.handlers) == 0
        await clock.advance(0)
    del monitor
    gc.collect()
    assert gone() is None
    assert len(peer.handlers) == 0
    peer.disconnect()
    await clock.advance(10)
    assert background_tasks() == frozenset()


class TestWithARealPeer:
    async def test_it_tells_of_a_lost_connection_and_of_the_next(
        self, pair: Pair, clock: FakeClock
    ) -> None:
        await pair.peer.connect()
        async with ConnectionMonitor(pair.peer) as monitor:
            await clock.advance(5)
            assert monitor.text == "Connected."
            pair.stay_offline()
            await clock.advance(0.05)
            assert monitor.text == "Just disconnected, reconnecting..."
            texts = set()
            for _ in range(600):
                await clock.advance(0.1)
                texts.add(monitor.value.describe(with_error=True))
            assert texts == {
                "Just disconnected, reconnecting...",
                "Reconnecting...",
                "Disconnected: the network is down.",
            }
            while monitor.reconnects_in is None:
                await clock.advance(0.1)
            pair.connector.error = None
            monitor.reconnect_now()
            await clock.advance(0.05)
            assert monitor.text == "Just connected."

    async def test_it_starts_before_there_is_a_connection(
        self, pair: Pair, clock: FakeClock
    ) -> None:
        async with ConnectionMonitor(pair.peer) as monitor:
            await clock.advance(0.5)
            assert monitor.text == "Just disconnected, reconnecting..."
            await pair.peer.connect()
            await clock.advance(2)
            assert monitor.text == "Connected."

    async def test_it_tells_when_the_peer_is_closed(self, pair: Pair, clock: FakeClock) -> None:
        await pair.peer.connect()
        async with ConnectionMonitor(pair.peer) as monitor:
            await clock.advance(5)
            pair.peer.close()
            await clock.advance(5)
            assert monitor.value.is_final
            assert monitor.text == "Disconnected."

    async def test_it_tells_when_the_peer_is_closed_while_it_is_offline(
        self, pair: Pair, clock: FakeClock
    ) -> None:
        peer = pair.peer
        pair.stay_offline()
        peer.wanted()
        async with ConnectionMonitor(peer) as monitor:
            await clock.advance(20)
            assert not monitor.value.is_final
            peer.close()
            await clock.advance(1)
            assert monitor.value.is_final
