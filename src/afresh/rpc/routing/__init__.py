"""Which peer a call goes to, and what happens to calls when that changes.

A router says for each call what its target is: a shard, a host, this process. The target lasts; its
route, one generation of the answer to "where is that now", does not. Peers, connections and calls
are left to the hub; which nodes there are is told from outside.
"""

from .calls import REROUTE_DELAYS, Router, reroute
from .execution import ExecutionMode, local_execution
from .hosting import check_route, hosted
from .shards import ShardTargets
from .targets import Route, Target

__all__ = [
    "REROUTE_DELAYS",
    "ExecutionMode",
    "Route",
    "Router",
    "ShardTargets",
    "Target",
    "check_route",
    "hosted",
    "local_execution",
    "reroute",
]
