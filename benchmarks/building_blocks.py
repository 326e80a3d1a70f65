"""The parts that every byte passes: record and codecs. Numbers to compare versions with, no promises."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Row, summarize
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.wire.jupyter_ws import decode_json, decode_v1, encode_json, encode_v1
from colab_bridge.wire.message import RawMessage

__all__ = ["measure"]

_SIZES = {"1 kB": 1_000, "100 kB": 100_000}


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure megabytes a second of the record and of both framings, for small and for large messages.

    Args:
        quick: A fifth of the data.
    """
    total = 10_000_000 if quick else 50_000_000
    for size, length in _SIZES.items():
        yield from _codec_rows(size, length, total // length)
        yield from _record_rows(size, length, total // length)


def _codec_rows(size: str, length: int, count: int) -> Iterator[Row]:
    message = _stream(length)
    frame, text = encode_v1(message), encode_json(message)
    works: dict[str, Callable[[], object]] = {
        "v1 encode": lambda: encode_v1(message),
        "v1 decode": lambda: decode_v1(frame),
        "JSON encode": lambda: encode_json(message),
        "JSON decode": lambda: decode_json(text),
    }
    for what, work in works.items():
        yield _row(f"codec, {what}, messages of {size}", [_rate(work, count, length) for _ in range(3)])


def _record_rows(size: str, length: int, count: int) -> Iterator[Row]:
    body = encode_v1(_stream(length))
    written, read = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory(prefix="cb-bench-", ignore_cleanup_errors=True) as folder:
            record = MessageRecord.open(Path(folder) / "record")
            written.append(_rate(lambda record=record: record.append(EntryKind.DOWN, body, 0.0), count, length))  # type: ignore[misc]
            read.append(_read_rate(record, length))
            record.close()
    yield _row(f"record, append, messages of {size}", written)
    yield _row(f"record, read, messages of {size}", read)


def _row(what: str, rates: list[float]) -> Row:
    return Row(item="parts", what=what, unit="MB/s", ours=summarize(rates, larger_is_better=True))


def _stream(length: int) -> RawMessage:
    parent = {"msg_id": "0" * 32, "msg_type": "execute_request", "session": "s", "username": "u", "version": "5.4"}
    content = {"name": "stdout", "text": "x" * length}
    return RawMessage.build("iopub", "stream", content, msg_id="1" * 32, session="s", parent=parent)


def _rate(work: Callable[[], object], count: int, length: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        work()
    return count * length / (time.perf_counter() - begun) / 1e6


def _read_rate(record: MessageRecord, length: int) -> float:
    begun = time.perf_counter()
    cursor = count = 0
    while entries := record.read(cursor):
        cursor = entries[-1].seq
        count += len(entries)
    return count * length / (time.perf_counter() - begun) / 1e6
