"""Functions to be called when something happens.

For events that few listen to: user actions, failures, states. The graph, which has far more of
them, keeps leaner lists.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Handlers"]

T = TypeVar("T")


class Handlers(Generic[T]):
    """Functions that are called, in the order in which they were added, with what happened.

    Args:
        logger: where errors of the functions go; one that fails does not stop the others.
    """

    __slots__ = ("_handlers", "_logger")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._handlers: dict[object, Callable[[T], object]] = {}

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, handler: Callable[[T], object]) -> Callable[[], None]:
        """Add a function; the same one may be added more than once.

        Returns:
            A function that takes it out again; further calls of that do nothing.
        """
        token = object()
        self._handlers[token] = handler

        def remove() -> None:
            self._handlers.pop(token, None)

        return remove

    def clear(self) -> None:
        """Take all functions out."""
        self._handlers.clear()

    def call(self, event: T) -> None:
        """Call every function with `event`.

        Those that a function adds meanwhile are left out this time, and those that it takes out are
        not called any more.
        """
        for token, handler in tuple(self._handlers.items()):
            if token in self._handlers:
                try:
                    handler(event)
                except (Exception, asyncio.CancelledError, GeneratorExit):
                    self._logger.exception("The handler %r raised an error.", handler)
