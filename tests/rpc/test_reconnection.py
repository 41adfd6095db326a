"""Connections that come and go: what is resumed, what is sent again, what is given up."""

import asyncio
from abc import ABC, abstractmethod

import pytest

from afresh.errors import DisconnectedError, PeerChangedError, RejectedError, UnknownFormatError
from afresh.rpc.contracts import rpc_method
from afresh.testing import FakeClock
from tests.rpc.pair import Pair, until


class Worker(ABC):
    @abstractmethod
    async def work(self, name: str) -> str: ...

    @rpc_method(survive_reconnect=False)
    @abstractmethod
    async def fragile(self, name: str) -> str: ...

    @rpc_method(survive_peer_change=False)
    @abstractmethod
    async def at_most_once(self, name: str) -> str: ...


class SlowWorker(Worker):
    def __init__(self) -> None:
        self.runs: list[str] = []
        self.gate = asyncio.Event()

    async def work(self, name: str) -> str:
        self.runs.append(name)
        await self.gate.wait()
        return name

    fragile = work
    at_most_once = work


async def test_a_call_survives_the_loss_of_the_connection_and_runs_once(pair: Pair) -> None:
    slow = SlowWorker()
    worker = pair.service(Worker, slow)
    call = asyncio.create_task(worker.work("a"))
    await until(lambda: slow.runs)
    pair.stay_offline()
    await until(lambda: not pair.peer.is_connected)
    pair.go_online()
    await until(lambda: pair.peer.is_connected)
    slow.gate.set()
    assert await call == "a"
    assert slow.runs == ["a"]
    assert not pair.peer.outbound
    assert not pair.server_peer.inbound


async def test_a_call_made_offline_is_sent_once(pair: Pair) -> None:
    slow = SlowWorker()
    slow.gate.set()
    worker = pair.service(Worker, slow)
    await pair.peer.connect()
    pair.stay_offline()
    await until(lambda: not pair.peer.is_connected)
    call = asyncio.create_task(worker.work("a"))
    await asyncio.sleep(0)
    pair.go_online()
    assert await call == "a"
    assert slow.runs == ["a"]


async def test_a_call_that_ended_during_the_outage_runs_again(pair: Pair) -> None:
    slow = SlowWorker()
    worker = pair.service(Worker, slow)
    call = asyncio.create_task(worker.work("a"))
    await until(lambda: slow.runs)
    pair.stay_offline()
    slow.gate.set()
    await until(lambda: not pair.server_peer.inbound)
    pair.go_online()
    assert await call == "a"
    assert slow.runs == ["a", "a"]


async def test_a_call_that_does_not_survive_a_reconnection_fails(pair: Pair) -> None:
    slow = SlowWorker()
    worker = pair.service(Worker, slow)
    call = asyncio.create_task(worker.fragile("a"))
    await until(lambda: slow.runs)
    pair.stay_offline()
    with pytest.raises(DisconnectedError, match="connection was lost"):
        await call


async def test_calls_are_sent_again_to_a_server_that_was_restarted(pair: Pair) -> None:
    slow = SlowWorker()
    worker = pair.service(Worker, slow)
    call = asyncio.create_task(worker.work("a"))
    once = asyncio.create_task(worker.at_most_once("b"))
    await until(lambda: len(slow.runs) == 2)
    await pair.restart_server()
    await until(lambda: len(slow.runs) == 3)
    slow.gate.set()
    assert await call == "a"
    with pytest.raises(PeerChangedError, match="restarted"):
        await once
    assert sorted(slow.runs) == ["a", "a", "b"]


async def test_a_newer_connection_of_a_client_replaces_the_one_before(pair: Pair) -> None:
    slow = SlowWorker()
    worker = pair.service(Worker, slow)
    call = asyncio.create_task(worker.work("a"))
    await until(lambda: slow.runs)
    link = pair.peer.link
    assert link is not None
    pair.peer.disconnect()  # the server has not noticed anything yet
    await until(lambda: pair.peer.link not in {None, link})
    slow.gate.set()
    assert await call == "a"
    assert slow.runs == ["a"]


async def test_a_client_that_does_not_come_back_is_forgotten(clock: FakeClock, pair: Pair) -> None:
    slow = SlowWorker()
    worker = pair.service(Worker, slow)
    call = asyncio.create_task(worker.work("a"))
    await until(lambda: slow.runs)
    pair.stay_offline()
    await until(lambda: not pair.server_peer.is_connected)
    await clock.advance(179)
    assert pair.server_peer.inbound
    await clock.advance(2)
    assert pair.server.peers == ()
    pair.client.client_peer  # noqa: B018
    call.cancel()


async def test_a_silent_connection_is_taken_for_dead(clock: FakeClock, pair: Pair) -> None:
    await pair.peer.connect()
    link = pair.connector.links[-1]
    await clock.advance(100)
    assert pair.connector.links[-1] is link, "keep-alives keep it"
    link.to_client.hold()
    await clock.advance(26)
    await until(lambda: pair.connector.links[-1] is not link)
    await until(lambda: pair.peer.is_connected)


async def test_attempts_grow_further_apart_until_one_succeeds(clock: FakeClock) -> None:
    pair = Pair()
    pair.connector.error = OSError("nobody there")
    pair.peer.wanted()
    await until(lambda: pair.connector.attempts == 1)
    await clock.advance(60)
    tried = pair.connector.attempts
    assert 8 <= tried <= 16
    state = pair.peer.connection_state
    assert not state.is_connected
    assert isinstance(state.error, OSError)
    assert state.next_attempt_at is not None
    pair.go_online()
    await pair.peer.connect()
    assert pair.peer.connection_state.is_connected
    await pair.aclose()


@pytest.mark.parametrize("error", [RejectedError("go away", 403), UnknownFormatError("no")])
async def test_a_client_that_is_refused_for_good_does_not_try_again(error: Exception) -> None:
    pair = Pair()
    slow = SlowWorker()
    worker = pair.service(Worker, slow)
    pair.connector.error = error
    with pytest.raises(type(error)):
        await worker.work("a")
    with pytest.raises(type(error)):
        await pair.connector(None, None)  # type: ignore[arg-type]
    assert pair.connector.attempts == 2
    await pair.aclose()


async def test_a_thousand_random_cuts_lose_no_call(pair: Pair) -> None:
    import random

    class Quick(SlowWorker):
        async def work(self, name: str) -> str:
            self.runs.append(name)
            for _ in range(int(name) % 7):
                await asyncio.sleep(0)
            return name

    quick = Quick()
    worker = pair.service(Worker, quick)
    source = random.Random(5)
    done: list[str] = []

    async def ask(number: int) -> None:
        done.append(await worker.work(str(number)))

    async with asyncio.TaskGroup() as group:
        for number in range(1000):
            group.create_task(ask(number))
            for _ in range(source.randrange(5)):
                await asyncio.sleep(0)
            if number % 10 == 0 and pair.peer.is_connected:
                pair.cut()
                await until(lambda: not pair.peer.is_connected)
                pair.peer.reconnect_now()
            elif not pair.peer.is_connected:
                pair.peer.reconnect_now()
        pair.peer.reconnect_now()
        await until(lambda: len(done) == 1000 or pair.peer.reconnect_now(), 100_000)
    assert sorted(done, key=int) == [str(number) for number in range(1000)]
    assert not pair.peer.outbound
    assert not pair.server_peer.inbound


async def test_a_client_that_says_goodbye_is_forgotten_at_once(pair: Pair) -> None:
    await pair.peer.connect()
    await until(lambda: pair.server_peer.is_connected)
    pair.peer.close()
    await until(lambda: not pair.server.peers)
