"""Access tokens of our own sign-ins: one refresh at a time for each account, across tasks and processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import filelock

from colab_bridge.credentials.access_cache import AccessCache, token_of
from colab_bridge.credentials.accounts import Account, AccountBook
from colab_bridge.credentials.client_file import OAuthClient
from colab_bridge.credentials.failures import (
    FailureKind,
    ended_error,
    failure_error,
    missing_error,
    unknown_account_error,
)
from colab_bridge.credentials.grants import is_usable, needs_refresh
from colab_bridge.credentials.scopes import missing_scopes
from colab_bridge.credentials.service import RefusedError, SignInService
from colab_bridge.credentials.vault import unreadable
from colab_bridge.credentials.vaults import Vaults
from colab_bridge.errors import ColabBridgeError, TransientError
from colab_bridge.model.credentials import AccessToken
from colab_bridge.model.runtime import Secret
from colab_bridge.ports.clock import Clock

__all__ = ["LOGIN_SOURCE", "LoginSecrets", "LoginTokens"]

LOGIN_SOURCE: Final = "signed in"
#: A refresh takes three tries of 20 s at most, and keychains may ask a person.
_LOCK_S: Final = 120.0
#: While the service does not answer and the token at hand still lives, it is asked this rarely.
_HOLD_OFF_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSecrets:
    """What keeps a sign-in going.

    Attributes:
        refresh: The refresh token.
        client: The OAuth client that it was given to.
    """

    refresh: Secret
    client: OAuthClient

    def to_text(self) -> str:
        """Return it as one text for the vault; some 300 characters, well below what Windows keeps."""
        return json.dumps(
            {
                "refresh_token": self.refresh.reveal(),
                "client_id": self.client.client_id,
                "client_secret": self.client.secret.reveal(),
            }
        )

    @classmethod
    def from_text(cls, text: str) -> LoginSecrets | None:
        """Read what :meth:`to_text` wrote; None when it is something else."""
        try:
            members: Any = json.loads(text)
            values = [members[name] for name in ("refresh_token", "client_id", "client_secret")]
        except (ValueError, TypeError, KeyError):
            return None
        if not all(isinstance(value, str) for value in values):
            return None
        return cls(refresh=Secret(values[0]), client=OAuthClient(client_id=values[1], secret=Secret(values[2])))


class LoginTokens:
    """Tokens of signed in accounts.

    Args:
        folder: Where tokens and locks are, for all processes.
        book: Who is signed in.
        vaults: Where refresh tokens are.
        clock: Time source.
    """

    def __init__(self, folder: Path, book: AccountBook, vaults: Vaults, clock: Clock) -> None:
        self._folder = folder
        self._book = book
        self._vaults = vaults
        self._clock = clock
        self._cache = AccessCache(folder)
        self._kept: dict[tuple[str, float], AccessToken] = {}
        self._locks: dict[str, anyio.Lock] = {}
        self._ask_at: dict[str, float] = {}

    async def token(
        self, email: str, service: SignInService, scopes: frozenset[str], stale: AccessToken | None
    ) -> AccessToken:
        """Return a token of an account, renewed when it must be.

        Args:
            email: The account.
            service: Google's sign-in service.
            scopes: What the call needs.
            stale: A token that was refused.

        Raises:
            AuthError: the sign-in has ended or lacks a scope, or its secrets cannot be read.
            TransientError: the sign-in service does not answer, and there is no token that is still good.
        """
        account = self._account(email, scopes)
        kept = self._kept.get((email, account.signed_in_at))
        if kept is not None and self._good(email, kept, stale):
            return kept
        async with self._locks.setdefault(email, anyio.Lock()), self._alone(email):
            account = self._account(email, scopes)  # it may have changed while we waited
            token = await self._renewed(account, service, stale)
        if missing := missing_scopes(token.scopes, scopes):
            raise missing_error(email, missing, source="login")
        return token

    def _account(self, email: str, scopes: frozenset[str]) -> Account:
        book = self._book.read()
        account = book.accounts.get(email)
        if account is None:
            raise unknown_account_error(email, book.accounts)
        if account.ended:
            raise ended_error(email, account.ended)
        if missing := missing_scopes(account.scopes, scopes):
            raise missing_error(email, missing, source="login")
        return account

    def _good(self, email: str, token: AccessToken, stale: AccessToken | None) -> bool:
        now = self._clock.time()
        held_off = now < self._ask_at.get(email, 0.0) and is_usable(token, now, stale)
        return held_off or not needs_refresh(token, now, stale)

    async def _renewed(self, account: Account, service: SignInService, stale: AccessToken | None) -> AccessToken:
        """Return a token from the disk, where another process may have put it, or a new one.

        Holds here: no other task or process renews a token of this account.
        """
        key = (account.email, account.signed_in_at)
        secrets = await self.secrets(account)
        at_hand = self._cache.get(account.email, secrets.refresh)
        if at_hand is not None and self._good(account.email, at_hand, stale):
            self._kept[key] = at_hand
            return at_hand
        asked_at = self._clock.time()
        try:
            grant = await service.refresh(secrets.client, secrets.refresh)
        except (RefusedError, TransientError) as error:
            problem = self._problem(account, error)
            if not isinstance(problem, TransientError) or at_hand is None or not is_usable(at_hand, asked_at, stale):
                raise problem from error
            self._ask_at[account.email] = self._clock.time() + _HOLD_OFF_S
            self._kept[key] = at_hand
            return at_hand
        token = token_of(grant, account=account.email, scopes=account.scopes, asked_at=asked_at, source=LOGIN_SOURCE)
        with anyio.CancelScope(shield=True):  # a new refresh token that is not kept would end the sign-in
            await self._take(account, secrets, grant.refresh, token)
        return token

    def _problem(self, account: Account, error: RefusedError | TransientError) -> ColabBridgeError:
        if isinstance(error, TransientError):
            return error
        kind = error.failure.kind
        if kind in (FailureKind.REVOKED, FailureKind.REAUTH):
            # Remembered, so that nobody asks again in vain; what there is stays until the user signs in or out.
            self._book.end(account.email, kind, account.signed_in_at)
            self._cache.drop(account.email)
        return failure_error(error.failure, account.email)

    async def _take(
        self, account: Account, secrets: LoginSecrets, new_refresh: Secret | None, token: AccessToken
    ) -> None:
        refresh = new_refresh or secrets.refresh
        if refresh != secrets.refresh:
            renewed = LoginSecrets(refresh=refresh, client=secrets.client)
            kind, _ = await self._vaults.put(account.item, renewed.to_text())
            if kind != account.store:
                self._book.put(replace(account, store=kind), current=False)
        self._cache.put(token, refresh)
        self._ask_at.pop(account.email, None)
        self._kept[account.email, account.signed_in_at] = token

    async def secrets(self, account: Account) -> LoginSecrets:
        """Return what keeps a sign-in going.

        Raises:
            AuthError: it is not where it should be, or cannot be read from here.
        """
        text = await self._vaults.get(account.store, account.item)
        secrets = LoginSecrets.from_text(text) if text is not None else None
        if secrets is None:
            raise unreadable(
                f"the sign-in of {account.email} is no more in the {account.store}",
                f"colab-bridge auth login --account {account.email}",
            )
        return secrets

    def remember(self, account: Account, secrets: LoginSecrets, token: AccessToken) -> None:
        """Take the first token of a new sign-in."""
        self._cache.put(token, secrets.refresh)
        self._kept[account.email, account.signed_in_at] = token

    def forget(self, account: Account) -> None:
        """Forget the token of an account."""
        self._cache.drop(account.email)
        self._kept.pop((account.email, account.signed_in_at), None)

    @contextlib.asynccontextmanager
    async def _alone(self, email: str) -> AsyncIterator[None]:
        """Hold an account against other processes."""
        name = f"refresh-{hashlib.sha256(email.encode()).hexdigest()[:24]}.lock"
        lock = filelock.FileLock(self._folder / name, mode=0o600, thread_local=False)
        deadline = anyio.current_time() + _LOCK_S
        # In slices: a thread that waits cannot be cancelled, and one that is left behind would keep the lock.
        while not await anyio.to_thread.run_sync(partial(_acquired, lock)):
            if anyio.current_time() >= deadline:
                raise TransientError(
                    f"another process has been renewing the sign-in of {email} for {_LOCK_S:.0f} s",
                    hint="try again; see what runs: colab-bridge status",
                    code="CB-TRANSIENT-AUTH",
                )
        try:
            yield
        finally:
            lock.release()


def _acquired(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=1.0)
    except filelock.Timeout:
        return False
    return True
