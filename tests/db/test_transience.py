"""What databases really answer is sorted into what may pass and what may not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from asyncmy import errors as asyncmy_errors
from sqlalchemy import insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from afresh.db.engines import EngineOptions
from afresh.db.shards import Shard, open_shard
from afresh.db.transience import is_refusal, transience_of_database_error
from afresh.primitives.transience import Transience
from tests.db.shop import ItemRow, shard_with_items
from tests.servers.fixtures import kill_connections
from tests.servers.postgresql import PostgreSQL

TRANSIENT = Transience.TRANSIENT
NON_TRANSIENT = Transience.NON_TRANSIENT
UNKNOWN = Transience.UNKNOWN


class DriverError(Exception):
    """As asyncpg and psycopg have them."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("no")
        self.sqlstate = sqlstate


def wrapped(error: BaseException, *, is_lost: bool = False) -> DBAPIError:
    return OperationalError("SELECT", {}, error, connection_invalidated=is_lost)


def of_sqlite(code: int, message: str = "no") -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


@pytest.fixture
async def shard(any_database: str) -> AsyncIterator[Shard]:
    async with shard_with_items(any_database) as shard:
        yield shard


@pytest.fixture(params=["postgres", "mariadb"])
def server_database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
async def server(server_database: str) -> AsyncIterator[Shard]:
    """A database whose commands run at the same time, and lock rows."""
    async with shard_with_items(server_database) as shard:
        yield shard


@pytest.fixture(params=["sqlite", "postgres"])
def deferring_database(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_database")


@pytest.fixture
async def deferring(deferring_database: str) -> AsyncIterator[Shard]:
    """A database that checks some constraints when a transaction is committed."""
    async with shard_with_items(deferring_database) as shard:
        yield shard


# --- By numbers --------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08000", TRANSIENT),
        ("08006", TRANSIENT),
        ("40001", TRANSIENT),
        ("40P01", TRANSIENT),
        ("53300", TRANSIENT),
        ("55P03", TRANSIENT),
        ("57P01", TRANSIENT),
        ("57P02", TRANSIENT),
        ("57P03", TRANSIENT),
        ("23505", NON_TRANSIENT),
        ("42P01", NON_TRANSIENT),
        ("40003", NON_TRANSIENT),
        ("57014", NON_TRANSIENT),
        (None, UNKNOWN),
    ],
)
def test_states_of_postgresql(state: str | None, kind: Transience):
    assert transience_of_database_error(wrapped(DriverError(state))) is kind


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1205, TRANSIENT),
        (1213, TRANSIENT),
        (2006, TRANSIENT),
        (2013, TRANSIENT),
        (2003, TRANSIENT),
        (1040, TRANSIENT),
        (1062, NON_TRANSIENT),
        (1146, NON_TRANSIENT),
    ],
)
def test_numbers_of_mysql(number: int, kind: Transience):
    error = asyncmy_errors.OperationalError(number, "no")
    assert transience_of_database_error(wrapped(error)) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, TRANSIENT),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, TRANSIENT),
        (sqlite3.SQLITE_LOCKED, TRANSIENT),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, TRANSIENT),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, NON_TRANSIENT),
        (sqlite3.SQLITE_ERROR, NON_TRANSIENT),
    ],
)
def test_codes_of_sqlite(code: int, kind: Transience):
    assert transience_of_database_error(wrapped(of_sqlite(code))) is kind


def test_errors_of_libraries_and_of_the_network():
    sort = transience_of_database_error
    assert sort(StaleDataError()) is TRANSIENT
    assert sort(PoolTimeoutError()) is TRANSIENT
    assert sort(TimeoutError()) is TRANSIENT
    assert sort(ConnectionRefusedError()) is TRANSIENT
    assert sort(FileNotFoundError()) is UNKNOWN
    assert sort(wrapped(Exception("gone"), is_lost=True)) is TRANSIENT
    assert sort(wrapped(DriverError("42601"), is_lost=True)) is TRANSIENT
    assert sort(ValueError("no")) is UNKNOWN
    assert sort(ValueError(1213, "no number of a database")) is UNKNOWN
    assert sort(asyncio.CancelledError()) is NON_TRANSIENT


# --- What an error came from -------------------------------------------------


def test_a_connection_that_broke_between_two_steps_of_asyncpg_is_transient():
    told = "cannot switch to state 12; another operation (2) is in progress"
    error = wrapped(asyncpg.exceptions.InternalClientError(told))
    assert transience_of_database_error(error) is TRANSIENT
    assert not is_refusal(error)


