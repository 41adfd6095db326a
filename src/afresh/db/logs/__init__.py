"""Following the logs of a database: operations of other hosts, events that are due; trimming both.

Each part works by itself, from `start()` to `aclose()`; `Database` puts them together for each
shard.
"""

from .operation_reader import OperationLogReader
from .options import EventLogOptions, OperationLogOptions, TrimOptions

__all__ = [
    "EventLogOptions",
    "OperationLogOptions",
    "OperationLogReader",
    "TrimOptions",
]
