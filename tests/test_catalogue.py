"""Every behaviour of the catalogue is a named test, or has its reason not to be one.

`catalogue/*.toml` list the behaviours by section: C computeds, registry and options; K the kernel;
N consolidation; R remote computeds; S states; commands; operations; brokers. What a test is called
may change as long as the list follows: the names are looked up in the syntax trees of the test
modules, without running anything.
"""

import ast
import functools
import tomllib
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent
SECTIONS = sorted((TESTS / "catalogue").glob("*.toml"))

FEWEST = {
    "C": 80,
    "K": 30,
    "N": 10,
    "R": 30,
    "S": 40,
    "brokers": 32,
    "commands": 30,
    "operations.core": 51,
    "operations.data": 35,
    "operations.failures": 20,
    "operations.freshness": 9,
    "operations.logs": 42,
    "operations.tracking": 14,
    "operations.watchers": 11,
}
"""How many behaviours a section has at least: so that none gets lost with a file."""

ROWS: list[tuple[str, dict[str, Any]]] = [
    (path.stem, row)
    for path in SECTIONS
    for row in tomllib.loads(path.read_text(encoding="utf-8"))["row"]
]

each_row = pytest.mark.parametrize(
    ("section", "row"), ROWS, ids=[f"{section}: {row.get('name')}" for section, row in ROWS]
)


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """The names of a module's tests, those in classes as `Class::test`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            names |= {
                f"{node.name}::{item.name}"
                for item in node.body
                if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))
            }
    return frozenset(name for name in names if name.split("::")[-1].startswith("test_"))


def is_there(test: str) -> bool:
    """Whether a test of this name, `folder/test_module.py::test_name`, exists."""
    module, _, name = test.partition("::")
    path = TESTS / module
    return path.is_file() and name in names_in(path)


@each_row
def test_a_behaviour_is_held_by_tests_that_exist_or_has_a_reason(section: str, row: dict[str, Any]):
    assert set(row) in ({"name", "tests"}, {"name", "reason"})
    assert row["name"].strip()
    if "reason" in row:
        assert row["reason"].strip().endswith(".")
        return
    assert row["tests"]
    assert len(row["tests"]) == len(set(row["tests"]))
    assert [test for test in row["tests"] if not is_there(test)] == []


@pytest.mark.parametrize("section", FEWEST)
def test_a_section_is_complete_and_names_each_behaviour_once(section: str):
    names = [row["name"] for each, row in ROWS if each == section]
    assert len(names) >= FEWEST[section]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("section", FEWEST)
def test_most_behaviours_of_a_section_make_sense_in_python(section: str):
    reasons = [row["name"] for each, row in ROWS if each == section and "reason" in row]
    assert len(reasons) <= sum(each == section for each, _ in ROWS) / 4


def test_the_check_knows_what_is_a_test():
    own = Path(__file__).name
    assert is_there(f"{own}::test_the_check_knows_what_is_a_test")
    assert not is_there(f"{own}::test_no_such_test")
    assert not is_there(f"{own}::is_there")
    assert not is_there("no_such_module.py::test_the_check_knows_what_is_a_test")
    assert not is_there(own)
