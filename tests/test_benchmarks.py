"""The benchmarks run. What they measure is for `make bench`, on a machine that rests otherwise."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def quick_run(rows: str, tmp_path: Path) -> dict[str, float]:
    """Measure some groups of rows in a hurry; returns the figures by what they are of."""
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--pure-only"]
    run = subprocess.run(
        [*command, "--rows", rows, "--output", str(output)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 0, run.stderr
    (variant,) = json.loads(output.read_text(encoding="utf-8"))["variants"]
    return {row["what"]: row["figure"] for row in variant["rows"]}


def test_a_quick_run_measures_rpc(tmp_path: Path) -> None:
    figures = quick_run("calls,streams,remote,broadcast,connections", tmp_path)
    for what in (
        "remote call, 1,000 in flight",
        "stream of 100 B items",
        "hit of a remote compute method ÷ of a local one",
        "change pushed to 1,000 clients (to 100 in a quick run)",
        "a live subscription, on the server",
    ):
        assert figures[what] > 0, what


def test_a_quick_run_measures_databases(tmp_path: Path) -> None:
    figures = quick_run("writes,foreign", tmp_path)
    for what in (
        "command that writes one row, SQLite: its throughput ÷ plain SQLAlchemy's",
        "operations of other hosts, SQLite",
    ):
        assert figures[what] > 0, what
