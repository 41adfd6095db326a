"""Queries and changes of the shop of all kinds, to make random histories of.

They are functions of an SQLAlchemy session, so that they run on recorders alone as well as in
compute methods and operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import and_, delete, exists, func, insert, or_, select, text, update
from sqlalchemy.orm import Session, aliased, joinedload, selectinload

from tests.db.tracking.shop import Base, Item, Order, User

Query = Callable[[Session], Any]
Change = Callable[[Session], None]

keys = st.integers(1, 4)
many_keys = st.lists(keys, max_size=3)
words = st.sampled_from(["a", "b", "A"])
statuses = st.sampled_from(["new", "paid"])


def order_facts(order: Order | None) -> Any:
    return order and (order.id, order.user_id, order.total, order.status)


def rows(statement: Any) -> Query:
    return lambda session: sorted(map(tuple, session.execute(statement)), key=repr)


def with_items(user: int) -> Query:
    def query(session: Session) -> Any:
        statement = select(Order).where(Order.user_id == user).options(selectinload(Order.items))
        return sorted(
            (order_facts(order), [(item.id, item.quantity, item.double) for item in order.items])
            for order in session.scalars(statement)
        )

    return query


def with_user(key: int) -> Query:
    def query(session: Session) -> Any:
        order = session.get(Order, key, options=[joinedload(Order.user)])
        return order_facts(order), order and order.user and order.user.name

    return query


def pairs(user: int) -> Query:
    other = aliased(Order)
    return rows(
        select(Order.id, other.id).where(
            Order.user_id == user, Order.status == other.status, other.id != Order.id
        )
    )


Later = aliased(Order)
Busy = select(Order.user_id, func.count().label("n")).group_by(Order.user_id).cte("busy")

# One query of each kind is asked in every history.
queries: st.SearchStrategy[tuple[Query, ...]] = st.tuples(
    keys.map(lambda key: lambda session: order_facts(session.get(Order, key))),
    keys.map(with_user),
    keys.map(with_items),
    keys.map(pairs),
    keys.map(lambda key: rows(select(Order.id).where(Order.user_id == key, Order.total > 1))),
    many_keys.map(lambda some: rows(select(Order.id, Order.total).where(Order.id.in_(some)))),
    st.tuples(keys, statuses).map(
        lambda it: rows(
            select(func.count(), func.sum(Order.total)).where(
                and_(Order.user_id == it[0], Order.status == it[1])
            )
        )
    ),
    st.tuples(keys, keys).map(
        lambda it: rows(select(Order.id).where(or_(Order.id == it[0], Order.user_id == it[1])))
    ),
    st.just(rows(select(Order.id).where(Order.user_id.is_(None)))),
    keys.map(lambda key: rows(select(Order.id).where(Order.user_id == func.abs(key)))),
    words.map(lambda word: rows(select(User.id).where(User.name == word))),
    words.map(lambda word: rows(select(User.id).where(User.email == word))),
    keys.map(
        lambda key: rows(
            select(User.id, func.sum(Item.quantity))
            .join(User.orders)
            .join(Order.items)
            .where(User.id == key)
            .group_by(User.id)
        )
    ),
    keys.map(
        lambda key: rows(select(User.id, Order.id).outerjoin(User.orders).where(User.id == key))
    ),
    # The users without orders: what is NULL there is a row that is missing.
    st.just(rows(select(User.id).outerjoin(User.orders).where(Order.user_id.is_(None)))),
    st.just(rows(select(User.id).outerjoin(User.orders).where(Order.id.is_(None)))),
    keys.map(
        lambda key: rows(
            select(Order.id).where(Order.user_id == key, exists().where(Item.order_id == Order.id))
        )
    ),
    keys.map(lambda key: rows(select(User.id).where(User.orders.any(Order.id == key)))),
    words.map(
        lambda word: rows(
            select(Order.id).where(
                Order.user_id == select(User.id).where(User.name == word).limit(1).scalar_subquery()
            )
        )
    ),
    st.just(rows(select(User.id, Busy.c.n).join(Busy, Busy.c.user_id == User.id))),
    st.tuples(keys, keys).map(
        lambda it: rows(
            select(Order.id)
            .where(Order.id == it[0])
            .union(select(Item.id).where(Item.order_id == it[1]))
        )
    ),
    keys.map(lambda key: rows(select(Later.id, Later.status).where(Later.user_id == key))),
    st.just(rows(select(Item.order_id, func.sum(Item.quantity)).group_by(Item.order_id))),
    st.integers(0, 6).map(lambda double: rows(select(Item.id).where(Item.double == double))),
    keys.map(
        lambda key: rows(text("SELECT total FROM orders WHERE id = :key").bindparams(key=key))
    ),
)


def add_order(it: tuple[int, int, int]) -> Change:
    return lambda session: session.add(Order(user_id=it[0], total=it[1]))


def add_item(it: tuple[int, int]) -> Change:
    return lambda session: session.add(Item(order_id=it[0], quantity=it[1]))


def edit(model: Any, key: int, **values: Any) -> Change:
    def change(session: Session) -> None:
        found = session.get(model, key)
        if found is not None:
            for name, value in values.items():
                setattr(found, name, value)

    return change


def remove(model: Any, key: int) -> Change:
    def change(session: Session) -> None:
        found = session.get(model, key)
        if found is not None:
            session.delete(found)

    return change


def move_key(old: int, new: int) -> Change:
    """Give an order another primary key, unless it is taken."""

    def change(session: Session) -> None:
        order = session.get(Order, old)
        if order is not None and session.get(Order, new) is None:
            order.id = new

    return change


def undone(inner: Change) -> Change:
    def change(session: Session) -> None:
        with session.begin_nested() as nested:
            inner(session)
            session.flush()
            nested.rollback()

    return change


def run(statement: Any, parameters: Any = None) -> Change:
    def change(session: Session) -> None:
        session.execute(statement, parameters)

    return change


optional_keys = st.none() | keys

plain_changes: st.SearchStrategy[Change] = st.one_of(
    st.tuples(keys, keys, keys).map(add_order),
    st.tuples(keys, keys).map(add_item),
    words.map(lambda word: lambda session: session.add(User(name=word, email=word))),
    st.tuples(keys, keys).map(lambda it: edit(Order, it[0], total=it[1])),
    st.tuples(keys, optional_keys).map(lambda it: edit(Order, it[0], user_id=it[1])),
    st.tuples(keys, statuses).map(lambda it: edit(Order, it[0], status=it[1])),
    st.tuples(keys, words).map(lambda it: edit(User, it[0], name=it[1], email=it[1])),
    st.tuples(keys, keys).map(lambda it: edit(Item, it[0], quantity=it[1])),
    st.tuples(keys, keys).map(lambda it: edit(Item, it[0], order_id=it[1])),
    st.tuples(keys, st.integers(1, 6)).map(lambda it: move_key(*it)),
    keys.map(lambda key: remove(Order, key)),
    keys.map(lambda key: remove(Item, key)),
    st.tuples(keys, optional_keys).map(
        lambda it: run(update(Order).where(Order.user_id == it[0]).values(user_id=it[1]))
    ),
    st.tuples(keys, keys).map(
        lambda it: run(
            update(Order.__table__).where(Order.id == it[0]).values(user_id=it[1] + Order.id * 0)
        )
    ),
    st.tuples(many_keys, statuses).map(
        lambda it: run(update(Order).where(Order.id.in_(it[0])).values(status=it[1]))
    ),
    st.tuples(keys, keys).map(
        lambda it: run(update(Item).where(Item.order_id == it[0]).values(quantity=it[1]))
    ),
    st.tuples(keys, keys).map(
        lambda it: run(update(Order.__table__).where(Order.id == it[0]).values(total=it[1]))
    ),
    keys.map(lambda key: run(delete(Order).where(Order.user_id == key))),
    keys.map(lambda key: run(delete(Order.__table__).where(Order.id == key))),
    st.tuples(keys, keys).map(
        lambda it: run(delete(Item).where(or_(Item.order_id == it[0], Item.id == it[1])))
    ),
    st.lists(st.tuples(keys, keys), min_size=1, max_size=3).map(
        lambda some: run(
            insert(Order.__table__), [{"user_id": user, "total": total} for user, total in some]
        )
    ),
    st.lists(st.tuples(keys, keys), min_size=1, max_size=3).map(
        lambda some: run(
            insert(Item).values([{"order_id": order, "quantity": n} for order, n in some])
        )
    ),
    keys.map(
        lambda key: run(
            insert(Item).from_select(
                ["order_id", "product", "quantity"],
                select(Order.id, Order.status, Order.total).where(Order.user_id == key),
            )
        )
    ),
    keys.map(
        lambda key: run(
            text("UPDATE orders SET total = total + 1 WHERE id = :key")
            .bindparams(key=key)
            .execution_options(touches=Order)
        )
    ),
    keys.map(
        lambda key: run(
            text("UPDATE users SET name = 'b' WHERE id = :key")
            .bindparams(key=key)
            .execution_options(touches=["users"])
        )
    ),
)
transactions = st.lists(
    st.one_of(plain_changes, plain_changes, plain_changes.map(undone)), min_size=1, max_size=3
)
histories = st.lists(transactions, min_size=1, max_size=6)


def fill(session: Session) -> None:
    """Begin anew: three users, an order of each, and two items."""
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(table.delete())
    session.add_all(User(id=key, name=name) for key, name in enumerate("abc", 1))
    session.flush()
    session.add_all(Order(id=key, user_id=key, total=key) for key in (1, 2, 3))
    session.flush()
    session.add_all(Item(id=key, order_id=key) for key in (1, 2))
    session.flush()
