"""Runs one of the departments: its app, its page, and what it tells the backstage.

`python -m examples.shop department notification --broker nats://localhost:4222` starts one by hand,
wherever it reaches the broker; of the shop it needs nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from afresh import App, ComputedState, command_filter, connect
from afresh.brokers import Broker, ConsumerOptions, Delivery
from afresh.db import Database
from afresh.operations import OPERATIONS_PRIORITY
from afresh.primitives.delays import RetryDelays

from ..backstage.contracts import Board, Mischief
from ..backstage.reporter import Reporter
from ..places import KnownPlaces
from ..server import RELAY, SHARED, WEBSOCKETS
from . import analytics, inventory, notification

WEB = Path(__file__).with_name("web")

CONSUMER = ConsumerOptions(
    # Short pauses, for people who watch; and some failures of the demo last longer than a few.
    retries=RetryDelays.exponential(1, 5, 2, 0.2),
    deliveries=100,
    workers=4,
    drain=2,
)

_KINDS: dict[str, tuple[Any, Callable[[Database], Any]]] = {
    "notification": (notification.Base.metadata, notification.DbNotifications),
    "analytics": (analytics.Base.metadata, analytics.DbAnalytics),
    "inventory": (inventory.Base.metadata, inventory.DbInventory),
}


class OutOfOrder(ConnectionError):
    """What a department needs is away: it is told to fail, so that retries can be watched."""


class Failing:
    """Fails instead of the department, while that is told to."""

    def __init__(self) -> None:
        self.is_failing: Callable[[], bool] = lambda: False

    @command_filter(priority=OPERATIONS_PRIORITY + 1)
    async def fail(self, command: Delivery, proceed: Callable[[], Awaitable[None]]) -> None:
        if self.is_failing():
            raise OutOfOrder("What this department needs is away.")
        await proceed()


class Department(NamedTuple):
    """One of the departments, put together.

    Args:
        name: "notification", "analytics" or "inventory".
        app: with its database, its broker and its service.
        service: what it does.
        failing: makes it fail.
    """

    name: str
    app: App
    service: Any
    failing: Failing


def open_department(
    name: str, database_url: str, broker: str, *, consumer: ConsumerOptions = CONSUMER
) -> Department:
    """Put a department together.

    Args:
        name: which.
        database_url: where it keeps what it knows.
        broker: the address of what brings the events.
        consumer: how events are handled.
    """
    metadata, make = _KINDS[name]
    app = App(
        database=Database(database_url, metadata=metadata, create_tables=True),
        broker=Broker(broker, source=f"/{name}", relay=RELAY, consumer=consumer),
    )
    service = app.add(make(app.database))
    app.add(KnownPlaces())
    failing = app.commander.add(Failing())
    return Department(name, app, service, failing)


@asynccontextmanager
async def reporting(department: Department, backstage_url: str) -> AsyncIterator[None]:
    """Tell the backstage what happens, and fail when that says so; works without it as well."""
    name = department.name
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(backstage_url))
        mischief = client.service(Mischief)
        told = await stack.enter_async_context(
            ComputedState(lambda: mischief.is_failing(name), initial=False, delay=0)
        )
        department.failing.is_failing = lambda: told.last_value or False
        reporter = Reporter(
            name,
            name,
            department.app,
            [type(department.service).__name__],
            department.service.orders,
        )
        await stack.enter_async_context(reporter.reporting_to(client.service(Board)))
        yield


def department_app(department: Department, backstage_url: str | None) -> Starlette:
    """The ASGI app of a department: where its page connects, and the page."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if backstage_url is not None:
                await stack.enter_async_context(reporting(department, backstage_url))
            stack.push_async_callback(department.app.aclose)
            await department.app.start()
            yield

    asgi = department.app.asgi()
    asgi.router.routes += [
        Mount("/shared", StaticFiles(directory=SHARED)),
        Mount("/", StaticFiles(directory=WEB / department.name, html=True)),
    ]
    asgi.router.lifespan_context = lifespan
    return asgi


def serve_department(
    name: str, database_url: str, broker: str, *, host: str, port: int, backstage: str | None
) -> None:
    """Serve a department until the process is ended.

    Args:
        name: which.
        database_url: where it keeps what it knows.
        broker: the address of what brings the events.
        host: where to listen.
        port: where its page is.
        backstage: where the backstage can be reached; None for no such.
    """
    department = open_department(name, database_url, broker)
    print(f"{name.capitalize()}: http://{host}:{port}/", flush=True)
    uvicorn.run(
        department_app(department, backstage),
        host=host,
        port=port,
        log_level="warning",
        ws=WEBSOCKETS,
    )
