"""The services under test: the plain one that everything is compared with, and afresh's."""

from afresh import ComputeService, compute_method


class Plain:
    """The baseline: an ``async def`` method that returns its argument, with no cache at all."""

    async def get(self, key: object) -> object:
        return key

    async def total(self, count: int) -> int:
        """The body of ``Cached.total`` without a cache under it."""
        for key in range(count):
            await self.get(key)
        return count


class Cached(ComputeService):
    """The same, as compute methods with the default options."""

    @compute_method
    async def get(self, key: object) -> object:
        return key

    @compute_method
    async def total(self, count: int) -> int:
        """Uses ``count`` different keys of ``get``; records as many edges."""
        for key in range(count):
            await self.get(key)
        return count

    @compute_method
    async def repeated(self, count: int) -> int:
        """Uses one key of ``get`` again and again; records one edge."""
        for _ in range(count):
            await self.get(7)
        return count


class Graph(ComputeService):
    """Shapes for cascades: leaves around one hub, and a chain."""

    @compute_method
    async def hub(self) -> int:
        return 0

    @compute_method
    async def leaf(self, index: int) -> int:
        return await self.hub()

    @compute_method
    async def link(self, index: int) -> int:
        return await self.link(index - 1) if index else 0
