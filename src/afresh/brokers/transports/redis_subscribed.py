"""Subscriptions at Redis: one of a group, and one that reads all by itself."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from afresh.primitives.tasks import start_background

from ..transport import Ack, DeadLetter, Disposition, Handler, Outcome, Retry, Subscription
from .base import BaseSubscribed, end
from .headers import DELIVERIES, UNIQUE, death_headers, incoming_message, number_in
from .redis_entries import (
    DATA,
    Entry,
    again_name,
    dead_name,
    entries_of,
    later_name,
    outcome_of,
    text,
)

if TYPE_CHECKING:
    from .redis import RedisTransport

__all__ = ["RedisBroadcast", "RedisShared", "RedisSubscribed"]

IDLE_SECONDS = 30.0
"""A message that is not settled in this time is handed to another host; handlers that take longer
renew it."""

GONE_SECONDS = 300.0
"""A consumer that was not heard of in this time, and holds nothing, is taken out of its group."""

_BLOCK_SECONDS = 0.5
_SCAN_SECONDS = 1.0
_PAGE = 500
_MOVE_DUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, data in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
  redis.call('XADD', KEYS[2], '*', '__data__', data)
  redis.call('ZREM', KEYS[1], data)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then
  return math.max(0, first[2] - now)
end
return -1
"""
"""Moves what is due from the sorted set to the stream; returns milliseconds until more is."""

_REMOVE_GONE = """
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local consumer = {}
  for index = 1, #info, 2 do
    consumer[info[index]] = info[index + 1]
  end
  if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
  end
end
"""
"""Takes consumers out of a group that are gone; at once, as messages of a consumer go with it."""


