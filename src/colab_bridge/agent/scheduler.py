"""Which frame goes next: opens first, then interactive streams, then bulk, one stream after the other.

The windows of the whole channel are kept here: so many frames and bytes may be under way, bulk only a part of them, and
bulk gets less when its frames begin to wait on the way, since what waits there delays interactive frames too.
"""

from __future__ import annotations

from collections import deque

from .events import Priority
from .limits import Limits, PeerLimits
from .streams import Sender, Sent, Stream

__all__ = ["LEAST_CHUNK_BYTES", "Pacer", "Scheduler"]

# Bulk frames are not cut smaller than this: headers and round trips would eat the gain.
LEAST_CHUNK_BYTES = 64 * 1024
# Bulk gets one frame in after so much interactive traffic, so that a print flood slows an upload but never stops it.
_STARVATION_BYTES = 4 * 1024 * 1024


class Pacer:
    """How much bulk may be under way, from the time its frames take to be acknowledged.

    Additive increase while frames arrive about as fast as the quickest one did, halving when they are late: the idea of
    LEDBAT (RFC 6817) without its one-way clocks.
    """

    def __init__(self, *, most_bytes: int, delay_s: float) -> None:
        self._most_bytes = most_bytes
        self._delay_s = delay_s
        self.reset()

    def reset(self) -> None:
        """Forget what was measured on an earlier link."""
        self.window_bytes = min(self._most_bytes, 1024 * 1024)
        self._quickest_s: float | None = None
        self._slowed_at = float("-inf")

    def landed(self, cost: int, sent_at: float, now: float) -> None:
        """Note that a bulk frame has been received by the peer."""
        took_s = max(0.0, now - sent_at)
        self._quickest_s = took_s if self._quickest_s is None else min(self._quickest_s, took_s)
        if took_s <= self._quickest_s + self._delay_s:
            self.window_bytes = min(self._most_bytes, self.window_bytes + cost)
        elif sent_at > self._slowed_at:
            # Frames sent before the last slowing say nothing about its effect.
            self.window_bytes = max(LEAST_CHUNK_BYTES, self.window_bytes // 2)
            self._slowed_at = now


class Scheduler:
    """Picks frames and keeps account of what is under way."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._opens: deque[Stream] = deque()
        self._ready: tuple[deque[Stream], deque[Stream]] = (deque(), deque())
        self._since_bulk = 0
        self.pacer = Pacer(most_bytes=limits.bulk_in_flight_bytes, delay_s=limits.bulk_delay_s)
        self.flight_messages = 0
        self.flight_bytes = 0
        self.bulk_bytes = 0
        self.bulk_messages = 0

    def open(self, stream: Stream) -> None:
        """Queue a new stream of this side; ids are told to the peer in rising order, before anything else is sent."""
        stream.scheduled = True
        self._opens.append(stream)

    def wake(self, stream: Stream) -> None:
        """Note that a stream may have something to send."""
        if not stream.scheduled and stream.sender.pending:
            stream.scheduled = True
            self._ready[stream.priority].append(stream)

    def restart(self, streams: list[Stream], own_parity: int) -> None:
        """Begin a link: nothing is under way, every stream with something to send is ready."""
        self.flight_messages = self.flight_bytes = self.bulk_bytes = self.bulk_messages = self._since_bulk = 0
        self.pacer.reset()
        self._opens.clear()
        for queue in self._ready:
            queue.clear()
        for stream in sorted(streams, key=lambda each: each.stream):
            stream.scheduled = False
            if stream.stream > 1 and stream.stream % 2 == own_parity and stream.sender.received == 0:
                self.open(stream)
            else:
                self.wake(stream)

    def landed(self, stream: Stream, pieces: list[tuple[Sent, float]], now: float) -> None:
        """Note what is no longer under way."""
        for piece, sent_at in pieces:
            self.flight_messages -= 1
            self.flight_bytes -= piece.cost
            if stream.priority is Priority.BULK:
                self.bulk_bytes -= piece.cost
                self.bulk_messages -= 1
                self.pacer.landed(piece.cost, sent_at, now)

    def take(self, peer: PeerLimits, now: float) -> tuple[Stream, Sent] | None:
        """Return the next frame to transmit, or None when nothing may go now.

        Args:
            peer: What the peer accepts.
            now: Time of transmission.
        """
        if self._opens:
            return self._take_open(peer, now)
        if not any(self._ready):
            return None
        starving = self._since_bulk >= _STARVATION_BYTES
        order = (Priority.BULK, Priority.INTERACTIVE) if starving else (Priority.INTERACTIVE, Priority.BULK)
        for priority in order:
            taken = self._take_from(priority, peer, now)
            if taken is not None:
                return taken
        return None

    def _take_open(self, peer: PeerLimits, now: float) -> tuple[Stream, Sent] | None:
        stream = self._opens[0]
        cost = stream.sender.next_cost(self._limits.chunk_bytes, peer)
        if not cost or not self._has_room(cost, Priority.INTERACTIVE, peer):
            return None
        self._opens.popleft()
        piece = self._transmit(stream, self._limits.chunk_bytes, peer, now)
        stream.scheduled = False
        self.wake(stream)
        return stream, piece

    def _take_from(self, priority: Priority, peer: PeerLimits, now: float) -> tuple[Stream, Sent] | None:
        ready = self._ready[priority]
        chunk = self._limits.chunk_bytes
        if priority is Priority.BULK:
            chunk = min(chunk, max(LEAST_CHUNK_BYTES, self.pacer.window_bytes // 4))
        while ready:
            stream = ready[0]
            cost = stream.sender.next_cost(chunk, peer)
            if not cost:
                ready.popleft()
                stream.scheduled = False
                continue
            if not self._has_room(cost, priority, peer):
                return None
            piece = self._transmit(stream, chunk, peer, now)
            ready.rotate(-1)
            return stream, piece
        return None

    def _has_room(self, cost: int, priority: Priority, peer: PeerLimits) -> bool:
        messages = min(peer.in_flight_messages, self._limits.receive.in_flight_messages)
        size = min(peer.in_flight_bytes, self._limits.receive.in_flight_bytes)
        if priority is Priority.BULK:
            # A quarter of both windows stays free for interactive frames; one bulk frame may always go.
            if self.bulk_messages and self.bulk_messages >= messages * 3 // 4:
                return False
            if self.bulk_bytes and self.bulk_bytes + cost > min(self.pacer.window_bytes, size * 3 // 4):
                return False
        return self.flight_messages < messages and self.flight_bytes + cost <= size

    def _transmit(self, stream: Stream, chunk: int, peer: PeerLimits, now: float) -> Sent:
        sender: Sender = stream.sender
        piece = sender.take(chunk, peer, now)
        self.flight_messages += 1
        self.flight_bytes += piece.cost
        if stream.priority is Priority.BULK:
            self.bulk_bytes += piece.cost
            self.bulk_messages += 1
            self._since_bulk = 0
        elif self._ready[Priority.BULK]:
            self._since_bulk += piece.cost
        return piece
