"""Instants and durations as .NET peers write them: in ticks of 100 ns, or as text.

Python counts whole microseconds, so what is read is cut to these.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

__all__ = ["Moment", "read_moment", "read_time_span", "ticks_of", "write_time_span"]

TICKS_PER_MICROSECOND = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_TIME_SPAN = re.compile(
    r"(?P<sign>-?)(?:(?P<days>\d{1,9})\.)?(?P<hours>\d{1,2}):(?P<minutes>\d{2}):(?P<seconds>\d{2})"
    r"(?:\.(?P<fraction>\d{1,7}))?",
    re.ASCII,
)


class Moment(datetime):
    """An instant, for .NET peers that declare `Moment`: in binary formats it is a number there.

    It is a `datetime` in all else, and always in UTC. Where peers declare `DateTime`, annotate with
    `datetime` instead; both read what either writes.

    ```python
    Moment.of(datetime.now(UTC))
    ```
    """

    @classmethod
    def of(cls, instant: datetime) -> Moment:
        """The same instant as a `Moment`.

        Raises:
            ValueError: `instant` has no time zone.
        """
        if instant.tzinfo is None:
            raise ValueError(f"{instant!r} has no time zone; Moment needs one, such as UTC.")
        instant = instant.astimezone(UTC)
        return cls.combine(instant.date(), instant.timetz())

    @classmethod
    def from_ticks(cls, ticks: int) -> Moment:
        """The instant that is so many ticks of 100 ns after the start of 1970.

        Raises:
            OverflowError: it is outside the years 1 to 9999.
        """
        return cls.of(EPOCH + timedelta(microseconds=ticks // TICKS_PER_MICROSECOND))

    @property
    def ticks(self) -> int:
        """How many ticks of 100 ns after the start of 1970 it is."""
        return ticks_of(Moment.of(self) - Moment.of(EPOCH))

    def to_text(self) -> str:
        """ISO 8601 with seven digits of the second, as .NET writes it."""
        return f"{Moment.of(self).isoformat(timespec='microseconds')[:26]}0Z"


def ticks_of(duration: timedelta) -> int:
    """How many ticks of 100 ns it takes."""
    return duration // MICROSECOND * TICKS_PER_MICROSECOND


def read_moment(data: object) -> Moment:
    """Read a `Moment` in any of its forms: ticks, text, or what MessagePack knows as a timestamp.

    Raises:
        ValueError: it is none of them, or outside the years 1 to 9999.
    """
    try:
        if isinstance(data, (int, float)) and data == int(data):
            return Moment.from_ticks(int(data))
        return Moment.of(msgspec.convert(data, datetime))
    except (OverflowError, msgspec.ValidationError) as error:
        raise ValueError(f"{str(data)[:40]!r} is not a Moment: {error}") from None


def write_time_span(duration: timedelta) -> str:
    """Write a duration as .NET does: ``1.02:03:04.5000000`` for a day and some hours.

    The fraction is left out where there is none, and so are the days.
    """
    sign, duration = ("-", -duration) if duration < timedelta(0) else ("", duration)
    minutes, seconds = divmod(duration.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{duration.days}." if duration.days else ""
    fraction = f".{duration.microseconds:06}0" if duration.microseconds else ""
    return f"{sign}{days}{hours:02}:{minutes:02}:{seconds:02}{fraction}"


def read_time_span(data: object) -> object:
    """Read a duration in .NET's forms, text or ticks; what is neither is returned as it is.

    Raises:
        ValueError: it is longer than a `timedelta` can be.
    """
    try:
        if isinstance(data, str):
            match = _TIME_SPAN.fullmatch(data)
            if match is None:
                return data
            days, hours, minutes, seconds = (
                int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds")
            )
            microseconds = int((match["fraction"] or "").ljust(7, "0")) // TICKS_PER_MICROSECOND
            duration = timedelta(days, seconds, microseconds, 0, minutes, hours)
            return -duration if match["sign"] else duration
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            return timedelta(microseconds=int(data) // TICKS_PER_MICROSECOND)
    except OverflowError as error:
        raise ValueError(f"{str(data)[:40]!r} is not a duration: {error}") from None
    return data
