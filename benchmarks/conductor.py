"""The conducting side of a run: starts a worker for each interpreter and twin, and lets them take
turns.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.brokers import cases as brokers
from benchmarks.db.cases import IN_ONE_PROCESS, LATENCY
from benchmarks.db.cases import WORKLOADS as DATABASE
from benchmarks.rpc import cases
from benchmarks.rpc import conductor as rpc
from benchmarks.rpc.cores import available_cores
from benchmarks.sampling import pin_to_one_core
from benchmarks.workloads import MEMORY, TIMED

ROOT = Path(__file__).resolve().parent.parent
MEMORY_MEASUREMENTS = ("node", "edge", "dropped", "peer")


class BenchmarkError(Exception):
    """A run that cannot go on; the message says what to do."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how long.

    Arguments:
        workloads: names out of ``workloads.TIMED``, ``"memory"``, and the ``WORKLOADS`` of
            ``rpc.cases``, ``db.cases`` and ``brokers.cases``.
        pythons: paths of interpreters; each needs afresh (and the peers) installed.
        rounds: samples of each case that one process takes.
        generations: how often the processes are started anew.
        rpc_rounds: samples of each case of RPC and of databases, whose processes are started once.
        latency_rounds: how often the delays between hosts are measured.
        quick: shorter loops, and no measurement of a million nodes.
    """

    workloads: tuple[str, ...]
    pythons: tuple[str, ...] = (sys.executable,)
    rounds: int = 11
    generations: int = 3
    rpc_rounds: int = 9
    latency_rounds: int = 3
    quick: bool = False


@dataclass
class Measured:
    """The samples of one interpreter and twin.

    ``samples`` holds, for a workload and a case, seconds an operation, round by round; ``memory``
    what the memory measurements gave.
    """

    about: dict[str, Any]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Interpreter version and twin, such as ``"3.11 compiled"``."""
        return f"{self.version} {self.about['twin']}"

    @property
    def version(self) -> str:
        """The interpreter's minor version, such as ``"3.11"``."""
        return ".".join(self.about["python"].split(".")[:2])

    def add(self, workload: str, samples: dict[str, float]) -> None:
        """Append one round."""
        cases = self.samples.setdefault(workload, {})
        for case, seconds in samples.items():
            cases.setdefault(case, []).append(seconds)


