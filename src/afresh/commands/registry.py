"""Which names stand for which types of commands: nothing else ever finds a type by a name."""

from __future__ import annotations

from collections.abc import Iterator

from afresh.errors import DefinitionError

from .command import aliases_of, check_command_type, tag_of

__all__ = ["CommandRegistry"]


class CommandRegistry:
    """The types of commands that a commander knows, by their tags and earlier names.

    Types that handlers name are added with their service; add those that are only sent, or
    subclasses that a handler takes too, by hand.
    """

    def __init__(self) -> None:
        self._types: dict[str, type] = {}
        self._tags: dict[type, str] = {}

    def add(self, *command_types: type) -> None:
        """Make types of commands known; adding one again does nothing.

        Raises:
            DefinitionError: two types have the same name, or one is no type of commands.
        """
        types = self._types.copy()
        for command_type in command_types:
            check_command_type(command_type)
            for name in (tag_of(command_type), *aliases_of(command_type)):
                other = types.setdefault(name, command_type)
                if other is not command_type:
                    raise DefinitionError(
                        f"{command_type.__module__}.{command_type.__qualname__} and "
                        f"{other.__module__}.{other.__qualname__} are both called {name!r}; give "
                        'one of them another name with @command("…").'
                    )
        self._types = types
        self._tags.update((each, tag_of(each)) for each in command_types)

    def type_of(self, tag: str) -> type | None:
        """Return the type with this tag, or that had it once; None if there is none."""
        return self._types.get(tag)

    def tag_of(self, command_type: type) -> str | None:
        """Return the tag of a type; None if it was not added."""
        return self._tags.get(command_type)

    def __contains__(self, command_type: object) -> bool:
        return command_type in self._tags

    def __iter__(self) -> Iterator[type]:
        return iter(self._tags)

    def __len__(self) -> int:
        return len(self._tags)

    def __repr__(self) -> str:
        return f"<CommandRegistry of {', '.join(self._tags.values()) or 'nothing yet'}>"
