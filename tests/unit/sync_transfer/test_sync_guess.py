"""A guess at what a file still has of its older version, and signatures that are made with those of that version."""

from __future__ import annotations

import random
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.transfer.guess import likely_copy
from colab_bridge.agent.sync.transfer.patch import Copy
from colab_bridge.agent.sync.transfer.signatures import (
    MAX_BLOCKS,
    MIN_BLOCK_BYTES,
    Signatures,
    read_signatures,
    sign,
    sign_again,
)

BLOCK = MIN_BLOCK_BYTES
OLD = random.Random(1).randbytes(80 * BLOCK + 5)
PIECE = random.Random(2).randbytes(3 * BLOCK + 11)


def signatures_of(data: bytes) -> Signatures:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return read_signatures(sign(file.fileno(), BLOCK))


def guessed(new: bytes, old: bytes = OLD) -> Copy | None:
    with tempfile.TemporaryFile() as file:
        file.write(new)
        file.flush()
        return likely_copy(file.fileno(), len(new), signatures_of(old))


@pytest.mark.parametrize(
    ("new", "copy"),
    [
        (OLD + PIECE, Copy(0, 0, len(OLD))),
        (OLD[: 30 * BLOCK] + PIECE + OLD[30 * BLOCK + len(PIECE) :], Copy(0, 0, len(OLD))),
        (OLD[: 75 * BLOCK], Copy(0, 0, 75 * BLOCK)),
        (PIECE + OLD, Copy(0, len(PIECE), len(OLD))),
        (OLD[len(PIECE) :], Copy(4 * BLOCK, 4 * BLOCK - len(PIECE), len(OLD) - 4 * BLOCK)),
    ],
    ids=["appended", "written over", "shortened", "put in front", "taken from the front"],
)
def test_a_file_that_has_most_of_its_older_version_is_known_by_a_few_blocks(new: bytes, copy: Copy) -> None:
    found = guessed(new)
    assert found is not None
    assert found.target - found.source == copy.target - copy.source
    assert found.length >= copy.length
    assert new[found.target : found.target + 1000] == OLD[found.source : found.source + 1000]


def test_what_stands_before_a_piece_that_was_put_in_is_guessed() -> None:
    copy = guessed(OLD[: 40 * BLOCK] + PIECE + OLD[40 * BLOCK :])
    assert copy is not None
    assert (copy.source, copy.target) == (0, 0)
    assert 30 * BLOCK <= copy.length <= 40 * BLOCK


@pytest.mark.parametrize("new", [random.Random(3).randbytes(len(OLD)), b"", OLD[:BLOCK], OLD[-BLOCK:] + PIECE])
def test_a_file_that_is_another_one_is_not_guessed_at(new: bytes) -> None:
    assert guessed(new) is None


@pytest.mark.parametrize("old", [b"", b"short", bytes(3 * BLOCK)])
@given(new=st.binary(max_size=3 * BLOCK))
@settings(max_examples=20, deadline=None)
def test_a_guess_lies_inside_of_both_files(old: bytes, new: bytes) -> None:
    copy = guessed(new, old)
    if copy is not None:
        assert 0 <= copy.source <= copy.source + copy.length <= len(old)
        assert 0 <= copy.target <= copy.target + copy.length <= len(new)


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_signatures_made_with_those_of_an_older_version_are_the_same_and_tell_what_is(
    old: list[str], new: list[str], rest: int
) -> None:
    blocks = {letter: random.Random(letter).randbytes(BLOCK) for letter in "abc"}
    data = b"".join(blocks[letter] for letter in new) + b"x" * rest
    before = signatures_of(b"".join(blocks[letter] for letter in old) + b"y" * rest)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        packed, same = sign_again(file.fileno(), before)
        assert packed == sign(file.fileno(), BLOCK)
    assert same == [index for index, (one, two) in enumerate(zip(old, new, strict=False)) if one == two]


def test_a_file_with_too_many_blocks_is_not_signed_again() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(MAX_BLOCKS * BLOCK + 1)
        with pytest.raises(ValueError, match="too many"):
            sign_again(file.fileno(), Signatures(BLOCK, 0, ()))
