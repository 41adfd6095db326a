"""What is measured on which stacks."""

CALLS = {"100 in flight": 100, "1,000 in flight": 1_000, "1 in flight": 1}
"""Calls that wait for their answers at a time."""

STREAMS = {"1 B": 1, "100 B": 100, "10 kB": 10_000}
"""Size of an item of a stream, in bytes."""

PINNED = "1 in flight"
"""The case for which each process gets a core of its own."""

LEAST = {"1 B": 2_000, "100 B": 2_000, "10 kB": 500}
"""How long streams are at least: opening them is not what is measured."""

CASES: dict[str, tuple[str, ...]] = {
    "calls": tuple(CALLS),
    "streams": tuple(STREAMS),
    "remote": ("local hit", "remote hit"),
    "broadcast": ("broadcast",),
}
"""Workload that is timed to its cases. The one with a crowd of clients comes last."""

WITHOUT_GRAPH = ("calls", "streams")
"""Workloads that no compute method takes part in."""

CONNECTIONS = "connections"
"""The workload that is weighed."""

WORKLOADS = (*CASES, CONNECTIONS)

STACKS: dict[str, tuple[str, ...]] = {
    "calls": (
        "afresh",
        "afresh, plain uvicorn",
        "grpc.aio",
        "python-socketio",
        "FastAPI",
        "raw WebSocket",
    ),
    "streams": ("afresh", "afresh, plain uvicorn", "grpc.aio", "FastAPI"),
    "remote": ("afresh",),
    "broadcast": ("afresh", "Starlette"),
    "connections": ("afresh", "Starlette"),
}
"""Workload to the stacks that it is run on."""
