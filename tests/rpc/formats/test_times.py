"""Instants and durations in the forms of .NET peers."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.errors import FormatError
from afresh.rpc.formats import Moment, RecordNaming, get_format
from afresh.rpc.formats.times import read_time_span, ticks_of, write_time_span

TEXT = get_format("json5np")
BINARY = get_format("msgpack6")

instants = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001


@given(instants)
def test_moments_arrive_as_they_were(instant):
    moment = Moment.of(instant)
    assert moment == instant
    for wire in (TEXT, BINARY):
        codec = wire.codec((Moment, Moment | None))
        received = codec.decode(codec.encode((moment, None)))
        assert list(received) == [moment, None]
        assert type(received[0]) is Moment
    assert len(BINARY.codec((Moment,)).encode_one(moment)) == 9
    assert len(TEXT.codec((Moment,)).encode_one(moment)) == 30


@pytest.mark.parametrize(
    ("ticks", "instant"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (10, datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)),
        (19, datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)),
        (-10, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (17041646456780000, datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)),
    ],
)
def test_moments_count_ticks_from_1970_on(ticks, instant):
    assert Moment.from_ticks(ticks) == instant
    assert Moment.of(instant).ticks == ticks // 10 * 10
    for number in (ticks, float(ticks)):
        assert (
            BINARY.codec((Moment,)).decode_one(BINARY.codec((Any,)).encode_one(number)) == instant
        )


@pytest.mark.parametrize("naming", RecordNaming)
def test_moments_and_instants_are_read_from_what_either_writes(naming):
    instant = datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    for wire in (TEXT, BINARY):
        section = wire.codec((datetime,), naming).encode_one(instant)
        assert wire.codec((Moment,), naming).decode_one(section) == instant
    section = TEXT.codec((Moment,), naming).encode_one(Moment.of(instant))
    assert TEXT.codec((datetime,), naming).decode_one(section) == instant


def test_moments_are_in_utc():
    east = datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=5)))
    moment = Moment.of(east)
    assert moment == east
    assert moment.utcoffset() == timedelta(0)
    assert moment.to_text() == "2024-01-01T22:00:00.0000000Z"
    assert TEXT.codec((Moment,)).decode_one(b'"2024-01-02T03:00:00+05:00"') == moment


def test_an_instant_without_a_zone_is_no_moment():
    with pytest.raises(ValueError, match="has no time zone"):
        Moment.of(datetime(2024, 1, 2))  # noqa: DTZ001 - that is the point
    with pytest.raises(FormatError, match="has no time zone"):
        TEXT.codec((Moment,)).decode_one(b'"2024-01-02T03:04:05"')
    for wire in (TEXT, BINARY):
        with pytest.raises(FormatError, match="can't be written"):
            wire.codec((Moment,)).encode_one(Moment(2024, 1, 2))


@pytest.mark.parametrize("value", ["", "soon", 2**63 - 1, -(2**63), 1.5, 1e300, [1], {}])
def test_what_is_no_moment_is_refused(value):
    for wire in (TEXT, BINARY):
        with pytest.raises(FormatError, match="can't be read"):
            wire.codec((Moment,)).decode_one(wire.codec((Any,)).encode_one(value))


durations = st.timedeltas(timedelta(-10_000_000), timedelta(10_000_000))


@given(durations)
def test_durations_arrive_as_they_were(duration):
    assert read_time_span(write_time_span(duration)) == duration
    assert read_time_span(ticks_of(duration)) == duration
    for wire in (TEXT, BINARY):
        codec = wire.codec((timedelta, timedelta | None))
        assert list(codec.decode(codec.encode((duration, None)))) == [duration, None]


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("00:00:00", timedelta(0)),
        ("00:00:01.5000000", timedelta(seconds=1.5)),
        ("1.02:03:04", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("-1.02:03:04", -timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("-00:00:00.0000010", -timedelta(microseconds=1)),
        ("10675199.02:48:05.4775800", timedelta(10675199, 10085, 477580)),
        ("-999999999.00:00:00", -timedelta(999999999)),
    ],
)
def test_durations_in_text(text, duration):
    assert write_time_span(duration) == text
    assert TEXT.codec((timedelta,)).decode_one(f'"{text}"'.encode()) == duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0:00:01", timedelta(seconds=1)),
        ("00:00:00.1", timedelta(milliseconds=100)),
        ("00:00:00.0000019", timedelta(microseconds=1)),
        ("PT1.5S", timedelta(seconds=1.5)),
        ("-P1D", -timedelta(1)),
    ],
)
def test_other_spellings_of_durations_are_read(text, duration):
    assert TEXT.codec((timedelta,)).decode_one(f'"{text}"'.encode()) == duration


@pytest.mark.parametrize("ticks", [15_000_000, 15_000_000.0])
def test_durations_may_be_numbers_of_either_kind(ticks):
    for wire in (TEXT, BINARY):
        section = wire.codec((Any,)).encode_one(ticks)
        assert wire.codec((timedelta,)).decode_one(section) == timedelta(seconds=1.5)


def test_ticks_are_counted_exactly():
    duration = timedelta(20_000_000, microseconds=1)
    assert BINARY.codec((timedelta,)).encode_one(duration) == b"\xcf" + ticks_of(duration).to_bytes(
        8
    )
    assert read_time_span(ticks_of(timedelta.max)) == timedelta.max


@pytest.mark.parametrize(
    "value", ["", "1:2:3:4", "00:00", "99999999999.00:00:00", "\u0660:00:00", True, [1]]
)
def test_what_is_no_duration_is_refused(value):
    section = TEXT.codec((Any,)).encode_one(value)
    with pytest.raises(FormatError, match="can't be read"):
        TEXT.codec((timedelta,)).decode_one(section)


def test_a_duration_too_long_for_its_number_is_refused():
    with pytest.raises(FormatError, match="can't be written"):
        BINARY.codec((timedelta,)).encode_one(timedelta.max)


def test_numbers_in_a_union_with_durations_stay_numbers():
    codec = TEXT.codec((int | timedelta,))
    for value in (5, timedelta(seconds=5)):
        assert codec.decode_one(codec.encode_one(value)) == value
