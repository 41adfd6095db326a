import asyncio
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.errors import (
    DisconnectedError,
    PeerChangedError,
    PeerClosedError,
    RpcError,
    StreamNotFoundError,
)
from afresh.rpc.streams import RpcStream

from .ends import NOBODY, Ends, Feed, Message, numbers, read, read_on, turns

WHERE = "not found or disconnected"


async def begun(ends: Ends, feed: Feed, count: int = 3, **rules: Any) -> RpcStream[Any]:
    """A stream of which `count` items were read."""
    feed.put(*range(count))
    stream = ends.stream(feed.follow(), **rules)
    for number in range(count):
        assert await anext(stream) == number
    return stream


class TestSamePeer:
    async def test_a_stream_goes_on_where_it_was(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.disconnect()
        feed.put(3, 4, 5, None)
        await turns()
        assert feed.given == 6
        await ends.reconnect()
        assert await read_on(stream) == [3, 4, 5]
        assert ends.reader.named("$sys.Ack")[-1] == (3, ends.owner.peer_id)
        await turns()
        assert ends.counts == (0, 0)

    async def test_what_was_received_and_not_read_is_not_sent_again(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        feed.put(3, 4, 5)
        await turns()
        ends.disconnect()
        await ends.reconnect()
        feed.put(None)
        assert await read_on(stream) == [3, 4, 5]
        assert ends.owner.items_sent == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("times", [2, 3, 10])
    async def test_connections_that_come_and_go_while_nobody_reads_do_not_pile_up_items(
        self, ends: Ends, times: int
    ):
        feed = Feed()
        stream = await begun(ends, feed, ack_period=5, ack_advance=10)
        feed.put(*range(3, 200), None)
        for _ in range(times):
            await turns()
            ends.disconnect()
            await ends.reconnect()
        await turns()
        assert max(ends.owner.items_sent) <= 3 + 2 * 10 + 5
        assert await read_on(stream) == list(range(3, 200))

    async def test_items_that_got_lost_under_way_are_sent_again(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        feed.put(3, 4, 5)
        await turns(2)
        ends.disconnect()
        await ends.reconnect()
        feed.put(None)
        assert await read_on(stream) == [3, 4, 5]

    async def test_an_end_that_got_lost_is_sent_again(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.disconnect()
        feed.put(ValueError("broken"))
        await turns()
        await ends.reconnect()
        with pytest.raises(ValueError, match="broken"):
            await anext(stream)

    async def test_a_source_keeps_running_while_disconnected_within_the_window(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed, ack_period=5, ack_advance=10)
        ends.disconnect()
        feed.put(*range(3, 100))
        await turns()
        assert feed.given == 10
        await ends.reconnect()
        assert [await anext(stream) for _ in range(90)] == list(range(3, 93))

    async def test_a_stream_begun_while_disconnected_starts_with_the_connection(self, ends: Ends):
        for allow_reconnect in (True, False):
            stream = ends.stream(numbers(3), allow_reconnect=allow_reconnect)
            ends.disconnect()
            task = asyncio.ensure_future(read(stream))
            await turns()
            assert not task.done()
            await ends.reconnect()
            assert await task == [0, 1, 2]

    async def test_leaving_while_disconnected_is_told_with_the_next_connection(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.disconnect()
        await stream.aclose()
        assert ends.counts == (1, 0)
        await ends.reconnect()
        await turns()
        assert feed.is_closed
        assert ends.counts == (0, 0)
        ends.disconnect()
        await ends.reconnect()
        assert len(ends.reader.named("$sys.AckEnd")) == 1

    async def test_leaving_while_disconnected_is_not_told_to_another_peer(self, ends: Ends):
        stream = await begun(ends, Feed())
        ends.disconnect()
        await stream.aclose()
        await ends.reconnect(is_same_peer=False)
        assert ends.reader.named("$sys.AckEnd") == []


class TestWithoutReconnect:
    async def test_the_reader_gets_what_has_come_and_then_an_error(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed, allow_reconnect=False)
        feed.put(3, 4)
        await turns()
        ends.disconnect()
        assert [await anext(stream), await anext(stream)] == [3, 4]
        with pytest.raises(DisconnectedError, match="disconnected"):
            await anext(stream)

    async def test_the_owner_closes_the_source(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed, allow_reconnect=False)
        ends.disconnect()
        await turns()
        del stream
        assert feed.is_closed
        assert ends.counts == (0, 0)

    async def test_a_gap_fails_it(self, ends: Ends):
        stream = await begun(ends, Feed(), allow_reconnect=False)
        ends.reader.say("$sys.I:2", 1, 7, 7)
        with pytest.raises(RpcError, match="does not allow to ask again"):
            await anext(stream)

    async def test_a_reset_disconnects_it(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed, allow_reconnect=False)
        ends.owner.say("$sys.Ack:2", 1, 1, ends.owner.peer_id)
        await turns()
        assert feed.is_closed
        with pytest.raises(StreamNotFoundError, match=WHERE):
            await anext(stream)


class TestAnotherPeer:
    async def test_streams_fail_and_say_why(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.disconnect()
        await ends.reconnect(is_same_peer=False)
        with pytest.raises(PeerChangedError, match="Ask for it again"):
            await anext(stream)
        await turns()
        assert feed.is_closed
        assert ends.counts == (0, 0)
        assert ends.reader.named("$sys.AckEnd") == []

    async def test_a_stream_of_the_last_peer_that_was_not_begun_fails_too(self, ends: Ends):
        stream = ends.stream(numbers(3))
        ends.disconnect()
        await ends.reconnect(is_same_peer=False)
        with pytest.raises(PeerChangedError):
            await read(stream)

    async def test_a_stream_shared_for_a_call_that_still_waits_stays_good(self, ends: Ends):
        ends.disconnect()
        reference = ends.owner.table.share(RpcStream(numbers(3), item_type=int))
        await ends.reconnect(is_same_peer=False)
        assert await read(ends.reader.table.open(reference, int)) == [0, 1, 2]


async def test_a_closed_peer_fails_its_streams_and_begins_none(ends: Ends):
    stream = await begun(ends, Feed())
    later = ends.stream(numbers(3))
    error = PeerClosedError("closed")
    ends.reader.table.close(error)
    for closed in (stream, later):
        with pytest.raises(PeerClosedError):
            await anext(closed)
    with pytest.raises(PeerClosedError):
        ends.reader.table.share(RpcStream(numbers(3)))


class TestWhatAnOwnerIsTold:
    """Acknowledgements in all kinds of states; the test plays the consumer."""

    def ack(self, ends: Ends, index: int, host: uuid.UUID | None = None, id: int = 1) -> None:
        ends.owner.say("$sys.Ack:2", id, index, ends.owner.peer_id if host is None else host)

    async def shared(self, ends: Ends, count: int = 5, **rules: Any) -> Feed:
        feed = Feed()
        feed.put(*range(count))
        ends.owner.table.share(RpcStream(feed.follow(), item_type=int, **rules))
        return feed

    async def is_gone(self, ends: Ends) -> bool:
        await turns()
        return ends.owner.named("$sys.Disconnect") == [([1],)] and not len(ends.owner.table)

    async def test_of_an_unknown_stream(self, ends: Ends):
        self.ack(ends, 0)
        assert await self.is_gone(ends)

    async def test_the_end_of_an_unknown_stream(self, ends: Ends):
        ends.owner.say("$sys.AckEnd:1", 1, ends.owner.peer_id)
        assert await self.is_gone(ends)

    async def test_a_reset_for_another_host(self, ends: Ends):
        await self.shared(ends)
        self.ack(ends, 0, uuid.uuid4())
        assert await self.is_gone(ends)

    @pytest.mark.parametrize(("index", "is_reset"), [(1, True), (0, False), (-1, True)])
    async def test_anything_but_a_start_before_the_start(
        self, ends: Ends, index: int, is_reset: bool
    ):
        await self.shared(ends)
        self.ack(ends, index, None if is_reset else NOBODY)
        assert await self.is_gone(ends)

    @pytest.mark.parametrize("is_reset", [True, False])
    @pytest.mark.parametrize("index", [-1, 6, 10**15])
    async def test_numbers_that_were_never_sent(self, ends: Ends, index: int, is_reset: bool):
        feed = await self.shared(ends)
        self.ack(ends, 0)
        await turns()
        self.ack(ends, index, None if is_reset else NOBODY)
        assert await self.is_gone(ends)
        assert feed.is_closed

    async def test_a_reset_sends_again_from_there(self, ends: Ends):
        await self.shared(ends)
        self.ack(ends, 0)
        await turns()
        self.ack(ends, 3)
        await turns()
        assert ends.owner.items_sent == [0, 1, 2, 3, 4, 3, 4]

    async def test_a_reset_after_the_end_sends_the_end_again(self, ends: Ends):
        feed = await self.shared(ends)
        feed.put(None)
        self.ack(ends, 0)
        await turns()
        self.ack(ends, 4)
        await turns()
        self.ack(ends, 5)
        await turns()
        assert ends.owner.items_sent == [0, 1, 2, 3, 4, 4]
        assert [index for index, _ in ends.owner.named("$sys.End")] == [5, 5, 5]

    async def test_many_resets_in_one_turn_are_answered_once(self, ends: Ends):
        await self.shared(ends)
        self.ack(ends, 0)
        await turns()
        for _ in range(100):
            self.ack(ends, 0)
        await turns()
        assert ends.owner.items_sent == [0, 1, 2, 3, 4] * 2

    async def test_a_reset_to_what_is_not_kept_ends_the_stream_with_an_error(self, ends: Ends):
        await self.shared(ends)
        self.ack(ends, 0)
        await turns()
        self.ack(ends, 3, NOBODY)
        self.ack(ends, 2)
        await turns()
        index, info = ends.owner.named("$sys.End")[0]
        assert (index, bool(info)) == (2, True)

    async def test_progress_that_goes_back_means_nothing(self, ends: Ends):
        await self.shared(ends, 20, ack_period=2, ack_advance=5)
        self.ack(ends, 0)
        await turns()
        self.ack(ends, 4, NOBODY)
        self.ack(ends, 2, NOBODY)
        await turns()
        assert ends.owner.items_sent == list(range(9))

    async def test_progress_beyond_a_reset_jumps_there(self, ends: Ends):
        await self.shared(ends)
        self.ack(ends, 0)
        await turns()
        self.ack(ends, 1)
        self.ack(ends, 4, NOBODY)
        await turns()
        assert ends.owner.items_sent == [0, 1, 2, 3, 4, 4]

    async def test_the_end_stops_it_at_any_time(self, ends: Ends):
        feed = await self.shared(ends)
        self.ack(ends, 0)
        await turns()
        ends.owner.say("$sys.AckEnd:1", 1, NOBODY)
        await turns()
        assert feed.is_closed
        assert ends.owner.named("$sys.Disconnect") == []

    async def test_a_start_and_an_end_at_once(self, ends: Ends):
        await self.shared(ends)
        self.ack(ends, 0)
        ends.owner.say("$sys.AckEnd:1", 1, ends.owner.peer_id)
        await turns()
        assert ends.counts == (0, 0)
        assert ends.owner.items_sent == []


class TestWhatAReaderIsTold:
    async def test_duplicates_mean_nothing(self, ends: Ends):
        stream = await begun(ends, Feed())
        ends.reader.say("$sys.I:2", 1, 0, 100)
        ends.reader.say("$sys.B:2", 1, 1, [101, 102])
        ends.reader.say("$sys.I:2", 1, 3, 3)
        assert await anext(stream) == 3

    async def test_a_batch_that_is_known_in_part_gives_the_rest(self, ends: Ends):
        stream = await begun(ends, Feed())
        ends.reader.say("$sys.B:2", 1, 1, [101, 102, 3, 4])
        assert [await anext(stream), await anext(stream)] == [3, 4]

    async def test_an_end_before_its_time_means_nothing(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.reader.say("$sys.End:2", 1, 2, {"TypeRef": "", "Message": ""})
        feed.put(3, None)
        assert await read_on(stream) == [3]

    async def test_a_gap_is_filled(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)

        def without_three(messages: list[Message]) -> list[Message]:
            return [message for message in messages if message.values[0] != 3]

        ends.owner.fault = without_three
        for number in range(3, 9):
            feed.put(number)
            await turns(3)
        ends.owner.fault = list
        feed.put(None)
        assert await read_on(stream) == [3, 4, 5, 6, 7, 8]

    async def test_all_that_comes_behind_a_gap_in_one_turn_asks_for_it_once(self, ends: Ends):
        stream = await begun(ends, Feed())
        for index in (5, 6, 7):
            ends.reader.say("$sys.I:2", 1, index, index)
        await turns()
        await stream.aclose()
        resets = [index for index, host in ends.reader.named("$sys.Ack") if host != NOBODY]
        assert resets == [0, 3]

    async def test_a_gap_before_the_end_is_asked_for(self, ends: Ends):
        feed = Feed()
        stream = await begun(ends, feed)
        ends.owner.fault = lambda messages: []
        feed.put(3)
        await turns()
        ends.owner.fault = list
        feed.put(None)
        assert await read_on(stream) == [3]

    async def test_a_stream_that_is_gone_fails(self, ends: Ends):
        stream = await begun(ends, Feed())
        ends.reader.say("$sys.Disconnect:1", 0, [5, 1])
        with pytest.raises(StreamNotFoundError, match=WHERE):
            await anext(stream)
        assert ends.reader.named("$sys.AckEnd") == []

    async def test_a_number_in_use_replaces_the_stream_that_had_it(self, ends: Ends):
        stream = await begun(ends, Feed())
        reference = ends.owner.table.share(RpcStream(numbers(3)))._replace(local_id=1)
        ends.reader.fault = lambda messages: []  # the owner knows nothing of what follows
        task = asyncio.ensure_future(read(ends.reader.table.open(reference, int)))
        with pytest.raises(StreamNotFoundError):
            await anext(stream)
        await turns()
        ends.reader.say("$sys.I:2", 1, 0, 42)
        ends.reader.say("$sys.End:2", 1, 1, {"TypeRef": "", "Message": ""})
        assert await task == [42]


@given(data=st.data())
async def test_whatever_happens_on_the_way_all_items_arrive_in_order(data: st.DataObject):
    count = data.draw(st.integers(0, 60), "count")
    period = data.draw(st.integers(1, 12), "period")
    advance = data.draw(st.integers(period, 30), "advance")
    pauses = data.draw(st.sets(st.integers(0, count)), "pauses")
    naps = data.draw(st.sets(st.integers(0, count)), "naps")
    ends = Ends(data.draw(st.sampled_from(["json5np", "msgpack6c"]), "format"))
    stream = ends.stream(
        numbers(count, pauses.__contains__), ack_period=period, ack_advance=advance
    )
    seen: list[int] = []

    async def reader() -> None:
        async for item in stream:
            seen.append(item)
            if item in naps:
                await turns(3)

    faults = data.draw(
        st.lists(st.sampled_from(["cut", "drop", "double", "swap", "late", "none"]), max_size=12),
        "faults",
    )
    late: list[Message] = []

    def faulty(messages: list[Message]) -> list[Message]:
        messages, late[:] = messages + late, []
        if not faults:
            return messages
        match faults.pop():
            case "drop":
                return messages[1:]
            case "double":
                return messages * 2
            case "swap":
                return messages[::-1]
            case "late":
                late.extend(messages[1:])
                return messages[:1]
            case "cut":
                cut.append(True)
                return []
        return messages

    cut: list[bool] = []
    ends.owner.fault = faulty
    task = asyncio.ensure_future(reader())
    for _ in range(400):
        await turns(4)
        if task.done():
            break
        # What is lost on a connection that goes on is found when the next one is made.
        if cut or not _ % 20:
            cut.clear()
            ends.disconnect()
            await ends.reconnect()
    assert task.done()
    await task
    assert seen == list(range(count))
    await turns()
    ends.close()
    await turns()
    assert ends.counts == (0, 0)
