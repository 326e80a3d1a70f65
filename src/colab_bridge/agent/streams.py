"""The two directions of one stream: what was sent and is kept, what was received and must be accounted for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from .events import Piece, Priority
from .faults import ProtocolError
from .frames import FLAG_MORE, HEAD_BYTES, MAX_HEADER_BYTES, Frame, FrameType
from .limits import Limits, PeerLimits

__all__ = ["LinkGap", "Message", "Receiver", "Sender", "Sent", "Stream"]


class LinkGap(Exception):
    """Frames are missing in the middle of a living link; a new link will bring them."""


@dataclass(slots=True, kw_only=True)
class Message:
    """Something to send, cut into frames when its turn comes. ``offset`` bytes of the payload have been cut off."""

    kind: FrameType
    number: int
    header: bytes = b""
    payload: memoryview = field(default_factory=lambda: memoryview(b""))
    more: bool = False
    compress: bool = False
    offset: int = 0
    started: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes in a buffer, frame headers left out."""
        return len(self.header) + len(self.payload)


class Sent(NamedTuple):
    """A frame's content after its first transmission; kept until it is consumed."""

    seq: int
    kind: FrameType
    number: int
    flags: int
    header: bytes
    payload: memoryview
    compress: bool

    @property
    def cost(self) -> int:
        """Bytes that count against windows: both ends must reckon alike, so compression is left out."""
        return HEAD_BYTES + len(self.header) + len(self.payload)


class Sender:
    """One direction of a stream at its sending end.

    A message goes from ``queue`` (not transmitted) to ``flight`` (transmitted, not received), ``held`` (received, not
    consumed) and is dropped when it is consumed. After a cut, what did not arrive moves to ``resend``.
    """

    def __init__(self) -> None:
        self.queue: deque[Message] = deque()
        self.resend: deque[Sent] = deque()
        self.flight: deque[tuple[Sent, float]] = deque()
        self.held: deque[Sent] = deque()
        self.next_seq = 0
        self.received = 0
        self.consumed = 0
        self.buffered_bytes = 0
        self.window_used = 0
        self.refused = False

    @property
    def buffered_messages(self) -> int:
        """Messages and frames that are kept."""
        return len(self.queue) + len(self.resend) + len(self.flight) + len(self.held)

    @property
    def idle(self) -> bool:
        """All that was ever sent has been consumed."""
        return not (self.queue or self.resend or self.flight or self.held)

    @property
    def pending(self) -> bool:
        """Something waits for its turn."""
        return bool(self.resend or self.queue)

    def fits(self, size_bytes: int, limits: Limits) -> bool:
        """Return whether a message of this size is taken now."""
        room = self.buffered_bytes + size_bytes <= limits.buffer_bytes
        return room and self.buffered_messages < limits.buffer_messages

    def push(self, message: Message) -> None:
        """Queue a message; the caller has asked :meth:`fits`."""
        self.queue.append(message)
        self.buffered_bytes += message.size_bytes

    def withdraw(self, kind: FrameType, number: int) -> bool:
        """Take a message back that was not transmitted at all; return whether that was so."""
        for message in self.queue:
            if message.kind is kind and message.number == number and not message.started:
                self.queue.remove(message)
                self.buffered_bytes -= message.size_bytes
                return True
        return False

    def next_cost(self, chunk_bytes: int, peer: PeerLimits) -> int:
        """Return what the next frame counts against windows, 0 when there is none or this stream's window is full."""
        if self.resend:
            return self.resend[0].cost
        if not self.queue:
            return 0
        message = self.queue[0]
        header = 0 if message.started else len(message.header)
        cost = HEAD_BYTES + header + min(self._chunk(chunk_bytes, peer), len(message.payload) - message.offset)
        if len(self.flight) + len(self.held) >= peer.window_messages or self.window_used + cost > peer.window_bytes:
            return 0
        return cost

    @staticmethod
    def _chunk(chunk_bytes: int, peer: PeerLimits) -> int:
        # Room for the longest header is always left, so that a frame's length never depends on its header.
        frame_bytes = min(peer.frame_bytes, peer.window_bytes, peer.in_flight_bytes)
        return min(chunk_bytes, frame_bytes - HEAD_BYTES - MAX_HEADER_BYTES)

    def take(self, chunk_bytes: int, peer: PeerLimits, now: float) -> Sent:
        """Return the next frame's content and count it as under way; ``next_cost`` was not 0."""
        if self.resend:
            piece = self.resend.popleft()
        else:
            piece = self._cut(self.queue[0], self._chunk(chunk_bytes, peer))
            self.window_used += piece.cost
        self.flight.append((piece, now))
        return piece

    def _cut(self, message: Message, chunk_bytes: int) -> Sent:
        payload = message.payload[message.offset : message.offset + chunk_bytes]
        header = b"" if message.started else message.header
        message.started = True
        message.offset += len(payload)
        ends = message.offset == len(message.payload)
        flags = FLAG_MORE if message.more or not ends else 0
        piece = Sent(self.next_seq, message.kind, message.number, flags, header, payload, message.compress)
        self.next_seq += 1
        if ends:
            self.queue.popleft()
        return piece

    def acknowledge(self, received: int, consumed: int) -> list[tuple[Sent, float]]:
        """Note how far the peer is and return what is no longer under way, with the time of its transmission.

        Raises:
            ProtocolError: the peer acknowledges what was never sent.
        """
        if received > self.next_seq - len(self.resend) or consumed > received:
            raise ProtocolError("the peer acknowledges what was not sent")
        landed: list[tuple[Sent, float]] = []
        while self.flight and self.flight[0][0].seq < received:
            landed.append(self.flight.popleft())
            self.held.append(landed[-1][0])
        self.received = max(self.received, received)
        while self.held and self.held[0].seq < consumed:
            piece = self.held.popleft()
            self.window_used -= piece.cost
            self.buffered_bytes -= len(piece.header) + len(piece.payload)
        self.consumed = max(self.consumed, consumed)
        return landed

    def resume(self, received: int, consumed: int) -> None:
        """Go on after a cut: what the peer has not received is transmitted again, in order.

        Raises:
            ProtocolError: the peer claims what was never sent, or has forgotten what it had acknowledged.
        """
        self.resend.extendleft(piece for piece, _ in reversed(self.flight))
        self.flight.clear()
        if received < self.received or received > self.next_seq:
            raise ProtocolError("the peer resumes at a place that cannot be")
        while self.resend and self.resend[0].seq < received:
            self.held.append(self.resend.popleft())
        self.received = received
        self.acknowledge(received, max(consumed, self.consumed))

    def count_unconsumed(self, kind: FrameType) -> int:
        """Return how many messages of a kind the peer's application has not consumed."""
        sent = [*self.held, *(piece for piece, _ in self.flight), *self.resend]
        whole = sum(piece.kind is kind and not piece.flags & FLAG_MORE for piece in sent)
        return whole + sum(message.kind is kind for message in self.queue)

    def unconsumed(self) -> tuple[Piece, ...]:
        """Return everything that the peer's application has not consumed, in order, for the caller to keep."""
        sent = [*self.held, *(piece for piece, _ in self.flight), *self.resend]
        pieces = [
            Piece(
                number=piece.number,
                header=piece.header,
                payload=bytes(piece.payload),
                final=not piece.flags & FLAG_MORE,
            )
            for piece in sent
            if piece.kind is FrameType.DATA
        ]
        pieces += [
            Piece(
                number=message.number,
                header=b"" if message.started else message.header,
                payload=bytes(message.payload[message.offset :]),
                final=not message.more,
            )
            for message in self.queue
            if message.kind is FrameType.DATA
        ]
        return tuple(pieces)


