"""What happens once an operation is committed: here, what it made stale goes stale.

The host that executed it does so before the call returns. The others are told by the log; what they
could not apply is tried again by whoever reads that, and given up in the safest way: by making
everything stale.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.json import decode as decode_json

from afresh.commands import CommandContext, Commander
from afresh.commands.chain import Chain
from afresh.commands.context import current
from afresh.errors import HandlerNotFoundError
from afresh.graph.registry import invalidate_everything
from afresh.graph.scopes import invalidating
from afresh.primitives.clock import current_clock
from afresh.primitives.delays import RetryDelays
from afresh.primitives.tasks import start_background

from .codec import LogCodec
from .effects import Replay, apply_calls, decode_effects, run_replay
from .operation import OPERATION, Operation, Slot
from .services import Services

if TYPE_CHECKING:
    from .logged import LoggedOperation

__all__ = ["Changes", "Completion"]

_log = logging.getLogger("afresh.operations")

_SEEN = 16_384
_SEEN_SECONDS = 15 * 60
_REPLAY_DELAYS = RetryDelays.exponential(0.25, 1, 2)
_REPLAYS = 5


class Changes(Protocol):
    """What knows which results were read from the rows of a database."""

    def apply(self, changes: Any, cause: str) -> None:
        """Make the results stale that changes touch, as `Effects.changes` holds them."""
        ...


class Completion:
    """Applies what operations made stale, on this host.

    Args:
        commander: finds the handlers that say what is stale themselves.
        services: the names of compute methods.
        codec: reads commands.
        host_id: of this host.
    """

    def __init__(
        self, commander: Commander, services: Services, codec: LogCodec, host_id: str
    ) -> None:
        self.commander: Commander = commander
        self.services: Services = services
        self.codec: LogCodec = codec
        self.host_id: str = host_id
        self.changes: Changes | None = None
        """What follows changes in tables, if a database tracks them."""
        self.own: int = 0
        """How many operations of this host were completed."""
        self.foreign: int = 0
        """How many of other hosts were applied."""
        self.failed: int = 0
        """How many attempts to apply one, or a part of one, failed."""
        self.abandoned: int = 0
        """How many could not be applied at all, so that everything was made stale."""
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._listeners: list[Callable[[Operation], object]] = []

    def on_completed(self, listener: Callable[[Operation], object]) -> Callable[[], None]:
        """Have a function called with each operation that this host has committed.

        Returns:
            A function that ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- this host's own

    def complete(self, operation: Operation) -> None:
        """Make stale what an operation of this host made stale; raises nothing."""
        self.own += 1
        self._apply_own(operation)
        for listener in self._listeners:
            try:
                listener(operation)
            except Exception:
                _log.exception("%r failed with %r.", listener, operation)

    def suspect(self, operation: Operation) -> None:
        """Make stale what an operation of this host made stale if it was committed, which is not
        known; raises nothing.
        """
        self._apply_own(operation)

    def _apply_own(self, operation: Operation) -> None:
        effects = operation.whole.effects
        if effects:
            cause = _cause(operation.command, operation.uuid)
            effects.apply(cause)
            if effects.changes is not None and self.changes is not None:
                self.changes.apply(effects.changes, cause)
            for each in effects.replays:
                try:
                    self._replay(each, cause)
                except Exception:
                    self.failed += 1
                    _log.exception("%r could not say what is stale; it is asked again.", each)
                    start_background(
                        self._replay_again(each, cause),
                        name=f"replay of {type(each.command).__qualname__}",
                    )

    async def _replay_again(self, each: Replay, cause: str) -> None:
        for attempt in range(1, _REPLAYS):
            await current_clock().sleep(_REPLAY_DELAYS[attempt])
            try:
                self._replay(each, cause)
                return
            except Exception as error:
                self.failed += 1
                failure = error
        self._give_up(f"{type(each.command).__qualname__} of this host", failure)

    # -- those of other hosts

    async def apply(self, logged: LoggedOperation) -> None:
        """Make stale what an operation of another host made stale; once for each uuid.

        Raises:
            LogDecodeError: it can't be read here.
            Exception: a handler could not say what is stale.
        """
        if logged.host_id == self.host_id or not self._is_new(logged.uuid):
            return
        if logged.effects is not None:
            try:
                self._apply(logged.effects, logged.uuid, logged.host_id)
            except BaseException:
                self.failed += 1
                del self._seen[logged.uuid]
                raise
        self.foreign += 1

    def _apply(self, text: str, uuid: str, host_id: str) -> None:
        data = decode_effects(text)
        cause = f"operation {uuid} of {host_id}"
        apply_calls(data, self.services, cause)
        if self.changes is not None:
            changes = decode_json(data.changes)
            if changes is not None:
                self.changes.apply(changes, cause)
        for command, chain, items in data.replays:
            self._replay(Replay(self.codec.decode(command), chain, items), cause)

    def abandon(self, logged: LoggedOperation, error: BaseException | None = None) -> None:
        """Give up an operation that can't be applied: everything is stale then."""
        self._give_up(f"operation {logged.uuid} of {logged.host_id}", error)

    def lost_coverage(self, what: str) -> None:
        """Operations were missed, and nobody knows which: everything is stale then."""
        self._give_up(what, None)

    def _give_up(self, what: str, error: BaseException | None) -> None:
        self.abandoned += 1
        _log.error(
            "%s could not be applied, so all results on this host are made stale.",
            what,
            exc_info=error,
        )
        invalidate_everything()

    def _is_new(self, uuid: str) -> bool:
        now = current_clock().now()
        seen = self._seen
        while seen:
            oldest, at = next(iter(seen.items()))
            if now - at < _SEEN_SECONDS and len(seen) < _SEEN:
                break
            del seen[oldest]
        if uuid in seen:
            return False
        seen[uuid] = now
        return True

    # -- handlers that say it themselves

    def _replay(self, each: Replay, cause: str) -> None:
        chain: Chain | None = self.commander.chain_of(type(each.command))
        if each.chain is not None:
            chain = ((chain.branches if chain is not None else None) or {}).get(each.chain)
        final = chain.final if chain is not None else None
        if chain is None or final is None or final.definition is None or final.owner is None:
            raise HandlerNotFoundError(
                f"Nothing here handles {type(each.command).__qualname__}, so nothing can say what "
                "it made stale: add the service that does to every host."
            )
        context: CommandContext[Any] = CommandContext(self.commander, each.command, chain)
        slot = context.items[OPERATION] = Slot(context, self.host_id)
        slot.need().whole.items.update(each.items)
        with invalidating(cause):
            token = current.set(context)
            try:
                run_replay(final.definition.function.__get__(final.owner), each.command)
            finally:
                current.reset(token)
                context.is_completed = True

    def health(self) -> dict[str, int]:
        """Return how many operations were completed, applied, failed and abandoned."""
        return {
            "own": self.own,
            "foreign": self.foreign,
            "failed": self.failed,
            "abandoned": self.abandoned,
        }

    def __repr__(self) -> str:
        return f"<Completion at {self.host_id}: {self.own} own, {self.foreign} foreign>"


def _cause(command: object, uuid: str) -> str:
    name = type(command).__qualname__ if command is not None else "operation"
    return f"{name} {uuid}"
