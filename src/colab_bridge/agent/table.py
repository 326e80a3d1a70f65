"""The streams that the applications open: their life from ``OPEN`` to the last acknowledgement of ``CLOSE``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

from .calls import Parcel
from .events import Event, Priority, StreamClosed, StreamGap, StreamOpened, Unacknowledged
from .faults import BufferFull, ChannelMisuse, ProtocolError
from .frames import FLAG_MORE, Frame, FrameError, FrameType, Position, dump_object, parse_object
from .limits import Limits, PeerLimits
from .scheduler import Scheduler
from .streams import Message, Stream

__all__ = ["FIRST_STREAM", "Payload", "StreamTable"]

Payload = Union[bytes, bytearray, memoryview]
"""What may be sent. A view of ``bytes`` is kept until it is consumed, everything else is copied where it can change."""

# 0 and 1 carry the calls.
FIRST_STREAM = 2
_MOST_STREAM = 2**32 - 2
_MOST_NUMBER = 2**63
# Whoever asks to resume must leave the other side numbers to go on with.
_MOST_FIRST = 2**62
_MOST_TEXT_CHARS = 1024


class StreamTable:
    """All streams but those of the calls.

    Args:
        parity: 0 for the client's own streams, 1 for the server's.
        first: Where own ids begin; random, so that an id of a lost peer's stream hardly ever comes again.
        limits: Bounds of this side.
        scheduler: Is told what has something to send.
        emit: Takes events and parcels for the application.
        finished: Is told of a stream that has gone, so that its last position can be sent.
    """

    def __init__(
        self,
        *,
        parity: int,
        first: int,
        limits: Limits,
        scheduler: Scheduler,
        emit: Callable[[Event | Parcel], None],
        finished: Callable[[Stream], None],
    ) -> None:
        self.parity = parity
        self._next = FIRST_STREAM + parity + 2 * first
        self._first = self._next
        self._last_opened = 0
        self._limits = limits
        self._scheduler = scheduler
        self._emit = emit
        self._finished = finished
        self.streams: dict[int, Stream] = {}
        self.highest_of_peer = 0

    def is_own(self, stream: int) -> bool:
        """Return whether this side opened the stream."""
        return stream % 2 == self.parity

    def _count(self, *, own: bool) -> int:
        return sum(self.is_own(stream) is own for stream in self.streams)

    def existed(self, stream: int) -> bool:
        """Return whether a stream with this id was open once."""
        return self._first <= stream < self._next if self.is_own(stream) else stream <= self.highest_of_peer

    def get(self, stream: int) -> Stream:
        """Return an open stream.

        Raises:
            ChannelMisuse: there is none with this id.
        """
        found = self.streams.get(stream)
        if found is None:
            raise ChannelMisuse(f"stream {stream} is not open")
        return found

    # -- the application's side

    def open(
        self,
        name: str,
        params: Mapping[str, Any],
        *,
        priority: Priority,
        resume_from: int,
        compress: bool,
        peer: PeerLimits,
    ) -> int:
        """Open a stream; see :meth:`~.channel.Channel.open_stream`."""
        if not 0 <= resume_from <= _MOST_FIRST or len(name) > _MOST_TEXT_CHARS:
            raise ChannelMisuse("a stream's name is too long or its number impossible")
        if self._count(own=True) >= min(self._limits.streams, peer.streams) or self._next > _MOST_STREAM:
            raise BufferFull("too many streams are open")
        header = _dump({"name": name, "params": params, "priority": int(priority), "from": resume_from})
        stream = Stream(
            stream=self._next, name=name, priority=priority, compress=compress, last_received=resume_from - 1
        )
        self._next += 2
        self.streams[stream.stream] = stream
        # The number names the stream opened before it, so that the peer sees when an OPEN between got lost.
        stream.sender.push(Message(kind=FrameType.OPEN, number=self._last_opened, header=header))
        self._last_opened = stream.stream
        self._scheduler.open(stream)
        return stream.stream

    def send(
        self, stream_id: int, header: Mapping[str, Any] | None, payload: Payload, *, number: int | None, final: bool
    ) -> int:
        """Queue a message or a piece of one; see :meth:`~.channel.Channel.send`."""
        stream = self.get(stream_id)
        if stream.closed_here:
            raise ChannelMisuse(f"stream {stream_id} was closed here")
        goes_on = stream.mid_send
        chosen = stream.last_sent + (0 if goes_on else 1) if number is None else number
        if goes_on and (chosen != stream.last_sent or header is not None):
            raise ChannelMisuse("the pieces of a message have one number, and only the first one a header")
        if not goes_on and not stream.last_sent < chosen < _MOST_NUMBER:
            raise ChannelMisuse(f"message {chosen} cannot follow {stream.last_sent}")
        message = Message(
            kind=FrameType.DATA,
            number=chosen,
            header=b"" if not header else _dump(header),
            payload=memoryview(payload if _cannot_change(payload) else bytes(payload)),
            more=not final,
            compress=stream.compress,
        )
        if message.size_bytes > self._limits.buffer_bytes:
            raise ChannelMisuse(f"{message.size_bytes} bytes never fit into the buffer; send them in pieces")
        if not stream.sender.fits(message.size_bytes, self._limits):
            stream.sender.refused = True
            raise BufferFull(f"the send buffer of stream {stream_id} is full")
        stream.last_sent = chosen
        stream.mid_send = not final
        stream.sender.push(message)
        self._scheduler.wake(stream)
        return chosen

    def close(self, stream_id: int, code: str, message: str) -> None:
        """Close the own direction; see :meth:`~.channel.Channel.close_stream`."""
        stream = self.get(stream_id)
        if stream.closed_here:
            return
        if stream.mid_send:
            raise ChannelMisuse("a message is not finished yet")
        header = _dump({"code": code[:_MOST_TEXT_CHARS], "message": message[:_MOST_TEXT_CHARS]})
        stream.closed_here = True
        # One frame a stream beyond the buffer's bound: a stream can always be closed.
        stream.sender.push(Message(kind=FrameType.CLOSE, number=0, header=header))
        self._scheduler.wake(stream)

    def settle(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        if stream.done and self.streams.get(stream.stream) is stream:
            del self.streams[stream.stream]
            self._finished(stream)

    # -- what the peer says

    def receive_open(self, frame: Frame) -> Stream:
        """Make the stream that the peer opens, before its ``OPEN`` is accepted.

        Raises:
            ProtocolError: ids do not rise, there are too many, or the header makes no sense.
        """
        if frame.stream < FIRST_STREAM or self.is_own(frame.stream) or frame.flags or len(frame.payload):
            raise ProtocolError("the peer opens a stream in a way that is not allowed")
        if self._count(own=False) >= self._limits.receive.streams:
            raise ProtocolError("the peer has more streams open than was agreed")
        value = _parse(frame.header)
        name, params, priority, first = (value.get(key) for key in ("name", "params", "priority", "from"))
        if not isinstance(name, str) or len(name) > _MOST_TEXT_CHARS or not isinstance(params, dict):
            raise ProtocolError("a stream has no name or no parameters")
        if type(priority) is not int or priority not in (0, 1) or type(first) is not int:
            raise ProtocolError("a stream has no priority or no first number")
        if not 0 <= first <= _MOST_FIRST:
            raise ProtocolError("a stream has an impossible first number")
        stream = Stream(stream=frame.stream, name=name, priority=Priority(priority), last_sent=first - 1)
        self.streams[stream.stream] = stream
        self.highest_of_peer = stream.stream
        self._emit(
            StreamOpened(stream=stream.stream, name=name, params=params, priority=stream.priority, resume_from=first)
        )
        return stream

    def receive(self, stream: Stream, frame: Frame) -> None:
        """Take an accepted frame.

        Raises:
            ProtocolError: it comes after the end, or numbers and pieces do not follow one another.
        """
        if stream.closed_there:
            raise ProtocolError("the peer sends on a stream that it has closed")
        if frame.kind is FrameType.CLOSE:
            self._receive_close(stream, frame)
        elif frame.kind is FrameType.DATA:
            self._receive_data(stream, frame)
        elif frame.seq or frame.kind is not FrameType.OPEN:
            raise ProtocolError(f"{frame.kind.name} has no place on this stream")

    def _receive_data(self, stream: Stream, frame: Frame) -> None:
        if stream.mid_receive:
            if frame.number != stream.last_received or frame.header:
                raise ProtocolError("the pieces of a message do not belong together")
        elif not stream.last_received < frame.number < _MOST_NUMBER:
            raise ProtocolError("the numbers of messages do not rise")
        elif frame.number > stream.last_received + 1:
            self._emit(StreamGap(stream=stream.stream, first=stream.last_received + 1, last=frame.number - 1))
        parcel = Parcel(
            frame.kind,
            stream,
            frame.seq,
            frame.number,
            frame.header,
            bytes(frame.payload),
            final=not frame.flags & FLAG_MORE,
        )
        parcel.goes_on = stream.mid_receive
        stream.mid_receive = not parcel.final
        stream.last_received = frame.number
        self._emit(parcel)

    def _receive_close(self, stream: Stream, frame: Frame) -> None:
        value = _parse(frame.header)
        code, message = value.get("code"), value.get("message")
        if not isinstance(code, str) or not isinstance(message, str) or stream.mid_receive:
            raise ProtocolError("the peer closes a stream in a way that is not allowed")
        stream.closed_there = True
        self._emit(StreamClosed(stream=stream.stream, code=code, message=message))
        self.settle(stream)

    # -- a new link

    def resume(self, positions: Iterable[Position], highest: int) -> None:
        """Go on with a peer that remembers the streams.

        Args:
            positions: How far the peer is on each stream that it knows; those of the calls left out.
            highest: Highest id of an own stream that it has seen.

        Raises:
            ProtocolError: its memory contradicts what it had acknowledged.
        """
        known = {position.stream: position for position in positions}
        # It also lists its own new streams, of which this side cannot know yet.
        if any(self.is_own(stream) and not self.existed(stream) for stream in known):
            raise ProtocolError("the peer remembers a stream that never was")
        for stream in list(self.streams.values()):
            position = known.get(stream.stream)
            if position is not None:
                stream.sender.resume(position.received, position.consumed)
                self.settle(stream)
            elif self.is_own(stream.stream) and stream.stream > highest:
                stream.sender.resume(0, 0)
            elif stream.closed_here and stream.closed_there:
                # The peer has forgotten it, so everything had arrived; only the last acknowledgement was lost.
                stream.sender.resume(stream.sender.next_seq, stream.sender.next_seq)
                self.settle(stream)
            else:
                raise ProtocolError("the peer has forgotten a stream that is open")

    def restart(self) -> None:
        """Begin anew with a peer that has received nothing yet."""
        for stream in self.streams.values():
            stream.sender.resume(0, 0)

    def reset(self) -> tuple[Unacknowledged, ...]:
        """Drop everything, because the peer has lost it, and return what it had not consumed."""
        lost = tuple(
            Unacknowledged(stream=stream.stream, name=stream.name, pieces=stream.sender.unconsumed())
            for stream in self.streams.values()
        )
        self.streams.clear()
        self.highest_of_peer = 0
        self._last_opened = 0
        return lost


def _cannot_change(payload: Payload) -> bool:
    """Return whether bytes can be kept without copying them."""
    return isinstance(payload, bytes) or (isinstance(payload, memoryview) and isinstance(payload.obj, bytes))


def _dump(value: Mapping[str, Any]) -> bytes:
    try:
        return dump_object(value)
    except FrameError as error:
        raise ChannelMisuse(str(error)) from error


def _parse(header: bytes) -> dict[str, Any]:
    try:
        return parse_object(header)
    except FrameError as error:
        raise ProtocolError(f"a header is not readable: {error}") from error
