"""`python -m examples.shop`, alone or as a cluster, as processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from examples.shop.departments.contracts import DEPARTMENTS
from tests.servers.processes import free_port, tell_reaper

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """What a process of the shop runs with: this checkout, and nothing of the tests."""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    for name in ("DATABASE_URL", "BROKER_URL", "NICEGUI_USER_SIMULATION", "PYTEST_CURRENT_TEST"):
        variables.pop(name, None)
    return variables


class Running:
    """The shop in a process of its own, and what that starts.

    Args:
        folder: where it runs; its output goes to "log" there.
        departments: whether the departments, and a broker, are to be there.
    """

    def __init__(self, folder: Path, *, departments: bool) -> None:
        self.folder = folder
        self.port = free_port()
        ports = [free_port() for _ in DEPARTMENTS] if departments else []
        self.department_ports = dict(zip(DEPARTMENTS, ports, strict=False))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rpc_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/rpc/ws"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def department_url(self, name: str) -> str:
        """Where clients of a department connect."""
        return f"ws://127.0.0.1:{self.department_ports[name]}/rpc/ws"

    def run(self, *arguments: str, **variables: str) -> None:
        """Start it, and wait until it answers."""
        ports = [str(port) for port in self.department_ports.values()]
        command = [sys.executable, "-m", "examples.shop", *arguments, "--no-browser"]
        command += [f"--port={self.port}"]
        command += ["--department-ports", *ports] if ports else ["--alone"]
        with (self.folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C can reach all of them, and nobody else
            )
        tell_reaper(f"+process {self._process.pid} {signal.SIGINT.value}")
        deadline = time.monotonic() + 90
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"The shop did not start:\n{self.log}")
            time.sleep(0.1)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return bool(json.load(response)["status"] in {"ok", "degraded"})
        except OSError:
            return False

    def stop(self) -> int | None:
        """Press Ctrl-C, and return how the whole of it ended."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            result = process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        tell_reaper(f"-process {process.pid}")
        return result

    def stop_hard(self) -> None:
        """End it as a power cut would, but for the processes that it has started."""
        assert self._process is not None
        process, self._process = self._process, None
        process.kill()
        process.wait()
        tell_reaper(f"-process {process.pid}")


class Cluster(Running):
    """Workers behind one port, and the process that looks after them.

    Args:
        folder: where it runs; its output goes to "log" there.
        database_url: of a PostgreSQL; without it, the cluster brings one along.
        page: whether to serve the Python page as well.
        departments: whether the departments, and a broker, are to be there; with the page only.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str | None = None,
        *,
        page: bool = False,
        departments: bool = False,
    ) -> None:
        super().__init__(folder, departments=departments)
        self.page_port = free_port() if page else 0
        self.database_url = database_url

    @property
    def page_url(self) -> str:
        """Of the Python page."""
        return f"http://127.0.0.1:{self.page_port}"

    @property
    def backstage_url(self) -> str:
        """Where processes report to."""
        return f"ws://127.0.0.1:{self.page_port}/backstage/rpc/ws"

    @property
    def pids(self) -> set[int]:
        """The workers, by what the output says."""
        pids: set[int] = set()
        for line in self.log.splitlines():
            if line.startswith("Workers "):
                pids = {int(each) for each in re.findall(r"\d+", line)}
            elif match := re.fullmatch(r"Worker (\d+) is gone, (\d+) takes its place", line):
                gone, new = map(int, match.groups())
                pids = pids - {gone} | {new}
        return pids

    def start(self, *arguments: str, workers: int = 2) -> None:
        """Start it, and wait until a worker answers."""
        variables = {"DATABASE_URL": self.database_url} if self.database_url is not None else {}
        options = [f"--page-port={self.page_port}", f"--workers={workers}"]
        self.run("cluster", *options, *arguments, **variables)

    def kill(self, pid: int) -> None:
        """End a worker as a power cut would."""
        assert pid in self.pids
        os.kill(pid, signal.SIGKILL)


class Demo(Running):
    """The shop, its pages and the backstage in one process, with broker and departments beside."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, departments=True)

    @property
    def backstage_url(self) -> str:
        """Where processes report to."""
        return f"ws://127.0.0.1:{self.port}/backstage/rpc/ws"

    def start(self, *arguments: str) -> None:
        """Start it, and wait until the shop answers."""
        self.run(*arguments)
