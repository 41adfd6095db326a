"""Commands: values that say what is to be done, and the pipeline that sees to it."""

from afresh.primitives.secrets import Secret

from .chain import LOCAL_PRIORITY, REMOTE_PRIORITY, Chain, Handler
from .command import (
    BackendCommand,
    Command,
    CommandOf,
    Delegating,
    EventCommand,
    Outermost,
    PreparedCommand,
    SystemCommand,
    aliases_of,
    command,
    result_type_of,
    tag_of,
)
from .commander import Commander, HandlerFilter
from .context import CommandContext, current_context
from .handler import (
    BoundCommandHandler,
    CommandHandler,
    HandlerDefinition,
    command_filter,
    command_handler,
    commander_of,
)
from .kind import COMMAND, CommandCalls, CommandKind
from .local import LocalCommand, local_command
from .registry import CommandRegistry

__all__ = [
    "COMMAND",
    "LOCAL_PRIORITY",
    "REMOTE_PRIORITY",
    "BackendCommand",
    "BoundCommandHandler",
    "Chain",
    "Command",
    "CommandCalls",
    "CommandContext",
    "CommandHandler",
    "CommandKind",
    "CommandOf",
    "CommandRegistry",
    "Commander",
    "Delegating",
    "EventCommand",
    "Handler",
    "HandlerDefinition",
    "HandlerFilter",
    "LocalCommand",
    "Outermost",
    "PreparedCommand",
    "Secret",
    "SystemCommand",
    "aliases_of",
    "command",
    "command_filter",
    "command_handler",
    "commander_of",
    "current_context",
    "local_command",
    "result_type_of",
    "tag_of",
]
