"""How soon a client of one host has what another host commits.

Host A changes one of a hundred values, a hundred times a second, each in a transaction of its own;
a client of host B follows all of them. What is measured is the time from just before the commit on
A until the client has the value. Beside afresh: a client that polls a service of B, which reads all
values in plain SQLAlchemy; and one that listens to PostgreSQL itself and reads what was changed.
"""

from __future__ import annotations

import asyncio
import subprocess
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from statistics import quantiles
from typing import Protocol

from benchmarks.db.cases import KEYS, LATENCY, RATE, WAYS
from benchmarks.db.places import new_database
from benchmarks.rpc.orders import Process


class Start(Protocol):
    """Starts a module in the interpreter under test."""

    def __call__(self, *arguments: str) -> subprocess.Popen[str]: ...


def measure(
    start: Start,
    postgresql: str,
    rounds: int,
    quick: bool,
    add: Callable[[str, dict[str, float]], None],
    say: Callable[[str], None],
) -> None:
    """Measure with one interpreter.

    Arguments:
        start: starts a module in the interpreter.
        postgresql: URL of a database whose user may create others.
        rounds: how often each way is measured.
        quick: fewer changes.
        add: takes the workload and one round of its samples: seconds by way, such as
            "afresh, median" and "afresh, 99 %".
        say: is told what is being done.
    """
    url = asyncio.run(new_database(postgresql))
    count = RATE if quick else 5 * RATE
    first = 1
    with ExitStack() as exits:

        def run(module: str, *arguments: str) -> Process:
            process = Process(start("-m", f"benchmarks.db.{module}", *arguments), f"The {module}")
            exits.callback(process.end)
            return process

        writing = run("host", url)
        assert writing.first is not None, "the tables are there"
        serving = run("host", url)
        following = run("follower", str(serving.first), url)
        assert following.first is not None
        writing.ask("create")
        for turn in range(rounds + 1):
            samples: dict[str, float] = {}
            for way in WAYS[turn % len(WAYS) :] + WAYS[: turn % len(WAYS)]:
                say(f"{LATENCY}: {way}, round {turn} of {rounds}")
                following.ask("follow", way)
                written = writing.ask("write", way, first, count)
                following.ask("settle", first + count - 1)
                delays = _delays(written, following.ask("end"))
                first += count
                cuts = quantiles(delays, n=100)
                samples |= {f"{way}, median": cuts[49], f"{way}, 99 %": cuts[98]}
            if turn:  # the first one only warms up
                add(LATENCY, samples)


def _delays(written: dict[str, float], seen: list[tuple[int, float]]) -> list[float]:
    """Seconds until each number was known, or a later one of its key."""
    by_key: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for number, moment in seen:
        by_key[number % KEYS].append((number, moment))
    delays = []
    for text, moment in written.items():
        number = int(text)
        known = by_key[number % KEYS]
        place = bisect_left(known, (number, 0.0))
        if place == len(known):
            raise RuntimeError(f"The client was never told of {number}.")
        delays.append(known[place][1] - moment)
    return delays
