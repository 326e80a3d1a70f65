"""The protocol half of a channel: links, handshakes, frames in and out, the end; the application's half is apart."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

from .acks import Acks
from .calls import Calls, Parcel
from .events import ChannelClosed, Event, LinkDead, LinkUp, PeerReset, Priority, Writable
from .faults import ChannelMisuse, ProtocolError
from .frames import (
    Frame,
    FrameError,
    FrameType,
    Position,
    encode,
    encode_parts,
    parse_object,
    unpack_positions,
)
from .handshake import MOST_POSITIONS, Greeting, farewell
from .limits import FLOOR, Limits, PeerLimits
from .link import Link
from .scheduler import Scheduler
from .streams import LinkGap, Stream
from .table import FIRST_STREAM, StreamTable

__all__ = ["Machine", "Role"]

Role = Literal["client", "server"]

# One call of data_to_send gives about so much, or one chunk, so that what becomes urgent meanwhile waits for no more.
_BATCH_BYTES = 256 * 1024
_NUMBERED = FrameType.OPEN


def _random_id() -> int:
    return int.from_bytes(os.urandom(8), "big")


class Machine:
    """One end of the channel.

    Args:
        role: ``client`` begins handshakes, ``server`` answers them.
        now: The time in seconds, of any clock that never goes back.
        limits: Bounds of this side.
        capabilities: What the peer's application is told, a small JSON object.
        random_id: Source of random 64-bit numbers.
    """

    def __init__(
        self,
        role: Role,
        *,
        now: float,
        limits: Limits | None = None,
        capabilities: Mapping[str, Any] | None = None,
        random_id: Callable[[], int] = _random_id,
    ) -> None:
        self._role: Role = role
        self._now = now
        self._limits = limits or Limits()
        self._capabilities = dict(capabilities or {})
        self._random_id = random_id
        self._own_id = random_id()
        self._peer_id: int | None = None
        self._peer: PeerLimits = FLOOR
        self._confirmed = False
        self._closed = False
        self._farewell = b""
        self._links = 0
        self._link: Link | None = None
        self._damaged = 0
        self._queue: deque[Event | Parcel] = deque()
        self._scheduler = Scheduler(self._limits)
        self._calls = Calls(self._limits, emit=self._queue.append, wake=self._scheduler.wake)
        self._table = StreamTable(
            parity=0 if role == "client" else 1,
            first=random_id() % 2**24,
            limits=self._limits,
            scheduler=self._scheduler,
            emit=self._queue.append,
            finished=self._stream_finished,
        )
        self._acks = Acks(self._limits)

    # -- state

    @property
    def is_up(self) -> bool:
        """The handshake of the current link is done."""
        return self._link is not None and self._link.up

    @property
    def is_closed(self) -> bool:
        """The channel is closed for good."""
        return self._closed

    @property
    def rtt_s(self) -> float | None:
        """Time that the last heartbeat took both ways; None before the first one."""
        return None if self._link is None else self._link.rtt_s

    @property
    def unsent_bytes(self) -> int:
        """Bytes in all send buffers, sent or not, that the peer's application has not consumed."""
        return sum(stream.sender.buffered_bytes for stream in self._all_streams())

    @property
    def in_flight(self) -> tuple[int, int]:
        """Frames and bytes that are under way."""
        return (self._scheduler.flight_messages, self._scheduler.flight_bytes)

    # -- the link

    def connected(self, now: float) -> int:
        """Begin a link over a new transport; an earlier link is over with it.

        Returns:
            Number of the link, for ``receive`` and ``disconnected``: what comes late from an earlier one is ignored.

        Raises:
            ChannelMisuse: the channel is closed.
        """
        self._require_open()
        self._now = max(self._now, now)
        self._links += 1
        self._link = Link(self._links, now=self._now, limits=self._limits, nonce=self._random_id())
        if self._role == "client":
            self._link.push(encode(self._greeting(0).to_frame(FrameType.HELLO, self._link.nonce)))
        return self._links

    def disconnected(self, link: int, now: float) -> None:
        """Note that a transport is gone. Everything unacknowledged is kept for the next one."""
        self._now = max(self._now, now)
        if self._link is not None and self._link.number == link:
            self._drop_link()

    def receive(self, link: int, data: bytes, now: float) -> None:
        """Take bytes from the transport, cut in any way.

        Faults of the peer never raise: they end the link (``LinkDead``) or the channel (``ChannelClosed``).
        """
        self._advance(now)
        current = self._link
        if self._closed or current is None or current.number != link:
            return
        try:
            for frame in current.reader.feed(data):
                self._receive_frame(current, frame)
                if self._link is not current:
                    return
        except FrameError as error:
            self._link_failed("damaged", str(error))
        except LinkGap as error:
            self._link_failed("gap", str(error))
        except ProtocolError as error:
            self._fail(error)

    def data_to_send(self, now: float) -> bytes:
        """Return the next bytes for the transport: whole frames, empty when there is nothing to send now.

        Ask only when the transport can take more: what has been handed over cannot be overtaken by something urgent.
        """
        self._advance(now)
        if self._closed or self._link is None:
            farewell, self._farewell = self._farewell, b""
            return farewell
        parts: list[bytes | memoryview] = [*self._link.pop_handshake()]
        if self._link.up:
            frames: list[bytes | memoryview] = [*self._link.pop_heartbeat(self._marks)]
            self._add_messages(frames)
            parts.append(self._acks.take(self._link.epoch, self._now, company=bool(frames)))
            parts += frames
        return b"".join(parts)

    def next_deadline(self) -> float | None:
        """Return when ``tick`` must be called at the latest, None when no time matters."""
        if self._closed:
            return None
        times = [self._calls.next_deadline()]
        if self._link is not None:
            times.append(self._link.next_deadline(waiting=self._scheduler.flight_messages > 0))
            times.append(self._acks.due if self._link.up else None)
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due: heartbeat, dead links, deadlines of calls."""
        self._advance(now)
        if self._closed:
            return
        try:
            self._calls.tick(self._now)
        except ProtocolError as error:
            self._fail(error)
            return
        if self._link is None:
            return
        fault = self._link.tick(self._now, waiting=self._scheduler.flight_messages > 0)
        if fault is not None:
            self._link_failed(*fault)

    def close(self, message: str = "") -> None:
        """Say goodbye and end everything; ``data_to_send`` still gives the goodbye once."""
        if not self._closed:
            self._shut("closed", message or "the channel was closed", error=None, by_peer=False)

    # -- receiving

    def _receive_frame(self, link: Link, frame: Frame) -> None:
        if frame.kind is FrameType.HELLO:
            self._receive_hello(link, frame)
        elif frame.kind is FrameType.READY:
            self._receive_ready(link, frame)
        elif frame.kind is FrameType.WELCOME:
            self._receive_welcome(link, frame)
        elif frame.kind is FrameType.BYE and self._role == "client" and not link.up and frame.epoch == link.nonce:
            self._receive_bye(frame)
        elif link.up and frame.epoch == link.epoch:
            link.heard(self._now)
            self._confirmed = True
            self._receive_current(link, frame)
        else:
            link.stale_frames += 1

    def _receive_current(self, link: Link, frame: Frame) -> None:
        if frame.kind >= _NUMBERED:
            self._receive_numbered(frame)
        elif frame.kind is FrameType.ACK:
            self._receive_ack(frame)
        elif frame.kind is FrameType.PING:
            link.pong(frame.number)
            # The peer takes the answer for a proof, and an ACK may have been lost with whatever else was.
            self._note_all_positions()
        elif frame.kind is FrameType.PONG:
            self._check_marks(link.ponged(frame.number, self._now))
        elif frame.kind is FrameType.BYE:
            self._receive_bye(frame)

    def _receive_numbered(self, frame: Frame) -> None:
        if frame.stream < FIRST_STREAM:
            stream = self._calls.streams[frame.stream]
            if frame.kind < FrameType.CALL:
                raise ProtocolError(f"{frame.kind.name} has no place on a stream of calls")
        else:
            known = self._table.streams.get(frame.stream)
            if known is None:
                if self._table.existed(frame.stream):
                    return  # sent again, because the last acknowledgement of a finished stream was lost
                if frame.kind is not FrameType.OPEN or frame.seq:
                    raise LinkGap(f"stream {frame.stream} was never opened")
                if frame.number != self._table.highest_of_peer and frame.stream > self._table.highest_of_peer:
                    raise LinkGap(f"the stream before {frame.stream} was never opened")
                known = self._table.receive_open(frame)
            stream = known
        counts = frame.kind not in (FrameType.OPEN, FrameType.CLOSE)
        if not stream.receiver.accept(frame, self._limits.receive, counts=counts):
            return
        self._damaged = 0
        self._acks.note(stream, 1, len(frame.payload), self._now)
        self._acknowledge(stream, frame.ack, stream.sender.consumed)
        if frame.stream < FIRST_STREAM:
            self._calls.receive(stream, frame)
        else:
            self._table.receive(stream, frame)

    def _receive_ack(self, frame: Frame) -> None:
        try:
            positions = unpack_positions(frame.payload, most=MOST_POSITIONS)
        except FrameError as error:
            raise ProtocolError(str(error)) from error
        for position in positions:
            stream = self._find(position.stream)
            if stream is not None:
                self._acknowledge(stream, position.received, position.consumed)
            elif not self._table.existed(position.stream):
                raise ProtocolError("the peer acknowledges a stream that never was")

    def _acknowledge(self, stream: Stream, received: int, consumed: int) -> None:
        sender = stream.sender
        # Lower values than before are repeated or late, never a mistake.
        landed = sender.acknowledge(max(received, sender.received), max(consumed, sender.consumed))
        self._scheduler.landed(stream, landed, self._now)
        self._scheduler.wake(stream)
        self._tell_room(stream)
        if stream.stream >= FIRST_STREAM:
            self._table.settle(stream)

    def _tell_room(self, stream: Stream) -> None:
        sender = stream.sender
        half = sender.buffered_bytes * 2 <= self._limits.buffer_bytes
        if sender.refused and half and sender.buffered_messages * 2 <= self._limits.buffer_messages:
            sender.refused = False
            self._queue.append(Writable(stream=stream.stream))

    def _marks(self) -> dict[int, int]:
        return {
            stream.stream: stream.sender.next_seq - len(stream.sender.resend)
            for stream in self._all_streams()
            if stream.sender.flight
        }

    def _check_marks(self, marks: Mapping[int, int]) -> None:
        for stream_id, mark in marks.items():
            stream = self._find(stream_id)
            if stream is not None and stream.sender.received < mark:
                raise LinkGap(f"frame {stream.sender.received} of stream {stream_id} did not arrive")

    def _receive_bye(self, frame: Frame) -> None:
        try:
            message = str(parse_object(frame.header).get("message", ""))[:200]
        except FrameError:
            message = ""
        self._shut("closed", message or "the peer said goodbye", error=None, by_peer=True)

    # -- handshake

    def _greeting(self, epoch: int) -> Greeting:
        positions = tuple(Position(each.stream, *each.receiver.position) for each in self._all_streams())
        return Greeting(
            own_id=self._own_id,
            peer_id=self._peer_id,
            epoch=epoch,
            capabilities=self._capabilities,
            limits=self._limits.receive,
            highest=self._table.highest_of_peer,
            positions=positions,
        )

    def _receive_hello(self, link: Link, frame: Frame) -> None:
        if self._role != "server":
            raise ProtocolError("both ends are clients")
        try:
            greeting = Greeting.from_frame(frame)
            greeting.common_version()
        except ProtocolError as error:
            # Not the peer that this channel knows: it is told why, and the channel stays as it is.
            link.push(encode(farewell("refused", str(error), frame.epoch)))
            return
        epoch = self._random_id()
        link.offer(epoch, greeting)
        link.push(encode(self._greeting(epoch).to_frame(FrameType.WELCOME, frame.epoch)))

    def _receive_ready(self, link: Link, frame: Frame) -> None:
        greeting = link.take_offer(frame.epoch)
        if greeting is None:
            link.stale_frames += 1
            return
        self._establish(link, greeting, frame.epoch)

    def _receive_welcome(self, link: Link, frame: Frame) -> None:
        if self._role != "client" or link.up or frame.epoch != link.nonce:
            link.stale_frames += 1
            return
        greeting = Greeting.from_frame(frame)
        greeting.common_version()
        link.push(encode(Frame(FrameType.READY, epoch=greeting.epoch)))
        self._establish(link, greeting, greeting.epoch)

    def _establish(self, link: Link, greeting: Greeting, epoch: int) -> None:
        resumed = self._peer_id == greeting.own_id and greeting.peer_id == self._own_id
        if resumed:
            self._resume(greeting)
        elif self._peer_id is not None and (self._confirmed or self._peer_id != greeting.own_id):
            self._reset_peer()
        else:
            # First contact, or the peer has never seen the end of our first handshake: nothing had arrived.
            for stream in self._calls.streams:
                stream.sender.resume(0, 0)
            self._table.restart()
        self._peer_id = greeting.own_id
        self._peer = greeting.limits
        self._confirmed = resumed or self._role == "server"
        self._scheduler.restart(self._all_streams(), self._table.parity)
        # The greeting may be older than what was received or consumed since.
        self._note_all_positions()
        link.establish(epoch, self._now)
        self._queue.append(
            LinkUp(
                link=link.number,
                resumed=resumed,
                version=greeting.common_version(),
                codec=greeting.common_codec(),
                capabilities=greeting.capabilities,
            )
        )
        link.codec = greeting.common_codec()

    def _resume(self, greeting: Greeting) -> None:
        positions = {position.stream: position for position in greeting.positions}
        for stream in self._calls.streams:
            found = positions.pop(stream.stream, Position(stream.stream, 0, 0))
            stream.sender.resume(found.received, found.consumed)
            self._tell_room(stream)
        self._table.resume(positions.values(), greeting.highest)
        for stream in self._table.streams.values():
            self._tell_room(stream)

    def _reset_peer(self) -> None:
        self._calls.end_all("reset", "the other end has lost its state")
        notifications = self._calls.reset()
        self._queue.append(PeerReset(streams=self._table.reset(), notifications=notifications))
        self._acks.clear()

    # -- sending

    def _add_messages(self, parts: list[bytes | memoryview]) -> None:
        size = sum(map(len, parts))
        codec = self._link is not None and self._link.codec == "zlib"
        while size < _BATCH_BYTES:
            taken = self._scheduler.take(self._peer, self._now)
            if taken is None:
                return
            stream, piece = taken
            frame = Frame(
                piece.kind,
                stream.stream,
                self._epoch,
                piece.seq,
                stream.receiver.next_seq,
                piece.number,
                piece.flags,
                piece.header,
                piece.payload,
            )
            encoded = encode_parts(frame, compress=codec and piece.compress)
            parts += encoded
            size += sum(map(len, encoded))
            if stream.priority is Priority.BULK:
                return

    @property
    def _epoch(self) -> int:
        return 0 if self._link is None else self._link.epoch

    def _note_all_positions(self) -> None:
        for stream in self._all_streams():
            # Where nothing has come, the peer may not know the stream yet.
            if stream.receiver.next_seq:
                self._acks.note_now(stream, self._now)

    def _stream_finished(self, stream: Stream) -> None:
        # At once, and before anything else: the peer may open another stream in its place.
        self._acks.note_now(stream, self._now)

    # -- ends

    def _advance(self, now: float) -> None:
        now = max(self._now, now)
        if self._link is not None:
            self._link.wake(now - self._now, now)
        self._now = now

    def _find(self, stream: int) -> Stream | None:
        return self._calls.streams[stream] if stream < FIRST_STREAM else self._table.streams.get(stream)

    def _all_streams(self) -> list[Stream]:
        return [*self._calls.streams, *self._table.streams.values()]

    def _require_open(self) -> None:
        if self._closed:
            raise ChannelMisuse("the channel is closed")

    def _drop_link(self) -> None:
        self._link = None

    def _link_failed(self, reason: str, detail: str) -> None:
        link = self._link
        if link is None:
            return
        self._drop_link()
        self._queue.append(LinkDead(link=link.number, reason=reason, detail=detail))
        if reason in ("damaged", "gap"):
            self._damaged += 1
            if self._damaged >= self._limits.damaged_links:
                self._fail(ProtocolError(f"{self._damaged} links in a row brought damaged data: {detail}"))

    def _fail(self, error: ProtocolError) -> None:
        self._shut("protocol", str(error), error=error, by_peer=False)

    def _shut(self, code: str, message: str, *, error: ProtocolError | None, by_peer: bool) -> None:
        if not by_peer and self._link is not None and self._link.up:
            self._farewell = encode(farewell(code, message, self._epoch))
        self._closed = True
        self._drop_link()
        self._calls.end_all("closed", message)
        self._queue.append(ChannelClosed(error=error, by_peer=by_peer, message=message))
