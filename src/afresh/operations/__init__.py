"""Operations: what a command changes, committed once and made known everywhere.

This floor decides what happens when a command succeeds; what makes it durable is `afresh.db`.
"""

from .codec import LogCodec
from .completion import Completion
from .effects import Effects
from .events import OnConflict, OperationEvent
from .freshness import Freshness, FreshnessGate
from .identity import new_host_id, new_uuid
from .logged import LoggedOperation
from .operation import Operation, OperationScope, current_operation
from .pipeline import COMMIT_GUARD, OPERATIONS_PRIORITY, CommitGuard, Operations
from .retries import RetryPolicy
from .services import Services

__all__ = [
    "COMMIT_GUARD",
    "OPERATIONS_PRIORITY",
    "CommitGuard",
    "Completion",
    "Effects",
    "Freshness",
    "FreshnessGate",
    "LogCodec",
    "LoggedOperation",
    "OnConflict",
    "Operation",
    "OperationEvent",
    "OperationScope",
    "Operations",
    "RetryPolicy",
    "Services",
    "current_operation",
    "new_host_id",
    "new_uuid",
]
