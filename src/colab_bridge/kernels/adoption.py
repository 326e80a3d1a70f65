"""What a new daemon learns from a kernel's record about the work that its predecessor left. No input or output."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from colab_bridge.kernels.activity import KernelActivity
from colab_bridge.kernels.fence import RequestFence
from colab_bridge.kernels.notes import note_of
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["Inheritance"]

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Inheritance:
    """Reads entries into the state of a hub, oldest first.

    Attributes:
        activity: Learns what was under way.
        fence: Learns what was sent and answered.
        known: Ids of all requests, oldest first.
        unsent: Requests without any proof that they arrived at the runtime, by id, oldest first. Control requests are
            not among them: one that comes late stops the wrong thing.
        heard: Whether the kernel ever said anything.
    """

    activity: KernelActivity
    fence: RequestFence
    known: list[str] = field(default_factory=list)
    unsent: dict[str, RawMessage] = field(default_factory=dict)
    heard: bool = False

    def take(self, entry: Entry) -> None:
        """Take in the next entry."""
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
        self.known.append(message.msg_id)
        if message.channel == "stdin":
            return  # what was typed is not recorded, so it cannot be sent again
        self.activity.sent(message)
        self.fence.sent(message)
        if not entry.origin and message.channel != "control":
            self.unsent[message.msg_id] = message

    def _message(self, message: RawMessage) -> None:
        self.heard = True
        self.unsent.pop(message.parent_id, None)
        self.activity.received(message)
        self.fence.received(message)

    def _note(self, entry: Entry) -> None:
        note = note_of(entry)
        if note.get("type") == "sent":
            msg_id = str(note.get("msg_id"))
            self.unsent.pop(msg_id, None)
            self.fence.arrived(msg_id)
        elif note.get("type") in ("died", "restarted"):
            # What was under way has ended there; without this it would be sent again, to another kernel process.
            self.activity.clear()
            self.fence.clear()
            self.unsent.clear()
