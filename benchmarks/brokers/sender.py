"""The service that commits: ``python -m benchmarks.brokers.sender POSTGRESQL RABBITMQ``.

Takes the order to ``place`` orders at a steady rate. Started by ``latency``.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.brokers.cases import RATE
from benchmarks.brokers.services import Orders, PlaceOrder, app_on
from benchmarks.rpc.orders import carry_out_orders


async def main(postgresql: str, rabbitmq: str) -> None:
    """Serve until the process ends."""
    app = app_on(postgresql, rabbitmq)
    orders = app.add(Orders(app.database), is_served=False)
    await app.start()

    async def place(first: int, count: int) -> dict[int, float]:
        """Place so many orders; returns the moment just before each was committed."""
        loop = asyncio.get_running_loop()
        orders.committed.clear()
        start = loop.time()
        calls = []
        for position in range(count):
            await asyncio.sleep(start + position / RATE - loop.time())
            calls.append(app.commander.start(PlaceOrder(first + position)))
        await asyncio.gather(*calls)
        return dict(orders.committed)

    await carry_out_orders("ready", {"place": place})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
