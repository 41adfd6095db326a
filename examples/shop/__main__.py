"""Runs the shop: `python -m examples.shop --help`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys

from .backstage.servers import DATA, calm_loggers
from .contracts import USERS
from .departments.contracts import DEPARTMENTS


def main() -> None:
    options = arguments().parse_args()
    calm_loggers()
    with contextlib.suppress(KeyboardInterrupt):
        try:
            options.run(options)
        except ImportError as error:
            sys.exit(f"{error}\n`make demo` installs what the demo needs, into .venv.")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.shop",
        description="A small shop whose pages update themselves, and three departments that hear "
        "of its orders through a message broker. Open it in two windows, the second one with "
        "?user=bob, and order something. Without a command, one process has the shop's page at "
        "/, the same without Python at /plain/, what flows behind it at /flow, and the server "
        "that 'terminal' connects to; the broker and the departments run beside it.",
    )
    listening(parser, 8080)
    storing(parser)
    staging(parser)
    parser.add_argument(
        "--alone", action="store_true", help="nothing but the shop: no broker, no departments"
    )
    browsing(parser)
    parser.set_defaults(run=everything)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    cluster = commands.add_parser(
        "cluster", help="the shop's server as several processes on PostgreSQL, and the Python page"
    )
    listening(cluster, 8080)
    cluster.add_argument(
        "--page-port",
        type=int,
        default=8081,
        metavar="PORT",
        help="port of the Python page, 0 for none (%(default)s)",
    )
    cluster.add_argument(
        "--workers", type=int, default=4, metavar="N", help="how many processes (%(default)s)"
    )
    cluster.add_argument(
        "--database",
        metavar="URL",
        default=os.environ.get("DATABASE_URL") or None,
        help="of a PostgreSQL (that of DATABASE_URL, or one of our own)",
    )
    staging(cluster)
    cluster.add_argument(
        "--alone", action="store_true", help="nothing but the shop: no broker, no departments"
    )
    resetting(cluster)
    browsing(cluster)
    cluster.set_defaults(run=several)

    server = commands.add_parser("server", help="the shop's server, with the plain page at /")
    listening(server, 8000)
    storing(server)
    server.set_defaults(run=only_server)

    page = commands.add_parser("page", help="the Python page, as a client of a server")
    listening(page, 8080)
    browsing(page)
    connecting(page, "ws://127.0.0.1:8000/rpc/ws")
    page.set_defaults(run=only_page)

    department = commands.add_parser(
        "department", help="one of the departments, as a listener to a message broker"
    )
    department.add_argument("name", choices=DEPARTMENTS, help="which")
    listening(department, 8082)
    department.add_argument(
        "--database",
        metavar="URL",
        help="where it keeps what it knows (a file named after it)",
    )
    department.add_argument(
        "--broker",
        metavar="URL",
        default="nats://127.0.0.1:4222",
        help="what brings the events (%(default)s)",
    )
    department.add_argument(
        "--backstage", metavar="URL", help="where to report to (nowhere), ws://…/backstage/rpc/ws"
    )
    department.set_defaults(run=only_department)

    terminal = commands.add_parser("terminal", help="the shop in a terminal, as a client")
    connecting(terminal, "ws://127.0.0.1:8080/rpc/ws")
    terminal.add_argument("--user", choices=USERS, default="alice", help="who you are")
    terminal.set_defaults(run=only_terminal)
    return parser


def listening(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=port, help="port to listen on (%(default)s)")


def storing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database",
        metavar="URL",
        default=f"sqlite+aiosqlite:///{DATA}/shop.db",
        help="where the shop's data is kept (%(default)s)",
    )
    resetting(parser)


def staging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker",
        metavar="URL",
        default=os.environ.get("BROKER_URL") or None,
        help="of a message broker, nats://… or amqp://… for example (that of BROKER_URL, or one "
        "of our own)",
    )
    parser.add_argument(
        "--department-ports",
        type=int,
        nargs=3,
        default=(8082, 8083, 8084),
        metavar="PORT",
        help="ports of notification, analytics and inventory (8082 8083 8084)",
    )


def resetting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reset", action="store_true", help="forget all orders and refill")


def browsing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")


def connecting(parser: argparse.ArgumentParser, url: str) -> None:
    parser.add_argument("--server", metavar="URL", default=url, help="the server (%(default)s)")


def everything(options: argparse.Namespace) -> None:
    from .demo import serve_demo

    serve_demo(
        options.database,
        options.broker,
        None if options.alone else options.department_ports,
        host=options.host,
        port=options.port,
        show=not options.no_browser,
        reset=options.reset,
    )


def several(options: argparse.Namespace) -> None:
    from .cluster import serve_cluster

    serve_cluster(
        options.database,
        options.broker,
        None if options.alone else options.department_ports,
        workers=options.workers,
        host=options.host,
        port=options.port,
        page_port=options.page_port,
        show=not options.no_browser,
        reset=options.reset,
    )


def only_server(options: argparse.Namespace) -> None:
    from .server import serve

    DATA.mkdir(exist_ok=True)
    serve(options.database, host=options.host, port=options.port, reset=options.reset)


def only_page(options: argparse.Namespace) -> None:
    from .demo import serve_only_page

    serve_only_page(
        options.server, host=options.host, port=options.port, show=not options.no_browser
    )


def only_department(options: argparse.Namespace) -> None:
    from .departments.app import serve_department

    serve_department(
        options.name,
        options.database or f"sqlite+aiosqlite:///{options.name}.db",
        options.broker,
        host=options.host,
        port=options.port,
        backstage=options.backstage,
    )


def only_terminal(options: argparse.Namespace) -> None:
    from .terminal import follow

    asyncio.run(follow(options.server, options.user, with_colours=sys.stdout.isatty()))


main()
