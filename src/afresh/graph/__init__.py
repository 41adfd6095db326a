"""The compute graph: cached results that know what they were computed from."""

from .bound import BoundComputeMethod, ComputeCall, ComputeMethod
from .causes import InvalidationCause, Place, Tracking, track_causes, tracking
from .computed import Computed
from .computed_source import ComputedSource
from .method import compute_function, compute_method
from .monitor import Monitor, MonitorReport
from .observe import GraphEvent, GraphEventKind, observe
from .options import (
    CancellationReprocessing,
    ComputedOptions,
    default_options,
    set_default_options,
)
from .registry import (
    computed_count,
    edges,
    invalidate_everything,
    node_budget,
    nodes,
    prune,
    set_node_budget,
)
from .scopes import (
    capture,
    capturing,
    capturing_existing,
    current_computed,
    get_existing,
    invalidating,
    is_invalidating,
    isolated,
    try_capture,
    try_current_computed,
)
from .service import ComputeService
from .synchronizer import (
    NO_SYNCHRONIZER,
    PRECISE,
    SafeSynchronizer,
    Synchronizer,
    current_synchronizer,
)
from .threads import invalidate_threadsafe

__all__ = [
    "NO_SYNCHRONIZER",
    "PRECISE",
    "BoundComputeMethod",
    "CancellationReprocessing",
    "ComputeCall",
    "ComputeMethod",
    "ComputeService",
    "Computed",
    "ComputedOptions",
    "ComputedSource",
    "GraphEvent",
    "GraphEventKind",
    "InvalidationCause",
    "Monitor",
    "MonitorReport",
    "Place",
    "SafeSynchronizer",
    "Synchronizer",
    "Tracking",
    "capture",
    "capturing",
    "capturing_existing",
    "compute_function",
    "compute_method",
    "computed_count",
    "current_computed",
    "current_synchronizer",
    "default_options",
    "edges",
    "get_existing",
    "invalidate_everything",
    "invalidate_threadsafe",
    "invalidating",
    "is_invalidating",
    "isolated",
    "node_budget",
    "nodes",
    "observe",
    "prune",
    "set_default_options",
    "set_node_budget",
    "track_causes",
    "tracking",
    "try_capture",
    "try_current_computed",
]
