"""Compressed frames: what is compressed, what a window carries over, what damage does."""

import importlib.util
import random

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.errors import UnknownFormatError
from afresh.rpc.formats import Compression, FrameError, get_format
from afresh.rpc.formats import compression as settings

LIMIT = 1 << 24


def pair(key: str) -> tuple[Compression, Compression]:
    """The two ends of a connection: the server's and the client's."""
    ends = [get_format(key).compression(is_server=is_server) for is_server in (True, False)]
    assert ends[0] is not None
    assert ends[1] is not None
    return ends[0], ends[1]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("key", ["json5", "json5np", "msgpack6", "msgpack6c"])
def test_ordinary_formats_compress_nothing(key):
    assert get_format(key).compression(is_server=True) is None
    assert get_format(key).compression(is_server=False) is None


@pytest.mark.parametrize("key", ["msgpack6", "msgpack6c"])
def test_a_compressed_format_writes_the_same_messages(key):
    ordinary, compressed = get_format(key), get_format(f"{key}-lz4")
    write = "A.b:1", 1
    assert compressed.writer(*write)(7, b"\x01") == ordinary.writer(*write)(7, b"\x01")
    assert compressed.key == f"{key}-lz4"


def test_a_one_way_format_compresses_what_servers_send():
    server, client = pair("msgpack6c-lz4")
    frame = b"abc" * 1000
    assert client.pack(frame) == frame
    assert server.unpack(frame, LIMIT) == frame
    packed = server.pack(frame)
    assert len(packed) < 100
    assert client.unpack(packed, LIMIT) == frame


def test_a_full_format_compresses_both_ways():
    server, client = pair("msgpack6-lz4f")
    frame = b"abc" * 1000
    for sender, receiver in ((server, client), (client, server)):
        packed = sender.pack(frame)
        assert len(packed) < 100
        assert receiver.unpack(packed, LIMIT) == frame


def test_a_block_is_an_ordinary_one_after_its_length():
    server, _ = pair("msgpack6-lz4")
    frame = b"abc" * 1000
    packed = server.pack(frame)
    assert packed[0] == 0x80
    assert int.from_bytes(packed[1:3], "little") == len(packed) - 3
    assert lz4.block.decompress(packed[3:], uncompressed_size=3000) == frame


def test_small_frames_go_as_they_are_and_leave_the_window_alone():
    server, client = pair("msgpack6-lz4")
    small = noise(settings.MIN_SIZE - 1)
    large = noise(settings.MIN_SIZE)
    for frame in (small, b"", large, small, large):
        packed = server.pack(frame)
        assert packed[0] & 0x80 == (0x80 if len(frame) >= settings.MIN_SIZE else 0)
        assert client.unpack(packed, LIMIT) == frame
    # Noise has nothing to compress in itself, but the second large one repeats the first.
    assert len(packed) < 50


def test_a_window_reaches_over_blocks_and_frames():
    server, client = pair("msgpack6-lz4")
    frame = noise(40_000)
    first = server.pack(frame)
    second = server.pack(frame)
    assert len(first) > 40_000
    assert len(second) < 1000
    assert [client.unpack(packed, LIMIT) for packed in (first, second)] == [frame, frame]


def test_the_context_ends_after_so_many_bytes():
    server, client = pair("msgpack6-lz4")
    flags = []
    for _ in range(6):
        packed = server.pack(bytes(64 * 1024))
        flags.append(packed[0])
        assert client.unpack(packed, LIMIT) == bytes(64 * 1024)
    assert flags == [0x80, 0x80, 0xC0, 0x80, 0xC0, 0x80]


def test_the_context_ends_after_so_many_frames(monkeypatch):
    monkeypatch.setattr(settings, "CONTEXT_FRAMES", 3)
    server, client = pair("msgpack6-lz4")
    frame = bytes(settings.MIN_SIZE)
    packed = [server.pack(frame) for _ in range(5)]
    assert [each[0] for each in packed] == [0x80, 0x80, 0x80, 0xC0, 0x80]
    assert [client.unpack(each, LIMIT) for each in packed] == [frame] * 5


def test_a_frame_that_is_too_large_when_decompressed_is_refused_before_it_takes_the_memory():
    server, client = pair("msgpack6-lz4")
    packed = server.pack(bytes(1 << 24))
    assert len(packed) < 100_000
    with pytest.raises(FrameError, match="more than 100,000 bytes"):
        client.unpack(packed, 100_000)


@given(st.lists(st.binary(max_size=3000) | st.builds(bytes, st.integers(0, 40_000)), max_size=8))
def test_what_was_packed_is_unpacked(frames):
    server, client = pair("msgpack6c-lz4f")
    for frame in frames:
        assert client.unpack(server.pack(frame), LIMIT) == frame
        assert server.unpack(client.pack(frame), LIMIT) == frame


@given(st.binary(max_size=200), st.sampled_from([0x00, 0x40, 0x80, 0xC0, 0xFF]))
def test_garbage_is_refused_or_read_but_nothing_else(garbage, flags):
    _, client = pair("msgpack6c-lz4")
    client.unpack(pair("msgpack6c-lz4")[0].pack(bytes(5000)), LIMIT)
    for frame in (garbage, bytes((flags,)) + garbage):
        try:
            assert len(client.unpack(frame, LIMIT)) <= 255 * len(frame)
        except FrameError:
            pass


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_frame_that_was_cut_is_refused(cut):
    server, client = pair("msgpack6c-lz4")
    packed = server.pack(b"abc" * 1000)
    with pytest.raises(FrameError):
        client.unpack(packed[:-cut], LIMIT)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(
        "afresh.rpc.formats.registry.find_spec",
        lambda name: None if name == "lz4" else importlib.util.find_spec(name),
    )
    with pytest.raises(UnknownFormatError, match=r"pip install 'afresh\[lz4\]'"):
        get_format("msgpack6c-lz4")
    assert get_format("msgpack6c").key == "msgpack6c"
