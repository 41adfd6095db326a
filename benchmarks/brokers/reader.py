"""The service that hears of commits: ``python -m benchmarks.brokers.reader POSTGRESQL RABBITMQ``.

Takes the order to tell which orders were ``seen``, and when. Started by ``latency``.
"""

from __future__ import annotations

import asyncio
import sys
from time import monotonic

from benchmarks.brokers.services import Notes, OrderPlaced, app_on
from benchmarks.rpc.orders import carry_out_orders


async def main(postgresql: str, rabbitmq: str) -> None:
    """Serve until the process ends."""
    seen: dict[int, float] = {}

    def tell(event: OrderPlaced) -> None:
        seen.setdefault(event.number, monotonic())

    app = app_on(postgresql, rabbitmq)
    app.add(Notes(app.database, tell), is_served=False)
    await app.start()

    async def all_seen(count: int) -> dict[int, float]:
        """Wait until so many were seen; returns the moment at which the handler of each began."""
        async with asyncio.timeout(60):
            while len(seen) < count:
                await asyncio.sleep(0.01)
        found = dict(seen)
        seen.clear()
        return found

    await carry_out_orders("ready", {"seen": all_seen})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
