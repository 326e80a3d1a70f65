"""Calls to Google's sign-in service, each with a bound."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx2

from colab_bridge._util.https import explained, is_plain, open_client, tls_context
from colab_bridge.config.services import ServiceUrls
from colab_bridge.credentials.client_file import OAuthClient
from colab_bridge.credentials.consent import Question
from colab_bridge.credentials.failures import Failure, FailureKind, classify, failure_error
from colab_bridge.credentials.grants import Grant, read_grant, read_life
from colab_bridge.credentials.scopes import parse_scopes
from colab_bridge.errors import AuthError, TransientError
from colab_bridge.model.runtime import Secret

__all__ = ["RefusedError", "SignInService", "TokenInfo"]

#: One answer takes some 200 ms; a person waits for it.
_CALL_S: Final = 20.0
#: Of a refresh that fails for a moment: tries, and seconds before each further one.
_PAUSES_S: Final = (0.0, 0.5, 1.5)
_MAX_BODY: Final = 256 * 1024
_EMAIL: Final = re.compile(r"[^@\s]{1,128}@[^@\s]{1,200}")


class RefusedError(Exception):
    """The service refused a refresh.

    Attributes:
        failure: Why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.kind)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What the service tells about an access token.

    Attributes:
        email: Whose it is; empty when the token does not allow to know.
        scopes: What it is good for; empty when not told.
        life_s: Seconds that it has left; None when not told.
    """

    email: str = ""
    scopes: frozenset[str] = frozenset()
    life_s: float | None = None


class SignInService:
    """Google's sign-in service.

    Args:
        urls: Where it is.
    """

    def __init__(self, urls: ServiceUrls) -> None:
        self._urls = urls
        self._tls: ssl.SSLContext | None = None

    @property
    def urls(self) -> ServiceUrls:
        """Where it is."""
        return self._urls

    async def exchange(self, client: OAuthClient, question: Question, code: str) -> Grant:
        """Exchange the code of a consent for tokens.

        Raises:
            AuthError: the code or the client was refused.
            TransientError: the service does not answer.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": question.redirect_uri,
            "code_verifier": question.verifier,
            **_client_members(client),
        }
        status, body = await self._send("POST", self._urls.token_uri, form=form)
        if status != 200:
            raise failure_error(classify(status, body, exchange=True), "")
        return read_grant(_json(body))

    async def refresh(self, client: OAuthClient, refresh: Secret) -> Grant:
        """Get a new access token. What fails for a moment is tried again twice.

        Raises:
            RefusedError: the service refused, or cannot answer now (kind ``temporary``).
            TransientError: it does not answer at all.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh.reveal(), **_client_members(client)}
        failure = Failure(kind=FailureKind.TEMPORARY, status=0)
        for number, pause_s in enumerate(_PAUSES_S, start=1):
            await anyio.sleep(pause_s)
            try:
                status, body = await self._send("POST", self._urls.token_uri, form=form)
            except TransientError:
                if number == len(_PAUSES_S):
                    raise
                continue
            if status == 200:
                return read_grant(_json(body))
            failure = classify(status, body)
            if failure.kind is not FailureKind.TEMPORARY or status < 500:
                break
        raise RefusedError(failure)

    async def email(self, access: Secret) -> str:
        """Return whose token it is.

        Raises:
            AuthError: the service does not accept the token for that.
            TransientError: it does not answer, or answers without an address.
        """
        headers = {"Authorization": f"Bearer {access.reveal()}"}
        status, body = await self._send("GET", self._urls.userinfo_uri, headers=headers)
        if status in (401, 403):
            raise AuthError(
                "Google does not tell whose sign-in this is",
                hint="sign in again and leave the box for your e-mail address ticked: colab-bridge auth login",
                code="CB-AUTH-013",
            )
        if status != 200:
            raise failure_error(Failure(kind=FailureKind.TEMPORARY, status=status), "")
        email = _email(_json(body).get("email"))
        if not email:
            raise TransientError(
                "protocol changed: userinfo.email", hint="colab-bridge doctor", code="CB-TRANSIENT-AUTH"
            )
        return email

    async def inspect(self, access: Secret) -> TokenInfo | None:
        """Return what the service tells about an access token; None when it is not valid.

        Raises:
            TransientError: the service does not answer.
        """
        token = {"access_token": access.reveal()}
        status, body = await self._send("POST", self._urls.tokeninfo_uri, form=token)
        if status in (404, 405):
            # The documented way, but an address is what proxies write into their logs.
            status, body = await self._send("GET", self._urls.tokeninfo_uri, query=token)
        if status in (400, 401):
            return None
        if status != 200:
            raise failure_error(Failure(kind=FailureKind.TEMPORARY, status=status), "")
        members = _json(body)
        return TokenInfo(
            email=_email(members.get("email")),
            scopes=parse_scopes(members.get("scope")),
            life_s=read_life(members.get("expires_in")),
        )

    async def revoke(self, token: Secret) -> bool:
        """Take a token and everything that came from the same consent back; False when the service knew it no more.

        Raises:
            TransientError: the service does not answer.
        """
        status, _ = await self._send("POST", self._urls.revoke_uri, form={"token": token.reveal()})
        if status >= 500 or status == 429:
            raise failure_error(Failure(kind=FailureKind.TEMPORARY, status=status), "")
        return status == 200

    async def _send(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        host = httpx2.URL(url).host
        if self._tls is None and not is_plain(url):
            self._tls = await anyio.to_thread.run_sync(tls_context)
        try:
            with anyio.fail_after(_CALL_S):
                # A client for each call: there is one an hour, and nothing stays open in between.
                async with (
                    await open_client(url, call_s=_CALL_S, context=self._tls) as client,
                    client.stream(method, url, data=dict(form) if form else None, params=query, headers=headers) as got,
                ):
                    return got.status_code, await _bounded(got)
        # The text of these errors may hold the address, and that the token.
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
            if (for_people := explained(error, url)) is not None:
                raise for_people from None
            raise TransientError(
                f"Google's sign-in service ({host}) does not answer: {type(error).__name__}",
                hint="is this machine online? try again; behind a proxy set HTTPS_PROXY",
                code="CB-TRANSIENT-AUTH",
            ) from None


async def _bounded(response: httpx2.Response) -> bytes:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > _MAX_BODY:
            break
    return body[:_MAX_BODY]


def _client_members(client: OAuthClient) -> dict[str, str]:
    secret = client.secret.reveal()
    return {"client_id": client.client_id} | ({"client_secret": secret} if secret else {})


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _email(value: object) -> str:
    return value.lower() if isinstance(value, str) and value.isprintable() and _EMAIL.fullmatch(value) else ""
