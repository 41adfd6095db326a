"""The pytest plugin: fixtures for tests of programs built on afresh. None of them is automatic.

pytest loads this module in every run in which afresh is installed; ``-p no:afresh`` keeps it out.
The fixtures are synchronous and serve tests of any kind; coroutines are run by whatever plugin runs
them, such as pytest-asyncio or anyio's.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .clock import FakeClock

__all__ = ["audited", "fake_clock", "fresh_graph", "no_tasks_left"]


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """A clock that stands still until the test moves it; all delays of afresh go by it.

    Nothing is cached at the start, nor at the end: what would expire by this clock never would by
    another.
    """
    from afresh.graph import invalidate_everything
    from afresh.primitives.clock import use_clock

    from .clock import FakeClock

    clock = FakeClock()
    with use_clock(clock):
        invalidate_everything()
        yield clock
        invalidate_everything()


@pytest.fixture
def fresh_graph() -> Iterator[None]:
    """The test begins with nothing cached, and ends so, with defaults, budget and clock set back;
    see `afresh.testing.fresh_graph`.
    """
    from .isolation import fresh_graph

    with fresh_graph():
        yield


@pytest.fixture
def no_tasks_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """An async test fails if a task that was started in it still runs at its end.

    Tasks of fixtures are not looked at.
    """
    from .tasks import no_tasks_left

    with _around_test(request, no_tasks_left):
        yield


@pytest.fixture
def audited(request: pytest.FixtureRequest) -> Iterator[None]:
    """An async test fails if something that is cached at its end is stale; see `audit`.

    For all tests of a module: ``pytestmark = pytest.mark.usefixtures("audited")``.
    """
    with _around_test(request, _auditing):
        yield


@contextlib.asynccontextmanager
async def _auditing() -> AsyncIterator[None]:
    from .audit import audit

    yield
    (await audit()).check()


@contextlib.contextmanager
def _around_test(
    request: pytest.FixtureRequest, around: Callable[[], AbstractAsyncContextManager[None]]
) -> Iterator[None]:
    """Put an async context around the body of a test, in the event loop that runs it."""
    item: Any = request.node
    # With hypothesis, the item is what runs the examples.
    holder, name = (
        (item.obj.hypothesis, "inner_test") if hasattr(item.obj, "hypothesis") else (item, "obj")
    )
    function = getattr(holder, name)
    if not inspect.iscoroutinefunction(function):
        pytest.fail(
            f"The fixture {request.fixturename!r} looks at what an async test leaves behind, and "
            f"{item.name} is none.",
            pytrace=False,
        )

    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        async with around():
            return await function(*args, **kwargs)

    setattr(holder, name, wrapped)
    try:
        yield
    finally:
        setattr(holder, name, function)
