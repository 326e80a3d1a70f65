"""Calls to Google's services: signed in, bounded, judged; the one place where bytes come and go.

A 401 asks for another access token once; nobody is signed out by it. A token goes only to the service that was
configured: no redirect is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx2

from colab_bridge import __version__
from colab_bridge._util.https import explained, is_plain, open_client
from colab_bridge.ports.credentials import TokenSource
from colab_bridge.providers.colab.classify import Failure, Verdict, of_status
from colab_bridge.providers.colab.foreign import Fields, parse_document

__all__ = ["CLIENT_AGENT", "CallFailedError", "GoogleHttp", "Request"]

#: How we introduce ourselves; each of Google's own clients has a name of its own here.
CLIENT_AGENT: Final = "colab-bridge"
_CONNECT_S = 10.0
_MOST_BODY_BYTES = 4 * 1024 * 1024


class CallFailedError(Exception):
    """A call did not do what it was to do; never leaves the provider.

    Args:
        failure: Why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.call}: {failure.verdict}")
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call.

    Attributes:
        call: Its name, for messages.
        method: HTTP method.
        url: Address without query.
        query: Its query.
        headers: More request headers.
        json: Body; None for none.
        timeout_s: Seconds until an answer must be complete.
        creating: Whether it asks for a runtime.
        accelerator: Whether it asks for one with an accelerator.
    """

    call: str
    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    json: Mapping[str, object] | None = None
    timeout_s: float = 30.0
    creating: bool = False
    accelerator: bool = False


class GoogleHttp:
    """Makes calls for accounts of one token source.

    Args:
        tokens: Where access tokens come from.
    """

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens
        self._clients: dict[bool, httpx2.AsyncClient] = {}  # without TLS, and with it
        self._opening = anyio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def document(self, request: Request, account: str) -> Fields:
        """Make a call and return the JSON object of its answer.

        Raises:
            CallFailedError: it failed.
            ProtocolChangedError: the answer is no JSON object.
            AuthError: there is no usable sign-in.
        """
        return parse_document(request.call, await self.body(request, account))

    async def body(self, request: Request, account: str) -> bytes:
        """Make a call and return the body of its answer. Errors as for :meth:`document`."""
        token = await self._tokens.token(account=account)
        status, body, headers = await self._send(request, token.value.reveal())
        if status == 401:
            token = await self._tokens.token(account=account, stale=token)
            status, body, headers = await self._send(request, token.value.reveal())
        if 200 <= status < 300:
            return body
        raise CallFailedError(
            of_status(
                status,
                body,
                call=request.call,
                creating=request.creating,
                accelerator=request.accelerator,
                retry_after=headers.get("retry-after", ""),
            )
        )

    async def _send(self, request: Request, token: str) -> tuple[int, bytes, httpx2.Headers]:
        headers = {
            "Accept": "application/json",
            "User-Agent": f"colab-bridge/{__version__}",
            "X-Colab-Client-Agent": CLIENT_AGENT,
            **request.headers,
            "Authorization": f"Bearer {token}",
        }
        timeout = httpx2.Timeout(request.timeout_s, connect=min(_CONNECT_S, request.timeout_s))
        try:
            client = await self._client(request.url)
            with anyio.fail_after(request.timeout_s):
                async with client.stream(
                    request.method,
                    request.url,
                    params=dict(request.query),
                    headers=headers,
                    json=request.json,
                    timeout=timeout,
                ) as response:
                    return response.status_code, await _read(response, request.call), response.headers
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            raise _translate(error, request) from None  # the exception holds the request, and so the token

    async def _client(self, url: str) -> httpx2.AsyncClient:
        plain = is_plain(url)
        async with self._opening:
            if plain not in self._clients:
                limits = httpx2.Limits(max_connections=20, max_keepalive_connections=4)
                self._clients[plain] = await open_client(url, call_s=_CONNECT_S, limits=limits)
            return self._clients[plain]


async def _read(response: httpx2.Response, call: str) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > _MOST_BODY_BYTES:
            raise CallFailedError(Failure(verdict=Verdict.SERVER_ERROR, call=call, detail="its answer is far too long"))
        pieces.append(piece)
    return b"".join(pieces)


def _translate(error: Exception, request: Request) -> Exception:
    """Say what a failure of the line means: whether the request may have been carried out."""
    if (for_people := explained(error, request.url)) is not None:
        return for_people
    host = urlsplit(request.url).hostname or ""
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.InvalidURL)):
        return CallFailedError(Failure(verdict=Verdict.UNREACHABLE, call=request.call, detail=host))
    silent = isinstance(error, (TimeoutError, httpx2.ReadTimeout))
    return CallFailedError(Failure(verdict=Verdict.UNCERTAIN, call=request.call, detail=host, silent=silent))
