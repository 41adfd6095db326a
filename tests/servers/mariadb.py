"""MariaDB for tests, from the system's package."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .processes import Server, ServerMissing, found

MISSING = (
    "There is no MariaDB for tests: on Debian, apt-get install --no-install-recommends "
    "mariadb-server, or set AFRESH_TEST_MARIADB to the URL of a server whose user may create "
    "databases"
)


def program(name: str) -> str:
    """The path of one of MariaDB's programs; PATH may leave out where Debian puts servers."""
    path = found(shutil.which(name), f"/usr/sbin/{name}", f"/usr/bin/{name}")
    if path is None:
        raise ServerMissing(MISSING)
    return str(path)


class MariaDB(Server):
    """A MariaDB that does not wait for the disk, and whose own time zone is not UTC."""

    name = "mariadb"
    variable = "MARIADB"

    @property
    def url(self) -> str:
        return f"mysql+asyncmy://root@127.0.0.1:{self.port}/mysql?charset=utf8mb4"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def options(self) -> list[str]:
        """What both the server and the program that makes its data folder are told."""
        return [
            "--no-defaults",
            f"--datadir={self.data}",
            f"--tmpdir={self.folder}",
            "--innodb-log-file-size=16M",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]

    def prepare(self) -> None:
        flags = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        made = subprocess.run(
            [program("mariadb-install-db"), *self.options(), *flags],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"mariadb-install-db failed:\n{made.stdout}{made.stderr}")

    def command(self) -> list[str]:
        return [
            program("mariadbd"),
            *self.options(),
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.folder / 'pid'}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--default-time-zone=+05:45",
        ]

    def is_ready(self) -> bool:
        return b"MariaDB" in self.answer()
