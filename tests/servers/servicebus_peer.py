"""A peer that speaks AMQP 1.0 as Azure Service Bus does: `python servicebus_peer.py PORT PORT`.

The first port is for messages, the second for the management of topics and subscriptions by HTTP.
Any credentials will do. What lies in topics is in memory alone. See `servicebus_entities` for what
a namespace does; this is only how it is talked to.
"""

from __future__ import annotations

import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import cproton
from proton import (
    Condition,
    Data,
    Delivery,
    Described,
    Handler,
    Link,
    Message,
    Terminus,
    int32,
    symbol,
    timestamp,
)
from proton.reactor import Container

sys.path.insert(0, str(Path(__file__).parent))

from servicebus_entities import Namespace, NotFound, Queue, SessionRefused, Topic

CREDIT = 1_000
MAX_BYTES = 262_144
TICK_SECONDS = 0.05
LOST = "com.microsoft:message-lock-lost"
MANAGEMENT = "/$management"
SESSION_FILTER = symbol("com.microsoft:session-filter")
SESSION_UNTIL = symbol("com.microsoft:locked-until-utc")
EPOCH_TICKS = 621_355_968_000_000_000
DATA_SECTION = 0x75
ENCODED = re.compile(rb"\x00[\x53\x80][\x70-\x78\x00]")


def path_of(address: str | None) -> str:
    """A path of a namespace, of an address that may be a whole URL."""
    return urlsplit(address or "").path.lstrip("/")


def messages_of(raw: bytes) -> Iterator[Message]:
    """The message that was sent, or those of a batch: its data sections are messages."""
    data = []
    rest = raw
    while rest:
        section = Data()
        size = section.decode(rest)
        rest = rest[size:]
        section.next()
        value = section.get_object()
        if isinstance(value, Described) and value.descriptor == DATA_SECTION:
            data.append(bytes(value.value))
    if data and all(map(ENCODED.match, data)):
        raws = data
    else:
        raws = [raw]
    for each in raws:
        message = Message()
        message.decode(each)
        yield message


