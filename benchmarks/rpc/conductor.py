"""The conducting side: starts the clients of all stacks and lets them take turns."""

import json
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from benchmarks.rpc.cases import CASES, CONNECTIONS, STACKS
from benchmarks.rpc.orders import Process

Say = Callable[[str], None]


class Start(Protocol):
    """Starts a module in the interpreter under test."""

    def __call__(self, *arguments: str) -> subprocess.Popen[str]: ...


@contextmanager
def _running(start: Start, stack: str, options: str) -> Iterator[Process]:
    process = Process(
        start("-m", "benchmarks.rpc.client", stack, options), f"The client of {stack}"
    )
    try:
        yield process
    finally:
        process.end()


def measure(
    workloads: Collection[str],
    start: Start,
    cores: list[int],
    rounds: int,
    quick: bool,
    add: Callable[[str, dict[str, float]], None],
    say: Say,
) -> None:
    """Measure the workloads that are timed with one interpreter.

    Arguments:
        workloads: names out of ``cases.CASES``; the others are left out.
        start: starts a module in the interpreter.
        cores: the cores that may be used.
        rounds: samples of each case.
        quick: shorter loops, fewer clients.
        add: takes a workload and one round of its samples: seconds by stack and case, such as
            "grpc.aio, 100 in flight", and the same with ", CPU" for those of the processors.
        say: is told what is being done.
    """
    options = json.dumps({"cores": cores, "quick": quick})
    chosen = [workload for workload in CASES if workload in workloads]
    with ExitStack() as exits:
        clients = {
            stack: exits.enter_context(_running(start, stack, options))
            for stack in dict.fromkeys(stack for workload in chosen for stack in STACKS[workload])
        }
        for stack, client in clients.items():
            if client.first is not None:
                print(f"{stack} is left out: {client.first}.")
        for workload in chosen:
            stacks = [stack for stack in STACKS[workload] if clients[stack].first is None]
            for case in CASES[workload]:
                say(f"{workload}: setting up {case}")
                for stack in stacks:
                    clients[stack].ask("prepare", case)
            for turn in range(rounds):
                say(f"{workload}: round {turn + 1} of {rounds}")
                # Who goes first changes every round.
                first = turn % max(1, len(stacks))
                samples = {}
                for case in CASES[workload]:
                    for stack in stacks[first:] + stacks[:first]:
                        elapsed, client, server = clients[stack].ask("sample", case)
                        samples[f"{stack}, {case}"] = elapsed
                        samples[f"{stack}, {case}, CPU"] = client + server
                add(workload, samples)


def weigh(start: Start, cores: list[int], quick: bool, say: Say) -> dict[str, float]:
    """Bytes that servers take for connections and subscriptions, such as
    "afresh, bytes a connection".
    """
    options = json.dumps({"cores": cores, "quick": quick})
    weights = {}
    for stack in STACKS[CONNECTIONS]:
        say(f"{CONNECTIONS}: {stack}")
        with _running(start, stack, options) as client:
            if client.first is None:
                for what, weight in client.ask("weigh").items():
                    weights[f"{stack}, bytes a {what}"] = weight
    return weights
