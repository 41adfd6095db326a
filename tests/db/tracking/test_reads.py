"""What each kind of query is seen to read; with SQLAlchemy and SQLite as they are."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Awaitable, Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    text,
    tuple_,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import aliased, joinedload, selectinload

from afresh.db.tracking import EVERYTHING, Read, ReadRecorder, TableName, track
from afresh.db.tracking.values import UNKNOWN, converter
from afresh.errors import InvalidStateError
from tests.db.tracking.shop import Item, Order, User

Query = Callable[[AsyncSession], Awaitable[Any]]


def read(name: str, /, **pins: Any) -> Read:
    """A read of the default database; a value stands for the set of it alone."""
    return Read(
        TableName("default", name),
        {
            column: frozenset(values if isinstance(values, (set, frozenset)) else {values})
            for column, values in pins.items()
        },
    )


WHOLE = Read(TableName("default", EVERYTHING))


async def reads_of(engine: AsyncEngine, query: Any, **options: Any) -> set[Read]:
    """What a statement, or an async function of a session, reads."""
    async with AsyncSession(engine) as session:
        with ReadRecorder() as recorder:
            if callable(query):
                await query(session)
            else:
                await session.execute(query, execution_options=options)
    return set(recorder.reads)


async def test_an_equality_pins_and_an_inequality_does_not(engine: AsyncEngine) -> None:
    query = select(Order).where(Order.user_id == 1, Order.total > 3)
    assert await reads_of(engine, query) == {read("orders", user_id=1)}


async def test_a_value_may_stand_on_the_left(engine: AsyncEngine) -> None:
    query = select(Order.id).where(literal(1) == Order.user_id)
    assert await reads_of(engine, query) == {read("orders", user_id=1)}


async def test_a_column_without_an_index_pins_nothing(engine: AsyncEngine) -> None:
    assert await reads_of(engine, select(Order).where(Order.total == 3)) == {read("orders")}


async def test_a_get_pins_the_primary_key(engine: AsyncEngine) -> None:
    assert await reads_of(engine, lambda session: session.get(Order, 1)) == {read("orders", id=1)}


async def test_a_repeated_statement_pins_the_values_of_each_time(engine: AsyncEngine) -> None:
    """The compiled statement, and the plan, are the first one's."""
    for key in (1, 2, 3):
        query = select(Order).where(Order.user_id == key, Order.id.in_([key, key + 1][:key]))
        ids = frozenset([key, key + 1][:key])
        assert await reads_of(engine, query) == {read("orders", user_id=key, id=ids)}


async def test_a_join_pins_each_table_for_itself(engine: AsyncEngine) -> None:
    query = select(func.sum(Item.quantity)).join(Item.order).where(Order.user_id == 1)
    assert await reads_of(engine, query) == {read("orders", user_id=1), read("items")}


async def test_joined_loading_reads_both_tables(engine: AsyncEngine) -> None:
    async def query(session: AsyncSession) -> None:
        await session.get(Order, 1, options=[joinedload(Order.user)])

    assert await reads_of(engine, query) == {read("orders", id=1), read("users")}


