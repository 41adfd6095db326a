"""Small live elements: a text that follows a value, and a badge that follows an element's state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from afresh.states import ComputedState, StateEvent

from .defaults import page_defaults
from .element import LiveElement

__all__ = ["LiveBadge", "LiveLabel", "live_badge", "live_label"]

T = TypeVar("T")


def live_label(
    compute: Callable[[], Awaitable[T]],
    to_text: Callable[[T], str] = str,
    *,
    delay: float | None = None,
) -> LiveLabel[T]:
    """Place a text that follows a value; styled like any label.

    ```python
    live_label(lambda: stock.left("tea"), "{} left".format).classes("text-lg")
    ```

    Args:
        compute: an async function that reads compute methods.
        to_text: turns the value into the text.
        delay: seconds between a change and the update that shows it; `None` means
            `page_defaults.update_delay`.
    """
    return LiveLabel(compute, to_text, delay=delay)


class LiveLabel(TextElement, LiveElement[T]):
    """What `live_label` places. While it cannot be updated it is dimmed, and says why on hover."""

    def __init__(
        self,
        compute: Callable[[], Awaitable[T]],
        to_text: Callable[[T], str],
        *,
        delay: float | None,
    ) -> None:
        super().__init__(text="", delay=delay)
        self.style(replace="")
        self._of = compute
        self._to_text = to_text

    async def compute(self) -> T:
        return await self._of()

    def show(self, value: T) -> None:
        self.text: str = self._to_text(value)

    def show_error(self, error: BaseException) -> None:
        self.style("opacity: 0.5")
        self.props["title"] = f"Could not update: {page_defaults.describe_error(error)}"

    def clear_error(self) -> None:
        self.style(remove="opacity: 0.5")
        self.props.pop("title", None)


_LOOKS = {
    "loading": ("Loading", "#3b82f6"),
    "updating": ("Updating", "#3b82f6"),
    "invalidated": ("Out of date", "#f59e0b"),
    "in sync": ("In sync", "#22c55e"),
    "failed": ("Update failed", "#ef4444"),
}


def live_badge(source: LiveElement[Any] | ComputedState[Any]) -> LiveBadge:
    """Place a small badge that tells how fresh a live element, or a state, is.

    It says "Loading" before the first value, "Out of date" between a change and its update,
    "Updating" while a new value is computed, then "In sync" or "Update failed".

    Args:
        source: the element or the state to watch.
    """
    return LiveBadge(source.state if isinstance(source, LiveElement) else source)


class LiveBadge(Element):
    """What `live_badge` places."""

    def __init__(self, state: ComputedState[Any]) -> None:
        super().__init__("span")
        self.style("display: inline-flex; align-items: center; gap: 6px; white-space: nowrap")
        self.style("font-size: 12px; line-height: 16px; color: #64748b")
        with self:
            self._dot = ui.element("span").style("width: 8px; height: 8px; border-radius: 50%")
            self._words = ui.label()
        self._subscriptions = [
            state.on(StateEvent.INVALIDATED, lambda *_: self._say("invalidated")),
            state.on(StateEvent.UPDATING, lambda *_: self._say("updating")),
            state.on(StateEvent.UPDATED, lambda *_: self._settle(state)),
        ]
        self._settle(state)

    def _settle(self, state: ComputedState[Any]) -> None:
        snapshot = state.snapshot
        if snapshot.is_initial:
            self._say("loading")
        elif snapshot.computed.error is not None:
            self._say("failed")
        else:
            self._say("in sync" if snapshot.computed.is_consistent else "invalidated")

    def _say(self, what: str) -> None:
        if what == "updating" and self._words.text == "Loading":
            return
        self._words.text, color = _LOOKS[what]
        self._dot.style(f"background: {color}")

    def _handle_delete(self) -> None:
        for unsubscribe in self._subscriptions:
            unsubscribe()
        super()._handle_delete()
