"""Two stream tables in one process, and the link between them under the test's control."""

from __future__ import annotations

import asyncio
import contextvars
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from afresh.rpc.exceptions import ExceptionInfo, ExceptionPolicy
from afresh.rpc.formats import Format, RecordNaming, get_format
from afresh.rpc.limits import Limits
from afresh.rpc.streams import RpcStream
from afresh.rpc.streams.reference import coding
from afresh.rpc.streams.table import StreamTable

NOBODY = uuid.UUID(int=0)

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "$sys.Ack:2": (int, uuid.UUID),
    "$sys.AckEnd:1": (uuid.UUID,),
    "$sys.I:2": (int, Any),
    "$sys.B:2": (int, list[Any]),
    "$sys.End:2": (int, ExceptionInfo),
    "$sys.Disconnect:1": (list[int],),
}


@dataclass
class Message:
    """A system call on its way."""

    name: str
    related_id: int
    arguments: bytes
    format: Format

    @property
    def values(self) -> tuple[Any, ...]:
        """The arguments."""
        return tuple(self.format.codec(ARGUMENTS[self.name]).decode(self.arguments))

    def __repr__(self) -> str:
        return f"{self.name[5:-2]}{self.values}"


Fault = Callable[[list[Message]], Iterable[Message]]


def intact(messages: list[Message]) -> Iterable[Message]:
    """Deliver what was sent, as it was sent."""
    return messages


class Rules:
    """What streams need of a hub."""

    exceptions = ExceptionPolicy(expose_messages=True)
    records = RecordNaming.PYTHON


class End:
    """One end of the link; what streams need of a peer."""

    def __init__(self, format: Format, limits: Limits | None = None) -> None:
        self.hub = Rules()
        self.peer_id = uuid.uuid4()
        self.format = format
        self.limits = limits or Limits()
        self.context = contextvars.Context()
        self.is_connected = True
        self.is_clogged = False
        self.fault: Fault = intact
        self.sent: list[Message] = []
        self.lost: list[Message] = []
        self.other: End
        self._outbox: list[Message] = []
        self.table = StreamTable(self)

    def send_system(self, name: str, related_id: int, arguments: bytes) -> None:
        message = Message(name, related_id, bytes(arguments), self.format)
        if not self.is_connected:
            self.lost.append(message)
            return
        self.sent.append(message)
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(message)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if self.is_connected:
            asyncio.get_running_loop().call_soon(self.other.receive, list(self.fault(outbox)))
        else:
            self.lost += outbox

    def receive(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if self.is_connected:
                self.table.handlers[message.name](message.related_id, message.arguments)

    def say(self, name: str, related_id: int, *values: Any) -> None:
        """Let this end receive a message of the test's own making."""
        codec = self.format.codec(ARGUMENTS[name])
        self.table.handlers[name](related_id, codec.encode(values))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of all messages of that name that were sent."""
        return [message.values for message in self.sent if message.name.split(":")[0] == name]

    @property
    def items_sent(self) -> list[int]:
        """The numbers of the items that were sent, in order."""
        numbers: list[int] = []
        for message in self.sent:
            if message.name == "$sys.I:2":
                numbers.append(message.values[0])
            elif message.name == "$sys.B:2":
                first, items = message.values
                numbers += range(first, first + len(items))
        return numbers

    def __repr__(self) -> str:
        return f"<End {str(self.peer_id)[:4]}>"


class Ends:
    """Two ends of a link: `owner` shares streams, `reader` reads them."""

    def __init__(self, format: str = "msgpack6c", limits: Limits | None = None) -> None:
        self.format = get_format(format)
        self.owner = End(self.format, limits)
        self.reader = End(self.format, limits)
        self.owner.other, self.reader.other = self.reader, self.owner

    def carry(self, value: Any, annotation: Any, *, back: bool = False) -> Any:
        """Send a value from the owner to the reader, or back, as the result of a call would be."""
        sender, receiver = (self.reader, self.owner) if back else (self.owner, self.reader)
        codec = self.format.codec((annotation,))
        with coding(sender.table, codec.types):
            data = codec.encode_one(value)
        with coding(receiver.table):
            return codec.decode_one(data)

    def stream(
        self, source: AsyncIterable[Any], item_type: Any = int, **rules: Any
    ) -> RpcStream[Any]:
        """Share a stream and return the reader's view of it."""
        stream: RpcStream[Any] = RpcStream(source, item_type=item_type, **rules)
        found: RpcStream[Any] = self.carry(stream, RpcStream[item_type])
        return found

    def disconnect(self) -> None:
        """Lose the connection, with everything that is under way."""
        for end in (self.owner, self.reader):
            end.is_connected = False
        for end in (self.owner, self.reader):
            end.table.disconnected()

    async def reconnect(self, *, is_same_peer: bool = True) -> None:
        """Make the connection again, when nothing of the last one is under way any more."""
        await turns(4)
        for end in (self.owner, self.reader):
            end.is_connected = True
        for end in (self.owner, self.reader):
            end.table.connected(is_same_peer)

    def exchange_keep_alives(self) -> None:
        """Let each end tell the other which streams it reads."""
        for end in (self.owner, self.reader):
            end.other.table.note_keep_alive(end.table.keep_alive_ids())

    @property
    def counts(self) -> tuple[int, int]:
        """How many streams the two tables hold."""
        return len(self.owner.table), len(self.reader.table)

    def close(self) -> None:
        """Close both tables."""
        for end in (self.owner, self.reader):
            end.table.close(ConnectionError("the test is over"))


async def turns(count: int = 12) -> None:
    """Let other tasks and callbacks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def read(stream: AsyncIterable[Any]) -> list[Any]:
    """Read a stream to its end."""
    return [item async for item in stream]


async def read_on(stream: AsyncIterator[Any]) -> list[Any]:
    """Read what is left of a stream that is read step by step."""
    items: list[Any] = []
    while True:
        try:
            items.append(await anext(stream))
        except StopAsyncIteration:
            return items


async def numbers(
    count: int, pause: Callable[[int], bool] = lambda _: False
) -> AsyncGenerator[int, None]:
    """0, 1, 2, …; where `pause` says so, others get their turn before the next one."""
    for number in range(count):
        yield number
        if pause(number):
            await asyncio.sleep(0)


class Feed:
    """A source that gives what the test puts in, when it puts it in; notes how it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.given = 0
        self.is_closed = False
        self.is_cancelled = False

    def put(self, *items: Any) -> None:
        """Give these items next."""
        for item in items:
            self.queue.put_nowait(item)

    async def follow(self) -> AsyncGenerator[Any, None]:
        """The source; ends with None, and fails with an exception that was put in."""
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self.given += 1
                yield item
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        finally:
            self.is_closed = True


__all__ = [
    "NOBODY",
    "End",
    "Ends",
    "Feed",
    "Message",
    "intact",
    "numbers",
    "read",
    "read_on",
    "turns",
]
