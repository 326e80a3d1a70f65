"""The daemon's end of the channel to one agent: connects, resumes, and starts the agent anew when it has gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from colab_bridge.agent.events import Piece, StreamData
from colab_bridge.kernels.agent_socket import Dialer
from colab_bridge.ports.upstream import LinkState

__all__ = ["AgentLink", "AgentStatus", "LinkStream", "LinkStreamHandler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStatus:
    """How the link to an agent is.

    Attributes:
        mode: Way to the agent: ``tunnel`` (stdin of the doorman kernel, or its own socket), ``control`` (control
            channel of the doorman kernel), ``none`` (no agent on this runtime).
        state: ``CONNECTED`` when calls go through now; ``GONE`` only with mode ``none``.
        text: One line for people, empty when all is well.
        held_by: Label of the other daemon that holds the agent, or empty.
        info: The answer of ``agent.hello``, empty before the first connection.
    """

    mode: Literal["tunnel", "control", "none"]
    state: LinkState
    text: str = ""
    held_by: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


class LinkStreamHandler(Protocol):
    """What the owner of a stream gives; called on the event loop, must not block."""

    def opened(self) -> None:
        """Learn that the stream is queued for an agent that is connected now."""

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
    """One stream to the agent. Attributes: ``id``, ``name``."""

    id: int
    name: str

    def can_send(self, size_bytes: int = 0) -> bool:
        """Return whether ``send`` takes a message of this size; if not, the handler's ``writable`` will be called."""
        ...

    def send(
        self, header: Mapping[str, Any] | None, payload: bytes = b"", *, number: int | None = None, final: bool = True
    ) -> int:
        """Queue a message, or a piece of one, and return its number.

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


class AgentLink:
    """Keeps one channel to one agent over any number of connections.

    Args:
        dial: Makes connections to the agent.
        owner: Id of this daemon; the same over its restarts.
        label: ``user@host`` of this daemon, shown to others whom the agent refuses.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, dial: Dialer, owner: str, label: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._dial = dial
        self._owner = owner
        self._label = label
        self._clock = clock

    @property
    def status(self) -> AgentStatus:
        """How the link is now."""
        raise NotImplementedError

    async def run(self, on_status: Callable[[AgentStatus], None]) -> None:
        """Keep the link up until cancelled; the lease is given back then.

        Args:
            on_status: Called on the event loop with each change.
        """
        raise NotImplementedError

    async def ready(self, timeout_s: float) -> AgentStatus:
        """Wait for the first definite answer (connected, held by another, or none possible), at most so long.

        Returns:
            The status at that moment.
        """
        raise NotImplementedError

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        *,
        deadline_s: float = 10.0,
        bulk: bool = False,
        compress: bool = False,
    ) -> tuple[Mapping[str, Any], bytes]:
        """Call a service of the agent; waits for the link too. Cancelling the task withdraws the call.

        Returns:
            Result and payload.

        Raises:
            AgentError: it failed; ``code_name`` says how.
        """
        raise NotImplementedError

    def open_stream(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        handler: LinkStreamHandler,
        bulk: bool = False,
        resume_from: int = 1,
        compress: bool = False,
    ) -> LinkStream:
        """Open a stream; may be done before the link is up.

        Args:
            name: What the service knows it by.
            params: For the service; a small JSON object.
            handler: Is told what happens.
            bulk: Let interactive traffic go first, in both directions.
            resume_from: Number of the first message wanted: the durable cursor + 1.
            compress: Compress what this side sends.

        Raises:
            AgentError: too many streams are open, or the link has ended.
        """
        raise NotImplementedError

    def on_notify(self, prefix: str, callback: Callable[[str, Mapping[str, Any], bytes], None]) -> None:
        """Call ``callback(method, params, payload)`` for notifications whose method starts with ``prefix``."""
        raise NotImplementedError

    def take_over(self) -> None:
        """Take the agent from the daemon that holds it, at the next connection, which is made at once."""
        raise NotImplementedError
