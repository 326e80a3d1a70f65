"""Every bound of a channel in one place, and the part of them that a peer announces.

Where the numbers come from: bursts of more than 1,000 unacknowledged messages are dropped without a word by the ZMQ
sockets under the doorman, servers commonly refuse messages over 10 MiB, and four chunks of 1 MiB under way carry as
much as the link can (all measured).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .faults import ProtocolError
from .frames import HEAD_BYTES, MAX_FRAME_BYTES, MAX_HEADER_BYTES

__all__ = ["FLOOR", "MOST_STREAMS", "Limits", "PeerLimits"]

MOST_STREAMS = 4096
"""Streams of one channel, both sides together, the two for calls left out: their positions must fit into one frame."""

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLimits:
    """What one side is ready to receive. Each value is at least that of :data:`FLOOR`.

    Attributes:
        frame_bytes: Longest frame.
        in_flight_messages: Frames that may be under way, not yet received.
        in_flight_bytes: Bytes that may be under way.
        window_messages: Frames of one stream that the application has not consumed.
        window_bytes: Bytes of one stream that the application has not consumed.
        call_bytes: Payload of a call, a result or a notification.
        open_calls: Calls without an end.
        streams: Streams that the peer may have open.
    """

    frame_bytes: int
    in_flight_messages: int
    in_flight_bytes: int
    window_messages: int
    window_bytes: int
    call_bytes: int
    open_calls: int
    streams: int

    def to_json(self) -> dict[str, int]:
        """Return the values by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PeerLimits:
        """Check what a peer announces.

        Raises:
            ProtocolError: a value is missing, no whole number, or below the floor.
        """
        found: dict[str, int] = {}
        for field in fields(cls):
            number = value.get(field.name)
            if not isinstance(number, int) or isinstance(number, bool) or number < getattr(FLOOR, field.name):
                raise ProtocolError(f"the peer's limit {field.name} is not acceptable")
            found[field.name] = number
        return cls(**found)


_FLOOR_BYTES = HEAD_BYTES + 2 * MAX_HEADER_BYTES
FLOOR = PeerLimits(
    frame_bytes=_FLOOR_BYTES,
    in_flight_messages=2,
    in_flight_bytes=_FLOOR_BYTES,
    window_messages=4,
    window_bytes=_FLOOR_BYTES,
    call_bytes=64 * KIB,
    open_calls=16,
    streams=16,
)
"""What every side must accept, and what holds until the peer has announced more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one side. Times in seconds, sizes in bytes.

    Attributes:
        receive: What this side accepts; announced to the peer, and enforced.
        chunk_bytes: A message is cut into frames of this much payload.
        bulk_in_flight_bytes: Most that bulk streams may have under way, so that interactive frames find a short queue.
        bulk_delay_s: Bulk slows down when its frames need this much longer than the quickest one did.
        buffer_messages: Frames and messages of one stream that are kept until the peer's application has consumed them.
        buffer_bytes: Bytes of one stream that are kept so.
        streams: Streams that this side may have open itself.
        ack_messages: Received frames after which positions are told at once.
        ack_bytes: Received bytes after which positions are told at once.
        ack_delay_s: Otherwise they are told after this time.
        heartbeat_s: Silence after which the peer is asked for a sign of life.
        dead_after_s: Silence after which the link counts as dead.
        handshake_s: Time for the handshake.
        damaged_links: Links in a row that end in damage without any progress; the channel closes then.
    """

    receive: PeerLimits = PeerLimits(
        frame_bytes=MAX_FRAME_BYTES,
        in_flight_messages=400,
        in_flight_bytes=16_000_000,
        window_messages=256,
        window_bytes=4 * MIB,
        call_bytes=4 * MIB,
        open_calls=256,
        streams=64,
    )
    chunk_bytes: int = MIB
    bulk_in_flight_bytes: int = 4 * MIB
    bulk_delay_s: float = 0.2
    buffer_messages: int = 2048
    buffer_bytes: int = 8 * MIB
    streams: int = 256
    ack_messages: int = 16
    ack_bytes: int = 256 * KIB
    ack_delay_s: float = 0.02
    heartbeat_s: float = 1.5
    dead_after_s: float = 5.0
    handshake_s: float = 5.0
    damaged_links: int = 5

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            ValueError: below the floor, or contradictory.
        """
        for field in fields(PeerLimits):
            if getattr(self.receive, field.name) < getattr(FLOOR, field.name):
                raise ValueError(f"receive.{field.name} is below the floor of the protocol")
        if self.streams + self.receive.streams > MOST_STREAMS:
            raise ValueError(f"more than {MOST_STREAMS} streams cannot be listed in one frame")
        if self.receive.frame_bytes > MAX_FRAME_BYTES:
            raise ValueError("receive.frame_bytes is above the limit of the protocol")
        if self.chunk_bytes < 1 or self.buffer_messages < 1 or self.buffer_bytes < MAX_HEADER_BYTES:
            raise ValueError("a buffer or chunk is too small")
        if not 0 < self.heartbeat_s < self.dead_after_s or self.ack_delay_s < 0 or self.handshake_s <= 0:
            raise ValueError("the times contradict one another")