class Receiver:
    """One direction of a stream at its receiving end."""

    def __init__(self) -> None:
        self.next_seq = 0
        self._unconsumed: deque[tuple[int, int]] = deque()
        self._discarded: set[int] = set()
        self._bytes = 0

    @property
    def unconsumed_bytes(self) -> int:
        """Bytes that were delivered and not consumed."""
        return self._bytes

    @property
    def position(self) -> tuple[int, int]:
        """Received and consumed, each as the number of the next frame."""
        return (self.next_seq, self._unconsumed[0][0] if self._unconsumed else self.next_seq)

    def accept(self, frame: Frame, limits: PeerLimits, *, counts: bool) -> bool:
        """Account for a frame.

        Args:
            frame: As it came.
            limits: What was announced to the peer.
            counts: It stays in the window until it is consumed.

        Returns:
            False for a duplicate, which must be dropped.

        Raises:
            LinkGap: frames before it are missing.
            ProtocolError: it does not fit into the window.
        """
        if frame.seq < self.next_seq:
            return False
        if frame.seq > self.next_seq:
            raise LinkGap(f"frame {frame.seq} came instead of {self.next_seq} on stream {frame.stream}")
        self.next_seq += 1
        if counts:
            cost = HEAD_BYTES + len(frame.header) + len(frame.payload)
            self._unconsumed.append((frame.seq, cost))
            self._bytes += cost
            if len(self._unconsumed) > limits.window_messages or self._bytes > limits.window_bytes:
                raise ProtocolError("the peer does not keep to the window of a stream")
        return True

    def consume(self, seq: int) -> None:
        """Give back the room of everything up to and including ``seq``."""
        while self._unconsumed and (self._unconsumed[0][0] <= seq or self._unconsumed[0][0] in self._discarded):
            first, cost = self._unconsumed.popleft()
            self._bytes -= cost
            self._discarded.discard(first)

    def discard(self, first_seq: int) -> None:
        """Give back the room of the frames from ``first_seq`` on, once everything before them is consumed."""
        self._discarded.update(seq for seq, _ in self._unconsumed if seq >= first_seq)
        self.consume(-1)


@dataclass(slots=True, kw_only=True)
class Stream:
    """Both directions of one stream, and what is known about it.

    Attributes:
        stream: Its id: 0 and 1 carry calls, then even ones are opened by the client and odd ones by the server.
        name: What its opener called it.
        priority: Holds for both directions.
        compress: Compress what is sent.
        last_sent: Number of the last message sent.
        last_received: Number of the last message received.
        mid_send: The application has sent a piece that is not the last one of its message.
        mid_receive: The peer has.
        closed_here: Nothing more will be sent.
        closed_there: Nothing more will come.
        scheduled: It waits in a queue of the scheduler.
    """

    stream: int
    name: str = ""
    priority: Priority = Priority.INTERACTIVE
    compress: bool = False
    sender: Sender = field(default_factory=Sender)
    receiver: Receiver = field(default_factory=Receiver)
    last_sent: int = 0
    last_received: int = 0
    mid_send: bool = False
    mid_receive: bool = False
    closed_here: bool = False
    closed_there: bool = False
    scheduled: bool = False

    @property
    def done(self) -> bool:
        """Both directions are closed, and everything was consumed at both ends."""
        received, consumed = self.receiver.position
        return self.closed_here and self.closed_there and self.sender.idle and received == consumed
