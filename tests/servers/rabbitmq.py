"""RabbitMQ for tests, from the distribution's package."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from .processes import Server, ServerMissing, found, free_port

MISSING = (
    "There is no RabbitMQ for tests: apt-get install rabbitmq-server, "
    "or set AFRESH_TEST_RABBITMQ to the URL of a server"
)


def program() -> str:
    """The path of the server: the package's own, as the one on PATH changes the user."""
    path = found(Path("/usr/lib/rabbitmq/bin/rabbitmq-server"))
    if path is None:
        raise ServerMissing(MISSING)
    return str(path)


class RabbitMQ(Server):
    """A RabbitMQ of one node, whose data is in the temporary folder."""

    name = "rabbitmq"
    variable = "RABBITMQ"
    stop_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        self.program = program()
        self.distribution_port = free_port()
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(
            "loopback_users = none\n"
            "log.console = true\n"
            "log.file = false\n"
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
        )

    def command(self) -> list[str]:
        # Erlang finds nodes by a daemon of its own; each test server has one on a port apart.
        settings = {
            "RABBITMQ_NODENAME": f"afresh{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_NODE_PORT": str(self.port),
            "ERL_EPMD_PORT": str(self.distribution_port + 30_000),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "HOME": str(self.folder),
        }
        environment = [f"{name}={value}" for name, value in settings.items()]
        return ["env", *environment, self.program]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(8))
        except OSError:
            return False

    def close(self) -> None:
        super().close()
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run(
                [epmd, "-port", str(self.distribution_port + 30_000), "-kill"],
                capture_output=True,
                check=False,
                env=os.environ | {"ERL_EPMD_PORT": str(self.distribution_port + 30_000)},
            )
