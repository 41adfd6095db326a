"""The rows of the table that tell of RPC."""

from benchmarks.rows import TIMES, Row, memory, microseconds, ratio
from benchmarks.rpc.cases import CALLS, STREAMS

FLOORS: dict[str, dict[str, dict[str, float]]] = {
    "calls": {
        "100 in flight": {"grpc.aio": 15, "python-socketio": 6.5, "FastAPI": 10},
        "1,000 in flight": {"grpc.aio": 19},
        "1 in flight": {"grpc.aio": 2, "python-socketio": 1.5},
    },
    "streams": {
        "1 B": {"grpc.aio": 40, "FastAPI": 8},
        "100 B": {"grpc.aio": 40, "FastAPI": 8},
        "10 kB": {"grpc.aio": 6},
    },
}
"""How many times faster than a peer afresh must be, by workload and case."""

PEERS = {
    "calls": {
        "grpc.aio": "grpc.aio",
        "python-socketio": "python-socketio with acks",
        "FastAPI": "FastAPI and aiohttp",
        "raw WebSocket": "bare WebSocket, batched by hand",
        "afresh, plain uvicorn": "afresh behind uvicorn's own WebSockets",
    },
    "streams": {
        "grpc.aio": "grpc.aio",
        "FastAPI": "server-sent events",
        "afresh, plain uvicorn": "afresh behind uvicorn's own WebSockets",
    },
}
"""The stacks that afresh is compared with, by workload, and the words in the table."""


def _compared(workload: str, case: str, what: str) -> list[Row]:
    floors = FLOORS[workload][case]
    return [
        Row(workload, f"{what}: {words} \N{DIVISION SIGN} afresh", TIMES,
            ratio(workload, f"{stack}, {case}", f"afresh, {case}"),
            floors.get(stack), floors.get(stack), at_least=True)
        for stack, words in PEERS[workload].items()
    ]  # fmt: skip


def _calls() -> list[Row]:
    rows = []
    for case in CALLS:
        ceiling = 10 if case == "100 in flight" else None
        rows += [
            Row("calls", f"remote call, {case}", "µs", microseconds("calls", f"afresh, {case}")),
            Row("calls", f"remote call, {case}, processors on both sides", "µs",
                microseconds("calls", f"afresh, {case}, CPU"), ceiling, ceiling),
            *_compared("calls", case, f"remote call, {case}"),
        ]  # fmt: skip
    return rows


def _streams() -> list[Row]:
    rows = []
    for case in STREAMS:
        rows += [
            Row("streams", f"stream of {case} items", "µs an item",
                microseconds("streams", f"afresh, {case}")),
            *_compared("streams", case, f"stream of {case} items"),
        ]  # fmt: skip
    return rows


RPC_ROWS: list[Row] = [
    *_calls(),
    *_streams(),
    Row("remote", "hit of a remote compute method \N{DIVISION SIGN} of a local one", TIMES,
        ratio("remote", "afresh, remote hit", "afresh, local hit"), 1.3, 1.3),
    Row("broadcast", "change pushed to 1,000 clients \N{DIVISION SIGN} Starlette sending it", TIMES,
        ratio("broadcast", "afresh, broadcast", "Starlette, broadcast"), 3, 3),
    Row("broadcast", "change pushed to 1,000 clients (to 100 in a quick run)", "ms",
        lambda measured: microseconds("broadcast", "afresh, broadcast")(measured) / 1e3),
    Row("connections", "an idle connection, on the server", "bytes",
        memory("afresh, bytes a connection"), 80_000, 80_000),
    Row("connections", "Starlette: an idle connection, on the server", "bytes",
        memory("Starlette, bytes a connection")),
    Row("connections", "a live subscription, on the server", "bytes",
        memory("afresh, bytes a subscription"), 1_500, 1_500),
]  # fmt: skip
