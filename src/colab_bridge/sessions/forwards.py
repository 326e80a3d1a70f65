"""Ports of this machine that lead to programs on runtimes.

Each connection is a stream of the agent's channel, so that it works on every runtime that has an agent, for every
protocol over TCP, and lives through a cut link.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from colab_bridge._util.ids import new_id
from colab_bridge.agent.events import Piece
from colab_bridge.agent.forward.lane import ByteLane
from colab_bridge.agent.process.service import ServerStream
from colab_bridge.errors import ColabBridgeError, ConflictError, TransientError, UserError
from colab_bridge.kernels.agent_errors import AgentError
from colab_bridge.kernels.agent_link import AgentLink
from colab_bridge.model.records import Session

__all__ = ["Forward", "Forwards"]

log = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
#: An agent may have to be started first.
READY_S: Final = 60.0
#: How long a first connection is watched for a refusal; a program that listens says nothing by itself.
PROBE_S: Final = 2.0
MOST_FORWARDS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One port that is forwarded.

    Attributes:
        id: Its id.
        session: Name of the session.
        port: Port on the runtime.
        local_port: Port here.
        warning: What the user should know, one line; empty without.
    """

    id: str
    session: str
    port: int
    local_port: int
    warning: str = ""


@dataclass(slots=True)
class _Open:
    forward: Forward
    server: asyncio.Server
    lanes: set[_Lane] = field(default_factory=set)


class _Lane(ByteLane):
    """A connection here with its stream to the agent.

    Args:
        link: Returns the link to the agent.
        port: Port on the runtime.
        lanes: Holds the lanes that are open.
    """

    def __init__(self, link: Callable[[], AgentLink], port: int, lanes: set[_Lane]) -> None:
        super().__init__()
        self._link = link
        self._port = port
        self._lanes = lanes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the stream; a connection for which there is none is ended."""
        self._lanes.add(self)
        super().connection_made(transport)
        try:
            stream = self._link().open_stream("forward.tcp", {"port": self._port}, handler=self, bulk=True)
        except ColabBridgeError as error:
            log.info("connection not forwarded", extra={"port": self._port, "reason": error.message})
            self.closed("unreachable", error.message)
        else:
            self.join(cast("ServerStream", stream))  # of which a lane uses what both have

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream."""
        self._lanes.discard(self)
        super().connection_lost(exc)

    # -- LinkStreamHandler, beyond what a lane has

    def opened(self) -> None:
        """The agent is connected (again)."""

    def gap(self, first: int, last: int) -> None:
        """Bytes are missing, so the connection is of no use."""
        self.closed("gap", "")

    def lost(self, unacknowledged: Sequence[Piece]) -> None:
        """The agent was started anew, and the connection there is gone."""
        self.closed("lost", "")


class Forwards:
    """The ports that this daemon forwards; they end with it.

    Args:
        session: Returns a session by name.
        link: Returns the link to the agent of a session, begun when there is none.
    """

    def __init__(self, session: Callable[[str], Session], link: Callable[[Session], AgentLink]) -> None:
        self._session = session
        self._link = link
        self._open: dict[str, _Open] = {}

    def all(self) -> list[Forward]:
        """Return what is forwarded now."""
        return [opened.forward for opened in self._open.values()]

    async def add(self, session: str, port: int, local_port: int | None) -> Forward:
        """Forward a port.

        Args:
            session: Name of the session.
            port: Port on the runtime, 1 to 65535.
            local_port: Port here; 0 for any that is free, None for the same number if that is free.

        Raises:
            ConflictError: the port here is taken.
            UserError: the runtime has no agent, which forwards need.
            TransientError: the agent does not answer.
        """
        if len(self._open) >= MOST_FORWARDS:
            raise UserError(
                f"{MOST_FORWARDS} ports are forwarded already", hint="end one of them: Ctrl-C where it runs"
            )
        known = self._session(session)
        warning = await self._probe(known, port)
        lanes: set[_Lane] = set()
        try:
            server = await self._listen(known, port, port if local_port is None else local_port, lanes)
        except OSError as error:
            if local_port is not None:
                raise ConflictError(
                    f"port {local_port} of this machine is taken",
                    hint=f"choose another one: colab-bridge port-forward {port}:0",
                ) from error
            server = await self._listen(known, port, 0, lanes)
        taken = int(server.sockets[0].getsockname()[1])
        forward = Forward(id=new_id("forward"), session=session, port=port, local_port=taken, warning=warning)
        self._open[forward.id] = _Open(forward, server, lanes)
        return forward

    async def _listen(self, session: Session, port: int, local_port: int, lanes: set[_Lane]) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: _Lane(lambda: self._link(session), port, lanes), _HOST, local_port)

    async def _probe(self, session: Session, port: int) -> str:
        """Connect once, to tell at once what would only be seen as a page that does not load."""
        link = self._link(session)
        try:
            await link.ready(READY_S)
        except ColabBridgeError as error:
            raise UserError(
                f"ports cannot be forwarded from this runtime: {error.message}", hint="colab-bridge status"
            ) from error
        probe = _Probe()
        try:
            stream = link.open_stream("forward.tcp", {"port": port}, handler=probe)
        except AgentError as error:
            raise TransientError(f"the runtime's agent does not answer: {error.message}", hint="try again") from error
        try:
            await asyncio.wait_for(probe.ended.wait(), PROBE_S)
        except TimeoutError:
            return ""
        finally:
            stream.close()
        if probe.code == "unknown":
            raise UserError(
                "the agent on this runtime is older and forwards no ports", hint="colab-bridge restart, then try again"
            )
        return f"nothing listens on port {port} of the runtime yet" if probe.code == "refused" else ""

    def remove(self, forward_id: str) -> None:
        """End a forward with its connections; one that has ended already is no error."""
        if (opened := self._open.pop(forward_id, None)) is not None:
            opened.server.close()
            for lane in list(opened.lanes):
                lane.closed("removed", "")

    def session_ended(self, session: str) -> None:
        """End the forwards of a session."""
        for forward in self.all():
            if forward.session == session:
                self.remove(forward.id)

    def close(self) -> None:
        """End all."""
        for forward_id in list(self._open):
            self.remove(forward_id)


class _Probe:
    """Watches one stream for its end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.code = ""

    def opened(self) -> None:
        """The agent is connected."""

    def data(self, piece: object) -> None:
        """Something listens, and speaks first."""
        self.ended.set()

    def gap(self, first: int, last: int) -> None:
        """Nothing is known."""

    def writable(self) -> None:
        """Nothing is sent."""

    def lost(self, unacknowledged: Sequence[Piece]) -> None:
        """Nothing is known."""
        self.ended.set()

    def closed(self, code: str, message: str) -> None:
        """The agent says why."""
        self.code = code
        self.ended.set()
