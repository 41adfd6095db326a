"""Scopes that give calls of compute methods another meaning: invalidate, capture, stay apart.

A scope applies to the calls made inside its ``with`` block, in the same task and in tasks started
there; calls that a *computation* makes belong to that computation and are not touched.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Generator
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from afresh.errors import InvalidStateError, NotCapturedError

from . import causes
from ._context import COMPUTING, SCOPE, current

if TYPE_CHECKING:
    from .computed import Computed
    from .table import Table

__all__ = [
    "Capturing",
    "CapturingExisting",
    "Invalidating",
    "Isolated",
    "RecordingInvalidations",
    "Scope",
    "capture",
    "capturing",
    "capturing_existing",
    "current_computed",
    "get_existing",
    "invalidating",
    "is_invalidating",
    "isolated",
    "try_capture",
    "try_current_computed",
]

T = TypeVar("T")


class _Nothing:
    """What a call that computes nothing returns: awaiting it gives None, any number of times."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield

    def send(self, value: None) -> None:
        raise StopIteration(None)

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> None:
        raise error

    def close(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<awaitable None: a scope kept the call from computing>"


_NOTHING = _Nothing()


class Scope:
    """A context manager that stands where a call looks for the computation that makes it."""

    __slots__ = ("_token", "parent")

    state: ClassVar[int] = SCOPE
    computes: ClassVar[bool] = True
    """Whether calls inside may run bodies."""
    name: ClassVar[str] = "a scope"
    computing: Any = None
    """What `current_computed()` gives inside, for a scope in which a body runs."""

    def __init__(self) -> None:
        # The way up to the computations that wait for this call, for telling circles.
        self.parent: Any = current.get()
        self._token: Token[Any] | None = None

    def __enter__(self) -> Any:
        if self._token is not None:
            raise InvalidStateError(f"{self.name} is entered already; make a new one instead.")
        self._token = current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._token is not None
        try:
            current.reset(self._token)
        except ValueError:
            if kind is not GeneratorExit:  # closed by the garbage collector, in another context
                raise
        self._token = None

    def _use(self, node: Any) -> None:
        """Called when a call inside got its result."""

    def _hit(self, node: Any) -> Any:
        """Called when a call inside found its result; returns what the call returns."""
        return node

    def missed(self, table: Table, key: Any, args: tuple[Any, ...]) -> Any:
        """Called when a call inside found no result; returns what the call returns."""
        return table.compute(key, args, self)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Isolated(Scope):
    """Calls inside are made as if from outside any computation: see `isolated`."""

    __slots__ = ()
    name = "isolated()"


class Capturing(Scope):
    """Remembers the result of the last call inside: see `capturing`."""

    __slots__ = ("computed",)
    name = "capturing()"

    def __init__(self) -> None:
        super().__init__()
        self.computed: Computed[Any] | None = None

    def _use(self, node: Any) -> None:
        self.computed = node

    def _hit(self, node: Any) -> Any:
        self.computed = node
        return node


class CapturingExisting(Capturing):
    """Remembers what the last call inside found, without computing: see `capturing_existing`."""

    __slots__ = ()
    name = "capturing_existing()"
    computes = False

    def _hit(self, node: Any) -> Any:
        self.computed = node
        return _NOTHING

    def missed(self, table: Table, key: Any, args: tuple[Any, ...]) -> Any:
        self.computed = table.existing(key)
        return _NOTHING


class Invalidating(Scope):
    """Calls inside make results stale: see `invalidating`."""

    __slots__ = ("cause",)
    name = "invalidating()"
    computes = False

    def __init__(self, cause: Any) -> None:
        super().__init__()
        self.cause: Any = cause

    def _hit(self, node: Any) -> Any:
        node.keeper.invalidate_existing(node, self.cause)
        return _NOTHING

    def missed(self, table: Table, key: Any, args: tuple[Any, ...]) -> Any:
        table.invalidate_key(key, self.cause)
        return _NOTHING


class RecordingInvalidations(Invalidating):
    """Calls inside are told to a function instead of making anything stale here and now.

    Args:
        record: takes the results of the method, the key and the arguments of the call.
    """

    __slots__ = ("record",)

    def __init__(self, record: Callable[[Table, Any, tuple[Any, ...]], None]) -> None:
        super().__init__(causes.UNKNOWN)
        self.record: Callable[[Table, Any, tuple[Any, ...]], None] = record

    def _hit(self, node: Any) -> Any:
        self.record(node.keeper, node.key, node.args)
        return _NOTHING

    def missed(self, table: Table, key: Any, args: tuple[Any, ...]) -> Any:
        self.record(table, key, args)
        return _NOTHING


def invalidating(cause: str | None = None) -> Invalidating:
    """Open a block in which calling a compute method makes its result stale instead of computing.

    Such a call runs no body and needs no `await`; awaited all the same, it gives None. A result
    that is being computed goes stale as soon as it is there.

    Args:
        cause: recorded with the results; where this was written, by default.

    Example:
        ```python
        with invalidating():
            orders.for_user("u1")
            orders.total()
        ```
    """
    context = current.get()
    if isinstance(context, RecordingInvalidations):
        return RecordingInvalidations(context.record)
    return Invalidating(cause if cause is not None else causes.here())


def is_invalidating() -> bool:
    """Whether calls of compute methods made here invalidate, because of `invalidating()`."""
    return isinstance(current.get(), Invalidating)


def isolated() -> Isolated:
    """Open a block in which calls are made as if from outside: they add no dependencies.

    Example:
        ```python
        with isolated():
            rate = await rates.get("EUR")   # read without depending on it
        ```
    """
    return Isolated()


def capturing() -> Capturing:
    """Open a block whose last call's result is found as `.computed` of what this returns.

    Calls inside add no dependencies to the computation around the block.

    Example:
        ```python
        with capturing() as captured:
            await counters.get("a")
        print(captured.computed)
        ```
    """
    return Capturing()


def capturing_existing() -> CapturingExisting:
    """Open a block in which calls compute nothing; what the last one found is `.computed`."""
    return CapturingExisting()


async def capture(producer: Callable[[], Awaitable[T]]) -> Computed[T]:
    """Return the result behind the last compute method call that `producer` makes.

    A computation that fails is returned like any other. For a single call,
    ``svc.get.capture(args)`` is shorter.

    Args:
        producer: an async function, or a lambda that returns an awaitable.

    Raises:
        NotCapturedError: it called no compute method.
        Exception: it failed otherwise than by the result it captured.
    """
    computed = await try_capture(producer)
    if computed is None:
        raise NotCapturedError(
            f"{producer!r} called no compute method, so there is nothing to capture; "
            "call one inside it."
        )
    return computed


async def try_capture(producer: Callable[[], Awaitable[T]]) -> Computed[T] | None:
    """Like `capture`, but None where it raises `NotCapturedError`."""
    with capturing() as scope:
        try:
            await producer()
        except CancelledError:
            raise
        except Exception:
            if scope.computed is None or scope.computed.error is None:
                raise
    return cast("Computed[T] | None", scope.computed)


def get_existing(call: Callable[[], Awaitable[T]]) -> Computed[T] | None:
    """Return what the call in `call` would find, in whatever state, without computing.

    For a single call, ``svc.get.existing(args)`` is shorter.
    """
    with capturing_existing() as scope:
        call()
    return cast("Computed[T] | None", scope.computed)


def current_computed() -> Computed[Any]:
    """Return the result that the running body computes, for example to let it expire.

    Raises:
        InvalidStateError: no compute method is running here.

    Example:
        ```python
        @compute_method
        async def now(self) -> float:
            current_computed().invalidate(after=1)
            return time.time()
        ```
    """
    computed = try_current_computed()
    if computed is None:
        raise InvalidStateError(
            "No result is being computed here; current_computed() is for bodies of compute methods."
        )
    return computed


def try_current_computed() -> Computed[Any] | None:
    """Like `current_computed`, but None where no compute method is running."""
    context = current.get()
    if context is not None and context.state == SCOPE:
        context = context.computing
    if context is None or context.state != COMPUTING:
        return None
    return cast("Computed[Any]", context)
