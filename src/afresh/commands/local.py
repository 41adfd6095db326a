"""Local commands: they carry their own work and need no handler."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .command import CommandOf

if TYPE_CHECKING:
    from .context import CommandContext

__all__ = ["LocalCommand", "local_command"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class LocalCommand(CommandOf[T_co]):
    """Base of commands that carry their own work.

    They have a context like all others, but are never sent anywhere, and filters below
    `LOCAL_PRIORITY` do not see them.
    """

    __slots__ = ()

    async def run(self, context: CommandContext[Any]) -> T_co:
        """Do the work, and return the result."""
        raise NotImplementedError


class _FunctionCommand(LocalCommand[Any]):
    __slots__ = ("_function", "_takes_context", "title")

    def __init__(self, function: Callable[..., Any], title: str | None) -> None:
        self._function = function
        self._takes_context = bool(inspect.signature(function).parameters)
        self.title = title or getattr(function, "__qualname__", repr(function))

    async def run(self, context: CommandContext[Any]) -> Any:
        result = self._function(context) if self._takes_context else self._function()
        return await result if inspect.isawaitable(result) else result

    def __repr__(self) -> str:
        return f"local_command({self.title})"


@overload
def local_command(
    function: Callable[[], Awaitable[T]], *, title: str | None = None
) -> LocalCommand[T]: ...
@overload
def local_command(
    function: Callable[[CommandContext[Any]], Awaitable[T]], *, title: str | None = None
) -> LocalCommand[T]: ...
@overload
def local_command(function: Callable[[], T], *, title: str | None = None) -> LocalCommand[T]: ...
@overload
def local_command(
    function: Callable[[CommandContext[Any]], T], *, title: str | None = None
) -> LocalCommand[T]: ...
def local_command(function: Callable[..., Any], *, title: str | None = None) -> LocalCommand[Any]:
    """Make a command of a function, so that calling it is seen like that of any command.

    Args:
        function: does the work; it may be async, and may take the context.
        title: what it is called in logs; the function's name unless given.

    Example:
        ```python
        await commander.call(local_command(lambda: report.export("orders.csv"), title="export"))
        ```
    """
    return _FunctionCommand(function, title)
