"""What one read of a large file leaves behind: its digest, its signatures, and what it has from the version before."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.transfer.patch import Copy, gaps, pack_copies, unpack_copies
from colab_bridge.agent.sync.transfer.signatures import MIN_BLOCK_BYTES, read_signatures, sign
from colab_bridge.agent.sync.transfer.trail import Hashing, Trail, Trails, read_large, search_between

KEY = b"k" * 32
BLOCK = MIN_BLOCK_BYTES
MIB = 2**20


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32, key=KEY).digest()


def read(data: bytes, older: bytes | None, trails: Trails, size: int | None = None) -> Trail:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        before = None if older is None else (digest(older), len(older))
        return read_large(file.fileno(), len(data) if size is None else size, KEY, before, trails)


def known(data: bytes) -> Trails:
    """Return what is known after a file was read that had another version before it."""
    trails = Trails()
    trails.add(read(data, b"", trails))
    return trails


@st.composite
def versions(draw: st.DrawFn) -> tuple[bytes, bytes]:
    chance = random.Random(draw(st.integers(0, 2**32)))
    old = chance.randbytes(draw(st.integers(0, 5 * BLOCK)))
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 3))):
        place, length = chance.randrange(len(new) + 1), draw(st.sampled_from([1, 100, BLOCK, 2 * BLOCK]))
        kind = draw(st.sampled_from(["put in", "taken out", "written over", "appended", "moved"]))
        piece = bytes(new[place : place + length])
        if kind == "put in":
            new[place:place] = chance.randbytes(length)
        elif kind == "appended":
            new += chance.randbytes(length)
        elif kind == "written over":
            new[place : place + length] = chance.randbytes(len(piece))
        else:
            del new[place : place + length]
            new += piece if kind == "moved" else b""
    return old, bytes(new)


def searched(old: bytes, new: bytes, copies: Sequence[Copy]) -> list[Copy]:
    with tempfile.TemporaryFile() as file:
        file.write(new)
        file.flush()
        found = search_between(file.fileno(), copies, read_signatures(read(old, b"", Trails()).signatures))
    return unpack_copies(pack_copies(found), len(old), len(new))


def rebuilt(old: bytes, new: bytes, copies: Sequence[Copy]) -> bytes:
    out = bytearray(len(new))
    for copy in copies:
        out[copy.target : copy.target + copy.length] = old[copy.source : copy.source + copy.length]
    for offset, length in gaps(copies, len(new)):
        out[offset : offset + length] = new[offset : offset + length]
    return bytes(out)


@settings(max_examples=60, deadline=None)
@given(versions())
def test_one_read_tells_the_digest_and_ranges_that_lead_from_the_version_before(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    trail = read(new, old, known(old))
    assert (trail.digest, trail.size) == (digest(new), len(new))
    assert trail.origin is not None
    assert trail.origin.grew is new.startswith(old)
    assert trail.origin.copies is not None
    assert rebuilt(old, new, trail.origin.copies) == new
    assert rebuilt(old, new, searched(old, new, trail.origin.copies)) == new


def signed(data: bytes) -> bytes:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return sign(file.fileno(), BLOCK)


@settings(max_examples=40, deadline=None)
@given(versions())
def test_the_signatures_are_the_same_whatever_was_known_of_the_version_before(pair: tuple[bytes, bytes]) -> None:
    old, new = pair
    assert read(new, old, known(old)).signatures == signed(new)


def test_a_file_that_has_grown_and_has_changed_in_front_too_costs_both() -> None:
    old = random.Random(1).randbytes(40 * BLOCK + 5)
    new = b"changed" + old[7:] + b"appended"
    trail = read(new, old, known(old))
    assert trail.origin is not None
    assert (trail.digest, trail.origin.grew, trail.signatures) == (digest(new), False, signed(new))
    assert trail.origin.copies is not None
    assert rebuilt(old, new, trail.origin.copies) == new
    assert sum(length for _, length in gaps(trail.origin.copies, len(new))) <= 2 * BLOCK


def test_what_was_put_in_front_of_a_file_is_known_when_it_is_read() -> None:
    old, piece = random.Random(1).randbytes(40 * BLOCK + 5), random.Random(2).randbytes(3 * BLOCK + 1)
    origin = read(piece + old, old, known(old)).origin
    assert origin is not None
    assert origin.copies is not None
    assert rebuilt(old, piece + old, origin.copies) == piece + old
    assert sum(length for _, length in gaps(origin.copies, len(piece + old))) <= len(piece) + BLOCK


@pytest.mark.parametrize("block", [0, 17, 39])
def test_a_piece_written_over_costs_that_piece(block: int) -> None:
    old = random.Random(1).randbytes(40 * BLOCK + 5)
    place = block * BLOCK + 100
    new = old[:place] + random.Random(2).randbytes(1000) + old[place + 1000 :]
    origin = read(new, old, known(old)).origin
    assert origin is not None
    assert origin.copies is not None
    assert sum(length for _, length in gaps(origin.copies, len(new))) <= BLOCK + 5


def test_what_has_moved_is_found_between_what_has_not() -> None:
    chance = random.Random(1)
    old = chance.randbytes(40 * BLOCK + 5)
    new = old[: 10 * BLOCK] + b"put in" + old[10 * BLOCK :]
    origin = read(new, old, known(old)).origin
    assert origin is not None
    assert origin.copies is not None
    assert sum(length for _, length in gaps(searched(old, new, origin.copies), len(new))) <= BLOCK


def test_a_version_that_nobody_signed_tells_growth_and_leaves_the_rest_open() -> None:
    old = random.Random(1).randbytes(3 * BLOCK)
    grown = read(old + b"more", old, Trails()).origin
    changed = read(b"X" + old[1:], old, Trails()).origin
    assert grown is not None
    assert (grown.grew, grown.copies) == (True, (Copy(0, 0, len(old)),))
    assert changed is not None
    assert (changed.grew, changed.copies) == (False, None)


def test_a_file_that_is_met_for_the_first_time_is_only_hashed() -> None:
    trail = read(bytes(BLOCK), None, Trails())
    assert (trail.digest, trail.signatures, trail.origin) == (digest(bytes(BLOCK)), b"", None)


def test_the_signatures_are_those_that_the_other_side_would_be_sent() -> None:
    data = random.Random(1).randbytes(3 * BLOCK + 1)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        assert read(data, b"", Trails()).signatures == sign(file.fileno(), BLOCK)


def test_a_file_that_has_become_longer_is_read_one_byte_further_than_it_was() -> None:
    assert read(bytes(100), None, Trails(), size=50).size == 51


def test_a_hash_goes_on_from_a_mark_as_if_it_had_seen_everything() -> None:
    first, second = random.Random(1).randbytes(130 * MIB), b"the end"
    hashing = Hashing(KEY)
    for start in range(0, len(first), MIB):
        hashing.update(first[start : start + MIB])
    marks = hashing.marks()
    assert [offset // MIB for offset, _ in marks] == [64, 128, 130]
    for offset, _ in marks:
        again = Hashing(KEY, [mark for mark in marks if mark[0] <= offset])
        again.update(first[offset:] + second)
        assert again.digest() == digest(first + second)


def test_trails_that_were_not_used_for_long_make_room() -> None:
    trails = Trails(most_bytes=4000)
    contents = [bytes([number]) * 32 for number in range(3)]
    for content in contents[:2]:
        trails.add(Trail(content, 10**6, (), signatures=bytes(1200)))
    assert trails.get(contents[0]) is not None
    trails.add(Trail(contents[2], 10**6, (), signatures=bytes(1200)))
    assert [content for content in contents if trails.get(content) is not None] == [contents[0], contents[2]]


def test_a_trail_that_tells_less_does_not_take_away_what_is_known() -> None:
    data = random.Random(1).randbytes(2 * BLOCK)
    trails = known(data)
    trails.add(read(data, None, trails))
    found = trails.get(digest(data))
    assert found is not None
    assert found.signatures
