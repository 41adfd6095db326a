"""What the objects of a session know of rows that a statement changes.

An UPDATE that a flush emits names the key and the changed columns only. The other columns are
those of the object, if it was loaded, or added, while the session was followed; an object that was
there before may be behind the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table, event
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.exc import UnmappedColumnError

from .changes import HeldValues

__all__ = ["FollowedSession"]


class FollowedSession(Session):
    """A session whose objects tell what their rows have.

    Example:
        ```python
        session = AsyncSession(connection, sync_session_class=FollowedSession)
        recorder.follow(session)
        ```
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._arrived: set[InstanceState[Any]] = set()
        self._tellers: dict[Table, set[Mapper[Any]]] = {}

    def begin_to_follow(self) -> None:
        """Trust objects that are loaded or added from now on."""
        self._arrived.clear()

    def values_of(self, table: Table, key: Mapping[str, Any]) -> HeldValues | None:
        """What the object of a row has, by column; None where there is none to trust."""
        for mapper in self._tellers.get(table, ()):
            by_property = {}
            for column, value in key.items():
                by_property[mapper.get_property_by_column(table.columns[_key(table, column)])] = (
                    value
                )
            try:
                primary = tuple(
                    by_property[mapper.get_property_by_column(column)]
                    for column in mapper.primary_key
                )
            except KeyError:
                continue
            found = self.identity_map.get(mapper.identity_key_from_primary_key(primary))
            if found is None:
                continue
            state = instance_state(found)
            if state in self._arrived and table in state.mapper.tables:
                return _held(state, table)
        return None


@event.listens_for(FollowedSession, "loaded_as_persistent")
@event.listens_for(FollowedSession, "pending_to_persistent")
def _arrived(session: FollowedSession, instance: Any) -> None:
    state = instance_state(instance)
    session._arrived.add(state)
    for table in state.mapper.tables:
        if isinstance(table, Table):
            session._tellers.setdefault(table, set()).add(state.mapper)


def _key(table: Table, name: str) -> str:
    return next(column.key for column in table.primary_key if column.name == name)


def _held(state: InstanceState[Any], table: Table) -> HeldValues:
    held: dict[str, tuple[Any, ...]] = {}
    for column in table.columns:
        try:
            key = state.mapper.get_property_by_column(column).key
        except UnmappedColumnError:
            continue
        if key not in state.dict:
            continue
        history = state.attrs[key].history
        if history.added and not history.deleted:
            continue  # set without having been loaded
        held[column.name] = (*history.unchanged, *history.added, *history.deleted)
    return held
