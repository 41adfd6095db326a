"""Commits whose outcome is not known are found out, and guards have a say in each commit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncTransaction

from afresh.db.scope import DatabaseScope
from afresh.operations import COMMIT_GUARD, RetryPolicy, current_operation
from afresh.primitives.delays import RetryDelays
from tests.db.desk import Busy, Do, Host, Noted, NoteRow, desk_at, ends_of

# -- commits whose outcome is not known


class Lost(OperationalError):
    """The connection is lost."""

    def __init__(self) -> None:
        super().__init__("", None, ConnectionResetError(), connection_invalidated=True)


@contextlib.contextmanager
def losing(
    monkeypatch: pytest.MonkeyPatch, *, times: int = 1, commits: bool = True
) -> Iterator[list[bool]]:
    """Lose the connection in the next commits, after they have happened or before."""
    commit = AsyncTransaction.commit
    lost: list[bool] = []

    async def commit_and_lose(self: AsyncTransaction) -> None:
        if self.nested or len(lost) >= times:
            await commit(self)
            return
        lost.append(commits)
        if commits:
            await commit(self)
        raise Lost

    with monkeypatch.context() as patch:
        patch.setattr(AsyncTransaction, "commit", commit_and_lose)
        yield lost


@contextlib.contextmanager
def misled(monkeypatch: pytest.MonkeyPatch, *answers: bool | Exception) -> Iterator[None]:
    """Let what looks commits up find this first."""
    left = list(answers)
    is_logged = DatabaseScope._is_logged

    async def look_up(self: DatabaseScope) -> bool:
        if not left:
            return await is_logged(self)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseScope, "_is_logged", look_up)
        yield
    assert not left


async def prepare(host: Host, ends: list[tuple[str, bool | None]]) -> Any:
    desk = host.desk

    @desk.on("a")
    async def work() -> int:
        async with desk.database.operation() as op:
            ends_of(op.operation, ends)
            op.session.add(NoteRow(key="a", text=str(len(desk.ran))))
            op.add_event(Noted("a"), uuid="once")
        return len(desk.ran)

    return await desk.texts.capture("a")


async def test_a_commit_that_raises_after_it_happened_has_happened(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    with losing(monkeypatch):
        assert await host.desk.call("a") == 1
    assert not computed.is_consistent
    assert await host.notes() == [("a", "1")]
    (row,) = await host.log()
    assert ends == [(row.uuid, True)]


async def test_a_commit_that_raises_and_did_not_happen_is_tried_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    with losing(monkeypatch, commits=False):
        assert await host.desk.call("a") == 2
    assert not computed.is_consistent
    assert await host.notes() == [("a", "2")]
    (row,) = await host.log()
    assert sorted(ends) == [(row.uuid, False), (row.uuid, True)]


async def test_a_commit_that_can_t_be_looked_up_at_first_is_looked_up_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    with losing(monkeypatch), misled(monkeypatch, Lost()):
        assert await host.desk.call("a") == 1
    assert host.desk.ran == ["a"]
    assert not computed.is_consistent
    assert await host.notes() == [("a", "1")]
    (row,) = await host.log()
    assert ends == [(row.uuid, True)]


@pytest.mark.parametrize("answers", [(False, False), (Lost(), Lost())])
async def test_an_attempt_that_was_committed_after_all_gives_its_own_result(
    host: Host, monkeypatch: pytest.MonkeyPatch, answers: tuple[Any, ...]
) -> None:
    ends: list[tuple[str, bool | None]] = []
    computed = await prepare(host, ends)
    # The second attempt meets the first one in the log, by its event already.
    with losing(monkeypatch), misled(monkeypatch, *answers):
        assert await host.desk.call("a") == 1
    assert host.desk.ran == ["a", "a"]
    assert not computed.is_consistent
    assert await host.notes() == [("a", "1")]
    (row,) = await host.log()
    assert ends == [(row.uuid, False), (row.uuid, True)]
    assert len(await host.events()) == 1


async def test_a_commit_that_stays_in_doubt_fails(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []
    await prepare(lone_host, ends)
    with losing(monkeypatch, times=4, commits=False):
        with pytest.raises(Lost):
            await lone_host.desk.call("a")
    assert [is_committed for _, is_committed in ends] == [False] * 4
    assert await lone_host.notes() == []


async def test_a_commit_that_stays_in_doubt_leaves_nothing_stale(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = await prepare(lone_host, [])
    lone_host.operations.retries = RetryPolicy(retries=0)
    with losing(monkeypatch), misled(monkeypatch, Lost()):
        with pytest.raises(Lost):
            await lone_host.desk.call("a")
    assert not computed.is_consistent
    assert await lone_host.desk.texts("a") == ("1",)  # it did happen

    async def write() -> None:
        async with lone_host.database.operation() as op:
            op.session.add(NoteRow(key="a", text="2"))
            with op.invalidating():
                lone_host.desk.texts("a")

    with losing(monkeypatch), misled(monkeypatch, Lost()):
        with pytest.raises(Lost):
            await write()
    assert await lone_host.desk.texts("a") == ("1", "2")


async def test_a_commit_that_was_refused_is_not_looked_up(
    postgres_desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = MetaData()
    parents = Table("parents", metadata, Column("id", Integer, primary_key=True))
    key = ForeignKey("parents.id", deferrable=True, initially="DEFERRED")
    children = Table("children", metadata, Column("parent", Integer, key))
    async with desk_at(postgres_desk) as host:
        async with host.database.shard().write.begin() as connection:
            await connection.run_sync(metadata.create_all)

        async def look_up(self: DatabaseScope) -> bool:
            raise AssertionError

        monkeypatch.setattr(DatabaseScope, "_is_logged", look_up)

        @host.desk.on("a")
        async def work() -> None:
            async with host.database.operation() as op:
                await op.session.execute(insert(children).values(parent=1))

        with pytest.raises(IntegrityError):
            await host.desk.call("a")
        assert host.desk.ran == ["a"]
        assert await host.log() == await host.rows(select(parents)) == []


async def test_looking_a_commit_up_is_tried_three_times(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afresh.db.scope._VERIFICATION_DELAYS", RetryDelays.fixed(0))
    ends: list[tuple[str, bool | None]] = []
    await prepare(lone_host, ends)
    read: Any = lone_host.database.shard().read
    connect, failures = type(read).connect, 2

    def connect_late(self: Any) -> Any:
        nonlocal failures
        if self is read and failures:
            failures -= 1
            raise ConnectionRefusedError
        return connect(self)

    with losing(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(type(read), "connect", connect_late)
        assert await lone_host.desk.call("a") == 1
    assert lone_host.desk.ran == ["a"]
    assert failures == 0


async def test_a_commit_that_can_t_be_looked_up_at_all_fails(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("afresh.db.scope._VERIFICATION_DELAYS", RetryDelays.fixed(0))
    await prepare(lone_host, [])
    lone_host.operations.retries = RetryPolicy(retries=0)
    read: Any = lone_host.database.shard().read
    connect, tried = type(read).connect, 0

    def refuse(self: Any) -> Any:
        nonlocal tried
        if self is not read:
            return connect(self)
        tried += 1
        raise ConnectionRefusedError

    with losing(monkeypatch), monkeypatch.context() as patch:
        patch.setattr(type(read), "connect", refuse)
        with pytest.raises(ConnectionRefusedError):
            await lone_host.desk.call("a")
    assert tried == 3
    assert "could not be found out" in caplog.text


async def test_an_operation_that_is_not_stored_is_looked_up_by_its_marker(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = host.desk

    @desk.on("a")
    async def work() -> None:
        await desk.note("a")
        current_operation().is_stored = False

    computed = await desk.texts.capture("a")
    with losing(monkeypatch):
        await desk.call("a")
    assert desk.ran == ["a"]
    assert not computed.is_consistent
    assert await host.log() == []
    (marker,) = await host.events()
    assert marker.uuid.startswith("~op-")
    assert marker.state == 1
    assert marker.value == ""


async def test_a_commit_alone_that_raises_is_looked_up_as_well(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, bool | None]] = []

    async def write() -> None:
        async with host.database.operation() as op:
            ends_of(op.operation, ends)
            op.session.add(NoteRow(key="a"))

    with losing(monkeypatch):
        await write()
    with losing(monkeypatch, commits=False), pytest.raises(Lost):
        await write()
    assert [is_committed for _, is_committed in ends] == [True, False]
    assert await host.notes() == [("a", "")]


# -- guards


class Guard:
    """Writes a note in the transaction."""

    def __init__(self, database: str = "default", shard: str = "", fails: bool = False) -> None:
        self.database = database
        self.shard = shard
        self.is_used = False
        self.fails = fails
        self.calls = 0

    async def __call__(self, connection: Any) -> None:
        self.calls += 1
        await connection.execute(insert(NoteRow).values(key="guard"))
        if self.fails:
            raise LookupError("guarded")


def guarded(host: Host, guard: Guard) -> Any:
    return host.commander.call(Do("a"), outermost=True, items={COMMIT_GUARD: guard})


async def test_a_guard_runs_in_the_transaction_just_before_the_commit(host: Host) -> None:
    @host.desk.on("a")
    async def work() -> None:
        await host.desk.note("a")
        assert not guard.calls
        if len(host.desk.ran) == 1:
            raise Busy

    guard = Guard()
    await guarded(host, guard)
    assert (guard.is_used, guard.calls) == (True, 1)
    assert await host.notes() == [("a", ""), ("guard", "")]


async def test_a_guard_that_raises_undoes_the_operation(host: Host) -> None:
    @host.desk.on("a")
    async def work() -> None:
        await host.desk.note("a")

    guard = Guard(fails=True)
    with pytest.raises(LookupError, match="guarded"):
        await guarded(host, guard)
    assert not guard.is_used
    assert await host.notes() == await host.log() == []


@pytest.mark.parametrize("guard", [Guard(database="other"), Guard(shard="other")])
async def test_a_guard_of_another_transaction_is_not_used(lone_host: Host, guard: Guard) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        await lone_host.desk.note("a")

    await guarded(lone_host, guard)
    assert (guard.is_used, guard.calls) == (False, 0)


async def test_a_guard_is_not_used_where_there_is_no_transaction(lone_host: Host) -> None:
    @lone_host.desk.on("a")
    async def work() -> None:
        pass

    guard = Guard()
    await guarded(lone_host, guard)
    assert (guard.is_used, guard.calls) == (False, 0)


async def test_a_guard_is_used_if_a_commit_in_doubt_has_happened(
    lone_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(lone_host, [])
    guard = Guard()
    with losing(monkeypatch), misled(monkeypatch, Lost()):
        await guarded(lone_host, guard)
    assert guard.is_used
    assert [key for key, _ in await lone_host.notes()] == ["a", "guard"]
