"""What clients hold equals the server's truth once all has come to rest, after any history of
changes, calls, cancellations, lost connections and restarts; and nothing is left behind.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings

from .remote_history import Plan, RemoteHistory, Tally
from .remote_plans import plans, random_plan

HISTORIES = settings.default.max_examples


@pytest.mark.parametrize("seed", range(4))
def test_after_any_history_all_clients_are_right_and_nothing_is_left(seed: int) -> None:
    for number in range(40 * seed, 40 * seed + 40):
        try:
            RemoteHistory(random_plan(number)).run()
        except BaseException as error:
            error.add_note(f"This was random_plan({number}).")
            raise


@settings(
    max_examples=HISTORIES,
    derandomize=not os.environ.get("AFRESH_SOAK"),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(plans())
def test_no_history_can_be_found_after_which_a_client_is_wrong(plan: Plan) -> None:
    RemoteHistory(plan).run()


def test_the_histories_are_no_empty_ones() -> None:
    tallies = [RemoteHistory(random_plan(seed)).run() for seed in range(40)]
    total = Tally(
        **{name: sum(vars(tally)[name] for tally in tallies) for name in vars(tallies[0])}
    )
    assert total.compared > 1000
    assert total.calls > 50
    assert total.repeated >= 1
    assert total.interruptions > 50
    assert total.subscriptions > 800
