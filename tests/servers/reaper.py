"""Ends what tests started when the tests' own process is gone, however it went.

Runs as a process of its own and reads lines from standard input: `+process <id> <signal>`,
`-process <id>`, `+folder <path>`. When the input ends, for which a SIGKILL of its parent is enough,
it ends the processes that were named and removes the folders.
"""

import os
import shutil
import sys
import time

PATIENCE = 5.0


def is_there(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except OSError:
        return False
    return True


def main() -> None:
    signals: dict[int, int] = {}
    folders: list[str] = []
    for line in sys.stdin:
        verb, _, rest = line.rstrip("\n").partition(" ")
        if verb == "+process":
            process_id, signal = rest.split()
            signals[int(process_id)] = int(signal)
        elif verb == "-process":
            signals.pop(int(rest), None)
        else:
            folders.append(rest)
    for signal_of in (signals.get, lambda _: 9):
        for process_id in signals:
            if is_there(process_id):
                os.kill(process_id, signal_of(process_id))
        until = time.monotonic() + PATIENCE
        while any(map(is_there, signals)) and time.monotonic() < until:
            time.sleep(0.02)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
