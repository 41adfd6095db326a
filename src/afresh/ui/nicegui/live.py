"""`@live`: an async function that reads compute methods and builds elements stays up to date.

A run of the function builds aside, in a slot that no page shows. When it succeeds, `_patch` lets
the new elements take the place of the old ones; when it fails, they are dropped and the old ones
stay. The rest of the life cycle is `LiveElement`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar, overload

from nicegui import context
from nicegui.element import Element
from nicegui.slot import Slot

from afresh.errors import DefinitionError

from ._patch import patch, remove
from .element import LiveElement

__all__ = ["LiveBody", "keep", "live", "live_list"]

E = TypeVar("E", bound=Element)
K = TypeVar("K", bound=Hashable)
P = ParamSpec("P")

_PATIENCE = 0.3
"""Seconds that a re-rendering waits for the first content of new live elements inside of it, so
that the page does not flicker."""


@overload
def live(function: Callable[P, Awaitable[None]]) -> Callable[P, LiveBody[P]]: ...
@overload
def live(
    *, delay: float | None = None
) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, LiveBody[P]]]: ...
def live(
    function: Callable[P, Awaitable[None]] | None = None, *, delay: float | None = None
) -> Any:
    """Make a live part of a page out of an async function that builds elements.

    ```python
    @live
    async def order_list(user_id: str) -> None:
        for order in await orders.for_user(user_id):
            ui.label(f"{order.id}: {order.status}")
    ```

    Calling it on a page places it there, with or without `await` (see `LiveElement`). Whenever a
    value that it read changes, the function runs again and what differs is patched into the page:
    inputs keep their text and their focus as long as the new rendering has an input of the same
    kind at the same place (mark elements with `.mark("…")` where places move). Another `@live`
    function called inside runs again on its own, and is kept while it is asked for with equal
    arguments.

    An error shows up in a banner, above the last good content.

    Args:
        function: the async function; it may run at any time, so it should only read and build.
        delay: seconds between a change and the update that shows it; a visitor's own actions are
            shown at once. `None` means `page_defaults.update_delay`.

    Returns:
        A function with the same parameters that places a `LiveBody` and returns it.

    Raises:
        DefinitionError: the function is not an async function.
    """
    if function is None:
        return functools.partial(live, delay=delay)
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(
            f"@live wants an async function; write `async def {function.__qualname__}`"
        )
    body = function

    @functools.wraps(body)
    def place(*args: P.args, **kwargs: P.kwargs) -> LiveBody[P]:
        build = functools.partial(LiveBody[P], body, args, kwargs, delay=delay)
        rendering = _rendering_here()
        if rendering is None:
            return build()
        return rendering.keep_equal((body, args, frozenset(kwargs.items())), build)

    return place


def keep(key: Hashable, factory: Callable[[], E]) -> E:
    """Build an element once and keep it through the re-renderings of the `@live` function around.

    For whatever should not be built anew: charts, editors, maps, a form of several parts. Single
    inputs and nested `@live` functions need no `keep`.

    ```python
    @live
    async def sales() -> None:
        chart = keep("chart", lambda: ui.echart({...}))
        chart.options["series"][0]["data"] = await orders.per_day()
        chart.update()
    ```

    Args:
        key: tells the kept elements of one `@live` function apart.
        factory: builds the element with everything in it, and returns it. It runs only when the
            previous rendering kept nothing under this key.

    Returns:
        The element, now at this place of the page.

    Raises:
        RuntimeError: called outside of a `@live` function.
        ValueError: the same key twice in one rendering.
        TypeError: the factory did not build exactly the one element that it returned.
    """
    rendering = _rendering_here()
    if rendering is None:
        raise RuntimeError("keep() belongs inside a @live function; elsewhere, build the element")
    return rendering.keep(key, factory)


def live_list(
    keys: Callable[[], Awaitable[Iterable[K]]],
    row: Callable[[K], Element],
    *,
    empty: Callable[[], object] | None = None,
    delay: float | None = None,
) -> LiveBody[[]]:
    """Place a list whose rows are made once per key, moved when the order changes, and dropped
    with their key.

    Args:
        keys: an async function returning the keys in order, say a bound compute method.
        row: builds one row and returns its element, usually a `@live` function.
        empty: builds what is shown when there are no keys.
        delay: as in `live`.
    """

    async def rows() -> None:
        count = 0
        for count, key in enumerate(await keys(), 1):  # noqa: B007
            keep(key, functools.partial(row, key))
        if count == 0 and empty is not None:
            empty()

    return live(delay=delay)(rows)()


class LiveBody(LiveElement["_Rendering"], Generic[P]):
    """What a `@live` function places: the part of the page that it keeps up to date."""

    def __init__(
        self,
        function: Callable[P, Awaitable[None]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        delay: float | None,
    ) -> None:
        super().__init__(delay=delay)
        self.state.category = f"@live {function.__qualname__}"
        self._function = function
        self._params = args, kwargs
        self._kept: dict[Hashable, Element] = {}

    async def update_params(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Render with other arguments, without delay; equal ones change nothing."""
        if (args, kwargs) != self._params:
            self._params = args, kwargs
            await self.refresh()

    async def compute(self) -> _Rendering:
        args, kwargs = self._params
        client = self.client
        rendering = _Rendering(self, self._kept)
        try:
            with rendering:
                await _Aside(self._function(*args, **kwargs), rendering)
            if not self.state.is_initial:
                await _Aside(_first_contents(rendering), rendering)
        except BaseException:
            remove(client, rendering.children, rendering.reused)
            raise
        if self.is_deleted:  # nobody will show it
            remove(client, rendering.children, rendering.reused)
        return rendering

    def show(self, value: _Rendering) -> None:
        shown = self.default_slot.children
        numbers = [element.id for element in shown]
        patch(self.client, shown, value.children, value.reused, unsent=value.is_unsent)
        for element, slot in value.reused.items():
            element.parent_slot = slot
        for element in value.children:
            element.parent_slot = self.default_slot
        self.default_slot.children = value.children
        self._kept = value.kept
        if numbers != [element.id for element in value.children]:
            self.update()


