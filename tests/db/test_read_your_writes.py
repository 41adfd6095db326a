"""One reads what one has written, whichever host one asks."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from afresh import App, Client, Command, ComputeService, command_handler, compute_method, connect
from afresh.db import Database
from afresh.operations import Freshness, LoggedOperation
from afresh.primitives.clock import use_clock
from afresh.rpc.client_peer import ClientPeer
from afresh.rpc.contracts import NoWait
from afresh.rpc.freshness import FRESHNESS
from afresh.rpc.transports.memory import MemoryConnector
from afresh.testing import FakeClock


class Base(DeclarativeBase):
    pass


class AccountRow(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    balance: Mapped[int] = mapped_column(default=0)


class Deposit(Command[int], frozen=True):
    account: int
    amount: int = 1


class Accounts(ComputeService):
    @compute_method
    @abstractmethod
    async def balance(self, account: int) -> int: ...

    @command_handler
    @abstractmethod
    async def deposit(self, command: Deposit) -> int: ...

    @abstractmethod
    async def ask(self, account: int) -> int: ...

    @abstractmethod
    async def note(self, account: int) -> NoWait: ...

    @abstractmethod
    async def deposit_twice(self, account: int) -> int: ...

    @abstractmethod
    async def deposit_without_command(self, account: int) -> int: ...


class DbAccounts(Accounts):
    def __init__(self, app: App) -> None:
        self.app = app
        self.db = app.database
        self.noted: list[int] = []

    async def balance(self, account: int) -> int:
        async with self.db.read() as session:
            row = await session.get(AccountRow, account)
        return 0 if row is None else row.balance

    @command_handler
    async def deposit(self, command: Deposit) -> int:
        if command.amount < 0:
            raise ValueError("Nothing can be deposited that is not there.")
        return await self._deposit(command.account, command.amount)

    @deposit.invalidates
    def _deposited(self, command: Deposit, result: int) -> None:
        self.balance(command.account)

    async def _deposit(self, account: int, amount: int) -> int:
        async with self.db.operation() as op:
            row = await op.session.get(AccountRow, account)
            if row is None:
                row = AccountRow(id=account, balance=0)
                op.session.add(row)
            row.balance += amount
            with op.invalidating():
                self.balance(account)
            return row.balance

    async def ask(self, account: int) -> int:
        return await self.balance(account)

    async def note(self, account: int) -> NoWait:
        self.noted.append(await self.balance(account))

    async def deposit_twice(self, account: int) -> int:
        await self.app.call(Deposit(account))
        return await self.app.call(Deposit(account))

    async def deposit_without_command(self, account: int) -> int:
        return await self._deposit(account, 1)


class Switch(MemoryConnector):
    """Leads to one host or another, as a load balancer would, and keeps what goes through."""

    def lead_to(self, app: App) -> None:
        self._acceptor = app.hub


@dataclass
class World:
    """Two hosts that never hear of each other's commits in time, and their clients."""

    here: App
    there: App
    clients: list[tuple[Client, Switch]] = field(default_factory=list)

    def accounts(self, app: App) -> DbAccounts:
        service = app.service(Accounts)
        assert isinstance(service, DbAccounts)
        return service

    def client(self, app: App, **options: Any) -> Client:
        switch = Switch(app.hub)
        client = connect("memory:server", connector=switch, **options)
        self.clients.append((client, switch))
        return client

    async def move(self, client: Client, app: App) -> None:
        """Let the client's connection break, and lead to another host afterwards."""
        switch = next(switch for each, switch in self.clients if each is client)
        switch.lead_to(app)
        client.peer.disconnect()
        await until(lambda: client.peer.remote and client.peer.remote.hub_id == app.hub.id)
        await client.connected()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with use_clock(FakeClock()) as clock:
        yield clock


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_database")
    return url


on_both = pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)


@asynccontextmanager
async def host(url: str) -> AsyncIterator[App]:
    # Nobody tells the other host of commits, and on this clock it never looks by itself.
    database = Database(url, metadata=Base.metadata, create_tables=True, watcher="local")
    app = App(database=database)
    app.add(DbAccounts(app))
    async with app:
        (following,) = database._followed.values()
        reader = following.operation_reader
        await until(lambda: reader._reads and not reader.is_working)  # the one after the start
        yield app


@pytest.fixture
async def world(database_url: str, clock: FakeClock) -> AsyncIterator[World]:
    async with host(database_url) as here, host(database_url) as there:
        world = World(here, there)
        await world.accounts(there).balance(1)
        yield world
        for client, _ in world.clients:
            await client.aclose()


@on_both
async def test_without_a_token_another_host_answers_with_what_it_has(world: World):
    await world.accounts(world.here).deposit(Deposit(1))
    client = world.client(world.there)
    assert await client.service(Accounts).balance(1) == 0
    assert await client.service(Accounts).ask(1) == 0


@on_both
async def test_a_client_that_moves_to_another_host_reads_what_it_has_written(world: World):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    assert await accounts.deposit(Deposit(1)) == 1
    await world.move(client, world.there)
    assert await accounts.ask(1) == 1
    assert await accounts.balance(1) == 1
    assert world.there.operations.freshness.health() == {"waited": 1, "missed": 0}


