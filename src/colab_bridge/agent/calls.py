"""Typed calls in both directions: each call has exactly one end, by its deadline at the latest."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .events import CallCancelled, CallError, CallReceived, CallResult, CallWithdrawn, Event, Notified, Priority
from .faults import BufferFull, ChannelMisuse, ProtocolError
from .frames import FLAG_MORE, Frame, FrameError, FrameType, dump_object, parse_object
from .limits import Limits, PeerLimits
from .scheduler import LEAST_CHUNK_BYTES
from .streams import Message, Stream

__all__ = ["Calls", "Parcel"]

_FOREVER = float("inf")
_MOST_METHOD_CHARS = 128
# Answers that the channel gives by itself are queued even where the buffer is full; a peer that takes none of them
# breaks the rules at this multiple of the calls it may have open.
_UNREAD_ANSWERS = 8


@dataclass(slots=True)
class Parcel:
    """A call's message, or a piece of a stream, that waits until the application takes it; JSON is parsed only then."""

    kind: FrameType
    stream: Stream
    seq: int
    number: int
    header: bytes
    payload: bytes
    final: bool = True
    goes_on: bool = False


@dataclass(slots=True)
class _Assembly:
    """A message of which not all pieces have come."""

    kind: FrameType
    number: int
    header: bytes
    first_seq: int
    parts: list[bytes]
    size_bytes: int


@dataclass(slots=True)
class _Entry:
    stream: Stream
    deadline: float = _FOREVER
    abandoned: bool = False
    cancelled: bool = False


class _Table:
    """Calls by id, with their deadlines. An abandoned call has ended for the application, not yet for the peer."""

    def __init__(self) -> None:
        self.entries: dict[int, _Entry] = {}
        self._deadlines: list[tuple[float, int]] = []

    def set_deadline(self, call: int, deadline: float) -> None:
        self.entries[call].deadline = deadline
        heapq.heappush(self._deadlines, (deadline, call))

    def remove(self, call: int) -> _Entry:
        # Calls that end early leave their deadline behind; the heap is made anew before it outgrows the table.
        if len(self._deadlines) > 64 + 4 * len(self.entries):
            self._deadlines = [(entry.deadline, each) for each, entry in self.entries.items() if not entry.abandoned]
            heapq.heapify(self._deadlines)
        return self.entries.pop(call)

    def clear(self) -> list[int]:
        waiting = sorted(call for call, entry in self.entries.items() if not entry.abandoned)
        self.entries.clear()
        self._deadlines.clear()
        return waiting

    def next_deadline(self) -> float | None:
        while self._deadlines:
            deadline, call = self._deadlines[0]
            entry = self.entries.get(call)
            if entry is not None and not entry.abandoned and entry.deadline == deadline:
                return None if deadline == _FOREVER else deadline
            heapq.heappop(self._deadlines)
        return None

    def overdue(self, now: float) -> list[int]:
        found: list[int] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            found.append(heapq.heappop(self._deadlines)[1])
        return found


