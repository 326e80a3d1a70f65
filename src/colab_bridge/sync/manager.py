"""The pairs of folders of this daemon: made when a session needs one, kept in step, closed with their session."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.abc

from colab_bridge._util.ids import new_id
from colab_bridge.agent.sync.budget import Budget
from colab_bridge.agent.sync.names import shown
from colab_bridge.config.schema import SyncSettings
from colab_bridge.errors import ColabBridgeError, ConflictError, TransientError, UserError
from colab_bridge.kernels.agent_link import AgentLink
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.model.records import KernelRecord, Run, RunKind, Session
from colab_bridge.ports.clock import Clock
from colab_bridge.ports.upstream import LinkState
from colab_bridge.sessions.agent_access import workspace_id
from colab_bridge.sessions.agents import Agents
from colab_bridge.sessions.service import SessionService
from colab_bridge.sync.barrier import SETUP_PREFIX, KernelBarrier
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.contents import ContentsCaller, has_contents
from colab_bridge.sync.continuous import keep_in_step
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.failures import SyncFailure
from colab_bridge.sync.inprocess import InProcessCaller
from colab_bridge.sync.link import LinkCaller
from colab_bridge.sync.local import LocalOptions, LocalSide
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.reloading import folder_code, reloading_code
from colab_bridge.sync.remote import Caller, RemoteFiles
from colab_bridge.sync_core.model import Side
from colab_bridge.wire.message import RawMessage

__all__ = ["SyncManager", "syncs"]

log = logging.getLogger(__name__)

_MIB = 2**20
_AGENT_WAIT_S = 30.0
_SWITCH = "COLAB_BRIDGE_SYNC__ENABLED"
_FOLDER_ON_SERVER = "colab-bridge"


@dataclass(slots=True)
class _Pair:
    """One session's pair, or why there is none."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    controller: SyncController | None = None
    reason: str = ""
    project: str = ""
    settings: SyncSettings | None = None
    plain: ContentsCaller | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)
    dirty: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Shared:
    """One project's own side, and the sessions that use it."""

    side: LocalSide
    sessions: set[str] = field(default_factory=set)


def syncs(session: Session, settings: SyncSettings) -> bool:
    """Return whether the folders of a session are kept in step: not where its kernels work in the project itself."""
    return settings.enabled and (session.provider != "local" or bool(session.options.get("isolated")))