def raised(
    error: BaseException,
    *,
    cause: BaseException | None = None,
    context: BaseException | None = None,
) -> BaseException:
    if cause is not None:
        error.__cause__ = cause
        error.__suppress_context__ = False
    error.__context__ = context
    return error


def test_what_caused_an_error_counts_and_what_it_says_itself_counts_more():
    sort = transience_of_database_error
    deadlock = wrapped(DriverError("40P01"))
    duplicate = IntegrityError("INSERT", {}, DriverError("23505"))
    assert sort(raised(ValueError("x"), cause=deadlock)) is TRANSIENT
    assert sort(raised(ValueError("x"), context=deadlock)) is TRANSIENT
    assert sort(raised(ValueError("x"), cause=duplicate, context=deadlock)) is NON_TRANSIENT
    assert sort(raised(duplicate, context=deadlock)) is NON_TRANSIENT
    far = raised(KeyError("y"), cause=deadlock)
    assert sort(raised(ValueError("x"), cause=far)) is TRANSIENT


def test_a_context_that_was_hidden_does_not_count():
    error = ValueError("x")
    try:
        try:
            raise wrapped(DriverError("40001"))
        except DBAPIError:
            raise error from None
    except ValueError:
        pass
    assert error.__context__ is not None
    assert transience_of_database_error(error) is UNKNOWN


def test_a_circle_of_causes_ends():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert transience_of_database_error(one) is UNKNOWN


def test_of_a_group_all_members_have_to_be_transient():
    sort = transience_of_database_error
    deadlock, duplicate = wrapped(DriverError("40P01")), wrapped(DriverError("23505"))
    assert sort(ExceptionGroup("both", [deadlock, StaleDataError()])) is TRANSIENT
    assert sort(ExceptionGroup("both", [deadlock, duplicate])) is NON_TRANSIENT
    assert sort(ExceptionGroup("both", [deadlock, ValueError("x")])) is NON_TRANSIENT
    inner = ExceptionGroup("inner", [deadlock])
    assert sort(ExceptionGroup("outer", [inner, TimeoutError()])) is TRANSIENT
    assert sort(raised(ValueError("x"), cause=inner)) is TRANSIENT


def test_what_an_error_says_of_itself_goes_first():
    error: Any = wrapped(DriverError("40P01"))
    error.transience = Transience.TERMINAL
    assert transience_of_database_error(error) is Transience.TERMINAL


# --- What the servers really answer ------------------------------------------


async def outcomes(*works: Any) -> list[Any]:
    return await asyncio.gather(*works, return_exceptions=True)


async def test_a_deadlock_is_transient(server: Shard):
    barrier = asyncio.Barrier(2)

    async def change(*ids: int) -> None:
        async with server.write.begin() as connection:
            for id in ids:
                await connection.execute(update(ItemRow).where(ItemRow.id == id).values(stock=0))
                if id == ids[0]:
                    await barrier.wait()

    results = await outcomes(change(1, 2), change(2, 1))
    errors = [error for error in results if error is not None]
    assert len(errors) == 1
    assert transience_of_database_error(errors[0]) is TRANSIENT
    assert is_refusal(errors[0])


async def test_a_serialization_failure_is_transient(postgres_database: str):
    async with shard_with_items(postgres_database) as shard:
        barrier = asyncio.Barrier(2)

        async def change(id: int) -> None:
            connection = await shard.connect("SERIALIZABLE")
            try:
                async with connection.begin():
                    await connection.execute(select(ItemRow.stock))
                    await barrier.wait()
                    await connection.execute(
                        update(ItemRow).where(ItemRow.id == id).values(stock=0)
                    )
                    await barrier.wait()
            finally:
                await connection.close()

        results = await outcomes(change(1), change(2))
        (error,) = [error for error in results if error is not None]
        assert transience_of_database_error(error) is TRANSIENT
        assert is_refusal(error)  # it may come from the COMMIT


async def test_a_lock_that_is_not_to_be_had_is_transient(server: Shard):
    async with server.write.begin() as holder:
        await holder.execute(update(ItemRow).values(stock=0))
        with pytest.raises(DBAPIError) as caught:
            async with server.write.begin() as connection:
                await connection.execute(select(ItemRow.id).with_for_update(nowait=True))
    assert transience_of_database_error(caught.value) is TRANSIENT


async def test_a_file_that_another_process_writes_to_is_transient(sqlite_database: str):
    async with shard_with_items(sqlite_database):
        pass
    shard = open_shard("", sqlite_database, options=EngineOptions(busy_timeout=0.1))
    other = sqlite3.connect(make_url(sqlite_database).database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError) as caught:
        async with shard.write.begin():
            pass
    other.close()
    await shard.aclose()
    assert transience_of_database_error(caught.value) is TRANSIENT


