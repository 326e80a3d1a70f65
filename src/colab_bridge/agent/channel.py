"""The channel between the daemon and the agent: numbered, acknowledged traffic over links that may fail at any time.

A pure state machine: bytes in, events out; calls in, bytes out; the time is a number that the caller passes. It does no
I/O, starts nothing and knows no clock. docs/design/channel.md has the rules and the wire format. How to drive it::

    link = channel.connected(now)             a transport is there
    channel.receive(link, data, now)          whatever it brings, in any pieces
    transport.write(channel.data_to_send(now))  whenever it can take more; whole frames
    channel.tick(now)                         at channel.next_deadline()
    while event := channel.next_event(): ...  after each of these

The agent is the ``server``, the daemon the ``client``, which begins each handshake. A new object is a new peer for the
other side: what one process knew does not outlive it, except in the applications' own cursors (``resume_from``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .calls import Parcel
from .events import CallError, Event, Priority, StreamData
from .faults import ProtocolError
from .frames import FrameError, FrameType, parse_object
from .machine import Machine, Role
from .table import Payload

__all__ = ["Channel", "Role"]


class Channel(Machine):
    """One end of the channel: what its application asks for, and what it is told. See :class:`~.machine.Machine`."""

    # -- streams

    def open_stream(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        priority: Priority = Priority.INTERACTIVE,
        resume_from: int = 1,
        compress: bool = False,
    ) -> int:
        """Open a stream for messages in both directions.

        Args:
            name: What the peer's application knows it by.
            params: For the peer's application.
            priority: Of both directions.
            resume_from: Number of the first message wanted from the peer: one more than the durable cursor. The peer
                begins there, or declares the gap up to what it still has.
            compress: Compress what this side sends.

        Returns:
            Id of the stream.

        Raises:
            BufferFull: as many are open as the peer allows.
            ChannelMisuse: the channel is closed, or a value is impossible.
        """
        self._require_open()
        return self._table.open(
            name, params or {}, priority=priority, resume_from=resume_from, compress=compress, peer=self._peer
        )

    def can_send(self, stream: int, size_bytes: int = 0) -> bool:
        """Return whether ``send`` takes a message of this size, header included; if not, ``Writable`` will come."""
        found = self._table.streams.get(stream)
        if found is None or found.closed_here or self._closed:
            return False
        room = found.sender.fits(size_bytes, self._limits)
        found.sender.refused |= not room
        return room

    def waiting_bytes(self, stream: int) -> int:
        """Return how much was queued on a stream that the peer's application has not done with."""
        found = self._table.streams.get(stream)
        return 0 if found is None else found.sender.buffered_bytes

    def send(
        self,
        stream: int,
        header: Mapping[str, Any] | None = None,
        payload: Payload = b"",
        *,
        number: int | None = None,
        final: bool = True,
    ) -> int:
        """Queue a message; it arrives once and in order, or its loss is reported by ``PeerReset``.

        Args:
            stream: Where.
            header: Small JSON object.
            payload: Binary part, of any size that the buffer has room for.
            number: The message's number; a jump declares that those between do not exist. By default the next one.
            final: False when more pieces of the same message follow.

        Returns:
            The message's number.

        Raises:
            BufferFull: nothing was taken; wait for ``Writable``.
            ChannelMisuse: no such stream, closed, or the message breaks a rule.
        """
        self._require_open()
        return self._table.send(stream, header, payload, number=number, final=final)

    def consumed(self, stream: int, seq: int) -> None:
        """Note that everything up to and including the piece ``seq`` is done with, for example stored.

        This gives the sender room. A stream that is gone is no mistake: its peer was reset meanwhile.
        """
        found = self._table.streams.get(stream)
        if found is None or self._closed:
            return
        before = found.receiver.position[1]
        found.receiver.consume(seq)
        if found.receiver.position[1] != before:
            self._acks.note(found, 1, 0, self._now)
        self._table.settle(found)

    def close_stream(self, stream: int, code: str = "", message: str = "") -> None:
        """Close the own direction after everything queued; the stream is gone when both sides have done so.

        Raises:
            ChannelMisuse: no such stream, or a message is not finished.
        """
        self._require_open()
        self._table.close(stream, code, message)

    # -- calls

    @property
    def call_limit_bytes(self) -> int:
        """Longest payload of a call or an answer; small until the peer has told its limits."""
        return self._calls.most_bytes(self._peer)

    def can_call(self, size_bytes: int = 0, *, bulk: bool = False) -> bool:
        """Return whether ``call`` takes one of this size; if not, ``Writable`` of stream 0 or 1 (bulk) may come."""
        return not self._closed and self._calls.has_room(size_bytes, self._peer, bulk=bulk)

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        deadline: float,
        bulk: bool = False,
        compress: bool = False,
    ) -> int:
        """Call the peer. Exactly one of ``CallResult``, ``CallError`` and ``CallCancelled`` will come.

        Args:
            method: Name of what to do.
            params: JSON object.
            payload: Binary part.
            deadline: Time at which the call ends with the error ``deadline``.
            bulk: Let interactive traffic go first.
            compress: Compress the payload.

        Returns:
            Id of the call.

        Raises:
            BufferFull: nothing was taken.
            ChannelMisuse: the channel is closed, or a value is too long.
        """
        self._require_open()
        return self._calls.start(
            method,
            params or {},
            payload,
            deadline=deadline,
            now=self._now,
            peer=self._peer,
            bulk=bulk,
            compress=compress,
        )

    def cancel(self, call: int) -> bool:
        """Ask for the end of an own call. The end comes as an event: ``CallCancelled``, or a result that was quicker.

        Returns:
            False when the call has ended already.
        """
        return not self._closed and self._calls.cancel(call)

    def respond(
        self, call: int, result: Mapping[str, Any] | None = None, payload: bytes = b"", *, compress: bool = False
    ) -> bool:
        """Answer a call of the peer.

        Returns:
            False when nobody waits for the answer any more.

        Raises:
            BufferFull: nothing was taken.
            ChannelMisuse: the payload is too long.
        """
        return not self._closed and self._calls.respond(call, result or {}, payload, peer=self._peer, compress=compress)

    def fail(self, call: int, code: str, message: str = "", data: Mapping[str, Any] | None = None) -> bool:
        """Answer a call of the peer with an error; the code ``cancelled`` makes it ``CallCancelled`` there."""
        return not self._closed and self._calls.fail(call, code, message, data or {}, peer=self._peer)

    def notify(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        bulk: bool = False,
        compress: bool = False,
    ) -> None:
        """Tell the peer something that needs no answer.

        Raises:
            BufferFull: nothing was taken.
            ChannelMisuse: the channel is closed, or a value is too long.
        """
        self._require_open()
        self._calls.notify(method, params or {}, payload, peer=self._peer, bulk=bulk, compress=compress)

    # -- events

    def next_event(self) -> Event | None:
        """Return the next event, None when there is none. Take all of them after whatever may have made some."""
        while self._queue:
            item = self._queue.popleft()
            if not isinstance(item, Parcel):
                return item
            try:
                return self._unwrap(item)
            except ProtocolError as error:
                if item.kind in (FrameType.RESULT, FrameType.ERROR):
                    self._queue.append(CallError(call=item.number, code="closed", message=str(error)))
                if not self._closed:
                    self._fail(error)
        return None

    def _unwrap(self, parcel: Parcel) -> Event:
        if parcel.kind is not FrameType.DATA:
            parcel.stream.receiver.consume(parcel.seq)
            if self._calls.streams[parcel.stream.stream] is parcel.stream:
                self._acks.note(parcel.stream, 1, 0, self._now)
            return self._calls.unwrap(parcel, self._now)
        try:
            header = None if parcel.goes_on else parse_object(parcel.header)
        except FrameError as error:
            raise ProtocolError(f"a message's header is not readable: {error}") from error
        return StreamData(
            stream=parcel.stream.stream,
            seq=parcel.seq,
            number=parcel.number,
            header=header,
            payload=parcel.payload,
            final=parcel.final,
        )
