"""How soon a handler of one service begins after a commit of another.

A service places orders, a hundred a second, each in a transaction of its own that also has the
event; another, with a database of its own, writes a row for each. What is measured is the time from
the commit until the handler begins, through PostgreSQL's outbox and RabbitMQ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from statistics import quantiles

from benchmarks.brokers.cases import BRIDGE, RATE
from benchmarks.db.latency import Start
from benchmarks.db.places import new_database
from benchmarks.rpc.orders import Process


def measure(
    start: Start,
    postgresql: str,
    rabbitmq: str,
    rounds: int,
    quick: bool,
    add: Callable[[str, dict[str, float]], None],
    say: Callable[[str], None],
) -> None:
    """Measure with one interpreter.

    Arguments:
        start: starts a module in the interpreter.
        postgresql: URL of a database whose user may create others.
        rabbitmq: URL of the broker.
        rounds: how often.
        quick: fewer orders.
        add: takes the workload and one round of its samples: seconds, "median" and "99 %".
        say: is told what is being done.
    """
    count = 2 * RATE if quick else 10 * RATE
    with ExitStack() as exits:

        def run(module: str) -> Process:
            url = asyncio.run(new_database(postgresql))
            process = start("-m", f"benchmarks.brokers.{module}", url, rabbitmq)
            started = Process(process, f"The {module}")
            exits.callback(started.end)
            assert started.first == "ready"
            return started

        reading, sending = run("reader"), run("sender")
        for turn in range(rounds + 1):
            say(f"{BRIDGE}: round {turn} of {rounds}")
            committed = sending.ask("place", turn * count, count)
            seen = reading.ask("seen", count)
            delays = [seen[number] - moment for number, moment in committed.items()]
            cuts = quantiles(delays, n=100)
            if turn:  # the first one only warms up
                add(BRIDGE, {"median": cuts[49], "99 %": cuts[98]})
