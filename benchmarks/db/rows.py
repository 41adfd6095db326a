"""The rows of the table that tell of databases."""

from collections.abc import Callable
from statistics import median

from benchmarks.conductor import Measured
from benchmarks.db.cases import LATENCY, WAYS
from benchmarks.rows import TIMES, Row, microseconds, ratio

PLACES = ("SQLite", "PostgreSQL")

WRITES = {
    "SQLite": "SQLite, one by one",
    "PostgreSQL": "PostgreSQL, one by one",
    "PostgreSQL, 10 at a time": "PostgreSQL, 10 at a time",
}
"""Words in the table to the case."""


def a_second(workload: str, case: str) -> Callable[[Measured], float]:
    """How often a second something was done."""
    return lambda measured: 1 / median(measured.samples[workload][case])


def _milliseconds(way: str, which: str) -> Callable[[Measured], float]:
    return lambda measured: microseconds(LATENCY, f"{way}, {which}")(measured) / 1e3


def _latencies() -> list[Row]:
    rows = []
    for way in WAYS:
        for which, bound in (("median", 15), ("99 %", 60)):
            bounds = (bound, bound) if way == "afresh" else (None, None)
            rows.append(
                Row(LATENCY, f"commit on one host until a client of another has it, {way}: {which}",
                    "ms", _milliseconds(way, which), *bounds)
            )  # fmt: skip
    return rows


DATABASE_ROWS: list[Row] = [
    *(
        Row("writes",
            f"command that writes one row, {what}: its throughput \N{DIVISION SIGN} plain "
            "SQLAlchemy's",
            TIMES, ratio("writes", f"SQLAlchemy, {case}", f"afresh, {case}"), 0.6, 0.6,
            at_least=True)
        for what, case in WRITES.items()
    ),
    *(
        Row("reads",
            f"reads of 100 readers beside a writer, {place}: afresh \N{DIVISION SIGN} plain "
            "SQLAlchemy",
            TIMES, ratio("reads", f"SQLAlchemy, {place}", f"afresh, {place}"), 200, 200,
            at_least=True)
        for place in PLACES
    ),
    *(
        Row("foreign", f"operations of other hosts, {place}", "applied a second",
            a_second("foreign", f"afresh, {place}"), 5_000, 5_000, at_least=True)
        for place in PLACES
    ),
    *(
        Row("entities",
            f"1,000 rows by their keys, {place}: one by one \N{DIVISION SIGN} at once", TIMES,
            ratio("entities", f"one by one, {place}", f"at once, {place}"), 15, 15, at_least=True)
        for place in PLACES
    ),
    *_latencies(),
]  # fmt: skip
