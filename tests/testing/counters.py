"""The services that the tests of this folder share."""

from afresh import ComputeService, compute_method, current_computed
from afresh.primitives.clock import current_clock


class Counters(ComputeService):
    """Counters with one way to change them that tells the graph, and one that forgets to."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.runs = 0

    @compute_method
    async def get(self, key: str) -> int:
        self.runs += 1
        return self.values[key]

    @compute_method
    async def total(self, *keys: str) -> int:
        return sum([await self.get(key) for key in keys])

    @compute_method(invalidation_delay=2)
    async def lazy_total(self, *keys: str) -> int:
        return sum([await self.get(key) for key in keys])

    @compute_method(consolidate=1)
    async def is_high(self, key: str) -> bool:
        return await self.get(key) >= 10

    @compute_method
    async def seconds(self) -> int:
        current_computed().invalidate(after=1)
        return int(current_clock().now())

    async def report(self, *keys: str) -> str:
        return f"total: {await self.total(*keys)}"

    def set(self, key: str, value: int) -> None:
        self.values[key] = value
        self.get.invalidate(key)

    def set_silently(self, key: str, value: int) -> None:
        self.values[key] = value

    async def increment(self, key: str) -> int:
        self.set(key, self.values[key] + 1)
        return self.values[key]
