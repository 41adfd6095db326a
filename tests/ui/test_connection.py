"""The badge that tells of a lost connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from nicegui import ui

from afresh import MutableState
from afresh.primitives.clock import use_clock
from afresh.remote import connect
from afresh.testing import FakeClock
from afresh.ui.nicegui import ConnectionElement, connection_status, live
from tests.remote.fake_peer import FakePeer

from .conftest import Visit, strays, until


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


def shown(element: ConnectionElement) -> list[str]:
    """What a visitor sees of a badge: icon and texts, in order; nothing if it is hidden."""
    if not element.visible:
        return []
    parts = []
    for each in element.descendants():
        if all(above.visible for above in (each, *each.ancestors())):
            if isinstance(each, ui.icon):
                parts.append(each.name)
            elif text := getattr(each, "text", ""):
                parts.append(text)
            elif "seconds" in each.props:
                parts.append(f"{each.props['seconds']:.1f}")
    return parts


async def test_it_appears_only_when_the_connection_has_been_away_for_a_moment(
    visit: Visit, clock: FakeClock
) -> None:
    placed: list[ConnectionElement] = []
    peer = FakePeer()
    async with visit(lambda: placed.append(connection_status(peer))):
        (badge,) = placed
        await clock.advance(5)
        assert shown(badge) == []
        peer.disconnect()
        await clock.advance(2)
        assert shown(badge) == []
        await clock.advance(2)
        assert shown(badge) == ["cloud_sync", "Reconnecting..."]
        peer.wait(5, ValueError("a secret"))
        await clock.advance(0.015)
        assert shown(badge) == ["cloud_off", "Disconnected.", "Trying again", "5.0", "Reconnect"]
        peer.connect()
        await clock.advance(0.1)
        assert shown(badge) == []


async def test_a_second_wait_of_the_same_length_starts_the_countdown_again(
    visit: Visit, clock: FakeClock
) -> None:
    placed: list[ConnectionElement] = []
    peer = FakePeer(is_connected=False)
    await clock.advance(10)
    async with visit(lambda: placed.append(connection_status(peer))):
        turns = []
        for _ in range(2):
            peer.wait(5)
            await clock.advance(0.015)
            turns.append(placed[0]._countdown.props["turn"])
            peer.try_again()
            await clock.advance(0.1)
        assert turns[0] != turns[1]


async def test_it_may_be_there_always_and_tell_why(visit: Visit, clock: FakeClock) -> None:
    placed: list[ConnectionElement] = []
    peer = FakePeer()

    def page() -> None:
        placed.append(connection_status(peer, always=True, with_error=True))
        placed.append(connection_status(None, always=True))

    async with visit(page):
        badge, permanent = placed
        assert shown(badge) == ["cloud_done", "Just connected."]
        await clock.advance(5)
        assert shown(badge) == ["cloud_done", "Connected."]
        assert "afresh-connection-lost" not in badge.classes
        peer.disconnect()
        await clock.advance(1)
        assert shown(badge) == ["cloud_sync", "Just disconnected, reconnecting..."]
        await clock.advance(5)
        assert "afresh-connection-lost" in badge.classes
        peer.wait(5, ValueError("no route"))
        await clock.advance(0.015)
        assert shown(badge)[:2] == ["cloud_off", "Disconnected: no route."]
        peer.close()
        await clock.advance(0.1)
        assert shown(badge) == ["cloud_off", "Disconnected: no route."]  # and no more attempts
        assert shown(permanent) == ["cloud_done", "Connected."]


async def test_the_visitor_can_reconnect_at_once(visit: Visit, clock: FakeClock) -> None:
    peer = FakePeer(is_connected=False)
    peer.wait(60)
    await clock.advance(10)
    async with visit(lambda: connection_status(peer)) as user:
        await clock.advance(0.1)
        user.find("Reconnect").click()
        await until(lambda: peer.hurries)
        assert peer.hurries == 1


async def test_it_takes_a_client(visit: Visit) -> None:
    placed: list[ConnectionElement] = []
    async with connect("ws://127.0.0.1:9/rpc/ws") as client:
        async with visit(lambda: placed.append(connection_status(client, always=True))):
            assert shown(placed[0]) == ["cloud_sync", "Just disconnected, reconnecting..."]


async def test_it_follows_nothing_when_it_is_gone(visit: Visit, clock: FakeClock) -> None:
    placed: list[ConnectionElement] = []
    peer = FakePeer()
    async with visit(lambda: placed.append(connection_status(peer))) as user:
        assert len(peer.handlers) == 1
        placed[0].delete()
        assert len(peer.handlers) == 0
        peer.disconnect()
        await clock.advance(10)
        assert strays(user) == set()


async def test_it_may_be_part_of_what_is_rendered_again(visit: Visit, clock: FakeClock) -> None:
    placed: list[ConnectionElement] = []
    peer = FakePeer()
    number = MutableState(0)

    @live(delay=0)
    async def body() -> None:
        ui.label(f"number {number.use()}")
        placed.append(connection_status(peer))

    async with visit(body) as user:
        for turn in range(1, 4):
            await clock.advance(1)
            number.set(turn)
        await clock.advance(1)
        await user.should_see("number 3")
        assert len(placed) == 4
        assert len(peer.handlers) == 1
        peer.disconnect()
        await clock.advance(4)
        assert shown(placed[-1]) == ["cloud_sync", "Reconnecting..."]
        assert strays(user) == set()
