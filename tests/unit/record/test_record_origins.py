"""Numbers that entries had in the record that they were copied from, and what a record is told about its disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from colab_bridge.agent.record import EntryKind, Record

OLD_FILE = b"CBREC1\r\n" + b"saltsalt" + bytes(500)


def test_an_entry_keeps_its_origin(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    record.append(EntryKind.DOWN, b"a", 0.0, origin=2**64 - 1)
    record.append(EntryKind.DOWN, b"b", 0.0)
    assert [entry.origin for entry in record.read(0)] == [2**64 - 1, 0]


@pytest.mark.parametrize("origin", [-1, 2**64])
def test_what_cannot_be_an_origin_is_refused(tmp_path: Path, origin: int) -> None:
    record = Record.open(tmp_path)
    with pytest.raises(ValueError, match="origin"):
        record.append(EntryKind.DOWN, b"a", 0.0, origin=origin)
    assert record.next_seq == 1


def test_the_highest_origin_is_known_right_after_opening(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    for origin in (7, 9, 0):
        record.append(EntryKind.DOWN, b"a", 0.0, origin=origin)
    assert record.last_origin == 9
    assert Record.open(tmp_path).last_origin == 9


def test_the_highest_origin_is_known_though_it_is_not_in_the_newest_file(tmp_path: Path) -> None:
    record = Record.open(tmp_path, segment_bytes=200)
    record.append(EntryKind.DOWN, b"a", 0.0, origin=5)
    for _ in range(20):
        record.append(EntryKind.NOTE, bytes(100), 0.0)
    newest = max(tmp_path.glob("*.rec"))
    for file in tmp_path.glob("*.rec"):
        if file != newest:
            file.unlink()
    assert Record.open(tmp_path).last_origin == 5


def test_the_highest_origin_after_damage_is_that_of_what_is_left(tmp_path: Path) -> None:
    record = Record.open(tmp_path, segment_bytes=200)
    for origin in range(1, 6):
        record.append(EntryKind.DOWN, bytes(150), 0.0, origin=origin)
    record.close()
    newest = max(tmp_path.glob("*.rec"))
    newest.write_bytes(b"no segment at all, and longer than a header of one")
    again = Record.open(tmp_path, segment_bytes=200)
    assert again.last_origin == 4


def test_a_file_of_the_format_before_is_set_aside_and_its_numbers_are_not_given_again(tmp_path: Path) -> None:
    (tmp_path / f"{1:020d}.rec").write_bytes(OLD_FILE)
    record = Record.open(tmp_path)
    assert record.read(0) == []
    assert record.next_seq >= 1 + 500 // 32
    assert [file.suffix for file in tmp_path.iterdir()] == [".damaged"]


def test_numbers_can_be_lifted_and_stay_so(tmp_path: Path) -> None:
    record = Record.open(tmp_path)
    record.append(EntryKind.DOWN, b"a", 0.0)
    record.lift(100)
    record.lift(50)
    assert record.append(EntryKind.DOWN, b"b", 0.0) == 100
    assert record.gaps() == [(2, 99)]
    again = Record.open(tmp_path)
    assert (again.next_seq, [entry.seq for entry in again.read(1)]) == (101, [100])
    assert again.gaps() == [(2, 99)]


def test_a_disk_that_must_not_be_filled_is_like_a_full_one(tmp_path: Path) -> None:
    room = [10]

    def guard() -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "less than 512 MB are free")

    record = Record.open(tmp_path, guard=guard)
    for _ in range(30):
        record.append(EntryKind.DOWN, bytes(1024 * 1024), 0.0)
    assert "less than 512 MB are free" in record.degraded
    assert 9 * 1024 * 1024 < record.size_bytes < 12 * 1024 * 1024
    assert record.next_seq == 31
