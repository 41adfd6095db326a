"""Which rows each kind of statement is seen to change, and which of that is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    column,
    delete,
    func,
    insert,
    select,
    table,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from afresh.db.tracking import EVERYTHING, FollowedSession, Row, TableName, Write, WriteRecorder
from afresh.errors import InvalidStateError
from tests.db.tracking.shop import Item, Order, User


def row(**values: Any) -> Row:
    """A row; a value stands for the set of it alone."""
    return {
        name: frozenset(value if isinstance(value, (set, frozenset)) else {value})
        for name, value in values.items()
    }


def write(name: str, *rows: Row) -> Write:
    """A write of rows of the default database, of the whole table without them."""
    return Write(TableName("default", name), rows or None)


WHOLE = write(EVERYTHING)


async def writes_of(
    engine: AsyncEngine, statement: Any, parameters: Any = None, **options: Any
) -> list[Write]:
    async with AsyncSession(engine, sync_session_class=FollowedSession) as session:
        recorder = WriteRecorder(await session.connection())
        recorder.follow(session)
        await session.execute(statement, parameters, execution_options=options)
        return sorted(recorder.writes, key=lambda each: each.table)


@pytest.fixture
async def session(engine: AsyncEngine) -> Any:
    """Of a shop with users 1 and 2, order 5 of user 1, and its item 9; nothing is loaded."""
    async with AsyncSession(engine) as filling:
        filling.add_all([User(id=1, name="a"), User(id=2, name="b")])
        await filling.flush()
        filling.add(Order(id=5, user_id=1))
        await filling.flush()
        filling.add(Item(id=9, order_id=5))
        await filling.commit()
    async with AsyncSession(engine, sync_session_class=FollowedSession) as opened:
        yield opened


async def test_an_insert_has_all_its_values_and_the_key_that_it_got(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        recorder = WriteRecorder(await session.connection())
        session.add(Order(user_id=1, total=3))
        await session.flush()
        assert recorder.writes == (write("orders", row(id=1, user_id=1)),)
        session.add_all([Order(user_id=2), Order(user_id=None), Order(id=7, user_id=3)])
        await session.flush()
        (found,) = recorder.writes
    assert found.rows is not None
    assert {tuple(sorted(each.items())) for each in found.rows} == {
        tuple(sorted(row(id=key, user_id=user).items()))
        for key, user in ((1, 1), (2, 2), (3, None), (7, 3))
    }


async def test_inserts_of_many_rows_have_the_values_of_each(engine: AsyncEngine) -> None:
    orders = Order.__table__
    two = [{"id": 1, "user_id": 1}, {"id": 2, "user_id": 2}]
    expected = [write("orders", row(id=1, user_id=1), row(id=2, user_id=2))]
    assert await writes_of(engine, insert(orders), two) == expected
    assert await writes_of(engine, insert(Order), two) == expected
    assert await writes_of(engine, insert(orders).values(two)) == expected
    assert await writes_of(engine, insert(Order).values(two)) == expected
    assert await writes_of(engine, insert(Order).returning(Order.id), two) == expected


async def test_a_value_that_the_database_computes_may_be_any(engine: AsyncEngine) -> None:
    statement = insert(Order).values(id=1, user_id=func.abs(2), status="new")
    assert await writes_of(engine, statement) == [write("orders", row(id=1, status="new"))]


@pytest.mark.parametrize(
    "statement",
    [
        insert(Order).from_select(["user_id", "total"], select(User.id, User.id)),
        upsert(Order).values(id=1).on_conflict_do_nothing(),
    ],
)
async def test_inserts_whose_rows_are_not_known_change_the_whole_table(
    engine: AsyncEngine, statement: Any
) -> None:
    found = await writes_of(engine, statement)
    assert write("orders") in found


async def test_what_replaces_rows_changes_what_hangs_on_them(engine: AsyncEngine) -> None:
    both = [write("items"), write("orders")]
    assert await writes_of(engine, insert(Order).prefix_with("OR REPLACE").values(id=1)) == both
    change = upsert(Order).values(id=1).on_conflict_do_update(["id"], set_={"total": 1})
    assert await writes_of(engine, change) == both
    statement = update(User).prefix_with("OR REPLACE").where(User.id == 1).values(id=2)
    assert await writes_of(engine, statement) == [write("users")]


async def test_a_flush_fills_in_what_the_object_was_loaded_with(session: AsyncSession) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    order = await session.get_one(Order, 5)
    order.total = 8
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5, user_id=1, status="new")),)


async def test_without_a_session_only_what_the_statement_names_is_known(
    session: AsyncSession,
) -> None:
    recorder = WriteRecorder(await session.connection())
    order = await session.get_one(Order, 5)
    order.total = 8
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5)),)


async def test_of_a_changed_key_the_old_and_the_new_value_count(session: AsyncSession) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    order = await session.get_one(Order, 5)
    order.user_id = 2
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5, user_id={1, 2}, status="new")),)


async def test_a_changed_primary_key_counts_with_both(session: AsyncSession) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    user = await session.get_one(User, 2)
    user.id = 3
    await session.flush()
    assert recorder.writes == (write("users", row(id={2, 3}, name="b")),)


async def test_an_object_from_before_is_not_trusted(session: AsyncSession) -> None:
    """It may be behind what others have committed since."""
    order = await session.get_one(Order, 5)
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    order.user_id = 2
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5)),)


async def test_a_value_that_was_never_loaded_may_have_been_any(session: AsyncSession) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    order = await session.get_one(Order, 5)
    session.expire(order, ["user_id"])
    order.user_id = 2
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5, status="new")),)


async def test_a_computed_column_changes_unnamed(session: AsyncSession) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    item = await session.get_one(Item, 9)
    item.quantity = 4
    await session.flush()
    (found,) = recorder.writes
    assert found.rows == (row(id=9, order_id=5, product=""),)


async def test_a_delete_counts_as_the_old_row_and_carries_on(session: AsyncSession) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    order = await session.get_one(Order, 5)
    order.user_id = 2
    await session.delete(order)
    await session.flush()
    assert set(recorder.writes) == {
        write("orders", row(id=5, user_id={1, 2}, status="new")),
        write("items"),
    }


async def test_an_update_has_its_pins_and_what_it_sets(engine: AsyncEngine) -> None:
    statement = update(Order).where(Order.user_id == 1)
    assert await writes_of(engine, statement.values(total=2)) == [write("orders", row(user_id=1))]
    assert await writes_of(engine, statement.values(user_id=2)) == [
        write("orders", row(user_id={1, 2}))
    ]
    assert await writes_of(engine, statement.values(user_id=Order.total)) == [
        write("orders", row())
    ]
    assert await writes_of(engine, statement.values(status="paid")) == [
        write("orders", row(user_id=1))
    ]
    assert await writes_of(engine, update(Order).values(total=0)) == [write("orders", row())]
    many = update(Order.__table__).where(Order.id.in_([1, 2])).values(total=1)
    assert await writes_of(engine, many) == [write("orders", row(id={1, 2}))]


async def test_an_update_of_many_rows_by_key_has_each(session: AsyncSession) -> None:
    recorder = WriteRecorder(await session.connection())
    await session.execute(update(User), [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}])
    assert recorder.writes == (write("users", row(id=1), row(id=2)),)


async def test_a_core_delete_has_its_pins(engine: AsyncEngine) -> None:
    assert await writes_of(engine, delete(Item).where(Item.order_id == 5)) == [
        write("items", row(order_id=5))
    ]
    assert await writes_of(engine, delete(Item).where(Item.quantity == 5)) == [
        write("items", row())
    ]


async def test_a_change_inside_a_query_is_of_the_whole_table(engine: AsyncEngine) -> None:
    changed = insert(Order).values(id=1).returning(Order.id).cte()
    from afresh.db.tracking.changes import plan_change

    compiled = select(changed.c.id).compile(dialect=engine.dialect)
    plan = plan_change(compiled)  # SQLite itself does not run it
    assert (plan.whole, plan.rows) == ({Order.__table__, Item.__table__}, None)


async def test_raw_sql_changes_everything_unless_it_says_what(engine: AsyncEngine) -> None:
    change = text("UPDATE orders SET total = 1")
    assert await writes_of(engine, change) == [WHOLE]
    assert await writes_of(engine, change, touches=[Order]) == [write("orders")]
    assert await writes_of(engine, change, touches=()) == []
    assert await writes_of(engine, text("SELECT 1")) == []
    assert await writes_of(engine, text("WITH a AS (SELECT 1) SELECT * FROM a")) == [WHOLE]
    returning = text("UPDATE orders SET total = 1 RETURNING id").columns(Order.id)
    assert await writes_of(engine, returning) == [WHOLE]
    assert await writes_of(engine, select(Order).from_statement(returning)) == [WHOLE]
    assert await writes_of(engine, update(table("orders", column("id"))).values(id=1)) == [WHOLE]


async def test_what_a_trigger_does_is_added_by_name(engine: AsyncEngine) -> None:
    statement = update(Order).where(Order.id == 1).values(total=1)
    assert await writes_of(engine, statement, touches="users") == [
        write("orders", row(id=1)),
        write("users"),
    ]
    assert await writes_of(engine, select(Order), touches="users") == []
    assert await writes_of(engine, statement, touches=()) == []


async def test_statements_of_the_driver_and_ddl_change_everything(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        recorder = WriteRecorder(connection)
        await connection.exec_driver_sql("SELECT 1")
        assert recorder.writes == ()
        await connection.exec_driver_sql("UPDATE orders SET total = 1")
        assert recorder.writes == (WHOLE,)
        await connection.rollback()
        await connection.run_sync(Table("t", MetaData(), Column("id", Integer)).create)
        assert recorder.writes == (WHOLE,)


async def test_many_rows_are_the_whole_table(engine: AsyncEngine) -> None:
    def numbered(count: int) -> list[dict[str, int]]:
        return [{"id": number, "user_id": 1} for number in range(count)]

    (some,) = await writes_of(engine, insert(Order), numbered(2000))
    assert some.rows is not None
    assert len(some.rows) == 2000
    assert await writes_of(engine, insert(Order), numbered(2001)) == [write("orders")]
    async with AsyncSession(engine) as session:
        recorder = WriteRecorder(await session.connection())
        await session.execute(insert(Order), numbered(2000))
        nested = await session.begin_nested()
        await session.execute(insert(Order), [{"id": 3000, "user_id": 1}])
        assert recorder.writes == (write("orders"),)
        await nested.rollback()
        assert recorder.writes == (some,)


async def test_a_savepoint_rolled_back_takes_its_writes_along(engine: AsyncEngine) -> None:
    kept = (write("users", row(id=3, name="c"), row(id=4, name="d")),)
    async with engine.connect() as connection, AsyncSession(connection) as session:
        recorder = WriteRecorder(connection)
        session.add(User(id=3, name="c"))
        async with session.begin_nested():
            session.add(User(id=4, name="d"))
        outer = await session.begin_nested()
        session.add(User(id=5, name="e"))
        async with session.begin_nested():
            session.add(User(id=6, name="f"))
        await outer.rollback()
        assert recorder.writes == kept


async def test_a_retried_attempt_starts_clean(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        for name in ("c", "d"):
            async with AsyncSession(connection) as session:
                recorder = WriteRecorder(connection)
                session.add(User(id=3, name=name))
                await session.flush()
                assert recorder.writes == (write("users", row(id=3, name=name)),)
                await session.rollback()


async def test_all_tasks_and_sessions_of_a_connection_are_seen_and_no_other_connection(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    connection = await session.connection()
    recorder = WriteRecorder(connection)
    await asyncio.create_task(session.execute(delete(Item).where(Item.order_id == 5)))
    async with AsyncSession(connection) as nested:
        await nested.execute(delete(Order).where(Order.user_id == 1))
    await session.commit()
    await session.execute(delete(User).where(User.id == 1))
    assert set(recorder.writes) == {write("items"), write("orders", row(user_id=1))}


async def test_of_many_rows_some_may_be_changed_by_a_statement_that_fails(
    session: AsyncSession,
) -> None:
    recorder = WriteRecorder(await session.connection())
    rows = [{"id": 3, "name": "c"}, {"id": 1, "name": "again"}]
    with pytest.raises(IntegrityError):
        await session.execute(insert(User.__table__), rows)
    assert (await session.execute(select(User.name).where(User.id == 3))).all() == [("c",)]
    assert recorder.writes == (write("users", row(id=3, name="c"), row(id=1, name="again")),)
    with pytest.raises(OperationalError):
        await session.execute(text("UPDATE nothing SET a = 1"))
    assert recorder.writes == (WHOLE,)


async def test_no_object_is_trusted_after_raw_sql_may_have_undone_something(
    session: AsyncSession,
) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    await session.execute(text("SAVEPOINT own"))
    order = await session.get_one(Order, 5)
    order.total = 3
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5)),)


async def test_a_recorder_needs_a_connection_that_is_started(engine: AsyncEngine) -> None:
    with pytest.raises(InvalidStateError, match="await it"):
        WriteRecorder(engine.connect())


@pytest.mark.parametrize(
    ("dialect", "isolation", "asks"),
    [
        ("sqlite", None, True),
        ("postgresql", None, False),
        ("postgresql", "READ COMMITTED", False),
        ("postgresql", "repeatable_read", True),
        ("postgresql", "SERIALIZABLE", True),
        ("mysql", "REPEATABLE READ", False),
        ("mysql", "SERIALIZABLE", True),
        ("oracle", "SERIALIZABLE", False),
    ],
)
async def test_objects_are_asked_where_no_row_can_change_behind_them(
    session: AsyncSession, dialect: str, isolation: str | None, asks: bool
) -> None:
    connection = await session.connection()
    name, connection.dialect.name = connection.dialect.name, dialect
    try:
        recorder = WriteRecorder(connection, isolation)
    finally:
        connection.dialect.name = name
    recorder.follow(session)
    order = await session.get_one(Order, 5)
    order.total = 8
    await session.flush()
    (found,) = recorder.writes
    assert found.rows == (row(id=5, user_id=1, status="new") if asks else row(id=5),)


async def test_rows_changed_behind_an_object_count_with_what_the_others_did(
    session: AsyncSession,
) -> None:
    """What the object takes for the row of user 1 was made one of user 2 by another statement."""
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    order = await session.get_one(Order, 5)
    await session.execute(update(Order.__table__).where(Order.id == 5).values(user_id=2))
    order.status = "paid"
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5, user_id={1, 2}, status={"new", "paid"})),)


async def test_no_object_is_trusted_when_its_row_may_be_among_those_changed(
    session: AsyncSession,
) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    order = await session.get_one(Order, 5)
    change = update(Order.__table__).where(Order.user_id == 1, Order.status == "new")
    await session.execute(change.values(user_id=2))
    order.status = "paid"
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5), row(user_id={1, 2}, status="new")),)


async def test_no_object_is_trusted_after_a_savepoint_was_rolled_back(
    session: AsyncSession,
) -> None:
    recorder = WriteRecorder(await session.connection())
    recorder.follow(session)
    nested = await session.begin_nested()
    await session.execute(update(Order.__table__).where(Order.id == 5).values(user_id=2))
    order = await session.get_one(Order, 5)
    await nested.rollback()
    order.total = 3
    await session.flush()
    assert recorder.writes == (write("orders", row(id=5)),)


def test_cascades_are_followed_to_their_ends() -> None:
    from afresh.db.tracking.cascades import changed_by_delete, changed_by_update

    data = MetaData()
    a = Table("a", data, Column("id", Integer, primary_key=True), Column("name", String))
    b = Table(
        "b",
        data,
        Column("id", ForeignKey("a.id", ondelete="cascade", onupdate="CASCADE"), primary_key=True),
    )
    c = Table("c", data, Column("b", ForeignKey("b.id", ondelete="SET NULL", onupdate="CASCADE")))
    Table("d", data, Column("a", ForeignKey("a.id", ondelete="RESTRICT", onupdate="NO ACTION")))
    assert changed_by_delete(a) == {b, c}
    assert changed_by_delete(b) == {c}
    assert changed_by_update(a, {"id"}) == {b, c}
    assert changed_by_update(a, {"name"}) == set()
    itself = Table("tree", data, Column("id", Integer, primary_key=True))
    itself.append_column(Column("up", ForeignKey("tree.id", ondelete="CASCADE")))
    assert changed_by_delete(itself) == {itself}


async def test_a_table_that_is_added_later_is_reached_by_cascades(engine: AsyncEngine) -> None:
    data = MetaData()
    first = Table("first", data, Column("id", Integer, primary_key=True))
    async with engine.begin() as connection:
        await connection.run_sync(data.create_all)
    statement = delete(first).where(first.c.id == 1)
    assert await writes_of(engine, statement) == [write("first", row(id=1))]
    Table("second", data, Column("up", ForeignKey("first.id", ondelete="CASCADE")))
    assert await writes_of(engine, statement) == [write("first", row(id=1)), write("second")]
