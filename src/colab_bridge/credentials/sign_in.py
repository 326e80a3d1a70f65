"""Signs an account in: by the browser of this machine, by an address that is pasted, or from another tool's sign-in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio

from colab_bridge.credentials.access_cache import token_of
from colab_bridge.credentials.accounts import Account
from colab_bridge.credentials.client_file import OAuthClient
from colab_bridge.credentials.consent import Answer, AnswerKind, Question, read_pasted
from colab_bridge.credentials.failures import failure_error, missing_error
from colab_bridge.credentials.foreign import ForeignLogin
from colab_bridge.credentials.grants import Grant
from colab_bridge.credentials.logins import LOGIN_SOURCE, LoginSecrets
from colab_bridge.credentials.manager import Credentials
from colab_bridge.credentials.redirect import Redirect, listening
from colab_bridge.credentials.scopes import missing_scopes
from colab_bridge.credentials.service import RefusedError
from colab_bridge.errors import AuthError
from colab_bridge.model.credentials import COLAB_SCOPES
from colab_bridge.ports.clock import Clock, SystemClock

__all__ = ["DEFAULT_TIMEOUT_S", "Face", "SignIn", "SignedIn", "Wish"]

#: A person reads Google's page, chooses an account, finds a second factor.
DEFAULT_TIMEOUT_S: Final = 300.0
_MAX_PASTES: Final = 5


class Face(Protocol):
    """How the user is talked to meanwhile."""

    def show(self, url: str) -> None:
        """Show the address of the page on which the user agrees, and open it where there is a browser."""
        ...

    async def pasted(self) -> str | None:
        """Wait for a line from the user; None when there will not be any."""
        ...

    def complain(self, text: str) -> None:
        """Say that what was pasted is of no use."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for.

    Attributes:
        scopes: What the user is asked to allow; Colab alone and the e-mail address must be among what is granted.
        account: E-mail address that it must be; empty for any.
        name: Short name that the account gets; empty for none.
        current: Whether it is the account in use afterwards.
        timeout_s: Seconds that the user has.
    """

    scopes: frozenset[str] = COLAB_SCOPES
    account: str = ""
    name: str = ""
    current: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """What came of it.

    Attributes:
        account: Who is signed in now.
        missing: What was asked for and not allowed, though it is enough for Colab.
        note: A sentence about where the secrets are, when that is not the keychain.
    """

    account: Account
    missing: frozenset[str] = field(default=frozenset())
    note: str = ""


class SignIn:
    """Signs accounts in.

    Args:
        credentials: Where they are kept.
        clock: Time source; the machine's own when omitted.
    """

    def __init__(self, credentials: Credentials, clock: Clock | None = None) -> None:
        self._credentials = credentials
        self._clock = clock or SystemClock()

    async def ask(self, client: OAuthClient, wish: Wish, face: Face) -> SignedIn:
        """Ask the user on Google's page, and keep what comes of it.

        Raises:
            AuthError: the user did not agree, or not in time, or not to what is needed, or with another account.
            TransientError: Google does not answer.
        """
        async with listening() as redirect:
            question = Question(
                client_id=client.client_id, redirect_uri=redirect.uri, scopes=wish.scopes, login_hint=wish.account
            )
            answer = await self._answer(redirect, question, wish.timeout_s, face)
            foreign = redirect.foreign
        if answer is None:
            raise _late(wish.timeout_s, foreign)
        if answer.kind is not AnswerKind.CODE:
            raise _refused(answer.reason)
        asked_at = self._clock.time()
        grant = await self._credentials.service().exchange(client, question, answer.code)
        signed_in = await self._keep(client, grant, wish, asked_at, origin="login")
        await self._credentials.remember_client(client)
        return signed_in

    async def take_over(self, login: ForeignLogin, wish: Wish) -> SignedIn:
        """Take over the sign-in of another tool of the user; its own files stay as they are.

        Args:
            login: What was found there.
            wish: What is needed.

        Raises:
            AuthError: it has ended, or does not allow what is needed.
            TransientError: Google does not answer.
        """
        asked_at = self._clock.time()
        try:
            grant = await self._credentials.service().refresh(login.client, login.refresh)
        except RefusedError as error:
            raise failure_error(error.failure, "") from error
        whole = Grant(
            access=grant.access,
            life_s=grant.life_s,
            scopes=grant.scopes or login.scopes,
            refresh=grant.refresh or login.refresh,
        )
        return await self._keep(login.client, whole, wish, asked_at, origin=login.tool)

    async def _answer(self, redirect: Redirect, question: Question, timeout_s: float, face: Face) -> Answer | None:
        found: list[Answer] = []
        redirect.expect(question.state)
        face.show(question.url(self._credentials.service().urls.auth_uri))
        with anyio.move_on_after(timeout_s):
            async with anyio.create_task_group() as tasks:

                async def first(wait: Callable[[], Awaitable[Answer | None]]) -> None:
                    answer = await wait()
                    if answer is not None:
                        found.append(answer)
                        tasks.cancel_scope.cancel()

                async def pasted() -> Answer | None:
                    return await _pasted(face, question.state)

                tasks.start_soon(first, redirect.wait)
                tasks.start_soon(first, pasted)
        return found[0] if found else None

    async def _keep(self, client: OAuthClient, grant: Grant, wish: Wish, asked_at: float, *, origin: str) -> SignedIn:
        scopes = grant.scopes or wish.scopes
        if needed := missing_scopes(scopes, COLAB_SCOPES):
            raise missing_error(wish.account, needed, source="login", fresh=True)
        if grant.refresh is None:
            raise AuthError(
                "Google gave no refresh token, so the sign-in would end in an hour",
                hint="is the OAuth client of type Desktop app? try again: colab-bridge auth login",
                code="CB-AUTH-016",
            )
        email = await self._credentials.service().email(grant.access)
        if wish.account and email != wish.account.lower():
            raise AuthError(
                f"you have agreed as {email}, not as {wish.account}",
                hint=f"choose {wish.account} on Google's page, or leave --account out",
                code="CB-AUTH-020",
            )
        account = Account(
            email=email,
            name=wish.name,
            scopes=scopes,
            client_id=client.client_id,
            signed_in_at=asked_at,
            origin=origin,
        )
        token = token_of(grant, account=email, scopes=scopes, asked_at=asked_at, source=LOGIN_SOURCE)
        secrets = LoginSecrets(refresh=grant.refresh, client=client)
        with anyio.CancelScope(shield=True):
            note = await self._credentials.keep(account, secrets, token, current=wish.current)
        account = self._credentials.accounts().accounts[email]
        return SignedIn(account=account, missing=missing_scopes(scopes, wish.scopes), note=note)


async def _pasted(face: Face, state: str) -> Answer | None:
    for _ in range(_MAX_PASTES):
        text = await face.pasted()
        if text is None:
            return None
        answer = read_pasted(text, state)
        if answer.kind in (AnswerKind.CODE, AnswerKind.REFUSED):
            return answer
        face.complain(
            "that address answers another question; open the address above again"
            if answer.kind is AnswerKind.FOREIGN
            else "that is not the address that the browser ended at; it begins with http://127.0.0.1"
        )
    return None


def _late(timeout_s: float, foreign: int) -> AuthError:
    turned_away = f"; {foreign} answers to another question were turned away" if foreign else ""
    return AuthError(
        f"nobody has agreed on Google's page within {timeout_s:.0f} s{turned_away}",
        hint="try again: colab-bridge auth login (where there is no browser: --no-browser)",
        code="CB-AUTH-016",
    )


def _refused(reason: str) -> AuthError:
    if reason == "access_denied":
        return AuthError(
            "you have not agreed on Google's page", hint="try again: colab-bridge auth login", code="CB-AUTH-016"
        )
    return AuthError(
        f"Google refused the question ({reason})",
        hint="is the OAuth client of type Desktop app, and are you one of its test users? colab-bridge auth login",
        code="CB-AUTH-016",
    )
