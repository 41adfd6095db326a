"""`LiveElement`: a part of a NiceGUI page that follows a computed value.

It owns a `ComputedState` for as long as it is on somebody's page, and says so when a computation
fails. What it shows is up to its subclasses: `live` renders a function, `label` patches a text.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator, Iterator
from typing import Any, Generic, Self, TypeVar

from nicegui import core, storage

from afresh.errors import InvalidStateError
from afresh.graph import Computed
from afresh.states import ComputedState, StateEvent

from ._banner import ErrorBanner
from ._patch import Lasting
from .actions import update_delayer
from .defaults import page_defaults

__all__ = ["LiveElement"]

T = TypeVar("T")

_log = logging.getLogger("afresh.ui")


class LiveElement(Lasting, Generic[T]):
    """A part of a page that follows a computed value: built once, shown again on every change.

    Override `compute()`, which may call compute methods, and `show()`, which puts the value on the
    page. Make the children in the constructor, after `super().__init__()`:

    ```python
    class StockChip(LiveElement[int]):
        def __init__(self, product_id: str) -> None:
            super().__init__(delay=0.1)
            self.product_id = product_id
            with self:
                self.label = ui.label()

        async def compute(self) -> int:
            return await stock.left(self.product_id)

        def show(self, value: int) -> None:
            self.label.text = f"{value} left"
    ```

    When `compute()` raises, what is shown stays, under a banner with the error. The computation is
    repeated when something it read changes, when the error expires, or when the visitor asks. All
    of it ends when the element is deleted, at the latest with its client.

    Awaiting an element, which is optional, waits for its first value: in an asynchronous page
    function this puts the content into the very first response. The element itself takes no part
    in the layout (`display: contents`).

    Args:
        delay: seconds between a change and the update that shows it; a visitor's own actions are
            shown at once. `None` means `page_defaults.update_delay`.
    """

    def __init__(self, *, delay: float | None = None) -> None:
        super().__init__("div")
        self.style("display: contents")
        self._banner: ErrorBanner | None = None
        self.state: ComputedState[T] = ComputedState(
            self._compute,
            delay=update_delayer(self.client, delay),
            category=type(self).__qualname__,
            graceful_close=0,  # there will be no page to build elements for
            configure=lambda state: state.on(StateEvent.UPDATED, lambda *_: self._updated()),
            start=False,
        )
        """What the element follows."""
        # Not before the constructors of subclasses have run, whatever kind of tasks the loop makes.
        if not core.is_script_mode_preflight():  # a script's first pass makes a page for nobody
            asyncio.get_running_loop().call_soon(self._start)

    async def compute(self) -> T:
        """Return the value to show. What it reads is what the element follows."""
        raise NotImplementedError(f"{type(self).__qualname__} must override compute()")

    def show(self, value: T) -> None:
        """Put a new value on the page. New elements go into this one."""
        raise NotImplementedError(f"{type(self).__qualname__} must override show()")

    def show_error(self, error: BaseException) -> None:
        """Tell the visitor that what is shown may be old; by default in a banner on top of it."""
        text = f"Could not update: {page_defaults.describe_error(error)}"
        if self._banner is None:
            self._banner = ErrorBanner(self.refresh)
            self._banner.move(target_index=0)
        self._banner.say(text)

    def clear_error(self) -> None:
        """Take back what `show_error()` did; called before a value is shown."""
        if self._banner is not None:
            self._banner.delete()
            self._banner = None

    async def refresh(self) -> None:
        """Compute again now, whatever the delay; so are the results that an error came from."""
        for failure in _origins_of_failure(self.state.computed):
            failure.invalidate()
        await self.state.recompute()

    async def rendered(self) -> None:
        """Wait until the first computation has ended, in success or failure."""
        with contextlib.suppress(InvalidStateError):  # it left the page first
            await self.state.when_ready()

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self.rendered().__await__()
        return self

    def _start(self) -> None:
        if not self.state.is_closed:
            self.state.start()

    def _handle_delete(self) -> None:
        self.state.close()
        super()._handle_delete()

    async def _compute(self) -> T:
        # The state has a context of its own, and `app.storage` looks for the visitor's request.
        token = storage.request_contextvar.set(self.client.request)
        try:
            return await self.compute()
        finally:
            storage.request_contextvar.reset(token)

    def _updated(self) -> None:
        if self.is_deleted:
            return
        error = self.state.error
        with self:
            if error is None:
                try:
                    self.clear_error()
                    self.show(self.state.value)
                except Exception as failure:
                    error = failure
            if error is not None:
                _log.warning("%s keeps what it shows", self.state.category, exc_info=error)
                self.show_error(error)


def _origins_of_failure(computed: Computed[Any]) -> Iterator[Computed[Any]]:
    """The failed results that were not computed from failed ones."""
    unseen, seen = [computed], {computed}
    while unseen:
        failed = [each for each in unseen.pop().dependencies if each.error is not None]
        for each in failed:
            if each not in seen:
                seen.add(each)
                unseen.append(each)
                if not any(below.error is not None for below in each.dependencies):
                    yield each
