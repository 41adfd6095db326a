"""Values that change, values that follow them, and how fast they do."""

# computed, mutable, state, snapshot
# delayers
# ui_actions, ui_failures
from .computed import ComputedState
from .delayers import (
    NEXT_TICK,
    NO_DELAY,
    YIELD,
    DelayerDefaults,
    FixedDelayer,
    NextTickDelayer,
    NoDelayer,
    UIDelayer,
    UpdateDelayer,
    YieldDelayer,
    as_delayer,
    delayer_defaults,
)
from .mutable import MutableState
from .snapshot import Snapshot
from .state import State, StateEvent
from .ui_actions import UIAction, UIActionResult, UIActionTracker
from .ui_failures import UIFailures

__all__ = [
    "NEXT_TICK",
    "NO_DELAY",
    "YIELD",
    "ComputedState",
    "DelayerDefaults",
    "FixedDelayer",
    "MutableState",
    "NextTickDelayer",
    "NoDelayer",
    "Snapshot",
    "State",
    "StateEvent",
    "UIAction",
    "UIActionResult",
    "UIActionTracker",
    "UIDelayer",
    "UIFailures",
    "UpdateDelayer",
    "YieldDelayer",
    "as_delayer",
    "delayer_defaults",
]
