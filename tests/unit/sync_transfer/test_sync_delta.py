"""Deltas: what is found, what is sent, and that the result is the new file (L01-L07, M25, M26, P13)."""

from __future__ import annotations

import os
import random
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.pages import WireError
from colab_bridge.agent.sync.transfer.patch import (
    Copy,
    copies_in_new,
    copies_in_old,
    gaps,
    growth,
    pack_copies,
    unpack_copies,
    worth_a_delta,
)
from colab_bridge.agent.sync.transfer.search import SearchBudget, find_blocks
from colab_bridge.agent.sync.transfer.signatures import (
    MAX_BLOCK_BYTES,
    MIN_BLOCK_BYTES,
    Signatures,
    block_size_for,
    read_signatures,
    sign,
)

BLOCK = MIN_BLOCK_BYTES
BOTH = pytest.mark.parametrize("use_numpy", [True, False], ids=["numpy", "plain"])


def with_file(data: bytes, use: Callable[[int], object]) -> object:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return use(file.fileno())


def signed(data: bytes, block: int = BLOCK) -> Signatures:
    found = with_file(data, lambda fd: read_signatures(sign(fd, block)))
    assert isinstance(found, Signatures)
    return found


def upload(old: bytes, new: bytes, **options: object) -> tuple[list[Copy], Signatures]:
    signatures = signed(old)
    found = with_file(new, lambda fd: find_blocks(fd, signatures, **options))  # type: ignore[arg-type]
    return copies_in_new(found, signatures), signatures  # type: ignore[arg-type]


def download(old: bytes, new: bytes, **options: object) -> tuple[list[Copy], Signatures]:
    signatures = signed(new)
    found = with_file(old, lambda fd: find_blocks(fd, signatures, **options))  # type: ignore[arg-type]
    return copies_in_old(found, signatures), signatures  # type: ignore[arg-type]


def rebuilt(old: bytes, new: bytes, copies: list[Copy]) -> bytes:
    out = bytearray(len(new))
    for copy in unpack_copies(pack_copies(copies), len(old), len(new)):
        out[copy.target : copy.target + copy.length] = old[copy.source : copy.source + copy.length]
    for offset, length in gaps(copies, len(new)):
        out[offset : offset + length] = new[offset : offset + length]
    return bytes(out)


def sent(copies: list[Copy], size: int) -> int:
    return sum(length for _, length in gaps(copies, size))


@st.composite
def versions(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """An old file of some blocks and a new one made of it by inserting, deleting, moving and overwriting."""
    seed = random.Random(draw(st.integers(0, 2**32)))
    old = seed.randbytes(draw(st.integers(0, 6 * BLOCK)))
    if draw(st.booleans()):
        old = old[:BLOCK] * 3 + old
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 4))):
        kind, place = draw(st.integers(0, 3)), seed.randrange(len(new) + 1)
        length = draw(st.sampled_from([1, 7, 1000, BLOCK, BLOCK + 1, 3 * BLOCK]))
        piece = bytes(new[place : place + length])
        if kind == 0:
            new[place:place] = seed.randbytes(length)
        elif kind == 1:
            del new[place : place + length]
        elif kind == 2:
            new[place : place + length] = seed.randbytes(len(piece))
        else:
            del new[place : place + length]
            new[seed.randrange(len(new) + 1) :][:0] = piece
            new += piece
    return old, bytes(new)


@settings(max_examples=60, deadline=None)
@given(versions(), st.booleans())
def test_the_rebuilt_file_is_the_new_file(pair: tuple[bytes, bytes], use_numpy: bool) -> None:
    old, new = pair
    for copies, _ in (upload(old, new, use_numpy=use_numpy), download(old, new, use_numpy=use_numpy)):
        assert rebuilt(old, new, copies) == new


