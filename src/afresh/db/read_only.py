"""Sessions for reads: they refuse to write, and give back their connection when their block ends.

Opening one costs little, because each compute method that reads does so. Tracking what is read is
left to the engine's events.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.schema import ExecutableDDLElement

from afresh.errors import InvalidStateError

from .engines import WRITE_REFUSED
from .shards import Shard

__all__ = ["ReadSession", "read_session"]


class _ReadSession(Session):
    """What refuses, on the synchronous side that all ways of an `AsyncSession` go through."""

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        _refuse_changes(self)
        super().flush(objects)

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        _refuse_write(statement)
        return super().execute(statement, *args, **options)

    def scalar(self, statement: Any, *args: Any, **options: Any) -> Any:
        _refuse_write(statement)
        return super().scalar(statement, *args, **options)

    def scalars(self, statement: Any, *args: Any, **options: Any) -> Any:
        _refuse_write(statement)
        return super().scalars(statement, *args, **options)

    def bulk_save_objects(self, *args: Any, **options: Any) -> None:
        raise InvalidStateError(WRITE_REFUSED)

    def bulk_insert_mappings(self, *args: Any, **options: Any) -> None:
        raise InvalidStateError(WRITE_REFUSED)

    def bulk_update_mappings(self, *args: Any, **options: Any) -> None:
        raise InvalidStateError(WRITE_REFUSED)


def _refuse_changes(session: Session) -> None:
    if session.new or session.deleted or any(map(session.is_modified, session.dirty)):
        raise InvalidStateError(
            f"Objects of this session were added, changed or deleted. {WRITE_REFUSED}"
        )


def _refuse_write(statement: Any) -> None:
    if getattr(statement, "is_dml", False) or isinstance(statement, ExecutableDDLElement):
        raise InvalidStateError(WRITE_REFUSED)


class ReadSession(AsyncSession):
    """An SQLAlchemy `AsyncSession` for one block of reads.

    It never flushes, and refuses statements that write. Where afresh made the engine, the database
    refuses them as well, so that raw SQL does not slip through. At the end of the block the
    connection goes back to its pool, and the objects that were read stay usable, on their own.

    Args:
        shard: what it reads.
    """

    sync_session_class: type[Session] = _ReadSession

    def __init__(self, shard: Shard) -> None:
        super().__init__(shard.read, autoflush=False, expire_on_commit=False)
        self._shard = shard

    if not TYPE_CHECKING:  # the types are those of AsyncSession

        async def stream(self, *args: Any, **options: Any) -> Any:
            binds = options.pop("bind_arguments", None) or {}
            bind = self._shard.stream.sync_engine
            return await super().stream(*args, bind_arguments={"bind": bind, **binds}, **options)

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                _refuse_changes(self.sync_session)
        finally:
            # In this task, not in one of its own: on the read pool nothing waits here.
            await self.close()


def read_session(shard: Shard) -> ReadSession:
    """Open a session for reads of a shard; use it with `async with`.

    A statement sees what is committed when it begins, so two statements of one block may see
    different moments. That does no harm in a compute method: whatever changed in between makes its
    result stale.

    Raises:
        InvalidStateError: the shard was closed. Later, in the block or at its end: something was
            to be written.

    Example:
        ```python
        async with read_session(shard) as session:
            rows = (await session.scalars(select(OrderRow))).all()
        ```
    """
    shard.check_open()
    return ReadSession(shard)
