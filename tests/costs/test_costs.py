"""No operation costs more function calls, blocks or bytes than ``costs.txt`` says, on any
interpreter and in either twin.

A slower path fails here even on a machine too busy to time anything. When a change makes something
dearer on purpose, or cheaper, record the new figures with each interpreter and twin, and let the
difference be part of the review (the column of a twin needs that twin: the extension built, or
``AFRESH_PURE=1``)::

    AFRESH_PURE=0 python -m pytest tests/costs --write-costs
    AFRESH_PURE=1 python -m pytest tests/costs --write-costs

What the names in the table mean is told in ``measure``.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import afresh

TABLE = Path(__file__).with_name("costs.txt")
MEASURE = Path(__file__).with_name("measure.py")
HEADING = "measure"
BYTES_TOLERANCE = 1.02
"""Bytes a node differ a little with where a dictionary's growth falls; counts do not."""

LEFT_BEHIND = 20
"""Objects or blocks that ten thousand cycles may leave: room for a cache that filled up for good,
not for one a cycle."""

Figures = dict[str, dict[str, float]]
"""Variant (``"3.11 pure"``) to measure to figure."""


def read_table() -> Figures:
    """The recorded figures."""
    if not TABLE.exists():
        return {}
    lines = [
        [cell.strip() for cell in line.split("|")]
        for line in TABLE.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    variants = lines[0][1:]
    return {
        variant: {line[0]: float(line[column]) for line in lines[1:] if line[column]}
        for column, variant in enumerate(variants, start=1)
    }


def write_table(figures: Figures) -> None:
    """Record figures: a line a measure, a column a variant."""
    variants = sorted(figures)
    measures = list(dict.fromkeys(name for variant in variants for name in figures[variant]))
    lines = [[HEADING, *variants]]
    for measure in measures:
        cells = [figures[variant].get(measure) for variant in variants]
        lines.append([measure, *("" if cell is None else f"{cell:g}" for cell in cells)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = [
        " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    comment = "# What operations cost, counted by measure.py. To record anew: see test_costs.py."
    TABLE.write_text("\n".join([comment, "", *table]) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Measured:
    """What was counted in one process.

    Arguments:
        variant: interpreter and twin, such as ``"3.11 pure"``.
        figures: measure to figure, as in the table.
        left: what ten thousand cycles of each kind left behind.
    """

    variant: str
    figures: dict[str, float]
    left: dict[str, float]


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Measured:
    """What operations cost now, counted in a fresh process."""
    package = Path(afresh.__file__).parent.parent
    environment = dict(os.environ, PYTHONPATH=str(package), PYTHONHASHSEED="0")
    for setting in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONMALLOC"):
        environment.pop(setting, None)
    process = subprocess.run(
        [sys.executable, str(MEASURE)], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    result = Measured(**json.loads(process.stdout))
    if pytestconfig.getoption("--write-costs", default=False):
        write_table({**read_table(), result.variant: result.figures})
    return result


pytestmark = pytest.mark.xdist_group(
    "costs"
)  # the process that counts runs once, not once a worker

RECORDED = sorted({name for figures in read_table().values() for name in figures})


@pytest.mark.parametrize("measure", RECORDED)
def test_an_operation_costs_no_more_than_was_recorded(measure: str, measured: Measured) -> None:
    recorded = read_table().get(measured.variant)
    if recorded is None:
        pytest.skip(f"costs.txt has no column for {measured.variant}; add it with --write-costs")
    allowed = recorded[measure] * (BYTES_TOLERANCE if measure.startswith("bytes") else 1)
    assert measured.figures[measure] <= allowed, (
        f"{measure}: {measured.figures[measure]:g}, recorded for {measured.variant}: "
        f"{recorded[measure]:g}. If that is worth it, record the new figures with --write-costs."
    )


def test_every_measure_is_recorded_for_every_variant(measured: Measured) -> None:
    for variant, recorded in read_table().items():
        assert recorded.keys() == measured.figures.keys(), f"record {variant} with --write-costs"


def test_ten_thousand_cycles_leave_nothing_behind(measured: Measured) -> None:
    assert measured.left, "nothing was measured"
    assert not {name: count for name, count in measured.left.items() if count > LEFT_BEHIND}


def test_a_hit_keeps_no_memory(measured: Measured) -> None:
    assert measured.figures["blocks: kept by 10,000 hits, int key"] == 0
    assert measured.figures["blocks: kept by 10,000 hits, str key"] == 0


def test_a_hit_of_the_compiled_twin_allocates_nothing_and_calls_no_python(
    measured: Measured,
) -> None:
    if measured.variant.endswith("pure"):
        pytest.skip("this is the pure twin")
    assert measured.figures["bytes: in between for a hit, int key"] == 0
    assert measured.figures["bytes: in between for a hit, str key"] == 0
    assert measured.figures["calls: hit, int key"] == 0
    assert measured.figures["calls: hit with an edge"] == 0
