"""How errors cross the wire: a type that both sides agree on, and a text.

What is raised here and there belongs together by registration only: no type is ever looked up by a
name that came from the wire. A text leaves a server if its type says that it is meant for callers;
any other text, which may tell of tables, paths or keys, stays in the server's log, and the caller
gets an error id to find it by.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import msgspec

from afresh.errors import (
    CallTimeoutError,
    DefinitionError,
    DisconnectedError,
    EndpointNotFoundError,
    FormatError,
    InvalidStateError,
    LimitError,
    RejectedError,
    RemoteError,
    RerouteError,
    RpcError,
    StreamNotFoundError,
)

__all__ = [
    "NO_ERROR",
    "ExceptionInfo",
    "ExceptionPolicy",
    "ExceptionRegistry",
    "default_registry",
    "endpoint_not_found",
    "invalid_call_type",
    "rpc_error",
    "stream_not_found",
    "too_late_for_reconnect",
]

logger: logging.Logger = logging.getLogger("afresh.rpc")

MAX_MESSAGE_LENGTH = 8192
"""How many characters of an error's text are sent."""


class ExceptionInfo(msgspec.Struct, frozen=True):
    """An error on the wire; false where nothing failed: so ends a stream that came to its end.

    Args:
        type_ref: what kind of error it is; see `ExceptionRegistry`.
        message: the text.
    """

    type_ref: str = ""
    message: str = ""

    def __bool__(self) -> bool:
        return bool(self.type_ref or self.message)  # TypeScript peers may give a text only

    @property
    def type_name(self) -> str:
        """`type_ref` without what it says of .NET assemblies."""
        return self.type_ref.partition(",")[0].strip()

    @property
    def is_cancellation(self) -> bool:
        """Whether the call ended because it was cancelled on the other side."""
        return self.type_name in _CANCELLATIONS


NO_ERROR = ExceptionInfo()
"""Stands for no error where the wire wants something."""


# -- what the protocol itself has to say, in the words that all its implementations use


def endpoint_not_found(name: str) -> EndpointNotFoundError:
    """Return the error for a call of a method that is not served here."""
    return EndpointNotFoundError(f"{_ENDPOINT_NOT_FOUND}'{name}'.")


def invalid_call_type(name: str, expected: int, got: int) -> RpcError:
    """Return the error for a call of another kind than the method is."""
    return RpcError(f"Invalid CallTypeId: '{name}' expected '{expected}', but got '{got}'.")


def too_late_for_reconnect(why: str) -> RpcError:
    """Return the error for a list of unfinished calls that belongs to another connection."""
    return RpcError(f"Too late for this reconnect round: {why}.")


def stream_not_found() -> StreamNotFoundError:
    """Return the error for a stream that its owner does not know, or not any more."""
    return StreamNotFoundError("RpcStream not found or disconnected.")


_ENDPOINT_NOT_FOUND = "Endpoint not found: "


def _restored_rpc_error(message: str) -> RpcError:
    if message.startswith(_ENDPOINT_NOT_FOUND):
        return EndpointNotFoundError(message)
    return RpcError(message)


# -- types

_E = TypeVar("_E", bound=type[Exception])

_CORE = "System.Private.CoreLib"
_RPC = "ActualLab.Rpc"
_RPC_ERROR = f"{_RPC}.RpcException, {_RPC}"
_REMOTE = "ActualLab.Serialization.RemoteException, ActualLab.Core"
_CANCELLED = f"System.Threading.Tasks.TaskCanceledException, {_CORE}"

_CANCELLATIONS = frozenset(
    {"System.Threading.Tasks.TaskCanceledException", "System.OperationCanceledException"}
)


@dataclass(frozen=True, slots=True)
class _Entry:
    type_ref: str
    is_public: bool


