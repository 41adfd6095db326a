"""What the objects of a session know of rows that a statement changes.

An UPDATE that a flush emits names the key and the changed columns only. The other columns are
those of the object, if it was loaded, or added, while the session was followed; an object that was
there before may be behind the database.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table, event, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.exc import UnmappedColumnError

from .changes import HeldValues

__all__ = ["FollowedSession"]


class FollowedSession:
    """A session whose objects tell what their rows have.

    Args:
        session: from now on.
    """

    __slots__ = ("_mappers", "_session", "_states")

    def __init__(self, session: AsyncSession | Session) -> None:
        sync = session.sync_session if isinstance(session, AsyncSession) else session
        # The session has this as a listener: weakly, or they keep each other.
        self._session = weakref.ref(sync)
        self._states: set[InstanceState[Any]] = set()
        self._mappers: dict[Table, set[Mapper[Any]]] = {}
        event.listen(sync, "loaded_as_persistent", self._arrived)
        event.listen(sync, "pending_to_persistent", self._arrived)

    def values(self, table: Table, key: Mapping[str, Any]) -> HeldValues | None:
        """What the object of a row has, by column; None where there is none to trust."""
        session = self._session()
        if session is None:
            return None
        for mapper in self._mappers.get(table, ()):
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
            found = session.identity_map.get(mapper.identity_key_from_primary_key(primary))
            if found is None:
                continue
            state = inspect(found)
            if state in self._states and table in state.mapper.tables:
                return _held(state, table)
        return None

    def _arrived(self, session: Session, instance: Any) -> None:
        state = inspect(instance)
        mapper = state.mapper
        self._states.add(state)
        for table in mapper.tables:
            if isinstance(table, Table):
                self._mappers.setdefault(table, set()).add(mapper)


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
