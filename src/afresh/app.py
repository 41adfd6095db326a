"""`App`: what a program is put together from.

It owns the hub through which others call its services, the commander and the database, and knows
which service of a contract is to be used here: one of its own, or one that lives elsewhere. It
starts them in order, and stops them in reverse. Services are plain objects; nothing is made for
you.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from afresh.commands import CommandCalls, Commander, CommandOf
from afresh.errors import DefinitionError, InvalidStateError
from afresh.operations import Freshness, Operations, RetryPolicy
from afresh.primitives.tasks import uncancelled
from afresh.remote.cache import RemoteCache, open_cache
from afresh.remote.kind import ComputeCalls
from afresh.rpc.exceptions import ExceptionPolicy
from afresh.rpc.hub import DEFAULT_FORMATS, RpcHub
from afresh.rpc.limits import Limits
from afresh.rpc.middleware import Middleware
from afresh.rpc.naming import PYTHON, NamingPolicy
from afresh.rpc.proxy import contract_of

if TYPE_CHECKING:
    from sqlalchemy import URL
    from starlette.applications import Starlette

    from afresh.brokers import Broker
    from afresh.db import Database
    from afresh.testing import Audit

__all__ = ["App"]

S = TypeVar("S")


class App:
    """A program made of services.

    Args:
        database: where the services keep their data: a `Database`, or its address.
        broker: how other services are told of events, and tell theirs: a `Broker`, or its address.
        naming: what Python names are on the wire; `DOTNET` for .NET and TypeScript clients.
        formats: the serialization formats that clients may ask for.
        limits: sizes and times.
        middleware: put around calls that come in, the first one outermost.
        expose_errors: send the texts of all errors to callers, not only of those that are meant
            for them.
        cache: a file, or a `RemoteCache`, for results of services that live elsewhere.
        retries: how often a command is tried again when its operation failed by something that may
            pass, such as a lost connection or a conflict of transactions.
        freshness_timeout: seconds that a call waits at most until this host has applied what the
            caller has changed on another one; then it is served with what is there.

    Example:
        ```python
        app = App(database="sqlite+aiosqlite:///shop.db")
        orders = app.add(DbOrders(app.database))
        asgi = app.asgi()  # uvicorn shop:asgi
        ```
    """

    def __init__(
        self,
        *,
        database: Database | URL | str | None = None,
        broker: Broker | str | None = None,
        naming: NamingPolicy = PYTHON,
        formats: Sequence[str] = DEFAULT_FORMATS,
        limits: Limits | None = None,
        middleware: Sequence[Middleware] = (),
        expose_errors: bool = False,
        cache: RemoteCache | str | Path | None = None,
        retries: RetryPolicy | None = None,
        freshness_timeout: float = 2,
    ) -> None:
        self._cache = open_cache(cache)
        self.hub: RpcHub = RpcHub(
            naming=naming,
            formats=formats,
            limits=limits,
            middleware=middleware,
            exceptions=ExceptionPolicy(expose_messages=expose_errors),
            kinds=(CommandCalls(), ComputeCalls(self._cache)),
        )
        self.commander: Commander = Commander()
        """Takes commands to their handlers."""
        self.operations: Operations = Operations(self.commander, retries=retries)
        """Lets commands happen wholly or not at all, and makes stale what they changed."""
        self.hub.gate = self.operations.freshness.gate(freshness_timeout)
        self._database = _open_database(database)
        if self._database is not None:
            self._database.attach(self.operations)
        self._broker = _open_broker(broker)
        if self._broker is not None:
            self._broker.attach(self.operations, self._database)
        self._services: dict[type, Any] = {}
        self._is_started = False

    @property
    def database(self) -> Database:
        """Where the services keep their data.

        Raises:
            InvalidStateError: the app was made without a database.
        """
        if self._database is None:
            raise InvalidStateError(
                'This app has no database: make it with one, App(database="sqlite+aiosqlite:///…").'
            )
        return self._database

    @property
    def broker(self) -> Broker:
        """What the app tells other services, and hears of them.

        Raises:
            InvalidStateError: the app was made without a broker.
        """
        if self._broker is None:
            raise InvalidStateError(
                'This app has no broker: make it with one, App(broker="amqp://…").'
            )
        return self._broker

    # -- services

    def add(
        self,
        service: S,
        *,
        contract: type | None = None,
        is_served: bool = True,
        name: str | None = None,
    ) -> S:
        """Take in a service, and let clients call it.

        A remote service can be added as well: then this program passes calls on, with its own graph
        in between.

        Args:
            service: the object.
            contract: the class that says what can be called; by default the abstract class that
                `service` implements, or its own class.
            is_served: False keeps it within this program.
            name: what it is called on the wire and in the log of operations, where it is not what
                the contract says.

        Returns:
            `service`.

        Raises:
            DefinitionError: the class can't be a contract, or there is a service for it already.
        """
        self.commander.add(service)
        contract = contract or contract_of(service)
        if self._services.setdefault(contract, service) is not service:
            raise DefinitionError(
                f"There is a service for {contract.__qualname__} already: "
                f"{self._services[contract]!r}."
            )
        if is_served:
            try:
                self.hub.serve(contract, service, name=name)
            except DefinitionError:
                del self._services[contract]
                raise
        self.operations.services.add(name or contract.__name__, service)
        if self._broker is not None:
            self._broker.add(service, name or contract.__name__)
        return service

    def service(self, contract: type[S], url: str | None = None, *, format: str = "msgpack6c") -> S:
        """Return the service to use for a contract: one that was added, or a remote one.

        Whoever uses it need not know which. A remote one must be asked for in a running event loop.

        Args:
            contract: the class.
            url: where it lives, if it was not added.
            format: how messages are written to there.

        Raises:
            LookupError: none was added, and no address was given.
        """
        found: S | None = self._services.get(contract)
        if found is not None:
            return found
        if url is None:
            raise LookupError(
                f"There is no service for {contract.__qualname__}: add() one, or say at which url "
                "it lives."
            )
        service = self.commander.add(self.hub.client_peer(url, format=format).service(contract))
        self.operations.services.add(contract.__name__, service)
        return service

    def call(self, command: CommandOf[S]) -> Coroutine[Any, Any, S]:
        """Handle a command, here or where its service lives, and return its result; await it.

        Called in a handler, it is nested: it shares what the outermost command has.

        Raises:
            HandlerNotFoundError: no service that was added, or asked for, handles such commands.
        """
        return self.commander.call(command)

    # -- life

    def asgi(self, **options: Any) -> Starlette:
        """Return an ASGI app that serves this program, to run or to mount into another one.

        It has "/rpc/ws", where clients connect, "/afresh/afresh.js", the module for browsers, and
        "/health". The options are those of `afresh.web.asgi_app`.

        Raises:
            ImportError: Starlette is not installed.
        """
        from afresh.web.asgi import asgi_app

        return asgi_app(self, **options)

    def health(self) -> dict[str, Any]:
        """Return how the program is.

        "status" is "ok" if all is well, "degraded" while logs can't be followed, so that this host
        does not hear of what others change, or while messages of the broker can't go out or come
        in, which stops no command, and "closed" once it was closed.
        """
        peers = self.hub.peers
        health: dict[str, Any] = {
            "status": "closed" if self.hub.is_closed else "ok",
            "peers": {
                "known": len(peers),
                "connected": sum(peer.is_connected for peer in peers),
            },
            "operations": self.operations.health(),
        }
        if self._database is not None:
            health["database"] = self._database.health()
            if self._database.error is not None and health["status"] == "ok":
                health["status"] = "degraded"
        if self._broker is not None:
            health["broker"] = self._broker.health()
            if self._broker.error is not None and health["status"] == "ok":
                health["status"] = "degraded"
        return health

    async def audit(self, **options: Any) -> Audit:
        """Compute every cached result of the app's services once more, and name each that is stale.

        The options are those of `afresh.testing.audit`.

        Example:
            ```python
            audit = await app.audit()
            assert not audit.stale
            ```
        """
        from afresh.testing.audit import audit

        return await audit(*self._services.values(), **options)

    async def wait_until_fresh(self, token: str, timeout: float = 2) -> bool:
        """Wait until this host has applied what a token tells of, and knows of nothing older.

        Clients of `connect()` do it by themselves. For others, such as a plain HTTP API:
        `current_operation().freshness` is what a command's answer would carry, as a text.

        Args:
            token: what an answer carried, of whatever host.
            timeout: seconds to wait at most.

        Returns:
            Whether it is applied.

        Raises:
            ValueError: it is no token.
        """
        return await self.operations.freshness.wait(Freshness.parse(token), timeout)

    async def start(self) -> None:
        """Begin to follow what other hosts commit; `async with app` and `asgi()` do it.

        Raises:
            SchemaError: the database lacks tables, or they are not as they must be.
        """
        if self._is_started:
            return
        self.operations.start()
        if self._database is not None:
            await self._database.start()
        if self._broker is not None:
            try:
                await self._broker.start()
            except BaseException:
                await uncancelled(self.aclose())
                raise
        self._is_started = True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all connections, and what runs for them; commands that were started are cancelled."""
        if self._broker is not None:
            await self._broker.aclose()
        await self.commander.aclose()
        await self.hub.aclose()
        if self._cache is not None:
            await self._cache.aclose()
        if self._database is not None:
            await self._database.aclose()

    def __repr__(self) -> str:
        names = ", ".join(contract.__name__ for contract in self._services)
        return f"<App of {names or 'nothing yet'}>"


def _open_database(database: Database | URL | str | None) -> Database | None:
    if database is None:
        return None
    try:
        from afresh.db import Database
    except ImportError as error:
        raise ImportError("App(database=…) needs SQLAlchemy: pip install 'afresh[db]'.") from error
    return database if isinstance(database, Database) else Database(database)


def _open_broker(broker: Broker | str | None) -> Broker | None:
    if broker is None:
        return None
    from afresh.brokers import Broker

    return broker if isinstance(broker, Broker) else Broker(broker)
