"""Databases by SQLAlchemy: where compute methods read, and operations are committed.

It needs the extra `db`, that is SQLAlchemy 2.
"""

from .block import OperationBlock, WritableOperation
from .columns import UtcTimestamp
from .database import Database
from .engines import EngineOptions, IsolationLevel
from .entities import EntityLoader, EntityLoaderOptions
from .logs import DeadEvent, EventLogOptions, OperationLogOptions, TrimOptions
from .read_only import ReadSession
from .shard_registry import ShardRegistry
from .shards import Shard
from .tables import EventLogMixin, LogTables, OperationLogMixin, add_log_tables
from .versions import VersionMixin, version_arguments

__all__ = [
    "Database",
    "DeadEvent",
    "EngineOptions",
    "EntityLoader",
    "EntityLoaderOptions",
    "EventLogMixin",
    "EventLogOptions",
    "IsolationLevel",
    "LogTables",
    "OperationBlock",
    "OperationLogMixin",
    "OperationLogOptions",
    "ReadSession",
    "Shard",
    "ShardRegistry",
    "TrimOptions",
    "UtcTimestamp",
    "VersionMixin",
    "WritableOperation",
    "add_log_tables",
    "version_arguments",
]