class _Rendering(Slot):
    """Where one run of a function puts its elements."""

    def __init__(self, owner: Element, kept_before: dict[Hashable, Element]) -> None:
        super().__init__(owner, "rendering")
        self.kept: dict[Hashable, Element] = {}
        self.reused: dict[Element, Slot] = {}
        self._kept_before = kept_before
        self._in_factory = False
        self._client = owner.client
        self._first_number = self._client.next_element_id
        self.is_unsent = True
        """Whether the browser can have heard of nothing that this run has built."""

    def hold_back(self) -> None:
        """Take what was built so far out of the outbox: it may never be shown."""
        updates = self._client.outbox.updates
        for number, element in list(updates.items()):
            if (
                number >= self._first_number
                and isinstance(element, Element)
                and _rendering_around(element.parent_slot) is self
            ):
                del updates[number]

    def keep(self, key: Hashable, factory: Callable[[], E]) -> E:
        if self._in_factory:
            return factory()  # what a factory builds is kept along with its element
        if key in self.kept:
            raise ValueError(f"keep() got the key {key!r} twice in one rendering; make keys differ")
        slot = context.slot
        element: Any = self._kept_before.get(key)
        if element is not None and not element.is_deleted:
            slot.children.append(element)
            self.reused[element] = slot
        else:
            element = self._build(slot, factory)
        self.kept[key] = element
        return element  # type: ignore[no-any-return]

    def keep_equal(self, call: Hashable, factory: Callable[[], E]) -> E:
        """Keep by what was called with which arguments, and how often before in this run."""
        try:
            count = 0
            while (call, count) in self.kept:
                count += 1
        except TypeError:  # an unhashable argument: nothing says that two calls are the same
            return factory()
        return self.keep((call, count), factory)

    def _build(self, slot: Slot, factory: Callable[[], E]) -> E:
        before = len(slot.children)
        self._in_factory = True
        try:
            element = factory()
        finally:
            self._in_factory = False
        if slot.children[before:] != [element]:
            raise TypeError(
                f"keep() wants a factory that builds one element and returns it, not {element!r}; "
                "put several elements into a container"
            )
        return element


class _Aside:
    """Awaits a run of a function, and holds back what it has built at each pause and at the end."""

    def __init__(self, run: Awaitable[None], rendering: _Rendering) -> None:
        self._run = run
        self._rendering = rendering

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._run.__await__()
        advance = functools.partial(next, steps)
        while True:
            try:
                pause = advance()
            except StopIteration:
                return
            finally:
                self._rendering.hold_back()
            self._rendering.is_unsent = False  # what others do to its elements meanwhile is sent
            try:
                advance = functools.partial(steps.send, (yield pause))
            except BaseException as error:
                advance = functools.partial(steps.throw, error)


def _rendering_here() -> _Rendering | None:
    stack = Slot.get_stack()
    return _rendering_around(stack[-1] if stack else None)


def _rendering_around(slot: Slot | None) -> _Rendering | None:
    while slot is not None and not isinstance(slot, _Rendering):
        slot = slot.parent.parent_slot
    return slot


async def _first_contents(rendering: _Rendering) -> None:
    fresh = [
        element
        for child in rendering.children
        for element in child.descendants(include_self=True)
        if isinstance(element, LiveElement) and element.state.is_initial
    ]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            for element in fresh:
                await element.rendered()
