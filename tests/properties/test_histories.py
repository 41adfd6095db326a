"""A consistent node equals its recomputation, after any history of changes, calls, cancellations,
failures, invalidations, delays, and event loops.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings

from .history import History, Plan, Tally
from .plans import plans, random_plan

HISTORIES = 20 * settings.default.max_examples


@settings(
    max_examples=HISTORIES,
    derandomize=not os.environ.get("AFRESH_SOAK"),  # what a change breaks, it breaks for everybody
    suppress_health_check=[HealthCheck.too_slow],
)
@given(plans())
def test_after_any_history_what_is_consistent_is_right(plan: Plan) -> None:
    """And at every moment of it; see `invariants` for all that is checked."""
    History(plan).run()


def test_the_histories_are_no_empty_ones() -> None:
    """They compare values, outcomes of calls, and what goes stale with what was foretold."""
    tallies = [History(random_plan(seed)).run() for seed in range(200)]
    total = Tally(
        compared=sum(tally.compared for tally in tallies),
        calls=sum(tally.calls for tally in tallies),
        predicted=sum(tally.predicted for tally in tallies),
    )
    assert total.compared > 1000
    assert total.calls > 1000
    assert total.predicted > 100
