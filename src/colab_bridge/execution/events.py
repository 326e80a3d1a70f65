"""The events of a run, read from the record of its kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.record import Entry, EntryKind, MessageRecord
from colab_bridge.model.records import Run
from colab_bridge.wire.events import event_from_message
from colab_bridge.wire.jupyter_ws import COPIED_BYTES, decode_v1
from colab_bridge.wire.message import MessageError

__all__ = ["event_of", "recorded_entries", "run_events"]

Event = dict[str, Any]

#: Notes without a run that concern whatever runs on the kernel.
_SHARED_NOTES = frozenset({"link", "lost", "died", "restarted"})


def event_of(entry: Entry, run_id: str) -> Event | None:
    """Return the event that a record entry means for a run, None when it means nothing for it."""
    if entry.kind is EntryKind.UP:
        return None
    if entry.kind is EntryKind.NOTE:
        note = note_of(entry)
        if note.get("run") != run_id and note.get("type") not in _SHARED_NOTES:
            return None
        return {"seq": entry.seq, **_as_event(note)}
    try:
        seq, message = entry.seq, decode_v1(entry.body)
        del entry  # where nobody else holds it, a large one is gone before its parsed values are made
        if not message.parent_id.startswith(run_id + "."):
            return None
        if message.size_bytes > COPIED_BYTES:
            message.keep_parsed_only()
        return event_from_message(seq, message)
    except MessageError:
        return None


def _as_event(note: Event) -> Event:
    if note.get("type") in ("died", "restarted"):
        return {"type": "notice", "level": "warning", "text": str(note.get("text", ""))}
    return {key: value for key, value in note.items() if key != "run" or note.get("type") == "started"}


async def run_events(
    run: Run, hub: HubKernel | None, records: Path, *, after: int, follow: bool
) -> AsyncIterator[list[Event]]:
    """Iterate over the events of a run in batches, up to its ``finished``; a batch may be emptied by who gets it.

    Args:
        run: The run.
        hub: Its kernel's hub, None when the kernel is gone.
        records: Folder of the records.
        after: Number of the last event seen.
        follow: Wait for more while the run goes on.
    """
    cursor = max(after, run.first_seq)
    source = (
        hub.record.follow(cursor) if hub is not None and follow else recorded_entries(records / run.kernel, cursor, hub)
    )
    async for batch in source:
        batch.reverse()
        events: list[Event] = []
        while batch:
            if (event := event_of(batch.pop(), run.id)) is not None:
                events.append(event)
        event = None
        end = next((n for n, event in enumerate(events) if event["type"] == "finished"), None)
        if end is not None:
            yield events[: end + 1]
            return
        if events:
            yield events


async def recorded_entries(folder: Path, after: int, hub: HubKernel | None = None) -> AsyncIterator[list[Entry]]:
    """Iterate over what a record holds now, without waiting for more.

    Args:
        folder: The record's folder; nothing comes when it is gone.
        after: Number of the last entry seen.
        hub: The hub that has the record open, None when nobody has.
    """
    if hub is None and not folder.is_dir():
        return
    record = hub.record if hub is not None else MessageRecord.open(folder)
    try:
        while batch := record.read(after):
            after = batch[-1].seq
            yield batch
    finally:
        if hub is None:
            record.close()
