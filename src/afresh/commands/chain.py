"""Which handlers a type of commands goes through, in which order: worked out once for each type.

Filters come first, by priority; where two are equal, the more general one is outermost. The handler
that is not a filter ends the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from afresh.errors import DefinitionError, HandlerNotFoundError
from afresh.rpc.contracts import ServiceDefinition
from afresh.rpc.formats.open_types import open_base
from afresh.rpc.routes import Routes
from afresh.rpc.signatures import Signature

from .command import (
    Delegating,
    EventCommand,
    Outermost,
    PreparedCommand,
    SystemCommand,
    check_command_type,
    result_type_of,
)
from .handler import CommandHandler, HandlerDefinition, filter_options
from .local import LocalCommand

if TYPE_CHECKING:
    from .context import CommandContext

__all__ = ["LOCAL_PRIORITY", "REMOTE_PRIORITY", "Chain", "Handler", "chain_of", "handlers_of"]

LOCAL_PRIORITY = 900_000_000.0
"""Filters of a lower priority do not see local commands."""
REMOTE_PRIORITY = 800_000_000.0
"""Filters of a lower priority run where the handler does, and not where a remote one is called."""

Work: TypeAlias = Coroutine[Any, Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """A method of a service that handles commands, or is put around that.

    Args:
        id: the name of the service and of the method.
        command_type: it is for commands of this class and of those derived from it.
        priority: its place, highest first.
        is_filter: whether it is put around others.
        function: takes the command, a filter also what goes on with it.
        service: the object.
        definition: the declaration; None of filters.
        is_remote: whether it calls another peer.
        local: what runs in place of that when the call turns out to be for this process.
        when: of a filter, whether it takes part in handling a type of commands by a handler.
    """

    id: str
    command_type: type
    priority: float
    is_filter: bool
    function: Callable[..., Work]
    service: object
    definition: HandlerDefinition | None = None
    is_remote: bool = False
    local: Callable[..., Work] | None = None
    when: Callable[[type, Handler | None], bool] | None = None

    @property
    def owner(self) -> object | None:
        """The object of this process whose method it is; None where that is elsewhere."""
        return getattr(self.local, "__self__", None) if self.is_remote else self.service

    def __repr__(self) -> str:
        return f"<{'filter' if self.is_filter else 'handler'} {self.id} {self.priority:g}>"


class Chain:
    """What commands of one type go through.

    Args:
        command_type: the type.
        filters: what is put around the handler, the first one outermost.
        final: the handler; None where there is none.
        branches: of an event, the chain of each of its handlers by its id.
    """

    __slots__ = (
        "branches",
        "command_type",
        "filters",
        "final",
        "function",
        "is_delegating",
        "is_event",
        "is_local",
        "is_outermost",
        "is_prepared",
        "is_system",
        "stop",
    )

    def __init__(
        self,
        command_type: type,
        filters: tuple[Handler, ...] = (),
        final: Handler | None = None,
        branches: Mapping[str, Chain] | None = None,
    ) -> None:
        self.command_type: type = command_type
        self.filters: tuple[Handler, ...] = filters
        self.final: Handler | None = final
        self.branches: Mapping[str, Chain] | None = branches
        self.is_event: bool = issubclass(command_type, EventCommand)
        self.is_outermost: bool = issubclass(command_type, Outermost)
        self.is_delegating: bool = issubclass(command_type, Delegating)
        self.is_system: bool = issubclass(command_type, SystemCommand)
        self.is_prepared: bool = issubclass(command_type, PreparedCommand)
        self.is_local: bool = issubclass(command_type, LocalCommand)
        lowest = None
        if self.is_local:
            lowest = LOCAL_PRIORITY
        elif final is not None and final.is_remote:
            lowest = REMOTE_PRIORITY
        self.stop: int = (
            len(filters)
            if lowest is None
            else sum(handler.priority > lowest for handler in filters)
        )
        """How many filters come before the handler; more where it turns out to be local."""
        self.function: Callable[..., Work] | None = (
            final.function if final is not None and not self.stop and not self.is_prepared else None
        )
        """The handler where there is nothing else to do."""

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """All that commands go through."""
        return self.filters if self.final is None else (*self.filters, self.final)

    def start(self, context: CommandContext[Any]) -> Work:
        """Return a coroutine that handles the command of a context."""
        if self.function is not None:
            return self.function(context.command)
        if self.is_prepared:
            return self._prepare(context)
        return self._go_on(context, 0)

    async def _prepare(self, context: CommandContext[Any]) -> Any:
        command: Any = context.command
        prepared = await command.prepare(context)
        if prepared is not None:
            if type(prepared) is not type(command):
                raise TypeError(
                    f"{type(command).__qualname__}.prepare() returned a "
                    f"{type(prepared).__qualname__}; it returns a command of its own type, or None."
                )
            context.command = prepared
        return await self._go_on(context, 0)

    def resume(self, context: CommandContext[Any]) -> Work:
        """Return a coroutine that handles in this process what could have gone to another."""
        return self._go_on(context, self.stop, here=True)

    def _go_on(self, context: CommandContext[Any], index: int, *, here: bool = False) -> Work:
        context.check_active()
        if index < (len(self.filters) if here else self.stop):
            return self.filters[index].function(
                context.command, partial(self._go_on, context, index + 1, here=here)
            )
        final = self.final
        if final is None:
            if self.is_local:
                command: Any = context.command
                work: Work = command.run(context)
                return work
            raise HandlerNotFoundError(
                f"Nothing handles {self.command_type.__qualname__}: add a service with a "
                "@command_handler for it to the commander."
            )
        if here and final.local is not None:
            return final.local(context.command)
        return final.function(context.command)

    def __repr__(self) -> str:
        shown = (*self.handlers, *(self.branches or ()))
        return f"<Chain of {self.command_type.__qualname__}: {shown}>"


def chain_of(command_type: type, handlers: Mapping[type, list[Handler]]) -> Chain:
    """Return what commands of a type go through.

    Args:
        command_type: the type.
        handlers: all there are, by the type that they are for.

    Raises:
        DefinitionError: it is no type of commands, or more than one handler is for it.
    """
    check_command_type(command_type)
    found = [
        (-handler.priority, not handler.is_filter, -distance, handler)
        for distance, base in enumerate(command_type.__mro__)
        for handler in handlers.get(base, ())
    ]
    found.sort(key=lambda each: each[:3])
    ordered = [handler for *_, handler in found]
    finals = [handler for handler in ordered if not handler.is_filter]
    if issubclass(command_type, EventCommand):
        branches = {
            final.id: Chain(command_type, _filters_before(final, ordered, command_type), final)
            for final in finals
        }
        if len(branches) < len(finals):
            raise DefinitionError(
                f"Two handlers of {command_type.__qualname__} have the same id: "
                f"{', '.join(handler.id for handler in finals)}; name their services apart: "
                "commander.add(service, name=…)."
            )
        return Chain(command_type, branches=branches)
    if issubclass(command_type, LocalCommand) and finals:
        raise DefinitionError(
            f"{finals[0].id} is for {command_type.__qualname__}, a local command, which carries "
            "its own work; derive it from Command to have a handler for it."
        )
    if len(finals) > 1:
        names = " and ".join(handler.id for handler in finals)
        raise DefinitionError(
            f"{names} both handle {command_type.__qualname__}. A command has one handler; mark it "
            "as an EventCommand if several are to take it."
        )
    final = finals[0] if finals else None
    return Chain(command_type, _filters_before(final, ordered, command_type), final)


def _filters_before(
    final: Handler | None, ordered: list[Handler], command_type: type
) -> tuple[Handler, ...]:
    end = len(ordered) if final is None else ordered.index(final)
    return tuple(
        handler
        for handler in ordered[:end]
        if handler.is_filter and (handler.when is None or handler.when(command_type, final))
    )


# -- what a service has


def handlers_of(service: object, name: str | None = None) -> Iterator[Handler]:
    """Yield the handlers and filters of a service.

    Args:
        service: the object, which may be a remote one.
        name: what it is called in the ids of handlers; its class unless given.

    Raises:
        DefinitionError: one of them can't work; says which and why.
    """
    to = _target_of(service)
    local = to.local if isinstance(to, Routes) else None
    source = service if local is None else local
    kind = type(source)
    lineages: dict[str, list[tuple[type, Any]]] = {}
    for base in kind.__mro__:
        for attribute_name, attribute in vars(base).items():
            lineages.setdefault(attribute_name, []).append((base, attribute))
    title = name or type(service).__name__
    for attribute_name, lineage in lineages.items():
        owner, attribute = lineage[0]
        identity = f"{title}.{attribute_name}"
        declared = next((it for _, it in lineage if isinstance(it, CommandHandler)), None)
        if declared is not None:
            if attribute is not declared:
                raise DefinitionError(
                    f"{owner.__qualname__}.{attribute_name} overrides the command handler "
                    f"{declared.definition.qualified_name} without being one; repeat "
                    "@command_handler, or derive the class from ComputeService."
                )
            if attribute_name != declared.definition.name:
                continue  # an alias
            yield _handler(service, local, declared, identity, owner, is_remote=to is not None)
            continue
        priority, when = next(
            (found for _, it in lineage if (found := filter_options(it)) is not None), (None, None)
        )
        if priority is not None and (to is None or local is not None):
            signature = Signature(attribute, identity, contract=kind, owner=owner)
            yield Handler(
                identity,
                _filtered_type(signature.types[0], identity),
                priority,
                is_filter=True,
                function=getattr(source, attribute_name),
                service=source,
                when=None if when is None else when.__get__(source),
            )


def _target_of(service: object) -> object | None:
    """What a remote service calls; None of a service of this process."""
    remote = getattr(service, "_remote", None)
    if isinstance(remote, tuple) and remote and isinstance(remote[0], ServiceDefinition):
        target: object = remote[1]
        return target
    return None


def _handler(
    service: object,
    local: object,
    declared: CommandHandler[Any, Any],
    identity: str,
    owner: type,
    *,
    is_remote: bool,
) -> Handler:
    definition = declared.definition
    signature = Signature(
        definition.function, identity, contract=type(local or service), owner=owner
    )
    command_type = signature.types[0]
    command_type = open_base(command_type) or command_type
    check_command_type(command_type, f"{identity} takes ")
    result = result_type_of(command_type)
    if _contradict(result, signature.result):
        raise DefinitionError(
            f"{identity} returns {_shown(signature.result)}, and {command_type.__qualname__} says "
            f"that it results in {_shown(result)}; make the two agree."
        )
    own = definition.function.__get__
    return Handler(
        identity,
        command_type,
        definition.priority,
        is_filter=False,
        function=getattr(service, definition.name) if is_remote else own(service),
        service=service,
        definition=definition,
        is_remote=is_remote,
        local=None if local is None else own(local),
    )


def _filtered_type(annotation: Any, identity: str) -> type:
    if annotation is Any:
        return object
    if not isinstance(annotation, type):
        annotation = getattr(annotation, "__origin__", annotation)
    if not isinstance(annotation, type):
        raise DefinitionError(
            f"{identity} is a filter of {annotation!r}, which is no class; take a type of "
            "commands, a mark such as BackendCommand, or CommandOf[Any] for all commands."
        )
    return annotation


def _contradict(promised: Any, returned: Any) -> bool:
    """Whether two plain classes have nothing in common; other types are left to checkers."""
    if Any in {promised, returned} or not (
        isinstance(promised, type) and isinstance(returned, type)
    ):
        return False
    return not (issubclass(returned, promised) or issubclass(promised, returned))


def _shown(kind: Any) -> str:
    return "None" if kind is type(None) else str(getattr(kind, "__qualname__", kind))
