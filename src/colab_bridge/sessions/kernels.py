"""The kernels that the daemon holds: made, found again, restarted, ended."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.abc

from colab_bridge._util.ids import new_id
from colab_bridge.errors import ColabBridgeError, RuntimeLostError, TransientError, UserError
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.kernels.record import MessageRecord
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.kernels.upstream_choice import ChosenUpstream
from colab_bridge.kernels.upstream_tunnel import TunnelUpstream
from colab_bridge.kernels.upstream_ws import WebSocketUpstream
from colab_bridge.model.records import KernelPurpose, KernelRecord, KernelState, Session
from colab_bridge.model.runtime import Endpoint
from colab_bridge.ports.clock import Clock
from colab_bridge.ports.side import SideDesk
from colab_bridge.ports.upstream import LinkState, Upstream
from colab_bridge.sessions.agents import Agents
from colab_bridge.sessions.transports import KernelTransport, Transport
from colab_bridge.store.store import Store

__all__ = ["KernelKeeper", "KernelPool"]

log = logging.getLogger(__name__)

#: A local kernel is up again within about a second.
DEAD_TRIES = 6
DEAD_PAUSE_S = 0.3

#: Most seconds that a run waits until it is known what became of its kernel while no daemon ran.
CATCH_UP_S = 3.0
#: So long a word of a kernel counts as a sign of life of its runtime.
ANSWERED_S = 3.0

StateListener = Callable[[KernelRecord, HubKernel], None]


class KernelKeeper(Protocol):
    """Who prepares the workspace for kernels and looks after them; the file sync."""

    async def before_start(self, session_name: str, cwd: str) -> str:
        """Prepare a kernel's working folder, given relative to the project; return it relative to the server's root."""
        ...

    def restarted(self, kernel: KernelRecord, hub: HubKernel) -> None:
        """Take note of a kernel that was restarted on purpose."""
        ...

    def opened(self, kernel: KernelRecord, hub: HubKernel, *, new: bool) -> None:
        """Take note of a kernel that the pool holds from now on; a new one has not been sent anything yet."""
        ...

    async def session_ended(self, session_name: str) -> None:
        """Let go of a session that is stopped; its runtime still answers."""
        ...


class KernelPool:
    """All kernels of all sessions, each with its hub.

    Args:
        store: Where kernels are remembered.
        records: Folder that holds one record per kernel.
        clock: Time source.
        tasks: Owner of the link tasks.
        endpoint_of: Gives the way in to the runtime of a session, by session name.
        record_bytes: Size limit of one kernel's record.
        agents: Where tunnels come from; None for no tunnels at all.
        transport_of: Tells which transport a new kernel of a session is to have, by session name.
    """

    def __init__(
        self,
        store: Store,
        records: Path,
        clock: Clock,
        tasks: anyio.abc.TaskGroup,
        endpoint_of: Callable[[str], Awaitable[Endpoint]],
        *,
        record_bytes: int,
        agents: Agents | None = None,
        transport_of: Callable[[str], Transport] = lambda session: Transport.WEBSOCKET,  # noqa: ARG005  # a default
    ) -> None:
        self._agents = agents
        self._transport_of = transport_of
        self._transports: dict[str, KernelTransport] = {}
        self._store = store
        self._records = records
        self._clock = clock
        self._tasks = tasks
        self._endpoint_of = endpoint_of
        self._record_bytes = record_bytes
        self._hubs: dict[str, HubKernel] = {}
        self._kernels: dict[str, KernelRecord] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._servers: dict[str, tuple[Endpoint, JupyterServer]] = {}
        self._listeners: list[StateListener] = []
        self._missed: dict[tuple[str, KernelPurpose, str], str] = {}
        self._keeper: KernelKeeper | None = None
        self._desk_of: Callable[[str], SideDesk | None] = lambda _session: None

    def keep_with(self, keeper: KernelKeeper) -> None:
        """Have a keeper asked and told about each kernel from now on."""
        self._keeper = keeper

    def answer_with(self, desk_of: Callable[[str], SideDesk | None]) -> None:
        """Have what a session's kernels ask of the user's machine answered by its desk, from now on."""
        self._desk_of = desk_of

    def on_state(self, listener: StateListener) -> None:
        """Have ``listener(kernel, hub)`` called whenever a kernel's state changes."""
        self._listeners.append(listener)

    # -- looking up ------------------------------------------------------------------------------------------

    def kernels(self, session: str | None = None) -> list[KernelRecord]:
        """Return the kernels held now, oldest first."""
        found = [kernel for kernel in self._kernels.values() if session in (None, kernel.session)]
        return sorted(found, key=lambda kernel: kernel.created_at)

    def find(self, session: str, purpose: KernelPurpose, key: str) -> KernelRecord | None:
        """Return the living kernel with this purpose and key, None when there is none."""
        for kernel in self.kernels(session):
            if (kernel.purpose, kernel.key) == (purpose, key) and self._hubs[kernel.id].state is not KernelState.DEAD:
                return kernel
        return None

    async def clear_dead(self, session: str, purpose: KernelPurpose, key: str) -> str:
        """Delete kernels with this purpose and key that died; servers start them again, and nobody would use them.

        Returns:
            Why the last of them ended, also one that ended while no daemon ran; empty when there was none.
        """
        reason = self._missed.pop((session, purpose, key), "")
        for kernel in self.kernels(session):
            if (kernel.purpose, kernel.key) != (purpose, key):
                continue
            hub = self._hubs[kernel.id]
            await hub.wait_caught_up(CATCH_UP_S)  # it may have died while no daemon ran
            if hub.state is KernelState.DEAD:
                reason = hub.died or reason
                await self._delete_dead(kernel.id)
        return reason

    async def _delete_dead(self, kernel_id: str) -> None:
        for _ in range(DEAD_TRIES):
            try:
                await self.delete(kernel_id)
            except TransientError as error:
                # A server fails to delete a kernel that it is starting again at this moment; no event tells of its end.
                log.info("dead kernel not deleted yet", extra={"kernel": kernel_id, "reason": error.message})
                await anyio.sleep(DEAD_PAUSE_S)
            else:
                return
        # What is dead must not keep anybody from a new kernel.
        self.drop(kernel_id)

    def kernel(self, kernel_id: str) -> KernelRecord:
        """Return a kernel held now.

        Raises:
            RuntimeLostError: there is none with this id.
        """
        if kernel_id not in self._kernels:
            raise RuntimeLostError(f"kernel {kernel_id} does not exist", hint="colab-bridge status", code="CB-LOST-001")
        return self._kernels[kernel_id]

    def hub(self, kernel_id: str) -> HubKernel:
        """Return the hub of a kernel held now.

        Raises:
            RuntimeLostError: there is none with this id.
        """
        self.kernel(kernel_id)
        return self._hubs[kernel_id]

    def answers(self, session: str) -> bool:
        """Whether a kernel of a session spoke to us a moment ago, so that its runtime needs no asking.

        The end of a runtime on this machine ends the link at the same moment; that of another one is noticed by the
        link sooner or later anyway.
        """
        return any(self._hubs[kernel.id].heard_within(ANSWERED_S) for kernel in self.kernels(session))

    def busy(self, session: str) -> bool:
        """Whether anything executes on a kernel of a session, or may do so because its link is down."""
        return any(
            self._hubs[kernel.id].busy or self._hubs[kernel.id].state is KernelState.RECONNECTING
            for kernel in self.kernels(session)
        )

    def connected(self, session: str) -> bool:
        """Whether the link to a kernel of a session is up, as far as that is known."""
        return any(self._hubs[kernel.id].link is LinkState.CONNECTED for kernel in self.kernels(session))

    async def runtime_gone(self, session: str) -> None:
        """Count all kernels of a session as dead, because their runtime has gone, and let go of its files."""
        for kernel in self.kernels(session):
            if scope := self._scopes.get(kernel.id):
                scope.cancel()
            self._hubs[kernel.id].fail("the runtime has gone")
        if self._keeper is not None:
            await self._keeper.session_ended(session)

    async def server(self, session: str) -> JupyterServer:
        """Return a REST client for the runtime of a session."""
        endpoint = await self._endpoint_of(session)
        known = self._servers.get(session)
        if known and known[0] == endpoint:
            return known[1]
        if known and known[0].renew is not None and endpoint.renew is not None:
            # A new token for the same machine; calls that are under way end over the old one.
            known[1].use(endpoint)
            self._servers[session] = (endpoint, known[1])
            return known[1]
        if known:
            await known[1].aclose()
        server = JupyterServer(endpoint)
        self._servers[session] = (endpoint, server)
        return server

    async def forget_session(self, session: Session) -> None:
        """End the agent of a session that ends, unless others use it, and close its REST client."""
        if self._keeper is not None:
            await self._keeper.session_ended(session.name)
        if self._agents is not None:
            await self._agents.stop(session)
        if known := self._servers.pop(session.name, None):
            await known[1].aclose()

    # -- life ------------------------------------------------------------------------------------------------

    async def start(
        self,
        session: str,
        purpose: KernelPurpose,
        key: str,
        *,
        spec: str | None = None,
        cwd: str = "",
        identity: Mapping[str, Any] | None = None,
    ) -> KernelRecord:
        """Start a kernel on the runtime of a session and connect to it.

        Args:
            session: Session name.
            purpose: Why it is made.
            key: What it is for.
            spec: Kernelspec name; the server's default when omitted.
            cwd: Folder relative to the runtime's root, with ``/``.
            identity: What the front end told about itself.

        Raises:
            UserError: the kernelspec does not exist.
        """
        server = await self.server(session)
        transport = self._transport_for(session)
        specs = await server.kernelspecs()
        name = spec or specs.default
        if name not in specs.specs:
            known = ", ".join(sorted(specs.specs)) or "none"
            raise UserError(
                f"no kernelspec is called '{name}' on this runtime (known: {known})",
                hint=f"choose one with --kernel, for example --kernel {specs.default}",
                code="CB-USER-030",
            )
        remote_id = await self._start_remote(session, server, name, cwd)
        kernel = KernelRecord(
            id=new_id("kernel"),
            session=session,
            remote_id=remote_id,
            ws_session_id=secrets.token_hex(16),
            purpose=purpose,
            key=key,
            spec=name,
            language=specs.specs[name].language.lower(),
            cwd=cwd,
            # What a kernel began with it keeps: its journal, or the server's memory, is in one place only.
            identity={**(identity or {}), "transport": str(transport)},
            created_at=self._clock.time(),
        )
        try:
            self._store.put_kernel(kernel)
            self._open(kernel)
        except BaseException:
            # A kernel that nobody remembers would run on unseen.
            self._store.delete_kernel(kernel.id)
            with anyio.move_on_after(5, shield=True), contextlib.suppress(ColabBridgeError):
                await server.delete_kernel(remote_id)
            raise
        return kernel

    async def _start_remote(self, session: str, server: JupyterServer, spec: str, cwd: str) -> str:
        """Start a kernel; where there is only room for one, the agent's doorman kernel makes way for the user's."""
        try:
            return await server.start_kernel(spec, await self._folder(session, cwd))
        except ColabBridgeError:
            known = self._store.session(session)
            if self._agents is None or known is None or not await self._agents.make_room(known):
                raise
        if self._keeper is not None:
            await self._keeper.session_ended(session)  # files cannot be kept in step without the agent
        return await server.start_kernel(spec, await self._folder(session, cwd))

    async def _folder(self, session: str, cwd: str) -> str:
        return cwd if self._keeper is None else await self._keeper.before_start(session, cwd)

    async def adopt(self, kernel: KernelRecord, *, after: int | None = None) -> bool:
        """Take over a kernel that an earlier daemon held.

        Args:
            kernel: As stored.
            after: Record number from which unfinished work is looked for; None when no run says.

        Returns:
            False when the server does not have it any more; its record stays on disk.
        """
        busy: bool | None = None
        try:
            state = await (await self.server(kernel.session)).kernel(kernel.remote_id)
        except TransientError as error:
            # The server may come back; the link waits for it, and says so if the kernel is gone then.
            log.warning("kernel not checked", extra={"kernel": kernel.id, "reason": error.message})
        else:
            if state is None:
                self._store.delete_kernel(kernel.id)
                self._missed[kernel.session, kernel.purpose, kernel.key] = "it ended while no daemon ran"
                return False
            busy = state.execution_state == "busy"
        hub = self._open(kernel, start=False)
        hub.adopt(after=after, server_says_busy=busy)
        hub.declare_takeover()
        self._tasks.start_soon(self._keep_link, kernel, hub)
        return True

    def _open(self, kernel: KernelRecord, *, start: bool = True) -> HubKernel:
        record = MessageRecord.open(self._records / kernel.id, max_bytes=self._record_bytes)

        upstream = self._upstream(kernel, record, new=start)
        hub = HubKernel(kernel.id, record, upstream, self._clock, self._state_changed)
        self._hubs[kernel.id] = hub
        self._kernels[kernel.id] = kernel
        if (desk := self._desk_of(kernel.session)) is not None:
            hub.set_side(desk)
        if self._keeper is not None:
            self._keeper.opened(kernel, hub, new=start)
        if start:
            self._tasks.start_soon(self._keep_link, kernel, hub)
        return hub

    def _upstream(self, kernel: KernelRecord, record: MessageRecord, *, new: bool) -> Upstream:
        async def endpoint() -> Endpoint:
            return await self._endpoint_of(kernel.session)

        def plain() -> Upstream:
            return WebSocketUpstream(endpoint, kernel.remote_id, kernel.ws_session_id)

        transport = Transport.parse(kernel.identity.get("transport"))
        session = self._store.session(kernel.session)
        agents = self._agents
        if transport is Transport.WEBSOCKET or session is None or agents is None:
            self._transports[kernel.id] = KernelTransport(way="websocket")
            return plain()

        async def tunnel() -> TunnelUpstream:
            return await agents.tunnel(session, kernel.remote_id, lambda: record.last_origin, patient=not new)

        def chosen(way: str, reason: str) -> None:
            self._chosen(kernel.id, way, reason)

        self._transports[kernel.id] = KernelTransport(way="")
        return ChosenUpstream(tunnel, None if transport is Transport.TUNNEL else plain, chosen)

    def _chosen(self, kernel_id: str, way: str, reason: str) -> None:
        """Note how a kernel is reached; one that has left the tunnel does not come back to it."""
        self._transports[kernel_id] = KernelTransport(way=way, reason=reason)
        kernel = self._kernels.get(kernel_id)
        if kernel is None or way == "tunnel":
            return
        identity = {**kernel.identity, "transport": str(Transport.WEBSOCKET)}
        self._kernels[kernel_id] = dataclasses.replace(kernel, identity=identity)
        self._store.put_kernel(self._kernels[kernel_id])

    def _transport_for(self, session_name: str) -> Transport:
        """Return the transport of a new kernel, and begin to start the agent where it is needed."""
        session = self._store.session(session_name)
        if session is None or self._agents is None:
            return Transport.WEBSOCKET
        wanted = self._transport_of(session_name)
        if wanted is Transport.WEBSOCKET:
            return wanted
        self._agents.link(session)
        return wanted

    def agent_view(self, session: Session) -> dict[str, Any] | None:
        """Return what ``status`` shows of a session's agent; None when nobody has asked for one."""
        return self._agents.view(session) if self._agents is not None else None

    def transport(self, kernel_id: str) -> KernelTransport:
        """Return how a kernel is reached."""
        return self._transports.get(kernel_id, KernelTransport(way=""))

    async def _keep_link(self, kernel: KernelRecord, hub: HubKernel) -> None:
        """Task root of one kernel's link."""
        if hub.closed:
            return  # dropped before its link began
        with anyio.CancelScope() as scope:
            self._scopes[kernel.id] = scope
            try:
                await hub.run()
            except ColabBridgeError as error:
                log.warning("link ended", extra={"kernel": kernel.id, "reason": error.message})
                hub.fail(error.message)
            except Exception as error:
                # A defect in one link must not take the other kernels and the daemon with it.
                log.exception("link failed", extra={"kernel": kernel.id})
                hub.fail(f"internal error: {type(error).__name__}")

    def _state_changed(self, hub: HubKernel) -> None:
        kernel = self._kernels.get(hub.id)
        if kernel is not None:
            for listener in self._listeners:
                listener(kernel, hub)

    async def delete(self, kernel_id: str) -> None:
        """End a kernel and forget it; its record stays on disk for ``logs``. A kernel that is gone is no error."""
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        try:
            server = await self.server(kernel.session)
            await server.delete_kernel(kernel.remote_id)
        except (RuntimeLostError, UserError) as error:
            log.info("kernel not deleted on the server", extra={"kernel": kernel_id, "reason": error.message})
        self.drop(kernel_id)

    def drop(self, kernel_id: str) -> None:
        """Forget a kernel without asking its server, because the server or the kernel is gone."""
        kernel = self._kernels.pop(kernel_id, None)
        if kernel is None:
            return
        hub = self._hubs.pop(kernel_id)
        if scope := self._scopes.pop(kernel_id, None):
            scope.cancel()
        hub.end("the kernel was shut down")
        hub.close()
        self._transports.pop(kernel_id, None)
        if self._agents is not None and (session := self._store.session(kernel.session)) is not None:
            self._agents.forget(session, kernel.remote_id)
        self._store.delete_kernel(kernel_id)

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt what a kernel executes, or what waits to be sent to it."""
        kernel = self.kernel(kernel_id)
        if self.hub(kernel_id).interrupt_held():
            return
        await (await self.server(kernel.session)).interrupt_kernel(kernel.remote_id)

    async def restart(self, kernel_id: str) -> None:
        """Restart a kernel; its variables are gone and what it executed has ended."""
        kernel, hub = self.kernel(kernel_id), self.hub(kernel_id)
        with hub.restarting():
            await (await self.server(kernel.session)).restart_kernel(kernel.remote_id)
        if self._keeper is not None:
            self._keeper.restarted(kernel, hub)

    def close(self) -> None:
        """Stop all links and close all records; kernels go on."""
        for scope in self._scopes.values():
            scope.cancel()
        for hub in self._hubs.values():
            hub.close()
