"""The banner over a part of a page that could not be updated, fit for any width."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable

from nicegui import Client, ui
from nicegui.element import Element

from .actions import act

__all__ = ["ErrorBanner"]

# Where there is no room for words, the button is left, then its icon; the words are its tooltip.
_CSS = """
.afresh-error { container-type: inline-size; width: 100%; min-width: 28px; }
.afresh-error > div { display: flex; align-items: center; gap: 10px; padding: 4px 4px 4px 12px;
  border-radius: 8px; border: 1px solid #fde68a; background: #fffbeb; color: #78350f;
  font-size: 14px; line-height: 20px; }
.afresh-error .q-icon { color: #b45309; }
.afresh-error .q-btn { flex: none; padding: 2px 10px; min-height: 30px; border-radius: 6px; }
.afresh-error .q-btn .q-icon { font-size: 18px; display: none; }
.afresh-error-words { flex: 1; min-width: 0; overflow-wrap: anywhere; }
@container (max-width: 240px) {
  .afresh-error > div { padding: 0; width: fit-content; }
  .afresh-error > div > :not(.q-btn) { display: none; }
  .afresh-error .q-btn { padding: 0 8px; }
  .afresh-error .q-btn .q-icon { display: inline-flex; margin: 0 6px 0 0; }
}
@container (max-width: 112px) {
  .afresh-error .q-btn { padding: 0 4px; min-width: 0; }
  .afresh-error .q-btn .q-icon { margin: 0; }
  .afresh-error .q-btn .block { font-size: 0; }
}
"""

_styled: weakref.WeakSet[Client] = weakref.WeakSet()


class ErrorBanner(Element):
    """Says what went wrong, and offers to try again.

    Args:
        retry: tries again, as the visitor's own action.
    """

    def __init__(self, retry: Callable[[], Awaitable[object]]) -> None:
        super().__init__("div")
        if self.client not in _styled:
            _styled.add(self.client)
            ui.add_css(_CSS)
        self.classes("afresh-error").props("role=alert")
        with self, ui.element("div"):
            ui.icon("sync_problem", size="20px")
            self._words = ui.label().classes("afresh-error-words")
            button = ui.button("Try again", icon="sync_problem", on_click=act(retry), color=None)
            button.props("flat dense no-caps")

    def say(self, words: str) -> None:
        """Put it in words."""
        self._words.text = words
        self.props["title"] = words
