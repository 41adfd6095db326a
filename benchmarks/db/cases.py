"""What is measured where databases take part."""

LATENCY = "latency"
"""The workload that needs several processes: how soon a change on one host is seen elsewhere."""

IN_ONE_PROCESS = ("writes", "reads", "foreign", "entities")

WORKLOADS = (*IN_ONE_PROCESS, LATENCY)

WAYS = ("afresh", "LISTEN/NOTIFY", "polling each 100 ms", "polling each second")
"""How a client learns of changes."""

PERIODS = {"polling each 100 ms": 0.1, "polling each second": 1.0}
"""Seconds between two polls."""

KEYS = 100
RATE = 100
"""Changes a second."""
