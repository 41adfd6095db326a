"""Every error that afresh raises on purpose, in one tree.

```
AfreshError
├── InvalidStateError          the object is in the wrong state for this call
├── ReentrantComputeError      a computation needs its own result
├── DefinitionError            a declaration is wrong (also a TypeError)
├── NotCapturedError           the captured block called no compute method
├── HandlerNotFoundError       nothing handles the command (also a LookupError)
├── LogDecodeError             what stands in a log can't be read (also a ValueError)
├── EnvelopeError              a message of a broker can't be read (also a ValueError)
├── EventConflictError         an event of that name is there already
├── LeaseLostError             another host has taken over what this one was working at
├── ReadOnlyError              a session that only reads was asked to write
├── SchemaError                tables are missing in the database, or are not as they must be
└── RpcError                   something between two peers went wrong
    ├── EndpointNotFoundError  the other side serves no such method
    ├── RemoteError            the method failed on the other side
    ├── FormatError            what arrived can't be read, or a value can't be written
    │   └── UnknownFormatError no such serialization format
    ├── LimitError             more, or larger, than the limits allow
    ├── DisconnectedError      there is no connection (also a ConnectionError)
    │   ├── ConnectionClosedError  it was closed; with code and reason
    │   ├── PeerChangedError   the peer behind the address is another one now
    │   └── PeerClosedError    the peer, or its hub, was closed for good
    ├── RejectedError          the other side refuses the connection
    ├── CallTimeoutError       the answer, or the connection, did not come in time (a TimeoutError)
    ├── RerouteError           the call has to go to another peer
    └── StreamNotFoundError    the stream is not there any more
```

Catch `AfreshError` to catch them all. Bad arguments raise `ValueError` or `TypeError`, as
everywhere in Python, and errors of your own code pass through unchanged. Each message says what
happened and what to do next.
"""

from __future__ import annotations

__all__ = [
    "AfreshError",
    "CallTimeoutError",
    "ConnectionClosedError",
    "DefinitionError",
    "DisconnectedError",
    "EndpointNotFoundError",
    "EnvelopeError",
    "EventConflictError",
    "FormatError",
    "HandlerNotFoundError",
    "InvalidStateError",
    "LeaseLostError",
    "LimitError",
    "LogDecodeError",
    "NotCapturedError",
    "PeerChangedError",
    "PeerClosedError",
    "ReadOnlyError",
    "ReentrantComputeError",
    "RejectedError",
    "RemoteError",
    "RerouteError",
    "RpcError",
    "SchemaError",
    "StreamNotFoundError",
    "UnknownFormatError",
]


class AfreshError(Exception):
    """The root of all errors that afresh raises on purpose."""


class InvalidStateError(AfreshError):
    """The object is in the wrong state for this call; the message names the state it needs."""


class ReentrantComputeError(AfreshError):
    """A computation called itself with the same arguments, directly or through others.

    Waiting would never end, so the call fails at once. Break the cycle: let one of the methods read
    its data elsewhere.
    """


class DefinitionError(AfreshError, TypeError):
    """A declaration is wrong; raised when the class or function is defined."""


class NotCapturedError(AfreshError):
    """Nothing was captured: the block or call in question called no compute method."""


class HandlerNotFoundError(AfreshError, LookupError):
    """No service that was added to the commander handles commands of this type."""


class LogDecodeError(AfreshError, ValueError):
    """What stands in a log of operations or events can't be read here.

    Args:
        message: why, and what to do.
        tag: the name of the type, where it is known.
    """

    tag: str

    def __init__(self, message: str, tag: str = "") -> None:
        super().__init__(message)
        self.tag = tag

    def __reduce__(self) -> tuple[type[LogDecodeError], tuple[str, str]]:
        return type(self), (str(self), self.tag)


class EnvelopeError(AfreshError, ValueError):
    """What came from a message broker is no CloudEvent, or one that can't be read."""


class EventConflictError(AfreshError):
    """An event of that name is there already, and the new one was not to be left out."""


class LeaseLostError(AfreshError):
    """Another host has taken over what this one was working at; its work is rolled back."""


class ReadOnlyError(AfreshError):
    """A session that only reads was asked to write; write in `database.operation()`."""


class SchemaError(AfreshError):
    """Tables are missing in the database, or are not as they must be; the message names them."""


class RpcError(AfreshError):
    """Something between two peers went wrong."""


class EndpointNotFoundError(RpcError):
    """The other side serves no method of that name with that number of arguments."""


class RemoteError(RpcError):
    """The method failed on the other side, with an error that has no counterpart here.

    Args:
        message: what the other side says of it.
        type_name: what the other side calls the type of the error; "" when it does not tell.
    """

    type_name: str

    def __init__(self, message: str = "", type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str]]:
        return type(self), (str(self), self.type_name)


class FormatError(RpcError):
    """What arrived can't be read, or a value can't be written in the format in use."""


class UnknownFormatError(FormatError):
    """There is no serialization format of that name, or it is not allowed here."""


class LimitError(RpcError):
    """More, or larger, than the limits allow; the message names the limit and who sets it."""


class DisconnectedError(RpcError, ConnectionError):
    """There is no connection to the other side, and the call may not wait for one."""


class ConnectionClosedError(DisconnectedError):
    """The connection was closed by the other side, or by what lies between.

    Args:
        code: the WebSocket close code, 1006 where the connection was just cut.
        reason: the text that came with it.
    """

    code: int
    reason: str

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"The connection was closed: {code}{f', {reason}' if reason else ''}.")
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[type[ConnectionClosedError], tuple[int, str]]:
        return type(self), (self.code, self.reason)


class PeerChangedError(DisconnectedError):
    """Behind the address there is another peer now: the server was restarted, or replaced."""


class PeerClosedError(DisconnectedError):
    """The peer, or the hub it belongs to, was closed for good."""


class RejectedError(RpcError):
    """The other side refuses the connection, and trying again would not help.

    Args:
        message: why.
        status: the HTTP status or the WebSocket close code that says so.
    """

    status: int

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[RejectedError], tuple[str, int]]:
        return type(self), (str(self), self.status)


class CallTimeoutError(RpcError, TimeoutError):
    """The connection, or the answer to a call, did not come in time."""


class RerouteError(RpcError):
    """The call has to go to another peer: what served it does so no more."""


class StreamNotFoundError(RpcError):
    """The stream is not there any more on the side that owns it."""
