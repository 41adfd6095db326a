"""Plans of histories, made from plain numbers, so that hypothesis and a random generator can both
make them, and making one costs little beside running it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import strategies as st

from .history import CELLS, VARIABLES, Event, History, Plan
from .world import KINDS, MODULUS, Part, Vertex, Way

EVENTS = [
    *(name.removeprefix("on_") for name in vars(History) if name.startswith("on_")),
    "new_loop",
]
OFTEN = [
    "set_cell",
    "set_variable",
    "call",
    "call",
    "rest",
    "rest",
    "resume",
    "cancel",
    "invalidate",
]
"""Events that happen more often than others."""

Draw = Callable[[int], int]
"""Gives a number from 0 up to, not including, the one that it is given."""


def make_plan(draw: Draw) -> Plan:
    """Make a plan of the numbers that are drawn."""
    vertices = [_vertex(draw, index) for index in range(1 + draw(6))]
    return Plan(
        vertices,
        [_event(draw) for _ in range(1 + draw(60))],
        slow_cells=draw(1 << CELLS) & draw(1 << CELLS),
        budget=[None, None, None, 2][draw(4)],
        chain_causes=bool(draw(2)),
    )


def _vertex(draw: Draw, index: int) -> Vertex:
    number, kind = divmod(draw(len(KINDS) * len(Way) * (MODULUS + 1) * 8), len(KINDS))
    number, way = divmod(number, len(Way))
    pauses, fails_at = divmod(number, MODULUS + 1)
    pauses = [0, 0, 0, 1, 2, 4, 5, 7][pauses]
    parts: list[Part] = [("cell", each) for each in range(CELLS)]
    parts += [("variable", each) for each in range(VARIABLES)]
    parts += [("source", 0), ("hour", 0)]
    # Mostly of vertices before it, or there would be no depth.
    parts += [("vertex", each) for each in range(index)] * 3
    chosen = tuple(parts[draw(len(parts))] for _ in range(1 + draw(3)))
    return Vertex(KINDS[kind], Way(way), chosen, fails_at, pauses)


def _event(draw: Draw) -> Event:
    names = OFTEN + EVENTS
    number, name = divmod(draw(len(names) * 32 * 32), len(names))
    b, a = divmod(number, 32)
    return names[name], a, b


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan."""
    return make_plan(lambda below: draw(_below(below)))


_strategies: dict[int, st.SearchStrategy[int]] = {}


def _below(below: int) -> st.SearchStrategy[int]:
    if below not in _strategies:
        _strategies[below] = st.integers(0, below - 1)
    return _strategies[below]


def random_plan(seed: int) -> Plan:
    """The plan that belongs to a number."""
    generator = random.Random(seed)
    return make_plan(generator.randrange)
