"""Who may talk to the daemon: token, Host, Origin and size, before anything else looks at a request.

A page in a browser can send requests to loopback, and through DNS rebinding under a foreign name. The token stops
both, Host and Origin stop them again.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["MAX_BODY_BYTES", "LocalOnly"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: A script or a notebook's parameters; notebooks themselves are read from the disk.
MAX_BODY_BYTES = 64 * 1024 * 1024


class LocalOnly:
    """ASGI middleware that lets only our own clients through.

    Args:
        app: What is protected.
        token: The bearer token.
        port: Port of the listening socket; 0 accepts any, for tests without a socket.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost", "[::1]")}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(_headers(scope))
        if refusal is not None:
            await _refuse(scope, send, *refusal)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        await self._limited(scope, receive, send)

    def _refusal(self, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        if headers.get(b"host", b"") not in self._hosts:
            return 403, "this Host is not served here", "use the address from daemon.json"
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins:
            return 403, "requests from this Origin are refused", "use the command line or the Python API"
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            return 401, "the token is missing or wrong", "read it from daemon.json; it changes at each start"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 20 or int(length) > MAX_BODY_BYTES:
            return 413, "the request is too large", f"send at most {MAX_BODY_BYTES // 1024 // 1024} MiB"
        return None

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a body that came without its length, and cut it off at the limit."""
        seen = 0
        started = False
        too_large = False

        async def counted() -> Message:
            nonlocal seen, too_large
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                too_large = True
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if too_large and not started:
                return  # what the application makes of its interrupted reading; the answer comes below
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLargeError:
            pass
        finally:
            if too_large and not started:
                await _refuse(scope, send, 413, "the request is too large", "send less at a time")


class _TooLargeError(Exception):
    """A body passed the limit."""


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers by lower-case name; a repeated one becomes unusable, since none of ours may be repeated."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        found[name.lower()] = b"\x00repeated" if name.lower() in found else value
    return found


async def _refuse(scope: Scope, send: Send, status: int, detail: str, hint: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401 if status == 401 else 4403, "reason": detail})
        return
    titles = {401: "AuthError", 403: "AuthError", 413: "UserError"}
    body = json.dumps(
        {
            "type": "about:blank",
            "title": titles[status],
            "status": status,
            "detail": detail,
            "code": f"CB-API-{status}",
            "hint": hint,
        }
    ).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
