"""How a result comes to be: once for all who ask, in the task of the first of them.

A `Producer` is whatever results belong to: the results of one compute method of one service, a
state, a computed source. It knows the body, the options, and where its current results are kept.
`produce` runs the body: single-flight, with the calls of the body recorded as dependencies, errors
kept as results, and cancellations told apart.

Waiting for each other is simple on purpose. Whoever finds nothing computing, computes; the others
wait until that ended in whatever way, and look again. So a cancelled computation is taken over by
the next waiter, and no lock or task exists for a lone caller.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from asyncio import CancelledError, current_task, get_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Token
from typing import TYPE_CHECKING, Any

from afresh.errors import ReentrantComputeError
from afresh.primitives.clock import current_clock

from . import causes, expiry, keep_alive, metrics, registry
from ._context import COMPUTING, DELAYED, PENDING, PENDING_NOW, current
from ._kernel import Keeper
from .cached_errors import without_traceback
from .computed import Computed, wake_up
from .observe import on_start
from .options import ComputedOptions
from .scopes import Isolated

if TYPE_CHECKING:
    from .synchronizer import Synchronization

__all__ = ["Producer", "produce", "settle"]

_log = logging.getLogger("afresh.graph")

_short_of_stack = (
    "compute methods call each other deeper than Python's recursion limit allows; compute in "
    "smaller steps, starting with the deepest, or raise the limit with sys.setrecursionlimit()"
)


class Producer(Keeper):
    """What results belong to.

    Args:
        body: called with the arguments, returns an awaitable of the value.
        options: how the results are kept and renewed.
        instance: whose results they are.
        arity: how many arguments the body takes.
    """

    __slots__ = ("_options", "body", "expires", "is_idle", "is_observed", "node_flags")

    body: Callable[..., Awaitable[Any]]

    def __init__(
        self,
        body: Callable[..., Awaitable[Any]],
        options: ComputedOptions,
        instance: Any = None,
        arity: int = 0,
    ) -> None:
        super().__init__(instance, arity)
        self.body = body
        self._options = options
        self.expires: bool = options.auto_invalidate < float("inf")
        self.node_flags = DELAYED if options.invalidation_delay > 0 else 0
        self.is_observed: bool = False
        """Whether `stored`, `starting` and `published` are to be called."""
        self.is_idle: bool = False
        """Whether the registry has to be told of the next result."""
        registry.enlist(self)

    @property
    def options(self) -> ComputedOptions:
        """How the results are kept and renewed."""
        return self._options

    @property
    def category(self) -> str:
        """What the results are, without arguments."""
        return type(self).__name__

    def describe(self, computed: Computed[Any]) -> str:
        """What `computed` is a result of."""
        return self.category

    def stored(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments to keep for computing the result again."""
        return args

    def starting(self, computed: Computed[Any]) -> None:
        """Called before the body runs, if `is_observed`."""

    def published(self, computed: Computed[Any]) -> None:
        """Called when the result is there, if `is_observed`."""

    def expire(self, computed: Computed[Any]) -> None:
        """Let a finished result go stale in time, as the options say."""
        expiry.schedule(computed, self._options)

    def forget(self, computed: Computed[Any]) -> None:
        """Called when a result with handlers or a timer goes stale: take it out of `entries`."""
        if self.entries.get(computed.key) is computed:
            del self.entries[computed.key]

    def loop_is_gone(self) -> None:
        """Called when an event loop was closed in which something may not have come to its end."""
        self.computing.clear()

    def synchronization(self, computed: Computed[Any]) -> Synchronization | None:
        """How to tell whether `computed` is confirmed; None if that depends on what it was computed
        from.
        """
        return None

    def existing(self, key: Any) -> Computed[Any] | None:
        """The result for `key` that is there or being computed."""
        found: Computed[Any] | None = self.entries.get(key)
        return found if found is not None else self.computing.get(key)

    def renew(self, computed: Computed[Any]) -> Coroutine[Any, Any, Computed[Any]]:
        """Return the fresh successor of `computed`, without depending on it."""
        return produce(self, computed.key, computed.args, Isolated(), True)

    def renewed_value(self, computed: Computed[Any], context: Any) -> Coroutine[Any, Any, Any]:
        """Return the value of the successor of `computed`, as a call in `context` does."""
        return produce(self, computed.key, computed.args, context)


_loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None  # noqa: E731


