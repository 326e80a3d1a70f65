"""The agent process: who may come in, what runs, and when it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .dispatch import Dispatch
from .folder import Folder, read_json, write_json
from .guard import Caps, DiskUse, rss_bytes
from .lease import SILENCE_S, Holder, Lease
from .peer import ServicePeer
from .preamble import MOST_BYTES, VERSION, Preamble, PreambleError, dump_line
from .service import CallFailure, Peer, Reply, ServerStream, Service, StreamHandler
from .wire import Listener, LocalWire, read_line

__all__ = ["AgentServer", "Identity"]

log = logging.getLogger(__name__)

_GREETING_S = 5.0
_HANDOVER_S = 2.5
_STOP_S = 5.0
_LOOK_EVERY_S = 10.0
_MEASURE_EVERY_S = 60.0
# The answer to the call that ends something goes out first.
_LAST_WORD_S = 0.2
# A daemon that has started an agent and cannot reach it has no other way to end it.
_UNMET_S = 600.0


@dataclass(frozen=True)
class Identity:
    """What this process is.

    Attributes:
        content_hash: Of the bundle that it runs.
        boot_id: Random name of this process.
        started_at: Unix seconds.
    """

    content_hash: str
    boot_id: str
    started_at: float


class AgentServer:
    """Serves one daemon at a time until it is told to end, or nobody needs it.

    Args:
        folder: The agent's, locked by this process.
        identity: What this process is.
        caps: What it may use.
        services: What it offers.
        troubles: A sentence for each thing that is not as it should be.
    """

    def __init__(
        self, folder: Folder, identity: Identity, caps: Caps, services: Sequence[Service], troubles: Sequence[str]
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.caps = caps
        self.troubles = list(troubles)
        self.disk = DiskUse(folder, caps)
        self.services: dict[str, Service] = {"agent": _AgentService(self)}
        self._wanted = list(services)
        self._peers: list[ServicePeer] = []
        self._lease = Lease()
        self._owner = ""
        self._dispatch: Dispatch | None = None
        self._carrying: asyncio.Task[Any] | None = None
        self._greeting = asyncio.Lock()
        self._ended = asyncio.Event()
        self._hints: tuple[float, Mapping[str, str]] = (-1.0, {})
        self._listener = Listener(folder.path, self._accept)

    async def run(self, announce: Callable[[Mapping[str, Any]], None]) -> None:
        """Serve until the end.

        Args:
            announce: Is given the content of ``agent.json`` when connections are accepted.

        Raises:
            OSError: no socket can be had, or the folder cannot be written to.
        """
        self._start_services()
        address = await self._listener.open()
        about = {"v": VERSION, "pid": os.getpid(), "address": address, **self.about()}
        write_json(self.folder.agent_file, about)
        self._handle_signals()
        announce(about)
        watch = asyncio.ensure_future(self._watch())
        try:
            await self._ended.wait()
        finally:
            watch.cancel()
            await self._stop()

    def end(self, why: str) -> None:
        """End the process in an orderly way."""
        log.info("the agent ends", extra={"why": why})
        self._ended.set()

    def release(self) -> None:
        """Give the lease of the daemon that is connected back, and end its channel."""
        self._lease.release(self._owner)
        if self._dispatch is not None:
            self._dispatch.close("the lease was given back")

    def about(self) -> dict[str, Any]:
        """Return what this process is, as ``agent.hello`` and ``agent.json`` tell it."""
        return {
            "agent": self.identity.content_hash,
            "boot_id": self.identity.boot_id,
            "started_at": self.identity.started_at,
            "python": platform.python_version(),
            "host": socket.gethostname(),
        }

    # -- services

    def _start_services(self) -> None:
        loop = asyncio.get_running_loop()
        for service in self._wanted:
            try:
                peer = self._make_peer(service.name, loop)
                service.start(peer)
            except Exception as error:
                # One part that cannot run must not take the others with it.
                log.exception("a service cannot start", extra={"service": service.name})
                self.troubles.append(f"the agent's {service.name} cannot start: {type(error).__name__}: {error}"[:300])
                continue
            self._peers.append(peer)
            self.services[service.name] = service

    def _make_peer(self, name: str, loop: asyncio.AbstractEventLoop) -> ServicePeer:
        return ServicePeer(
            name=name,
            folder=self.folder.service_folder(name),
            loop=loop,
            notify=self._notify,
            hints=self._read_hints,
            disk_room=self.disk.room_bytes,
            linked=self._is_linked,
        )

    def _notify(self, method: str, params: Mapping[str, Any] | None, payload: bytes, bulk: bool) -> bool:
        return self._dispatch is not None and self._dispatch.notify(method, params, payload, bulk=bulk)

    def _read_hints(self) -> Mapping[str, str]:
        path = self.folder.path / "hints.json"
        try:
            changed = path.stat().st_mtime
        except OSError:
            return self._hints[1]
        if changed != self._hints[0]:
            self._hints = (changed, {str(key): str(value) for key, value in read_json(path).items()})
        return self._hints[1]

    # -- connections

    async def _accept(self, wire: LocalWire) -> None:
        line, rest = await asyncio.wait_for(read_line(wire.read, MOST_BYTES), _GREETING_S)
        try:
            preamble = Preamble.from_line(line)
        except PreambleError as error:
            await self._refuse(wire, "malformed", message=str(error))
            return
        if preamble.probe:
            await wire.write(self._welcome())
            await wire.aclose()
            return
        async with self._greeting:
            dispatch = await self._admit(wire, preamble)
        if dispatch is None:
            return
        wire.heard = lambda: self._lease.heard(preamble.owner, time.monotonic())
        await dispatch.pump.carry(wire, rest)
        if dispatch.is_over:
            # A goodbye gives the lease back; after a broken rule the daemon comes again at once.
            self._lease.release(preamble.owner)

    async def _admit(self, wire: LocalWire, preamble: Preamble) -> Dispatch | None:
        now = time.monotonic()
        holder = self._lease.ask(preamble.owner, preamble.label, now, take=preamble.take)
        if holder is not None:
            await self._refuse_held(wire, holder, now)
            return None
        if preamble.want not in ("", self.identity.content_hash):
            await self._refuse(wire, "replaced", agent=self.identity.content_hash, pid=os.getpid())
            self.end(f"{preamble.label} has another version")
            return None
        await self._hand_over(preamble)
        if self._dispatch is None or self._dispatch.is_over:
            self._dispatch = Dispatch(self.services, time.monotonic)
        self._owner = preamble.owner
        self._carrying = asyncio.current_task()
        await wire.write(self._welcome())
        return self._dispatch

    async def _hand_over(self, preamble: Preamble) -> None:
        """End the connection that there is, and everything of its daemon when another one comes."""
        if self._dispatch is not None and self._owner != preamble.owner:
            self._dispatch.close(f"the workspace was taken over by {preamble.label}")
        carrying = self._carrying
        if carrying is None or carrying.done():
            return
        if self._owner == preamble.owner:
            carrying.cancel()
        # It ends by itself after the goodbye, which a dead connection cannot take.
        await asyncio.wait({carrying}, timeout=_HANDOVER_S)
        carrying.cancel()

    def _welcome(self) -> bytes:
        return dump_line({"v": VERSION, "ok": True, "agent": self.identity.content_hash, "pid": os.getpid()})

    async def _refuse_held(self, wire: LocalWire, holder: Holder, now: float) -> None:
        wall = time.time() - now
        await self._refuse(wire, "held", owner_label=holder.label, since=wall + holder.since, heard=wall + holder.heard)

    @staticmethod
    async def _refuse(wire: LocalWire, code: str, **more: Any) -> None:
        await wire.write(dump_line({"v": VERSION, "ok": False, "code": code, **more}))
        await wire.aclose()

    # -- the end

    async def _watch(self) -> None:
        """Look from time to time whether the process is small enough, and needed."""
        loop = asyncio.get_running_loop()
        begun = needed = loop.time()
        measured = float("-inf")
        while True:
            if loop.time() - measured >= _MEASURE_EVERY_S:
                await loop.run_in_executor(None, self.disk.measure)
                measured = loop.time()
            await asyncio.sleep(min(_LOOK_EVERY_S, self.caps.idle_s / 4))
            used = rss_bytes()
            if used is not None and used > self.caps.rss_bytes:
                log.error("the agent uses too much memory", extra={"rss_bytes": used})
                self.end("memory")
            if not self.folder.agent_file.exists():
                self.end("its folder is gone")
            if self._is_needed():
                needed = loop.time()
            if loop.time() - needed >= self.caps.idle_s or (not self._owner and loop.time() - begun >= _UNMET_S):
                self.end("nobody needs it")

    def _is_needed(self) -> bool:
        return self._is_linked() or any(service.busy() for service in self.services.values())

    def _is_linked(self) -> bool:
        return self._dispatch is not None and self._dispatch.pump.channel.is_up

    def _handle_signals(self) -> None:
        if os.name != "posix":
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.end, "SIGTERM")
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    async def _stop(self) -> None:
        if self._dispatch is not None:
            self._dispatch.close("the agent ends")
            await asyncio.sleep(_LAST_WORD_S)
        await self._listener.close()
        await asyncio.gather(*map(self._stop_service, self.services.values()))
        for peer in self._peers:
            peer.close()

    @staticmethod
    async def _stop_service(service: Service) -> None:
        try:
            await asyncio.wait_for(service.stop(), _STOP_S)
        except asyncio.TimeoutError:
            log.warning("a service took too long to stop", extra={"service": service.name})
        except Exception:
            # The others must get their turn.
            log.exception("a service failed to stop", extra={"service": service.name})


class _AgentService:
    """The calls about the process itself."""

    name = "agent"

    def __init__(self, server: AgentServer) -> None:
        self._server = server

    def start(self, peer: Peer) -> None:
        """Nothing to do."""

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """Answer ``hello``, ``limits``, ``release`` or ``stop``."""
        loop = asyncio.get_running_loop()
        if verb == "hello":
            return Reply(self._hello())
        if verb == "limits":
            return Reply(self._limits())
        if verb == "release":
            loop.call_later(_LAST_WORD_S, self._server.release)
            return Reply({})
        if verb == "stop":
            loop.call_later(_LAST_WORD_S, self._server.end, "it was told to")
            return Reply({"pid": os.getpid()})
        raise CallFailure("unknown", f"the agent cannot {verb}"[:100])

    def _hello(self) -> dict[str, Any]:
        server = self._server
        return {
            **server.about(),
            "pid": os.getpid(),
            "folder": str(server.folder.path),
            "free_bytes": server.disk.free_bytes,
            "services": sorted(server.services),
            "degraded": server.troubles[:10],
        }

    def _limits(self) -> dict[str, Any]:
        server = self._server
        return {
            "rss_bytes": server.caps.rss_bytes,
            "rss_now_bytes": rss_bytes(),
            "disk_bytes": server.caps.disk_bytes,
            "disk_used_bytes": server.disk.used_bytes,
            "disk_room_bytes": server.disk.room_bytes(),
            "idle_s": server.caps.idle_s,
            "lease_s": SILENCE_S,
        }

    def open(self, stream: ServerStream) -> StreamHandler:
        """Refuse: there are no streams here."""
        raise CallFailure("unknown", "the agent itself has no streams")

    def busy(self) -> bool:
        """Return that nobody needs this."""
        return False

    async def stop(self) -> None:
        """Nothing to do."""
