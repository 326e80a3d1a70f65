"""Access tokens that callers bring in ``COLAB_BRIDGE_ACCESS_TOKEN``: remembered in memory only."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

import anyio

from colab_bridge.credentials.failures import missing_error
from colab_bridge.credentials.scopes import missing_scopes
from colab_bridge.credentials.service import SignInService
from colab_bridge.errors import AuthError, TransientError, UserError
from colab_bridge.model.credentials import AccessToken
from colab_bridge.model.runtime import Secret
from colab_bridge.ports.clock import Clock

__all__ = ["TOKEN_VARIABLE", "CallerTokens"]

TOKEN_VARIABLE: Final = "COLAB_BRIDGE_ACCESS_TOKEN"  # noqa: S105  # the name of a variable
#: Seconds until the sign-in service is asked again about a token when it did not answer.
_ASK_AGAIN_S: Final = 60.0
#: A token that cannot be renewed is tried once more after this pause: one refusal may be the service's own trouble.
_BLIP_PAUSE_S: Final = 0.5
#: A refusal within so many seconds of the one before is not the first one.
_BLIP_S: Final = 5.0
_MAX_KEPT: Final = 16


@dataclass(slots=True)
class _Given:
    token: AccessToken
    known: bool = False
    valid: bool = True
    ask_at: float = 0.0
    refused_at: float = -math.inf


class CallerTokens:
    """The tokens of all callers.

    Which one belongs to the request that is being answered follows the task: :meth:`learn` in a request holds for
    everything that this request starts.

    Args:
        clock: Time source.
        pause: Waits some seconds.
    """

    def __init__(self, clock: Clock, pause: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        self._clock = clock
        self._pause = pause
        self._given: dict[str, _Given] = {}
        self._lock = anyio.Lock()
        # Of one instance, so that two of them in a process do not mix; it lives as long as the process does.
        self._of_task: ContextVar[str | None] = ContextVar("access token of the caller")
        self._default: str | None = None

    def learn(self, env: Mapping[str, str], *, default: bool = False) -> None:
        """Take what a caller's environment says.

        Args:
            env: The caller's variables.
            default: Whether it holds wherever no caller is known: for the environment of this process itself.
        """
        value = env.get(TOKEN_VARIABLE, "").strip() or None
        if value is not None:
            given = self._given.pop(value, None) or _Given(AccessToken(value=Secret(value), source=TOKEN_VARIABLE))
            self._given[value] = given
            while len(self._given) > _MAX_KEPT:
                del self._given[next(iter(self._given))]
        if default:
            self._default = value
        else:
            self._of_task.set(value)

    async def look(self, service: SignInService) -> None:
        """Ask once whose the token of the present caller is; without an answer it stays unknown for a while.

        Raises:
            UserError: what the caller gave is no token.
        """
        value = self._present()
        _check(value or "")
        given = self._given.get(value) if value else None
        if given is None or given.known:
            return
        async with self._lock:
            now = self._clock.time()
            if given.known or now < given.ask_at:
                return
            try:
                info = await service.inspect(given.token.value)
            except TransientError:
                given.ask_at = self._clock.time() + _ASK_AGAIN_S
                return
            given.known = True
            if info is None:
                given.valid = False
                return
            expires_at = None if info.life_s is None else now + info.life_s
            given.token = replace(given.token, account=info.email, scopes=info.scopes, expires_at=expires_at)

    def present(self) -> str | None:
        """Return whose token the present caller gave; empty when unknown, None when none was given."""
        value = self._present()
        given = self._given.get(value) if value else None
        return given.token.account if given is not None else None

    def accounts(self) -> tuple[str, ...]:
        """Return the known accounts of all tokens, latest first."""
        return tuple(given.token.account for given in reversed(self._given.values()) if given.token.account)

    async def token(self, account: str, scopes: frozenset[str], stale: AccessToken | None) -> AccessToken:
        """Return the token of an account, the present caller's when empty; the stale one again after a first refusal.

        Raises:
            AuthError: it is not valid, has expired, lacks a scope, or was refused before.
        """
        given = self._find(account)
        token = given.token
        expired = token.expires_at is not None and token.expires_at <= self._clock.time()
        refused = stale is not None and stale.value == token.value
        if not given.valid or expired or (refused and not await self._may_be_a_blip(given)):
            raise AuthError(
                f"the access token in {TOKEN_VARIABLE} has expired or is not valid",
                hint="set a fresh one, or unset it and sign in: colab-bridge auth login",
                code="CB-AUTH-014",
            )
        if missing := missing_scopes(token.scopes, scopes):
            raise missing_error(token.account, missing, source="given")
        return token

    async def _may_be_a_blip(self, given: _Given) -> bool:
        """Whether a token that was refused is worth another try, which is then due; calls side by side share one."""
        now = self._clock.monotonic()
        if _BLIP_PAUSE_S <= now - given.refused_at < _BLIP_S:
            return False
        if now - given.refused_at >= _BLIP_S:
            given.refused_at = now
        await self._pause(_BLIP_PAUSE_S)
        return True

    def _find(self, account: str) -> _Given:
        value = self._present()
        here = self._given.get(value) if value else None
        if here is not None and account in ("", here.token.account):
            return here
        return next(given for given in reversed(self._given.values()) if given.token.account == account)

    def _present(self) -> str | None:
        return self._of_task.get(self._default)


def _check(value: str) -> None:
    if len(value) > 16384 or not value.isascii() or not value.isprintable() or " " in value:
        raise UserError(
            f"{TOKEN_VARIABLE} holds no access token",
            hint="it is one word, as `gcloud auth print-access-token` prints it; or unset it",
            code="CB-USER-073",
        )
