"""Receiving on a WebSocket in the callback that gets the bytes: no queue, no task, no turn of the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode

__all__ = ["PromptConnection"]

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class PromptConnection(ClientConnection):
    """A connection whose messages are handed over; nobody calls ``recv``.

    Args:
        take: Is given each message, text or binary, on the event loop; must neither block nor raise.
        arguments: As the library passes them.
        options: As the library passes them.
    """

    def __init__(self, take: Callable[[str | bytes], None], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._take = take
        self._is_text = False
        self._parts: list[bytes] = []

    def process_event(self, event: Any) -> None:
        """Take a frame, or leave to the library what is no data."""
        if not isinstance(event, Frame) or event.opcode not in _DATA:
            super().process_event(event)
            return
        if event.opcode is not Opcode.CONT:
            self._is_text = event.opcode is Opcode.TEXT
        self._parts.append(bytes(event.data))
        if event.fin:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._take(data.decode("utf-8", "replace") if self._is_text else data)
