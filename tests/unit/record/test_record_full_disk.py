"""The record while the disk cannot be written."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from colab_bridge.kernels.record import EntryKind, MessageRecord

if TYPE_CHECKING:
    from conftest import ManualClock

if sys.platform == "win32":
    pytest.skip("a limit on file sizes is POSIX", allow_module_level=True)

import resource

Limit = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def file_limit() -> Limit:
    """Return a context in which the system refuses to let any file grow beyond a size, with EFBIG."""

    @contextlib.contextmanager
    def limited(size_bytes: int) -> Iterator[None]:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


def fill(record: MessageRecord, count: int) -> None:
    for _ in range(count):
        record.append(EntryKind.DOWN, f"{record.next_seq:>100}".encode(), 0.0)


def seqs(record: MessageRecord, after: int = 0) -> list[int]:
    found: list[int] = []
    while batch := record.read(found[-1] if found else after, max_entries=50):
        assert all(int(entry.body) == entry.seq for entry in batch)
        found += [entry.seq for entry in batch]
    return found


def test_a_full_disk_moves_new_entries_to_memory_and_the_numbers_go_on(
    tmp_path: Path, clock: ManualClock, file_limit: Limit
) -> None:
    record = MessageRecord.open(tmp_path, clock=clock)
    fill(record, 10)
    with file_limit(10):
        fill(record, 20)
        assert "kept in memory" in record.degraded
        assert "\n" not in record.degraded
        assert seqs(record) == list(range(1, 31))
        assert seqs(record, 15) == list(range(16, 31))


def test_writing_resumes_with_what_was_in_memory_when_the_disk_works_again(
    tmp_path: Path, clock: ManualClock, file_limit: Limit
) -> None:
    record = MessageRecord.open(tmp_path, clock=clock)
    fill(record, 10)
    with file_limit(10):
        fill(record, 20)
        clock.now += 60
        fill(record, 1)
        assert record.degraded
    fill(record, 1)
    assert record.degraded, "the next attempt waits for its time"
    clock.now += 60
    fill(record, 1)
    assert record.degraded == ""
    record.close()
    again = MessageRecord.open(tmp_path)
    assert seqs(again) == list(range(1, 34))
    assert again.gaps() == []


def test_memory_for_refused_entries_is_bounded_and_what_it_dropped_is_a_gap(
    tmp_path: Path, clock: ManualClock, file_limit: Limit
) -> None:
    record = MessageRecord.open(tmp_path, clock=clock, ring_bytes=3000)
    fill(record, 10)
    with file_limit(10):
        fill(record, 100)
        assert seqs(record) == [*range(1, 11), *range(101, 111)]
        assert record.gaps() == [(11, 100)]
        record.append(EntryKind.DOWN, b"x" * 5000, 0.0)
        assert seqs(record) == list(range(1, 11))
    clock.now += 60
    fill(record, 1)
    record.close()
    assert seqs(MessageRecord.open(tmp_path)) == [*range(1, 11), 112]


def test_an_entry_of_which_only_a_part_fits_is_not_torn(tmp_path: Path, clock: ManualClock, file_limit: Limit) -> None:
    record = MessageRecord.open(tmp_path, clock=clock)
    fill(record, 10)
    with file_limit(record.size_bytes + 50):
        fill(record, 1)
        assert record.degraded
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) == record.size_bytes
        record.append(EntryKind.DOWN, [b" " * 100_000, b"12"], 0.0)
        assert seqs(record) == list(range(1, 13))
    clock.now += 60
    fill(record, 1)
    record.close()
    again = MessageRecord.open(tmp_path)
    assert seqs(again) == list(range(1, 14))


def test_closing_offers_the_entries_in_memory_to_the_disk_once_more(
    tmp_path: Path, clock: ManualClock, file_limit: Limit
) -> None:
    record = MessageRecord.open(tmp_path, clock=clock)
    with file_limit(10):
        fill(record, 5)
    record.close()
    assert seqs(MessageRecord.open(tmp_path)) == [1, 2, 3, 4, 5]


def test_a_folder_that_cannot_be_made_gives_a_record_in_memory(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "file").write_text("in the way")
    record = MessageRecord.open(tmp_path / "file" / "r", clock=clock)
    assert record.degraded
    fill(record, 3)
    assert (seqs(record), record.first_seq, record.next_seq) == ([1, 2, 3], 1, 4)
    (tmp_path / "file").unlink()
    clock.now += 60
    fill(record, 1)
    assert record.degraded == ""
    assert seqs(record) == [1, 2, 3, 4]


def test_a_failed_attempt_leaves_no_empty_files_behind(tmp_path: Path, clock: ManualClock, file_limit: Limit) -> None:
    record = MessageRecord.open(tmp_path, clock=clock)
    fill(record, 2)
    with file_limit(20):
        for _ in range(5):
            clock.now += 60
            fill(record, 1)
    assert len(list(tmp_path.iterdir())) == 1
