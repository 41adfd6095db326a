"""Server processes of the tests' own: each on a free port, with its data in a temporary folder.

What a certain server needs on its command line, and how it says that it is ready, is in the module
named after it. All processes end with the tests, also when those are killed (see `reaper`).
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import IO

READY_WITHIN = 60.0
STOPPED_WITHIN = 30.0


class ServerMissing(Exception):
    """The server is not installed here; the message says how to get it."""


@cache
def _reaper() -> IO[str]:
    """The input of the process that cleans up when this one is gone."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py"))],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt from the keyboard is not for it
    )
    assert process.stdin is not None
    atexit.register(process.communicate)
    return process.stdin


def tell_reaper(line: str) -> None:
    """Say what has to be cleaned up at the end (or, `-process …`, no longer)."""
    stream = _reaper()
    stream.write(line + "\n")
    stream.flush()


def temporary_folder(name: str) -> Path:
    """A folder that is removed at the end; unlike pytest's, other users may get into it."""
    folder = Path(tempfile.mkdtemp(prefix=f"afresh-{name}-"))
    folder.chmod(0o755)
    tell_reaper(f"+folder {folder}")
    return folder


def free_port() -> int:
    """A loopback port to listen on, and to listen on again after a restart.

    Taken from below the range that outgoing connections use, or one of those might be given the
    port while the server is down.
    """
    while True:
        port = random.SystemRandom().randrange(12_000, 30_000)  # whatever seeds tests set
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Server(ABC):
    """A server that tests start, stop, kill and start again, always with the same data and port."""

    name: str
    variable: str  # AFRESH_TEST_… names a server to use in place of this one
    user: str | None = None
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.folder = temporary_folder(self.name)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Make what the first start needs in the folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that serves on `port`."""

    @abstractmethod
    def is_ready(self) -> bool: ...

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Start the process and wait until it serves."""
        assert self._process is None
        with self.log.open("ab") as log:
            process = self._process = subprocess.Popen(
                self.command(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self.user,
                start_new_session=True,
            )
        tell_reaper(f"+process {process.pid} {self.stop_signal.value}")
        until = time.monotonic() + READY_WITHIN
        while not self.is_ready():
            if process.poll() is not None or time.monotonic() > until:
                self.kill()
                tail = self.log.read_text(errors="replace")[-3_000:]
                raise RuntimeError(f"{self.name} did not start. Its log ends with:\n{tail}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the process in order; nothing happens if there is none."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End the process at once, as a lost machine would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """End the process and remove its data."""
        self.stop()
        shutil.rmtree(self.folder)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        tell_reaper(f"-process {process.pid}")

    def answer(self, request: bytes = b"") -> bytes:
        """The first bytes that the port sends, after `request`; nothing while nobody listens."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(request)
                return connection.recv(1_024)
        except OSError:
            return b""


def found(*places: str | Path | None) -> Path | None:
    """The first of these that is an executable file."""
    return next((Path(place) for place in places if place and os.access(place, os.X_OK)), None)
