"""Limits are on by default; over one the caller gets an error, and the connection lives."""

import asyncio
import dataclasses
import logging
import math
from typing import Any

import pytest

from afresh.errors import FormatError, LimitError, RejectedError, RpcError
from afresh.rpc.limits import Limits
from afresh.rpc.middleware import Proceed, Request
from afresh.rpc.transports.connection import ConnectRequest
from afresh.testing import FakeClock
from tests.rpc.pair import Pair, until
from tests.rpc.workshop import OpenWorkshop, Workshop


def test_every_limit_is_on_by_default() -> None:
    limits = Limits()
    for field in dataclasses.fields(limits):
        if field.name != "reconnect_delays":
            assert 0 < getattr(limits, field.name) < math.inf


def test_the_sizes_are_those_of_the_protocol() -> None:
    limits = Limits()
    assert limits.max_frame == 16_711_680
    assert limits.max_handshake_frame == 16_384
    assert limits.max_arguments == 16_252_928
    assert limits.max_objects == 65_536
    assert (limits.connect_timeout, limits.handshake_timeout) == (10, 10)
    assert (limits.keep_alive_period, limits.keep_alive_timeout) == (10, 25)


def test_messages_always_fit_into_frames() -> None:
    limits = Limits(max_frame=1_000_000)
    assert limits.max_arguments < 1_000_000
    assert 4 * Limits(max_frame=100_000).batch <= 100_000
    with pytest.raises(ValueError, match="max_frame"):
        Limits(max_frame=1000)


# -- calls


async def test_calls_that_come_together_are_counted_before_they_begin() -> None:
    pair = Pair(limits=Limits(max_inbound_calls=3))
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    await pair.peer.connect()
    calls = [asyncio.create_task(workshop.work(str(number))) for number in range(10)]
    await until(lambda: sum(call.done() for call in calls) == 7)
    assert open_workshop.running == 3
    open_workshop.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[:3] == ["0", "1", "2"]
    assert all(isinstance(result, LimitError) for result in results[3:])
    assert await workshop.work("later") == "later"
    assert len(pair.connector.links) == 1
    await pair.aclose()


async def test_calls_that_nobody_waits_for_are_counted_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair = Pair(limits=Limits(max_inbound_calls=3))
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    await pair.peer.connect()
    for number in range(10):
        await workshop.note_slowly(str(number))
    await until(lambda: open_workshop.running == 3)
    assert len(pair.server_peer.inbound) == 3
    assert caplog.text.count("max_inbound_calls") == 7
    with pytest.raises(LimitError):
        await workshop.work("one more")
    open_workshop.gate.set()
    await until(lambda: not pair.server_peer.inbound)
    assert await workshop.add(1, 2) == 3
    await pair.aclose()


async def test_calls_that_nobody_waits_for_end_with_the_peer() -> None:
    pair = Pair()
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    await pair.peer.connect()
    await workshop.note_slowly("a")
    await until(lambda: open_workshop.running)
    pair.server_peer.close()
    await until(lambda: not open_workshop.running)
    await pair.aclose()


async def test_a_call_that_comes_again_takes_no_place_of_another() -> None:
    pair = Pair(limits=Limits(max_inbound_calls=1))
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    call = asyncio.create_task(workshop.work("a"))
    await until(lambda: open_workshop.running)
    (sent,) = pair.peer.outbound.values()
    for _ in range(5):
        pair.peer.send(sent.message())
    with pytest.raises(LimitError):
        await workshop.work("b")
    assert not call.done()
    open_workshop.gate.set()
    assert await call == "a"
    assert open_workshop.runs == {"a": 1}
    assert pair.server_peer.queued == 0
    await pair.aclose()


async def test_too_many_calls_are_not_even_sent() -> None:
    pair = Pair(client={"limits": Limits(max_outbound_calls=2)})
    open_workshop = OpenWorkshop()
    workshop = pair.service(Workshop, open_workshop)
    calls = [asyncio.create_task(workshop.work(name)) for name in "ab"]
    await until(lambda: open_workshop.running == 2)
    with pytest.raises(LimitError, match="max_outbound_calls"):
        await workshop.add(1, 2)
    open_workshop.gate.set()
    assert await asyncio.gather(*calls) == ["a", "b"]
    assert await workshop.add(1, 2) == 3
    await pair.aclose()


# -- sizes


async def test_a_result_that_is_too_large_fails_its_call_also_when_it_comes_late() -> None:
    pair = Pair(limits=Limits(max_arguments=1000))
    workshop = pair.service(Workshop, OpenWorkshop())
    for method in (workshop.blob, workshop.late_blob):
        with pytest.raises(LimitError, match="max_arguments"):
            await method(2000)
        assert await method(10) == bytes(10)
    assert not pair.server_peer.inbound
    assert len(pair.connector.links) == 1
    await pair.aclose()


