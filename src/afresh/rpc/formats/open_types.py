"""Open types: values of a base class and its registered subclasses, told apart by tags.

A tag names a class because it was registered for the base in question, and for no other reason: a
name that comes from the wire never finds a class by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

from afresh.errors import DefinitionError, FormatError

__all__ = ["TAG", "Open", "register_open_type"]

TAG = "$type"
"""The member of a record that holds its tag."""

T = TypeVar("T")

_classes: dict[type, dict[str, type]] = {}
_tags: dict[type, dict[type, str]] = {}


def register_open_type(base: type, classes: Mapping[str, type]) -> None:
    """Let values annotated as `Open[base]` be of these classes too.

    Both sides need the same tags. Call it before the first message; it may be called again with
    more classes.

    ```python
    register_open_type(Event, {"paid": Paid, "shipped": Shipped})

    class Feed:
        async def latest(self) -> list[Open[Event]]: ...
    ```

    Args:
        base: the class that annotations name.
        classes: subclasses of it by their tags. To .NET peers, tags are type names with assembly:
            ``Samples.Dog, Samples``.

    Raises:
        DefinitionError: a class is no subclass, or a tag or a class is registered already.
    """
    by_tag = dict(_classes.get(base, {}))
    by_class = dict(_tags.get(base, {}))
    for tag, each in classes.items():
        if not (isinstance(each, type) and issubclass(each, base)):
            raise DefinitionError(f"{each!r} is not a subclass of {base.__qualname__}.")
        if len(tag) < 2 or "*/" in tag:
            raise DefinitionError(
                f"{tag!r} can't be a tag: it needs two characters or more, but not */."
            )
        if by_tag.setdefault(tag, each) is not each or by_class.setdefault(each, tag) != tag:
            raise DefinitionError(
                f"{tag!r} or {each.__qualname__} is registered already for {base.__qualname__}; "
                "each class needs one tag of its own."
            )
    _classes[base] = by_tag
    _tags[base] = by_class


def class_of(base: type, tag: str) -> type:
    """The class that is registered with a tag."""
    found = _classes.get(base, {}).get(tag)
    if found is None:
        raise FormatError(
            f"{tag[:100]!r} is not the tag of a kind of {base.__qualname__} here; see "
            "register_open_type."
        )
    return found


def tag_of(base: type, value: object) -> str | None:
    """The tag of a value's class; None for the base class itself."""
    tag = _tags.get(base, {}).get(type(value))
    if tag is None and type(value) is not base:
        raise FormatError(
            f"{type(value).__qualname__} is not registered as a kind of {base.__qualname__}; see "
            "register_open_type."
        )
    return tag


def open_base(cls: type) -> type | None:
    """Return the base of a class `Open[base]`, None for other classes."""
    return _open_bases.get(cls)


_open_bases: dict[type, type] = {}

if TYPE_CHECKING:
    Open: TypeAlias = Annotated[T, "open"]
else:

    class _OpenMeta(type):
        """Makes `Open[Base]` a class, one for each base; instances of the base are its own."""

        def __getitem__(cls, base):
            return _open_class(base)

        def __instancecheck__(cls, value):
            return isinstance(value, _open_bases.get(cls, object))

    class Open(metaclass=_OpenMeta):
        """Annotates values that may be of subclasses: ``Open[Event]``.

        To type checkers it is the base class itself.
        """

    @cache
    def _open_class(base):
        made = _OpenMeta(f"Open[{base.__qualname__}]", (Open,), {"__doc__": Open.__doc__})
        _open_bases[made] = base
        return made
