"""`afresh ts` writes TypeScript definitions of what a program serves."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
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

from .output import write
from .sources import CommandError, found_at

__all__ = ["add_to"]

_NAMINGS = {"python": PYTHON, "dotnet": DOTNET}


def add_to(commands: Any) -> None:
    """Add the command to those of the program."""
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


def _write_typescript(options: argparse.Namespace) -> int:
    naming = _NAMINGS[options.naming]
    try:
        services = [
            service for source in options.sources for service in _services_at(source, naming)
        ]
        text = typescript_of(dict.fromkeys(services))
    except DefinitionError as error:
        raise CommandError(str(error)) from error
    write(text, options.output)
    return 0


def _services_at(source: str, naming: NamingPolicy) -> Iterable[ServiceDefinition]:
    found = found_at(source)
    if isinstance(found, type):
        return [describe(found, naming, (COMMAND, COMPUTE, REGULAR))]
    hub = found.hub if isinstance(found, App) else found
    if not isinstance(hub, RpcHub):
        raise CommandError(
            f"{source} is neither an App nor a contract, which would be a class, but a "
            f"{type(found).__name__}."
        )
    return [service for service in hub.services if not service.is_backend]
