from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.agent.frames import (
    FLAG_MORE,
    FLAG_ZLIB,
    HEAD_BYTES,
    MAX_FRAME_BYTES,
    MAX_HEADER_BYTES,
    Frame,
    FrameError,
    FrameReader,
    FrameType,
    Position,
    dump_object,
    encode,
    pack_positions,
    parse_object,
    unpack_positions,
)

U64 = st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    Frame,
    kind=st.sampled_from(FrameType),
    stream=st.integers(0, 2**32 - 1),
    epoch=U64,
    seq=U64,
    ack=U64,
    number=U64,
    flags=st.sampled_from([0, FLAG_MORE]),
    header=st.binary(max_size=300),
    payload=st.one_of(st.binary(max_size=2000), st.integers(0, 5000).map(lambda size: b"a" * size)),
)


def read(data: bytes) -> list[Frame]:
    return list(FrameReader().feed(data))


def forged(*, kind=17, flags=0, zero=0, header=b"", payload=b"", raw=None, lengths=None) -> bytes:
    """A frame with a right checksum and anything else as asked."""
    header_length, payload_length = lengths or (len(header), len(payload))
    raw_length = payload_length if raw is None else raw
    head = struct.pack(
        "!2sBBHHIQQQQIII",
        b"\xc0\xb1", 1, kind, flags, zero, 2, 0, 0, 0, 0, header_length, payload_length, raw_length,
    )  # fmt: skip
    return head + struct.pack("!I", zlib.crc32(head + header + payload)) + header + payload


@given(st.lists(FRAMES, max_size=5), st.booleans(), st.randoms(use_true_random=False))
def test_frames_come_back_as_they_were_however_the_bytes_are_cut(frames, compress, random):
    data = b"".join(encode(frame, compress=compress) for frame in frames)
    reader, found = FrameReader(), []
    while data:
        size = random.randint(1, len(data))
        found += reader.feed(data[:size])
        data = data[size:]
    assert found == frames
    assert reader.buffered_bytes == 0


@given(FRAMES, st.booleans(), st.data())
def test_a_frame_cut_short_yields_nothing_and_no_error(frame, compress, data):
    raw = encode(frame, compress=compress)
    assert read(raw[: data.draw(st.integers(0, len(raw) - 1))]) == []


@given(st.binary(max_size=400))
def test_garbage_is_a_frame_error_or_waits_for_more(data):
    with contextlib.suppress(FrameError):
        assert read(data) == [] or data.startswith(b"\xc0\xb1\x01")


@given(FRAMES, st.booleans(), st.data())
def test_one_changed_byte_never_passes_as_a_frame(frame, compress, data):
    raw = bytearray(encode(frame, compress=compress))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FrameError):
        assert read(bytes(raw)) == []


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"\xc0\xb2",
        b"\xc0\xb1\x02",
        forged(kind=0),
        forged(kind=99),
        forged(flags=4),
        forged(zero=1),
        forged(payload=b"x", raw=2),
        forged(payload=b"x" * 10, raw=10, flags=FLAG_ZLIB),
        forged(lengths=(MAX_HEADER_BYTES + 1, 0)),
        forged(lengths=(0, MAX_FRAME_BYTES)),
        forged(lengths=(2**32 - 1, 2**32 - 1)),
        forged(lengths=(0, 10), raw=2**32 - 1, flags=FLAG_ZLIB),
    ],
)
def test_bytes_that_break_a_rule_are_refused_as_soon_as_they_show_it(data):
    with pytest.raises(FrameError):
        read(data[:HEAD_BYTES])


def test_a_reader_stays_broken_after_a_fault():
    reader = FrameReader()
    with pytest.raises(FrameError):
        list(reader.feed(b"nonsense"))
    with pytest.raises(FrameError):
        list(reader.feed(encode(Frame(FrameType.PING))))


def test_a_huge_length_reserves_no_memory():
    reader = FrameReader()
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            list(reader.feed(forged(lengths=(0, 2**32 - 1))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_a_compression_bomb_costs_no_more_than_its_announcement():
    bomb = zlib.compress(b"\0" * 100_000_000, 9)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="announced length"):
            read(forged(payload=bomb, raw=200_000, flags=FLAG_ZLIB))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("change", [-1, 1])
def test_a_compressed_payload_must_have_its_announced_length(change):
    packed = zlib.compress(b"a" * 5000)
    with pytest.raises(FrameError):
        read(forged(payload=packed, raw=5000 + change, flags=FLAG_ZLIB))


def test_bytes_after_the_end_of_a_compressed_payload_are_refused():
    packed = zlib.compress(b"a" * 5000) + b"more"
    with pytest.raises(FrameError):
        read(forged(payload=packed, raw=5000, flags=FLAG_ZLIB))


def test_what_does_not_shrink_is_sent_as_it_is():
    noise = zlib.compress(bytes(range(256)) * 40)
    assert len(encode(Frame(FrameType.DATA, payload=noise), compress=True)) == HEAD_BYTES + len(noise)


def test_what_shrinks_is_sent_compressed():
    assert len(encode(Frame(FrameType.DATA, payload=b"a" * 100_000), compress=True)) < 2000


def test_a_frame_over_the_limit_cannot_be_made():
    with pytest.raises(FrameError):
        encode(Frame(FrameType.DATA, payload=b"a" * MAX_FRAME_BYTES))
    with pytest.raises(FrameError):
        encode(Frame(FrameType.DATA, header=b"a" * (MAX_HEADER_BYTES + 1)))


@pytest.mark.parametrize(
    "raw", [b"[]", b"1", b"{", b'{"a":NaN}', b'{"a":Infinity}', b"\xff\xfe", b'{"a":' + b"[" * 60_000]
)
def test_a_header_that_is_no_json_object_is_a_frame_error(raw):
    with pytest.raises(FrameError):
        parse_object(raw)


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": b""}, {"a": object()}, {"a": "x" * MAX_HEADER_BYTES}])
def test_a_header_without_a_json_form_is_refused_by_the_sender(value):
    with pytest.raises(FrameError):
        dump_object(value)


def test_a_lone_surrogate_in_a_header_survives():
    assert parse_object(dump_object({"name": "\ud800"})) == {"name": "\ud800"}


@given(st.dictionaries(st.integers(0, 2**32 - 1), st.tuples(U64, U64), max_size=20))
def test_positions_come_back_as_they_were(table):
    positions = [Position(stream, max(pair), min(pair)) for stream, pair in table.items()]
    assert unpack_positions(pack_positions(positions), most=20) == positions


@pytest.mark.parametrize(
    "payload",
    [b"x", pack_positions([Position(1, 1, 2)]), pack_positions([Position(1, 1, 1)] * 2), b"\0" * 60],
)
def test_positions_that_cannot_be_are_refused(payload):
    with pytest.raises(FrameError):
        unpack_positions(payload, most=2)


@settings(max_examples=300)
@given(st.binary(max_size=120), st.binary(max_size=60))
def test_anything_behind_a_right_beginning_is_a_frame_error_or_a_frame(tail, more):
    with contextlib.suppress(FrameError):
        read(b"\xc0\xb1\x01" + tail + more)
