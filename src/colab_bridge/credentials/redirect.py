"""The small web server on this machine to which the browser brings Google's answer.

It listens on loopback for one sign-in, knows one page, and takes an answer only to the question that was asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.abc

from colab_bridge.credentials.consent import Answer, AnswerKind, read_redirect

__all__ = ["Redirect", "Reply", "answer_request", "listening"]

# A browser's request with all its headers has about 2 kB; a code's address less than 1 kB.
_MAX_HEAD: Final = 16 * 1024
_READ_S: Final = 10.0

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Colab Bridge</title>
<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">
<body style="font:1.1rem system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem">
<h1 style="font-size:1.4rem">{title}</h1><p>{text}</p></body></html>
"""
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 204: "No Content"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a request is answered with.

    Attributes:
        status: HTTP status.
        body: Page for a person; may be empty.
        answer: What was brought, when it ends the wait.
    """

    status: int
    body: str = ""
    answer: Answer | None = None

    def to_bytes(self) -> bytes:
        """Return the whole HTTP answer."""
        body = self.body.encode()
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            "Content-Type: text/html; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'",
            "Connection: close",
        ]
        if self.status == 405:
            lines.append("Allow: GET")
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def answer_request(head: bytes, port: int, state: str) -> Reply:
    """Decide what a request amounts to. Pure.

    Args:
        head: Request line and headers; hostile: any page in the browser can send requests here.
        port: On which we listen; another name than ours in ``Host`` is refused (DNS rebinding).
        state: Of the question that was asked.
    """
    lines = head.split(b"\r\n")
    parts = lines[0].decode("ascii", "replace").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return Reply(status=400)
    method, target, _ = parts
    hosts = [line.partition(b":")[2].strip() for line in lines[1:] if line.lower().startswith(b"host:")]
    if hosts != [f"127.0.0.1:{port}".encode()]:
        return Reply(status=400)
    if method != "GET":
        return Reply(status=405)
    path, _, query = target.partition("?")
    if path == "/favicon.ico":
        return Reply(status=204)
    if path != "/":
        return Reply(status=404)
    return _page(read_redirect(query, state))


def _page(answer: Answer) -> Reply:
    if answer.kind is AnswerKind.CODE:
        text = "Go back to the terminal; this window can be closed."
        return Reply(status=200, body=_PAGE.format(title="Almost done", text=text), answer=answer)
    if answer.kind is AnswerKind.REFUSED:
        text = "Nothing was changed. Go back to the terminal; this window can be closed."
        return Reply(status=200, body=_PAGE.format(title="Not signed in", text=text), answer=answer)
    text = "This is not the answer to the question that Colab Bridge has asked. Start again from the terminal."
    return Reply(status=400, body=_PAGE.format(title="Not signed in", text=text))


class Redirect:
    """A listener that is open.

    Args:
        port: On which it listens, on 127.0.0.1.

    Attributes:
        port: The same.
        foreign: How many answers to other questions were turned away.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.foreign = 0
        self._answers_to = ""
        self._answer: Answer | None = None
        self._arrived = anyio.Event()

    @property
    def uri(self) -> str:
        """What the browser is sent to."""
        return f"http://127.0.0.1:{self.port}"

    def expect(self, state: str) -> None:
        """Take answers to this question from now on; before, nothing is taken."""
        self._answers_to = state

    async def wait(self) -> Answer:
        """Wait for the answer; the caller bounds it."""
        await self._arrived.wait()
        assert self._answer is not None  # set with the event
        return self._answer

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        """Answer one connection."""
        async with stream:
            with anyio.move_on_after(_READ_S):
                try:
                    reply = await self._reply(stream)
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return  # browsers open connections ahead of need and drop them
                try:
                    await stream.send(reply.to_bytes())
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    pass  # the answer counts whether or not the page is looked at
                finally:
                    self._take(reply)  # last, because it ends this server

    async def _reply(self, stream: anyio.abc.ByteStream) -> Reply:
        head = b""
        while b"\r\n\r\n" not in head:
            if len(head) > _MAX_HEAD:
                return Reply(status=400)
            head += await stream.receive(4096)
        if not self._answers_to:
            return Reply(status=404)
        return answer_request(head.partition(b"\r\n\r\n")[0], self.port, self._answers_to)

    def _take(self, reply: Reply) -> None:
        self.foreign += reply.status == 400
        if reply.answer is not None and self._answer is None:
            self._answer = reply.answer
            self._arrived.set()


@asynccontextmanager
async def listening() -> AsyncIterator[Redirect]:
    """Listen on a free port of 127.0.0.1 for as long as the context lasts.

    Raises:
        OSError: the system gives no port.
    """
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = int(listener.extra(anyio.abc.SocketAttribute.local_port))  # noqa: S610  # anyio's, not Django's
    redirect = Redirect(port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, redirect.serve)
        try:
            yield redirect
        finally:
            tasks.cancel_scope.cancel()
