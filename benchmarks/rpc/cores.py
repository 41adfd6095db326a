"""Which cores processes run on, where the system lets us choose."""

import os
from collections.abc import Iterable
from pathlib import Path


def available_cores() -> list[int]:
    """The cores that this process may use; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def keep_on(process: int, cores: Iterable[int]) -> None:
    """Keep a process with all its threads on some cores."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)
