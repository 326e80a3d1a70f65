"""The record against a plain list, over any sequence of operations."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from colab_bridge.agent.record_segment import ENTRY_HEADER_BYTES, FILE_HEADER_BYTES
from colab_bridge.kernels.record import Entry, EntryKind, MessageRecord

SEGMENT = 600
LIMIT = 2500


class RecordMachine(RuleBasedStateMachine):
    """Appends, reads, reopens, tears the tail off, and compares with a list of the entries that must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.record = self._open()
        self.model: list[Entry] = []

    def _open(self) -> MessageRecord:
        return MessageRecord.open(self.folder, segment_bytes=SEGMENT, max_bytes=LIMIT)

    def _forget_what_the_ring_dropped(self) -> None:
        self.model = [entry for entry in self.model if entry.seq >= self.record.first_seq]

    @rule(
        kind=st.sampled_from(EntryKind),
        size=st.one_of(st.integers(0, 80), st.integers(0, 1500)),
        fill=st.integers(0, 255),
        time_s=st.floats(allow_nan=False),
        split=st.integers(0, 3),
        origin=st.one_of(st.just(0), st.integers(0, 2**64 - 1)),
    )
    def append(self, kind: EntryKind, size: int, fill: int, time_s: float, split: int, origin: int) -> None:
        body = bytes([fill]) * size
        expected = self.model[-1].seq + 1 if self.model else self.record.next_seq
        seq = self.record.append(kind, [body[:split], memoryview(body)[split:]], time_s, origin=origin)
        assert seq == expected
        self.model.append(Entry(seq, kind, time_s, body, origin))
        self._forget_what_the_ring_dropped()
        assert self.model[-1].seq == seq

    @rule(back=st.integers(0, 60), max_bytes=st.integers(0, 2000), max_entries=st.integers(1, 20))
    def read(self, back: int, max_bytes: int, max_entries: int) -> None:
        after = max(0, self.record.next_seq - 1 - back)
        expected = [entry for entry in self.model if entry.seq > after]
        got = self.record.read(after, max_bytes=max_bytes, max_entries=max_entries)
        assert got == expected[: len(got)]
        assert bool(got) == bool(expected)
        assert len(got) <= max_entries
        assert len(got) <= 1 or sum(len(entry.body) for entry in got) <= max_bytes

    @rule(orderly=st.booleans())
    def reopen(self, orderly: bool) -> None:
        abandoned = self.record
        if orderly:
            abandoned.close()
        self.record = self._open()
        abandoned.close()

    @precondition(lambda self: self.model)
    @rule(cut=st.integers(1, 200))
    def tear_the_tail_off(self, cut: int) -> None:
        self.record.close()
        newest = max(self.folder.glob("*.rec"))
        held = [entry for entry in self.model if entry.seq >= int(newest.stem)]
        size = max(0, newest.stat().st_size - cut)
        os.truncate(newest, size)
        end = FILE_HEADER_BYTES
        for entry in held:
            end += ENTRY_HEADER_BYTES + len(entry.body)
            if end > size:
                self.model = [kept for kept in self.model if kept.seq < entry.seq]
                break
        self.record = self._open()

    @invariant()
    def the_numbers_agree(self) -> None:
        if self.model:
            assert self.record.first_seq == self.model[0].seq
            assert self.record.next_seq == self.model[-1].seq + 1
        assert self.record.degraded == ""
        assert self.record.gaps() == []

    @invariant()
    def the_disk_holds_no_more_than_the_limit(self) -> None:
        sizes = [file.stat().st_size for file in self.folder.iterdir()]
        assert sum(sizes) == self.record.size_bytes
        assert len(sizes) == 1 or sum(sizes) <= LIMIT

    def teardown(self) -> None:
        self.record.close()
        shutil.rmtree(self.folder)


TestRecordAgainstAList = RecordMachine.TestCase
TestRecordAgainstAList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
