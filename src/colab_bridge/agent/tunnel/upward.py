"""One stream of the daemon: the journal goes down, messages for the kernel come up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..events import StreamData
from ..process.service import ServerStream
from .frames import FrameFault, fields, unpack
from .reader import JournalReader

if TYPE_CHECKING:
    from .kernel import HeldKernel

__all__ = ["Incoming", "KernelStream"]

log = logging.getLogger(__name__)

# A longer message to a kernel is dropped: it would not fit into the agent's memory.
_MAX_MESSAGE_BYTES = 128 * 1024 * 1024
# So much on its way does not delay what comes behind it.
_LATE_BYTES = 128 * 1024
_UP_CHANNELS = ("shell", "control", "stdin")


class Incoming:
    """A message for the kernel.

    Attributes:
        frame: In the v1 framing.
        channel: Where it goes.
        parts: Header, parent, metadata, content and buffers.
        msg_id: Its id, may be empty.
        msg_type: Its type, may be empty.
        done: Called once, when it is in the journal or not wanted.
    """

    __slots__ = ("channel", "done", "frame", "msg_id", "msg_type", "parts")

    def __init__(self, frame: bytes, done: Callable[[], None]) -> None:
        """Read a frame.

        Raises:
            FrameFault: it is none, or not for a kernel.
        """
        self.frame = frame
        self.channel, self.parts = unpack(frame)
        if self.channel not in _UP_CHANNELS:
            raise FrameFault(f"nothing can be sent on {self.channel}")
        header = fields(self.parts[0])
        msg_id, msg_type = header.get("msg_id"), header.get("msg_type")
        self.msg_id = msg_id if isinstance(msg_id, str) else ""
        self.msg_type = msg_type if isinstance(msg_type, str) else ""
        self.done = done


class KernelStream:
    """Handles one stream ``tunnel.kernel``.

    Args:
        stream: The stream.
        kernel: Whose it is.
    """

    def __init__(self, stream: ServerStream, kernel: HeldKernel) -> None:
        self.stream = stream
        self.reader = JournalReader(stream, kernel.loop)
        self._kernel = kernel
        self._parts: list[bytes] = []
        self._size = 0
        self._open = True

    def data(self, piece: StreamData) -> None:
        """Take a piece of a message for the kernel."""
        self._size += len(piece.payload)
        if self._size <= _MAX_MESSAGE_BYTES:
            self._parts.append(piece.payload)
        else:
            self._parts.clear()
        if not piece.final:
            self.stream.consumed(piece.seq)
            return
        frame, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        seq = piece.seq
        if size > _MAX_MESSAGE_BYTES:
            log.warning("message for a kernel dropped", extra={"size": size})
            self._kernel.note_lost(f"a message of {size >> 20} MB to the kernel is too large for the runtime's agent")
            self._consumed(seq)
            return
        try:
            incoming = Incoming(frame, lambda: self._consumed(seq))
        except FrameFault as fault:
            log.warning("message for a kernel dropped", extra={"why": str(fault)})
            self._consumed(seq)
            return
        self._kernel.submit(incoming)

    @property
    def lags(self) -> bool:
        """Whether what is written into the journal now has so much before it that it will be late."""
        return self._open and (self.reader.is_held_up or self.stream.waiting_bytes > _LATE_BYTES)

    def writable(self) -> None:
        """Go on sending."""
        self.reader.writable()

    def closed(self, code: str, message: str) -> None:
        """Forget the stream; the kernel is held on to."""
        self._open = False
        self.reader.close()
        self._kernel.remove_stream(self)

    def refuse(self, text: str) -> None:
        """End the stream, because its kernel cannot be reached."""
        self._open = False
        self.reader.close()
        self.stream.close("unreachable", text)

    def _consumed(self, seq: int) -> None:
        if self._open:
            self.stream.consumed(seq)
