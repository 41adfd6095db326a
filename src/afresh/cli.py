"""The command line: `afresh ts` writes TypeScript definitions of what a program serves."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from afresh.app import App
from afresh.commands import COMMAND
from afresh.errors import DefinitionError
from afresh.remote.kind import COMPUTE
from afresh.rpc.contracts import REGULAR, ServiceDefinition, describe
from afresh.rpc.hub import RpcHub
from afresh.rpc.naming import DOTNET, PYTHON, NamingPolicy
from afresh.web.typescript import typescript_of

__all__ = ["main"]

_NAMINGS = {"python": PYTHON, "dotnet": DOTNET}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the status to exit with.

    Args:
        arguments: what stands after the name of the program; that of this process unless given.
    """
    parser = argparse.ArgumentParser(prog="afresh")
    commands = parser.add_subparsers(required=True, metavar="command")
    ts = commands.add_parser(
        "ts",
        help="write TypeScript definitions for pages that use afresh.js",
        description="Write a TypeScript definition file of afresh.js and of services that pages "
        "call with it.",
    )
    ts.add_argument(
        "sources",
        nargs="+",
        metavar="module:name",
        help="where to find an App, of which all services are written, or a contract",
    )
    ts.add_argument("-o", "--output", type=Path, metavar="file", help="the file; else the screen")
    ts.add_argument(
        "--naming",
        choices=_NAMINGS,
        default="python",
        help="how contracts are named on the wire; an App says that itself",
    )
    ts.set_defaults(run=_write_typescript)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except _CommandError as error:
        print(f"afresh: {error}", file=sys.stderr)
        return 2
    return 0


class _CommandError(Exception):
    """The command can't be carried out; the text is for the person who gave it."""


def _write_typescript(options: argparse.Namespace) -> None:
    naming = _NAMINGS[options.naming]
    try:
        services = [
            service for source in options.sources for service in _services_at(source, naming)
        ]
        text = typescript_of(dict.fromkeys(services))
    except DefinitionError as error:
        raise _CommandError(str(error)) from error
    if options.output is None:
        print(text, end="")
        return
    try:
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _CommandError(f"{options.output} can't be written: {error.strerror}.") from error


def _services_at(source: str, naming: NamingPolicy) -> Iterable[ServiceDefinition]:
    found = _found_at(source)
    if isinstance(found, type):
        return [describe(found, naming, (COMMAND, COMPUTE, REGULAR))]
    hub = found.hub if isinstance(found, App) else found
    if not isinstance(hub, RpcHub):
        raise _CommandError(
            f"{source} is neither an App nor a contract, which would be a class, but a "
            f"{type(found).__name__}."
        )
    return [service for service in hub.services if not service.is_backend]


def _found_at(source: str) -> Any:
    module_name, _, path = source.partition(":")
    if not module_name or not path:
        raise _CommandError(f"{source!r} is no place: write module:name, shop.app:app for example.")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` finds modules: from where it is called
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _CommandError(
            f"{source}: there is no module {error.name!r} here; call afresh from the folder that "
            "the modules are in, in the environment that they run in."
        ) from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise _CommandError(f"{source}: there is no {name!r} in {module_name}.") from None
    return found
