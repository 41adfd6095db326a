"""`Commander`: takes commands to their handlers.

Each command is handled in a context of its own: what a handler does to context variables never
reaches its caller, and what the caller has set reaches nested commands only.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from afresh.errors import DefinitionError, HandlerNotFoundError, InvalidStateError
from afresh.primitives.freshness import note_freshness
from afresh.primitives.result import Result
from afresh.primitives.stepping import rest_of

from . import telemetry
from .chain import Chain, Handler, chain_of, handlers_of
from .command import CommandOf
from .context import CommandContext, current
from .handler import join
from .registry import CommandRegistry

__all__ = ["Commander", "HandlerFilter"]

T = TypeVar("T")
S = TypeVar("S")

_log = logging.getLogger("afresh.commands")

HandlerFilter: TypeAlias = Callable[[Handler, type], bool]
"""Says whether a handler takes part in handling commands of a type."""


class Commander:
    """Takes commands to their handlers, through all filters.

    Args:
        handler_filters: leave out handlers; all must agree to one for it to take part.
        capture_payload: whether spans tell the command itself, as its `repr` shows it.

    Example:
        ```python
        commander = Commander()
        orders = commander.add(MemoryOrders())
        order = await commander.call(PlaceOrder("u1", lines))
        ```
    """

    def __init__(
        self, *, handler_filters: Sequence[HandlerFilter] = (), capture_payload: bool = False
    ) -> None:
        self.registry: CommandRegistry = CommandRegistry()
        self.capture_payload: bool = capture_payload
        self.is_closed: bool = False
        self._handler_filters = tuple(handler_filters)
        self._services: dict[int, object] = {}
        self._handlers: dict[type, list[Handler]] = {}
        self._chains: dict[type, Chain] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._recorder, self._look_in = telemetry.look()

    # -- what handles

    def add(self, service: S, *, name: str | None = None) -> S:
        """Let a service handle the commands that its methods are for.

        A remote service can be added as well: its commands are sent to where it lives. Adding a
        service again does nothing.

        Args:
            service: an object with methods that are `command_handler` or `command_filter`; it may
                have none.
            name: what it is called in the ids of handlers; its class unless given.

        Returns:
            `service`.

        Raises:
            DefinitionError: a handler can't work, or not together with those that are there; says
                which and why. Nothing of the service is added then.
        """
        if id(service) in self._services:
            return service
        found = list(handlers_of(service, name))
        if not found:
            return service
        handlers = {kind: list(each) for kind, each in self._handlers.items()}
        for handler in found:
            handlers.setdefault(handler.command_type, []).append(handler)
        _check(handlers)
        self.registry.add(*(handler.command_type for handler in found if not handler.is_filter))
        owned = [it for it in found if not it.is_filter and it.owner is not None]
        if owned:
            declared = [it.definition for it in owned if it.definition is not None]
            join(owned[0].owner, self, declared)
        self._services[id(service)] = service
        self._handlers = handlers
        self._chains.clear()
        return service

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """All handlers and filters, in the order in which they were added."""
        return tuple(handler for each in self._handlers.values() for handler in each)

    def chain_of(self, command_type: type) -> Chain:
        """Return what commands of a type go through.

        Raises:
            DefinitionError: it is no type of commands, or more than one handler is for it.
        """
        found = self._chains.get(command_type)
        if found is None:
            found = self._chains[command_type] = chain_of(
                command_type, self._filtered(command_type)
            )
        return found

    def _filtered(self, command_type: type) -> dict[type, list[Handler]]:
        if not self._handler_filters:
            return self._handlers
        return {
            kind: [
                handler
                for handler in each
                if all(accepts(handler, command_type) for accepts in self._handler_filters)
            ]
            for kind, each in self._handlers.items()
        }

    def forget_chains(self) -> None:
        """Work out anew what commands go through: what a filter says of its part has changed."""
        self._chains.clear()

    # -- calls

    def call(
        self,
        command: CommandOf[T],
        *,
        outermost: bool = False,
        chain: str | None = None,
        items: Mapping[Any, Any] | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Handle a command, and return its result; await it.

        Called in a handler, it is nested: it shares what the outermost command has. If not, or if
        `outermost` says so, it is on its own and inherits no context variables.

        Args:
            command: the command.
            outermost: whether it is on its own even in a handler.
            chain: of an event, the id of the only handler to take it.
            items: what its context holds from the start; only for commands on their own that have
                one handler.

        Returns:
            What the handler returns, None of an event.

        Raises:
            HandlerNotFoundError: nothing handles the command.
            Exception: what the handler or a filter raised.
        """
        if outermost or chain is not None or items is not None:
            context = self._context(command, outermost, chain)
            context.caller = current.get()
            if items is not None:
                context.items.update(items)
            return self._handle(context)
        # The same, with fewer steps.
        kind = type(command)
        found = self._chains.get(kind) or self.chain_of(kind)
        outer = current.get()
        if outer is not None and self._is_apart(found, outer):
            context = CommandContext(self, command, found)
            context.caller = outer
            return self._handle(context)
        return self._handle(CommandContext(self, command, found, outer))

    async def run(
        self, command: CommandOf[T], *, outermost: bool = False, chain: str | None = None
    ) -> CommandContext[T]:
        """Handle a command, and return its context, with the `result` or the error in it.

        Args:
            command: the command.
            outermost: whether it is on its own even in a handler.
            chain: of an event, the id of the only handler to take it.

        Raises:
            asyncio.CancelledError: the task that waits here was cancelled.
        """
        context: CommandContext[T] = self._context(command, outermost, chain)
        task = asyncio.current_task()
        cancellations = task.cancelling() if task is not None else 0
        try:
            context._result = Result.ok(await self._handle(context))
        except asyncio.CancelledError as error:
            if task is None or task.cancelling() > cancellations:
                raise
            context._result = Result.err(error)
        except Exception as error:
            context._result = Result.err(error)
        return context

    def start(self, command: CommandOf[T], *, chain: str | None = None) -> asyncio.Task[T]:
        """Begin to handle a command in the background; it is always on its own.

        The commander keeps the task until it is done. If the command fails that is logged, whether
        or not somebody awaits the task.

        Args:
            command: the command.
            chain: of an event, the id of the only handler to take it.

        Raises:
            InvalidStateError: the commander was closed.
            RuntimeError: no event loop is running.
        """
        if self.is_closed:
            raise InvalidStateError("The commander was closed: it starts no commands any more.")
        loop = asyncio.get_running_loop()
        work = self._handle(self._context(command, True, chain))
        # Not by the loop: one that makes eager tasks would begin here and now. The caller's
        # context, for the trace: commands that are on their own take nothing else from it.
        task = asyncio.Task(work, loop=loop, name=f"afresh command {type(command).__qualname__}")
        self._tasks.add(task)
        task.add_done_callback(self._note_done, context=contextvars.Context())
        return task

    def call_here(self, command: CommandOf[T]) -> Coroutine[Any, Any, T]:
        """Handle a command on its own, in the context that the caller runs in.

        For those who made a context for this one call already, as RPC does.
        """
        return self._handle(self._context(command, True, None), is_here=True)

    def _context(
        self, command: CommandOf[T], outermost: bool, branch: str | None
    ) -> CommandContext[T]:
        kind = type(command)
        chain = self._chains.get(kind) or self.chain_of(kind)
        if branch is not None:
            chosen = (chain.branches or {}).get(branch)
            if chosen is None:
                raise HandlerNotFoundError(
                    f"{branch!r} is no handler of {kind.__qualname__}; those that take it are: "
                    f"{', '.join(chain.branches or ()) or 'none'}."
                )
            chain = chosen
        outer = None if outermost else current.get()
        if outer is not None and self._is_apart(chain, outer):
            outer = None
        return CommandContext(self, command, chain, outer)

    def _is_apart(self, chain: Chain, outer: CommandContext[Any]) -> bool:
        """Whether a command is on its own although it is called in the handler of another."""
        return (
            chain.is_outermost
            or outer.is_completed
            or outer.commander is not self
            or outer.chain.is_delegating
        )

    async def _handle(self, context: CommandContext[Any], *, is_here: bool = False) -> Any:
        chain = context.chain
        if chain.branches is not None:
            return await self._fan_out(context, chain.branches, is_here)
        if is_here:
            ambient = None
        elif context.outer is None:
            ambient = contextvars.Context()
        else:  # a copy: what is set in it stays in it
            ambient = contextvars.copy_context()
        if self._look_in:
            self._look_in -= 1
            if not self._look_in:
                self._recorder, self._look_in = telemetry.look()
        recording = None if self._recorder is None else self._recorder.begin(context, ambient)
        failure: BaseException | None = None
        try:
            if ambient is None:
                current.set(context)
                result = await chain.start(context)
            else:
                try:
                    coroutine, yielded = ambient.run(_first_step, context)
                except StopIteration as stop:
                    result = stop.value
                else:
                    result = await rest_of(coroutine, yielded, ambient)
            if context._stack is not None:
                await _step(context._stack.aclose(), ambient)
            if context.freshness:
                note_freshness(context.freshness)
            return result
        except BaseException as error:
            failure = error
            if context._stack is not None:
                end = context._stack.__aexit__(type(error), error, error.__traceback__)
                await _step(end, ambient)
            raise
        finally:
            context.is_completed = True
            context.caller = None
            if recording is not None:
                recording.end(failure)
            if failure is not None:
                _log_failure(context, failure)
                failure = None  # its traceback leads here

    async def _fan_out(
        self,
        context: CommandContext[Any],
        branches: Mapping[str, Chain],
        is_here: bool,
    ) -> None:
        if not branches:
            _log.warning("No handler takes the event %s.", type(context.command).__qualname__)
        work = []
        for branch in branches.values():
            inner = CommandContext(self, context.command, branch, context.outer)
            work.append(self._handle(inner, is_here=is_here))
        try:
            # All are waited for, whatever becomes of the first.
            for result in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        finally:
            context.is_completed = True

    # -- life

    def _note_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # logged already, and not to be reported as never retrieved

    async def aclose(self) -> None:
        """Cancel the commands that were started here, and wait for them to end."""
        self.is_closed = True
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def __repr__(self) -> str:
        return f"<Commander of {len(self._services)} services, {len(self.registry)} commands>"


