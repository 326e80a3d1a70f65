"""Batches of small files, compression with bounds, and what hostile bytes do to them (T18, L11, M11, M13)."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.agent.sync.pages import WireError
from colab_bridge.agent.sync.transfer.batches import BATCH_BYTES, BatchLimits, group, pack_batch, unpack_batch
from colab_bridge.agent.sync.transfer.compress import Codec, deflate, inflate

CONTENTS = st.dictionaries(st.binary(min_size=32, max_size=32), st.binary(max_size=3000), max_size=30)


@given(CONTENTS)
def test_a_batch_comes_back_as_it_was(files: dict[bytes, bytes]) -> None:
    found = unpack_batch(pack_batch(list(files.items())))
    assert {digest: bytes(data) for digest, data in found} == files
    assert [digest for digest, _ in found] == list(files)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_batch_or_a_wire_error(data: bytes) -> None:
    try:
        unpack_batch(data)
    except WireError:
        return


@given(CONTENTS, st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_batch_is_a_wire_error_or_another_batch(files: dict[bytes, bytes], place: int, flip: int) -> None:
    packed = bytearray(pack_batch(list(files.items())))
    packed[place % len(packed)] ^= flip
    try:
        found = unpack_batch(bytes(packed))
    except WireError:
        return
    # Contents are compared with their digests when they are staged, so other bytes are found there.
    assert len(found) <= 4096


@pytest.mark.rows("L11")
def test_source_text_shrinks_and_random_bytes_travel_as_they_are() -> None:
    text = b"def function(argument):\n    return argument + 1\n" * 5000
    assert deflate(text)[0] is Codec.ZLIB
    assert len(deflate(text)[1]) < len(text) / 10
    assert deflate(os.urandom(200_000))[0] is Codec.RAW


def test_a_bomb_is_refused_without_unpacking_it() -> None:
    bomb = zlib.compress(bytes(256 * 2**20), 9)
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            inflate(Codec.ZLIB, bomb, 1000, 8 * 2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("declared", [2**32 - 1, 8 * 2**20 + 1])
def test_a_declared_length_over_the_limit_is_refused_before_anything_is_unpacked(declared: int) -> None:
    with pytest.raises(WireError, match="more than is accepted"):
        unpack_batch(struct.pack(">BI", Codec.ZLIB, declared) + b"x")


def test_more_bytes_than_declared_or_fewer_are_refused() -> None:
    packed = zlib.compress(b"x" * 100)
    for declared in (99, 101, 0):
        with pytest.raises(WireError):
            inflate(Codec.ZLIB, packed, declared, 1000)
    with pytest.raises(WireError):
        inflate(Codec.ZLIB, packed + b"more", 100, 1000)
    with pytest.raises(WireError):
        inflate(Codec.ZLIB, packed[:-3], 100, 1000)
    with pytest.raises(WireError):
        inflate(9, b"", 0, 1000)


def test_a_table_that_claims_more_files_than_it_can_hold_is_refused() -> None:
    for count in (2**31, 5000, 1):
        raw = struct.pack(">I", count)
        with pytest.raises(WireError):
            unpack_batch(struct.pack(">BI", Codec.RAW, len(raw)) + raw)
    with pytest.raises(WireError):
        unpack_batch(pack_batch([(bytes([n]) * 32, b"") for n in range(3)]), BatchLimits(files=2))


def test_a_digest_twice_is_refused() -> None:
    with pytest.raises(WireError, match="disagree"):
        unpack_batch(pack_batch([(bytes(32), b"a"), (bytes(32), b"b")]))


@given(st.lists(st.integers(0, 3 * BATCH_BYTES), max_size=40))
def test_batches_keep_the_order_and_stay_near_their_size(sizes: list[int]) -> None:
    named = [(index.to_bytes(32, "big"), size) for index, size in enumerate(sizes)]
    batches = list(group(named))
    assert [digest for batch in batches for digest in batch] == [digest for digest, _ in named]
    size_of = dict(named)
    assert all(len(batch) == 1 or sum(size_of[digest] for digest in batch) <= BATCH_BYTES for batch in batches)
