import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.primitives.delays import RetryDelays


def test_delays_grow_exponentially_up_to_the_maximum():
    delays = RetryDelays.exponential(1, 60, spread=0)
    assert delays[1] == 1.0
    assert delays[2] == pytest.approx(math.sqrt(2))
    assert delays[3] == pytest.approx(2.0)
    assert delays[12] == pytest.approx(math.sqrt(2) ** 11)
    assert delays[13] == 60.0
    assert delays[1_000_000] == 60.0


@pytest.mark.parametrize("retry_count", [0, -1, -100])
def test_there_is_no_delay_before_anything_failed(retry_count):
    assert RetryDelays.exponential(1, 60)[retry_count] == 0.0


@pytest.mark.parametrize("multiplier", [1, 0.5, 0])
def test_a_multiplier_of_one_or_less_keeps_the_delay(multiplier):
    delays = RetryDelays.exponential(2, 60, multiplier, spread=0)
    assert [delays[n] for n in (1, 2, 50)] == [2.0, 2.0, 2.0]


def test_fixed_delays_are_all_the_same():
    delays = RetryDelays.fixed(0.5, spread=0)
    assert [delays[n] for n in (0, 1, 2, 50)] == [0.0, 0.5, 0.5, 0.5]
    assert delays.minimum == delays.maximum == 0.5


@pytest.mark.parametrize(("random", "expected"), [(0.0, 9.0), (0.5, 10.0), (0.75, 10.5)])
def test_the_spread_goes_both_ways(random, expected):
    delays = RetryDelays.fixed(10, spread=0.1, random_source=lambda: random)
    assert delays[1] == pytest.approx(expected)
    growing = RetryDelays.exponential(10, 60, spread=0.1, random_source=lambda: random)
    assert growing[1] == pytest.approx(expected)


@given(
    st.floats(0, 1e300),
    st.floats(0, 1e300),
    st.floats(0, 1e6),
    st.floats(0, 100),
    st.integers(-5, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_negative_nor_nothing_one_could_wait_for(a, b, multiplier, spread, n, r):
    delays = RetryDelays.exponential(
        min(a, b), max(a, b), multiplier, spread, random_source=lambda: r
    )
    assert 0 <= delays[n] <= max(a, b) * (1 + spread) + 1e-9


def test_no_first_delay_means_no_delay_at_all():
    assert RetryDelays.exponential(0, 60, 1e6)[10_000] == 0.0


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["first", "maximum", "multiplier", "spread"])
def test_numbers_that_make_no_sense_are_refused(name, bad):
    arguments = {"first": 1.0, "maximum": 60.0, name: bad}
    with pytest.raises(ValueError, match="RetryDelays: "):
        RetryDelays.exponential(**arguments)


def test_a_first_delay_above_the_maximum_is_refused():
    with pytest.raises(ValueError, match="longer than the maximum"):
        RetryDelays.exponential(61, 60)


def test_delays_are_immutable_and_compare_by_their_numbers():
    delays = RetryDelays.exponential(1, 60, random_source=lambda: 0.5)
    with pytest.raises(AttributeError):
        delays.minimum = 2
    assert delays == RetryDelays.exponential(1, 60)
    assert delays != RetryDelays.exponential(1, 61)
    assert hash(delays) == hash(RetryDelays.exponential(1, 60))


def test_going_through_endless_delays_is_refused():
    delays = RetryDelays.exponential(1, 60)
    with pytest.raises(TypeError):
        list(delays)
    with pytest.raises(TypeError):
        assert 1.0 in delays
