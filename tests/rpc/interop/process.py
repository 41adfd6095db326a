"""The interop server, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """Run the server; gives its address.

    It must have nothing to complain of but calls of what it does not serve.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT / "src", ROOT]))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.interop_server", "--port", "0", *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    complaints: list[str] = []
    listener = threading.Thread(target=complaints.extend, args=(process.stderr,))
    listener.start()
    try:
        first, _, url = process.stdout.readline().partition(" ")
        if first != "Serving":
            process.kill()
            listener.join()
            raise AssertionError("The server did not start:\n" + "".join(complaints))
        yield url.strip()
    finally:
        process.terminate()
        process.wait()
        listener.join()
        process.stdout.close()
        process.stderr.close()
    assert not [each for each in complaints if "Endpoint not found" not in each]
