"""What the record makes of files that are torn, damaged, foreign or gone, and of writers that were killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from colab_bridge.agent.record_segment import ENTRY_HEADER_BYTES, FILE_HEADER_BYTES
from colab_bridge.kernels.record import EntryKind, MessageRecord

BODY = 10
ENTRY = ENTRY_HEADER_BYTES + BODY


def fill(folder: Path, count: int, **options: int) -> None:
    record = MessageRecord.open(folder, **options)
    for _ in range(count):
        record.append(EntryKind.DOWN, f"{record.next_seq:>{BODY}}".encode(), 0.0)
    record.close()


def seqs(record: MessageRecord) -> list[int]:
    found: list[int] = []
    while batch := record.read(found[-1] if found else 0):
        assert all(int(entry.body) == entry.seq for entry in batch)
        found += [entry.seq for entry in batch]
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.rec"))


def test_a_tail_cut_at_any_byte_leaves_the_entries_before_it(tmp_path: Path) -> None:
    fill(tmp_path / "whole", 4)
    size = files(tmp_path / "whole")[0].stat().st_size
    for end in range(size + 1):
        folder = tmp_path / f"cut-{end}"
        shutil.copytree(tmp_path / "whole", folder)
        os.truncate(files(folder)[0], end)
        record = MessageRecord.open(folder)
        whole = max(0, (end - FILE_HEADER_BYTES) // ENTRY)
        assert (seqs(record), record.next_seq) == (list(range(1, whole + 1)), whole + 1)
        record.append(EntryKind.DOWN, f"{whole + 1:>{BODY}}".encode(), 0.0)
        record.close()
        assert seqs(MessageRecord.open(folder)) == list(range(1, whole + 2))


def test_a_tail_of_zeros_as_after_a_power_cut_is_cut_off(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    with files(tmp_path)[0].open("ab") as file:
        file.write(bytes(5000))
    fill(tmp_path, 2)
    record = MessageRecord.open(tmp_path)
    assert seqs(record) == [1, 2, 3, 4, 5, 6, 7]
    assert record.size_bytes == FILE_HEADER_BYTES + 7 * ENTRY


@pytest.mark.parametrize("offset", range(0, ENTRY, 3))
def test_a_changed_byte_in_the_middle_costs_one_entry_and_leaves_a_gap(tmp_path: Path, offset: int) -> None:
    fill(tmp_path, 10)
    path = files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[FILE_HEADER_BYTES + 4 * ENTRY + offset] ^= 0x55
    path.write_bytes(data)
    record = MessageRecord.open(tmp_path)
    record.append(EntryKind.DOWN, b"        11", 0.0)
    assert seqs(record) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert record.gaps() == [(5, 5)]
    assert path.read_bytes() == data, "a damaged file is not written again"


def test_damage_in_an_old_segment_is_found_when_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path, 100, segment_bytes=500)
    path = files(tmp_path)[2]
    data = bytearray(path.read_bytes())
    data[FILE_HEADER_BYTES + ENTRY : FILE_HEADER_BYTES + 3 * ENTRY] = os.urandom(2 * ENTRY)
    path.write_bytes(data)
    record = MessageRecord.open(tmp_path)
    lost = int(path.stem) + 1
    assert seqs(record) == [seq for seq in range(1, 101) if seq not in (lost, lost + 1)]
    assert record.gaps() == [(lost, lost + 1)]


def test_damage_that_happens_while_the_record_is_open_is_skipped(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path, recent_bytes=0)
    for seq in range(1, 11):
        record.append(EntryKind.DOWN, f"{seq:>{BODY}}".encode(), 0.0)
    with files(tmp_path)[0].open("r+b") as file:
        file.seek(FILE_HEADER_BYTES + 4 * ENTRY + 3)
        file.write(b"\xff\xff\xff\xff")
    assert seqs(record) == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert record.append(EntryKind.DOWN, b"        11", 0.0) == 11
    assert seqs(record)[-1] == 11


@pytest.mark.parametrize("lost", [5, 10])
def test_a_body_that_changes_while_the_record_is_open_is_not_handed_out(tmp_path: Path, lost: int) -> None:
    record = MessageRecord.open(tmp_path, recent_bytes=0)
    for seq in range(1, 11):
        record.append(EntryKind.DOWN, f"{seq:>{BODY}}".encode(), 0.0)
    with files(tmp_path)[0].open("r+b") as file:
        file.seek(FILE_HEADER_BYTES + lost * ENTRY - 1)
        file.write(b"?")
    assert lost not in seqs(record)
    assert record.append(EntryKind.DOWN, b"        11", 0.0) == 11
    assert seqs(record) == [seq for seq in range(1, 12) if seq != lost]
    assert record.gaps() == [(lost, lost)]
    record.close()
    assert seqs(MessageRecord.open(tmp_path)) == [seq for seq in range(1, 12) if seq != lost]


def test_a_file_that_is_no_segment_is_renamed_and_its_numbers_are_not_used_again(
    tmp_path: Path,
) -> None:
    fill(tmp_path, 10)
    path = files(tmp_path)[0]
    junk = os.urandom(path.stat().st_size)
    path.write_bytes(junk)
    for _ in range(2):
        record = MessageRecord.open(tmp_path)
        assert record.next_seq > 10
        assert record.read(0) == []
        record.close()
    assert (tmp_path / f"{path.name}.damaged").read_bytes() == junk
    fill(tmp_path, 3)
    assert len(seqs(MessageRecord.open(tmp_path))) == 3


def test_a_foreign_file_in_the_middle_is_skipped(tmp_path: Path) -> None:
    fill(tmp_path, 100, segment_bytes=500)
    broken, following = files(tmp_path)[3:5]
    broken.write_bytes(b"not a segment, but long enough to look at")
    record = MessageRecord.open(tmp_path)
    lost = range(int(broken.stem), int(following.stem))
    assert seqs(record) == [seq for seq in range(1, 101) if seq not in lost]
    assert record.gaps() == [(lost[0], lost[-1])]
    record.close()
    assert MessageRecord.open(tmp_path).next_seq == 101


def test_segments_that_somebody_removed_are_a_gap(tmp_path: Path) -> None:
    record = MessageRecord.open(tmp_path, segment_bytes=500, recent_bytes=0)
    for seq in range(1, 101):
        record.append(EntryKind.DOWN, f"{seq:>{BODY}}".encode(), 0.0)
    gone, following = files(tmp_path)[1:3]
    gone.unlink()
    assert seqs(record) == [seq for seq in range(1, 101) if not int(gone.stem) <= seq < int(following.stem)]


def test_names_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "00000000000000000001.rec.damaged.txt").write_text("hello")
    (tmp_path / "00000000000000000009.rec").mkdir()
    fill(tmp_path, 3)
    assert seqs(MessageRecord.open(tmp_path)) == [1, 2, 3]


def test_a_body_that_looks_like_an_entry_is_not_taken_for_one(tmp_path: Path) -> None:
    """Entries of another record that a kernel prints must not appear once the entry around them is damaged."""
    fill(tmp_path / "other", 5)
    forged = files(tmp_path / "other")[0].read_bytes()[FILE_HEADER_BYTES:]
    record = MessageRecord.open(tmp_path / "mine")
    record.append(EntryKind.DOWN, forged, 0.0)
    record.append(EntryKind.DOWN, b"         2", 0.0)
    record.close()
    with files(tmp_path / "mine")[0].open("r+b") as file:
        file.seek(FILE_HEADER_BYTES + ENTRY_HEADER_BYTES - 1)
        file.write(b"\x00\x00")
    assert seqs(MessageRecord.open(tmp_path / "mine")) == [2]


WRITER = """
import sys
from pathlib import Path
from colab_bridge.kernels.record import EntryKind, MessageRecord
record = MessageRecord.open(Path(sys.argv[1]), segment_bytes=100_000)
while True:
    seq = record.append(EntryKind.DOWN, str(record.next_seq).encode().rjust(1 + record.next_seq * 37 % 5000), 0.0)
    sys.stdout.write(f"{seq}\\n")
    sys.stdout.flush()
"""


def test_a_killed_writer_leaves_every_entry_whose_append_returned(tmp_path: Path) -> None:
    reported = 0
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        try:
            for line in writer.stdout:
                reported = int(line)
                if reported % 700 == 0:
                    break
            writer.kill()
            reported = max([reported, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        finally:
            writer.kill()
            writer.wait(10)
            writer.stdout.close()
        record = MessageRecord.open(tmp_path, segment_bytes=100_000)
        found = seqs(record)
        record.close()
        assert found == list(range(1, len(found) + 1))
        assert len(found) in (reported, reported + 1)
