"""Sessions: found or made for a project, stopped, taken over from an earlier daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from colab_bridge.config.paths import Paths
from colab_bridge.config.settings import Settings, load_settings
from colab_bridge.errors import ColabBridgeError, RuntimeLostError, UserError
from colab_bridge.model.account import AccountRuntime
from colab_bridge.model.records import KernelRecord, Run, Session, SessionState
from colab_bridge.model.runtime import Endpoint, RuntimeHandle
from colab_bridge.ports.account import AccountProvider
from colab_bridge.ports.clock import Clock
from colab_bridge.providers.registry import ProviderRegistry
from colab_bridge.sessions.acquirer import Acquirer, require_meter
from colab_bridge.sessions.kernels import KernelPool
from colab_bridge.sessions.reaching import check, renewable, verify
from colab_bridge.sessions.targets import LIMITS, SessionWish, Target, same_wish, session_slug, unique_name
from colab_bridge.sessions.transports import Transport
from colab_bridge.store.store import Store

__all__ = ["SessionService"]

log = logging.getLogger(__name__)


class SessionService:
    """The sessions of this machine.

    Args:
        store: Where sessions are remembered.
        providers: Where runtimes come from.
        paths: Our folders.
        clock: Time source.

    Attributes:
        notices: Sentences about what was found or lost.
        acquirer: Gets the runtimes.
    """

    def __init__(self, store: Store, providers: ProviderRegistry, paths: Paths, clock: Clock) -> None:
        self._store = store
        self._providers = providers
        self._paths = paths
        self._clock = clock
        self._locks: dict[str, anyio.Lock] = {}
        self._transports: dict[str, Transport] = {}
        self._answers: Callable[[str], bool] = lambda _name: False
        self._connected: Callable[[str], bool] = lambda _name: False
        self._replaced: Callable[[str], Awaitable[None]] = _nobody_minds
        self.notices: list[str] = []
        self.acquirer = Acquirer(providers, clock)
        self._learn: Callable[[Mapping[str, str]], None] = lambda _env: None

    def ask_first(self, answers: Callable[[str], bool], connected: Callable[[str], bool]) -> None:
        """Have it asked before a runtime is.

        Args:
            answers: By session name: where it is true, the runtime lives.
            connected: Likewise: where it is true, there is a link to it that has not broken.
        """
        self._answers, self._connected = answers, connected

    def on_replaced(self, listener: Callable[[str], Awaitable[None]]) -> None:
        """Have ``listener(session name)`` called when a runtime has gone, before the session gets another one."""
        self._replaced = listener

    def on_caller(self, learn: Callable[[Mapping[str, str]], None]) -> None:
        """Have ``learn(variables)`` called with what each caller brings, before anything is done for it."""
        self._learn = learn

    # -- looking up ------------------------------------------------------------------------------------------

    def session(self, name: str) -> Session:
        """Return a session by name.

        Raises:
            UserError: there is none.
        """
        session = self._store.session(name)
        if session is None:
            known = ", ".join(s.name for s in self._store.sessions()) or "none"
            raise UserError(
                f"no session is called '{name}' (known: {known})",
                hint=f"colab-bridge new -s {name}",
                code="CB-USER-022",
            )
        return session

    def sessions(self, project: str | None = None) -> list[Session]:
        """Return all sessions, or those of one project."""
        return self._store.sessions(project)

    def settings(self, project: str, env: Mapping[str, str], flags: Mapping[str, Any] | None = None) -> Settings:
        """Resolve the settings of a project for one caller.

        Args:
            project: Absolute path of its root.
            env: The caller's ``COLAB_BRIDGE_*`` variables.
            flags: Values given on the command line, by dotted key.
        """
        return load_settings(self._paths, Path(project), dict(env), dict(flags or {})).settings

    def transport(self, name: str) -> Transport:
        """Return which transport new kernels of a session are to have, as the latest caller's settings say."""
        return self._transports.get(name, Transport.AUTO)

    async def endpoint(self, name: str) -> Endpoint:
        """Return the way in to the runtime of a session, asking its provider; one that expires can be renewed.

        Raises:
            RuntimeLostError: the runtime is gone.
        """
        session = self.session(name)
        if session.handle is None:
            raise RuntimeLostError(f"session {name} has no runtime", hint=f"colab-bridge stop {name}")
        provider, handle = self._providers.get(session.provider), session.handle
        endpoint = await provider.attach(handle)
        return renewable(provider, handle, endpoint)

    # -- life ------------------------------------------------------------------------------------------------

    async def ensure(self, wish: SessionWish, *, create_named: bool = False, choose: bool = False) -> Session:
        """Return a session whose runtime answers, making one where that is what the caller means.

        Without a name it is the project's session on the runtime asked for, which is made when there is none. Where
        nothing is asked for, it is the one that the user has asked for last. A named session must exist, unless
        ``create_named``.

        Args:
            wish: What the caller says about it.
            create_named: Make the named session; it must not exist.
            choose: The user asks for this very session, so that it is the one for what asks for nothing.

        Raises:
            UserError: the name is unknown, taken or not allowed.
        """
        self._learn(wish.env)
        settings = self.settings(wish.project, wish.env)
        known = None if create_named and wish.name else self._named_or_chosen(wish)
        if known is not None:
            session = await self._ready(await self._with_limits(known, wish.options), wish.env)
        else:
            session = await self._find_or_make(wish.target(settings), wish.project, wish.name, wish.env)
        self._transports[session.name] = Transport(settings.transport)
        if choose:
            session = dataclasses.replace(session, chosen_at=self._clock.time())
            self._store.put_session(session)
        return session

    def _named_or_chosen(self, wish: SessionWish) -> Session | None:
        """Return the session that a wish names or, where it asks for nothing, the one asked for last.

        None where there is none, and where the request or the caller's environment asks for a runtime.

        Raises:
            UserError: no session has that name.
        """
        if wish.name:
            return self.session(wish.name)
        if wish.names_runtime:
            return None
        asked = [session for session in self._store.sessions(wish.project) if session.chosen_at]
        return max(asked, key=lambda session: session.chosen_at, default=None)

    async def is_held(self, wish: SessionWish) -> bool:
        """Return whether :meth:`ensure` would get no machine that costs.

        Raises:
            ColabBridgeError: as for :meth:`ensure`.
        """
        self._learn(wish.env)
        pays, _, session = self._meant(wish)
        found = self._providers.get(pays)
        if not isinstance(found, AccountProvider):
            return True
        if session is None or session.handle is None:
            return False
        try:
            await found.attach(session.handle)
        except RuntimeLostError:
            return False
        return True

    def payer(self, wish: SessionWish) -> str | None:
        """Return whose account :meth:`ensure` would spend from.

        Returns:
            What the session or the settings name, empty for the account in use; None where no account pays.

        Raises:
            UserError: no session has that name.
        """
        pays, account, _ = self._meant(wish)
        return account if isinstance(self._providers.get(pays), AccountProvider) else None

    def _meant(self, wish: SessionWish) -> tuple[str, str, Session | None]:
        """Return provider, account as far as one is named, and the session if there is one; see :meth:`ensure`."""
        session = self._named_or_chosen(wish)
        if session is not None:
            return session.provider, session.account or str(session.options.get("account") or ""), session
        settings = self.settings(wish.project, wish.env)
        target = wish.target(settings)
        account = str(target.options.get("account") or settings.account)
        return target.provider, account, self._default_on(target, wish.project)

    async def _find_or_make(self, target: Target, project: str, name: str | None, env: Mapping[str, str]) -> Session:
        async with self._lock(f"project:{project}"):
            if name:
                self._check_new_name(name)
                return await self._make(name, project, target, env, default=False)
            if (own := self._default_on(target, project)) is not None:
                return await self._ready(await self._with_limits(own, target.options), env)
            taken = {session.name for session in self._store.sessions()}
            name = unique_name(session_slug(project, target.runtime), taken)
            return await self._make(name, project, target, env, default=True)

    def _default_on(self, target: Target, project: str) -> Session | None:
        """Return the project's own session on a target; None when there is none yet."""
        own = (session for session in self._store.sessions(project) if session.default)
        return next((session for session in own if _same_target(session, target)), None)

    def _budget(self, session: Session, env: Mapping[str, str]) -> float:
        asked = session.options.get("budget")
        return float(asked) if asked is not None else self.settings(session.project, env).colab.budget

    async def _with_limits(self, session: Session, options: Mapping[str, Any]) -> Session:
        """Take the limits that a new request sets for a session that is there.

        Raises:
            UserError: a budget among them could not be kept.
        """
        limits = {key: value for key, value in options.items() if key in LIMITS}
        if not limits or limits.items() <= session.options.items():
            return session
        provider = self._providers.get(session.provider)
        await require_meter(provider, session.account, float(limits.get("budget") or 0.0))
        session = dataclasses.replace(session, options={**session.options, **limits})
        self._store.put_session(session)
        return session

    def _check_new_name(self, name: str) -> None:
        allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
        if not name or len(name) > 60 or not set(name.lower()) <= allowed or name.startswith(("-", ".")):
            raise UserError(
                f"'{name[:80]}' is no session name", hint="use letters, digits, '-', '_' and '.'", code="CB-USER-023"
            )
        if self._store.session(name):
            raise UserError(
                f"a session called '{name}' exists already",
                hint=f"use it with -s {name}, or: colab-bridge stop {name}",
                code="CB-USER-024",
            )

    async def _make(self, name: str, project: str, target: Target, env: Mapping[str, str], *, default: bool) -> Session:
        provider = self._providers.get(target.provider)
        session = Session(
            name=name,
            project=project,
            provider=target.provider,
            default=default,
            options={**target.options, "runtime": target.runtime},
            created_at=self._clock.time(),
        )
        handle = await self.acquirer.acquire(session, env, self._budget(session, env))
        session = dataclasses.replace(session, handle=handle, state=SessionState.READY)
        self._store.put_session(session)
        try:
            await check(self._providers.get(session.provider), handle)
        except BaseException:
            # Nothing may stay behind that nobody can see: neither a machine nor a session that never worked.
            with anyio.CancelScope(shield=True), anyio.move_on_after(10):
                await provider.release(handle)
            self._store.delete_session(name)
            raise
        self._notice_from(handle)
        return session

    async def _ready(self, session: Session, env: Mapping[str, str]) -> Session:
        async with self._lock(f"session:{session.name}"):
            if session.handle is not None:
                # A kernel on this machine is reached past its server, which it may outlive for a moment; asking the
                # provider costs nothing here.
                if session.handle.here is None and self._answers(session.name):
                    return session
                try:
                    provider = self.acquirer.provider(session.provider, env)
                    await verify(provider, session.handle, connected=self._connected(session.name))
                    return session
                except RuntimeLostError as error:
                    log.warning("runtime lost", extra={"session": session.name, "reason": error.message})
            return await self._replace_runtime(session, env)

    async def _replace_runtime(self, session: Session, env: Mapping[str, str]) -> Session:
        """Get a new runtime for a session whose own is gone; its kernels' variables are gone with it."""
        provider = self._providers.get(session.provider)
        await self._replaced(session.name)
        if session.handle is not None:
            # What is left of the old one: kernels without their server, its folder.
            with contextlib.suppress(ColabBridgeError):
                await provider.release(session.handle)
        handle = await self.acquirer.acquire(session, env, self._budget(session, env))
        renewed = dataclasses.replace(session, handle=handle, state=SessionState.READY)
        self._store.put_session(renewed)
        self.notices.append(
            f"the runtime of session {session.name} was gone and has been started anew; its variables are lost"
        )
        return renewed

    async def stop(self, name: str, pool: KernelPool) -> int:
        """End a session: its kernels, then its runtime.

        Returns:
            How many kernels were ended.
        """
        session = self.session(name)
        kernels = pool.kernels(name)
        for kernel in kernels:
            try:
                with anyio.fail_after(15):
                    await pool.delete(kernel.id)
            except (ColabBridgeError, TimeoutError) as error:
                log.warning("kernel not ended", extra={"kernel": kernel.id, "reason": str(error)})
                pool.drop(kernel.id)
        await pool.forget_session(session)
        if session.handle is not None:
            await self._providers.get(session.provider).release(session.handle)
        self._store.delete_session(name)
        return len(kernels)

    def held(self) -> frozenset[str]:
        """Return the ids of the runtimes that sessions hold."""
        return frozenset(session.handle.id for session in self._store.sessions() if session.handle is not None)

    def holder(self, runtime: str) -> Session | None:
        """Return the session that holds a runtime; None when nobody does."""
        return next((each for each in self._store.sessions() if each.handle and each.handle.id == runtime), None)

    async def adopt(
        self, runtime: str, project: str, name: str | None, env: Mapping[str, str], *, account: str = ""
    ) -> Session:
        """Make a session of a runtime that the account has, whoever opened it.

        Args:
            runtime: The provider's id of it.
            project: Absolute path of the project's root.
            name: Session name; one after the project when omitted.
            env: The caller's ``COLAB_BRIDGE_*`` variables.
            account: Whose it is; the account in use when empty.

        Raises:
            RuntimeLostError: the account has no such runtime.
            UserError: a session holds it already, or the name is taken.
        """
        self._learn(env)
        if (holder := self.holder(runtime)) is not None:
            raise UserError(
                f"session {holder.name} holds that runtime already", hint=f"use it: colab-bridge exec -s {holder.name}"
            )
        provider = self._providers.accounts()[0]
        provider.require_same_services(env)
        if name:
            self._check_new_name(name)
        handle = await provider.adopt(runtime, account)
        taken = {session.name for session in self._store.sessions()}
        session = Session(
            name=name or unique_name(session_slug(project, provider.name), taken),
            project=project,
            provider=provider.name,
            options={"runtime": provider.name},
            created_at=self._clock.time(),
            chosen_at=self._clock.time(),
            handle=handle,
            state=SessionState.READY,
        )
        await check(provider, handle)  # it is not ours: what does not answer is left as it is
        self._store.put_session(session)
        return session

    async def reconcile(self) -> list[AccountRuntime]:
        """Release the runtimes that we asked for and no session holds, and say so; errors become notices."""
        released: list[AccountRuntime] = []
        for provider in self._providers.accounts():
            try:
                released += await provider.reconcile(self.held())
            except ColabBridgeError as error:
                self.notices.append(f"runtimes that nobody holds were not looked for: {error.message}; {error.hint}")
        for runtime in released:
            self.notices.append(f"the {runtime.hardware} runtime {runtime.id} was held by nobody and was released")
        return released

    async def recover(self, pool: KernelPool, unfinished: list[Run]) -> list[KernelRecord]:
        """Take over what an earlier daemon left: every kernel that its server still has.

        Args:
            pool: Gets the kernels.
            unfinished: Runs that had not ended; they tell from where records must be read.

        Returns:
            The kernels that live.
        """
        adopted: list[KernelRecord] = []

        async def take(kernel: KernelRecord) -> None:
            first = min((run.first_seq for run in unfinished if run.kernel == kernel.id), default=None)
            if await self._adopt(pool, kernel, first):
                adopted.append(kernel)

        async with anyio.create_task_group() as tasks:
            for session in self._store.sessions():
                for kernel in self._store.kernels(session.name):
                    tasks.start_soon(take, kernel)
        return adopted

    async def _adopt(self, pool: KernelPool, kernel: KernelRecord, first_seq: int | None) -> bool:
        try:
            return await pool.adopt(kernel, after=first_seq)
        except RuntimeLostError:
            self._store.delete_kernel(kernel.id)
            return False
        except ColabBridgeError as error:
            self.notices.append(f"kernel {kernel.id} of session {kernel.session}: {error.message}")
            return False

    def _lock(self, key: str) -> anyio.Lock:
        return self._locks.setdefault(key, anyio.Lock())

    def _notice_from(self, handle: RuntimeHandle) -> None:
        notice = handle.data.get("notice")
        if notice and notice not in self.notices:
            self.notices.append(str(notice))


async def _nobody_minds(_name: str) -> None:
    """Stand in where nobody listens."""


def _same_target(session: Session, target: Target) -> bool:
    return (
        session.provider == target.provider
        and session.options.get("runtime") == target.runtime
        and same_wish(session.options, target.options)
    )
