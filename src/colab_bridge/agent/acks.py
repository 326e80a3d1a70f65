"""When and what a receiver tells about its positions."""

from __future__ import annotations

from .frames import Frame, FrameType, Position, encode, pack_positions
from .limits import Limits
from .streams import Stream

__all__ = ["Acks"]


class Acks:
    """Streams whose position has changed since the peer was told, and when it must be told.

    Many frames make one ``ACK``: it is sent after so many frames or bytes, or after a short time.
    """

    def __init__(self, limits: Limits) -> None:
        receive = limits.receive
        # Where windows are small, a sender must not wait for the delay each time.
        quarter = max(1, min(receive.window_messages, receive.in_flight_messages) // 4)
        self._most = min(limits.ack_messages, quarter)
        self._most_bytes = limits.ack_bytes
        self._delay_s = limits.ack_delay_s
        self._streams: dict[int, Stream] = {}
        self._messages = 0
        self._bytes = 0
        self.due: float | None = None

    def note(self, stream: Stream, messages: int, size_bytes: int, now: float) -> None:
        """Note that a stream's position has changed by so many frames and bytes."""
        self._streams[stream.stream] = stream
        self._messages += messages
        self._bytes += size_bytes
        urgent = self._messages >= self._most or self._bytes >= self._most_bytes
        due = now if urgent else now + self._delay_s
        self.due = due if self.due is None else min(self.due, due)

    def note_now(self, stream: Stream, now: float) -> None:
        """Note a position that must be told before anything else is."""
        self.note(stream, 0, 0, now)
        self.due = now

    def clear(self) -> None:
        """Forget everything: the peer that would have been told is gone."""
        self._streams.clear()
        self._messages = self._bytes = 0
        self.due = None

    def take(self, epoch: int, now: float, *, company: bool = False) -> bytes:
        """Return the frame that is due, empty when none is.

        Args:
            epoch: Of the link.
            now: The time.
            company: Other frames go out now. Then it goes with them: on its own it would cost the whole way between the
                two ends a message of its own, a few milliseconds later.
        """
        if self.due is None or (self.due > now and not company):
            return b""
        positions = [Position(stream.stream, *stream.receiver.position) for stream in self._streams.values()]
        self.clear()
        return encode(Frame(FrameType.ACK, epoch=epoch, payload=pack_positions(positions)))
