"""Coroutines that run in a context of their own without a task of their own.

A task for each piece of work that needs its own context variables costs more than most of that
work. Whoever has a task already can step the coroutine itself: the first step with
`context.run(coroutine.send, None)`, which is all there is to most of them, the others with
`rest_of`. The coroutine runs in the task that steps it, and is cancelled with that.
"""

from __future__ import annotations

import contextvars
import types
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["rest_of"]


@types.coroutine
def rest_of(
    coroutine: Coroutine[Any, Any, Any], yielded: Any, context: contextvars.Context
) -> Generator[Any, Any, Any]:
    """Drive a coroutine on that has yielded already, each step in `context`.

    Args:
        coroutine: what was begun.
        yielded: what its last step yielded.
        context: where it runs.

    Returns:
        What the coroutine returns.
    """
    try:
        while True:
            try:
                value = yield yielded
            except GeneratorExit:
                context.run(coroutine.close)
                raise
            except BaseException as error:
                yielded = context.run(coroutine.throw, error)
            else:
                yielded = context.run(coroutine.send, value)
    except StopIteration as stop:
        return stop.value
