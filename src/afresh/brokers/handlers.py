"""`@on_event`: methods of services that handle the events of other services.

Each delivery is a command on its own, so that it has an operation, retries, and makes stale what it
changed on every host. The class of that command is made here, one for each method.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, overload

import msgspec

from afresh.commands import Command, CommandOf, HandlerDefinition
from afresh.commands.context import current
from afresh.commands.handler import CommandHandler, check_parameters
from afresh.errors import DefinitionError, InvalidStateError
from afresh.graph.service import ServiceMember
from afresh.rpc import rpc_method

from .events import EventType, event_type_of

__all__ = ["Delivery", "EventHandler", "EventMeta", "ServiceHandler", "current_event", "on_event"]

E = TypeVar("E")
S = TypeVar("S")


class EventMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an event beside its data: `current_event()` in its handler.

    Args:
        id: the name of the message; hand it on where effects are outside of the database.
        source: who published it.
        type: as it was published, with the version.
        group: as whom it was received.
        key: whose order it stands in.
        time: when it happened.
        deliveries: how often it was handed over, this time included.
        attributes: the further ones of its CloudEvent.
    """

    id: str
    source: str
    type: str
    group: str
    key: str | None = None
    time: datetime | None = None
    deliveries: int = 1
    attributes: dict[str, str] = {}


class Delivery(Command[None], frozen=True, kw_only=True):
    """A command that is the delivery of an event to one handler; there is a class for each."""

    meta: EventMeta


def current_event() -> EventMeta:
    """Return what is known of the event that is being handled here.

    Raises:
        InvalidStateError: none is.
    """
    context = current.get()
    while context is not None:
        if isinstance(context.command, Delivery):
            return context.command.meta
        context = context.outer
    raise InvalidStateError("current_event() is for handlers of events: none is handled here.")


@dataclass(frozen=True, slots=True)
class _Declared:
    function: Callable[..., Awaitable[Any]]
    event: type
    group: str
    mode: Literal["group", "broadcast"]
    workers: int | None
    ordered: bool


class EventHandler(ServiceMember, Generic[E]):
    """A method that handles events; on an instance it is the method itself."""

    declared: _Declared

    def __init__(self, declared: _Declared) -> None:
        function = declared.function
        self.declared = declared
        self.name: str = getattr(function, "__name__", "handler")
        self.own_invalidates: Callable[[Any, Any], object] | None = None
        self.__doc__ = function.__doc__
        self.__name__: str = self.name
        self.__wrapped__: Callable[..., Any] = function
        self.__isabstractmethod__: bool = bool(getattr(function, "__isabstractmethod__", False))
        rpc_method(served=False)(self)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.__name__ = name

    @overload
    def __get__(self, instance: None, owner: type) -> EventHandler[E]: ...
    @overload
    def __get__(
        self, instance: object, owner: type | None = None
    ) -> Callable[[E], Awaitable[None]]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return types.MethodType(self.declared.function, instance)

    def invalidates(self, function: Callable[[Any, E], None], /) -> Callable[[Any, E], None]:
        """Say what an event makes stale, as a decorator of a method of the same class.

        The method gets the event, and calls the compute methods whose results are not to be used
        any more. It runs once, when the handler has succeeded and before anything is committed.

        Raises:
            DefinitionError: the handler has such a method, or it does not take the event.

        Example:
            ```python
            @notify.invalidates
            def _(self, event: OrderPlaced) -> None:
                self.for_user(event.user_id)
            ```
        """
        title = f"{self.name}.invalidates"
        if self.own_invalidates is not None:
            raise DefinitionError(f"{title} is used twice; say all that goes stale in one method.")
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise DefinitionError(
                f"{title} decorates a plain 'def': what goes stale is called, not awaited."
            )
        check_parameters(function, title, ("event",))
        self.own_invalidates = function
        return function

    def adopt(self, owner: type, name: str, override: Any) -> None:
        if not inspect.iscoroutinefunction(override):
            raise DefinitionError(
                f"{owner.__qualname__}.{name} overrides a handler of events but is not declared "
                "with 'async def'."
            )
        declared = self.declared
        handler: EventHandler[Any] = EventHandler(
            _Declared(
                override,
                declared.event,
                declared.group,
                declared.mode,
                declared.workers,
                declared.ordered,
            )
        )
        handler.own_invalidates = self.own_invalidates
        setattr(owner, name, handler)
        handler.__set_name__(owner, name)

    def __repr__(self) -> str:
        return f"<handler {self.name} of {self.declared.event.__qualname__}>"


