"""An upstream that takes the tunnel where there is one, and the plain WebSocket where there is none.

Which it is turns out late: the agent is started at the same time as the kernel. What is sent meanwhile waits here. A
tunnel that ends for good is replaced by the WebSocket; it never comes back, because what the one has delivered the
other does not know.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from colab_bridge.errors import RuntimeLostError, UserError
from colab_bridge.kernels.upstream_tunnel import MAX_QUEUED_BYTES, TunnelError, TunnelUpstream
from colab_bridge.ports.upstream import LinkState, Upstream, UpstreamEvents
from colab_bridge.wire.message import RawMessage

__all__ = ["ChosenUpstream"]

log = logging.getLogger(__name__)


class ChosenUpstream:
    """A link to one remote kernel over the best way there is; implements ``ports.upstream.Upstream``.

    Args:
        tunnel: Waits until the agent can be used, and returns a tunnel; raises ``TunnelError`` when there is none.
        plain: Makes the link without a tunnel; None where only a tunnel is wanted.
        chosen: Told which way is used from now on, and why it is not the better one: ``tunnel`` or ``websocket``.
    """

    def __init__(
        self,
        tunnel: Callable[[], Awaitable[TunnelUpstream]],
        plain: Callable[[], Upstream] | None,
        chosen: Callable[[str, str], None],
    ) -> None:
        self._tunnel = tunnel
        self._plain = plain
        self._chosen = chosen
        self._active: Upstream | None = None
        self._waiting: list[RawMessage] = []
        self._waiting_bytes = 0
        self._busy = False

    @property
    def reliable(self) -> bool:
        """Whether nothing can be lost, which is hoped for until the contrary is known."""
        return self._active is None or self._active.reliable

    async def run(self, events: UpstreamEvents) -> None:
        """Keep the link up until cancelled or until the kernel is gone.

        Raises:
            RuntimeLostError: only a tunnel is wanted, and there is none.
        """
        events.state(LinkState.CONNECTING, "")
        try:
            tunnel = await self._tunnel()
            self._use(tunnel, self._take_waiting())
            self._chosen("tunnel", "")
            await tunnel.run(events)
            return
        except TunnelError as error:
            failure = error
        if self._plain is None:
            raise RuntimeLostError(
                f"the kernel cannot be reached through the agent: {failure.message}",
                hint="colab-bridge config set transport auto",
                code="CB-LOST-TUNNEL",
            )
        unsent = self._take_waiting()
        if isinstance(self._active, TunnelUpstream):
            unsent = self._active.take_unsent(untouched=failure.untouched)
        plain = self._plain()
        self._use(plain, ())
        self._chosen("websocket", failure.message)
        if events.journal is not None:
            events.journal.fallback(failure.message, unsent)
        await plain.run(events)

    def _use(self, upstream: Upstream, waiting: Sequence[RawMessage]) -> None:
        self._active = upstream
        upstream.set_busy(self._busy)
        for message in waiting:
            upstream.send(message)

    def _take_waiting(self) -> list[RawMessage]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def send(self, message: RawMessage) -> None:
        """Queue a message for the kernel.

        Raises:
            UserError: too much waits already, or the message is larger than the way can carry.
        """
        if self._active is not None:
            self._active.send(message)
            return
        if self._waiting_bytes + message.size_bytes > MAX_QUEUED_BYTES:
            raise UserError(
                "too much waits to be sent to the kernel",
                hint="wait until the kernel has started, then send it again",
                code="CB-USER-BACKLOG",
            )
        self._waiting_bytes += message.size_bytes
        self._waiting.append(message)

    def reconnect(self) -> None:
        """Make the connection anew, because the kernel was restarted on purpose and is another process now."""
        if self._active is not None:
            self._active.reconnect()

    def set_busy(self, busy: bool) -> None:
        """Tell the link whether the kernel executes something."""
        self._busy = busy
        if self._active is not None:
            self._active.set_busy(busy)

    def recorded(self, origin: int) -> None:
        """Acknowledge journal entries that are in the record."""
        if self._active is not None:
            self._active.recorded(origin)
