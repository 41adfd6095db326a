"""One way to connect for each transport, so that what holds for all is tested with all."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from afresh.rpc.transports import Connector
from afresh.rpc.transports.asgi import RpcEndpoint
from afresh.rpc.transports.memory import MemoryConnector
from afresh.rpc.transports.unix import TcpConnector, UnixConnector
from afresh.rpc.transports.unix_server import serve_tcp, serve_unix
from afresh.rpc.transports.websocket import WebSocketConnector
from tests.rpc.transports.parties import Hall, serving

DIRECT = "afresh.rpc.transports.uvicorn:Protocol"
WEBSOCKETS = {"websockets": "auto", "wsproto": "wsproto", "direct": DIRECT}


class Network(NamedTuple):
    """A hub that can be reached, and the way to it."""

    name: str
    hall: Hall
    connect: Connector

    @property
    def is_websocket(self) -> bool:
        return self.name in WEBSOCKETS


@contextlib.asynccontextmanager
async def network_named(name: str, folder: Path) -> AsyncIterator[Network]:
    hall = Hall()
    if name == "memory":
        yield Network(name, hall, MemoryConnector(hall))
    elif name == "unix":
        server = await serve_unix(hall, folder / "hub")
        yield Network(name, hall, UnixConnector(folder / "hub"))
        await server.close()
    elif name == "tcp":
        server = await serve_tcp(hall)
        yield Network(name, hall, TcpConnector("127.0.0.1", server.port))
        await server.close()
    else:
        async with serving(RpcEndpoint(hall), WEBSOCKETS[name]) as port:
            yield Network(name, hall, WebSocketConnector(f"ws://127.0.0.1:{port}/rpc/ws"))


@pytest.fixture(params=["memory", "unix", "tcp", *WEBSOCKETS])
async def network(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Network]:
    async with network_named(request.param, tmp_path) as network:
        yield network


@pytest.fixture(autouse=True)
def nothing_left(no_tasks_left: None) -> None:
    """No test leaves a task behind."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for "localhost" that nobody else vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {path} -out {path}.crt"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path
