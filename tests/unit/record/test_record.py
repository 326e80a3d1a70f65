"""The message record in ordinary use: numbers, limits, files, waiting."""

from __future__ import annotations

import stat
import sys
import tracemalloc
from pathlib import Path

import anyio
import pytest

from colab_bridge.errors import TransientError
from colab_bridge.kernels.record import Entry, EntryKind, MessageRecord

if sys.platform != "win32":
    import resource

MIB = 1024 * 1024


def fill(record: MessageRecord, count: int, size: int = 10) -> list[bytes]:
    bodies = [f"{record.next_seq + i:>{size}}".encode() for i in range(count)]
    for body in bodies:
        record.append(EntryKind.DOWN, body, 1.5)
    return bodies


def read_all(record: MessageRecord, after: int = 0, **limits: int) -> list[Entry]:
    entries: list[Entry] = []
    while batch := record.read(after, **limits):
        entries += batch
        after = batch[-1].seq
    return entries


def test_numbers_start_at_one_and_rise_by_one(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    assert (record.first_seq, record.next_seq, record.read(0)) == (1, 1, [])
    assert [record.append(EntryKind.NOTE, b"{}", 0.0) for _ in range(3)] == [1, 2, 3]
    assert (record.first_seq, record.next_seq) == (1, 4)


def test_an_entry_comes_back_as_it_was_given(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    record.append(EntryKind.UP, [b"a", memoryview(b"bcd")[1:], bytearray(b""), b"\0" * 100_000], 12.25)
    assert record.read(0) == [Entry(1, EntryKind.UP, 12.25, b"acd" + b"\0" * 100_000)]


def test_a_memoryview_of_numbers_is_taken_as_its_bytes(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    record.append(EntryKind.DOWN, memoryview(b"12345678").cast("I"), 0.0)
    assert record.read(0)[0].body == b"12345678"


def test_a_batch_stays_within_its_limits_but_holds_at_least_one_entry(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    fill(record, 10, size=100)
    record.append(EntryKind.DOWN, b"x" * MIB, 0.0)
    fill(record, 1)
    assert [entry.seq for entry in record.read(0, max_bytes=350)] == [1, 2, 3]
    assert [entry.seq for entry in record.read(2, max_entries=2)] == [3, 4]
    assert [entry.seq for entry in record.read(0, max_bytes=0)] == [1]
    assert [len(entry.body) for entry in record.read(10, max_bytes=1)] == [MIB]
    assert [entry.seq for entry in record.read(-5, max_entries=1)] == [1]
    assert record.read(12) == record.read(99) == []


@pytest.mark.parametrize("size", [1, 40, 3000, 70_000])
def test_reading_from_any_number_gives_the_next_one(tmp_path: Path, size: int) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=MIB)
    bodies = fill(record, 300, size)
    for after in range(300):
        first = record.read(after, max_entries=1)[0]
        assert (first.seq, first.body) == (after + 1, bodies[after])


def test_a_reopened_record_goes_on_where_it_ended(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=1000)
    bodies = fill(record, 100)
    record.close()
    record = MessageRecord.open(tmp_path / "r", segment_bytes=1000)
    bodies += fill(record, 100)
    assert [entry.body for entry in read_all(record)] == bodies
    assert record.gaps() == []


def test_two_readers_at_different_places_do_not_disturb_each_other(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=500)
    fill(record, 50)
    seen: list[list[int]] = [[], []]
    cursors = [0, 25]
    while cursors != [50, 50]:
        for reader, limit in ((0, 3), (1, 1)):
            seen[reader] += [entry.seq for entry in record.read(cursors[reader], max_entries=limit)]
            cursors[reader] = max([cursors[reader], *seen[reader]])
    assert seen == [list(range(1, 51)), list(range(26, 51))]


def test_the_oldest_file_goes_when_the_record_is_full(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=1000, max_bytes=5000)
    fill(record, 1000)
    on_disk = sum(file.stat().st_size for file in (tmp_path / "r").iterdir())
    assert on_disk == record.size_bytes <= 5000
    assert 880 < record.first_seq < 950
    assert [entry.seq for entry in read_all(record)] == list(range(record.first_seq, 1001))


def test_a_reader_that_fell_behind_sees_the_gap_in_the_numbers(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=1000, max_bytes=3000)
    fill(record, 10)
    assert record.read(0, max_entries=1)[0].seq == 1
    fill(record, 500)
    assert record.read(1, max_entries=1)[0].seq == record.first_seq > 2


def test_an_entry_larger_than_a_segment_gets_a_file_of_its_own(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=1000, max_bytes=10_000)
    fill(record, 3)
    record.append(EntryKind.DOWN, b"x" * 20_000, 0.0)
    assert record.read(3)[0].body == b"x" * 20_000
    fill(record, 1)
    assert [entry.seq for entry in read_all(record, 3)] == [5]


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits are POSIX")
def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=100)
    fill(record, 10)
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "r").iterdir()} == {0o600}


