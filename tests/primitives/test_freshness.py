"""What somebody has seen, as a text: it reads back, merges, stays short, and goes with answers."""

from __future__ import annotations

import contextvars

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.primitives.freshness import Freshness, note_freshness, noted_freshness

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
indexes = st.dictionaries(st.tuples(names, names), st.integers(0, 2**63), max_size=20)


@given(indexes)
def test_a_token_reads_back_as_what_it_was_made_of(known: dict[tuple[str, str], int]):
    token = str(Freshness(known))
    assert dict(Freshness.parse(token)) == known
    assert token.isascii()
    assert not set(token) & set(" \t\r\n\"';")  # fit for a header


@given(indexes, indexes)
def test_merging_keeps_the_highest_of_each_log(
    one: dict[tuple[str, str], int], other: dict[tuple[str, str], int]
):
    merged = Freshness(one).merged(other)
    assert dict(merged) == {
        log: max(one.get(log, 0), other.get(log, 0)) for log in one.keys() | other.keys()
    }
    assert not Freshness(one).beyond(merged)
    assert not merged.beyond(merged)
    assert merged.merged(Freshness(one)) == merged


@given(indexes, indexes)
def test_what_is_beyond_is_what_the_other_lacks(
    one: dict[tuple[str, str], int], other: dict[tuple[str, str], int]
):
    beyond = Freshness(one).beyond(Freshness(other))
    assert Freshness(other).merged(beyond) == Freshness(other).merged(one)
    assert all(index > other.get(log, -1) for log, index in beyond.items())


@given(indexes, st.integers(0, 300))
def test_the_latest_that_fits_is_kept(known: dict[tuple[str, str], int], length: int):
    whole = Freshness(known)
    latest = whole.latest(length)
    assert len(str(latest)) <= length
    assert list(latest.items()) == list(whole.items())[len(whole) - len(latest) :]
    if len(latest) < len(whole):
        kept = len(latest) + 1
        assert len(str(Freshness(dict(list(whole.items())[-kept:])))) > length


def test_what_was_merged_last_is_kept_first():
    known = Freshness({("a", ""): 1, ("b", ""): 1})
    assert list(known.merged({("a", ""): 2})) == [("b", ""), ("a", "")]


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "@",
        "a@1",
        "a/b@",
        "a/b@x",
        "a/b@-1",
        "a/b@\u0661",
        "a/b@1,",
        ",",
        "a/b@" + "9" * 20,
        " ",
    ],
)
def test_what_is_no_token_is_refused(token: str):
    with pytest.raises(ValueError, match="is no freshness token"):
        Freshness.parse(token)


def test_a_token_of_very_many_logs_is_refused():
    token = ",".join(f"a/{number}@1" for number in range(101))
    with pytest.raises(ValueError, match="100 are allowed"):
        Freshness.parse(token)


def test_a_log_that_is_named_twice_counts_as_far_as_it_goes():
    assert Freshness.parse("a/@5,a/@3") == {("a", ""): 5}


def test_nothing_is_an_empty_token():
    assert str(Freshness()) == ""
    assert Freshness.parse("") == {}
    assert repr(Freshness({("a", "b c"): 1})) == "<Freshness a/b%20c@1>"


def noted(*tokens: str, is_call: bool = True) -> str | None:
    def run() -> str | None:
        if is_call:
            noted_freshness.set("")
        for token in tokens:
            note_freshness(token)
        return noted_freshness.get()

    return contextvars.Context().run(run)


def test_an_answer_tells_of_all_that_was_changed_for_it():
    assert noted("a/@1", "b/@2", "a/@3", "a/@2", "") == "b/@2,a/@3"


def test_outside_of_calls_nothing_is_noted():
    assert noted("a/@1", is_call=False) is None


def test_an_answer_stays_short_however_much_was_changed_for_it():
    token = noted(*(f"a/shard-{number}@{number}" for number in range(1_000)))
    assert token is not None
    assert token.endswith("a/shard-999@999")
    assert len(token) <= 1_000


def test_names_that_are_too_long_for_an_answer_are_not_told():
    assert noted("a/@1", "a/" + "x" * 1_000 + "@1") == "a/@1"
