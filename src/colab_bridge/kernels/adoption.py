"""What a new daemon learns from a kernel's record about the work that its predecessor left."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from colab_bridge.kernels.activity import KernelActivity
from colab_bridge.kernels.notes import note_of
from colab_bridge.kernels.record import Entry, EntryKind, MessageRecord
from colab_bridge.kernels.sending import RequestSender
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["Inheritance"]

log = logging.getLogger(__name__)

#: How far back a new daemon looks for work that was under way where no run says where it began.
ADOPTED_ENTRIES = 5_000


@dataclass(slots=True, kw_only=True)
class Inheritance:
    """Reads entries into the state of a hub, oldest first.

    Attributes:
        activity: Learns what was under way.
        sender: Learns what was sent and answered.
        unsent: Requests without any proof that they arrived at the runtime, by id, oldest first. Control requests are
            not among them: one that comes late stops the wrong thing.
        heard: Whether the kernel ever said anything.
    """

    activity: KernelActivity
    sender: RequestSender
    unsent: dict[str, RawMessage] = field(default_factory=dict)
    heard: bool = False

    def read(self, record: MessageRecord, after: int | None) -> None:
        """Take in all entries of a record from a number on; from the last few thousand when it is None."""
        if after is None:
            after = record.next_seq - 1 - ADOPTED_ENTRIES
        cursor = max(after, record.first_seq - 1)
        while entries := record.read(cursor):
            for entry in entries:
                self._take(entry)
            cursor = entries[-1].seq

    def _take(self, entry: Entry) -> None:
        try:
            if entry.kind is EntryKind.NOTE:
                self._note(entry)
            elif entry.kind is EntryKind.UP:
                self._request(entry)
            else:
                self._message(decode_v1(entry.body))
        except MessageError:
            log.warning("unreadable record entry", extra={"seq": entry.seq})

    def _request(self, entry: Entry) -> None:
        message = decode_v1(entry.body)
        self.sender.remember(message.msg_id)
        if message.channel == "stdin":
            return  # what was typed is not recorded, so it cannot be sent again
        self.activity.sent(message)
        self.sender.fence.sent(message)
        if not entry.origin and message.channel != "control":
            self.unsent[message.msg_id] = message

    def _message(self, message: RawMessage) -> None:
        self.heard = True
        self.unsent.pop(message.parent_id, None)
        self.activity.received(message)
        self.sender.fence.received(message)

    def _note(self, entry: Entry) -> None:
        note = note_of(entry)
        if note.get("type") == "sent":
            msg_id = str(note.get("msg_id"))
            self.unsent.pop(msg_id, None)
            self.sender.fence.arrived(msg_id)
        elif note.get("type") in ("died", "restarted"):
            # What was under way has ended there; without this it would be sent again, to another kernel process.
            self.activity.clear()
            self.sender.fence.clear()
            self.unsent.clear()
