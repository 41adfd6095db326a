"""The command line: `afresh …`."""

from .program import main

__all__ = ["main"]
