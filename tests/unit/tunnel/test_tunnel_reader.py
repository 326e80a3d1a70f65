"""The way of a stream through a journal, at any pace of the one who reads."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from colab_bridge.agent.faults import BufferFull, ChannelMisuse
from colab_bridge.agent.record import Record
from colab_bridge.agent.tunnel import reader as reader_module
from colab_bridge.agent.tunnel.journal import Journal
from colab_bridge.agent.tunnel.reader import JournalReader


class NarrowStream:
    """A stream with room for so many bytes, until it is read from."""

    id, name, params = 2, "tunnel.kernel", {}

    def __init__(self, resume_from: int = 1) -> None:
        self.resume_from = resume_from
        self.room = 0
        self.whole: list[tuple[int, bytes]] = []
        self.parts: list[bytes] = []
        self.number = 0
        self.refused = False
        self.gone = False

    def can_send(self, size_bytes: int = 0) -> bool:
        self.refused |= size_bytes > self.room
        return size_bytes <= self.room

    def send(
        self, header: Any, payload: bytes = b"", *, number: int | None = None, final: bool = True, prompt: bool = False
    ) -> int:
        if self.gone:
            raise ChannelMisuse("gone")
        if len(payload) > self.room:
            raise BufferFull
        assert number is not None
        assert (header is None) == bool(self.parts)
        assert number == self.number if self.parts else number > self.number
        self.room -= len(payload)
        self.number = number
        self.parts.append(payload)
        if final:
            self.whole.append((number, b"".join(self.parts)))
            self.parts = []
        return number

    def consumed(self, seq: int) -> None:
        raise AssertionError("a reader takes nothing")

    def close(self, code: str = "", message: str = "") -> None:
        raise AssertionError("a reader does not close")


async def drain(stream: NarrowStream, reader: JournalReader, room: int) -> None:
    """Read until nothing more comes."""
    for _ in range(10_000):
        await asyncio.sleep(0)
        stream.room = room
        if stream.refused:
            stream.refused = False
            reader.writable()
        elif reader._timer is None and not reader._batch:
            return
    raise AssertionError("the reader never comes to its end")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.one_of(st.integers(0, 50), st.integers(0, 3000))),
        st.tuples(st.just("read"), st.integers(0, 4000)),
        st.tuples(st.just("give up"), st.just(0)),
    ),
    max_size=40,
)


@given(steps=steps, resume_from=st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_every_entry_comes_once_whole_and_in_order(steps: list[tuple[str, int]], resume_from: int) -> None:
    asyncio.run(follow(steps, resume_from))


async def follow(steps: list[tuple[str, int]], resume_from: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader_module, "PIECE_BYTES", 700)
        patch.setattr(reader_module, "_BATCH_BYTES", 2000)
        patch.setattr(reader_module, "_LONG_BYTES", 900)
        journal = Journal(Record.open(Path(folder)))
        bodies = [bytes([65 + number]) * 10 for number in range(12)]
        for body in bodies:
            journal.down([body])
        stream = NarrowStream(resume_from)
        reader = JournalReader(stream, asyncio.get_running_loop())
        reader.begin(journal)
        for what, size in steps:
            if what == "append":
                bodies.append(bytes([len(bodies) % 256]) * size)
                journal.down([bodies[-1]])
            elif what == "read":
                stream.room = size
                if stream.refused:
                    stream.refused = False
                    reader.writable()
            elif reader._blocked and reader._batch:
                reader._stop_timer()
                reader._give_up_batch()
            await asyncio.sleep(0)
        await drain(stream, reader, 5000)
        assert stream.whole == list(enumerate(bodies, start=1))[resume_from - 1 :]
        reader.close()
        journal.record.close()


async def test_an_entry_that_leaves_the_journal_while_it_is_sent_is_ended_and_the_next_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "PIECE_BYTES", 700)
    monkeypatch.setattr(reader_module, "_LONG_BYTES", 900)
    journal = Journal(Record.open(tmp_path, segment_bytes=2000, max_bytes=4000))
    stream = NarrowStream()
    reader = JournalReader(stream, asyncio.get_running_loop())
    reader.begin(journal)
    stream.room = 1800
    journal.down([b"a" * 1900])
    assert stream.parts == [b"a" * 700]
    reader._give_up_batch()
    for letter in (b"b", b"c", b"d"):
        journal.down([letter * 1900])
    assert journal.record.first_seq > 1
    await drain(stream, reader, 5000)
    assert stream.whole[0] == (1, b"a" * 700)
    assert [number for number, _body in stream.whole[1:]] == list(range(journal.record.first_seq, 5))
    reader.close()


async def test_a_stream_that_is_gone_is_not_sent_to_any_more(tmp_path: Path) -> None:
    journal = Journal(Record.open(tmp_path))
    stream = NarrowStream()
    stream.room, stream.gone = 10_000, True
    reader = JournalReader(stream, asyncio.get_running_loop())
    reader.begin(journal)
    journal.down([b"a"])
    stream.gone = False
    journal.down([b"b"])
    assert stream.whole == []


async def follow_empty_journal(folder: Path) -> tuple[Journal, NarrowStream]:
    journal = Journal(Record.open(folder))
    stream = NarrowStream()
    stream.room = 1_000_000
    JournalReader(stream, asyncio.get_running_loop()).begin(journal)
    return journal, stream


async def test_what_is_not_urgent_goes_together_with_what_follows(tmp_path: Path) -> None:
    journal, stream = await follow_empty_journal(tmp_path)
    journal.up(b"request")
    journal.down([b"busy"], urgent=False)
    assert stream.whole == []
    journal.down([b"output"])
    assert stream.whole == [(1, b"request"), (2, b"busy"), (3, b"output")]


async def test_what_is_not_urgent_goes_alone_when_nothing_follows(tmp_path: Path) -> None:
    journal, stream = await follow_empty_journal(tmp_path)
    journal.up(b"request")
    async with asyncio.timeout(10):
        while not stream.whole:
            await asyncio.sleep(0.001)
    assert stream.whole == [(1, b"request")]


async def test_little_waits_though_it_is_not_urgent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "_COMPANY_BYTES", 100)
    monkeypatch.setattr(reader_module, "_COMPANY_ENTRIES", 3)
    journal, stream = await follow_empty_journal(tmp_path)
    journal.up(bytes(101))
    assert [number for number, _body in stream.whole] == [1]
    for _ in range(3):
        journal.up(b"request")
    assert [number for number, _body in stream.whole] == [1, 2, 3, 4]