@dataclass(frozen=True)
class Variant:
    """One interpreter and the twin to ask for."""

    python: str
    pure: bool

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a module of this package in the interpreter: ``start("-m",
        "benchmarks.worker")``.
        """
        environment = dict(os.environ, AFRESH_PURE=str(int(self.pure)), PYTHONHASHSEED="0")
        environment.pop("PYTHONASYNCIODEBUG", None)
        return subprocess.Popen(
            [self.python, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


class Worker:
    """A running ``benchmarks.worker``, or one of ``db`` or ``brokers``."""

    def __init__(self, variant: Variant, process: subprocess.Popen[str]) -> None:
        self.variant = variant
        self.process = process
        self.about = self._answer()

    def order(self, order: str, workload: str) -> Any:
        """Give one order and wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([order, workload]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise BenchmarkError(
                f"A worker of {Path(self.variant.python).name} ended early; its error is above. "
                "Install afresh and the dependency group 'bench' for it, then run again."
            )
        return json.loads(line)


@contextmanager
def _running(variant: Variant, quick: bool) -> Iterator[Worker]:
    with _started(variant, "benchmarks.worker", *(["--quick"] if quick else [])) as worker:
        yield worker


@contextmanager
def _started(variant: Variant, module: str, *arguments: str) -> Iterator[Worker]:
    process = variant.start("-m", module, *arguments)
    try:
        yield Worker(variant, process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _time(plan: Plan, variants: list[Variant], say: Callable[[str], None]) -> list[Measured]:
    measured: dict[Variant, Measured] = {}
    timed = [workload for workload in plan.workloads if workload in TIMED]
    for generation in range(plan.generations if timed else 1):
        with ExitStack() as stack:
            workers = [stack.enter_context(_running(variant, plan.quick)) for variant in variants]
            for worker in workers:
                measured.setdefault(worker.variant, Measured(worker.about))
            for workload in timed:
                say(f"{workload}: start {generation + 1} of {plan.generations}")
                _take_turns(workers, workload, plan.rounds, measured)
    return list(measured.values())


def _take_turns(
    workers: list[Worker], workload: str, rounds: int, measured: dict[Variant, Measured]
) -> None:
    for worker in workers:
        worker.order("prepare", workload)
    for turn in range(rounds):
        # Who goes first changes every round.
        first = turn % len(workers)
        for worker in workers[first:] + workers[:first]:
            measured[worker.variant].add(workload, worker.order("sample", workload))
    for worker in workers:
        worker.order("finish", workload)


def _store(
    plan: Plan,
    measured: dict[Variant, Measured],
    cores: list[int],
    say: Callable[[str], None],
) -> None:
    """Measure what has databases."""
    if not set(plan.workloads) & set(DATABASE):
        return
    # Only a run with these rows needs what they need.
    from benchmarks.db import latency
    from benchmarks.db.server import postgresql

    if cores:
        os.sched_setaffinity(0, cores)  # processes that are started inherit it
    with ExitStack() as stack:
        url = stack.enter_context(postgresql())
        options = json.dumps({"postgresql": url, "quick": plan.quick})
        chosen = [workload for workload in IN_ONE_PROCESS if workload in plan.workloads]
        with ExitStack() as workers_stack:
            workers = [
                workers_stack.enter_context(_started(variant, "benchmarks.db.worker", options))
                for variant in (measured if chosen else ())
            ]
            for workload in chosen:
                say(f"{workload}: {len(workers)} processes in turn")
                _take_turns(workers, workload, plan.rpc_rounds, measured)
        if LATENCY in plan.workloads and url is not None:
            for variant, result in measured.items():
                latency.measure(
                    variant.start, url, plan.latency_rounds, plan.quick, result.add, say
                )
    if cores:
        pin_to_one_core()


def _send(
    plan: Plan,
    measured: dict[Variant, Measured],
    cores: list[int],
    say: Callable[[str], None],
) -> None:
    """Measure what has a message broker."""
    if not set(plan.workloads) & set(brokers.WORKLOADS):
        return
    # Only a run with these rows needs what they need.
    from benchmarks.brokers import latency
    from benchmarks.brokers.servers import rabbitmq
    from benchmarks.db.server import postgresql

    if cores:
        os.sched_setaffinity(0, cores)
    with ExitStack() as stack:
        database, broker = stack.enter_context(postgresql()), stack.enter_context(rabbitmq())
        if database is not None and broker is not None:
            options = {"postgresql": database, "rabbitmq": broker, "quick": plan.quick}
            chosen = [each for each in brokers.IN_ONE_PROCESS if each in plan.workloads]
            for workload in chosen:
                say(f"{workload}: {len(measured)} processes in turn")
                with ExitStack() as workers_stack:
                    workers = [
                        workers_stack.enter_context(
                            _started(variant, "benchmarks.brokers.worker", json.dumps(options))
                        )
                        for variant in measured
                    ]
                    _take_turns(workers, workload, plan.rpc_rounds, measured)
                    if workload == brokers.OUTBOX:
                        for worker in workers:
                            measured[worker.variant].memory |= worker.order("weigh", workload)
            if brokers.BRIDGE in plan.workloads:
                for variant, result in measured.items():
                    latency.measure(
                        variant.start, database, broker, plan.latency_rounds, plan.quick,
                        result.add, say,
                    )  # fmt: skip
    if cores:
        pin_to_one_core()


def _has_twin(variant: Variant) -> bool:
    """Whether the twin asked for is the one that would run: without the extension it is not."""
    with _running(variant, quick=True) as worker:
        return bool(worker.about["twin"] == ("pure" if variant.pure else "compiled"))


def _weigh(plan: Plan, variant: Variant, say: Callable[[str], None]) -> dict[str, float]:
    result: dict[str, float] = {}
    for measurement in MEMORY_MEASUREMENTS:
        if plan.quick and measurement == "dropped":
            continue
        say(f"{MEMORY}: {measurement}")
        process = variant.start("-m", "benchmarks.workloads.memory", measurement)
        output, _ = process.communicate()
        if process.returncode == 0:
            result.update(json.loads(output))
        elif measurement != "peer":
            raise BenchmarkError(
                f"Measuring the memory of a {measurement} failed; its error is above."
            )
    return result


def _call(
    plan: Plan,
    variant: Variant,
    result: Measured,
    cores: list[int],
    is_second_twin: bool,
    say: Callable[[str], None],
) -> None:
    """Measure RPC. What does not touch the graph is the same for both twins."""
    workloads = [
        workload
        for workload in plan.workloads
        if not is_second_twin or workload not in cases.WITHOUT_GRAPH
    ]

    def say_which(words: str) -> None:
        say(f"{result.name}: {words}")

    try:
        rpc.measure(
            workloads, variant.start, cores, plan.rpc_rounds, plan.quick, result.add, say_which
        )
        if cases.CONNECTIONS in workloads:
            result.memory |= rpc.weigh(variant.start, cores, plan.quick, say_which)
    except RuntimeError as error:
        raise BenchmarkError(str(error)) from error


def run(plan: Plan, pure_only: bool, say: Callable[[str], None]) -> list[Measured]:
    """Carry the plan out; ``say`` is told what is being done.

    The compiled twin of an interpreter without the extension is left out, and that is printed.
    """
    cores = available_cores()
    pin_to_one_core()
    twins = (True,) if pure_only else (False, True)
    variants = []
    for variant in [Variant(python, pure) for python in plan.pythons for pure in twins]:
        if _has_twin(variant):
            variants.append(variant)
        else:
            print(f"{variant.python}: the C extension is not built here, so its twin alone runs.")
    measured = _time(plan, variants, say)
    if MEMORY in plan.workloads:
        for variant, result in zip(variants, measured, strict=True):
            result.memory = _weigh(plan, variant, say)
    _store(plan, dict(zip(variants, measured, strict=True)), cores, say)
    _send(plan, dict(zip(variants, measured, strict=True)), cores, say)
    called: set[str] = set()
    for variant, result in zip(variants, measured, strict=True):
        _call(plan, variant, result, cores, variant.python in called, say)
        called.add(variant.python)
    return measured