def _first_step(context: CommandContext[Any]) -> tuple[Coroutine[Any, Any, Any], Any]:
    current.set(context)
    chain = context.chain
    function = chain.function
    coroutine = chain.start(context) if function is None else function(context.command)
    return coroutine, coroutine.send(None)


async def _step(coroutine: Coroutine[Any, Any, Any], ambient: contextvars.Context | None) -> None:
    if ambient is None:
        await coroutine
        return
    try:
        yielded = ambient.run(coroutine.send, None)
    except StopIteration:
        return
    await rest_of(coroutine, yielded, ambient)


def _check(handlers: Mapping[type, list[Handler]]) -> None:
    """Complain of what can't work together.

    Raises:
        DefinitionError: two handlers are for one command, or a filter comes after all handlers.
    """
    reached: set[Handler] = set()
    wanted: dict[Handler, Chain] = {}
    for command_type, own in handlers.items():
        if all(handler.is_filter for handler in own):
            continue
        chain = chain_of(command_type, handlers)
        for each in (chain, *(chain.branches or {}).values()):
            reached.update(each.filters)
        for base in command_type.__mro__:
            for handler in handlers.get(base, ()):
                if handler.is_filter and handler.when is None:
                    wanted.setdefault(handler, chain)
    for handler, chain in wanted.items():
        if handler not in reached:
            final = chain.final or next(iter((chain.branches or {}).values())).final
            raise DefinitionError(
                f"The filter {handler.id} is never reached: its priority, {handler.priority:g}, is "
                f"lower than that of {final!r}; give it a higher one."
            )


def _log_failure(context: CommandContext[Any], error: BaseException) -> None:
    if not isinstance(error, Exception) or getattr(error, "is_expected", False):
        return
    try:
        shown = repr(context.command)
    except Exception:
        shown = f"<{type(context.command).__qualname__}>"
    if context.is_outermost:
        _log.error("Outermost command failed: %s", shown, exc_info=error)
    else:
        _log.warning("Nested command failed: %s: %s", shown, type(error).__name__)
