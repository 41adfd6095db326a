"""Results as a table for the terminal, as JSON, and as Markdown for the README."""

import datetime as dt
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.brokers.rows import BROKER_ROWS
from benchmarks.conductor import Measured, Plan
from benchmarks.db.rows import DATABASE_ROWS
from benchmarks.rows import ROWS, Judged, Row, judge
from benchmarks.rpc.rows import RPC_ROWS

VERDICT = {True: "ok", False: "MISSED", None: ""}


def rows_of(workloads: Iterable[str]) -> list[Row]:
    """The rows whose workload was run."""
    chosen = set(workloads)
    return [
        row for row in (*ROWS, *DATABASE_ROWS, *BROKER_ROWS, *RPC_ROWS) if row.workload in chosen
    ]


def number(value: float | None) -> str:
    """Three significant digits, no exponent; a dash for what was not measured."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.{1 if abs(value) >= 10 else 2}f}"


def demand(judged: Judged) -> str:
    """A bound in words: ``≤ 1.25``."""
    if judged.bound is None:
        return ""
    return f"{'≥' if judged.row.at_least else '≤'} {judged.bound:g}"


def text(measured: list[Measured], rows: list[Row]) -> str:
    """The table for a terminal: a line a row, for each variant its figure, its bound and whether
    that is met.
    """
    header = ["", "unit"]
    for variant in measured:
        header += [variant.name, "must be", ""]
    lines = [header]
    for row in rows:
        line = [row.what, row.unit]
        for variant in measured:
            judged = judge(row, variant)
            line += [number(judged.figure), demand(judged), VERDICT[judged.met]]
        lines.append(line)
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column > 1 and column % 3 == 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def misses(measured: list[Measured], rows: list[Row]) -> list[str]:
    """A sentence for each bound that was not met."""
    return [
        f"{variant.name}: {row.what}: {number(judged.figure)} {row.unit}, must be {demand(judged)}"
        for variant in measured
        for row in rows
        if (judged := judge(row, variant)).met is False
    ]


def as_json(plan: Plan, measured: list[Measured], rows: list[Row]) -> dict[str, Any]:
    """Everything that was measured: the machine, each row's figure and bound, and the samples
    behind them.
    """
    return {
        "taken": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": {"system": platform.system(), "processor": _processor()},
        "rounds": plan.rounds * plan.generations,
        "quick": plan.quick,
        "variants": [
            {
                **variant.about,
                "rows": [_row_as_json(judge(row, variant)) for row in rows],
                "nanoseconds": {
                    workload: {
                        case: {
                            "median": round(median(samples) * 1e9, 2),
                            "lowest": round(min(samples) * 1e9, 2),
                            "rounds": [round(sample * 1e9, 2) for sample in samples],
                        }
                        for case, samples in cases.items()
                    }
                    for workload, cases in variant.samples.items()
                },
                "memory": variant.memory,
            }
            for variant in measured
        ],
    }


def _row_as_json(judged: Judged) -> dict[str, Any]:
    return {
        "workload": judged.row.workload,
        "what": judged.row.what,
        "unit": judged.row.unit,
        "figure": judged.figure,
        "bound": demand(judged),
        "met": judged.met,
    }


def _processor() -> str:
    """The processor's name where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


IN_README = {
    "cached call, int key ÷ empty coroutine method": (
        "a cached call ÷ awaiting an `async def` method that returns its argument"
    ),
    "cached call with an edge, a thousand keys ÷ empty coroutine method": (
        "the same inside another compute method, which from then on depends on it"
    ),
    "fresh key ÷ empty coroutine method": "a call that runs an empty body and caches its result",
    "async-lru: its hit ÷ afresh's": "async-lru's hit on a method ÷ a cached call",
    "aiocache: its hit ÷ afresh's": "aiocache's hit in memory ÷ a cached call",
    "cashews: its hit ÷ afresh's": "cashews' hit in memory ÷ a cached call",
    "invalidate and recompute one key ÷ async-lru's": (
        "invalidating and computing one result again ÷ async-lru doing the same"
    ),
}
"""The ratios that the README shows, and the words it has for them."""


