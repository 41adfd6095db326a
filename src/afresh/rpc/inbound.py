"""Calls that the other side makes: finding the method, running it, answering.

Most handlers are done at their first step, without waiting for anything, and a task for each would
cost more than the rest of the call. So one task, the runner, steps them one after the other. A
handler that does wait keeps the task that it started in, which from there on is its own, to be
cancelled alone; a new runner goes on with the rest. What a handler sees is always the same: it runs
in one task, from its first step to its last, and in a context of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from afresh.errors import LimitError, RpcError
from afresh.primitives.freshness import noted_freshness
from afresh.primitives.stepping import rest_of

from .freshness import answer_headers, behind_gate, telling, token_in
from .middleware import Middleware, Request, around
from .streams.reference import coding

if TYPE_CHECKING:
    from .contracts import MethodDefinition
    from .formats import Codec, Format, RecordNaming, Writer
    from .hub import RpcHub
    from .peer import Peer

__all__ = ["Dispatcher", "InboundCall", "ServedMethod"]

_log = logging.getLogger("afresh.rpc")

Headers = Sequence[tuple[str, str]]

_TURN = 256
"""How many calls are stepped before the event loop gets to other work."""


class InboundCall:
    """A call whose handler waits for something, or whose result is followed by something.

    Args:
        peer: who called.
        id: what the caller numbers the call with.
        method: what was called.
    """

    __slots__ = ("id", "method", "peer", "task")

    def __init__(self, peer: Peer, id: int, method: ServedMethod) -> None:
        self.peer: Peer = peer
        self.id: int = id
        self.method: ServedMethod = method
        self.task: asyncio.Task[Any] | None = None
        """Runs the handler; None when that is over."""

    def cancel(self) -> None:
        """The caller is not interested any more, or gone: stop, and answer nothing."""
        self.peer.inbound.pop(self.id, None)
        if self.task is not None:
            self.task.cancel()

    def resume(self, stage: int) -> None:
        """The caller came back, and asked for the call at this stage again."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.method.definition.wire_name}>"


class ServedMethod:
    """A method as it is served in one format, to regular calls.

    Args:
        definition: the method.
        function: called with the arguments, returns an awaitable of the result.
        format: the format of the callers.
        records: how fields of records are named.
    """

    __slots__ = ("arguments", "definition", "function", "middleware", "ok", "result")

    call_type = 0
    arguments: Codec
    result: Codec
    ok: Writer

    def __init__(
        self,
        definition: MethodDefinition,
        function: Callable[..., Any],
        format: Format,
        records: RecordNaming,
    ) -> None:
        self.definition: MethodDefinition = definition
        self.function: Callable[..., Any] = function
        self.arguments = format.codec(definition.types, records, definition.defaults)
        self.result = format.codec((definition.result_type,), records)
        self.ok = format.writer("$sys.Ok:1")
        self.middleware: Callable[[Request], Any] | None = None

    def decode(self, peer: Peer, arguments: bytes) -> Sequence[Any]:
        """Return the values in the argument section of a request."""
        codec = self.arguments
        if codec.has_streams:
            with coding(peer.streams):
                return codec.decode(arguments)
        return codec.decode(arguments)

    def start(self, args: Sequence[Any]) -> Any:
        """Return the awaitable that does the work."""
        return self.function(*args)

    def begin(self, peer: Peer, args: Sequence[Any], headers: Headers) -> Any:
        """Return the awaitable that does the work, with middleware around it."""
        if self.middleware is None:
            return self.start(args)
        return self.middleware(Request(peer, self.definition, args, list(headers)))

    def put_around(self, middleware: Sequence[Middleware]) -> None:
        """Let calls go through middleware, the first one outermost."""
        self.middleware = around(middleware, lambda request: self.start(request.args))

    def succeed(self, peer: Peer, related_id: int, headers: Headers, value: Any) -> None:
        """The handler returned."""
        if related_id:
            result = self.encode(peer, value)
            if headers:
                peer.send(self.ok(related_id, result, answer_headers(headers)))
            else:
                peer.send(self.ok(related_id, result))

    def fail(self, peer: Peer, related_id: int, headers: Headers, error: BaseException) -> None:
        """The handler raised."""
        if related_id:
            peer.send_error(related_id, error, self.definition)
        elif isinstance(error, RpcError):
            peer.complain("%s failed: %s", self.definition.wire_name, error)
        else:
            _log.error("%s failed.", self.definition.wire_name, exc_info=error)

    def encode(self, peer: Peer, value: Any) -> bytes:
        """Return the argument section of an answer.

        Raises:
            FormatError: the value can't be written.
            LimitError: it is too large.
        """
        codec = self.result
        if codec.has_streams:
            with coding(peer.streams, codec.types):
                result = codec.encode_one(value)
        else:
            result = codec.encode_one(value)
        if len(result) > peer.limits.max_arguments:
            raise LimitError(
                f"The result of {self.definition.wire_name} takes {len(result):,} bytes; "
                f"Limits.max_arguments allows {peer.limits.max_arguments:,}. "
                "Return large data as a stream."
            )
        if len(result) > peer.limits.batch:
            peer.check_room(len(result), self.definition.wire_name)
        return result

    def suspended(self, peer: Peer, related_id: int) -> InboundCall:
        """Return what stands for the call while its handler waits."""
        return InboundCall(peer, related_id, self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.definition.wire_name}>"


