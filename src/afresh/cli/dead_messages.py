"""Dead messages of the outbox and of groups: listed, and taken up again or deleted."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from afresh.brokers import Broker, Subscription
from afresh.brokers.dead import OutboxDesk

from .output import Progress, duration, reason_of, table
from .sources import CommandError

__all__ = ["DeadLetter", "change_dead", "list_dead"]

_TOGETHER = 500
_COUNTED = 1000


class DeadLetter(msgspec.Struct, kw_only=True):
    """A dead message, wherever it is.

    Args:
        id: names it at its place.
        message_id: its name everywhere.
        type: of the event.
        key: whose order it stands in.
        tries: how often it was refused, or handed over.
        age: seconds since it died, or for the outbox since it was written; None if unknown.
        error: why.
    """

    id: str
    message_id: str
    type: str
    key: str | None
    tries: int
    age: float | None
    error: str


class _Place(ABC):
    """Where dead messages are."""

    name: str
    shown: dict[str, str]
    """What tells it from other places."""

    @abstractmethod
    async def dead(self, limit: int) -> list[DeadLetter]:
        """Return dead messages, the oldest first."""

    @abstractmethod
    async def change(self, change: str, ids: Sequence[str] | None, progress: Progress) -> int:
        """Requeue, or drop, some messages or all that are there now; return how many."""


class _Outbox(_Place):
    def __init__(self, desk: OutboxDesk, shard: str) -> None:
        self.name = f"the outbox of {shard}" if shard else "the outbox"
        self.shown = {"outbox": shard}
        self._desk = desk

    async def dead(self, limit: int) -> list[DeadLetter]:
        now = time.time()
        return [
            DeadLetter(
                id=str(each.id),
                message_id=each.message_id,
                type=each.type,
                key=each.key,
                tries=each.attempts,
                age=round(now - each.created_at.timestamp(), 3),
                error=each.error,
            )
            for each in await self._desk.dead(limit)
        ]

    async def change(self, change: str, ids: Sequence[str] | None, progress: Progress) -> int:
        run = self._desk.requeue if change == "requeue" else self._desk.drop
        count = 0
        if ids is not None:
            numbers = [_number(each) for each in ids]
            for first in range(0, len(numbers), _TOGETHER):
                count += await run(numbers[first : first + _TOGETHER])
                progress.show(count)
            return count
        after = 0  # what dies once more meanwhile is behind, and stays for another time
        while found := await self._desk.dead(_TOGETHER, after=after):
            count += await run([each.id for each in found])
            after = found[-1].id
            progress.show(count)
        return count


def _number(text: str) -> int:
    if not text.isdecimal():
        raise CommandError(f"{text!r} is no message of an outbox: they have numbers.")
    return int(text)


class _Group(_Place):
    def __init__(self, broker: Broker, subscription: Subscription) -> None:
        self.name = f"{subscription.group}, of {subscription.destination}"
        self.shown = {"group": subscription.group, "destination": subscription.destination}
        self._broker = broker
        self._subscription = subscription

    async def dead(self, limit: int) -> list[DeadLetter]:
        now = time.time()
        return [
            DeadLetter(
                id=each.id,
                message_id=each.message.attributes.get("id", ""),
                type=each.message.attributes.get("type", ""),
                key=each.message.key,
                tries=each.message.deliveries,
                age=None if each.died_at is None else round(max(0.0, now - each.died_at), 3),
                error=each.reason,
            )
            for each in await self._broker.dead(self._subscription, limit)
        ]

    async def change(self, change: str, ids: Sequence[str] | None, progress: Progress) -> int:
        run = self._broker.requeue if change == "requeue" else self._broker.drop
        ticking = asyncio.create_task(progress.tick())
        try:
            return await run(self._subscription, ids)
        finally:
            ticking.cancel()


async def list_dead(broker: Broker, options: argparse.Namespace) -> int:
    """Show dead messages."""
    places = await _places(broker, options)
    found = []
    for place in places:
        async with _in_time(options.timeout):
            found.append((place, await place.dead(options.limit)))
    if options.json:
        objects = [
            {**place.shown, **msgspec.to_builtins(each)} for place, dead in found for each in dead
        ]
        print(json.dumps(objects, ensure_ascii=False))
        return 0
    parts = []
    for place, dead in found:
        if not dead:
            parts.append(f"{place.name}: none is dead\n")
            continue
        rows = [
            (
                each.id,
                each.type or "?",
                each.key or "-",
                each.tries,
                "?" if each.age is None else duration(each.age),
                each.error,
            )
            for each in dead
        ]
        heads = ("ID", "TYPE", "KEY", "TRIES", "AGE", "WHY")
        more = f"; the first {options.limit:,}, --limit shows more"
        parts.append(
            f"{place.name}: dead{more if len(dead) == options.limit else ''}\n"
            + table(heads, rows, {"TRIES", "AGE"})
        )
    print("\n".join(parts), end="")
    return 0


async def change_dead(broker: Broker, options: argparse.Namespace) -> int:
    """Requeue, or drop, dead messages; return 1 if some are not there any more."""
    ids: list[str] | None = None if options.all else list(dict.fromkeys(options.ids))
    places = await _places(broker, options)
    if ids is not None and len(places) > 1:
        raise CommandError(
            "Say where these messages are, --outbox or --group, with --shard or --destination "
            f"where that leaves several: {'; '.join(place.name for place in places)}."
        )
    if options.change == "drop" and not options.yes:
        await _confirm(places, ids, options.timeout)
    status = 0
    done = {"requeue": "requeued", "drop": "dropped"}[options.change]
    for place in places:
        progress = Progress(f"{place.name}: {done}")
        try:
            count = await place.change(options.change, ids, progress)
        except (CommandError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise CommandError(
                f"{place.name}: not all could be {done}: {reason_of(error)}. Those "
                "that were are not dead any more; do it again for the others."
            ) from error
        finally:
            progress.end()
        if ids is not None and count < len(ids):
            status = 1
            print(f"{place.name}: {done} {count:,}; the others are not there any more")
        else:
            print(f"{place.name}: {done} {count:,}")
    return status


async def _confirm(places: Sequence[_Place], ids: Sequence[str] | None, timeout: float) -> None:
    if not sys.stdin.isatty():
        raise CommandError("Nobody can be asked whether to delete messages for good: add --yes.")
    counts = []
    for place in places:
        if ids is not None:
            counts.append(f"{len(ids):,} of {place.name}")
            continue
        async with _in_time(timeout):
            count = len(await place.dead(_COUNTED))
        counts.append(f"{count:,}{'+' if count == _COUNTED else ''} of {place.name}")
    print(f"Delete for good: {'; '.join(counts)}? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = await asyncio.to_thread(sys.stdin.readline)
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("Nothing was deleted.")


# -- where


async def _places(broker: Broker, options: argparse.Namespace) -> list[_Place]:
    """Return the places that the options name, all if they name none; the broker is connected."""
    wants_outbox = options.outbox or options.shard is not None
    wants_groups = options.group is not None or options.destination is not None
    takes_all = not wants_outbox and not wants_groups
    found: list[_Place] = []
    if wants_outbox or takes_all:
        names = [name for name in broker.shards if options.shard in {None, name}]
        if wants_outbox and not names:
            raise CommandError(_nothing("outbox", options.shard, broker.shards))
        found += [_Outbox(broker.outbox(name), name) for name in names]
    if wants_groups or takes_all:
        there = [each for each in broker.subscriptions if each.mode == "group"]
        chosen = [
            each
            for each in there
            if options.group in {None, each.group}
            and options.destination in {None, each.destination}
        ]
        if wants_groups and not chosen:
            names = [f"{each.group} of {each.destination}" for each in there]
            raise CommandError(_nothing("group", options.group or options.destination, names))
        if chosen:
            await _connect(broker, options.timeout)
        found += [_Group(broker, each) for each in chosen]
    if not found:
        raise CommandError("This app has no outbox, and receives nothing.")
    return found


def _nothing(kind: str, name: str | None, there: Sequence[str]) -> str:
    listed = ", ".join(repr(each) for each in there) or "none"
    return f"This app has no {kind}{f' {name!r}' if name else ''}; it has {listed}."


async def _connect(broker: Broker, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await broker.transport.start()
    except Exception as error:
        why = reason_of(error)
        if isinstance(error, TimeoutError):
            why = f"{broker.transport.capabilities.name} has not answered; see --timeout."
        raise CommandError(f"Not connected: {why} (--outbox needs the database only)") from error


@asynccontextmanager
async def _in_time(timeout: float) -> AsyncIterator[None]:
    """Make a complaint of what fails."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError:
        raise CommandError(f"There was no answer within {timeout:g} s; see --timeout.") from None
    except Exception as error:
        raise CommandError(reason_of(error)) from error
