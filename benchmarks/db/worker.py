"""The measuring side of a run: ``python -m benchmarks.db.worker OPTIONS``, with JSON that says
where PostgreSQL is, if it is, and whether the run is a quick one. Started by ``conductor``.
"""

import asyncio
import json
import sys
from functools import partial

from benchmarks.db.places import Place, Places, close
from benchmarks.db.workloads import WORKLOADS
from benchmarks.rpc.orders import carry_out_orders
from benchmarks.sampling import Sampler
from benchmarks.worker import Worker, about

SECONDS_PER_LOOP = 0.1
QUICK_SECONDS_PER_LOOP = 0.02


class DatabaseWorker(Worker):
    """A worker whose workloads have databases, new ones each."""

    def __init__(self, postgresql: str | None, quick: bool) -> None:
        super().__init__(
            {name: partial(self._set_up, name) for name in WORKLOADS},
            QUICK_SECONDS_PER_LOOP if quick else SECONDS_PER_LOOP,
        )
        self.quick = quick
        self.places = Places(postgresql)
        self.opened: dict[str, list[Place]] = {}

    async def _set_up(self, workload: str) -> dict[str, Sampler]:
        places = self.opened[workload] = await self.places.open()
        return await WORKLOADS[workload](places, self.quick)

    async def finish(self, workload: str) -> None:
        await super().finish(workload)
        await close(self.opened.pop(workload))


async def main() -> None:
    """Take part in a run.

    The loop goes on between orders, or servers would take the process for dead.
    """
    options = json.loads(sys.argv[1])
    worker = DatabaseWorker(**options)
    orders = {"prepare": worker.prepare, "sample": worker.sample, "finish": worker.finish}
    await carry_out_orders(about(None), orders)


if __name__ == "__main__":
    asyncio.run(main())