async def test_what_fits_one_by_one_is_never_put_into_a_frame_that_is_too_large() -> None:
    limits = Limits(max_frame=100_000)
    pair = Pair(limits=limits, client={"limits": limits})
    workshop = pair.service(Workshop, OpenWorkshop())
    calls = [workshop.weigh(bytes(limits.max_arguments - 10)) for _ in range(20)]
    assert await asyncio.gather(*calls) == [limits.max_arguments - 10] * 20
    results = await asyncio.gather(*(workshop.blob(20_000) for _ in range(20)))
    assert results == [bytes(20_000)] * 20
    assert pair.connector.attempts == 1
    await pair.aclose()


async def test_a_frame_over_the_limit_closes_the_connection() -> None:
    pair = Pair(limits=Limits(max_frame=100_000))
    workshop = pair.service(Workshop, OpenWorkshop())
    await pair.peer.connect()
    link = pair.connector.links[-1]
    link.client.send(bytes(100_001))
    await until(lambda: not pair.server_peer.is_connected)
    assert "frame too big" in str(pair.server_peer.connection_state.error)
    pair.peer.reconnect_now()
    assert await workshop.add(1, 2) == 3
    await pair.aclose()


async def test_nobody_unknown_may_send_a_large_frame() -> None:
    pair = Pair()
    sent: list[int] = []

    class Rude:
        is_text = False

        def connection_made(self, connection: Any) -> None:
            connection.send(bytes(16_385))

        def frame_received(self, frame: bytes) -> None:
            sent.append(len(frame))

        def connection_lost(self, error: Exception | None) -> None:
            sent.append(-1)
            assert "frame too big" in str(error)

    await pair.connector(Rude(), ConnectRequest("rude", "msgpack6c"))
    await until(lambda: -1 in sent)
    assert not pair.server.peers
    await pair.aclose()


@pytest.mark.parametrize("is_connected", [True, False])
@pytest.mark.parametrize("headers", [[("name", "x" * 2000)], [("x" * 300, "")], [("a", "b")] * 32])
async def test_headers_that_are_too_long_or_many_fail_their_call_alone(
    is_connected: bool, headers: list[tuple[str, str]]
) -> None:
    async def add_headers(request: Request, proceed: Proceed) -> Any:
        if request.method.name == "work":
            request.headers.extend(headers)
        return await proceed()

    pair = Pair(client={"outbound_middleware": [add_headers]})
    workshop = pair.service(Workshop, OpenWorkshop())
    if is_connected:
        await pair.peer.connect()
    with pytest.raises(FormatError, match="header"):
        await workshop.work("a")
    assert not pair.peer.outbound
    assert await workshop.add(1, 2) == 3
    assert pair.connector.attempts == 1
    await pair.aclose()


# -- peers and log


async def test_a_server_that_has_no_place_is_no_reason_to_give_up(clock: FakeClock) -> None:
    pair = Pair()
    pair.connector.error = RejectedError("as many clients as it can take", 503)
    workshop = pair.service(Workshop, OpenWorkshop())
    call = asyncio.create_task(workshop.add(1, 2))
    await clock.advance(30)
    assert pair.connector.attempts > 3
    pair.connector.error = None
    await clock.advance(30)
    assert await call == 3
    await pair.aclose()


async def test_what_the_other_side_does_wrong_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair = Pair()
    workshop = pair.service(Workshop, OpenWorkshop())
    await pair.peer.connect()
    write = pair.peer.format.writer("No.such:1")
    caplog.set_level(logging.WARNING)
    for _ in range(1000):
        pair.peer.send(write(0, b""))
    assert await workshop.add(1, 2) == 3
    assert 10 < len(caplog.records) < 30
    await pair.aclose()


async def test_an_unfinished_reconciliation_of_another_size_is_refused() -> None:
    pair = Pair(limits=Limits(max_inbound_calls=10))
    workshop = pair.service(Workshop, OpenWorkshop())
    await pair.peer.connect()
    peer = pair.peer
    ids = peer.format.codec((int, dict[int, bytes])).encode((1, {0: b"\1" * 1000}))
    answers: list[bytes] = []
    peer._system.handlers[peer.format.method_key("$sys.Error:1")] = (
        lambda related_id, arguments, headers: answers.append(arguments)
    )
    peer.send(peer.format.writer("$sys.Reconnect:3")(77, ids))
    await until(lambda: answers)
    assert b"max_inbound_calls" in answers[0]
    assert await workshop.add(1, 2) == 3
    await pair.aclose()


async def test_arguments_that_cannot_be_read_fail_their_call_alone(pair: Pair) -> None:
    workshop = pair.service(Workshop, OpenWorkshop())
    await pair.peer.connect()
    with pytest.raises(RpcError):
        await workshop.add("a", [])  # type: ignore[arg-type]
    assert await workshop.add(1, 2) == 3
    assert len(pair.connector.links) == 1
