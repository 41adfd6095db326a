"""One history of a server and its clients: what is read, changed, called and cut off, and what is
checked when all has come to rest.

A history runs on a fake clock and over connections in memory, so it happens the same way every
time. One client dials the server; another may dial a program in between that passes everything on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from afresh import Computed
from afresh.errors import PeerChangedError, RpcError
from afresh.primitives.clock import use_clock
from afresh.primitives.tasks import background_tasks
from afresh.remote import ComputeCalls
from afresh.rpc.exceptions import ExceptionPolicy
from afresh.rpc.hub import RpcHub
from afresh.rpc.peer import ConnectionState
from afresh.rpc.transports.memory import Direction, MemoryConnector, MemoryLink
from afresh.testing import FakeClock

from .remote_world import BRIEFLY, KEYS, METHODS, Ledger, StoredLedger, Truth, Twice

FORMATS = ("msgpack6c", "json5np", "msgpack6", "json5")
CALLS = ("work", "work_here", "work_once", "note")

Event = tuple[str, int, int]


@dataclass(frozen=True)
class Plan:
    """What a history is made from."""

    events: list[Event]
    format: int = 0
    has_middle: bool = False


@dataclass
class Tally:
    """What a history did, to see that it was no empty one."""

    compared: int = 0
    """Results that were compared with what they should be."""
    calls: int = 0
    """Calls whose number of runs was looked at."""
    repeated: int = 0
    """Those that ran more than once."""
    interruptions: int = 0
    """Connections that were lost."""
    subscriptions: int = 0
    """Live results at the end."""


@dataclass
class Call:
    """A call that was made, and what was the case then."""

    client: Client
    kind: str
    token: int
    task: asyncio.Task[Any]
    interruptions: int
    is_cancelled: bool = False


@dataclass
class Reading:
    """A stream that is read."""

    client: Client
    count: int
    items: list[int] = field(default_factory=list)


class Client:
    """A hub that dials another one."""

    def __init__(self, acceptor: RpcHub, hub: RpcHub, format: str, name: str) -> None:
        self.hub = hub
        self.connector = MemoryConnector(acceptor)
        self.peer = hub.client_peer(name, format=format, connector=self.connector)
        self.ledger = self.peer.service(Ledger)
        self.twice = Twice(self.ledger)
        self.interruptions = 0
        self.peer.on_connection_change(self._note)

    def _note(self, state: ConnectionState) -> None:
        if not state.is_connected and state.next_attempt_at is None:
            self.interruptions += 1

    def method(self, name: str) -> Any:
        return self.twice.twice if name == "twice" else getattr(self.ledger, name)

    @property
    def link(self) -> MemoryLink | None:
        links = self.connector.links
        return links[-1] if links and links[-1].is_open else None

    def way(self, number: int) -> Direction | None:
        link = self.link
        if link is None:
            return None
        return link.to_server if number % 2 else link.to_client

    def appease(self) -> None:
        """Let nothing go wrong any more."""
        self.connector.error = None
        for link in self.connector.links:
            for way in (link.to_client, link.to_server):
                way.alter = None
                way.delay = 0.0
                way.cut_after(10**9)
                way.release()
        self.peer.wanted()
        self.peer.reconnect_now()


class RemoteHistory:
    """Runs a plan, on a new event loop, and fails with an account of what happened."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.format = FORMATS[plan.format % len(FORMATS)]
        self.tally = Tally()
        self.account: list[str] = []
        self.troubles: list[str] = []
        self.truth = Truth()
        self.calls: list[Call] = []
        self.reads: list[asyncio.Task[Any]] = []
        self.readings: list[tuple[Reading, asyncio.Task[None]]] = []
        self.held: list[Computed[Any]] = []
        self.tokens = itertools.count(1)
        self.clients: list[Client] = []

    def run(self) -> Tally:
        """Let it happen."""
        self.clock = FakeClock()
        with use_clock(self.clock), self._watching(), asyncio.Runner() as runner:
            try:
                runner.run(self._run())
            except BaseException as error:
                error.add_note("\n".join(["What happened:", *self.account]))
                raise
        assert self.troubles == []
        return self.tally

    # -- the beginning and the end

    async def _run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.troubles.append(str(context))
        )
        self.server = self._new_server()
        self.clients.append(Client(self.server, self._new_hub(), self.format, "a"))
        if self.plan.has_middle:
            middle = self._new_hub()
            upstream = Client(self.server, middle, self.format, "m")
            middle.serve(Ledger, upstream.ledger)
            self.clients += [upstream, Client(middle, self._new_hub(), self.format, "b")]
        for name, a, b in self.plan.events:
            self.account.append(f"{self.clock.now():7.2f} {name} {a} {b}")
            await getattr(self, f"on_{name}")(a, b)
        self.account.append(f"{self.clock.now():7.2f} come to rest")
        await self._come_to_rest()
        self._check_calls()
        self._check_readings()
        self._check_subscriptions()
        await self._check_results()
        self._check_subscriptions()
        await self._let_go()
        for client in self.clients:
            await client.hub.aclose()
        await self.server.aclose()
        await self.clock.settle()
        assert not background_tasks()

    def _new_hub(self) -> RpcHub:
        return RpcHub(kinds=(ComputeCalls(),), exceptions=ExceptionPolicy(expose_messages=True))

    def _new_server(self) -> RpcHub:
        self.stored = StoredLedger(self.truth)
        hub = self._new_hub()
        hub.serve(Ledger, self.stored)
        return hub

    async def _come_to_rest(self) -> None:
        for client in self.clients:
            client.appease()
        # By then a connection that only one side has lost is found out.
        for _ in range(15):
            await self.clock.advance(3)
        for _ in range(200):
            await self.clock.advance(1)
            tasks = [*self.reads, *(task for _, task in self.readings)]
            tasks += [call.task for call in self.calls]
            if all(task.done() for task in tasks) and all(
                client.peer.is_connected for client in self.clients
            ):
                break
        else:
            waiting = [task for task in tasks if not task.done()]
            raise AssertionError(f"It does not come to rest: {waiting}, {self.clients}")
        for task in self.reads:
            if not task.cancelled():
                self._hold(task)

    # -- what happens

    async def on_read(self, a: int, b: int) -> None:
        b, method = divmod(b, len(METHODS))
        bound = self._client(a).method(METHODS[method])
        self.reads.append(asyncio.create_task(bound.capture(b % KEYS)))

    async def on_hold(self, a: int, b: int) -> None:
        done = [task for task in self.reads if task.done()]
        if done:
            task = done[a % len(done)]
            self.reads.remove(task)
            if not task.cancelled():
                self._hold(task)

    def _hold(self, task: asyncio.Task[Any]) -> None:
        node = task.result()
        self.held.append(node)

    async def on_drop(self, a: int, b: int) -> None:
        if self.held:
            self.held.pop(a % len(self.held))

    async def on_change(self, a: int, b: int) -> None:
        self.truth.values[a % KEYS] += 1 + b % 2
        self.stored.get.invalidate(a % KEYS)

    async def on_set(self, a: int, b: int) -> None:
        ledger = self._client(a).ledger
        self.reads.append(asyncio.create_task(_set(ledger, b % KEYS, next(self.tokens))))

    async def on_forget_here(self, a: int, b: int) -> None:
        """A client makes a result stale on its own side."""
        b, method = divmod(b, len(METHODS))
        self._client(a).method(METHODS[method]).invalidate(b % KEYS)

    async def on_call(self, a: int, b: int) -> None:
        b, kind = divmod(b, len(CALLS))
        client = self._client(a)
        token = next(self.tokens)
        task = asyncio.create_task(getattr(client.ledger, CALLS[kind])(token, b % 6))
        self.calls.append(Call(client, CALLS[kind], token, task, client.interruptions))

    async def on_cancel(self, a: int, b: int) -> None:
        if b % 2 and self.reads:
            self.reads[a % len(self.reads)].cancel()
        elif self.calls:
            call = self.calls[a % len(self.calls)]
            call.is_cancelled = call.task.cancel() or call.is_cancelled

    async def on_stream(self, a: int, b: int) -> None:
        client = self._client(a)
        reading = Reading(client, b)

        async def read() -> None:
            async for number in await client.ledger.numbers(reading.count):
                reading.items.append(number)
                if number % 5 == 0:
                    await asyncio.sleep(0)

        self.readings.append((reading, asyncio.create_task(read())))

    async def on_cut(self, a: int, b: int) -> None:
        link = self._client(a).link
        if link is not None:
            link.drop()

    async def on_lose(self, a: int, b: int) -> None:
        link = self._client(a).link
        if link is not None:
            (link.client if b % 2 else link.server).lose()

    async def on_cut_within(self, a: int, b: int) -> None:
        way = self._client(a).way(b)
        if way is not None:
            way.cut_after(b * 7)

    async def on_pause(self, a: int, b: int) -> None:
        way = self._client(a).way(b)
        if way is not None:
            way.hold()

    async def on_resume(self, a: int, b: int) -> None:
        client = self._client(a)
        way = client.way(b)
        if way is None:
            return
        link = client.peer.link
        # Answers may come in any order, once both sides know each other.
        ends = client.link
        if b % 4 == 0 and link is not None and ends and link.connection is ends.client:
            way.release(lambda frames: random.Random(a).sample(frames, len(frames)))
        else:
            way.release()

    async def on_double(self, a: int, b: int) -> None:
        link = self._client(a).link
        if link is not None:
            link.to_client.alter = (lambda frame: (frame, frame)) if b % 2 else None

    async def on_delay(self, a: int, b: int) -> None:
        way = self._client(a).way(b)
        if way is not None:
            way.delay = (0.0, 0.05, 0.3, 2.0)[b // 2 % 4]

    async def on_offline(self, a: int, b: int) -> None:
        client = self._client(a)
        client.connector.error = OSError("the network is down")
        await self.on_cut(a, b)

    async def on_online(self, a: int, b: int) -> None:
        client = self._client(a)
        client.connector.error = None
        client.peer.reconnect_now()

    async def on_restart(self, a: int, b: int) -> None:
        if b % 2:
            await self.server.aclose()
        old, self.server = self.server, self._new_server()
        for client in self.clients:
            if client.connector._acceptor is old:
                client.connector._acceptor = self.server
                if not b % 2:
                    for link in client.connector.links:
                        link.drop()
        if not b % 2:
            await old.aclose()

    async def on_expire(self, a: int, b: int) -> None:
        """A server forgets a client, which may be connected."""
        client = self._client(a)
        for peer in client.connector._acceptor.peers:  # type: ignore[attr-defined]
            if not isinstance(peer, type(client.peer)):
                peer.close()
                return

    async def on_turns(self, a: int, b: int) -> None:
        for _ in range(1 + b % 8):
            await asyncio.sleep(0)

    async def on_rest(self, a: int, b: int) -> None:
        await self.clock.settle()

    async def on_sleep(self, a: int, b: int) -> None:
        await self.clock.advance((0.1, 0.6, 1.0, 3.0, 11.0, 40.0)[b % 6])

    def _client(self, a: int) -> Client:
        return self.clients[a % len(self.clients)]

    # -- what is checked

    def _check_calls(self) -> None:
        for call in self.calls:
            runs, ends = self.truth.runs[call.token], self.truth.ends[call.token]
            interruptions = call.client.interruptions - call.interruptions
            self.tally.calls += 1
            self.tally.repeated += runs > 1
            is_direct = call.client is self.clients[0]
            what = f"{call}, {runs} runs, {ends} ends"
            assert call.task.done(), what
            error = None if call.task.cancelled() else call.task.exception()
            if call.task.cancelled():
                assert call.is_cancelled, what
            elif error is None and call.kind != "note":
                assert ends >= 1, what
                assert call.task.result() == call.token, what
            if is_direct:
                if call.kind in {"work_once", "note"}:
                    assert runs <= 1, what
                assert runs <= 1 + interruptions, what
                if error is not None:
                    assert call.kind in {"work_here", "work_once"}, what
                    assert interruptions, what
                if call.kind == "work_here" and error is not None:
                    assert isinstance(error, PeerChangedError), what
            elif error is not None:
                assert isinstance(error, RpcError), what
                assert call.kind in {"work_here", "work_once"}, what
        self.tally.interruptions += sum(client.interruptions for client in self.clients)

    def _check_readings(self) -> None:
        for reading, task in self.readings:
            error = None if task.cancelled() else task.exception()
            assert reading.items == list(range(len(reading.items)))
            if error is None:
                assert len(reading.items) == reading.count, reading
            else:
                assert isinstance(error, RpcError), error
                assert self.tally.interruptions, (reading, error)

    def _check_subscriptions(self) -> None:
        for client in self.clients:
            place = False, self.format, client.connector._acceptor._servers  # type: ignore[attr-defined]
            (server_peer,) = [
                peer
                for peer in place[2].values()
                if peer.remote is not None and peer.remote.peer_id == client.peer.id
            ]
            live = {id for id, call in client.peer.outbound.items() if call.stage == 1}
            assert live == set(client.peer.outbound), client.peer.outbound
            assert live == set(server_peer.inbound), (client.peer.outbound, server_peer.inbound)
            self.tally.subscriptions += len(live)

    async def _check_results(self) -> None:
        nodes = list(self.held)
        for client in self.clients:
            for method in METHODS:
                for key in range(KEYS):
                    node = client.method(method).existing(key)
                    if node is not None:
                        nodes.append(node)
        for node in nodes:
            if node.is_consistent:
                self._compare(node)
        for client in self.clients:
            for method in METHODS:
                for key in range(KEYS):
                    node = await client.method(method).capture(key)
                    self._compare(node)
                    assert node.is_consistent

    def _compare(self, node: Computed[Any]) -> None:
        method = node.category.rpartition(".")[2]
        (key,) = node.args
        expected = self.truth.of(method, key)
        found = node.value if node.error is None else str(node.error)
        assert found == expected, f"{node}: {found}, not {expected}"
        self.tally.compared += 1

    async def _let_go(self) -> None:
        self.held.clear()
        self.reads.clear()
        for _ in range(5):
            await self.clock.advance(BRIEFLY)
        gc.collect()
        await self.clock.advance(BRIEFLY)
        for client in self.clients:
            assert not client.peer.outbound, client.peer.outbound
            for peer in client.connector._acceptor.peers:  # type: ignore[attr-defined]
                assert not peer.inbound, (peer, peer.inbound)

    # -- troubles that nobody raises

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        handler = _Listener(self.troubles.append)
        names = ("afresh", "asyncio")
        for name in names:
            logging.getLogger(name).addHandler(handler)
        try:
            yield
        finally:
            for name in names:
                logging.getLogger(name).removeHandler(handler)


class _Listener(logging.Handler):
    """Passes on what should not have to be logged."""

    def __init__(self, note: Callable[[str], object]) -> None:
        super().__init__(logging.ERROR)
        self.note = note

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "failed, error id" not in text:
            self.note(self.format(record))


async def _set(ledger: Ledger, key: int, value: int) -> Computed[int]:
    await ledger.set(key, value)
    return await ledger.get.capture(key)
