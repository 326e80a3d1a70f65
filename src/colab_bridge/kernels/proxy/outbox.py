"""What the front ends have sent and the kernel has not answered yet.

It serves two purposes. Replies come back without ZMQ identities, so the table says who asked. And a connection that
dies takes with it what was written but not read: everything here is sent again after a reconnect, and the daemon drops
what it has seen already, by ``msg_id``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from colab_bridge.wire.message import RawMessage

__all__ = ["Outbox"]

#: Requests without an answer; a front end has a handful, so the oldest of so many has been forgotten by everybody.
MAX_REQUESTS = 10_000
#: Messages that are never answered (comm_msg, input_reply ...) and not known to have arrived.
MAX_ONE_WAY = 1_000
MAX_ONE_WAY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    message: RawMessage
    identities: Sequence[bytes]


class Outbox:
    """Messages on their way up, in the order in which they came."""

    def __init__(self) -> None:
        self._requests: OrderedDict[str, _Entry] = OrderedDict()
        self._one_way: OrderedDict[str, _Entry] = OrderedDict()
        self._one_way_bytes = 0
        self._count = 0
        self._last_execute: dict[str, Any] | None = None

    def add(self, message: RawMessage, identities: Sequence[bytes]) -> None:
        """Remember a message that goes up.

        Args:
            message: From a front end, with a ``msg_id``.
            identities: Its ZMQ identity frames.
        """
        self._count += 1
        entry = _Entry(self._count, message, identities)
        if not message.msg_type.endswith("_request"):
            self._add_one_way(entry)
            return
        self._requests[message.msg_id] = entry
        if message.msg_type == "execute_request":
            self._last_execute = message.header_fields()
        if len(self._requests) > MAX_REQUESTS:
            self._requests.popitem(last=False)

    def _add_one_way(self, entry: _Entry) -> None:
        self._one_way[entry.message.msg_id] = entry
        self._one_way_bytes += entry.message.size_bytes
        while len(self._one_way) > MAX_ONE_WAY or (self._one_way_bytes > MAX_ONE_WAY_BYTES and len(self._one_way) > 1):
            self._drop_oldest_one_way()

    def _drop_oldest_one_way(self) -> None:
        _, entry = self._one_way.popitem(last=False)
        self._one_way_bytes -= entry.message.size_bytes

    def settle(self, message: RawMessage) -> None:
        """Learn from a message of the kernel: whatever was sent before its cause has arrived, too.

        Args:
            message: From the kernel, on any channel.
        """
        if not self._one_way:
            return
        cause = self._requests.get(message.parent_id) or self._one_way.get(message.parent_id)
        if cause is None:
            return
        while self._one_way and next(iter(self._one_way.values())).number <= cause.number:
            self._drop_oldest_one_way()

    def asker(self, message: RawMessage) -> Sequence[bytes] | None:
        """Return the identities of whoever gets a reply or an ``input_request``; a reply ends its request.

        Args:
            message: From the kernel, on shell, control or stdin.

        Returns:
            None when none of our front ends asked for it.
        """
        entry = self._requests.get(message.parent_id)
        if entry is None:
            return None
        # The kernel's question belongs to an execution that goes on.
        if message.msg_type.endswith("_reply"):
            del self._requests[message.parent_id]
        return entry.identities

    def take(self, *msg_types: str) -> list[tuple[RawMessage, Sequence[bytes]]]:
        """Remove unanswered requests and return them with their askers, because we answer them ourselves.

        Args:
            msg_types: Only these; all requests when none is given.
        """
        chosen = [key for key, entry in self._requests.items() if not msg_types or entry.message.msg_type in msg_types]
        return [(entry.message, entry.identities) for entry in map(self._requests.pop, chosen)]

    def clear_one_way(self) -> None:
        """Forget what is never answered, because there is no kernel that could want it."""
        self._one_way.clear()
        self._one_way_bytes = 0

    def unanswered(self) -> list[RawMessage]:
        """Return everything that may not have arrived, in the order of :meth:`add`."""
        entries = sorted([*self._requests.values(), *self._one_way.values()], key=lambda entry: entry.number)
        return [entry.message for entry in entries]

    @property
    def executing(self) -> dict[str, Any] | None:
        """Header of the oldest ``execute_request`` without a reply: the one that the kernel is at."""
        for entry in self._requests.values():
            if entry.message.msg_type == "execute_request":
                return entry.message.header_fields()
        return None

    @property
    def last_execute(self) -> dict[str, Any] | None:
        """Header of the running execution, or of the latest one."""
        return self.executing or self._last_execute
