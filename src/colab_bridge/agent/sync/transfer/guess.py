"""A quick guess at what a large file still has of its older version, from a few of its blocks.

It only decides what is copied before anybody knows better; a wrong guess costs a copy that nobody uses.
"""

from __future__ import annotations

from .patch import Copy
from .search import SearchBudget, find_blocks
from .signatures import Signatures, read_at, sums

__all__ = ["likely_copy"]

_SAMPLES = 8
_ENOUGH = 6
_SEARCHED_BYTES = 4 * 2**20
# Byte by byte only with numpy; all of it takes less than a twentieth of a second then.
_BUDGET = SearchBudget(rolled=(0, _SEARCHED_BYTES), verified=_SEARCHED_BYTES)


def likely_copy(fd: int, size: int, old: Signatures) -> Copy | None:
    """Return the longest range of an older version that a file is likely to have still.

    Args:
        fd: The file, open for reading.
        size: Its length in bytes.
        old: Signatures of the older version.

    Returns:
        None where a few blocks say that it is another file.

    Raises:
        OSError: the file cannot be read.
    """
    blocks = old.file_size // old.block_size
    if not blocks:
        return None
    samples = sorted({index * (blocks - 1) // (_SAMPLES - 1) for index in range(_SAMPLES)})
    same = [_stands_at(fd, old, index, 0) for index in samples]
    if sum(same) >= min(_ENOUGH, len(samples)):
        return Copy(0, 0, min(size, old.file_size))
    if same[0]:
        # Up to about where something was put in or taken out.
        return Copy(0, 0, samples[same.index(False) - 1] * old.block_size) if same[1] else None
    found = find_blocks(fd, old, ranges=[(0, _SEARCHED_BYTES)], budget=_BUDGET)
    if not found:
        return None
    moved = found[0].offset - found[0].index * old.block_size
    if sum(_stands_at(fd, old, index, moved) for index in samples) < min(_ENOUGH, len(samples)):
        return None
    source, target = max(0, -moved), max(0, moved)
    return Copy(source, target, min(old.file_size - source, size - target))


def _stands_at(fd: int, old: Signatures, index: int, moved: int) -> bool:
    offset = index * old.block_size + moved
    return offset >= 0 and sums(read_at(fd, old.block_size, offset)) == old.sums[index]
