"""Errors that are kept as results, without keeping the stack they were raised on.

An exception refers to its traceback, and that to all frames and their variables. A cached error
must not keep those alive for as long as it is served, and many callers must be able to raise it
without writing over each other's tracebacks; so what is stored, and what is raised, are copies.
"""

from __future__ import annotations

import copy
import types
from pathlib import Path

__all__ = ["fresh_copy", "without_traceback"]


def without_traceback(error: BaseException, what: str) -> BaseException:
    """Return a copy of `error` to keep: no traceback, no context, and a note of where it came from.

    Args:
        error: as it was caught.
        what: whose result it is, for the note.
    """
    stored = fresh_copy(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is not None and stored is not error:
        code = place.tb_frame.f_code
        stored.add_note(
            f"cached as the result of {what}; first raised in {code.co_name} "
            f"at {Path(code.co_filename).name}:{place.tb_lineno}"
        )
    return stored


def fresh_copy(error: BaseException, depth: int = 8) -> BaseException:
    """Return an equal exception without traceback and context; its causes are copied along.

    An exception of a kind that can't be copied is returned itself, its traceback removed.
    """
    clone = _copy(error)
    if clone is None:
        return error.with_traceback(None)
    cause = error.__cause__
    clone.__cause__ = fresh_copy(cause, depth - 1) if cause is not None and depth else None
    clone.__suppress_context__ = error.__suppress_context__
    return clone


def _copy(error: BaseException) -> BaseException | None:
    kind = type(error)
    try:
        if isinstance(kind.__init__, types.FunctionType):
            # A constructor written in Python may take anything; the state it left is what counts.
            clone = kind.__new__(kind, *error.args)
            clone.__dict__.update(error.__dict__)
            clone.args = error.args
        else:
            clone = copy.copy(error)
    except Exception:
        return None
    if type(clone) is not kind or clone.args != error.args:
        return None
    notes = error.__dict__.get("__notes__")
    if notes is not None:
        clone.__notes__ = list(notes)
    return clone
