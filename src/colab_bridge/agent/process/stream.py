"""One stream as its application holds it; the same at both ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from ..channel import Channel
from ..events import StreamClosed, StreamData, Writable
from ..faults import BufferFull, ChannelError, ChannelMisuse
from ..table import Payload
from .pump import Pump
from .service import StreamHandler

__all__ = ["StreamFace", "Streams"]


H = TypeVar("H", bound=StreamHandler)


class StreamFace:
    """Sends on a stream, and ends it in an orderly way whatever state it is in.

    Attributes:
        id: Its number in the channel.
        name: What the service knows it by.
        params: What its opener said about it.
        resume_from: Number of the first message that its opener wants.
        over: Nothing more is handed to the application.

    Args:
        pump: Drives the channel.
    """

    def __init__(self, pump: Pump, stream: int, name: str, params: Mapping[str, Any], resume_from: int) -> None:
        self.id = stream
        self.name = name
        self.params = params
        self.resume_from = resume_from
        self.over = False
        self._pump = pump
        self._gone = False
        self._mid_send = False
        self._seen = -1
        self._closing: tuple[str, str] | None = None

    @property
    def _channel(self) -> Channel:
        return self._pump.channel

    def can_send(self, size_bytes: int = 0) -> bool:
        """Return whether ``send`` takes a message of this size; if not, the handler's ``writable`` will be called."""
        return not self._gone and self._closing is None and self._channel.can_send(self.id, size_bytes)

    def send(
        self,
        header: Mapping[str, Any] | None,
        payload: Payload = b"",
        *,
        number: int | None = None,
        final: bool = True,
        prompt: bool = False,
    ) -> int:
        """Queue a message, or a piece of one, and return its number.

        Args:
            header: JSON object, with the first piece only.
            payload: Binary part.
            number: Of the message, where the application counts.
            final: This is its last piece.
            prompt: Send it now and not together with what else is sent in this turn of the loop.

        Raises:
            BufferFull: nothing was taken.
            ChannelMisuse: the stream is gone or closed here, or the message breaks a rule.
        """
        if self._gone or self._closing is not None:
            raise ChannelMisuse(f"stream {self.name} is closed")
        sent = self._channel.send(self.id, header, payload, number=number, final=final)
        self._mid_send = not final
        if prompt:
            self._pump.push()
        else:
            self._pump.kick()
        return sent

    @property
    def waiting_bytes(self) -> int:
        """What was queued and the other end has not done with."""
        return self._channel.waiting_bytes(self.id)

    def consumed(self, seq: int) -> None:
        """Note that everything up to and including the piece ``seq`` is done with."""
        if not self._gone:
            self._channel.consumed(self.id, seq)
            self._pump.kick()

    def close(self, code: str = "", message: str = "") -> None:
        """End the stream after everything queued; one that is gone already is no error."""
        if not self._gone and self._closing is None:
            self.over = True
            self._closing = (code, message)
            self.finish()

    # -- for whoever hands out the events

    def arrived(self, seq: int) -> bool:
        """Note that a piece has come, and return whether the application wants it."""
        self._seen = seq
        if self.over:
            self.consumed(seq)
        return not self.over

    def end(self) -> None:
        """The other end has closed: end this side too, and take what nobody will take any more."""
        self.over = True
        if self._seen >= 0:
            self.consumed(self._seen)
        self.close_quietly()

    def close_quietly(self) -> None:
        """Close this side if that has not been done."""
        if self._closing is None:
            self._closing = ("", "")
        self.finish()

    def finish(self) -> None:
        """Go on with closing: a message that was begun must be ended first, for which there may be no room now."""
        if self._closing is None or self._gone:
            return
        try:
            if self._mid_send:
                self._channel.send(self.id, None, b"", final=True)
                self._mid_send = False
            self._channel.close_stream(self.id, *self._closing)
        except BufferFull:
            return  # once more when there is room
        except ChannelError:
            pass  # it is gone already
        self._gone = self._gone or self._channel.is_closed
        self._pump.kick()

    def forget(self) -> None:
        """The stream does not exist any more: the other end was started anew, or the channel is closed."""
        self.over = self._gone = True


class Streams(Generic[H]):
    """The streams of one end, each with whoever handles it.

    Args:
        pump: Drives the channel.
    """

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._open: dict[int, tuple[StreamFace, H]] = {}

    def add(self, face: StreamFace, handler: H) -> None:
        """Hand the events of a stream to a handler from now on."""
        self._open[face.id] = (face, handler)

    def remove(self, stream: int) -> StreamFace | None:
        """Hand out nothing more of a stream, and return it; None when there is none."""
        return self._open.pop(stream, (None, None))[0]

    def wanted(self, stream: int) -> H | None:
        """Return the handler of a stream that has not ended."""
        face, handler = self._open.get(stream, (None, None))
        return None if face is None or face.over else handler

    def all_wanted(self) -> list[H]:
        """Return the handlers of all streams that have not ended."""
        return [handler for face, handler in self._open.values() if not face.over]

    def data(self, event: StreamData) -> None:
        """Hand out a piece; what nobody takes is done with."""
        face, handler = self._open.get(event.stream, (None, None))
        if face is None or handler is None:
            self._pump.channel.consumed(event.stream, event.seq)
        elif face.arrived(event.seq):
            handler.data(event)

    def closed(self, event: StreamClosed) -> None:
        """End a stream that the other end has closed."""
        face, handler = self._open.pop(event.stream, (None, None))
        if face is None or handler is None:
            return
        wanted, face.over = not face.over, True
        try:
            if wanted:
                handler.closed(event.code, event.message)
        finally:
            face.end()

    def writable(self, event: Writable) -> None:
        """Let a stream go on for which there was no room."""
        face, handler = self._open.get(event.stream, (None, None))
        if face is None or handler is None:
            return
        if face.over:
            face.finish()
        else:
            handler.writable()

    def forget(self) -> list[tuple[int, H]]:
        """Forget all streams, which do not exist any more, and return the handlers of those that had not ended."""
        streams, self._open = self._open, {}
        wanted = [(face.id, handler) for face, handler in streams.values() if not face.over]
        for face, _handler in streams.values():
            face.forget()
        return wanted
