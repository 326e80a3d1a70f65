"""Runtimes for sessions: what is asked of their providers, and what those who wait are told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from colab_bridge.config.caller import environment_python
from colab_bridge.errors import AuthError, ColabBridgeError, UserError
from colab_bridge.model.jobs import WaitEnd
from colab_bridge.model.records import Session
from colab_bridge.model.runtime import RuntimeHandle, RuntimeRequest
from colab_bridge.ports.account import AccountProvider
from colab_bridge.ports.clock import Clock
from colab_bridge.ports.provider import RuntimeProvider
from colab_bridge.providers.registry import ProviderRegistry
from colab_bridge.sessions.starts import StartReports, unless_caller_leaves

__all__ = ["Acquirer", "require_meter"]


class Acquirer:
    """Gets runtimes for sessions.

    Args:
        providers: Where they come from.
        clock: Time source.

    Attributes:
        starts: What is said meanwhile.
    """

    def __init__(self, providers: ProviderRegistry, clock: Clock) -> None:
        self._providers = providers
        self._clock = clock
        self._waited: Callable[[WaitEnd], None] = lambda _end: None
        self.starts = StartReports(clock)

    def on_waited(self, listener: Callable[[WaitEnd], None]) -> None:
        """Have it called when a runtime that may be waited for was got, or will not be; not when the caller left."""
        self._waited = listener

    def provider(self, name: str, env: Mapping[str, str]) -> RuntimeProvider:
        """Return a provider for a caller.

        Raises:
            UserError: the caller means other services than this daemon.
        """
        provider = self._providers.get(name)
        if isinstance(provider, AccountProvider):
            provider.require_same_services(env)
        return provider

    async def acquire(self, session: Session, env: Mapping[str, str], budget: float = 0.0) -> RuntimeHandle:
        """Get a runtime for a session; it is given up when the caller hangs up.

        Args:
            session: The session.
            env: The caller's ``COLAB_BRIDGE_*`` variables.
            budget: Compute units that it may use; 0 for any number.

        Raises:
            ColabBridgeError: there is none to be had, or the budget could not be kept.
        """
        provider = self.provider(session.provider, env)
        await require_meter(provider, str(session.options.get("account") or ""), budget)
        began_at = self._clock.time()
        with self.starts.begin(session.project) as report:
            request = dataclasses.replace(_request(session, env), report=report)

            async def acquire() -> RuntimeHandle:
                try:
                    handle = await provider.acquire(request)
                except ColabBridgeError as error:
                    self._tell(session, began_at, problem=error.message)
                    raise
                self._tell(session, began_at, label=handle.label)
                return handle

            return await unless_caller_leaves(acquire)

    def _tell(self, session: Session, began_at: float, *, label: str = "", problem: str = "") -> None:
        if session.options.get("wait_s"):
            now = self._clock.time()
            self._waited(
                WaitEnd(
                    session=session.name,
                    project=session.project,
                    began_at=began_at,
                    ended_at=now,
                    label=label,
                    problem=problem,
                )
            )


async def require_meter(provider: RuntimeProvider, account: str, budget: float) -> None:
    """Refuse a budget that nobody could keep, because what the account uses is not told.

    Args:
        provider: Where the runtime comes from; without an account behind it no budget counts.
        account: Who pays; the account in use when empty.
        budget: Compute units that a session may use; 0 for any number.

    Raises:
        UserError: the balance or the rate is not known now.
        AuthError: there is no sign-in for the account.
    """
    if budget <= 0 or not isinstance(provider, AccountProvider):
        return
    try:
        balance = await provider.balance(account)
        known = balance.rate_hourly is not None and (balance.units is not None or balance.free_units is not None)
        why = "" if known else "Colab does not tell it"
    except AuthError:
        raise
    except ColabBridgeError as error:
        why = error.message
    if why:
        raise UserError(
            f"what the account uses is not known, so a budget of {budget:g} compute units cannot be kept: {why}",
            hint="try again later, or go on without a limit: add --no-budget",
            code="CB-USER-BUDGET",
        )


def _request(session: Session, env: Mapping[str, str]) -> RuntimeRequest:
    """Return what a provider is asked for; the caller's active environment is a wish that no option expresses."""
    options = {key: value for key, value in session.options.items() if key != "runtime"}
    if session.provider == "local" and (python := environment_python(env)):
        options["env_python"] = python
    return RuntimeRequest(session=session.name, project=session.project, options=options)
