"""Wall clocks that are wrong: makes those that afresh reads go ahead, or lag behind."""

from __future__ import annotations

import datetime as dt
import sys


class _SkewedType(type(dt.datetime)):  # type: ignore[misc]
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, dt.datetime)


class SkewedDatetime(dt.datetime, metaclass=_SkewedType):
    """`datetime` whose `now()` is off."""

    skew = dt.timedelta(0)

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
        return dt.datetime.now(tz) + cls.skew


def skew_clocks(seconds: float) -> None:
    """Let the modules of afresh that are loaded read a clock that is ahead by so many seconds.

    Their monotonic clocks, which delays go by, stay as they are.
    """
    if not seconds:
        return
    SkewedDatetime.skew = dt.timedelta(seconds=seconds)
    for name, module in list(sys.modules.items()):
        if name.startswith("afresh.") and getattr(module, "datetime", None) is dt.datetime:
            module.datetime = SkewedDatetime  # type: ignore[attr-defined]
