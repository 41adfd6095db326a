"""The demo in one command: what is prepared before its pages are served.

Where everything is kept, who listens on which port, and which message broker is used is decided
here; the backstage starts and ends the processes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from .backstage.contracts import BROKER
from .backstage.servers import DATA, MissingProgram, Program, end_leftover, forget, is_free, nats
from .departments.contracts import DEPARTMENTS
from .places import Place, tell_places

STAGE = "SHOP_STAGE"

Server = Callable[[Path], tuple[Program, str]]


def serve_demo(
    database_url: str,
    broker: str | None,
    department_ports: Sequence[int] | None,
    *,
    host: str,
    port: int,
    show: bool,
    reset: bool,
) -> None:
    """Serve the shop, and what is behind it, until the process is ended.

    Args:
        database_url: of the shop.
        broker: the address of a message broker; one of our own is started if None.
        department_ports: where the pages of the departments are; None for no departments.
        host: where to listen.
        port: of the shop.
        show: open the page in a browser.
        reset: forget everything first.
    """
    DATA.mkdir(exist_ok=True)
    end_leftovers(DATA)
    check_ports(host, {"--port": [port], "--department-ports": department_ports or ()})
    places = {"page": Place(port), "plain": Place(port, "/plain/")}
    stage = None
    if department_ports is not None:
        if reset:
            forget(DATA)
        address, server = chosen(DATA, broker, nats)
        places |= {"flow": Place(port, "/flow")} | places_of(department_ports)
        from .backstage.running import Stage

        databases = {name: f"sqlite+aiosqlite:///{DATA / name}.db" for name in DEPARTMENTS}
        ports = dict(zip(DEPARTMENTS, department_ports, strict=True))
        stage = Stage(str(DATA), address, server, databases, ports, host, port)
    tell_places(places)
    show_places(host, places)
    if stage is not None and stage.server is not None:
        print(f"{stage.server.title:<16} keeps what it has in {stage.server.store}/")
    show_terminal(host, port)
    print("Ctrl-C ends everything.", flush=True)
    end_with_the_terminal()
    from .pages import serve_everything

    serve_everything(database_url, stage, host=host, port=port, show=show, reset=reset)


def chosen(folder: Path, broker: str | None, *servers: Server) -> tuple[str, Program | None]:
    """The broker to use: the one that is named, or the first of ours that is installed.

    Args:
        folder: where one of ours keeps what it has.
        broker: the address of one.
        servers: make one of ours.
    """
    if broker is not None:
        return broker, None
    missing = ""
    for server in servers:
        try:
            program, address = server(folder)
            return address, program
        except MissingProgram as error:
            missing = str(error)
    sys.exit(missing)


def end_leftovers(folder: Path) -> None:
    """End what an earlier run has left behind that could not end in order."""
    for name in (BROKER, *DEPARTMENTS):
        end_leftover(folder / f"{name}.pid")


def check_ports(host: str, ports: Mapping[str, Sequence[int]]) -> None:
    """End with a message where somebody listens already, and goes on to.

    What an earlier run has left behind lets go of its ports a moment after it was ended.

    Args:
        host: where to listen.
        ports: by the options that say which they are; 0 for none.
    """
    deadline = time.monotonic() + 2
    for option, numbers in ports.items():
        for number in filter(None, numbers):
            while not (free := is_free(host, number)) and time.monotonic() < deadline:
                time.sleep(0.05)
            if not free:
                sys.exit(
                    f"Port {number} is in use; end what listens there, or choose another one with "
                    f"{option}."
                )


def places_of(department_ports: Sequence[int]) -> dict[str, Place]:
    """Where the pages of the departments are."""
    return {name: Place(port) for name, port in zip(DEPARTMENTS, department_ports, strict=True)}


def show_places(host: str, places: Mapping[str, Place]) -> None:
    """Print where all pages are."""
    titles = {"page": "The Python page", "plain": "The plain page", "flow": "Behind the shop"}
    for name, place in places.items():
        title = titles.get(name, name.capitalize())
        print(f"{title:<16} http://{host}:{place.port}{place.path}")


def show_terminal(host: str, port: int) -> None:
    """Print how to reach a server from a terminal."""
    at = "" if port == 8080 else f" --server ws://{host}:{port}/rpc/ws"
    print(f"In a terminal    {os.path.relpath(sys.executable)} -m examples.shop terminal{at}")


def end_with_the_terminal() -> None:
    """End in order when the terminal is closed, as with Ctrl-C."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))


def serve_only_page(server_url: str, *, host: str, port: int, show: bool) -> None:
    """Serve the Python page as a client of a server, until the process is ended.

    The environment may say what is behind the shop, which this process then looks after.
    """
    from .backstage.running import Stage
    from .pages import serve_page

    told = os.environ.get(STAGE)
    stage = msgspec.json.decode(told, type=Stage) if told else None
    serve_page(server_url, stage, host=host, port=port, show=show)