class Peer(Handler):
    """Answers clients on behalf of a namespace."""

    def __init__(self, namespace: Namespace, port: int) -> None:
        super().__init__()
        self.namespace = namespace
        self.port = port
        self.attached: dict[Link, Queue] = {}
        self.replies: dict[tuple[Any, str], Link] = {}
        self.container: Any = None

    # -- connections

    def on_reactor_init(self, event: Any) -> None:
        self.container = event.container
        self.container.listen(f"127.0.0.1:{self.port}")
        self.container.schedule(TICK_SECONDS, self)

    def on_timer_task(self, event: Any) -> None:
        self.namespace.tick(time.time())
        for queue in self.namespace.queues():
            self.pump(queue)
        self.container.schedule(TICK_SECONDS, self)

    def on_connection_remote_open(self, event: Any) -> None:
        event.connection.container = "servicebus"
        event.connection.open()

    def on_session_remote_open(self, event: Any) -> None:
        event.session.open()

    def on_connection_remote_close(self, event: Any) -> None:
        event.connection.close()

    def on_session_remote_close(self, event: Any) -> None:
        event.session.close()

    def on_transport_closed(self, event: Any) -> None:
        connection = event.connection
        for link in [each for each in self.attached if each.connection == connection]:
            self.detach(link)
        for key in [key for key in self.replies if key[0] == connection]:
            del self.replies[key]

    # -- links

    def on_link_remote_open(self, event: Any) -> None:
        link = event.link
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.snd_settle_mode = link.remote_snd_settle_mode
        link.rcv_settle_mode = link.remote_rcv_settle_mode
        link.max_message_size = MAX_BYTES
        path = path_of((link.source if link.is_sender else link.target).address)
        try:
            if path == "$cbs" or path.endswith(MANAGEMENT):
                if link.is_sender:
                    self.replies[link.connection, path] = link
            elif link.is_sender:
                queue = self.namespace.queue(path)
                if queue.has_sessions:
                    self.accept_session(link, queue)
                self.attached[link] = queue
                queue.links.append(link)
            else:
                self.namespace.topic(path)
        except (NotFound, SessionRefused) as error:
            # A link that is refused is attached without an end, then detached with the reason.
            (link.source if link.is_sender else link.target).type = Terminus.UNSPECIFIED
            link.open()
            name = error.name if isinstance(error, SessionRefused) else "amqp:not-found"
            link.condition = condition(name, str(error))
            link.close()
            return
        link.open()
        if link.is_receiver:
            link.flow(CREDIT)

    def accept_session(self, link: Link, queue: Queue) -> None:
        """Give a receiver the session that it asks for, and tell it which it has."""
        asked = link.remote_source.filter
        asked.rewind()
        filters = asked.get_object() if asked.next() else None
        if not isinstance(filters, dict) or SESSION_FILTER not in filters:
            raise SessionRefused("amqp:not-allowed", "It has sessions; receive one of them.")
        name = queue.accept(link, filters[SESSION_FILTER])
        link.source.filter.clear()
        link.source.filter.put_object({SESSION_FILTER: name})
        until = EPOCH_TICKS + int(queue.sessions[name].until * 10_000_000)
        link.properties = {SESSION_UNTIL: until}

    def on_link_remote_close(self, event: Any) -> None:
        self.detach(event.link)
        event.link.close()

    on_link_remote_detach = on_link_remote_close

    def detach(self, link: Link) -> None:
        queue = self.attached.pop(link, None)
        if queue is not None:
            queue.forget(link)
            self.pump(queue)

    def on_link_flow(self, event: Any) -> None:
        link = event.link
        if link in self.attached:
            self.pump(self.attached[link])
        if link.is_sender and link.drain_mode:
            link.drained()

    # -- messages

    def pump(self, queue: Queue) -> None:
        """Send what is ready to whoever takes more, in turn."""
        waiting = [link for link in queue.links if link.credit > 0]
        while waiting and queue.ready:
            link = waiting.pop(0)
            received = queue.receive(link)
            if received is None:
                continue  # none of its session
            token, lock = received
            delivery = link.delivery(token.bytes_le)
            link.stream(self.encode(lock.stored, lock.until))
            link.advance()
            if link.snd_settle_mode == Link.SND_SETTLED:
                queue.complete(token)
                delivery.settle()
            if link.credit > 0:
                waiting.append(link)

    def encode(self, stored: Any, locked_until: float | None) -> bytes:
        message = stored.message
        annotations = {
            **(message.annotations or {}),
            symbol("x-opt-sequence-number"): stored.sequence,
            symbol("x-opt-enqueued-time"): timestamp(int(stored.enqueued * 1000)),
        }
        if locked_until is not None:
            annotations[symbol("x-opt-locked-until")] = timestamp(int(locked_until * 1000))
        before = message.annotations, message.properties
        message.annotations = annotations
        message.delivery_count = stored.deliveries
        if stored.properties:
            message.properties = {**(message.properties or {}), **stored.properties}
        encoded: bytes = message.encode()
        message.annotations, message.properties = before
        return encoded

    def on_delivery(self, event: Any) -> None:
        delivery, link = event.delivery, event.link
        if link.is_receiver:
            if delivery.readable and not delivery.partial:
                self.take(link, delivery)
        elif delivery.updated:
            self.settle(link, delivery)

    def take(self, link: Link, delivery: Delivery) -> None:
        raw = link.recv(delivery.pending)
        link.advance()
        path = path_of(link.target.address)
        if path == "$cbs" or path.endswith(MANAGEMENT):
            request = Message()
            request.decode(raw)
            self.answer(link, path, request)
            delivery.update(Delivery.ACCEPTED)
        elif len(raw) > MAX_BYTES:
            text = f"{len(raw)} bytes are more than {MAX_BYTES}."
            delivery.local.condition = condition("amqp:link:message-size-exceeded", text)
            delivery.update(Delivery.REJECTED)
        else:
            topic = self.namespace.topics.get(path.lower())
            if topic is None:
                delivery.local.condition = condition("amqp:not-found", f"{path} is gone.")
                delivery.update(Delivery.REJECTED)
            else:
                for message in messages_of(raw):
                    self.send(topic, message)
                delivery.update(Delivery.ACCEPTED)
        delivery.settle()
        link.flow(1)

    def send(self, topic: Topic, message: Message) -> int:
        due = (message.annotations or {}).get(symbol("x-opt-scheduled-enqueue-time"))
        number = self.namespace.send(topic, message, due / 1000 if due else None)
        for queue in topic.subscriptions.values():
            self.pump(queue)
        return number

    def settle(self, link: Link, delivery: Delivery) -> None:
        queue = self.attached.get(link)
        token = uuid.UUID(bytes_le=tag_of(delivery))
        state = delivery.remote_state
        if queue is None:
            is_held = False
        elif state == Delivery.ACCEPTED:
            is_held = queue.complete(token)
        elif state == Delivery.REJECTED:
            given = delivery.remote.condition.info or {}
            info = {str(key): str(value) for key, value in given.items()}
            is_held = queue.bury(token, info)
        else:
            has_failed = state == Delivery.MODIFIED and delivery.remote.failed
            is_held = queue.release(token, has_failed=has_failed)
        if is_held:
            delivery.update(state)
        else:
            delivery.local.condition = condition(LOST, "The lock is lost; receive it again.")
            delivery.update(Delivery.REJECTED)
        delivery.settle()
        if queue is not None:
            self.pump(queue)

    # -- requests

    def answer(self, link: Link, path: str, request: Message) -> None:
        reply = self.replies.get((link.connection, path))
        if reply is None:
            return
        if path == "$cbs":
            properties = {"status-code": int32(202), "status-description": "Accepted"}
            body: Any = None
        else:
            entity = path.removesuffix(MANAGEMENT)
            operation = (request.properties or {}).get("operation")
            try:
                status, body = self.manage(entity, str(operation), request.body)
                properties = {"statusCode": int32(status), "statusDescription": "OK"}
            except NotFound as error:
                body = None
                properties = {
                    "statusCode": int32(404),
                    "statusDescription": str(error),
                    "errorCondition": symbol("amqp:not-found"),
                }
            except SessionRefused as error:
                body = None
                properties = {
                    "statusCode": int32(410),
                    "statusDescription": str(error),
                    "errorCondition": symbol(error.name),
                }
            except LockLost:
                body = None
                properties = {
                    "statusCode": int32(410),
                    "statusDescription": "The lock is lost; receive it again.",
                    "errorCondition": symbol(LOST),
                }
        response = Message(body, correlation_id=request.id, properties=properties)
        reply.delivery(uuid.uuid4().hex)
        reply.stream(response.encode())
        reply.advance()

    def manage(self, entity: str, operation: str, body: Any) -> tuple[int, Any]:
        match operation.removeprefix("com.microsoft:"):
            case "renew-lock":
                queue = self.namespace.queue(entity)
                times = [queue.renew(token) for token in body["lock-tokens"].elements]
                if None in times:
                    raise LockLost
                return 200, {"expirations": [timestamp(int((each or 0) * 1000)) for each in times]}
            case "renew-session-lock":
                until = self.namespace.queue(entity).renew_session(body["session-id"])
                return 200, {"expiration": timestamp(int(until * 1000))}
            case "get-session-state":
                states = self.namespace.queue(entity).states
                return 200, {"session-state": states.get(body["session-id"])}
            case "set-session-state":
                state = body["session-state"]
                self.namespace.queue(entity).states[body["session-id"]] = bytes(state or b"")
                return 200, None
            case "peek-message":
                queue = self.namespace.queue(entity)
                found = queue.peek(body["from-sequence-number"], body["message-count"])
                if not found:
                    return 204, None
                return 200, {
                    "messages": [{"message": self.encode(each, None)} for each, _ in found]
                }
            case "schedule-message":
                topic = self.namespace.topic(entity)
                numbers = []
                for each in body["messages"]:
                    message = Message()
                    message.decode(bytes(each["message"]))
                    numbers.append(self.send(topic, message))
                return 200, {"sequence-numbers": numbers}
            case "update-disposition":
                queue = self.namespace.queue(entity)
                for token in body["lock-tokens"].elements:
                    if not self.dispose(queue, token, body):
                        raise LockLost
                self.pump(queue)
                return 200, None
        raise NotFound(f"There is no operation {operation!r} here.")

    def dispose(self, queue: Queue, token: uuid.UUID, body: Any) -> bool:
        match body["disposition-status"]:
            case "completed":
                return queue.complete(token)
            case "suspended":
                reasons = {
                    "DeadLetterReason": body.get("deadletter-reason", ""),
                    "DeadLetterErrorDescription": body.get("deadletter-description", ""),
                }
                return queue.bury(token, reasons)
        return queue.release(token, has_failed=True)