class RedisSubscribed(BaseSubscribed["RedisTransport"]):
    """Reads entries, and hands them on, until it is closed."""

    def __init__(
        self, transport: RedisTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._reader: Any = None
        self._reader_id = 0
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._attach()
        self._tasks = [start_background(self._work(), name=f"subscription of {self._title}")]

    async def _attach(self) -> None:
        await self._detach()
        self._reader = self._transport._connection.client()
        self._reader_id = await self._reader.client_id()

    async def _detach(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(Exception):
                await reader.aclose()

    async def _work(self) -> None:
        is_lost = False
        while not self._is_closing:
            try:
                if is_lost:
                    await self._attach()
                    is_lost = False
                    self._transport._has_answered = True
                    self._error = None
                    self.tell_reconnected()
                self._changed.clear()
                room = self._subscription.fetched - self._lanes.in_flight
                if room < 1:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_BLOCK_SECONDS):
                            await self._changed.wait()
                    continue
                entries = await self._fetch(room)
            except Exception as error:
                self._error = f"{type(error).__name__}: {error}"
                if outcome_of(error) is Outcome.UNAVAILABLE:
                    self._transport._has_answered = False
                is_lost = True
                await asyncio.sleep(_BLOCK_SECONDS)
                continue
            for entry in entries:
                await self._hand_over(entry)

    async def _fetch(self, room: int) -> list[Entry]:
        """Return entries that are new; waits for them a short time."""
        raise NotImplementedError

    async def _settle(self, entry: Entry, disposition: Disposition) -> None:
        raise NotImplementedError

    async def _hand_over(self, entry: Entry) -> None:
        body, headers = self._transport._read(entry.fields)
        message = incoming_message(self._subscription, body, headers, entry.deliveries)

        async def settle(disposition: Disposition) -> None:
            try:
                await self._settle(entry, disposition)
            finally:
                self._changed.set()

        await self._lanes.put(message, settle)

    async def _close(self, drain: float) -> None:
        self._changed.set()
        with contextlib.suppress(Exception):
            await self._transport._connection.client_unblock(self._reader_id)
        if self._tasks:
            await asyncio.wait(self._tasks[:1])
        await self._lanes.aclose(drain)
        await end(*self._tasks[1:], *self._later)
        await self._detach()


class RedisBroadcast(RedisSubscribed):
    """Reads all that comes from now on, by itself."""

    _position: bytes | None = None

    async def _attach(self) -> None:
        await super()._attach()
        if self._position is None:
            last = await self._reader.xrevrange(self._subscription.destination, count=1)
            self._position = last[0][0] if last else b"0-0"

    async def _fetch(self, room: int) -> list[Entry]:
        stream = self._subscription.destination
        answer = await self._reader.xread(
            {stream: self._position}, count=room, block=int(_BLOCK_SECONDS * 1000)
        )
        entries = entries_of(answer)
        if entries:
            self._position = entries[-1].id
        return entries

    async def _settle(self, entry: Entry, disposition: Disposition) -> None:
        if isinstance(disposition, Retry) and not self._is_closing:
            again = Entry(entry.stream, entry.id, entry.fields, entry.deliveries + 1)
            self._wait(disposition.delay, lambda: self._hand_over(again))


class RedisShared(RedisSubscribed):
    """Reads as one of a group."""

    def __init__(
        self, transport: RedisTransport, subscription: Subscription, handler: Handler
    ) -> None:
        super().__init__(transport, subscription, handler)
        self._consumer = secrets.token_hex(8)
        self._again = again_name(subscription)
        self._streams = subscription.destination, self._again
        self._position = "$"
        self._held: set[tuple[str, bytes]] = set()
        self._cursors: dict[str, Any] = {}
        self._scan_at = 0.0

    async def start(self) -> None:
        await super().start()
        self._tasks.append(start_background(self._renew(), name=f"renewal of {self._title}"))

    async def _attach(self) -> None:
        await super()._attach()
        main, group = self._subscription.destination, self._subscription.group
        # A group that is new hears of what happens from now on; one that was lost with the data
        # of the server, of what it has not seen.
        for stream, position in ((main, self._position), (self._again, "0")):
            try:
                await self._reader.xgroup_create(stream, group, position, mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        await self._look()
        self._scan_at = 0.0

    async def _look(self) -> None:
        for info in await self._reader.xinfo_groups(self._subscription.destination):
            if text(info["name"]) == self._subscription.group:
                self._position = text(info["last-delivered-id"])

    async def _fetch(self, room: int) -> list[Entry]:
        now = time.monotonic()
        if now >= self._scan_at:
            left = [entry for stream in self._streams for entry in await self._left(stream, room)]
            if left:
                return left  # before what is new
            await self._look()
            self._scan_at = now + _SCAN_SECONDS
        due = await self._reader.eval(_MOVE_DUE, 2, later_name(self._subscription), self._again)
        block = int(_BLOCK_SECONDS * 1000)
        if due >= 0:
            block = max(1, min(block, due))
        answer = await self._reader.xreadgroup(
            self._subscription.group,
            self._consumer,
            dict.fromkeys(self._streams, ">"),
            count=room,
            block=block,
        )
        return entries_of(answer)

    async def _left(self, stream: str, room: int) -> list[Entry]:
        """Return what nobody works on any more."""
        reader, group = self._reader, self._subscription.group
        answer = await reader.xautoclaim(
            stream,
            group,
            self._consumer,
            min_idle_time=int(IDLE_SECONDS * 1000),
            start_id=self._cursors.get(stream, "0-0"),
            count=room,
        )
        self._cursors[stream] = answer[0]
        found = []
        for name, fields in answer[1]:
            if fields is None or (stream, name) in self._held:
                continue
            pending = await reader.xpending_range(stream, group, name, name, 1)
            deliveries = pending[0]["times_delivered"] if pending else 1
            found.append(Entry(stream, name, fields, deliveries))
        return found

    async def _hand_over(self, entry: Entry) -> None:
        self._held.add((entry.stream, entry.id))
        await super()._hand_over(entry)

    async def _settle(self, entry: Entry, disposition: Disposition) -> None:
        self._held.discard((entry.stream, entry.id))
        connection = self._transport._connection
        if isinstance(disposition, Ack) and entry.stream != self._again:
            await connection.xack(entry.stream, self._subscription.group, entry.id)
            return
        pipeline = connection.pipeline(transaction=True)
        match disposition:
            case Retry(delay):
                data = await self._copy(entry, {UNIQUE: secrets.token_hex(8)})
                if delay > 0:
                    seconds, microseconds = await connection.time()
                    due = (seconds + microseconds / 1_000_000 + delay) * 1000
                    pipeline.zadd(later_name(self._subscription), {data: int(due)})
                else:
                    pipeline.xadd(self._again, {DATA: data})
            case DeadLetter() as death:
                data = await self._copy(entry, death_headers(death))
                pipeline.xadd(dead_name(self._subscription), {DATA: data})
            case Ack():
                pass
        pipeline.xack(entry.stream, self._subscription.group, entry.id)
        if entry.stream == self._again:
            pipeline.xdel(entry.stream, entry.id)  # nobody else reads it
        await pipeline.execute()

    async def _copy(self, entry: Entry, more: dict[str, str]) -> bytes:
        body, headers = self._transport._read(entry.fields)
        before = int(number_in(headers, DELIVERIES))
        counted = {DELIVERIES: str(before + entry.deliveries)}
        return await self._transport._written(body, {**headers, **more, **counted})

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 3)
            for stream in self._streams:
                held = [name for each, name in self._held if each == stream]
                with contextlib.suppress(Exception):  # they may come twice
                    await self._claim(stream, self._consumer, held, 0)
                with contextlib.suppress(Exception):  # it is tried again
                    await self._transport._connection.eval(
                        _REMOVE_GONE, 1, stream, self._subscription.group, int(GONE_SECONDS * 1000)
                    )

    async def _claim(self, stream: str, consumer: str, names: list[bytes], idle: float) -> None:
        if names:
            await self._transport._connection.xclaim(
                stream,
                self._subscription.group,
                consumer,
                0,
                names,
                idle=int(idle * 1000),
                justid=True,
            )

    async def _close(self, drain: float) -> None:
        await super()._close(drain)
        with contextlib.suppress(Exception):  # others claim them when they have been idle
            for stream in self._streams:
                await self._give_back(stream)

    async def _give_back(self, stream: str) -> None:
        connection, group = self._transport._connection, self._subscription.group
        pending = await connection.xpending_range(
            stream, group, "-", "+", _PAGE, consumername=self._consumer
        )
        names = [each["message_id"] for each in pending]
        await self._claim(stream, "nobody", names, 2 * IDLE_SECONDS)
        if len(names) < _PAGE:
            await connection.xgroup_delconsumer(stream, group, self._consumer)
