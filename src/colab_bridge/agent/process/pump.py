"""Drives a channel on an event loop: bytes between it and a connection, its timers, its events. Used at both ends."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from ..channel import Channel
from ..events import ChannelClosed, Event, LinkDead

__all__ = ["PromptWire", "Pump", "Wire"]

# The goodbye is a courtesy; a dead connection must not hold up the next one.
_FAREWELL_S = 1.0
# What is read before others on the loop get their turn.
_TURN_BYTES = 1024 * 1024
_NEVER = float("inf")


class Wire(Protocol):
    """One connection that carries bytes both ways.

    Attributes:
        has_room: Whether :meth:`write_now` may be called: everything before has left this process.
    """

    @property
    def has_room(self) -> bool:  # noqa: D102  # see the class
        ...

    def write_now(self, data: bytes) -> None:
        """Send bytes from a callback; only when there is room, and while no ``write`` is under way."""

    async def read(self) -> bytes:
        """Return the next bytes, cut in any way; empty at the end of the connection."""

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when the connection can take more. One that has ended swallows them."""

    async def aclose(self) -> None:
        """End the connection; short."""


@runtime_checkable
class PromptWire(Wire, Protocol):
    """A connection that need not be read: it hands over what comes, without a turn of the loop in between."""

    async def deliver(self, take: Callable[[bytes], None]) -> None:
        """Hand over everything that has come and comes, until the connection ends or this is cancelled."""


class Pump:
    """Carries one channel over one connection after the other.

    Args:
        channel: What is driven; from now on it is driven by nobody else.
        on_event: Takes the events, on the event loop; must neither block nor raise.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self, channel: Channel, on_event: Callable[[Event], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.channel = channel
        self._on_event = on_event
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._writing = False  # the task is at it
        self._outgoing = asyncio.Event()
        self._ended = asyncio.Event()
        self._why_ended = ""
        self._link = 0
        self._kicked = False
        self._settling = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def kick(self) -> None:
        """Send what the application has asked of the channel; call it after each use of the channel."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self.settle)

    def push(self) -> None:
        """Do as :meth:`kick` does, and send at once what can be sent: somebody waits for it."""
        self.kick()
        if not self._settling:
            self._flush()

    def stop(self) -> None:
        """End the timers; nothing is carried any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, _NEVER
        self._end("stopped")

    async def carry(self, wire: Wire, first: bytes = b"") -> str:
        """Carry the channel over a connection until that ends; it is closed then.

        Args:
            wire: The connection, greeted already.
            first: Bytes that came together with the greeting.

        Returns:
            Why it ended, one line; empty when the other end hung up without a word.

        Raises:
            ChannelMisuse: the channel is closed.
        """
        link = self._link = self.channel.connected(self._clock())
        self._ended.clear()
        self._why_ended = ""
        self._wire, self._writing = wire, False
        tasks = [
            asyncio.ensure_future(self._read(link, wire, first)),
            asyncio.ensure_future(self._write(wire)),
            asyncio.ensure_future(self._ended.wait()),
        ]
        try:
            self.settle()
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wire = None
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await asyncio.wait_for(self._say_goodbye(wire), _FAREWELL_S)
            except (OSError, asyncio.TimeoutError):
                pass
            finally:
                await wire.aclose()
            self.channel.disconnected(link, self._clock())
            self.settle()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return self._why_ended

    async def _read(self, link: int, wire: Wire, first: bytes) -> None:
        if isinstance(wire, PromptWire):
            if first:
                self._receive(link, first)
            await wire.deliver(functools.partial(self._receive, link))
            return
        unpaused = 0
        data = first or await wire.read()
        while data:
            self._receive(link, data)
            unpaused += len(data)
            if unpaused >= _TURN_BYTES:
                # A connection that always has something must not keep the loop from everything else.
                unpaused = 0
                await asyncio.sleep(0)
            data = await wire.read()

    def _receive(self, link: int, data: bytes) -> None:
        self.channel.receive(link, data, self._clock())
        self.settle()

    async def _write(self, wire: Wire) -> None:
        """Send what :meth:`_flush` had to leave to somebody who can wait."""
        while True:
            await self._outgoing.wait()
            self._outgoing.clear()
            self._writing = True
            while data := self.channel.data_to_send(self._clock()):
                await wire.write(data)
            self._writing = False
            self._schedule()

    def _flush(self) -> None:
        """Send at once: whatever goes through the task costs one more turn of the loop."""
        wire = self._wire
        if wire is None or self._writing:
            return
        while wire.has_room:
            data = self.channel.data_to_send(self._clock())
            if not data:
                return
            wire.write_now(data)
        self._outgoing.set()

    async def _say_goodbye(self, wire: Wire) -> None:
        if self.channel.is_closed:
            data = self.channel.data_to_send(self._clock())
            if data:
                await wire.write(data)

    def settle(self) -> None:
        """Hand out all events now, then look when the channel has to be asked again."""
        self._kicked = False
        if self._settling:
            return
        self._settling = True
        try:
            while True:
                event = self.channel.next_event()
                if event is None:
                    break
                self._take(event)
        finally:
            self._settling = False
        self._flush()
        self._schedule()

    def _take(self, event: Event) -> None:
        if isinstance(event, LinkDead) and event.link == self._link:
            self._end(event.detail)
        elif isinstance(event, ChannelClosed):
            self._end(event.message)
        self._on_event(event)

    def _end(self, why: str) -> None:
        self._why_ended = why
        self._ended.set()

    def _schedule(self) -> None:
        deadline = self.channel.next_deadline()
        if deadline is None or deadline >= self._timer_at:
            return  # a timer that comes too early finds nothing to do, and most deadlines only move away
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        self.channel.tick(self._clock())
        self.settle()