async def test_select_in_loading_pins_the_keys_that_it_loads(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add_all([User(id=1, name="a"), User(id=2, name="a")])
        await session.flush()
        session.add_all([Order(id=7, user_id=1), Order(id=8, user_id=2)])
        await session.commit()
    query = select(User).where(User.name == "a").options(selectinload(User.orders))
    assert await reads_of(engine, query) == {
        read("users", name="a"),
        read("orders", user_id={1, 2}),
    }


async def test_lazy_loading_reads_its_own_statement(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(User(id=1, name="a"))
        await session.commit()

    async def query(session: AsyncSession) -> None:
        user = await session.get_one(User, 1)
        await session.run_sync(lambda _: user.orders)

    assert await reads_of(engine, query) == {read("users", id=1), read("orders", user_id=1)}


inner_users = select(User.id).where(User.name == "a")


@pytest.mark.parametrize(
    "query",
    [
        select(Order).where(Order.id == 1, Order.user_id == inner_users.scalar_subquery()),
        select(Order).where(Order.id == 1, Order.user_id.in_(inner_users)),
        select(Order).join(cte := inner_users.cte(), cte.c.id == Order.user_id),
        select(Order).join(sub := inner_users.subquery(), sub.c.id == Order.user_id),
        select(Order).where(Order.id == 1, Order.user.has(User.name == "a")),
        select(Order).where(Order.id == 1, exists().where(User.id == Order.user_id)),
        select(Order.id).where(Order.id == 1).union(inner_users),
        select(Order.id, select(func.count(User.id)).scalar_subquery()).where(Order.id == 1),
    ],
)
async def test_with_queries_inside_all_tables_are_read_whole(
    engine: AsyncEngine, query: Any
) -> None:
    assert await reads_of(engine, query) == {read("orders"), read("users")}


async def test_what_the_orm_joins_inside_an_inner_query_is_read(engine: AsyncEngine) -> None:
    """An inner query is compiled on its own: only the text shows what became of it."""
    from sqlalchemy.orm import with_loader_criteria

    query = (
        select(Order.id)
        .where(Order.id == 1, Order.user_id.in_(select(User.id)))
        .options(with_loader_criteria(User, User.id.in_(select(Item.quantity))))
    )
    assert await reads_of(engine, query) == {read("orders"), read("users"), read("items")}


async def test_an_alias_is_the_table_behind_it(engine: AsyncEngine) -> None:
    other = aliased(Order)
    query = select(other).where(other.id == 1)
    assert await reads_of(engine, query) == {read("orders", id=1)}
    query = select(Order.id, other.id).where(Order.user_id == 1, Order.total == other.total)
    assert await reads_of(engine, query) == {read("orders", user_id=1), read("orders")}


async def test_alternatives_pin_nothing(engine: AsyncEngine) -> None:
    query = select(Order).where(or_(Order.id == 1, Order.id == 2))
    assert await reads_of(engine, query) == {read("orders")}


async def test_of_nested_conditions_all_count_that_must_hold(engine: AsyncEngine) -> None:
    query = select(Order).where(
        and_(Order.user_id == 1, and_(Order.id == 2, or_(Order.total == 1, Order.total == 2)))
    )
    assert await reads_of(engine, query) == {read("orders", user_id=1, id=2)}


async def test_conditions_on_one_column_pin_what_they_share(engine: AsyncEngine) -> None:
    query = select(Order).where(Order.id.in_([1, 2]), Order.id == 2)
    assert await reads_of(engine, query) == {read("orders", id=2)}


async def test_in_pins_its_values_up_to_a_limit(engine: AsyncEngine) -> None:
    some = select(Order).where(Order.id.in_(range(50)))
    assert await reads_of(engine, some) == {read("orders", id=set(range(50)))}
    many = select(Order).where(Order.id.in_(range(51)), Order.user_id == 1)
    assert await reads_of(engine, many) == {read("orders", user_id=1)}


@pytest.mark.parametrize(
    "condition",
    [
        Order.id != 1,
        Order.id.not_in([1]),
        ~(Order.id == 1),
        Order.id > 1,
        Order.id.between(1, 1),
        Order.id == Order.user_id,
        Order.id + 0 == 1,
        cast(Order.id, String) == "1",
        Order.id == func.abs(1),
        Order.id.is_not_distinct_from(1),
        tuple_(Order.id, Order.user_id).in_([(1, 1)]),
        User.email == "a",
        User.name.collate("NOCASE") == "a",
        User.name == literal("a").collate("NOCASE"),
        func.lower(User.name) == "a",
        User.name.like("a"),
        Order.id == "1",
        Order.id == 1.0,
        Order.id == Decimal(1),
        User.name == 1,
        User.name == "longer than the twenty that the column can have",
        text("orders.id = 1"),
        literal_column("orders.id") == 1,
    ],
)
async def test_whatever_is_in_doubt_pins_nothing(engine: AsyncEngine, condition: Any) -> None:
    found = await reads_of(
        engine,
        select(Order.id, User.id).join_from(Order, User, User.id == Order.total).where(condition),
    )
    assert found == {read("orders"), read("users")}


async def test_null_is_pinned_by_is_and_matched_by_nothing_else(engine: AsyncEngine) -> None:
    null = select(Order).where(Order.user_id.is_(None))
    assert await reads_of(engine, null) == {read("orders", user_id={None})}
    equal = select(Order).where(Order.user_id == bindparam("key", None, Integer()))
    assert await reads_of(engine, equal) == {read("orders", user_id=set())}
    some = select(Order).where(Order.user_id.in_(bindparam("some", [1, None], expanding=True)))
    assert await reads_of(engine, some) == {read("orders", user_id={1})}


async def test_null_beyond_an_outer_join_may_be_a_missing_row(engine: AsyncEngine) -> None:
    query = select(User.id).outerjoin(User.orders).where(Order.user_id.is_(None))
    assert await reads_of(engine, query) == {read("users"), read("orders")}
    query = select(User.id).outerjoin(User.orders).where(Order.user_id == 1)
    assert await reads_of(engine, query) == {read("users"), read("orders", user_id=1)}
    query = select(Order.id).outerjoin(Order.items).where(Order.user_id.is_(None))
    assert await reads_of(engine, query) == {read("orders", user_id={None}), read("items")}


async def test_raw_sql_reads_everything_unless_it_says_what(engine: AsyncEngine) -> None:
    query = text("SELECT id FROM orders")
    assert await reads_of(engine, query) == {WHOLE}
    assert await reads_of(engine, query, touches=()) == set()
    for touches in ("orders", ["orders"], Order, [Order.__table__], "main.orders", ("ORDERS",)):
        assert await reads_of(engine, query, touches=touches) == {read("orders")}
    both = query.columns(Order.id).execution_options(touches=[User, Order])
    assert await reads_of(engine, both) == {read("orders"), read("users")}
    assert await reads_of(engine, select(Order).from_statement(query)) == {WHOLE}


async def test_what_names_no_table_is_refused(engine: AsyncEngine) -> None:
    with pytest.raises(TypeError, match=r"42.*mapped classes"):
        await reads_of(engine, text("SELECT 1"), touches=[42])
    with pytest.raises(TypeError, match="mapped classes"):
        await reads_of(engine, text("SELECT 1"), touches=int)


async def test_statements_of_the_driver_read_everything(engine: AsyncEngine) -> None:
    with ReadRecorder() as recorder:
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
            await connection.exec_driver_sql("SELECT 2", execution_options={"touches": "users"})
    assert recorder.reads == (WHOLE, read("users"))


@pytest.mark.parametrize(
    "query",
    [
        select(Order.id).where(text("id IN (SELECT order_id FROM items)")),
        select(Order.id).where(literal_column("(SELECT count(*) FROM items)") > 1),
        select(text("id")).select_from(text("orders")),
        select(Order.id).where(Order.id.in_(select(text("id")).select_from(text("items")))),
        select(Order.id).prefix_with(text("(SELECT max(id) FROM items),")),
    ],
)
async def test_text_that_may_bring_in_tables_reads_everything(
    engine: AsyncEngine, query: Any
) -> None:
    assert await reads_of(engine, query) == {WHOLE}


class HiddenQuery(ColumnElement[int]):
    """An element that shows nothing of what it is compiled to."""

    inherit_cache = True
    type = Integer()


@compiles(HiddenQuery)
def compile_hidden_query(element: HiddenQuery, compiler: Any, **_: Any) -> str:
    return "(SELECT count(*) FROM items)"


async def test_a_query_seen_in_the_text_alone_reads_tables_whole(engine: AsyncEngine) -> None:
    query = select(HiddenQuery()).where(Order.id == 1)
    assert await reads_of(engine, query) == {read("orders"), read("items")}


async def test_text_that_can_not_bring_in_tables_does_no_harm(engine: AsyncEngine) -> None:
    query = select(func.count(literal_column("*")), text("total")).where(Order.id == 1)
    assert await reads_of(engine, query) == {read("orders", id=1)}


async def test_a_light_table_is_the_one_of_its_name(engine: AsyncEngine) -> None:
    query = select(literal_column("id")).select_from(table("Orders"))
    assert await reads_of(engine, query) == {read("orders")}


async def test_a_name_in_touches_adds_to_what_is_seen(engine: AsyncEngine) -> None:
    query = select(Order).where(Order.id == 1)
    assert await reads_of(engine, query, touches="users") == {
        read("orders", id=1),
        read("users"),
    }


async def test_ddl_and_savepoints_read_nothing(engine: AsyncEngine) -> None:
    async def query(session: AsyncSession) -> None:
        connection = await session.connection()
        await connection.run_sync(Table("t", MetaData(), Column("id", Integer)).create, False)
        async with session.begin_nested():
            pass

    assert await reads_of(engine, query) - {WHOLE} == set()


async def test_a_read_is_on_record_before_its_statement_runs(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit in between would be missed for ever otherwise."""
    order: list[Any] = []
    execute = engine.dialect.do_execute

    def run(*arguments: Any) -> None:
        order.append("runs")
        execute(*arguments)

    monkeypatch.setattr(engine.dialect, "do_execute", run)
    async with AsyncSession(engine) as session:
        await session.connection()
        order.clear()
        with ReadRecorder(order.append):
            await session.execute(select(Order).where(Order.id == 1))
            await session.execute(select(Order).where(Order.id == 1))
    assert order == [read("orders", id=1), "runs", "runs"]


async def test_a_read_of_a_failing_statement_is_on_record(engine: AsyncEngine) -> None:
    from sqlalchemy.exc import OperationalError

    missing = Table("missing", MetaData(), Column("id", Integer, primary_key=True))
    with ReadRecorder() as recorder:
        async with engine.connect() as connection:
            with pytest.raises(OperationalError):
                await connection.execute(select(missing))
    assert read("missing") in recorder.reads


async def test_databases_and_schemas_are_part_of_the_name() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    stop = track(engine, "shard 7")
    query = select(Order.__table__).where(Order.id == 1)

    def attach(connection: Connection) -> None:
        connection.exec_driver_sql("ATTACH ':memory:' AS other")
        Order.metadata.create_all(connection)
        Order.metadata.create_all(
            connection.execution_options(schema_translate_map={None: "other"})
        )

    async with engine.connect() as connection:
        await connection.run_sync(attach)
        with ReadRecorder() as recorder:
            await connection.execute(query)
            await connection.execute(
                query, execution_options={"schema_translate_map": {None: "main"}}
            )
    pins = {"id": frozenset({1})}
    assert set(recorder.reads) == {
        Read(TableName("shard 7", "other.orders"), pins),
        Read(TableName("shard 7", "orders"), pins),
    }
    stop()
    with ReadRecorder() as recorder:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    assert recorder.reads == ()
    await engine.dispose()


async def test_recorders_nest_and_are_entered_once(engine: AsyncEngine) -> None:
    with ReadRecorder() as outer:
        inner = await reads_of(engine, select(Order))
        with pytest.raises(InvalidStateError), outer:
            pass
    assert (inner, outer.reads) == ({read("orders")}, ())


class Color(enum.Enum):
    RED = "r"


class Lower(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return value.lower() if value is not None else None


class Wrapped(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.lower(bindparam)


KEY = uuid.UUID(int=10)
SQLITE = "sqlite"


def converted(type_: Any, value: Any, dialect: str = SQLITE, bound: Any = None) -> Any:
    from sqlalchemy.dialects import sqlite

    found = {"sqlite": sqlite, "postgresql": postgresql, "mysql": mysql}[dialect].dialect()
    convert = converter(Column("c", type_), bound or type_, found)
    return None if convert is None else convert(value)


@pytest.mark.parametrize(
    ("type_", "value", "dialect", "expected"),
    [
        (Integer(), True, SQLITE, 1),
        (Integer(), "1", SQLITE, UNKNOWN),
        (Boolean(), True, SQLITE, 1),
        (Boolean(), True, "postgresql", 1),
        (String(), "x ", SQLITE, "x "),
        (Text(), "x", "postgresql", "x"),
        (String(2), "abc", "postgresql", UNKNOWN),
        (String(), "x", "mysql", None),
        (String(collation="NOCASE"), "x", SQLITE, None),
        (String(collation="C"), "x", "postgresql", "x"),
        (CHAR(4), "x", "postgresql", None),
        (CITEXT(), "x", "postgresql", None),
        (Enum(Color), Color.RED, SQLITE, "RED"),
        (Enum(Color), "RED", SQLITE, "RED"),
        (Enum(Color), "green", SQLITE, "green"),
        (Enum(Color), 1, SQLITE, UNKNOWN),
        (Uuid(), KEY, SQLITE, KEY.hex),
        (Uuid(), KEY, "postgresql", KEY.hex),
        (Uuid(as_uuid=False), str(KEY).upper(), SQLITE, KEY.hex),
        (Uuid(as_uuid=False), "none", SQLITE, UNKNOWN),
        (Date(), date(2024, 1, 2), SQLITE, "2024-01-02"),
        (Date(), date(2024, 1, 2), "postgresql", "2024-01-02"),
        (DateTime(), None, SQLITE, None),
        (Float(), 1.0, SQLITE, None),
        (Numeric(10, 2), Decimal(1), SQLITE, None),
        (Lower(), "ABC", SQLITE, "abc"),
        (Wrapped(), "ABC", SQLITE, None),
        (String().with_variant(CHAR(3), "sqlite"), "x", SQLITE, None),
    ],
)
def test_a_value_is_compared_as_the_database_does(
    type_: Any, value: Any, dialect: str, expected: Any
) -> None:
    assert converted(type_, value, dialect) == expected


def test_the_type_that_a_value_is_bound_with_says_what_is_sent() -> None:
    assert converted(String(), "ABC", bound=Lower()) == "abc"
    assert converted(Uuid(), str(KEY), bound=String()) == KEY.hex
    assert converted(Lower(), "ABC", bound=String()) == "ABC"
