"""A quiet word on a page about the connection to another server, while that is away.

It tells of the connection between the process that serves the page and the one that it is a client
of. The one between browser and page is NiceGUI's own business.
"""

from __future__ import annotations

import weakref

from nicegui import Client as Visitor
from nicegui import core, ui
from nicegui.element import Element

from afresh.remote import Client
from afresh.remote.connection_monitor import ConnectionMonitor, ConnectionStatus, MonitoredPeer
from afresh.states import StateEvent

__all__ = ["ConnectionElement", "connection_status"]

_CSS = """
.afresh-connection { display: inline-flex; flex-wrap: wrap; align-items: center; gap: 2px 8px;
  max-width: 100%; padding: 4px 12px; border: 1px solid #e2e8f0; border-radius: 16px;
  background: #f8fafc; color: #475569; font-size: 14px; line-height: 20px; }
.afresh-connection-lost { border-color: #fde68a; background: #fffbeb; color: #78350f; }
.afresh-connection .q-btn { margin: -2px -6px -2px -8px; padding: 2px 8px; min-height: 24px;
  border-radius: 10px; }
.afresh-next-attempt { display: flex; gap: 4px; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.body--dark .afresh-connection { border-color: #334155; background: #1e293b; color: #cbd5e1; }
.body--dark .afresh-connection-lost { border-color: #854d0e; background: #2d2010; color: #fde68a; }
"""

_styled: weakref.WeakSet[Visitor] = weakref.WeakSet()


def connection_status(
    source: Client | MonitoredPeer | None, *, always: bool = False, with_error: bool = False
) -> ConnectionElement:
    """Place a badge that tells how the connection to another server is doing.

    While all is well it is not there; when the connection has been away for a moment, it says so,
    tells when the next attempt is made, and offers to make it now.

    ```python
    connection_status(client).classes("fixed bottom-4 right-4")
    ```

    Args:
        source: the client, or the peer, whose connection it is; None stands for one that is always
            there.
        always: show it also while there is a connection.
        with_error: tell visitors what went wrong, which may be more than they should know.
    """
    peer = source.peer if isinstance(source, Client) else source
    return ConnectionElement(peer, always=always, with_error=with_error)


class _Countdown(Element, component="countdown.js"):
    def start(self, seconds: float) -> None:
        self.props["seconds"] = seconds
        self.props["turn"] = self.props.get("turn", 0) + 1


class ConnectionElement(Element):
    """What `connection_status` places."""

    def __init__(self, peer: MonitoredPeer | None, *, always: bool, with_error: bool) -> None:
        super().__init__("div")
        if self.client not in _styled:
            _styled.add(self.client)
            ui.add_css(_CSS)
        self._always = always
        self._with_error = with_error
        self.monitor: ConnectionMonitor = ConnectionMonitor(
            peer, start=not core.is_script_mode_preflight()
        )
        """What it shows."""
        self.classes("afresh-connection").props("role=status")
        with self:
            self._icon = ui.icon("cloud_done", size="20px").props("aria-hidden=true")
            self._words = ui.label()
            # Not for screen readers, which would read it ten times a second.
            self._next_attempt = ui.element("div").props("aria-hidden=true")
            with self._next_attempt.classes("afresh-next-attempt"):
                ui.label("Trying again")
                self._countdown = _Countdown()
            self._button = ui.button("Reconnect", on_click=self.monitor.reconnect_now, color=None)
            self._button.props("flat dense no-caps")
        self.monitor.on(StateEvent.UPDATED, lambda *_: self._show(self.monitor.value))
        self._show(self.monitor.value)

    def _show(self, status: ConnectionStatus) -> None:
        is_lost = not status.likely_connected
        left = status.reconnects_in
        self.set_visibility(self._always or is_lost)
        self.classes(
            add="afresh-connection-lost" if is_lost else "",
            remove="" if is_lost else "afresh-connection-lost",
        )
        self._icon.name = _icon(status)
        self._words.text = status.describe(with_error=self._with_error)
        self._next_attempt.set_visibility(left is not None)
        if left is not None:
            self._countdown.start(left)
        self._button.set_visibility(left is not None)

    def _handle_delete(self) -> None:
        self.monitor.close()
        super()._handle_delete()


def _icon(status: ConnectionStatus) -> str:
    if status.is_connected:
        return "cloud_done"
    if status.is_final or status.reconnects_at is not None:
        return "cloud_off"
    return "cloud_sync"