class ExceptionRegistry:
    """Which exception is which type on the wire, both ways.

    Python's own exceptions keep their type where other languages have the same, and so does what
    the protocol raises; add those of your contracts. An exception that is not registered travels as
    the nearest of its bases that is. What has no counterpart here arrives as a `RemoteError`.
    """

    def __init__(self) -> None:
        self._entries: dict[type[BaseException], _Entry] = {}
        self._restorers: dict[str, Callable[[str], Exception]] = {}
        self._registered: dict[str, type[Exception]] = {}
        for kind, type_ref, is_public in _BUILT_IN:
            self._entries[kind] = _Entry(type_ref, is_public)
            self._restorers.setdefault(_name_in(type_ref), _restorer(kind))
        for name, kind in _ALSO_READ:
            self._restorers[name] = _restorer(kind)
        self._restorers[_name_in(_RPC_ERROR)] = _restored_rpc_error
        for kind in _KEPT_TO_OURSELVES:
            self._entries[kind] = _Entry(_REMOTE, is_public=False)

    def register(
        self,
        kind: type[Exception],
        type_ref: str | None = None,
        *,
        public: bool = True,
        restore: Callable[[str], Exception] | None = None,
    ) -> None:
        """Let exceptions of a class, and of those derived from it, cross the wire as what they are.

        Args:
            kind: the class.
            type_ref: what it is called on the wire; the name of the class unless given. For .NET
                peers ``"Namespace.Type, Assembly"``.
            public: whether its texts are meant for callers; if not, only the type is sent.
            restore: makes the exception from its text; by default the constructor is called with
                it, or left out where that would make an exception of another text.

        Raises:
            DefinitionError: another class is registered under that name.
        """
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise DefinitionError(f"{kind!r} is no class of exceptions; derive it from Exception.")
        type_ref = kind.__name__ if type_ref is None else type_ref
        name = _name_in(type_ref)
        if not name:
            raise DefinitionError(
                f"{kind.__qualname__}: {type_ref!r} names no type, which would mean that nothing "
                "failed; leave type_ref out, or give a name."
            )
        other = self._registered.get(name, kind)
        if (other.__module__, other.__qualname__) != (kind.__module__, kind.__qualname__):
            raise DefinitionError(
                f"{kind.__module__}.{kind.__qualname__} and {other.__module__}."
                f"{other.__qualname__} are both {name!r} on the wire; give one of them another "
                "type_ref."
            )
        self._registered[name] = kind
        self._entries[kind] = _Entry(type_ref, public)
        self._restorers[name] = restore or _restorer(kind)

    def entry_of(self, error: BaseException) -> _Entry | None:
        """How the error travels: as its class, or the nearest of its bases, says."""
        for kind in type(error).__mro__:
            entry = self._entries.get(kind)
            if entry is not None:
                return entry
        return None

    def restore(self, info: ExceptionInfo) -> Exception:
        """Return the exception that stands for what failed on the other side."""
        name = info.type_name
        restore = self._restorers.get(name)
        if restore is None:
            return RemoteError(info.message or "The other side does not say what failed.", name)
        try:
            error = restore(info.message)
        except Exception:
            logger.exception("A %s can't be made of its text", name)
            return RemoteError(info.message, name)
        if isinstance(error, RpcError):
            vars(error)[_FROM_ELSEWHERE] = True
        return error


_FROM_ELSEWHERE = "_afresh_from_elsewhere"
"""Marks what another peer had to say of its own protocol, which is not for callers of this one."""

_BUILT_IN: list[tuple[type[Exception], str, bool]] = [
    (ValueError, f"System.ArgumentException, {_CORE}", False),
    (TypeError, "TypeError", False),
    (LookupError, "LookupError", False),
    (KeyError, f"System.Collections.Generic.KeyNotFoundException, {_CORE}", False),
    (IndexError, f"System.IndexOutOfRangeException, {_CORE}", False),
    (TimeoutError, f"System.TimeoutException, {_CORE}", False),
    (CallTimeoutError, f"System.TimeoutException, {_CORE}", False),
    (PermissionError, f"System.UnauthorizedAccessException, {_CORE}", False),
    (RuntimeError, f"System.InvalidOperationException, {_CORE}", False),
    (InvalidStateError, f"System.InvalidOperationException, {_CORE}", False),
    (NotImplementedError, f"System.NotImplementedException, {_CORE}", False),
    (ZeroDivisionError, f"System.DivideByZeroException, {_CORE}", False),
    (OverflowError, f"System.OverflowException, {_CORE}", False),
    (RpcError, _RPC_ERROR, True),
    (EndpointNotFoundError, _RPC_ERROR, True),
    (StreamNotFoundError, f"{_RPC}.RpcStreamNotFoundException, {_RPC}", True),
    (RerouteError, f"{_RPC}.RpcRerouteException, ActualLab.Core", True),
    (FormatError, "afresh.FormatError", True),
    (LimitError, "afresh.LimitError", True),
]
"""The class, its type on the wire, whether its text is sent; of two that share a type, the first is
what it is read as.
"""

