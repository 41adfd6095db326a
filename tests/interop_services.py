"""The services that end-to-end suites of other implementations of the protocol call.

Wire names and behaviour are theirs; see `tests.interop_server`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable

from afresh import ComputeService, compute_method, current_computed
from afresh.rpc.contracts import NoWait, rpc_method, rpc_service
from afresh.rpc.exceptions import rpc_error
from afresh.rpc.hub import RpcHub
from afresh.rpc.streams import RpcStream


@rpc_error(type_ref="System.InvalidOperationException, System.Private.CoreLib")
class MeantForCallers(Exception):
    """Travels with its text, as the type that the suites look for."""


@rpc_service(name="ITypeScriptTestService")
class BasicService:
    """Plain calls; none of the methods has a cancellation slot."""

    def __init__(self) -> None:
        self.slow_echoes = 0

    @rpc_method(cancellation_slot=False)
    async def add(self, a: int, b: int) -> int:
        return a + b

    @rpc_method(name="Add", cancellation_slot=False)
    async def add_three(self, a: int, b: int, c: int) -> int:
        return a + b + c

    @rpc_method(cancellation_slot=False)
    async def greet(self, name: str) -> str:
        return f"Hello, {name}!"

    @rpc_method(cancellation_slot=False)
    async def negate(self, value: bool) -> bool:
        return not value

    @rpc_method(cancellation_slot=False)
    async def divide(self, a: float, b: float) -> float:
        return a / b

    @rpc_method(cancellation_slot=False)
    async def echo(self, message: str | None) -> str | None:
        return message

    @rpc_method(cancellation_slot=False)
    async def throw(self, message: str) -> str:
        raise MeantForCallers(message)

    @rpc_method(cancellation_slot=False)
    async def slow_echo(self, marker: str, delay_ms: int) -> str:
        self.slow_echoes += 1
        await asyncio.sleep(delay_ms / 1000)
        return marker

    @rpc_method(cancellation_slot=False)
    async def get_slow_echo_invocation_count(self) -> int:
        return self.slow_echoes

    @rpc_method(cancellation_slot=False)
    async def reset_slow_echo_counter(self) -> None:
        self.slow_echoes = 0


@rpc_service(name="ITypeScriptTestComputeService")
class CounterService(ComputeService):
    """Compute calls and streams."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    async def add(self, a: int, b: int) -> int:
        return a + b

    @compute_method
    async def get_counter(self, key: str) -> int:
        return self.counters[key]

    @compute_method
    async def get_value(self, value: int) -> int:
        return value

    async def set(self, key: str, value: int) -> None:
        self.counters[key] = value
        self.get_counter.invalidate(key)

    async def increment(self, key: str) -> None:
        self.counters[key] += 1
        self.get_counter.invalidate(key)

    async def get_counter_non_compute(self, key: str) -> int:
        return self.counters[key]

    @rpc_method(cancellation_slot=False)
    async def stream_int32(self, count: int) -> RpcStream[int]:
        return RpcStream(_numbers(count))

    @rpc_method(cancellation_slot=False)
    async def stream_int32_no_reconnect(self, count: int) -> RpcStream[int]:
        return RpcStream(_numbers(count), allow_reconnect=False)


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in itertools.islice(itertools.count(), count):
        yield number


@rpc_service(name="IReconnectMatrixTester")
class SlowComputeService(ComputeService):
    """A compute call that takes its time, and whose result goes stale at a given time."""

    def __init__(self) -> None:
        self.computations: Counter[int] = Counter()
        self.invalidations: Counter[int] = Counter()

    @compute_method
    async def compute(self, call_key: int, delay: int, invalidation_delay: int) -> int:
        self.computations[call_key] += 1
        computed = current_computed()

        def invalidate() -> None:
            self.invalidations[call_key] += 1
            computed.invalidate()

        asyncio.get_running_loop().call_later((delay + invalidation_delay) / 1000, invalidate)
        await asyncio.sleep(delay / 1000)
        return call_key

    async def get_compute_invocation_count(self, call_key: int) -> int:
        return self.computations[call_key]

    async def get_invalidation_count(self, call_key: int) -> int:
        return self.invalidations[call_key]


@rpc_service(name="IReconnectMatrixRpcTester")
class SlowService:
    """A plain call that takes its time."""

    def __init__(self) -> None:
        self.invocations: Counter[int] = Counter()

    async def rpc(self, call_key: int, delay: int) -> int:
        self.invocations[call_key] += 1
        await asyncio.sleep(delay / 1000)
        return call_key

    async def get_invocation_count(self, call_key: int) -> int:
        return self.invocations[call_key]


@rpc_service(name="IServerControlService")
class ControlService:
    """Lets a client restart the server.

    Args:
        restart: called when it asks for that.
    """

    def __init__(self, restart: Callable[[], object] = lambda: None) -> None:
        self._restart = restart

    @rpc_method(cancellation_slot=False)
    async def request_restart(self) -> NoWait:
        self._restart()


def serve_all(hub: RpcHub, restart: Callable[[], object]) -> None:
    """Serve new instances of all of them."""
    hub.serve(BasicService, BasicService())
    hub.serve(CounterService, CounterService())
    hub.serve(SlowComputeService, SlowComputeService())
    hub.serve(SlowService, SlowService())
    hub.serve(ControlService, ControlService(restart))
