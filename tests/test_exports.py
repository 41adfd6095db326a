"""What the packages promise: `__all__` names what is there, and all of it is documented.

That the lists are sorted is left to ruff (RUF022), docstrings of the sources to ruff's D rules;
here the objects count as users meet them, those written in C included.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import GetSetDescriptorType, ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).parent.parent / "src"


def public_modules() -> list[str]:
    """Every package and module of afresh whose dotted name has no underscore at a start."""
    names = []
    for path in sorted((SOURCE / "afresh").rglob("*.py")):
        dotted = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        name = dotted.removesuffix(".__init__")
        if not any(part.startswith("_") for part in name.split(".")):
            names.append(name)
    return names


def promised(module: ModuleType) -> list[str]:
    """The module's `__all__`, empty where it has none."""
    return list(getattr(module, "__all__", ()))


def gathered(module: ModuleType) -> Iterator[tuple[str, str]]:
    """What an `__init__` imports from afresh under a public name: (source module, name)."""
    assert module.__file__ is not None
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        source = importlib.util.resolve_name(
            "." * node.level + (node.module or ""), module.__name__
        )
        if source == "afresh" or source.startswith("afresh."):
            for alias in node.names:
                name = alias.asname or alias.name
                if not name.startswith("_"):
                    yield source, name


def undocumented(name: str, thing: Any) -> Iterator[str]:
    """The public parts of a class or function that say nothing about themselves."""
    if inspect.isclass(thing):
        if not vars(thing).get("__doc__"):
            yield name
        for member, value in vars(thing).items():
            # A slot or a dataclass field has its words beside it in the source, if any.
            documentable = inspect.isroutine(value) or isinstance(
                value, (property, staticmethod, classmethod, GetSetDescriptorType)
            )
            if member.startswith("_") or not documentable:
                continue
            if not inspect.getdoc(getattr(thing, member)):
                yield f"{name}.{member}"
    elif inspect.isroutine(thing) and not inspect.getdoc(thing):
        yield name


@pytest.mark.parametrize("name", public_modules())
def test_every_promised_name_is_there_once(name: str) -> None:
    """`from package import *` must work, and a stale entry must not hide."""
    module = importlib.import_module(name)
    names = promised(module)
    assert len(names) == len(set(names))
    assert [each for each in names if not hasattr(module, each)] == []


@pytest.mark.parametrize(
    "name", [name for name in public_modules() if (SOURCE / name.replace(".", "/")).is_dir()]
)
def test_a_package_promises_exactly_what_it_gathers(name: str) -> None:
    """An `__init__` gathers the package's public names and nothing else."""
    module = importlib.import_module(name)
    constants = {each for each in promised(module) if each.startswith("__")}
    assert {each for _, each in gathered(module)} == set(promised(module)) - constants


def test_the_front_door_offers_only_what_its_packages_promise() -> None:
    """A name in `afresh` is a public name of the package that it comes from."""
    afresh = importlib.import_module("afresh")
    strays = [
        f"{source}.{name}"
        for source, name in gathered(afresh)
        if name not in promised(importlib.import_module(source))
    ]
    assert strays == []


@pytest.mark.parametrize("name", public_modules())
def test_everything_public_is_documented(name: str) -> None:
    """Classes, their public members, and functions have docstrings, as does the module."""
    module = importlib.import_module(name)
    assert module.__doc__
    silent = [
        words for each in promised(module) for words in undocumented(each, getattr(module, each))
    ]
    assert silent == []


def test_the_check_of_docstrings_sees_what_is_missing() -> None:
    """A bare class, method, property and function are all named."""

    class Bare:
        def method(self) -> None: ...

        @property
        def field(self) -> int:
            return 1

    def function() -> None: ...

    assert list(undocumented("Bare", Bare)) == ["Bare", "Bare.method", "Bare.field"]
    assert list(undocumented("function", function)) == ["function"]
