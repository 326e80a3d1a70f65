"""Brings the events of the daemon's channel to the services, and their answers back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..channel import Channel
from ..events import (
    CallReceived,
    CallWithdrawn,
    ChannelClosed,
    Event,
    PeerReset,
    StreamClosed,
    StreamData,
    StreamOpened,
    Writable,
)
from ..faults import BufferFull, ChannelError
from .pump import Pump
from .service import CallFailure, Reply, Service, StreamHandler
from .stream import StreamFace, Streams

__all__ = ["Dispatch"]

log = logging.getLogger(__name__)

# Answers may have 2 MiB each and wait for a slow line, so each service makes few at once.
_CALLS_AT_ONCE = 8
_FIRST_STREAM = 2


class Dispatch:
    """One daemon's calls and streams, from its first connection until another daemon comes.

    Args:
        services: By name.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, services: Mapping[str, Service], clock: Callable[[], float]) -> None:
        self.pump = Pump(Channel("server", now=clock()), self._take, clock=clock)
        self._services = services
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._streams: Streams[StreamHandler] = Streams(self.pump)
        self._turns = {name: asyncio.Semaphore(_CALLS_AT_ONCE) for name in services}
        self._room = asyncio.Event()
        self._takers: dict[type[Any], Callable[[Any], None]] = {
            CallReceived: self._call_received,
            CallWithdrawn: self._call_withdrawn,
            StreamOpened: self._stream_opened,
            StreamData: self._streams.data,
            StreamClosed: self._streams.closed,
            Writable: self._writable,
            PeerReset: lambda _event: self._drop_streams("reset", "the daemon was started anew"),
            ChannelClosed: lambda event: self._drop_streams("closed", event.message),
        }

    @property
    def is_over(self) -> bool:
        """The channel is closed for good."""
        return self.pump.channel.is_closed

    def notify(self, method: str, params: Mapping[str, Any] | None, payload: bytes, *, bulk: bool) -> bool:
        """Tell the daemon something; False when there is no link or no room."""
        if not self.pump.channel.is_up:
            return False
        try:
            self.pump.channel.notify(method, params, payload, bulk=bulk)
        except ChannelError:
            return False
        self.pump.kick()
        return True

    def close(self, message: str) -> None:
        """End everything; the daemon is told if it is connected."""
        if not self.is_over:
            self.pump.channel.close(message)
            self.pump.kick()
        for task in self._calls.values():
            task.cancel()

    def _take(self, event: Event) -> None:
        taker = self._takers.get(type(event))
        if taker is None:
            return
        try:
            taker(event)
        except Exception:
            # A defect of one service must not end the others.
            log.exception("a service failed with an event", extra={"event": type(event).__name__})
            face = self._streams.remove(getattr(event, "stream", -1))
            if face is not None:
                face.close("internal", "the service failed with this stream")

    # -- calls

    def _call_received(self, event: CallReceived) -> None:
        task = asyncio.ensure_future(self._answer(event))
        self._calls[event.call] = task
        task.add_done_callback(lambda _done: self._calls.pop(event.call, None))

    def _call_withdrawn(self, event: CallWithdrawn) -> None:
        task = self._calls.get(event.call)
        if task is not None:
            task.cancel()

    async def _answer(self, event: CallReceived) -> None:
        name, _dot, verb = event.method.partition(".")
        service = self._services.get(name)
        if service is None:
            await self._send(event.call, CallFailure("unknown", f"this agent has no service {name[:50]!r}"))
            return
        async with self._turns[name]:
            try:
                await self._send(event.call, await service.call(verb, event.params, event.payload, event.timeout_s))
            except CallFailure as failure:
                await self._send(event.call, failure)
            except ChannelError as error:
                await self._send(event.call, CallFailure("internal", f"the answer cannot be sent: {error}"))
            except Exception as error:
                log.exception("a service failed with a call", extra={"method": event.method})
                text = f"the service failed: {type(error).__name__}: {error}"[:300]
                await self._send(event.call, CallFailure("internal", text))

    async def _send(self, call: int, answer: Reply | CallFailure) -> None:
        channel = self.pump.channel
        while not channel.is_closed:
            self._room.clear()
            try:
                if isinstance(answer, Reply):
                    channel.respond(call, answer.result, answer.payload, compress=answer.compress)
                else:
                    channel.fail(call, answer.code, answer.message, answer.data)
            except BufferFull:
                await self._room.wait()
                continue
            self.pump.kick()
            return

    # -- streams

    def _stream_opened(self, event: StreamOpened) -> None:
        face = StreamFace(self.pump, event.stream, event.name, event.params, event.resume_from)
        service = self._services.get(event.name.partition(".")[0])
        try:
            if service is None:
                raise CallFailure("unknown", f"this agent has no service for {event.name[:50]!r}")
            handler = service.open(face)
        except CallFailure as failure:
            handler = _Nobody()
            face.close(failure.code, failure.message)
        except Exception as error:
            log.exception("a service failed to open a stream", extra={"stream": event.name})
            handler = _Nobody()
            face.close("internal", f"the service failed: {type(error).__name__}: {error}"[:300])
        self._streams.add(face, handler)

    def _writable(self, event: Writable) -> None:
        if event.stream < _FIRST_STREAM:
            self._room.set()
        else:
            self._streams.writable(event)

    def _drop_streams(self, code: str, message: str) -> None:
        self._room.set()
        for _stream, handler in self._streams.forget():
            self._tell_end(handler, code, message)

    @staticmethod
    def _tell_end(handler: StreamHandler, code: str, message: str) -> None:
        try:
            handler.closed(code, message)
        except Exception:
            log.exception("a service failed at the end of a stream")


class _Nobody:
    """Handles a stream that was refused."""

    def data(self, piece: StreamData) -> None:
        """Never called: the stream is over."""

    def writable(self) -> None:
        """Never called."""

    def closed(self, code: str, message: str) -> None:
        """Never called."""
