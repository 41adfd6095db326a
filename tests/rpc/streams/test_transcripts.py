"""The streams of a recorded conversation, in which our side takes the part of either."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from afresh.rpc.streams import RpcStream
from afresh.rpc.streams.reference import coding

from .ends import ARGUMENTS, NOBODY, End, Ends, numbers, turns

VECTORS = Path(__file__).parents[1] / "vectors"
CONVERSATION = json.loads((VECTORS / "transcripts.json").read_text(encoding="utf-8"))[
    "conversations"
][0]
STEPS = {
    step["step"]: step["frames"]
    for step in CONVERSATION["steps"]
    if step["step"].startswith("stream of")
}

each_step = pytest.mark.parametrize(
    ("step", "count", "read"),
    [
        ("stream of 5 read to the end", 5, 5),
        ("stream of 70 read to the end (progress acks)", 70, 70),
        ("stream of 100, left after 3 items", 100, 3),
    ],
)


def messages(ends: Ends, frames: list[dict[str, Any]], direction: str) -> list[tuple[Any, ...]]:
    """What one side said: method, related id, argument section."""
    found = []
    for frame in frames:
        if frame["dir"] == direction:
            incoming, error = ends.format.decode(frame["text"].encode())
            assert error is None
            found += [
                (ends.format.method_name(key), related_id, arguments)
                for _, related_id, key, arguments, _ in incoming
            ]
    return found


def play(end: End, said: tuple[Any, ...]) -> None:
    method, related_id, arguments = said
    end.table.handlers[method](related_id, arguments)


@pytest.fixture
def ends() -> Ends:
    return Ends(CONVERSATION["format"])


@each_step
async def test_as_the_reader(ends: Ends, step: str, count: int, read: int):
    said = messages(ends, STEPS[step], "s2c")
    answer, *items = said
    with coding(ends.reader.table):
        stream = ends.format.codec((RpcStream[int],)).decode_one(answer[2])
    ends.reader.fault = lambda messages: []
    seen: list[int] = []

    async def reader() -> None:
        async for item in stream:
            seen.append(item)
            if len(seen) == read < count:
                break

    task = asyncio.ensure_future(reader())
    await turns()
    for message in items:
        play(ends.reader, message)
        await turns(2)
    await task
    await turns()
    assert seen == list(range(read))
    expected = [
        (method, tuple(ends.format.codec(ARGUMENTS[method]).decode(arguments)))
        for method, _, arguments in messages(ends, STEPS[step], "c2s")[1:]
    ]
    assert [(message.name, message.values) for message in ends.reader.sent] == expected
    assert ends.counts == (0, 0)


@each_step
async def test_as_the_owner(ends: Ends, step: str, count: int, read: int):
    (_, _, reference), *sent = messages(ends, STEPS[step], "s2c")
    host, local_id, *_ = json.loads(reference).split(",")
    ends.owner.peer_id = type(NOBODY)(host)
    ends.owner.table._last_id = int(local_id) - 1
    stream = RpcStream(numbers(count), ack_period=30, ack_advance=61)
    assert ends.carry(stream, RpcStream[int]).ack_advance == 61
    _, *acknowledgements = messages(ends, STEPS[step], "c2s")
    for message in acknowledgements:
        play(ends.owner, message)
        await turns()
    expected = [arguments for method, _, arguments in sent if method == "$sys.I:2"]
    if read == count:  # else it depends on when the reader left
        assert len(ends.owner.items_sent) == len(expected) == count
        assert [index for index, _ in ends.owner.named("$sys.End")] == [count]
    assert ends.owner.items_sent == list(range(len(ends.owner.items_sent)))
    assert ends.counts == (0, 0)
