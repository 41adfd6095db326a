"""Plans of histories between hubs, made from plain numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import strategies as st

from .remote_history import Event, Plan, RemoteHistory

EVENTS = [name.removeprefix("on_") for name in vars(RemoteHistory) if name.startswith("on_")]
OFTEN = ["read"] * 5 + ["hold"] * 3 + ["change"] * 4 + ["call"] * 4 + ["turns"] * 5 + ["rest"] * 2
"""Events that happen more often than others."""

Draw = Callable[[int], int]
"""Gives a number from 0 up to, not including, the one that it is given."""


def make_plan(draw: Draw) -> Plan:
    """Make a plan of the numbers that are drawn."""
    events = [_event(draw) for _ in range(1 + draw(60))]
    return Plan(events, format=draw(4), has_middle=not draw(3))


def _event(draw: Draw) -> Event:
    names = OFTEN + EVENTS
    number, name = divmod(draw(len(names) * 32 * 32), len(names))
    b, a = divmod(number, 32)
    return names[name], a, b


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan."""
    return make_plan(lambda below: draw(st.integers(0, below - 1)))


def random_plan(seed: int) -> Plan:
    """The plan that belongs to a number."""
    return make_plan(random.Random(seed).randrange)