Work = tuple[ServedMethod | None, Any, int, bytes, Any]
"""The method called, the peer that called, and the rest of its message; for system calls, which
must not overtake what came before them, None, and in place of headers what takes the rest."""


class Dispatcher:
    """Runs the calls of all peers of a hub, begun in the order in which they came in."""

    __slots__ = ("_hub", "_is_closed", "_last_id", "_runner", "_tasks", "_wake", "queue")

    def __init__(self, hub: RpcHub) -> None:
        self._hub = hub
        self.queue: deque[Work] = deque()
        """What came in and was not begun; `start` after adding to it."""
        self._wake: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._last_id = 0

    def start(self) -> None:
        """See to it that what is in the queue is begun soon."""
        wake = self._wake
        if wake is not None:
            self._wake = None
            if not wake.done():
                wake.set_result(None)
        elif self._runner is None and not self._is_closed:
            # Not by the loop: one that makes eager tasks would begin here and now.
            task = asyncio.Task(
                self._run(),
                loop=asyncio.get_running_loop(),
                name="afresh rpc calls",
                context=contextvars.Context(),
            )
            self._runner = task
            self._tasks.add(task)
            task.add_done_callback(self._note_done, context=contextvars.Context())

    def forget(self, peer: Peer) -> None:
        """Do not begin what this peer called."""
        kept = [work for work in self.queue if work[1] is not peer]
        self.queue.clear()
        self.queue.extend(kept)
        peer.queued = 0

    def close(self) -> None:
        """Begin nothing more, and cancel what runs."""
        self._is_closed = True
        self.queue.clear()
        for task in list(self._tasks):
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when everything that ran has ended."""
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks)

    def _note_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._runner is task:
            self._runner = None
            if self.queue:
                self.start()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A call left an error behind.", exc_info=error)

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        queue = self.queue
        while not self._is_closed:
            turn = _TURN
            while queue and turn:
                turn -= 1
                method, peer, related_id, arguments, headers = queue.popleft()
                peer.queued -= 1
                if method is None:
                    headers(related_id, arguments, ())
                    continue
                if related_id in peer.inbound:
                    peer.repeated(method, related_id)
                    continue
                context = peer.context.copy()
                try:
                    args = method.decode(peer, arguments)
                    if headers and token_in(headers):
                        headers = list(headers)
                        coroutine = behind_gate(
                            self._hub.gate, headers, method.begin, peer, args, headers
                        )
                    elif method.middleware is None:
                        coroutine = context.run(method.start, args)
                    else:
                        coroutine = context.run(method.begin, peer, args, headers)
                    step = getattr(coroutine, "send", None)
                    if step is None:
                        coroutine = _await(coroutine)
                        step = coroutine.send
                    yielded = context.run(step, None)
                except StopIteration as stop:
                    if noted := context.get(noted_freshness):
                        headers = telling(headers, noted)
                    try:
                        method.succeed(peer, related_id, headers, stop.value)
                    except Exception as error:
                        method.fail(peer, related_id, headers, error)
                except (Exception, asyncio.CancelledError) as error:
                    method.fail(peer, related_id, headers, error)
                else:
                    self._runner = None
                    if queue:
                        self.start()
                    self._hub.flush()
                    await self._finish(
                        task, method, peer, related_id, headers, coroutine, yielded, context
                    )
                    return
                if task.cancelling():
                    return  # a handler cancelled its task, and must not take others along
            self._hub.flush()
            if queue:
                await asyncio.sleep(0)
            else:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake

    async def _finish(
        self,
        task: asyncio.Task[Any],
        method: ServedMethod,
        peer: Peer,
        related_id: int,
        headers: Headers,
        coroutine: Any,
        yielded: Any,
        context: contextvars.Context,
    ) -> None:
        """Go on with a handler that was left waiting for what it yielded."""
        id = related_id
        if not id:
            id = self._last_id = self._last_id - 1
        call = method.suspended(peer, id)
        call.task = task
        inbound = peer.inbound
        inbound[id] = call
        if peer.is_closed:
            task.cancel()  # the handler itself closed it
        failure: BaseException | None = None
        try:
            value = await rest_of(coroutine, yielded, context)
        except (Exception, asyncio.CancelledError) as error:
            failure = error
        call.task = None
        if inbound.get(id) is not call:
            return  # nobody waits for an answer
        del inbound[id]
        if failure is None:
            if noted := context.get(noted_freshness):
                headers = telling(headers, noted)
            try:
                method.succeed(peer, related_id, headers, value)
            except Exception as error:
                failure = error
        if failure is not None:
            method.fail(peer, related_id, headers, failure)


async def _await(awaitable: Any) -> Any:
    return await awaitable