class Calls:
    """Both tables of calls, on top of two streams: 0 for interactive calls, 1 for bulk.

    Args:
        limits: Bounds of this side.
        emit: Takes events and parcels for the application.
        wake: Tells that a stream has something to send.
    """

    def __init__(
        self, limits: Limits, *, emit: Callable[[Event | Parcel], None], wake: Callable[[Stream], None]
    ) -> None:
        self._limits = limits
        self._emit = emit
        self._wake = wake
        self._next_id = 1
        self._out = _Table()
        self._in = _Table()
        self._assemblies: dict[int, _Assembly] = {}
        self.streams = self._new_streams()

    @staticmethod
    def _new_streams() -> tuple[Stream, Stream]:
        return (
            Stream(stream=0, name="calls", priority=Priority.INTERACTIVE),
            Stream(stream=1, name="bulk calls", priority=Priority.BULK),
        )

    # -- the side that calls

    def most_bytes(self, peer: PeerLimits) -> int:
        """Return the longest payload of a call or an answer, in bytes.

        All pieces of one call must fit into the window of its stream, since they are consumed together.
        """
        pieces = (peer.window_messages - 2) * min(self._limits.chunk_bytes, LEAST_CHUNK_BYTES)
        return min(peer.call_bytes, self._limits.receive.call_bytes, peer.window_bytes // 2, pieces)

    def has_room(self, size_bytes: int, peer: PeerLimits, *, bulk: bool) -> bool:
        """Return whether a call of this size is taken now."""
        stream = self.streams[bulk]
        room = stream.sender.fits(size_bytes, self._limits) and len(self._out.entries) < self._most_open(peer)
        stream.sender.refused |= not room
        return room

    def _most_open(self, peer: PeerLimits) -> int:
        return min(peer.open_calls, self._limits.receive.open_calls)

    def start(
        self,
        method: str,
        params: Mapping[str, Any],
        payload: bytes,
        *,
        deadline: float,
        now: float,
        peer: PeerLimits,
        bulk: bool,
        compress: bool,
    ) -> int:
        """Queue a call; see :meth:`~.channel.Channel.call`."""
        timeout_ms = max(0, min(int((deadline - now) * 1000), 2**53))
        header = _dump({"m": _check_method(method), "p": params, "t": timeout_ms})
        stream = self.streams[bulk]
        if len(self._out.entries) >= self._most_open(peer):
            stream.sender.refused = True
            raise BufferFull("too many calls have no end yet")
        self._push(stream, FrameType.CALL, self._next_id, header, payload, peer=peer, compress=compress)
        call = self._next_id
        self._next_id += 1
        self._out.entries[call] = _Entry(stream)
        self._out.set_deadline(call, deadline)
        return call

    def cancel(self, call: int) -> bool:
        """Ask for the end of an own call; see :meth:`~.channel.Channel.cancel`."""
        entry = self._out.entries.get(call)
        if entry is None or entry.abandoned:
            return False
        if entry.stream.sender.withdraw(FrameType.CALL, call):
            self._out.remove(call)
            self._emit(CallCancelled(call=call))
        else:
            self._send_cancel(call, entry)
        return True

    def _send_cancel(self, call: int, entry: _Entry) -> None:
        if not entry.cancelled:
            entry.cancelled = True
            self._push_own(entry.stream, FrameType.CANCEL, call, b"")

    def notify(
        self, method: str, params: Mapping[str, Any], payload: bytes, *, peer: PeerLimits, bulk: bool, compress: bool
    ) -> None:
        """Queue a notification; see :meth:`~.channel.Channel.notify`."""
        header = _dump({"m": _check_method(method), "p": params})
        self._push(self.streams[bulk], FrameType.NOTIFY, 0, header, payload, peer=peer, compress=compress)

    # -- the side that is called

    def respond(
        self, call: int, result: Mapping[str, Any], payload: bytes, *, peer: PeerLimits, compress: bool
    ) -> bool:
        """Queue an answer; see :meth:`~.channel.Channel.respond`."""
        entry = self._in.entries.get(call)
        if entry is None:
            return False
        self._push(entry.stream, FrameType.RESULT, call, _dump({"p": result}), payload, peer=peer, compress=compress)
        self._in.remove(call)
        return True

    def fail(self, call: int, code: str, message: str, data: Mapping[str, Any], *, peer: PeerLimits) -> bool:
        """Queue an error as the answer; see :meth:`~.channel.Channel.fail`."""
        entry = self._in.entries.get(call)
        if entry is None:
            return False
        header = _dump({"c": code, "e": message, "d": data})
        self._push(entry.stream, FrameType.ERROR, call, header, b"", peer=peer, compress=False)
        self._in.remove(call)
        return True

    # -- time

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of all calls."""
        found = [deadline for deadline in (self._out.next_deadline(), self._in.next_deadline()) if deadline is not None]
        return min(found, default=None)

    def tick(self, now: float) -> None:
        """End the calls whose time is over."""
        for call in self._out.overdue(now):
            entry = self._out.entries[call]
            if entry.stream.sender.withdraw(FrameType.CALL, call):
                self._out.remove(call)
            else:
                entry.abandoned = True
                self._send_cancel(call, entry)
            self._emit(CallError(call=call, code="deadline", message="the call has not ended in time"))
        for call in self._in.overdue(now):
            self._end_incoming(call, "deadline")

    def end_all(self, code: str, message: str) -> None:
        """End every call in both directions, because the peer or the channel is gone."""
        for call in self._out.clear():
            self._emit(CallError(call=call, code=code, message=message))
        for call in self._in.clear():
            self._emit(CallWithdrawn(call=call, reason=code))

    def reset(self) -> int:
        """Begin with new streams after ``end_all``; return how many notifications the lost peer had not taken."""
        lost = sum(stream.sender.count_unconsumed(FrameType.NOTIFY) for stream in self.streams)
        self.streams = self._new_streams()
        self._assemblies.clear()
        return lost

    # -- what the peer says

    def receive(self, stream: Stream, frame: Frame) -> None:
        """Take an accepted frame of a call stream.

        Raises:
            ProtocolError: it breaks the rules of calls.
        """
        message = self._assemble(frame)
        if message is None:
            return
        payload = message.parts[0] if len(message.parts) == 1 else b"".join(message.parts)
        parcel = Parcel(message.kind, stream, frame.seq, message.number, message.header, payload)
        if message.kind is FrameType.CANCEL:
            stream.receiver.discard(message.first_seq)
            if message.number in self._in.entries:
                self._end_incoming(message.number, "cancelled")
            return
        if message.kind is FrameType.CALL:
            self._receive_call(stream, message.number)
        elif message.kind in (FrameType.RESULT, FrameType.ERROR) and not self._receive_end(message.number):
            stream.receiver.discard(message.first_seq)
            return
        self._emit(parcel)

    def _assemble(self, frame: Frame) -> _Assembly | None:
        part = bytes(frame.payload)
        begun = self._assemblies.pop(frame.stream, None)
        if begun is None:
            begun = _Assembly(frame.kind, frame.number, frame.header, frame.seq, [part], len(part))
        elif (begun.kind, begun.number) != (frame.kind, frame.number) or frame.header:
            raise ProtocolError("a call's message is cut into pieces that do not belong together")
        else:
            begun.parts.append(part)
            begun.size_bytes += len(part)
        if begun.size_bytes > self._limits.receive.call_bytes:
            raise ProtocolError("a call's payload is longer than was agreed")
        if frame.flags & FLAG_MORE:
            self._assemblies[frame.stream] = begun
            return None
        return begun

    def _receive_call(self, stream: Stream, call: int) -> None:
        if call in self._in.entries:
            raise ProtocolError("a call has the id of another one")
        if len(self._in.entries) >= self._limits.receive.open_calls:
            raise ProtocolError("the peer has more calls open than was agreed")
        self._in.entries[call] = _Entry(stream)

    def _receive_end(self, call: int) -> bool:
        if call not in self._out.entries:
            raise ProtocolError("an answer belongs to no call")
        return not self._out.remove(call).abandoned

    def _end_incoming(self, call: int, reason: str) -> None:
        entry = self._in.remove(call)
        header = _dump({"c": reason, "e": "the call was withdrawn"})
        self._push_own(entry.stream, FrameType.ERROR, call, header)
        self._emit(CallWithdrawn(call=call, reason=reason))

    # -- handing over

    def unwrap(self, parcel: Parcel, now: float) -> Event:
        """Make the event of a parcel that the application takes now.

        Raises:
            ProtocolError: its header makes no sense.
        """
        try:
            header = parse_object(parcel.header)
        except FrameError as error:
            raise ProtocolError(f"a call's header is not readable: {error}") from error
        if parcel.kind is FrameType.CALL:
            return self._unwrap_call(parcel, header, now)
        if parcel.kind is FrameType.RESULT:
            return CallResult(call=parcel.number, result=_read(header, "p", dict), payload=parcel.payload)
        if parcel.kind is FrameType.NOTIFY:
            return Notified(
                method=_check_received_method(header), params=_read(header, "p", dict), payload=parcel.payload
            )
        code: str = _read(header, "c", str)
        if code == "cancelled":
            return CallCancelled(call=parcel.number)
        data = header.get("d", {})
        return CallError(
            call=parcel.number,
            code=code,
            message=_read(header, "e", str),
            data=data if isinstance(data, dict) else {},
        )

    def _unwrap_call(self, parcel: Parcel, header: dict[str, Any], now: float) -> CallReceived:
        timeout_ms = header.get("t")
        if type(timeout_ms) is not int or not 0 <= timeout_ms <= 2**53:
            raise ProtocolError("a call has no deadline")
        event = CallReceived(
            call=parcel.number,
            method=_check_received_method(header),
            params=_read(header, "p", dict),
            payload=parcel.payload,
            timeout_s=timeout_ms / 1000,
        )
        entry = self._in.entries.get(parcel.number)
        if entry is not None:
            self._in.set_deadline(parcel.number, now + timeout_ms / 1000)
        return event

    # -- sending

    def _push(
        self,
        stream: Stream,
        kind: FrameType,
        call: int,
        header: bytes,
        payload: bytes,
        *,
        peer: PeerLimits,
        compress: bool,
    ) -> None:
        if len(payload) > self.most_bytes(peer):
            raise ChannelMisuse(f"a payload of {len(payload)} bytes is too long for a call; send it on a stream")
        message = Message(kind=kind, number=call, header=header, payload=memoryview(bytes(payload)), compress=compress)
        if not stream.sender.fits(message.size_bytes, self._limits):
            stream.sender.refused = True
            raise BufferFull("the send buffer for calls is full")
        stream.sender.push(message)
        self._wake(stream)

    def _push_own(self, stream: Stream, kind: FrameType, call: int, header: bytes) -> None:
        most = self._limits.buffer_messages + _UNREAD_ANSWERS * self._limits.receive.open_calls
        if stream.sender.buffered_messages >= most:
            raise ProtocolError("the peer calls and cancels without taking an answer")
        stream.sender.push(Message(kind=kind, number=call, header=header))
        self._wake(stream)


def _dump(value: Mapping[str, Any]) -> bytes:
    try:
        return dump_object(value)
    except FrameError as error:
        raise ChannelMisuse(str(error)) from error


def _check_method(method: str) -> str:
    if not 0 < len(method) <= _MOST_METHOD_CHARS:
        raise ChannelMisuse("a method's name has 1 to 128 characters")
    return method


def _check_received_method(header: Mapping[str, Any]) -> str:
    method: str = _read(header, "m", str)
    if not 0 < len(method) <= _MOST_METHOD_CHARS:
        raise ProtocolError("a method's name has a wrong length")
    return method


def _read(header: Mapping[str, Any], key: str, kind: type) -> Any:
    value = header.get(key)
    if not isinstance(value, kind):
        raise ProtocolError(f"a call's header lacks {key!r}")
    return value
