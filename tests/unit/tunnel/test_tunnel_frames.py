"""The agent's framing against the daemon's and against jupyter_client's."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from jupyter_client.session import Session

from colab_bridge.agent.tunnel.frames import (
    CHANNELS,
    DELIMITER,
    FrameFault,
    Signer,
    fields,
    pack,
    split_zmq,
    unpack,
)
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage

messages = st.builds(
    RawMessage,
    st.sampled_from(CHANNELS),
    st.binary(max_size=60),
    st.binary(max_size=60),
    st.binary(max_size=20),
    st.binary(max_size=200),
    st.lists(st.binary(max_size=100), max_size=4),
)


def parts_of(message: RawMessage) -> list[bytes]:
    return [message.header, message.parent, message.metadata, message.content, *message.buffers]


@given(messages)
def test_both_ends_write_the_same_frame(message: RawMessage) -> None:
    frame = b"".join(pack(message.channel, parts_of(message)))
    assert frame == encode_v1(message)
    assert decode_v1(frame) == message
    assert unpack(frame) == (message.channel, parts_of(message))


def test_a_long_part_is_packed_without_being_copied() -> None:
    content = bytes(200_000)
    assert any(chunk is content for chunk in pack("iopub", [b"{}", b"{}", b"{}", content]))


@given(messages, st.data())
def test_a_damaged_frame_is_a_fault_and_nothing_else(message: RawMessage, data: st.DataObject) -> None:
    frame = bytearray(encode_v1(message))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] = data.draw(st.integers(0, 255))
    cut = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    try:
        channel, parts = unpack(cut)
    except FrameFault:
        return
    assert channel in CHANNELS
    assert len(parts) >= 4


@pytest.mark.parametrize("key", [b"secret", b""])
@given(
    content=st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
    buffers=st.lists(st.binary(max_size=9)),
)
def test_what_jupyter_client_signs_is_genuine_and_the_other_way_round(
    key: bytes, content: dict[str, str], buffers: list[bytes]
) -> None:
    session = Session(key=key, signature_scheme="hmac-sha256")
    signer = Signer(key, "sha256")
    frames = session.serialize(session.msg("stream", content), ident=b"topic")
    signature, parts = split_zmq([*frames, *buffers])
    assert signer.is_genuine(parts[:4], signature)
    assert fields(parts[3]) == content
    assert parts[4:] == buffers
    sent = [DELIMITER, signer.sign(parts[:4]), *parts]
    received = Session(key=key, signature_scheme="hmac-sha256").deserialize(session.feed_identities(sent)[1])
    assert received["content"] == content
    assert [bytes(buffer) for buffer in received["buffers"]] == buffers


def test_a_forged_message_is_not_genuine() -> None:
    signer = Signer(b"secret", "sha256")
    signature = signer.sign([b"{}", b"{}", b"{}", b"{}"])
    assert not signer.is_genuine([b"{}", b"{}", b"{}", b'{"x":1}'], signature)
    assert not signer.is_genuine([b"{}", b"{}", b"{}", b"{}"], b"")


@pytest.mark.parametrize("frames", [[], [b"a"], [DELIMITER], [DELIMITER, b"s", b"1", b"2", b"3"]])
def test_a_zmq_message_with_too_few_frames_is_a_fault(frames: list[bytes]) -> None:
    with pytest.raises(FrameFault):
        split_zmq(frames)


@pytest.mark.parametrize("part", [b"", b"[]", b"1", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_object_has_no_fields(part: bytes) -> None:
    assert fields(part) == {}
