"""A peer that says whatever a test wants, to a server or to a client that expects a real one."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Self
from uuid import UUID

from hypothesis import strategies as st

from afresh.errors import FormatError
from afresh.rpc.formats import Format, get_format
from afresh.rpc.handshake import HANDSHAKE, Handshake
from afresh.rpc.hub import RpcHub
from afresh.rpc.transports.connection import Connection, ConnectRequest, Receiver
from afresh.rpc.transports.memory import MemoryConnector, MemoryLink

SYSTEM_CALLS = [
    "$sys.Ok:1",
    "$sys.Error:1",
    "$sys.M:0",
    "$sys.Cancel:0",
    "$sys.KeepAlive:1",
    "$sys.Reconnect:3",
    "$sys.Handshake:1",
    "$sys.Ack:2",
    "$sys.AckEnd:1",
    "$sys.I:2",
    "$sys.B:2",
    "$sys.End:2",
    "$sys.Disconnect:1",
    "$sys-c.Invalidate:0",
    "$sys.NotFound:2",
    "$sys.NoSuch:1",
    "$sys-x.Anything:0",
]


class Hostile:
    """One end of a connection on which everything is said by hand.

    Args:
        format: what is spoken.
    """

    def __init__(self, format: str) -> None:
        self.format: Format = get_format(format)
        self.is_text = self.format.is_text
        self.id = UUID(int=7)
        self.frames: list[bytes] = []
        self.errors: list[Exception | None] = []
        self.connection: Connection | None = None

    def connection_made(self, connection: Connection) -> None:
        self.connection = connection

    def frame_received(self, frame: bytes) -> None:
        self.frames.append(frame)

    def connection_lost(self, error: Exception | None) -> None:
        self.errors.append(error)

    async def dial(self, hub: RpcHub, *, greets: bool = True) -> None:
        """Connect to a hub, as a client."""
        request = ConnectRequest("hostile", self.format.key)
        await MemoryConnector(hub)(self, request)
        if greets:
            self.greet()

    async def answer(self, receiver: Receiver, request: ConnectRequest) -> Connection:
        """Be dialled by a client: the connector of a peer."""
        link = MemoryLink(receiver, self)
        self.greet()
        return link.client

    def greet(self) -> None:
        """Say who this is."""
        handshake = Handshake(self.id, self.id, 1)
        self.say(HANDSHAKE, 0, handshake.encode(self.format))

    def say(self, name: str, related_id: int, arguments: bytes, **more: Any) -> None:
        """Send a message."""
        self.send(self.message(name, related_id, arguments, **more))

    def message(
        self, name: str, related_id: int, arguments: bytes, call_type: int = 0, headers: Any = ()
    ) -> bytes:
        return self.format.writer(name, call_type)(related_id, arguments, headers)

    def send(self, frame: bytes) -> None:
        assert self.connection is not None
        self.connection.send(frame)

    def heard(self) -> list[tuple[str, int, bytes]]:
        """What the other side said: names, related ids, argument sections."""
        found = []
        for name in SYSTEM_CALLS:
            self.format.method_key(name)
        for frame in self.frames:
            messages, error = self.format.decode(frame)
            assert error is None
            found += [(self.format.method_name(each[2]), each[1], each[3]) for each in messages]
        return found


class Mishaps(logging.Handler):
    """Notes what was logged because the code did not foresee it."""

    SIGNS = ("receiver", "background task", "left an error behind", "raised an error", "Task ")

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR and any(sign in text for sign in self.SIGNS):
            self.texts.append(self.format(record))

    def __enter__(self) -> Self:
        for name in ("afresh", "asyncio"):
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("afresh", "asyncio"):
            logging.getLogger(name).removeHandler(self)


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- what may be said

_ids = st.one_of(
    st.integers(0, 12),
    st.sampled_from([2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]),
)
_numbers = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([-(2**63), 2**31, 2**63, 2**64 - 1, 10**30, -(10**30)]),
    st.floats(),
)
_texts = st.one_of(
    st.text(max_size=20),
    st.just(str(UUID(int=7))),
    st.just(str(UUID(int=0))),
    st.just("00000000-0000-0000-0000-000000000007,1,30,61,1,0"),
    st.just("x" * 5000),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), _numbers, _texts, st.binary(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(0, 3)), inner, max_size=3),
    ),
    max_leaves=8,
)
headers = st.lists(
    st.tuples(st.sampled_from(["#", "~p", "~s", "x"]), st.text(max_size=40)), max_size=3
)


def _or_else(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, values)


_guids = st.sampled_from([str(UUID(int=7)), str(UUID(int=0)), str(UUID(int=8)), "me"])
_errors = st.fixed_dictionaries(
    {"TypeRef": st.sampled_from(["", "System.TimeoutException", "x", "builtins.exit"])},
    optional={"Message": _texts},
)
_id_lists = st.lists(_or_else(_ids), max_size=6)
_expected: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "$sys.Handshake:1": (
        st.one_of(
            st.tuples(*map(_or_else, (_guids, st.none(), _guids, st.just(2), _numbers, _texts))),
            st.fixed_dictionaries(
                {},
                optional={
                    "RemotePeerId": _or_else(_guids),
                    "RemoteHubId": _or_else(_guids),
                    "ProtocolVersion": _or_else(st.just(2)),
                    "Index": _or_else(_numbers),
                    "RemoteApiVersionSet": values,
                    "Secret": values,
                },
            ),
        ),
    ),
    "$sys.Ok:1": (st.one_of(_numbers, _texts),),
    "$sys.Error:1": (_or_else(_errors),),
    "$sys.KeepAlive:1": (_or_else(_id_lists),),
    "$sys.Disconnect:1": (_or_else(_id_lists),),
    "$sys.Reconnect:3": (
        _or_else(_numbers),
        _or_else(st.dictionaries(st.integers(-1, 3), st.binary(max_size=12), max_size=3)),
    ),
    "$sys.Ack:2": (_or_else(_numbers), _or_else(_guids)),
    "$sys.AckEnd:1": (_or_else(_guids),),
    "$sys.I:2": (_or_else(_numbers), values),
    "$sys.B:2": (_or_else(_numbers), _or_else(st.lists(_numbers, max_size=70))),
    "$sys.End:2": (_or_else(_numbers), _or_else(_errors)),
    "Workshop.add:3": (_numbers, _numbers),
    "Workshop.blob:2": (st.integers(-1, 3000),),
    "Workshop.count_to:2": (st.integers(-1, 300),),
    "Workshop.total:2": (st.just("00000000-0000-0000-0000-000000000007,1,30,61,1,0"),),
}


@st.composite
def sections(draw: Any, format: Format, name: str) -> bytes:
    """An argument section: values as expected or of any kind, or what is none."""
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return draw(st.binary(max_size=40))
    if kind < 6 and name in _expected:
        chosen = [draw(value) for value in _expected[name]]
    else:
        chosen = draw(st.lists(values, max_size=4))
    parts = []
    for value in chosen:
        try:
            parts.append(format.codec((Any,)).encode_one(value))
        except FormatError:
            parts.append(b"\x01")
    return (b"\x1f" if format.is_text else b"").join(parts)


@st.composite
def frames(draw: Any, format: Format, names: list[str]) -> bytes:
    """A frame of messages that make some sense, perhaps with damage done to it."""
    messages = []
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(names))
        writer = format.writer(name, draw(st.sampled_from([0, 0, 0, 1, 1, 2, 7])))
        try:
            messages.append(writer(draw(_ids), draw(sections(format, name)), draw(headers)))
        except FormatError:  # the headers are too long
            messages.append(b"{}")
    frame = bytearray(format.join(messages))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 3]))):
        place = draw(st.integers(0, max(len(frame) - 1, 0)))
        damage = draw(st.integers(0, 2))
        if damage == 0:
            del frame[place:]
        elif damage == 1 and frame:
            frame[place] = draw(st.integers(0, 255))
        else:
            frame[place:place] = draw(st.binary(max_size=9))
    return bytes(frame)
