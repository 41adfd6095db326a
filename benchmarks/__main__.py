"""``python -m benchmarks``: measure, print the table, write the JSON. ``--help`` tells the
options.
"""

import argparse
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.brokers import cases as brokers
from benchmarks.conductor import ROOT, BenchmarkError, Plan, run
from benchmarks.db import cases as database
from benchmarks.rpc import cases
from benchmarks.workloads import MEMORY, TIMED

WORKLOADS = (*TIMED, MEMORY, *database.WORKLOADS, *brokers.WORKLOADS, *cases.WORKLOADS)
RESULTS = ROOT / "benchmarks" / "results.json"


def _workloads(names: str) -> tuple[str, ...]:
    chosen = tuple(name.strip() for name in names.split(","))
    for name in chosen:
        if name not in WORKLOADS:
            raise argparse.ArgumentTypeError(
                f"no rows named {name!r}; there are {', '.join(WORKLOADS)}"
            )
    return chosen


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure afresh beside its peers and hold the figures against their bounds.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer and shorter samples, no million nodes: a look, not a figure to quote",
    )
    parser.add_argument(
        "--rows",
        type=_workloads,
        default=WORKLOADS,
        metavar="NAME[,NAME]",
        help=f"only these groups of rows: {', '.join(WORKLOADS)}",
    )
    parser.add_argument(
        "--python",
        action="append",
        metavar="PATH",
        help="an interpreter to measure with (again for more); default: this one. "
        "Each needs afresh and the dependency group 'bench' installed",
    )
    parser.add_argument("--pure-only", action="store_true", help="leave the compiled twin out")
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        metavar="PATH",
        help="where the JSON goes (default: benchmarks/results.json)",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="measure nothing; print the README's table from the JSON at --output",
    )
    return parser  # fmt: skip


def _say(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Carry out the command line; returns the exit status."""
    chosen = options().parse_args()
    if chosen.markdown:
        if not chosen.output.exists():
            print(
                f"{chosen.output} does not exist; run python -m benchmarks first.", file=sys.stderr
            )
            return 1
        print(report.markdown(report.read(chosen.output)))
        return 0
    plan = Plan(
        workloads=chosen.rows,
        pythons=tuple(str(Path(path).absolute()) for path in chosen.python or [sys.executable]),
        rounds=5 if chosen.quick else 11,
        generations=1 if chosen.quick else 3,
        rpc_rounds=2 if chosen.quick else 9,
        latency_rounds=1 if chosen.quick else 3,
        quick=chosen.quick,
    )
    try:
        measured = run(plan, chosen.pure_only, _say)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    _say("")
    rows = report.rows_of(plan.workloads)
    print(report.text(measured, rows))
    report.write(chosen.output, report.as_json(plan, measured, rows))
    for miss in report.misses(measured, rows):
        print(f"MISSED  {miss}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