RPC_IN_README = {
    "remote call, 100 in flight: grpc.aio ÷ afresh": "a call through grpc.aio, 100 in flight",
    "remote call, 1,000 in flight: grpc.aio ÷ afresh": "the same with 1,000 in flight",
    "remote call, 1 in flight: grpc.aio ÷ afresh": "the same one by one",
    "remote call, 100 in flight: python-socketio with acks ÷ afresh": (
        "an event with acknowledgement through python-socketio, 100 in flight"
    ),
    "remote call, 100 in flight: FastAPI and aiohttp ÷ afresh": (
        "a request from aiohttp to FastAPI, 100 in flight"
    ),
    "stream of 100 B items: grpc.aio ÷ afresh": "an item of 100 bytes in a stream of grpc.aio",
    "stream of 100 B items: server-sent events ÷ afresh": "the same as a server-sent event",
}
"""The ratios of RPC that the README shows, and the words it has for them."""


PLAIN = "\N{DIVISION SIGN} plain SQLAlchemy"

DATABASE_IN_README = {
    f"command that writes one row, SQLite: its throughput {PLAIN}'s": (
        "commands a second that write one row to SQLite"
    ),
    f"command that writes one row, PostgreSQL: its throughput {PLAIN}'s": "the same to PostgreSQL",
    f"command that writes one row, PostgreSQL, 10 at a time: its throughput {PLAIN}'s": (
        "the same, 10 at a time"
    ),
    f"reads of 100 readers beside a writer, SQLite: afresh {PLAIN}": (
        "reads a second of 100 readers, 1,000 rows in SQLite, beside one writer"
    ),
    f"reads of 100 readers beside a writer, PostgreSQL: afresh {PLAIN}": "the same with PostgreSQL",
    "1,000 rows by their keys, SQLite: one by one \N{DIVISION SIGN} at once": (
        "1,000 rows by their keys at once through an entity loader, SQLite"
    ),
    "1,000 rows by their keys, PostgreSQL: one by one \N{DIVISION SIGN} at once": (
        "the same from PostgreSQL"
    ),
}
"""The ratios with databases that the README shows, and the words it has for them."""


def markdown(results: dict[str, Any]) -> str:
    """The tables for the README, from a run's JSON: one column a variant."""
    variants = results["variants"]
    graph = _table("Times", IN_README, variants, [_name(variant) for variant in variants])
    calling = [variant for variant in variants if "calls" in variant["nanoseconds"]]
    rpc = _table("Times afresh's", RPC_IN_README, calling, [_version(each) for each in calling])
    stored = [variant for variant in variants if "writes" in variant["nanoseconds"]]
    database = _table(
        "Times plain SQLAlchemy's", DATABASE_IN_README, stored, [_name(each) for each in stored]
    )
    peers = ", ".join(f"{name} {version}" for name, version in variants[0]["peers"].items())
    return "\n".join(
        [
            *graph,
            *rpc,
            *database,
            f"Medians of interleaved rounds, by CPython version. Peers: {peers}.",
        ]
    )


def _version(variant: dict[str, Any]) -> str:
    return ".".join(variant["python"].split(".")[:2])


def _name(variant: dict[str, Any]) -> str:
    return _version(variant) + (", pure twin" if variant["twin"] == "pure" else "")


def _table(
    title: str, words: dict[str, str], variants: list[dict[str, Any]], names: list[str]
) -> list[str]:
    """A table of the rows that were measured; nothing where none was."""
    lines = []
    for what, said in words.items():
        figures = [
            row["figure"] for variant in variants for row in variant["rows"] if row["what"] == what
        ]
        if figures:
            lines.append(f"| {said} | " + " | ".join(map(number, figures)) + " |")
    head = [f"| {title} | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    return [*head, *lines, ""] if lines else []


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read what ``write`` wrote."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results