def on_event(
    event: type[E],
    *,
    group: str = "",
    mode: Literal["group", "broadcast"] = "group",
    workers: int | None = None,
    ordered: bool = True,
) -> Callable[[Callable[[S, E], Awaitable[None]]], EventHandler[E]]:
    """Have an async method handle the events of a type that other services publish.

    Events are handed over at least once. What the method changes in the app's database is changed
    exactly once, as it is committed together with the note that the event was handled.

    Args:
        event: the class; see `event` for what it is called.
        group: services of one group share the events, each group gets all of them; the name of the
            service unless given.
        mode: "broadcast" has every host get every event from now on, for what each keeps in memory;
            those that come while it is disconnected are missed, so what was computed by the service
            goes stale when it is connected again.
        workers: how many events are handled at once; as the app's broker says unless given.
        ordered: whether an event that failed holds up the later ones of its key.

    Raises:
        DefinitionError: the method can't handle events; says why.

    Example:
        ```python
        class Notifications(ComputeService):
            @on_event(OrderPlaced, group="notifications")
            async def notify(self, event: OrderPlaced) -> None:
                async with self.db.operation() as op: ...
        ```
    """

    def decorate(function: Any) -> EventHandler[E]:
        name = getattr(function, "__qualname__", repr(function))
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(f"{name} must be declared with 'async def' to handle events.")
        check_parameters(function, name, ("event",))
        return EventHandler(_Declared(function, event, group, mode, workers, ordered))

    return decorate


# -- on a service


@dataclass(frozen=True, slots=True)
class ServiceHandler:
    """A method of a service that handles events of one type.

    Args:
        id: the name of the service and of the method.
        service: the object.
        kind: the type of the events.
        group: as whom they are received.
        mode: whether each host gets them.
        workers: how many are handled at once, if that is said.
        ordered: whether one that failed holds up others.
        command_type: of the command that is a delivery.
        adapter: the service that handles that.
    """

    id: str
    service: object
    kind: EventType
    group: str
    mode: Literal["group", "broadcast"]
    workers: int | None
    ordered: bool
    command_type: type[Delivery]
    adapter: object

    def deliver(self, event: Any, meta: EventMeta) -> CommandOf[None]:
        """Return the command that hands over an event."""
        return self.command_type(meta=meta, event=event)  # type: ignore[call-arg]


def handlers_of(service: object, name: str) -> Iterator[ServiceHandler]:
    """Yield the handlers of events of a service.

    Args:
        service: the object.
        name: what it is called.
    """
    seen: set[str] = set()
    for base in type(service).__mro__:
        for attribute_name, attribute in vars(base).items():
            if attribute_name in seen:
                continue
            seen.add(attribute_name)
            if isinstance(attribute, EventHandler):
                yield _handler(service, name, attribute)


def _handler(service: object, name: str, handler: EventHandler[Any]) -> ServiceHandler:
    declared = handler.declared
    identity = f"{name}.{handler.name}"
    command_type: Any = msgspec.defstruct(
        identity,
        [("event", declared.event)],
        bases=(Delivery,),
        module=type(service).__module__,
        frozen=True,
        kw_only=True,
    )
    bound = types.MethodType(declared.function, service)

    async def handle(self: Any, command: Any) -> None:
        await bound(command.event)

    handle.__annotations__ = {"command": command_type, "return": None}
    handle.__qualname__ = identity
    definition = HandlerDefinition(handle)
    stale = handler.own_invalidates
    if stale is not None:
        definition.own_invalidates = lambda _, command, result: stale(service, command.event)
    adapter = type(name, (), {"handle": CommandHandler(definition), "service": service})()
    return ServiceHandler(
        identity,
        service,
        event_type_of(declared.event),
        declared.group or name,
        declared.mode,
        declared.workers,
        declared.ordered,
        command_type,
        adapter,
    )