def condition(name: str, text: str) -> Condition:
    """An error with all its fields: the client can't read one that leaves out the last."""
    return Condition(name, text, {symbol("tracking-id"): uuid.uuid4().hex})


class LockLost(Exception):
    """Somebody settles, or renews, what they do not hold."""


def tag_of(delivery: Delivery) -> bytes:
    """The tag as it is; proton itself takes it for text."""
    tag = cproton.lib.pn_delivery_tag(delivery._impl)
    return bytes(cproton.ffi.buffer(tag.start, tag.size))


# -- management by HTTP

ENTRY = """<?xml version="1.0" encoding="utf-8"?>
<entry xmlns="http://www.w3.org/2005/Atom"><id>{name}</id><title type="text">{name}</title>
<content type="application/xml"><{kind}
 xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect">{inner}</{kind}>
</content></entry>"""

COUNTS = """<CountDetails xmlns:d2p1="http://schemas.microsoft.com/netservices/2011/06/servicebus">
<d2p1:ActiveMessageCount>{active}</d2p1:ActiveMessageCount>
<d2p1:DeadLetterMessageCount>{dead}</d2p1:DeadLetterMessageCount></CountDetails>"""


def entry(name: str, kind: str, inner: str = "") -> str:
    """What management answers about a topic or a subscription."""
    return ENTRY.format(name=name, kind=kind, inner=inner)