@settings(max_examples=30, deadline=None)
@given(versions())
def test_both_searches_find_the_same(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    assert upload(old, new, use_numpy=True)[0] == upload(old, new, use_numpy=False)[0]


@BOTH
@pytest.mark.parametrize("direction", [upload, download])
def test_a_piece_changed_in_the_middle_costs_that_piece(direction: Callable[..., object], use_numpy: bool) -> None:
    old = random.Random(1).randbytes(40 * BLOCK)
    new = old[:200_000] + random.Random(2).randbytes(20_000) + old[220_000:]
    copies, _ = direction(old, new, use_numpy=use_numpy)  # type: ignore[misc]
    assert sent(copies, len(new)) <= 20_000 + 2 * BLOCK


@BOTH
@pytest.mark.parametrize("direction", [upload, download])
def test_a_piece_put_in_front_costs_that_piece(direction: Callable[..., object], use_numpy: bool) -> None:
    old = random.Random(1).randbytes(40 * BLOCK + 5)
    new = random.Random(2).randbytes(20_001) + old
    copies, _ = direction(old, new, use_numpy=use_numpy)  # type: ignore[misc]
    assert sent(copies, len(new)) <= 20_001 + BLOCK + 5


@BOTH
def test_an_unrelated_file_is_sent_whole(use_numpy: bool) -> None:
    old, new = random.Random(1).randbytes(4 * BLOCK), random.Random(2).randbytes(4 * BLOCK)
    assert upload(old, new, use_numpy=use_numpy)[0] == []


@BOTH
def test_zeros_with_one_other_byte_are_found_in_bounded_work(use_numpy: bool) -> None:
    old = bytes(64 * BLOCK)
    new = bytearray(old)
    new[33 * BLOCK + 77] = 1
    copies, _ = upload(old, bytes(new), use_numpy=use_numpy)
    assert sent(copies, len(new)) <= 2 * BLOCK
    copies, _ = download(bytes(new), old, use_numpy=use_numpy)
    assert sent(copies, len(new)) == 0


@BOTH
def test_weak_hashes_made_to_mislead_end_in_bounded_work(use_numpy: bool) -> None:
    """Every offset of the searched file has a weak hash that is in the signatures, and none of the blocks is."""
    size = 4 * BLOCK
    data = bytes(size)
    weak = zlib.adler32(data[:BLOCK])
    count = 2000
    rows = b"".join(struct.pack(">II", weak, index) for index in range(count))
    signatures = read_signatures(struct.pack(">BIQ", 2, BLOCK, count * BLOCK) + rows)
    started = time.process_time()
    assert with_file(data, lambda fd: find_blocks(fd, signatures, use_numpy=use_numpy)) == []
    assert time.process_time() - started < 5


@BOTH
def test_a_spent_budget_leaves_a_correct_delta(use_numpy: bool) -> None:
    old = random.Random(1).randbytes(20 * BLOCK)
    new = b"x" + old
    budget = SearchBudget(rolled=(0, 0), verified=0)
    copies, _ = upload(old, new, use_numpy=use_numpy, budget=budget)
    assert rebuilt(old, new, copies) == new


def test_the_block_size_grows_with_the_file() -> None:
    assert block_size_for(0) == MIN_BLOCK_BYTES
    assert block_size_for(2**30) == 64 * 1024
    assert block_size_for(2**50) == MAX_BLOCK_BYTES


def test_signatures_of_a_gibibyte_stay_under_an_eighth_of_a_megabyte() -> None:
    blocks = 2**30 // block_size_for(2**30)
    assert blocks * 8 <= 132_000


@given(st.binary(max_size=200))
def test_any_bytes_are_signatures_or_a_wire_error(data: bytes) -> None:
    try:
        read_signatures(data)
    except WireError:
        return


@pytest.mark.parametrize(
    ("block", "size", "rows"), [(1, 10, 10), (BLOCK, 2**63, 3), (BLOCK, 0, 1), (BLOCK, BLOCK, 2), (2**31, 5, 1)]
)
def test_signatures_out_of_bounds_are_refused(block: int, size: int, rows: int) -> None:
    with pytest.raises(WireError):
        read_signatures(struct.pack(">BIQ", 2, block, size) + bytes(8 * rows))


def test_more_blocks_than_the_limit_are_refused() -> None:
    count = 65_537
    with pytest.raises(WireError):
        read_signatures(struct.pack(">BIQ", 2, BLOCK, count * BLOCK) + bytes(8 * count))


@pytest.mark.parametrize(
    "copies",
    [
        [Copy(0, 0, 0)],
        [Copy(90, 0, 20)],
        [Copy(0, 190, 20)],
        [Copy(0, 50, 10), Copy(0, 40, 5)],
        [Copy(0, 10, 10), Copy(0, 15, 10)],
        [Copy(2**64 - 1, 0, 10)],
    ],
)
def test_copies_outside_their_files_are_refused(copies: list[Copy]) -> None:
    with pytest.raises(WireError):
        unpack_copies(pack_copies(copies), 100, 200)


@given(st.binary(max_size=100))
def test_any_bytes_are_copies_or_a_wire_error(data: bytes) -> None:
    try:
        unpack_copies(data, 1000, 1000)
    except WireError:
        return


def keyed(data: bytes) -> bytes:
    return blake2b(data, digest_size=32, key=b"k" * 16).digest()


@pytest.mark.parametrize(
    ("old", "new", "grew"),
    [
        (b"abc", b"abcdef", True),
        (b"abc", b"abc", True),
        (b"abc", b"abXdef", False),
        (b"abc", b"ab", False),
        (b"", b"abc", True),
        (b"", b"", True),
        (os.urandom(2**20), None, True),
    ],
)
def test_one_read_tells_whether_a_file_only_grew(old: bytes, new: bytes | None, grew: bool) -> None:
    new = old + os.urandom(2**20 + 3) if new is None else new
    found = with_file(new, lambda fd: growth(fd, len(old), keyed(old), b"k" * 16))
    assert found.grew is grew  # type: ignore[attr-defined]
    assert found.digest == keyed(new)  # type: ignore[attr-defined]
    assert found.size == len(new)  # type: ignore[attr-defined]


def test_a_delta_is_only_worth_it_on_a_link_that_is_slower_than_the_hash() -> None:
    size = 2**30
    assert worth_a_delta(size, size, bytes_per_s=50e6, round_trip_s=0.2)
    assert not worth_a_delta(size, size, bytes_per_s=2e9, round_trip_s=0.2)
    assert not worth_a_delta(2**20, 2**20, bytes_per_s=1e5, round_trip_s=0.2)


def test_a_file_that_shrinks_while_it_is_searched_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(random.Random(1).randbytes(4 * BLOCK))
    signatures = signed(random.Random(2).randbytes(2 * BLOCK))
    with path.open("r+b") as file:
        fd = file.fileno()
        os.ftruncate(fd, 4 * BLOCK)
        original = os.fstat(fd).st_size
        file.truncate(10)
        assert original == 4 * BLOCK
        assert find_blocks(fd, signatures) == []
