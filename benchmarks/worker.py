"""The measuring side of a run: one process for one interpreter and twin, which takes orders on
standard input.

An order is a JSON line, and so is each answer: ``["prepare", workload]`` sets a workload up and
calibrates it, ``["sample", workload]`` takes one round of it, ``["finish", workload]`` drops it.
The process ends when its input does. Started by ``conductor``.
"""

import asyncio
import gc
import json
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from benchmarks import peers
from benchmarks.sampling import Sampler, calibrated, pin_to_one_core, sample
from benchmarks.workloads import TIMED

SECONDS_PER_LOOP = 0.002
QUICK_SECONDS_PER_LOOP = 0.001


def twin() -> str:
    """Which twin this process really runs: ``"compiled"`` or ``"pure"``."""
    import afresh

    assert afresh is not None
    return "compiled" if "afresh.graph._speedups" in sys.modules else "pure"


class Worker:
    """The workloads set up in this process.

    Arguments:
        workloads: their names, and the coroutine functions that set them up and give samplers.
        seconds: how long a loop is to last.
    """

    def __init__(
        self, workloads: Mapping[str, Callable[[], Awaitable[dict[str, Sampler]]]], seconds: float
    ) -> None:
        self.workloads = workloads
        self.seconds = seconds
        self.prepared: dict[str, dict[str, Sampler]] = {}
        self.turns: dict[str, int] = {}

    async def prepare(self, workload: str) -> dict[str, int | None]:
        """Set a workload up; returns each case's operations a loop."""
        samplers = await self.workloads[workload]()
        self.prepared[workload] = {
            case: await calibrated(sampler, self.seconds) for case, sampler in samplers.items()
        }
        return {case: sampler.count for case, sampler in self.prepared[workload].items()}

    async def sample(self, workload: str) -> dict[str, float]:
        """One round: seconds for an operation of each case that is due."""
        gc.collect()
        turn = self.turns[workload] = self.turns.get(workload, -1) + 1
        return {
            case: await sample(sampler)
            for case, sampler in self.prepared[workload].items()
            if turn % sampler.every == 0
        }

    async def finish(self, workload: str) -> None:
        """Drop a workload's services."""
        del self.prepared[workload]
        gc.collect()


def about(core: int | None) -> dict[str, Any]:
    """What this process is: interpreter, twin, core, and the versions of the peers."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "twin": twin(),
        "core": core,
        "peers": peers.versions(),
    }


def answer_orders(worker: Worker, core: int | None) -> None:
    """Say what this process is, then answer orders until standard input ends."""
    print(json.dumps(about(core)), flush=True)
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            order, workload = json.loads(line)
            answer = runner.run(getattr(worker, order)(workload))
            print(json.dumps(answer), flush=True)


def main() -> None:
    """Take part in a run."""
    core = pin_to_one_core()
    quick = "--quick" in sys.argv
    workloads = {name: partial(prepare, quick) for name, prepare in TIMED.items()}
    answer_orders(Worker(workloads, QUICK_SECONDS_PER_LOOP if quick else SECONDS_PER_LOOP), core)


if __name__ == "__main__":
    main()
