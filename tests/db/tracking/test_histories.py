"""After any history of reads and writes, what has changed was touched.

The one promise that matters: whenever a query gives something else than before, a write since then
touched what it read. How often it is touched without having changed is printed, not bounded.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from afresh.db.tracking import FollowedSession, ReadIndex, ReadRecorder, WriteRecorder, track
from tests.db.tracking.histories import Change, Query, fill, histories, queries
from tests.db.tracking.shop import Base

COUNTS = {"touched": 0, "changed": 0, "asked": 0}


@pytest.fixture(scope="module")
def engine() -> Any:
    made = create_engine("sqlite://", poolclass=StaticPool)

    @event.listens_for(made, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # so that savepoints work
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(made, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN", execution_options={"touches": ()})

    Base.metadata.create_all(made)
    stop = track(made)
    yield made
    stop()
    made.dispose()
    print(f"\nqueries asked, touched, changed: {COUNTS}")


@settings(max_examples=200)
@given(queries, histories)
def test_what_gives_another_result_was_touched(
    engine: Engine, some: tuple[Query, ...], history: list[list[Change]]
) -> None:
    with Session(engine) as session:
        fill(session)
        session.commit()
    index = ReadIndex[int]()
    asked: list[tuple[Query, Any, tuple[Any, ...]]] = []

    def ask(query: Query) -> tuple[Any, tuple[Any, ...]]:
        with Session(engine) as session, ReadRecorder() as recorder:
            result = query(session)
        return result, recorder.reads

    for query in some:
        result, reads = ask(query)
        for read in reads:
            index.add(read, len(asked))
        asked.append((query, result, reads))
    for changes in history:
        writes = transact(engine, changes)
        touched = index.touched(writes)
        for number, (query, before, reads) in enumerate(asked):
            assert (number in touched) == any(w.touches(r) for w in writes for r in reads)
            after, reads_now = ask(query)
            COUNTS["asked"] += 1
            COUNTS["touched"] += number in touched
            COUNTS["changed"] += after != before
            if number not in touched:
                assert after == before, (reads, writes)
            else:
                for read in reads:
                    index.discard(read, number)
                for read in reads_now:
                    index.add(read, number)
                asked[number] = (query, after, reads_now)


def transact(engine: Engine, some: list[Change]) -> Any:
    """Run changes in a transaction; what it wrote, nothing where a foreign key refused."""
    with FollowedSession(engine) as session:
        recorder = WriteRecorder(session.connection())
        recorder.follow(session)
        try:
            for change in some:
                change(session)
                session.flush()
            writes = recorder.writes
            session.commit()
        except IntegrityError:
            session.rollback()
            return ()
    return writes