@on_both
async def test_a_live_result_is_renewed_on_the_other_host_with_what_was_written(world: World):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    assert await accounts.balance(1) == 0
    assert await client.call(Deposit(1, 5)) == 5
    assert await accounts.balance(1) == 5
    await world.move(client, world.there)
    assert await accounts.balance(1) == 5


@on_both
async def test_commands_wait_as_well(world: World):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    await world.move(client, world.there)
    assert await accounts.deposit(Deposit(1)) == 2
    assert world.there.operations.freshness.waited == 1
    assert await world.accounts(world.there).balance(1) == 2


async def test_the_option_turns_it_off(world: World):
    client = world.client(world.here, read_your_writes=False)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    assert client.freshness == ""
    await world.move(client, world.there)
    assert await accounts.ask(1) == 0
    assert world.there.operations.freshness.waited == 0


def headers_sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What freshness goes along with the requests of a client from now on."""
    sent = []
    seen = client.hub.seen
    assert seen is not None
    headers_of = seen.headers

    def headers(peer: Any, headers: Any) -> Any:
        result = headers_of(peer, headers)
        sent.append(dict(result).get(FRESHNESS))
        return result

    monkeypatch.setattr(seen, "headers", headers)
    return sent


@on_both
async def test_the_host_that_has_committed_is_asked_to_wait_for_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    sent = headers_sent(client, monkeypatch)
    for number in range(5):
        assert await accounts.deposit(Deposit(1)) == number + 1
        assert await accounts.ask(1) == number + 1
    client.peer.disconnect()
    await client.connected()
    assert await accounts.ask(1) == 5
    assert sent == []
    assert world.here.operations.freshness.waited == 0


async def test_calls_carry_it_until_the_host_has_confirmed_it(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    sent = headers_sent(client, monkeypatch)
    await accounts.deposit(Deposit(1))
    await world.move(client, world.there)
    assert await asyncio.gather(accounts.ask(1), accounts.ask(1)) == [1, 1]
    assert sent == [client.freshness] * 2
    assert await accounts.ask(1) == 1
    assert await accounts.deposit(Deposit(1)) == 2
    assert await accounts.ask(1) == 2
    assert len(sent) == 2


@pytest.mark.parametrize("format", ["json5np", "json5", "msgpack6", "msgpack6c"])
async def test_every_format_carries_it(world: World, format: str):
    client = world.client(world.here, format=format)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    await world.move(client, world.there)
    assert await accounts.balance(1) == 1
    assert client.peer.unconfirmed == ""


async def test_cached_results_of_an_earlier_life_confirm_it_too(world: World, tmp_path: Any):
    async with connect(
        "memory:server", connector=(switch := Switch(world.here.hub)), cache=tmp_path / "cache"
    ) as client:
        accounts = client.service(Accounts)
        assert await accounts.balance(2) == 0
        await accounts.deposit(Deposit(1))
        assert await accounts.balance(1) == 1
        world.clients.append((client, switch))
        await world.move(client, world.there)
        assert await accounts.balance(1) == 1
        assert await accounts.balance(2) == 0
        await until(lambda: client.peer.unconfirmed == "")


async def test_several_peers_of_one_client_know_of_each_others_writes(world: World):
    client = world.client(world.here)
    other = client.hub.client_peer("memory:there", connector=MemoryConnector(world.there.hub))
    elsewhere = other.service(Accounts)
    assert await elsewhere.ask(1) == 0
    await client.service(Accounts).deposit(Deposit(1))
    assert await elsewhere.ask(1) == 1
    assert other.unconfirmed == ""


async def test_calls_without_an_answer_carry_it_too(world: World):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    await world.move(client, world.there)
    await accounts.note(1)
    there = world.accounts(world.there)
    await until(lambda: there.noted)
    assert there.noted == [1]
    assert client.peer.unconfirmed


@on_both
async def test_what_a_plain_method_has_changed_is_told_too(world: World):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    assert await accounts.deposit_twice(1) == 2
    assert await accounts.deposit_without_command(2) == 1
    await world.move(client, world.there)
    assert await accounts.ask(1) == 2
    assert await accounts.ask(2) == 1


class Lagging:
    """A host that has trouble with what others have committed."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recovers = asyncio.Event()
        self._apply = app.operations.completion.apply
        (following,) = app.database._followed.values()
        monkeypatch.setattr(following.operation_reader._workers, "_apply", self.apply)

    async def apply(self, logged: LoggedOperation) -> None:
        await self.recovers.wait()
        await self._apply(logged)


