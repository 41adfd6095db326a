"""A command with no database: ``await commander.call(Add(7))``, whose handler returns what the
command holds, and the same as a call of the handler.
"""

from time import perf_counter
from typing import Any

from afresh import App, Command, ComputeService, command_handler, compute_method
from benchmarks import loops
from benchmarks.sampling import Sampler, Timed
from benchmarks.services import Plain


class Get(Command[int], frozen=True):
    key: int


class GetAndInvalidate(Command[int], frozen=True):
    key: int


class Handlers(ComputeService):
    """A handler that says nothing of what is stale, and one that does."""

    @compute_method
    async def value(self, key: int) -> int:
        return key

    @command_handler
    async def get(self, command: Get) -> int:
        return command.key

    @command_handler
    async def get_and_invalidate(self, command: GetAndInvalidate) -> int:
        return command.key

    @get_and_invalidate.invalidates
    def _(self, command: GetAndInvalidate, result: int) -> None:
        self.value(command.key)


def _calling(call: Any, command: Any) -> Timed:
    async def run(count: int) -> float:
        start = perf_counter()
        for _ in range(count):
            await call(command)
        return perf_counter() - start

    return run


async def prepare(quick: bool) -> dict[str, Sampler]:
    """Samplers for the plain call, and for commands of an app without a database."""
    app = App()
    handlers = app.add(Handlers())
    return {
        "plain": Sampler(loops.same_key(Plain(), 7)),
        "commander": Sampler(_calling(app.commander.call, Get(7))),
        "handler": Sampler(_calling(handlers.get, Get(7))),
        "invalidates": Sampler(_calling(app.commander.call, GetAndInvalidate(7))),
    }
