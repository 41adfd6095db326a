"""Live pages in NiceGUI: components that follow computed values and re-render only themselves.

```python
@live
async def order_list(user_id: str) -> None:
    for order in await orders.for_user(user_id):
        ui.label(f"{order.id}: {order.status}")
```

Works with `ui.run` and `ui.run_with` alike. The rest of NiceGUI is used as ever.
"""

try:
    import nicegui as _nicegui  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "nicegui":
        raise
    raise ImportError(
        'afresh.ui.nicegui needs NiceGUI; install it with: pip install "afresh[nicegui]"'
    ) from _error

from .actions import act, action_tracker, run_action
from .connection import ConnectionElement, connection_status
from .defaults import PageDefaults, page_defaults
from .element import LiveElement
from .label import live_badge, live_label
from .live import LiveBody, keep, live, live_list

__all__ = [
    "ConnectionElement",
    "LiveBody",
    "LiveElement",
    "PageDefaults",
    "act",
    "action_tracker",
    "connection_status",
    "keep",
    "live",
    "live_badge",
    "live_label",
    "live_list",
    "page_defaults",
    "run_action",
]
