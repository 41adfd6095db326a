"""Errors that are kept as results, without keeping the stack they were raised on.

An exception refers to its traceback, and that to all frames and their variables. A cached error
must not keep those alive for as long as it is served, and many callers must be able to raise it
without writing over each other's tracebacks; so what is stored, and what is raised, are copies.

A copy is made of what the original holds, not by its constructor, which may take anything.
"""

from __future__ import annotations

import copy
import weakref
from pathlib import Path
from types import MemberDescriptorType
from typing import Any

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
        note = (
            f"cached as the result of {what}; first raised in {code.co_name} "
            f"at {Path(code.co_filename).name}:{place.tb_lineno}"
        )
        _set(stored, "__notes__", [*getattr(stored, "__notes__", ()), note])
    return stored


def fresh_copy(error: BaseException, depth: int = 8) -> BaseException:
    """Return an equal exception without traceback and context; its causes, the members of a group,
    and errors among its arguments and attributes are copied along.

    An exception of a kind that can't be copied is returned itself, its traceback removed.

    Args:
        error: what to copy.
        depth: how many causes and members of members to follow.
    """
    clone = _copy(error, depth)
    if clone is None:
        return error.with_traceback(None)
    cause = error.__cause__
    _set(clone, "__cause__", fresh_copy(cause, depth - 1) if cause is not None and depth else None)
    _set(clone, "__suppress_context__", error.__suppress_context__)
    return clone


_set = BaseException.__setattr__
"""Sets an attribute also where the class, a frozen dataclass for example, does not let one."""

_Layout = tuple[Any, tuple[MemberDescriptorType, ...]]


def _copy(error: BaseException, depth: int) -> BaseException | None:
    kind = type(error)
    for copied in (_rebuilt, _copied_as_it_says):
        try:
            clone = copied(error, depth)
        except Exception:
            continue
        if type(clone) is kind:
            return clone
    return None


def _rebuilt(error: BaseException, depth: int) -> BaseException:
    """A new object of the same class, with all that Python and the class keep in such a one."""
    kind = type(error)
    base, slots = _layout_of(kind)
    members: dict[int, BaseException] = {}
    clone: BaseException
    if isinstance(error, BaseExceptionGroup):
        copies = [fresh_copy(each, depth - 1) if depth else each for each in error.exceptions]
        members = dict(zip(map(id, error.exceptions), copies, strict=True))
        clone = base.__new__(kind, error.message, copies)
    else:
        clone = base.__new__(kind, *error.args)
    for slot in slots:
        value = _content(slot, error)
        if value is not _content(slot, clone):
            slot.__set__(clone, value)
    attributes = {name: _stripped(each, depth, members) for name, each in vars(error).items()}
    if attributes:
        vars(clone).update(attributes)
    args = tuple(_stripped(each, depth, members) for each in error.args)
    _set(clone, "args", args)
    return clone


def _copied_as_it_says(error: BaseException, depth: int) -> BaseException | None:
    """What an extension's own class makes of being copied."""
    clone = copy.copy(error)
    return clone if clone.args == error.args else None


def _stripped(value: Any, depth: int, members: dict[int, BaseException]) -> Any:
    """What to keep of an argument or attribute: copies in the place of errors, and a list of its
    own, as notes are.
    """
    if isinstance(value, BaseException):
        if id(value) in members:
            return members[id(value)]
        return fresh_copy(value, depth - 1) if depth else value
    if type(value) is list:
        return [_stripped(each, depth, members) for each in value]
    if type(value) is tuple:
        return tuple(_stripped(each, depth, members) for each in value)
    return value


_EMPTY = object()


def _content(slot: MemberDescriptorType, error: BaseException) -> Any:
    try:
        return slot.__get__(error, type(error))
    except AttributeError:
        return _EMPTY


_layouts: weakref.WeakKeyDictionary[type, _Layout] = weakref.WeakKeyDictionary()


def _layout_of(kind: type[BaseException]) -> _Layout:
    """The class of Python's own that makes instances of `kind`, and the members that they have
    besides their dictionary.
    """
    layout = _layouts.get(kind)
    if layout is None:
        builtin = next(each for each in kind.__mro__ if each.__module__ == "builtins")
        slots = tuple(
            member
            for each in kind.__mro__
            for member in vars(each).values()
            if isinstance(member, MemberDescriptorType) and not _is_given_to_new(each, member)
        )
        layout = _layouts[kind] = builtin, slots
    return layout


def _is_given_to_new(owner: type, member: MemberDescriptorType) -> bool:
    return owner is BaseExceptionGroup and member.__name__ in {"message", "exceptions"}
