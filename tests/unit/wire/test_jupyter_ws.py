"""Both WebSocket framings, against jupyter_server's own functions."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)

from colab_bridge.wire.jupyter_ws import V1_SUBPROTOCOL, decode, decode_json, decode_v1, encode, encode_json
from colab_bridge.wire.message import CHANNELS, MessageError, RawMessage

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES, lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=4), kids, max_size=3)
)
OBJECTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=4)
BUFFERS = st.lists(st.binary(max_size=40), max_size=4)
CHANNEL = st.sampled_from(CHANNELS)
PARTS = st.lists(st.binary(max_size=30), min_size=4, max_size=4)

SAMPLE = RawMessage(
    "iopub", b'{"msg_id":"a","msg_type":"stream"}', b"{}", b"{}", b'{"name":"x"}', [b"\0\1", b"", b"xyz"]
)


@given(CHANNEL, PARTS, BUFFERS)
def test_v1_frames_are_those_of_jupyter_server_byte_for_byte(
    channel: str, parts: list[bytes], buffers: list[bytes]
) -> None:
    frame = encode(RawMessage(channel, parts[0], parts[1], parts[2], parts[3], buffers), V1_SUBPROTOCOL)
    assert frame == serialize_msg_to_ws_v1([*parts, *buffers], channel)
    assert deserialize_msg_from_ws_v1(frame) == (channel, [*parts, *buffers])


@given(CHANNEL, PARTS, BUFFERS)
def test_v1_frames_of_jupyter_server_are_read_unchanged(channel: str, parts: list[bytes], buffers: list[bytes]) -> None:
    message = decode(serialize_msg_to_ws_v1([*parts, *buffers], channel), V1_SUBPROTOCOL)
    assert message.parts() == (channel, *parts, tuple(buffers))


@given(CHANNEL, OBJECTS, OBJECTS, BUFFERS)
def test_the_json_framing_keeps_every_value(channel: str, header: dict, content: dict, buffers: list[bytes]) -> None:
    parts = [json.dumps(value).encode() for value in (header, {}, {}, content)]
    again = decode_json(encode_json(RawMessage(channel, parts[0], parts[1], parts[2], parts[3], buffers)))
    assert (again.channel, again.header_fields(), again.content_fields(), again.buffers) == (
        channel,
        header,
        content,
        buffers,
    )


@given(OBJECTS, st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_jupyter_server_reads_our_binary_json_frames(content: dict, buffers: list[bytes]) -> None:
    frame = encode_json(RawMessage("shell", b'{"msg_id":"a"}', b"", b"", json.dumps(content).encode(), buffers))
    message = deserialize_binary_message(frame)
    assert (message["content"], message["buffers"], message["parent_header"]) == (content, buffers, {})


@given(OBJECTS, st.lists(st.binary(max_size=40), max_size=4))
def test_binary_json_frames_of_jupyter_server_are_read(content: dict, buffers: list[bytes]) -> None:
    value = {"header": {"msg_id": "a"}, "parent_header": {}, "metadata": {}, "content": content, "channel": "iopub"}
    message = decode_json(serialize_binary_message({**value, "buffers": buffers}))
    assert (message.content_fields(), message.buffers, message.msg_id) == (content, buffers, "a")


def test_a_missing_parent_header_is_an_empty_one() -> None:
    assert decode_json('{"header":{"msg_id":"a"},"parent_header":null,"content":{}}').parent_id == ""


@pytest.mark.parametrize("subprotocol", [V1_SUBPROTOCOL, None])
def test_a_frame_cut_anywhere_gives_a_message_or_a_message_error(subprotocol: str | None) -> None:
    frame = encode(SAMPLE, subprotocol)
    refused = 0
    for size in range(len(frame)):
        try:
            decode(frame[:size], subprotocol)
        except MessageError:
            refused += 1
    # The default framing does not say where its last buffer ends, so that one may be cut unnoticed.
    assert refused >= len(frame) - len(SAMPLE.buffers[-1])


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([V1_SUBPROTOCOL, None]))
def test_garbage_raises_nothing_but_a_message_error(data: bytes, subprotocol: str | None) -> None:
    try:
        decode(data, subprotocol)
    except MessageError:
        pass


@settings(max_examples=300)
@given(st.integers(0, 200), st.binary(min_size=1, max_size=8), st.sampled_from([V1_SUBPROTOCOL, None]))
def test_a_damaged_frame_raises_nothing_but_a_message_error(at: int, patch: bytes, subprotocol: str | None) -> None:
    frame = bytearray(encode(SAMPLE, subprotocol))
    at %= len(frame)
    frame[at : at + len(patch)] = patch
    try:
        decode(bytes(frame), subprotocol)
    except MessageError:
        pass


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<7Q", 6, 56, 50, 56, 56, 56, 56),
        struct.pack("<7Q", 6, 56, 56, 56, 56, 56, 99),
        serialize_msg_to_ws_v1([b"{}"] * 4, "nonsense"),
    ],
    ids=["huge count", "descending", "out of range", "unknown channel"],
)
def test_a_hostile_v1_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(MessageError):
        decode_v1(frame)


def test_a_channel_that_is_no_text_is_refused() -> None:
    with pytest.raises(MessageError):
        decode_json('{"channel":["shell"],"header":{}}')


def test_a_binary_frame_whose_json_is_not_utf8_is_refused() -> None:
    with pytest.raises(MessageError):
        decode_json(struct.pack("!2I", 1, 8) + b'{"channel":"\xff"}')
