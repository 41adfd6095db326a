"""Starts worker processes fast: a process that has imported their programs, and forks them.

`fork_host` is for tests. What runs here as `python -m tests.hosts.nursery` gets, over a socket, a
setup and the files that are to be standard input, output and error; it answers with a process id.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from tests.servers.processes import tell_reaper

ROOT = Path(__file__).parents[2]


def fork_host(setup: bytes, *, stdin: int, stdout: int, stderr: int) -> int:
    """Start the program that a setup names, and return its process id."""
    nursery = _nursery()
    socket.send_fds(nursery, [setup], [stdin, stdout, stderr])
    process_id = int(nursery.recv(64))
    tell_reaper(f"+process {process_id} {signal.SIGKILL.value}")
    return process_id


@cache
def _nursery() -> socket.socket:
    here, there = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hosts.nursery", str(there.fileno())],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    there.close()
    atexit.register(process.wait)
    atexit.register(here.close)  # which ends it
    return here


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that end
    while True:
        setup, files, _, _ = socket.recv_fds(requests, 65_536, 3)
        if not setup:
            return
        program = importlib.import_module(json.loads(setup)["program"])
        process_id = os.fork()
        if not process_id:
            requests.close()
            become_host(program, setup, files)
        for file in files:
            os.close(file)
        requests.sendall(str(process_id).encode())


def become_host(program: Any, setup: bytes, files: list[int]) -> NoReturn:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    try:
        asyncio.run(program.main(setup))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
