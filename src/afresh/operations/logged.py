"""Operations as a log gives them back: what another host needs to apply one.

What the texts mean is the business of those who wrote them; how rows become these structs is that
of the log's reader.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["LoggedOperation"]


class LoggedOperation(msgspec.Struct, frozen=True, gc=False):
    """One committed operation, read from a log."""

    index: int
    """Its place in the log: given when it was written, so not in the order of commits."""
    uuid: str
    """Which operation it is, whatever log it is in."""
    host_id: str
    """Who executed it."""
    logged_at: datetime
    """When its commit began by that host's clock; in UTC."""
    command: str | None
    """The command, encoded; None where none was recorded."""
    effects: str | None
    """What became stale, encoded; None where nothing was recorded."""
