"""The calls and streams of the daemon over one channel, however many connections that takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from colab_bridge.agent.channel import Channel
from colab_bridge.agent.events import (
    CallCancelled,
    CallError,
    CallReceived,
    CallResult,
    ChannelClosed,
    Event,
    LinkUp,
    Notified,
    PeerReset,
    Piece,
    Priority,
    StreamClosed,
    StreamData,
    StreamGap,
    StreamOpened,
    Unacknowledged,
    Writable,
)
from colab_bridge.agent.faults import BufferFull, ChannelError, ChannelMisuse
from colab_bridge.agent.process.pump import Pump
from colab_bridge.agent.process.stream import StreamFace, Streams
from colab_bridge.kernels.agent_errors import AgentError, one_line

__all__ = ["LinkStream", "LinkStreamHandler", "Traffic"]

log = logging.getLogger(__name__)

_FIRST_STREAM = 2
_SLACK_S = 2.0

NotifyCallback = Callable[[str, Mapping[str, Any], bytes], None]


class LinkStreamHandler(Protocol):
    """What the owner of a stream gives; called on the event loop, must not block."""

    def opened(self) -> None:
        """Learn that the agent is connected (again), and the stream goes on."""

    def data(self, piece: StreamData) -> None:
        """Take a piece; call ``stream.consumed(piece.seq)`` when it is stored."""

    def gap(self, first: int, last: int) -> None:
        """Learn that the messages ``first`` to ``last`` do not exist any more."""

    def writable(self) -> None:
        """Go on sending: there is room again."""

    def lost(self, unacknowledged: Sequence[Piece]) -> None:
        """Learn that the agent was started anew: the stream is gone, and this is what it had not consumed."""

    def closed(self, code: str, message: str) -> None:
        """Learn that the agent closed the stream; it is gone."""


class LinkStream(Protocol):
    """One stream to the agent.

    Attributes:
        id: Its number in the channel.
        name: What the service knows it by.
    """

    id: int
    name: str

    def can_send(self, size_bytes: int = 0) -> bool:
        """Return whether ``send`` takes a message of this size; if not, the handler's ``writable`` will be called."""
        ...

    def send(
        self,
        header: Mapping[str, Any] | None,
        payload: bytes = b"",
        *,
        number: int | None = None,
        final: bool = True,
        prompt: bool = False,
    ) -> int:
        """Queue a message, or a piece of one, and return its number; a prompt one is sent now if there is room.

        Raises:
            BufferFull: nothing was taken; wait for ``writable``.
            ChannelMisuse: the stream is gone, or the message breaks a rule.
        """
        ...

    def consumed(self, seq: int) -> None:
        """Note that everything up to and including the piece ``seq`` is stored."""
        ...

    def close(self, code: str = "", message: str = "") -> None:
        """End the stream after everything queued; a stream that is gone already is no error."""
        ...


class _Channel(Channel):
    """A channel that gives back what its peer had not consumed also when it was closed."""

    def take_unconsumed(self) -> tuple[Unacknowledged, ...]:
        return self._table.reset()


