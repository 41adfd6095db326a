"""`afresh brokers …` looks at messages from outside of the app, and decides about dead ones.

The app is found, and not started: nothing is published or handled by these commands. Needs what
the app needs, so what works at its messages is imported when a command runs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import write
from .sources import broker_of

if TYPE_CHECKING:
    from afresh.brokers import Broker

__all__ = ["add_to"]

_EXAMPLES = {
    "": """\
examples:
  afresh brokers status shop.app:app
  afresh brokers dead shop.app:app --group notifications
  afresh brokers requeue shop.app:app --outbox --ids 17 18
  afresh brokers drop shop.app:app --group notifications --all
  afresh brokers schemas shop.events -o events.schema.json
""",
    "status": """\
exits with 0 if all is well, and with 1 if the broker or the database can't be reached, if messages
wait and nobody publishes them, or if messages are dead

examples:
  afresh brokers status shop.app:app
  afresh brokers status shop.app:app --watch 2
  afresh brokers status shop.app:app --json
""",
    "dead": """\
examples:
  afresh brokers dead shop.app:app
  afresh brokers dead shop.app:app --outbox --limit 500
  afresh brokers dead shop.app:app --group notifications --json
""",
    "requeue": """\
exits with 1 if some of the messages are not there any more

examples:
  afresh brokers requeue shop.app:app --outbox --ids 17 18
  afresh brokers requeue shop.app:app --group notifications --all
  afresh brokers requeue shop.app:app --all
""",
    "drop": """\
exits with 1 if some of the messages are not there any more

examples:
  afresh brokers drop shop.app:app --outbox --ids 17
  afresh brokers drop shop.app:app --group notifications --all --yes
""",
    "schemas": """\
examples:
  afresh brokers schemas shop.events                   all events of a module
  afresh brokers schemas shop.events:OrderPlaced       one of them
  afresh brokers schemas shop.app:app -o read.json     those that an app handles
""",
}


def add_to(commands: Any) -> None:
    """Add the commands to those of the program."""
    brokers = commands.add_parser(
        "brokers",
        help="see how messages go out and come in, and decide about dead ones",
        description="See how messages go out and come in, and decide about dead ones.",
        epilog=_EXAMPLES[""],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found = brokers.add_subparsers(required=True, metavar="command")
    status = _command(found, "status", "show what waits, who publishes it, and what comes in")
    status.add_argument("--json", action="store_true", help="for programs, in place of tables")
    status.add_argument(
        "--watch", type=_seconds, metavar="seconds", help="look again and again, until Ctrl+C"
    )
    status.set_defaults(run=_in_app(_show_status))
    dead = _command(found, "dead", "list messages that were given up, and why")
    _add_places(dead)
    dead.add_argument(
        "--limit", type=_count, default=20, help="how many of each place at most; 20 unless given"
    )
    dead.add_argument("--json", action="store_true", help="for programs, in place of tables")
    dead.set_defaults(run=_in_app(_list_dead))
    for name, text in (
        ("requeue", "have dead messages published, or handled, after all"),
        ("drop", "delete dead messages"),
    ):
        command = _command(found, name, text)
        which = command.add_mutually_exclusive_group(required=True)
        which.add_argument("--ids", nargs="+", metavar="id", help="as `dead` shows them")
        which.add_argument("--all", action="store_true", help="all that are there")
        _add_places(command)
        if name == "drop":
            command.add_argument("--yes", action="store_true", help="do not ask")
        command.set_defaults(run=_in_app(_change_dead), change=name)
    schemas = found.add_parser(
        "schemas",
        help="write the JSON Schema of events",
        description="Write the JSON Schema of events, for tests of those who read them.",
        epilog=_EXAMPLES["schemas"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    schemas.add_argument(
        "sources",
        nargs="+",
        metavar="source",
        help="module or module:name of a class, or of an App: the events that it handles",
    )
    schemas.add_argument("-o", "--output", type=Path, metavar="file", help="else the screen")
    schemas.set_defaults(run=_write_schemas)


def _command(found: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = found.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=_EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "source", metavar="module:name", help="where to find the App, or a function that makes it"
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="seconds",
        help="how long to wait for the broker, and for the database; 10 unless given",
    )
    return command


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--outbox", action="store_true", help="what could not be published")
    command.add_argument("--shard", metavar="name", help="of which outbox, where there are several")
    command.add_argument("--group", metavar="name", help="what this group could not handle")
    command.add_argument(
        "--destination", metavar="name", help="of which channel, where a group has several"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of messages above 0")
    return int(text)


# -- running


def _in_app(
    work: Callable[[Broker, argparse.Namespace], Awaitable[int]],
) -> Callable[[argparse.Namespace], int]:
    """Return what runs a command with the broker of an app, and closes the app."""

    def run(options: argparse.Namespace) -> int:
        app, broker = broker_of(options.source)
        # What can't be reached is told once, by the command.
        logging.getLogger().addHandler(logging.NullHandler())

        async def whole() -> int:
            async with aclosing(app):
                return await work(broker, options)

        return asyncio.run(whole())

    return run


async def _show_status(broker: Broker, options: argparse.Namespace) -> int:
    from .broker_status import show_status

    return await show_status(
        broker,
        options.source,
        is_json=options.json,
        watch=options.watch,
        timeout=options.timeout,
    )


async def _list_dead(broker: Broker, options: argparse.Namespace) -> int:
    from .dead_messages import list_dead

    return await list_dead(broker, options)


async def _change_dead(broker: Broker, options: argparse.Namespace) -> int:
    from .dead_messages import change_dead

    return await change_dead(broker, options)


def _write_schemas(options: argparse.Namespace) -> int:
    from .event_schemas import schemas_of

    write(schemas_of(options.sources), options.output)
    return 0
