"""Commands as a kind of RPC: how their methods are recognized, served, and called.

On the wire they are plain calls. What comes in is handled by the commander that the service was
added to, as a command on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from afresh.rpc.contracts import CallKind, Timeouts
from afresh.rpc.formats.open_types import open_base
from afresh.rpc.inbound import ServedMethod
from afresh.rpc.kinds import CallSupport
from afresh.rpc.peer import current_peer
from afresh.rpc.routes import Routes

from .command import BackendCommand
from .context import current
from .handler import CommandHandler, commander_of

if TYPE_CHECKING:
    from afresh.rpc.contracts import MethodDefinition
    from afresh.rpc.formats import Format
    from afresh.rpc.hub import RpcHub
    from afresh.rpc.peer import Peer

__all__ = ["COMMAND", "CommandCalls", "CommandKind"]


class CommandKind(CallKind):
    """Calls of command handlers."""

    id = 0
    name = "command"
    timeouts: Timeouts = Timeouts(connect=1.5, run=10)
    backend_timeouts: Timeouts = Timeouts(connect=300, run=300)

    def function_of(self, attribute: object) -> Callable[..., Any] | None:
        if isinstance(attribute, CommandHandler):
            return attribute.definition.function
        return None

    def is_backend_only(self, types: Sequence[Any]) -> bool:
        command_type = open_base(types[0]) or types[0]
        return isinstance(command_type, type) and issubclass(command_type, BackendCommand)


COMMAND: CallKind = CommandKind()


class CommandCalls(CallSupport):
    """Makes and serves calls of command handlers: ``RpcHub(kinds=(CommandCalls(),))``."""

    kind: CallKind = COMMAND

    def served(
        self, hub: RpcHub, definition: MethodDefinition, implementation: object, format: Format
    ) -> ServedMethod:
        function = definition.of(implementation)  # of a remote one, which is passed on to

        async def handle(command: Any) -> Any:
            if command is None:
                raise ValueError(f"{definition.wire_name} was called without a command.")
            if isinstance(command, BackendCommand) and not current_peer().is_backend:
                raise PermissionError(
                    f"{type(command).__qualname__} is a backend command, and needs a backend peer."
                )
            commander = commander_of(implementation)
            if commander is not None:
                return await commander.call_here(command)
            return await function(command)

        return ServedMethod(definition, handle, format, hub.records)

    def attach(self, service: Any, definition: MethodDefinition, to: Peer | Routes) -> None:
        if isinstance(to, Routes) and to.local is not None:
            here = SimpleNamespace(**{definition.name: _here(service, definition, to.local)})
            to = Routes(
                to.hub,
                to.router,
                default=to.default,
                local=here,
                format=to.format,
                delays=to.delays,
            )
        super().attach(service, definition, to)


def _here(service: object, definition: MethodDefinition, local: object) -> Callable[..., Any]:
    """Return what handles commands of a routed service that turn out to be for this process.

    One that the commander sent out goes on with the filters that it has not been through.
    """

    async def handle(command: Any) -> Any:
        context = current.get()
        if context is not None and context.command is command:
            final = context.chain.final
            if final is not None and final.is_remote and final.service is service:
                return await context.chain.resume(context)
        return await definition.of(local)(command)

    return handle
