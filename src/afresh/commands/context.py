"""`CommandContext`: what is known of a command while it is handled."""

from __future__ import annotations

from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from afresh.errors import InvalidStateError
from afresh.primitives.result import Result

from .command import CommandOf

if TYPE_CHECKING:
    from .chain import Chain
    from .commander import Commander

__all__ = ["CommandContext", "current", "current_context"]

T = TypeVar("T")


# A struct because they are quickly made, and a command makes one.
class CommandContext(msgspec.Struct, Generic[T], eq=False, weakref=True):
    """What is known of a command while it is handled: `current_context()` in a handler."""

    commander: Commander
    """What runs it."""
    command: CommandOf[T]
    """The command; a prepared one takes its place."""
    chain: Chain
    """What it goes through."""
    outer: CommandContext[Any] | None = None
    """The context of the command whose handler called this one; None where none did."""
    caller: CommandContext[Any] | None = None
    """Of a command that is on its own: that of the handler which called it, and may wait for it."""
    is_completed: bool = False
    """Whether the command was handled, well or not."""
    freshness: str = ""
    """What readers on other hosts have to know of to see what the command has changed, for
    `App.wait_until_fresh` there; empty of nested commands, and of those that no log tells of."""
    _items: dict[Any, Any] | None = None
    _stack: AsyncExitStack | None = None
    _result: Result[T] | None = None

    @property
    def outermost(self) -> CommandContext[Any]:
        """The context of the command that no other handler called; may be this one."""
        context: CommandContext[Any] = self
        while context.outer is not None:
            context = context.outer
        return context

    @property
    def is_outermost(self) -> bool:
        """Whether no other handler called this command."""
        return self.outer is None

    @property
    def items(self) -> dict[Any, Any]:
        """Whatever filters and the handler tell each other of this command; in memory only.

        Use that of `outermost` for what nested commands share.
        """
        if self._items is None:
            self._items = {}
        return self._items

    @property
    def stack(self) -> AsyncExitStack:
        """Holds what is to be closed when the outermost command has been handled.

        Raises:
            InvalidStateError: it has been handled.
        """
        outermost = self.outermost
        outermost.check_active()
        if outermost._stack is None:
            outermost._stack = AsyncExitStack()
        return outermost._stack

    @property
    def result(self) -> Result[T]:
        """What the command came to, of a context that `Commander.run` returned.

        Raises:
            InvalidStateError: it is not known.
        """
        if self._result is None:
            raise InvalidStateError(
                "The result is there once Commander.run() has returned the context."
            )
        return self._result

    @property
    def value(self) -> T:
        """The value of `result`.

        Raises:
            BaseException: the error, when there is one.
        """
        return self.result.value

    @property
    def error(self) -> BaseException | None:
        """The error of `result`, or None when there is a value."""
        return self.result.error

    def check_active(self) -> None:
        """Complain if the command was handled already: by whom a task was left behind, perhaps.

        Raises:
            InvalidStateError: it was.
        """
        if self.is_completed:
            raise InvalidStateError(
                f"{type(self.command).__qualname__} was handled already, and its context can't be "
                "used any more. Await what a handler starts, or let it call commands of its own."
            )

    def __repr__(self) -> str:
        place = "outermost" if self.is_outermost else "nested"
        state = ", completed" if self.is_completed else ""
        return f"<CommandContext of {type(self.command).__qualname__}, {place}{state}>"


current: ContextVar[CommandContext[Any] | None] = ContextVar("afresh.command", default=None)


def current_context(command_type: type[CommandOf[T]] | None = None) -> CommandContext[T]:
    """Return the context of the command that is being handled here.

    Args:
        command_type: what is to be handled, to have the type of the result known.

    Raises:
        InvalidStateError: no command is being handled, or one of another type.

    Example:
        ```python
        context = current_context(PlaceOrder)
        context.outermost.items["source"] = "shop"
        ```
    """
    context = current.get()
    if context is None:
        raise InvalidStateError(
            "current_context() is for handlers and filters: no command is being handled here."
        )
    context.check_active()
    if command_type is not None and not isinstance(context.command, command_type):
        raise InvalidStateError(
            f"A {type(context.command).__qualname__} is being handled here, and no "
            f"{command_type.__qualname__}."
        )
    return cast("CommandContext[T]", context)