def test_a_closed_record_can_still_be_read_but_not_written(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    bodies = fill(record, 3)
    record.close()
    record.close()
    assert [entry.body for entry in record.read(0)] == bodies
    with pytest.raises(ValueError, match="closed"):
        record.append(EntryKind.DOWN, b"", 0.0)


def test_a_deleted_record_leaves_nothing_and_starts_anew(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    fill(record, 3)
    record.close()
    assert MessageRecord.delete(tmp_path / "r")
    assert MessageRecord.delete(tmp_path / "r")
    assert record.read(0) == []
    assert MessageRecord.open(tmp_path / "r").next_seq == 1


def test_a_body_too_long_for_the_format_is_refused(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    block = bytes(64 * MIB)
    with pytest.raises(ValueError, match="too long"):
        record.append(EntryKind.DOWN, [block] * 64, 0.0)
    assert record.next_seq == 1


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on open files is POSIX")
def test_running_out_of_descriptors_loses_nothing(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", recent_bytes=0)
    bodies = fill(record, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(TransientError):
            record.read(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [entry.body for entry in record.read(0)] == bodies


def test_the_newest_entries_are_read_without_a_file(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", recent_bytes=2_000)
    bodies = fill(record, 30)
    for file in (tmp_path / "r").iterdir():
        file.write_bytes(b"")
    assert [entry.body for entry in record.read(27)] == bodies[27:]
    assert [entry.seq for entry in record.read(27, max_entries=2)] == [28, 29]
    assert record.read(0) == []


def test_a_large_entry_between_small_ones_hides_none_of_them(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    bodies = [b"a", b"b" * 100_000, b"c"]
    for body in bodies:
        record.append(EntryKind.DOWN, body, 0.0)
    assert [record.read(n)[0].body for n in range(3)] == bodies


async def wait_and_note(record: MessageRecord, after: int, woken: list[int]) -> None:
    await record.wait(after)
    woken.append(after)


@pytest.mark.anyio
async def test_an_append_wakes_all_who_wait_for_it_and_nobody_else(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    woken: list[int] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for after in (0, 0, 1):
                tasks.start_soon(wait_and_note, record, after, woken)
            await anyio.wait_all_tasks_blocked()
            fill(record, 1)
            await anyio.wait_all_tasks_blocked()
            assert woken == [0, 0]
            fill(record, 1)
    assert woken == [0, 0, 1]


@pytest.mark.anyio
async def test_waiting_for_what_is_there_returns_at_once(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    fill(record, 2)
    with anyio.fail_after(1):
        await record.wait(1)


@pytest.mark.anyio
async def test_closing_wakes_those_who_wait(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    woken: list[int] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_and_note, record, 7, woken)
            await anyio.wait_all_tasks_blocked()
            record.close()
    assert woken == [7]


@pytest.mark.anyio
async def test_a_follower_sees_every_entry_of_a_writer_in_another_task(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=2000)
    seen: list[int] = []

    async def follow() -> None:
        after = 0
        while after < 500:
            await record.wait(after)
            for entry in record.read(after, max_entries=7):
                seen.append(entry.seq)
                after = entry.seq

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            for i in range(500):
                fill(record, 1)
                if i % 3 == 0:
                    await anyio.lowlevel.checkpoint()
    assert seen == list(range(1, 501))


@pytest.mark.anyio
async def test_a_reader_that_never_reads_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r", segment_bytes=MIB, max_bytes=3 * MIB)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(record.wait, 10**9)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(20):
            fill(record, 20_000, size=1000)
        tasks.cancel_scope.cancel()
    assert record.next_seq == 20_001
    assert record.size_bytes <= 3 * MIB


def test_the_index_of_half_a_million_entries_is_small(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path / "r")
    tracemalloc.start()
    try:
        for _ in range(500_000):
            record.append(EntryKind.DOWN, b"0123456789", 0.0)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < MIB
    assert record.read(499_999)[0].seq == 500_000