def setting(body: str, name: str) -> str | None:
    found = re.search(rf"<(?:\w+:)?{name}>([^<]*)<", body)
    return found[1] if found else None


def seconds(body: str, name: str, default: float) -> float:
    text = setting(body, name)
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?", text or "")
    if found is None:
        return default
    days, hours, minutes, rest = (float(each or 0) for each in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


class Administration(BaseHTTPRequestHandler):
    """Makes and deletes topics and subscriptions."""

    namespace: Namespace
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        path, (topic, _, name) = self.split()
        topics = self.namespace.topics
        if name and topic not in topics:
            self.reply(404)
        elif name:
            subscriptions = topics[topic].subscriptions
            is_new = name not in subscriptions
            if is_new:
                subscriptions[name] = Queue(
                    lock_seconds=seconds(body, "LockDuration", 60.0),
                    most_deliveries=int(setting(body, "MaxDeliveryCount") or 10),
                    has_sessions=setting(body, "RequiresSession") == "true",
                )
            self.reply(201 if is_new else 409, entry(path, "SubscriptionDescription"))
        else:
            is_new = topic not in topics
            if is_new:
                window = seconds(body, "DuplicateDetectionHistoryTimeWindow", 60.0)
                wanted = setting(body, "RequiresDuplicateDetection") == "true"
                topics[topic] = Topic(window if wanted else 0.0)
            self.reply(201 if is_new else 409, entry(path, "TopicDescription"))

    def do_GET(self) -> None:
        path, _ = self.split()
        try:
            queue = self.namespace.queue(path)
        except NotFound:
            self.reply(404)
            return
        counts = COUNTS.format(active=len(queue), dead=len(queue.dead or ()))
        self.reply(200, entry(path, "SubscriptionDescription", counts))

    def do_DELETE(self) -> None:
        _, (topic, _, name) = self.split()
        owner: Any = self.namespace.topics
        if name:
            owner = owner[topic].subscriptions if topic in owner else {}
        self.reply(200 if owner.pop(name or topic, None) is not None else 404)

    def split(self) -> tuple[str, tuple[str, str, str]]:
        path = unquote(urlsplit(self.path).path).strip("/")
        return path, path.lower().partition("/subscriptions/")

    def reply(self, status: int, body: str = "") -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/atom+xml;type=entry;charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """The log is for what went wrong."""


def main() -> None:
    port, administration = map(int, sys.argv[1:])
    namespace = Namespace()
    handler = type("Handler", (Administration,), {"namespace": namespace})
    server = ThreadingHTTPServer(("127.0.0.1", administration), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Container(Peer(namespace, port)).run()


if __name__ == "__main__":
    main()