class SyncManager:
    """See the module.

    Args:
        sessions: Where sessions and their settings come from.
        agents: The links to the runtimes.
        folder: State of all pairs; made 0700 when absent.
        clock: Time source.
        tasks: Owner of the tasks that keep pairs in step.
        env: The daemon's own ``COLAB_BRIDGE_*`` variables.
    """

    def __init__(
        self,
        sessions: SessionService,
        agents: Agents,
        folder: Path,
        clock: Clock,
        tasks: anyio.abc.TaskGroup,
        env: Callable[[], Mapping[str, str]],
    ) -> None:
        self._sessions = sessions
        self._agents = agents
        self._folder = folder
        self._clock = clock
        self._tasks = tasks
        self._env = env
        self._pairs: dict[str, _Pair] = {}
        self._locals: dict[str, _Shared] = {}
        self._barriers: WeakValueDictionary[str, KernelBarrier] = WeakValueDictionary()
        self._open_lock = anyio.Lock()
        self._stale_runs: set[str] = set()

    # -- for the kernels ---------------------------------------------------------------------------------------------

    async def before_start(self, session_name: str, cwd: str) -> str:
        """Bring the files up before a kernel starts, so that its folder is there.

        Args:
            session_name: Session.
            cwd: Working folder relative to the project.

        Returns:
            The folder for the server, relative to the server's root.
        """
        session = self._sessions.session(session_name)
        if not syncs(session, self.settings(session)):
            return cwd
        try:
            controller = await self.pair(session_name)
            if controller is not None and not controller.paused:
                await controller.first_sync()
        except (SyncFailure, ColabBridgeError) as error:
            # The run says it, or is refused: its barrier meets the same fault.
            log.warning("first sync failed", extra={"session": session_name, "reason": str(error)[:200]})
        return "/".join(part for part in (self._prefix(session), cwd) if part)

    def opened(self, kernel: KernelRecord, hub: HubKernel, *, new: bool) -> None:
        """Set the barrier of a kernel that the pool holds now."""
        session = self._sessions.session(kernel.session)
        settings = self.settings(session)
        if not syncs(session, settings):
            return
        if new:
            self._set_up(session, kernel, hub)

        async def controller() -> SyncController | None:
            return await self.pair(kernel.session)

        def allow_stale(run: str) -> bool:
            return run in self._stale_runs or self.settings(session).allow_stale

        barrier = KernelBarrier(kernel, hub, controller, allow_stale)
        self._barriers[kernel.id] = barrier
        hub.set_barrier(barrier)

    def restarted(self, kernel: KernelRecord, hub: HubKernel) -> None:
        """Set a kernel up that was restarted on purpose."""
        session = self._sessions.session(kernel.session)
        if syncs(session, self.settings(session)):
            self._set_up(session, kernel, hub)

    def _set_up(self, session: Session, kernel: KernelRecord, hub: HubKernel) -> None:
        if kernel.language != "python":
            return
        code = ""
        if session.handle is not None and session.handle.served is not None and session.handle.root is not None:
            code = folder_code(str(PurePosixPath(session.handle.root) / kernel.cwd))
        if self.settings(session).autoreload:
            code += reloading_code(self._root_there(session.name), kernel.cwd)
        if code:
            self._run_silently(hub, code)

    def _root_there(self, session_name: str) -> str:
        """Return where the workspace lies on the runtime; empty where only kernels know."""
        pair = self._pairs.get(session_name)
        if pair is None or pair.controller is None or pair.plain is not None:
            return ""
        info = pair.controller.remote.info
        return info.root if info is not None else ""

    @staticmethod
    def _run_silently(hub: HubKernel, code: str) -> None:
        content = {
            "code": code,
            "silent": True,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message_id = new_id(SETUP_PREFIX.rstrip("-"))
        hub.submit(RawMessage.build("shell", "execute_request", content, msg_id=message_id, session=message_id))

    async def session_ended(self, session_name: str) -> None:
        """Close the pair of a session that is stopped; what is remembered stays."""
        pair = self._pairs.pop(session_name, None)
        if pair is not None:
            async with pair.lock:
                await self._close(session_name, pair)

    # -- for the runs ------------------------------------------------------------------------------------------------

    def began(self, run: Run, *, resumed: bool) -> None:
        """Leave a notebook where it is while its outputs are being written; nobody there needs it."""
        if run.spec.get("allow_stale") is True:
            self._stale_runs.add(run.id)
        pair = self._pairs.get(run.session)
        path = _notebook_of(run, pair)
        if pair is not None and pair.controller is not None and path is not None:
            pair.controller.resting.add(path)
            pair.controller.hushed.add(path)

    def message(self, run_id: str, message: RawMessage) -> None:
        """Nothing to do for a message of a run."""

    def answered(self, run_id: str) -> None:
        """Nothing to do for an answer."""

    def ended(self, run: Run, outcome: object) -> None:
        """Say what travelled for a run, and let its notebook go up."""
        self._stale_runs.discard(run.id)
        pair = self._pairs.get(run.session)
        controller = pair.controller if pair is not None else None
        barrier = self._barriers.get(run.kernel)
        if barrier is not None:
            barrier.run_ended(run.id, controller.hushed if controller is not None else ())
        if pair is not None and controller is not None and (path := _notebook_of(run, pair)) is not None:
            controller.resting.discard(path)
            pair.dirty.set()

    # -- single files ------------------------------------------------------------------------------------------------

    def session(self, name: str) -> Session:
        """Return a session by name.

        Raises:
            UserError: there is none.
        """
        return self._sessions.session(name)

    async def files(self, name: str) -> tuple[Caller, str]:
        """Return the way to single files of a session, and the folder against which relative paths are meant.

        Raises:
            ColabBridgeError: the runtime cannot be reached, or no agent can be had there.
        """
        session = self._sessions.session(name)
        if session.provider == "local" and not session.options.get("isolated"):
            # Its kernels work in the project on this machine: no agent is needed for that.
            return InProcessCaller(self._folder / "here", Path(session.project)), session.project
        known = self._pairs.get(name)
        if known is not None and known.plain is not None:
            return known.plain, known.plain.mirror
        link = self._agents.link(session)
        status = await link.ready(_AGENT_WAIT_S)
        if status.held_by:
            raise held_elsewhere(status.held_by)
        if status.state is not LinkState.CONNECTED:
            reason = status.text or "the agent does not answer"
            raise TransientError(f"the files on the runtime cannot be reached: {reason}", hint="colab-bridge status")
        pair = self._pairs.get(name)
        info = pair.controller.remote.info if pair is not None and pair.controller is not None else None
        return LinkCaller(link), info.root if info is not None else self._root(session)

    # -- pairs -------------------------------------------------------------------------------------------------------

    def settings(self, session: Session) -> SyncSettings:
        """Return the settings of a session's sync, as they are now."""
        try:
            return self._sessions.settings(session.project, self._env()).sync
        except UserError:
            return SyncSettings()

    def must_sync(self, session: Session) -> None:
        """Say why nothing of a session is synced, where that is so.

        Raises:
            UserError: it works in the project folder itself, or its sync is switched off.
        """
        settings = self.settings(session)
        if syncs(session, settings):
            return
        if settings.enabled:
            raise UserError(
                f"session {session.name} works in the project folder itself: there is nothing to sync",
                hint="A runtime with a folder of its own: colab-bridge new --isolated",
            )
        hint = "colab-bridge config set sync.enabled true"
        if self._env().get(_SWITCH):
            hint = (
                f"The daemon was started with {_SWITCH} in its environment: unset it, then colab-bridge daemon restart"
            )
        raise UserError(f"the sync of session {session.name} is switched off", hint=hint)

    def reason(self, session_name: str) -> str:
        """Return why a session is not synced; empty when it is, or when nobody has asked yet."""
        pair = self._pairs.get(session_name)
        return pair.reason if pair is not None else ""

    def workspace(self, session_name: str) -> str:
        """Return where the files are on the runtime, for people."""
        pair = self._pairs.get(session_name)
        if pair is not None and pair.plain is not None:
            return f"{pair.plain.folder or '.'} in the server's own folder"
        return self._root_there(session_name)

    def progress(self, session_name: str) -> dict[str, tuple[int, int]]:
        """Return (bytes done, bytes in all) of large files under way, by path."""
        pair = self._pairs.get(session_name)
        return dict(pair.progress) if pair is not None else {}

    async def pair(self, session_name: str) -> SyncController | None:
        """Return the controller of a session, made when there is none; None where no agent can be had.

        Raises:
            ColabBridgeError: the folder cannot be synced, or the agent does not answer now.
        """
        session = self._sessions.session(session_name)
        pair = self._pairs.setdefault(session_name, _Pair())
        async with pair.lock:
            settings = self.settings(session)
            if pair.controller is None:
                await self._open(session, settings, pair)
            elif pair.settings != settings:
                pair.controller.options = _options(settings)
                await pair.controller.local.do(pair.controller.local.use, _local_options(settings))
            pair.settings = settings
            return pair.controller

    async def _open(self, session: Session, settings: SyncSettings, pair: _Pair) -> None:
        link = self._agents.link(session)
        status = await link.ready(_AGENT_WAIT_S)
        caller: Caller = LinkCaller(link)
        if status.mode == "none" and status.state is LinkState.GONE:
            pair.reason = status.text or "no agent can be had on this runtime"
            pair.plain = await self._plain_files(session)
            if pair.plain is None:
                return
            caller = pair.plain
        elif status.held_by:
            raise held_elsewhere(status.held_by)
        elif status.state is not LinkState.CONNECTED:
            raise TransientError(
                f"the files on the runtime cannot be reached: {status.text or 'the agent does not answer'}",
                hint="colab-bridge status",
            )
        local = await self._local(session, settings)
        store = await local.do(SyncStore, local.state / f"pair-{session.name}.db", self._clock.time())
        away = session.provider != "local"
        remote = RemoteFiles(caller, root=self._root(session), key=local.key, packs=away)
        controller = SyncController(
            session.name, local, remote, store, self._clock, _options(settings), _teller(pair.progress)
        )
        link.on_notify("files.", lambda *_: pair.dirty.set())
        pair.controller, pair.reason, pair.project = controller, "", session.project
        self._tasks.start_soon(self._keep, session.name, pair, link)

    async def _plain_files(self, session: Session) -> ContentsCaller | None:
        """Return the way through the server's own file API; None where there is none."""
        server = JupyterServer(await self._sessions.endpoint(session.name))
        if not await has_contents(server):
            await server.aclose()
            return None
        return ContentsCaller(server, self._prefix(session), self._state(session) / f"plain-{session.name}")

    def _state(self, session: Session) -> Path:
        return self._folder / hashlib.sha256(os.fsencode(session.project)).hexdigest()[:16]

    async def _local(self, session: Session, settings: SyncSettings) -> LocalSide:
        async with self._open_lock:
            shared = self._locals.get(session.project)
            if shared is None:
                options = _local_options(settings)
                side = await anyio.to_thread.run_sync(
                    LocalSide, Path(session.project), self._state(session), self._clock, options
                )
                shared = self._locals[session.project] = _Shared(side)
            shared.sessions.add(session.name)
            return shared.side

    async def _keep(self, session_name: str, pair: _Pair, link: AgentLink) -> None:
        """Task root: keep one pair in step. A defect in it must not end the daemon."""
        assert pair.controller is not None
        with pair.scope:
            try:
                await keep_in_step(pair.controller, pair.dirty)
            except Exception:
                log.exception("continuous sync ended", extra={"session": session_name})

    async def _close(self, session_name: str, pair: _Pair) -> None:
        pair.scope.cancel()
        controller, pair.controller = pair.controller, None
        if controller is None:
            return
        plain, pair.plain = pair.plain, None
        if plain is not None:
            await plain.aclose()
        async with self._open_lock:
            async with controller.local.lock:
                await controller.local.do(controller.store.close)
            shared = self._locals.get(pair.project)
            if shared is not None:
                shared.sessions.discard(session_name)
                if not shared.sessions:
                    del self._locals[pair.project]
                    await shared.side.aclose()

    async def aclose(self) -> None:
        """Close all pairs, when the daemon ends."""
        with anyio.CancelScope(shield=True):
            for name, pair in list(self._pairs.items()):
                with suppress(ColabBridgeError, OSError):
                    await self._close(name, pair)
            self._pairs.clear()

    # -- where the workspace is --------------------------------------------------------------------------------------

    def _prefix(self, session: Session) -> str:
        """Folder of the workspace relative to the server's root; empty where the server's root is the workspace."""
        if session.handle is not None and session.handle.root is not None:
            return session.handle.start_folder
        return f"{_FOLDER_ON_SERVER}/{workspace_id(session)}"

    def _root(self, session: Session) -> str:
        """What the agent is told: the provider's folder for the project, or one of ours in the server's root."""
        own = session.handle.root if session.handle is not None else None
        return own or self._prefix(session)


def held_elsewhere(holder: str) -> ConflictError:
    """Return the error for a workspace that another daemon keeps in step with a folder of its own (S10)."""
    return ConflictError(
        f"the workspace on the runtime is in use by {shown(holder)}",
        hint="Stop Colab Bridge there; two minutes after its last word the workspace is free.",
    )


def _notebook_of(run: Run, pair: _Pair | None) -> str | None:
    """Return the notebook that a run writes, relative to the project; None where it writes none there."""
    part = run.spec.get("notebook")
    if run.kind is not RunKind.NOTEBOOK or not isinstance(part, Mapping) or pair is None:
        return None
    try:
        target = Path(str(part.get("output_path") or part.get("path") or ""))
        return target.relative_to(pair.project).as_posix()
    except ValueError:
        return None


def _local_options(settings: SyncSettings) -> LocalOptions:
    budget = Budget(
        file=settings.max_file_mb * _MIB,
        git_file=settings.max_ignored_file_mb * _MIB,
        git_total=settings.max_ignored_total_mb * _MIB,
    )
    return LocalOptions(strict=settings.respect_gitignore, budget=budget)


def _options(settings: SyncSettings) -> PairOptions:
    return PairOptions(
        winner=Side(settings.prefer),
        trust=settings.review == "trust",
        barrier_bytes=settings.barrier_mb * _MIB,
        may_execute=settings.allow_remote_exec,
    )


def _teller(progress: dict[str, tuple[int, int]]) -> Callable[[str, int, int], Any]:
    def tell(path: str, done: int, size: int) -> None:
        progress[path] = (done, size)
        if done >= size:
            progress.pop(path, None)

    return tell
