"""The workloads: one module each, with a ``prepare`` that gives the samplers of one round.

Which row of the table uses which sampler is said in ``benchmarks.rows``.
"""

from collections.abc import Awaitable, Callable

from benchmarks.sampling import Sampler
from benchmarks.workloads import cascade, command, fresh, hits, inside, recompute

Prepare = Callable[[bool], Awaitable[dict[str, Sampler]]]

TIMED: dict[str, Prepare] = {
    "hit": hits.prepare,
    "inside": inside.prepare,
    "fresh": fresh.prepare,
    "recompute": recompute.prepare,
    "cascade": cascade.prepare,
    "command": command.prepare,
}
"""Workload name to the coroutine function that sets it up; its argument says whether the run is a
quick one."""

MEMORY = "memory"
"""The workload that is not timed: ``benchmarks.workloads.memory`` runs in processes of its own."""