class Traffic:
    """Everything that goes over one channel.

    Args:
        clock: Seconds of a clock that never goes back.
        subscribers: Prefix and callback of those who want notifications; read at each one.
        linked: Called at each handshake; True when the agent remembers everything.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        subscribers: Sequence[tuple[str, NotifyCallback]],
        linked: Callable[[bool], None],
    ) -> None:
        self._clock = clock
        self._subscribers = subscribers
        self._linked = linked
        self._channel = _Channel("client", now=clock())
        self.pump = Pump(self._channel, self._take, clock=clock)
        self.fault = ""
        self.has_linked = False
        self._calls: dict[int, asyncio.Future[tuple[Mapping[str, Any], bytes]]] = {}
        self._streams: Streams[LinkStreamHandler] = Streams(self.pump)
        self._room = asyncio.Event()
        self._takers: dict[type[Any], Callable[[Any], None]] = {
            LinkUp: self._link_up,
            CallResult: lambda event: self._end_call(event.call, (event.result, event.payload)),
            CallError: lambda event: self._end_call(event.call, AgentError(event.code, event.message, data=event.data)),
            CallCancelled: lambda event: self._end_call(event.call, AgentError("cancelled", "the call was cancelled")),
            CallReceived: self._refuse_call,
            StreamOpened: lambda event: self._channel.close_stream(event.stream, "unknown", "not wanted"),
            StreamData: self._streams.data,
            StreamGap: self._stream_gap,
            StreamClosed: self._streams.closed,
            Writable: self._writable,
            Notified: self._notified,
            PeerReset: lambda event: self._lose_streams(event.streams),
            ChannelClosed: self._closed,
        }

    @property
    def is_over(self) -> bool:
        """The channel is closed for good."""
        return self._channel.is_closed

    @property
    def is_up(self) -> bool:
        """Messages flow now."""
        return self._channel.is_up

    def close(self, message: str) -> None:
        """Say goodbye and end everything."""
        self._channel.close(message)
        self.pump.kick()

    # -- calls

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        payload: bytes,
        *,
        deadline_s: float,
        bulk: bool,
        compress: bool,
    ) -> tuple[Mapping[str, Any], bytes]:
        """Call the agent; see :meth:`~.agent_link.AgentLink.call`."""
        deadline = self._clock() + deadline_s
        call = await self._start_call(method, params, payload, deadline, bulk=bulk, compress=compress)
        future: asyncio.Future[tuple[Mapping[str, Any], bytes]] = asyncio.get_running_loop().create_future()
        self._calls[call] = future
        self.pump.kick()
        try:
            # The channel ends each call at its deadline; this only meets a loop that was asleep.
            async with asyncio.timeout(deadline_s + _SLACK_S):
                return await future
        except TimeoutError:
            raise _deadline(method) from None
        finally:
            if self._calls.pop(call, None) is not None:
                self._channel.cancel(call)
                self.pump.kick()

    async def _start_call(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        payload: bytes,
        deadline: float,
        *,
        bulk: bool,
        compress: bool,
    ) -> int:
        while True:
            self._room.clear()
            try:
                return self._channel.call(method, params, payload, deadline=deadline, bulk=bulk, compress=compress)
            except BufferFull:
                pass
            except ChannelMisuse as error:
                raise AgentError("closed" if self.is_over else "invalid", str(error)) from error
            try:
                async with asyncio.timeout(deadline - self._clock()):
                    await self._room.wait()
            except TimeoutError:
                raise _deadline(method) from None

    def _end_call(self, call: int, end: tuple[Mapping[str, Any], bytes] | AgentError) -> None:
        future = self._calls.pop(call, None)
        self._room.set()
        if future is None or future.done():
            return
        if isinstance(end, AgentError):
            future.set_exception(end)
        else:
            future.set_result(end)

    def _refuse_call(self, event: CallReceived) -> None:
        self._channel.fail(event.call, "unknown", "the daemon answers no calls")

    # -- streams

    def open_stream(
        self,
        name: str,
        params: Mapping[str, Any] | None,
        handler: LinkStreamHandler,
        *,
        bulk: bool,
        resume_from: int,
        compress: bool,
    ) -> StreamFace:
        """Open a stream; see :meth:`~.agent_link.AgentLink.open_stream`."""
        priority = Priority.BULK if bulk else Priority.INTERACTIVE
        try:
            stream = self._channel.open_stream(
                name, params, priority=priority, resume_from=resume_from, compress=compress
            )
        except BufferFull as error:
            raise AgentError("full", "too many streams to the agent are open") from error
        except ChannelMisuse as error:
            raise AgentError("closed" if self.is_over else "invalid", str(error)) from error
        face = StreamFace(self.pump, stream, name, params or {}, resume_from)
        self._streams.add(face, handler)
        self.pump.kick()
        return face

    def _stream_gap(self, event: StreamGap) -> None:
        handler = self._streams.wanted(event.stream)
        if handler is not None:
            handler.gap(event.first, event.last)

    def _lose_streams(self, lost: Sequence[Unacknowledged]) -> None:
        pieces = {each.stream: each.pieces for each in lost}
        for stream, handler in self._streams.forget():
            self._guard(handler.lost, pieces.get(stream, ()))

    # -- the rest

    def _take(self, event: Event) -> None:
        taker = self._takers.get(type(event))
        if taker is not None:
            self._guard(taker, event)

    @staticmethod
    def _guard(action: Callable[..., None], *arguments: Any) -> None:
        """Run what belongs to somebody else: its defect must not end the link of all others."""
        try:
            action(*arguments)
        except ChannelError:
            pass  # the stream or channel has ended meanwhile, which an event of its own says
        except Exception:  # the root of all callbacks
            log.exception("a receiver of the agent's messages failed")

    def _link_up(self, event: LinkUp) -> None:
        self._room.set()
        self.has_linked = True
        self._linked(event.resumed)
        for handler in self._streams.all_wanted():
            self._guard(handler.opened)

    def _writable(self, event: Writable) -> None:
        if event.stream < _FIRST_STREAM:
            self._room.set()
        else:
            self._streams.writable(event)

    def _notified(self, event: Notified) -> None:
        for prefix, callback in list(self._subscribers):
            if event.method.startswith(prefix):
                self._guard(callback, event.method, event.params, event.payload)

    def _closed(self, event: ChannelClosed) -> None:
        if event.error is not None:
            self.fault = one_line(f"the agent broke the rules of the channel: {event.error}")
        self._room.set()
        self._lose_streams(self._channel.take_unconsumed())


def _deadline(method: str) -> AgentError:
    return AgentError("deadline", f"the agent did not answer {method} in time")
