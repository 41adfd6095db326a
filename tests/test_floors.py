"""The order of the floors: a package imports from floors below its own, and from itself.

Reads the imports out of the syntax tree, so that those inside functions and under TYPE_CHECKING
count as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

# The floors from below; names are packages or modules directly under afresh.
FLOORS = [
    {"errors"},
    {"primitives"},
    {"graph", "rpc"},
    {"commands", "states"},
    {"operations", "remote"},
    {"db"},
    {"app", "auth", "brokers", "kv"},
    {"testing", "ui", "web"},
    {"cli"},
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}

# The one place that knows everybody.
ASSEMBLES = "app"


def imported(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every dotted name that a module imports, with its line; `from a import b` gives a.b."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def objection(module: str, target: str) -> str | None:
    """Why `module` must not import `target`, if so."""
    if target != "afresh" and not target.startswith("afresh."):
        return None
    own = module.split(".")[1] if "." in module else ""
    if not own:  # afresh/__init__.py shows what all the others made
        return None
    room = target.split(".")[1] if "." in target else ""
    if room == own:
        return None
    if room not in FLOOR_OF:
        return f"{target} is not in a room of the house; import from the package that defines it"
    if FLOOR_OF[room] < FLOOR_OF[own]:
        return None
    if own == ASSEMBLES:
        return None
    where = "its own floor" if FLOOR_OF[room] == FLOOR_OF[own] else "a floor above"
    return f"{own} must not import {target}, which is on {where}"


def violations(text: str, module: str, *, is_package: bool = False) -> list[str]:
    """One line for each import of a module that the order forbids."""
    tree = ast.parse(text)
    return [
        f"line {line}: {words}"
        for line, target in imported(tree, module, is_package=is_package)
        if (words := objection(module, target)) is not None
    ]


def modules() -> list[tuple[str, Path]]:
    """Every module of afresh with its dotted name."""
    found = []
    for path in sorted((SOURCE / "afresh").rglob("*.py*")):
        if path.suffix in {".py", ".pyi"}:
            parts = path.relative_to(SOURCE).with_suffix("").parts
            found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*it, id=it[0]) for it in modules()])
def test_a_module_imports_only_from_floors_below(module: str, path: Path) -> None:
    """The rule itself, one case a module."""
    is_package = path.name == "__init__.py"
    assert not violations(path.read_text(encoding="utf-8"), module, is_package=is_package)


def test_every_package_has_a_floor() -> None:
    """A new package must be given its place in FLOORS before it can import anything."""
    rooms = {module.split(".")[1] for module, _ in modules() if "." in module}
    assert rooms <= set(FLOOR_OF)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("afresh.graph.computed", "from afresh.states import MutableState"),
        ("afresh.graph.computed", "import afresh.rpc"),
        ("afresh.graph.computed", "from ..states.mutable import MutableState"),
        ("afresh.graph.computed", "from .. import states"),
        ("afresh.graph.computed", "from afresh import ComputeService"),
        ("afresh.graph.computed", "from afresh import testing as t"),
        ("afresh.graph.computed", "def late():\n    from afresh.ui import nicegui"),
        ("afresh.primitives.clock", "import afresh"),
        ("afresh.kv.store", "from afresh.app import App"),
    ],
)
def test_the_check_catches_an_import_that_the_order_forbids(module: str, line: str) -> None:
    """Upwards, sideways, relative, whole, late: each is seen."""
    assert violations(line, module)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("afresh.graph.computed", "from afresh.primitives.clock import current_clock"),
        ("afresh.graph.computed", "from .options import Options"),
        ("afresh.graph.computed", "from . import options"),
        ("afresh.graph.computed", "from ..errors import AfreshError"),
        ("afresh.graph.computed", "import asyncio, afreshness"),
        ("afresh.app", "from afresh.brokers import Broker"),
        ("afresh.app", "from afresh.web import asgi"),
        ("afresh.ui.nicegui", "from afresh.states import ComputedState"),
    ],
)
def test_the_check_lets_an_import_downwards_pass(module: str, line: str) -> None:
    """Down, within the package, and out of afresh: all fine."""
    assert not violations(line, module)


def test_a_package_may_import_its_own_parts_relatively() -> None:
    """The dots of an `__init__` count from the package itself."""
    assert not violations("from .computed import Computed", "afresh.graph", is_package=True)
    assert violations("from ..states import x", "afresh.graph", is_package=True)
