"""What live pages do where nothing else is said; one place to change it for all of them."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["PageDefaults", "first_line", "page_defaults"]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


class PageDefaults:
    """The defaults of all live pages of this process; `page_defaults` is the one in use.

    ```python
    page_defaults.update_delay = 1
    page_defaults.describe_error = lambda error: "please try again in a moment"
    ```
    """

    __slots__ = ("describe_error", "update_delay")

    def __init__(self) -> None:
        self.update_delay: float = 0.25
        """Seconds between a change and the update that shows it; a live part looks at it when it is
        made."""
        self.describe_error: Callable[[BaseException], str] = first_line
        """What visitors read about an error: by default the first line of its message, which may
        be more than they should know."""


page_defaults: PageDefaults = PageDefaults()
"""The defaults in use."""