async def test_a_connection_that_is_cut_is_transient_and_leaves_a_commit_in_doubt(
    postgres_server: PostgreSQL,
):
    async with shard_with_items(postgres_server.url) as shard:
        connection = await shard.connect()
        transaction = await connection.begin()
        await connection.execute(update(ItemRow).values(stock=0))
        await kill_connections(postgres_server.url)
        with pytest.raises(DBAPIError) as caught:
            await transaction.commit()
        await connection.close()
        assert transience_of_database_error(caught.value) is TRANSIENT
        assert not is_refusal(caught.value)


async def test_a_server_that_is_down_is_transient(postgres_server: PostgreSQL):
    async with shard_with_items(postgres_server.url) as shard:
        postgres_server.stop()
        for engine in (shard.write, shard.read):
            for _ in range(2):  # a connection that was there, and a new one
                with pytest.raises(Exception) as caught:
                    async with engine.connect() as connection:
                        await connection.execute(text("SELECT 1"))
                assert transience_of_database_error(caught.value) is TRANSIENT
        postgres_server.start()
        async with shard.write.begin() as connection:
            await connection.execute(update(ItemRow).values(stock=0))


async def test_a_killed_connection_of_mariadb_is_transient(mariadb_database: str):
    async with shard_with_items(mariadb_database) as shard:
        connection = await shard.connect()
        transaction = await connection.begin()
        number = await connection.scalar(text("SELECT connection_id()"))
        async with shard.write.connect() as other:
            await other.execute(text(f"KILL {number}"))
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(select(ItemRow))
        assert transience_of_database_error(caught.value) is TRANSIENT
        assert not is_refusal(caught.value)
        await transaction.rollback()
        await connection.close()


async def test_a_pool_that_is_empty_for_too_long_is_transient(sqlite_database: str):
    shard = open_shard("", sqlite_database, options=EngineOptions(pool_timeout=0.05))
    async with shard.write.begin():
        with pytest.raises(PoolTimeoutError) as caught:
            await shard.connect()
    assert transience_of_database_error(caught.value) is TRANSIENT
    await shard.aclose()


async def test_what_a_statement_does_wrong_is_not_transient(shard: Shard):
    duplicate = insert(ItemRow).values(id=1, name="other")
    for statement in (duplicate, text("SELECT * FROM nowhere"), text("SELEKT")):
        with pytest.raises((IntegrityError, ProgrammingError, OperationalError)) as caught:
            async with shard.write.begin() as connection:
                await connection.execute(statement)
        assert transience_of_database_error(caught.value) is NON_TRANSIENT


async def test_a_constraint_that_is_checked_at_the_commit_refuses_it(deferring: Shard):
    async with deferring.write.begin() as connection:
        await connection.execute(
            text(
                "CREATE TABLE lines (item INTEGER REFERENCES items (id) "
                "DEFERRABLE INITIALLY DEFERRED)"
            )
        )
    connection = await deferring.connect()
    transaction = await connection.begin()
    await connection.execute(text("INSERT INTO lines VALUES (77)"))
    with pytest.raises(IntegrityError) as caught:
        await transaction.commit()
    await connection.close()
    assert is_refusal(caught.value)
    assert transience_of_database_error(caught.value) is NON_TRANSIENT
    async with deferring.write.begin() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM lines")) == 0


@pytest.mark.parametrize("state", ["08006", "40003", "57P01", "58030", "XX000", "53100"])
def test_states_after_which_a_commit_is_in_doubt(state: str):
    assert not is_refusal(wrapped(DriverError(state)))


@pytest.mark.parametrize("state", ["40001", "40P01", "23503", "23505", "P0001", "57014"])
def test_states_that_refuse_a_commit(state: str):
    assert is_refusal(wrapped(DriverError(state)))
    assert is_refusal(wrapped(DriverError(state), is_lost=True))  # an answer is an answer


def test_other_errors_leave_a_commit_in_doubt():
    for error in (
        TimeoutError(),
        ConnectionResetError(),
        ValueError(1213),
        asyncio.CancelledError(),
        wrapped(asyncmy_errors.OperationalError(2013, "lost")),
        wrapped(of_sqlite(sqlite3.SQLITE_IOERR)),
    ):
        assert not is_refusal(error)
    assert is_refusal(wrapped(asyncmy_errors.OperationalError(1213, "deadlock")))
    assert is_refusal(wrapped(of_sqlite(sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY)))