@on_both
async def test_a_host_that_lags_behind_answers_with_what_it_has_after_a_while(
    world: World,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    lagging = Lagging(world.there, monkeypatch)
    client = world.client(world.here)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    await world.move(client, world.there)
    for attempt in range(3):
        asking = asyncio.create_task(accounts.ask(1))
        await until(lambda waited=attempt + 1: world.there.operations.freshness.waited == waited)
        await clock.advance(1.9)
        assert not asking.done()
        await clock.advance(0.2)
        assert await asking == 0
    assert world.there.operations.freshness.health() == {"waited": 3, "missed": 3}
    messages = [record for record in caplog.records if "seen elsewhere" in record.message]
    assert [record.levelno for record in messages] == [logging.WARNING]
    asking = asyncio.create_task(accounts.ask(1))
    await until(lambda: world.there.operations.freshness.waited == 4)
    lagging.recovers.set()
    assert await asking == 1
    assert client.peer.unconfirmed == ""


async def test_a_caller_that_leaves_waits_no_longer(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    lagging = Lagging(world.there, monkeypatch)
    client = world.client(world.here)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    await world.move(client, world.there)
    asking = asyncio.create_task(accounts.ask(1))
    await until(lambda: world.there.operations.freshness.waited == 1)
    (peer,) = world.there.hub.peers
    asking.cancel()
    await until(lambda: not peer.inbound)
    lagging.recovers.set()


async def test_what_was_seen_long_ago_is_not_carried_along(world: World, clock: FakeClock):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    await clock.advance(31)
    await world.move(client, world.there)
    assert client.freshness == ""
    assert client.peer.unconfirmed == ""


async def test_calls_stop_to_carry_it_to_a_host_that_never_confirms(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(world.there.hub, "gate", None)
    client = world.client(world.here)
    accounts = client.service(Accounts)
    await accounts.deposit(Deposit(1))
    await world.move(client, world.there)
    assert await accounts.ask(1) == 0
    assert client.peer.unconfirmed
    await clock.advance(31)
    await accounts.ask(1)
    assert client.peer.unconfirmed == ""


@pytest.mark.parametrize(
    "token",
    ["garbage", "default/@", "default/@-1", "x" * 1_000, "a/@1,", ",".join(["a/b@1"] * 101)],
)
async def test_garbage_from_a_client_is_served_at_once(
    world: World, token: str, monkeypatch: pytest.MonkeyPatch
):
    client = world.client(world.there)
    client.peer.unconfirmed = token
    monkeypatch.setattr(
        ClientPeer, "with_freshness", lambda self, headers: (*headers, (FRESHNESS, token))
    )
    assert await client.service(Accounts).ask(1) == 0
    assert world.there.operations.freshness.waited == 0
    assert client.freshness == ""


async def test_garbage_from_a_server_is_ignored(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(
        "afresh.rpc.inbound.telling", lambda headers, token: ((FRESHNESS, "garbage"),)
    )
    client = world.client(world.here)
    assert await client.service(Accounts).deposit(Deposit(1)) == 1
    assert client.freshness == ""
    assert "what it has applied can't be read" in caplog.text


async def test_an_operation_that_will_never_be_costs_no_more_than_the_wait(
    world: World, clock: FakeClock
):
    client = world.client(world.there)
    client.must_see("default/@9999999999999999999")
    asking = asyncio.create_task(client.service(Accounts).ask(1))
    await until(lambda: world.there.operations.freshness.waited == 1)
    await clock.advance(2.1)
    assert await asking == 0


async def test_logs_that_a_host_does_not_follow_do_not_count(world: World):
    client = world.client(world.there)
    client.must_see("elsewhere/north@17")
    assert await client.service(Accounts).ask(1) == 0
    assert client.peer.unconfirmed == ""


# -- by hand


@on_both
async def test_the_context_of_a_command_knows_what_to_wait_for(world: World):
    context = await world.here.commander.run(Deposit(1))
    assert context.value == 1
    token = context.freshness
    assert Freshness.parse(token)
    assert await world.there.wait_until_fresh(token)
    assert await world.accounts(world.there).balance(1) == 1
    assert await world.here.wait_until_fresh(token)


async def test_a_client_can_be_told_what_another_has_seen(world: World):
    writer, reader = world.client(world.here), world.client(world.there)
    await writer.service(Accounts).deposit(Deposit(1))
    assert await reader.service(Accounts).ask(1) == 0
    reader.must_see(writer.freshness)
    assert await reader.service(Accounts).ask(1) == 1
    assert reader.freshness == writer.freshness


async def test_a_command_that_fails_tells_of_nothing(world: World):
    context = await world.here.commander.run(Deposit(1, -1))
    assert context.error
    assert context.freshness == ""
    client = world.client(world.here)
    with pytest.raises(ValueError):
        await client.service(Accounts).deposit(Deposit(1, -1))
    assert client.freshness == ""


async def test_nothing_grows_with_the_number_of_commands(world: World):
    client = world.client(world.here)
    accounts = client.service(Accounts)
    for _ in range(3):
        await accounts.deposit(Deposit(1))
    length = len(client.freshness)
    for _ in range(100):
        await accounts.deposit(Deposit(1))
    assert len(client.freshness) <= length + 2
    assert len(client.peer.confirmed) == 1
    for number in range(1_000):
        client.must_see(f"default/shard-{number}@{number}")
    assert len(client.freshness) <= 1_000
    assert "shard-999@999" in client.freshness
    assert await accounts.ask(1) == 103
    assert client.peer.unconfirmed == ""