def graph_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop in which results were computed or waited for last."""
    return _loop()


def enter_loop() -> asyncio.AbstractEventLoop:
    """Move over to the running event loop, if that is a new one.

    Its clock comes along, and no trace stays of bodies that ran in a closed one.
    """
    global _loop
    loop = get_running_loop()
    previous = _loop()
    if previous is not loop:
        _loop = weakref.ref(loop)
        current_clock().attach()
        metrics.start()
        if previous is None or previous.is_closed():
            registry.drop_computing()
    return loop


async def produce(
    producer: Any, key: Any, args: tuple[Any, ...], caller: Any, want_node: bool = False
) -> Any:
    """Return the fresh result for `key`, computing it if nobody else does.

    Args:
        producer: what the result belongs to.
        key: under which it is kept.
        args: for the body.
        caller: the context of the call: the node that will depend on the result, a scope, or None.
        want_node: return the `Computed`, also of a failure, rather than its value.
    """
    loop = _loop()
    task = current_task(loop) if loop is not None else None
    if loop is None or task is None:  # that loop is not the running one
        loop = enter_loop()
        task = current_task(loop)
    cancellations = task.cancelling() if task is not None else 0
    retries = 0
    deadline = None
    global _left_behind
    while True:
        if _left_behind:
            _clear_up()
        node = producer.entries.get(key)
        if node is not None:
            break
        other = producer.computing.get(key)
        if other is not None:
            await _turn(other, caller, loop)
            continue
        stored = producer.stored(args) if producer.is_observed else args
        node = Computed(producer, key, stored, caller, producer.node_flags)
        token: Token[Any] | None = None
        try:
            try:
                if producer.is_observed:
                    producer.starting(node)
                if on_start:
                    on_start[0](node)
                token = current.set(node)
                value = await producer.body(*args)
            except RecursionError:
                raise
            except Exception as error:
                _leave(token)
                node._finish(None, without_traceback(error, node.describe()), True)
                _finished(producer, node)
                if caller is not None:
                    caller._use(node)
                if want_node:
                    return node
                task = None  # or else: task → its error → traceback → this frame → task
                raise
            except CancelledError as error:
                _leave(token)
                policy = producer.options.reprocessing
                now = current_clock().now()
                if deadline is None:
                    deadline = now + policy.duration
                retries += 1
                from_outside = task is None or task.cancelling() > cancellations
                if from_outside or retries > policy.retries or now > deadline:
                    _abandon(node, error)
                    task = None
                    raise
                _log.warning("%s was cancelled from within; trying again.", node.describe())
                try:
                    await current_clock().sleep(policy.delays[retries])
                except CancelledError:
                    task = None
                    raise
                finally:
                    _abandon(node, error)
                continue
            except BaseException as error:
                _leave(token)
                _abandon(node, error)
                task = None
                raise
            current.reset(token)
            node._finish(value, None, True)
            if (
                node.extra is not None
                or producer.expires
                or producer.is_idle
                or producer.is_observed
            ):
                _finished(producer, node)
            if caller is not None:
                caller._use(node)
            return node if want_node else value
        except (RecursionError, KeyboardInterrupt, SystemExit) as error:
            # At the end of the stack not even a call may work; then a caller does the rest.
            _left_behind += [(node, token)]
            task = None
            try:
                _clear_up()
                if isinstance(error, RecursionError) and not hasattr(error, "__notes__"):
                    error.add_note(_short_of_stack)
            except RecursionError:
                pass
            raise
    node._touch()
    if caller is not None:
        caller._use(node)
    task = None
    return node if want_node else node.value


def _leave(token: Token[Any] | None) -> None:
    """Put back what was the ambient context before the body ran."""
    if token is not None:
        try:
            current.reset(token)
        except (ValueError, RuntimeError):
            pass  # closed by the garbage collector, in another context; or put back already


_left_behind: list[tuple[Computed[Any], Token[Any] | None]] = []
"""Results whose computation ended when there was no stack left to say so, the innermost first."""


def _clear_up() -> None:
    """Let nobody wait for results that were left behind.

    Raises:
        RecursionError: there is still no stack left; what is not done yet stays to be done.
    """
    while _left_behind:
        node, token = _left_behind[0]
        _leave(token)
        if node.state == COMPUTING:
            node.flags |= PENDING | PENDING_NOW
            node._finish(None, RecursionError(_short_of_stack), False)
        elif node.keeper.computing.get(node.key) is node:  # it was interrupted half-way
            del node.keeper.computing[node.key]
            node.invalidate(now=True, cause=causes.CANCELLED)
        _wake(node)
        del _left_behind[0]


def settle(producer: Producer, value: Any, error: BaseException | None = None) -> Computed[Any]:
    """Return a result for a producer without arguments that is there at once, nothing computed.

    The producer's `forget` is called when it goes stale.
    """
    computed: Computed[Any] = Computed(producer, (), (), None, producer.node_flags)
    computed._with_extra()
    computed._finish(value, error, True)
    return computed


def _finished(producer: Any, node: Computed[Any]) -> None:
    if producer.is_idle:
        keep_alive.watch(producer)
    if node._error is not None or producer.expires:
        producer.expire(node)
    _wake(node)
    if producer.is_observed:
        producer.published(node)


def _abandon(node: Computed[Any], error: BaseException) -> None:
    """End a computation without a result that could be served."""
    node.flags |= PENDING | PENDING_NOW
    if node.cause is None:
        node.cause = causes.CANCELLED
    node._finish(None, without_traceback(error, node.describe()), False)
    _wake(node)


def _wake(node: Computed[Any]) -> None:
    if node.extra is not None and node.extra.waiters is not None:
        waiters, node.extra.waiters = node.extra.waiters, None
        for waiter in waiters:
            wake_up(waiter)


async def _turn(node: Computed[Any], caller: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Wait until the computation of `node` ended."""
    ancestor = caller
    while ancestor is not None:
        if ancestor is node and node.state == COMPUTING:
            raise ReentrantComputeError(
                f"{node.describe()} is needed to compute itself: it was called, directly or "
                "through other compute methods, by its own body. Break the circle, for example by "
                "moving what both need into a compute method of its own."
            )
        ancestor = ancestor.parent
    extra = node._with_extra()
    if extra.waiters is None:
        extra.waiters = []
    waiter: asyncio.Future[None] = loop.create_future()
    extra.waiters.append(waiter)
    await waiter


def call_behind(awaitable: Any) -> tuple[Producer, Any, tuple[Any, ...]] | None:
    """Return the producer, the key and the arguments of a call that found no result and was not
    awaited yet; None for any other awaitable. For tools that are handed such calls.
    """
    frame = getattr(awaitable, "cr_frame", None)
    if frame is None or frame.f_code is not produce.__code__:
        return None
    variables = frame.f_locals
    return variables["producer"], variables["key"], variables["args"]
