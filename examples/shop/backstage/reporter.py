"""What a process says of itself: counts of what happens in it, and the latest of that.

All of it comes from what the library tells anybody who asks: the observer of the graph, a filter
around commands, completed operations, and messages that were published or handled.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from afresh import App, command_filter
from afresh.brokers import Delivery, HandledMessage, PublishedMessage
from afresh.commands import CommandContext, CommandOf, current_context
from afresh.graph import GraphEvent, GraphEventKind, observe
from afresh.operations import OPERATIONS_PRIORITY, Operation

from .contracts import Board, Counts, Happening, Kind, Report

EVERY = 0.5
_EVERYTHING = GraphEventKind.COMPUTED | GraphEventKind.HIT | GraphEventKind.INVALIDATED
_QUIET = 4
_NEWS = 100
_OUTCOMES: dict[str, Kind] = {
    "handled": "receive",
    "duplicate": "duplicate",
    "retried": "retry",
    "dead": "dead",
    "unknown": "unknown",
}
_COUNTED = {"duplicate": "duplicates", "retried": "retried", "dead": "dead", "unknown": "unknown"}


@dataclass(slots=True)
class _News:
    at: datetime
    kind: Kind
    text: str
    operation: str = ""
    command: object = None


class Reporter:
    """Counts what happens in a process, and reports it.

    Args:
        process: what the process is called; "worker" for one of several that are alike.
        service: what it is a part of.
        app: whose commands, operations and messages are counted; None for a client.
        computing: the names of classes whose compute methods are counted.
        orders: asked for how many orders there are, ever.
    """

    def __init__(
        self,
        process: str,
        service: str,
        app: App | None,
        computing: Collection[str],
        orders: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._process = process
        self._service = service
        self._app = app
        self._computing = frozenset(computing)
        self._placed = orders
        self._orders: int | None = None
        self._levels: dict[str, Any] = {}
        self._run = uuid4().hex
        self._counts: Counter[str] = Counter()
        self._news: deque[_News] = deque(maxlen=_NEWS)
        self._roots: OrderedDict[str, str] = OrderedDict()

    @asynccontextmanager
    async def reporting_to(self, board: Board) -> AsyncIterator[None]:
        """Report to a board, twice a second; go on where there is none for a while.

        Enter it before the app is started, and leave it when that is closed, to miss nothing.
        """
        stops = [observe(self._see, _EVERYTHING, sample_hits=1)]
        if self._app is not None:
            self._app.commander.add(self)
            stops.append(self._app.operations.completion.on_completed(self._complete))
            stops.append(self._app.broker.on_published(self._publish))
            stops.append(self._app.broker.on_handled(self._handle))
        task = asyncio.create_task(self._keep_reporting(board))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            for stop in stops:
                stop()
            with suppress(Exception):  # the backstage may be gone already
                async with asyncio.timeout(0.5):
                    await board.report(await self.report())

    async def _keep_reporting(self, board: Board) -> None:
        last: tuple[Any, ...] = ()
        quiet = 0
        while True:
            await asyncio.sleep(EVERY)
            with suppress(Exception):  # the backstage is away: the next one says it
                report = await self.report()
                now = report.counts, report.orders
                quiet = quiet + 1 if now == last and not report.happenings else 0
                if quiet % _QUIET == 0:
                    async with asyncio.timeout(2):
                        await board.report(report)
                    last = now

    async def report(self) -> Report:
        """Return what is to be said now; happenings are said once."""
        if self._app is not None:
            with suppress(Exception):  # the database is not open yet, or any more
                figures = await self._app.broker.outbox().figures()
                oldest = round(figures.oldest, 1)
                self._levels = {"pending": figures.pending, "oldest": oldest}
        if self._placed is not None:
            with suppress(Exception):
                self._orders = await self._placed()
        news, self._news = self._news, deque(maxlen=_NEWS)
        happenings = tuple(
            Happening(
                each.at,
                self._process,
                each.kind,
                each.text,
                self._roots.get(each.operation, each.operation)[-8:],
            )
            for each in news
        )
        counts = Counts(**self._counts, **self._levels)
        return Report(self._process, self._service, self._run, counts, self._orders, happenings)

    def _tell(self, kind: Kind, text: str, operation: str = "", command: object = None) -> None:
        self._news.append(_News(datetime.now(UTC), kind, text, operation, command))

    # -- what is counted

    def _see(self, event: GraphEvent) -> None:
        computed = event.computed
        if computed.category.partition(".")[0] not in self._computing:
            return
        match event.kind:
            case GraphEventKind.HIT:
                self._counts["hits"] += event.weight
            case GraphEventKind.COMPUTED:
                self._counts["computes"] += 1
                self._tell("compute", shown(computed.describe()))
            case GraphEventKind.INVALIDATED:
                self._counts["invalidations"] += 1
                cause = re.search(r"\b[0-9a-f]{32}\b", str(event.cause))
                self._tell("invalidate", shown(computed.describe()), cause[0] if cause else "")

    @command_filter(priority=OPERATIONS_PRIORITY + 10)
    async def count(self, command: CommandOf[Any], proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Count a command, and let it pass."""
        context: CommandContext[Any] = current_context()
        if context.is_outermost and not context.chain.is_system:
            self._counts["commands"] += 1
            if not isinstance(command, Delivery):  # it shows as a message that was received
                self._tell("command", described(command), command=command)
        return await proceed()

    def _complete(self, operation: Operation) -> None:
        self._counts["operations"] += 1
        command = operation.command
        root = operation.uuid
        if isinstance(command, Delivery):
            root = command.meta.attributes.get("causationid", root)
            self._roots[operation.uuid] = root
            if len(self._roots) > 10 * _NEWS:
                self._roots.popitem(last=False)
        for each in self._news:
            if each.command is command and command is not None:
                each.operation = root
        self._tell("operation", type(command).__qualname__ if command else "Setting up", root)

    def _publish(self, published: PublishedMessage) -> None:
        if published.result.is_confirmed:
            self._counts["published"] += 1
            message = published.message
            text = event_text(message.type, message.body)
            self._tell("publish", text, message.attributes.get("causationid", ""))

    def _handle(self, handled: HandledMessage) -> None:
        outcome, message = handled.outcome, handled.message
        if outcome != "retried":
            self._counts["received"] += 1
        if outcome in _COUNTED:
            self._counts[_COUNTED[outcome]] += 1
        text = event_text(message.attributes.get("type", "Something"), message.body)
        self._tell(_OUTCOMES[outcome], text, message.attributes.get("causationid", ""))


# -- words


def shown(what: str) -> str:
    """The name of a result, by the contract: "Orders.get(1)" rather than "DbOrders.get(1)"."""
    return re.sub(r"^(Db|Computed)", "", what)


def described(command: object) -> str:
    """A command in a few words: "PutIntoBasket alice cake 2"."""
    fields: Mapping[str, Any] = msgspec.structs.asdict(command)  # type: ignore[arg-type]
    values = [str(value) for name, value in fields.items() if name != "id" and value != ""]
    return " ".join([type(command).__qualname__, *values])[:80]


def event_text(kind: str, body: bytes) -> str:
    """An event in a few words: "OrderPlaced #17"."""
    name = re.sub(r"\.v\d+$", "", kind).rpartition(".")[2].title().replace("_", "")
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return f"{name}, unreadable"
    if not isinstance(fields, dict):
        return name
    if "order_id" in fields:
        return f"{name} #{fields['order_id']}"
    return f"{name} {fields['product']}" if "product" in fields else name
