"""The kernel in use: the C extension where it was built, else its twin in Python.

``AFRESH_PURE=1`` in the environment selects the twin. `COMPILED` says which one it is.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

_free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()

if TYPE_CHECKING:
    from ._pure import (
        COMPILED,
        Bound,
        Keeper,
        Method,
        Node,
        advance_tick,
        configure,
        invalidate,
    )
else:
    _kernel = None
    if os.environ.get("AFRESH_PURE", "") in {"", "0"} and not _free_threaded:
        try:
            from . import _speedups as _kernel
        except ImportError:
            _kernel = None
    if _kernel is None:
        from . import _pure as _kernel

    COMPILED = _kernel.COMPILED
    Bound = _kernel.Bound
    Keeper = _kernel.Keeper
    Method = _kernel.Method
    Node = _kernel.Node
    advance_tick = _kernel.advance_tick
    configure = _kernel.configure
    invalidate = _kernel.invalidate

__all__ = [
    "COMPILED",
    "Bound",
    "Keeper",
    "Method",
    "Node",
    "advance_tick",
    "configure",
    "invalidate",
]
