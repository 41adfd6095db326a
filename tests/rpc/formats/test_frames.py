"""How messages are laid out in frames, and what may not be written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.errors import FormatError, UnknownFormatError
from afresh.rpc.formats import get_format

FORMATS = ["json5np", "json5", "msgpack6", "msgpack6c"]
LARGEST = 2**64 - 1

names = st.text(min_size=1, max_size=300)
headers = st.lists(st.tuples(st.text(max_size=63), st.text(max_size=256)), max_size=31)
# Sections of text formats hold no control characters: JSON escapes them.
sections = st.binary(max_size=300).map(lambda data: data.translate(None, b"\x0a\x1e"))
messages = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, LARGEST), names, sections, headers), max_size=5
)


@pytest.mark.parametrize("key", FORMATS)
@given(messages=messages)
def test_messages_come_out_of_a_frame_as_they_went_in(key, messages):
    wire = get_format(key)
    frame = wire.join(
        [
            wire.writer(name, call_type)(related_id, section, headers)
            for call_type, related_id, name, section, headers in messages
        ]
    )
    assert wire.decode(frame) == (
        [
            (call_type, related_id, wire.method_key(name), section, tuple(headers))
            for call_type, related_id, name, section, headers in messages
        ],
        None,
    )


@pytest.mark.parametrize("key", FORMATS)
@pytest.mark.parametrize(
    "related_id", [0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**32, 2**56, LARGEST]
)
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 70_000])
def test_ids_and_sections_of_all_sizes(key, related_id, size):
    wire = get_format(key)
    section = b"1" * size
    message = wire.writer("S.m:1", 1)(related_id, section)
    expected = (1, related_id, wire.method_key("S.m:1"), section, ())
    assert wire.decode(wire.join([message, message])) == ([expected, expected], None)


@pytest.mark.parametrize("key", FORMATS)
def test_an_empty_frame_has_no_messages(key):
    wire = get_format(key)
    assert wire.decode(b"") == ([], None)
    assert wire.join([]) == b""


@pytest.mark.parametrize("key", FORMATS)
def test_names_of_methods_may_be_long_but_not_too_long(key):
    wire = get_format(key)
    longest = "S." + "ä" * 511
    messages, error = wire.decode(wire.writer(longest)(1, b""))
    assert error is None
    assert messages[0][2] == wire.method_key(longest)
    with pytest.raises(FormatError, match="1024 are allowed"):
        wire.writer(longest + "x")


@pytest.mark.parametrize("key", FORMATS)
def test_call_types_have_three_bits(key):
    wire = get_format(key)
    assert wire.decode(wire.writer("S.m:0", 7)(1, b""))[0][0][0] == 7
    for call_type in (-1, 8):
        with pytest.raises(ValueError, match="0 to 7"):
            wire.writer("S.m:0", call_type)


@pytest.mark.parametrize("key", FORMATS)
@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([("a", "b")] * 32, "at most 31 headers"),
        ([("a" * 256, "b")], "too long"),
        ([("a", "b" * 1025)], "too long"),
        ([("ä" * 128, "b")], "too long"),
        ([("a", "\ud800")], "no UTF-8 form"),
    ],
)
def test_headers_have_limits(key, headers, words):
    with pytest.raises(FormatError, match=words):
        get_format(key).writer("S.m:0")(1, b"", headers)


@pytest.mark.parametrize("key", FORMATS)
def test_headers_may_reach_their_limits(key):
    wire = get_format(key)
    headers = (("a" * 255, "b" * 1024), ("", ""), *[("x", "y")] * 29)
    message = wire.writer("S.m:0")(1, b"2", headers)
    messages, error = wire.decode(message * 2 if not wire.is_text else message)
    assert error is None
    assert messages[-1][4] == headers


@pytest.mark.parametrize("key", FORMATS)
def test_a_method_key_names_the_method_again(key):
    wire = get_format(key)
    assert wire.method_name(wire.method_key("Shop.orders:2")) == "Shop.orders:2"


def test_an_unknown_hash_is_named_by_its_digits():
    assert get_format("msgpack6c").method_name(0xABCDE) == "Service.Method<000abcde>"


def test_a_name_that_is_no_utf8_is_shown_as_far_as_it_goes():
    assert get_format("msgpack6").method_name(b"S.m\xff:1") == "S.m\ufffd:1"


@pytest.mark.parametrize("name", ["S.100%:1", 'S."m":1', "S.\n\x1e\x1f:1", "S.{}:1", "S.%d%b:1"])
@pytest.mark.parametrize("key", FORMATS)
def test_names_with_characters_that_mean_something_elsewhere(key, name):
    wire = get_format(key)
    frame = wire.join([wire.writer(name)(3, b"1", [("%b", '"\n')])] * 2)
    messages, error = wire.decode(frame)
    assert error is None
    assert messages == [(0, 3, wire.method_key(name), b"1", (("%b", '"\n'),))] * 2


@pytest.mark.parametrize("text", ["json5", "json5np"])
def test_text_frames_may_begin_with_a_delimiter(text):
    wire = get_format(text)
    message = wire.writer("S.m:0")(1, b"")
    assert wire.decode(b"\n\x1e" + message) == wire.decode(message)
    assert wire.decode(message + b"\n\x1e" + b"\n\x1e" + message)[0] == wire.decode(message)[0] * 2


@pytest.mark.parametrize(
    "envelope",
    [
        '{"RelatedId":5,"Method":"S.m:0"}',
        '{ "Method" : "S.m:0", "RelatedId":5, "CallType": 0, "Headers": null, "More": [1] }',
        '{"Method":"S.\\u006d:0","Headers":[],"RelatedId":5}',
    ],
)
def test_envelopes_are_json_of_any_spelling(envelope):
    messages, error = get_format("json5").decode(envelope.encode() + b"\n1")
    assert error is None
    assert messages == [(0, 5, "S.m:0", b"1", ())]


def test_there_is_one_object_of_each_format():
    for key in FORMATS:
        assert get_format(key) is get_format(key)
        assert get_format(key).key == key
        assert key in repr(get_format(key))
        assert get_format(key).is_text == key.startswith("json")


@pytest.mark.parametrize("key", ["", "mempack6", "JSON5", "x" * 1000])
def test_an_unknown_format_is_refused_with_the_list_of_those_there_are(key):
    with pytest.raises(UnknownFormatError, match=r"json5np, json5, msgpack6, msgpack6c") as caught:
        get_format(key)
    assert len(str(caught.value)) < 250
