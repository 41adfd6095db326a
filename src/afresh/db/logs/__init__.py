"""Following the logs of a database: operations of other hosts, events that are due; trimming both.

Each part works by itself, from `start()` to `aclose()`; `Database` puts them together for each
shard.
"""

from .event_log import DeadEvent
from .event_reader import EventLogReader
from .operation_reader import OperationLogReader
from .options import EventLogOptions, OperationLogOptions, TrimOptions
from .trimmers import EventTrimmer, OperationTrimmer

__all__ = [
    "DeadEvent",
    "EventLogOptions",
    "EventLogReader",
    "EventTrimmer",
    "OperationLogOptions",
    "OperationLogReader",
    "OperationTrimmer",
    "TrimOptions",
]
