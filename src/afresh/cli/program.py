"""`main`: reads what the person wants, has it done, and says what went wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import brokers, typescript
from .sources import CommandError

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the status to exit with.

    Args:
        arguments: what stands after the name of the program; that of this process unless given.

    Returns:
        0 if all is well, 1 if what was looked at is not, 2 if the command can't be carried out,
        130 if it was interrupted.
    """
    parser = argparse.ArgumentParser(prog="afresh")
    commands = parser.add_subparsers(required=True, metavar="command")
    typescript.add_to(commands)
    brokers.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except CommandError as error:
        print(f"afresh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # who reads has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _INTERRUPTED
    return status