_ALSO_READ: list[tuple[str, type[Exception]]] = [
    ("System.ArgumentNullException", ValueError),
    ("System.ArgumentOutOfRangeException", ValueError),
    ("System.FormatException", ValueError),
    ("System.NotSupportedException", NotImplementedError),
    ("System.Security.SecurityException", PermissionError),
]

_KEPT_TO_OURSELVES = (DisconnectedError, RejectedError, RemoteError)
"""What went wrong between this server and others behind it."""


def _name_in(type_ref: str) -> str:
    return ExceptionInfo(type_ref).type_name


def _restorer(kind: type[Exception]) -> Callable[[str], Exception]:
    def restore(message: str) -> Exception:
        try:
            error = kind(message)
            if str(error) == message:
                return error
        except Exception:
            pass
        return kind.__new__(kind, message)

    return restore


default_registry: ExceptionRegistry = ExceptionRegistry()
"""Where `rpc_error` registers, and what hubs use unless told otherwise."""


@overload
def rpc_error(kind: _E, /) -> _E: ...
@overload
def rpc_error(
    *,
    type_ref: str | None = None,
    public: bool = True,
    restore: Callable[[str], Exception] | None = None,
) -> Callable[[_E], _E]: ...
def rpc_error(kind: Any = None, /, **options: Any) -> Any:  # noqa: D417
    """Make an exception part of what callers elsewhere get to know: its type and its texts.

    Args:
        type_ref: what it is called on the wire; the name of the class unless given.
        public: whether its texts are sent, or only the type.
        restore: makes the exception from its text; see `ExceptionRegistry.register`.

    Example:
        ```python
        @rpc_error
        class OutOfStock(Exception): ...
        ```
    """

    def decorate(kind: Any) -> Any:
        default_registry.register(kind, **options)
        return kind

    return decorate if kind is None else decorate(kind)


# -- what is told to whom


class ExceptionPolicy:
    """What a hub tells callers of what failed, and what it makes of what it is told.

    Args:
        registry: the types; `default_registry` unless given.
        expose_messages: whether all texts are sent as they are: for peers that may know everything.
    """

    registry: ExceptionRegistry
    expose_messages: bool

    def __init__(
        self, registry: ExceptionRegistry | None = None, *, expose_messages: bool = False
    ) -> None:
        self.registry = default_registry if registry is None else registry
        self.expose_messages = expose_messages

    def describe(self, error: BaseException, what: str) -> ExceptionInfo:
        """Return what to send of an error, and log it where its text was not meant for callers.

        Args:
            error: what was raised.
            what: the call that it ended, for the log.
        """
        if isinstance(error, asyncio.CancelledError):
            return ExceptionInfo(_CANCELLED, "A task was canceled.")
        entry = self.registry.entry_of(error)
        if entry is not None and entry.is_public and _FROM_ELSEWHERE not in vars(error):
            return ExceptionInfo(entry.type_ref, _text_of(error))
        error_id = secrets.token_hex(6)
        logger.error("%s failed, error id %s", what, error_id, exc_info=error)
        type_ref = _REMOTE if entry is None or entry.is_public else entry.type_ref
        if not self.expose_messages:
            return ExceptionInfo(
                type_ref,
                f"The call failed. The log of the other side says why: error id {error_id}.",
            )
        text = _text_of(error)
        if type_ref == _REMOTE and not isinstance(error, RpcError):
            text = f"{type(error).__name__}: {text}"
        return ExceptionInfo(type_ref, text)

    def restore(self, info: ExceptionInfo) -> Exception:
        """Return the exception that stands for what failed on the other side."""
        return self.registry.restore(info)


def _text_of(error: BaseException) -> str:
    try:
        # A KeyError shows its text in quotes.
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    except Exception:
        logger.exception("The text of a %s can't be had", type(error).__name__)
        return ""
    if len(text) > MAX_MESSAGE_LENGTH:
        text = f"{text[:MAX_MESSAGE_LENGTH]}…"
    return text.encode(errors="replace").decode()
