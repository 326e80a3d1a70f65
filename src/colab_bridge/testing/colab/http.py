"""What all services of the emulator share: one call, its faults, its record, and the refusals."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import anyio
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response

from colab_bridge.errors import ColabBridgeError
from colab_bridge.testing.colab.faults import Fault, Switchboard, drifted
from colab_bridge.testing.colab.record import Recorder, RequestRecord
from colab_bridge.testing.colab.serve import Connections, Message, Receive, Send

__all__ = [
    "XSSI",
    "Call",
    "Handler",
    "Refused",
    "Route",
    "Service",
    "StateFaults",
    "google_error",
    "json_answer",
    "text",
]

log = logging.getLogger(__name__)

#: What stands before the JSON of the session backend, so that no page can load it as a script.
XSSI: Final = b")]}'\n"

_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 412: 9, 429: 8, 500: 13, 501: 12, 503: 14}
_STATUSES: Final = {
    3: "INVALID_ARGUMENT",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    16: "UNAUTHENTICATED",
}


class Refused(Exception):
    """The call is answered with this, and nothing else is done.

    Args:
        response: The answer.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class StateFaults(Protocol):
    """What carries out the faults that change the emulator's state."""

    async def apply(self, fault: Fault, path: str) -> None:
        """Do what a fault of kind expire_tokens, kill_vm or prune says; other kinds do nothing."""
        ...


@dataclass(slots=True, kw_only=True)
class Call:
    """One request on its way through a service.

    Attributes:
        request: The request.
        record: Its entry in the record.
        recorder: Where violations go.
        faults: The faults that hit it.
        parts: Parts of the path that its route left open.
        silent: Set by a handler that has done its work and will never be answered.
    """

    request: Request
    record: RequestRecord
    recorder: Recorder
    faults: list[Fault]
    parts: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False

    @property
    def query(self) -> QueryParams:
        """Query parameters."""
        return self.request.query_params

    @property
    def headers(self) -> Headers:
        """Headers, whose names have no case."""
        return self.request.headers

    def violation(self, what: str, expected: str) -> None:
        """Note that the client broke the protocol."""
        self.recorder.violation(self.record, what, expected)

    def refuse(self, response: Response, what: str, expected: str) -> Refused:
        """Note a violation and return what ends the call."""
        self.violation(what, expected)
        return Refused(response)

    async def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object; an empty body is an empty one.

        Raises:
            Refused: it is something else.
        """
        body = await self.request.body()
        try:
            value = json.loads(body or b"{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self.refuse(google_error(400, "the body is no JSON object"), "body is no JSON object", "an object")
        return value


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path of a service.

    Attributes:
        method: HTTP method.
        path: Path; a part in braces matches anything but nothing and a slash.
        handler: What answers.
    """

    method: str
    path: str
    handler: Handler

    def match(self, path: str) -> dict[str, str] | None:
        """Return the open parts of a path, or None when it is another one."""
        wanted, found = self.path.split("/"), path.split("/")
        if len(wanted) != len(found):
            return None
        parts: dict[str, str] = {}
        for want, have in zip(wanted, found, strict=True):
            if want.startswith("{"):
                if not have:
                    return None
                parts[want[1:-1]] = have
            elif want != have:
                return None
        return parts


class Service:
    """One of Google's hosts as an ASGI application.

    Args:
        name: Its name in records and faults.
        routes: What it knows; anything else is a violation.
        recorder: Where requests and violations are noted.
        board: Where faults come from.
        connections: Connections that faults reset.
        state: What carries out faults that change the state.
        settle: Called before each request is handled.
        closing: Set when the emulator ends, so that hanging requests end.
    """

    def __init__(
        self,
        name: str,
        routes: Iterable[Route],
        *,
        recorder: Recorder,
        board: Switchboard,
        connections: Connections,
        state: StateFaults,
        settle: Callable[[], Awaitable[None]],
        closing: anyio.Event,
    ) -> None:
        self.name = name
        self._routes = tuple(routes)
        self._recorder = recorder
        self._board = board
        self._connections = connections
        self._state = state
        self._settle = settle
        self._closing = closing

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, unless a fault has other plans."""
        assert scope["type"] == "http"
        request = Request(scope, receive, send)
        path = scope["path"]
        record = self._recorder.request(
            self.name,
            request.method,
            path,
            query=request.query_params.multi_items(),
            headers=request.headers,
        )
        call = Call(
            request=request,
            record=record,
            recorder=self._recorder,
            faults=self._board.take(self.name, request.method, path),
        )
        record.fault = tuple(fault.kind for fault in call.faults)
        response = await self._before(call) or await self._unless_closing(call)
        kinds = set(record.fault)
        if response is None or kinds & {"close", "close_after"}:
            await self._drop(scope, receive)
        elif call.silent or kinds & {"hang", "hang_after"}:
            await self._hang(receive)
            await self._drop(scope, receive)
        elif "cut" in kinds:
            await self._cut(response, scope, receive, send)
        else:
            record.status = response.status_code
            await response(scope, receive, send)

    async def _before(self, call: Call) -> Response | None:
        """Carry out what comes before the request is handled; an answer ends it there."""
        for fault in call.faults:
            if fault.kind == "delay":
                with anyio.move_on_after(fault.delay_s):
                    await self._closing.wait()
            elif fault.kind in {"hang", "close"}:
                return Response()  # nobody will see it
            elif fault.kind == "status":
                body = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
                return Response(body, fault.status, headers=dict(fault.headers))
            else:
                await self._state.apply(fault, call.record.path)
        return None

    async def _unless_closing(self, call: Call) -> Response | None:
        """Handle a request; None when the emulator ends before that is done, as in the middle of an allocation."""
        handling = asyncio.create_task(self._handle(call))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({handling, closing}, return_when=asyncio.FIRST_COMPLETED)
            if handling.done():
                return handling.result()
        finally:
            closing.cancel()
        handling.cancel()
        await asyncio.wait({handling})
        return None

    async def _handle(self, call: Call) -> Response:
        await self._settle()
        try:
            response = await self._route(call)
        except Refused as refused:
            response = refused.response
        except (ColabBridgeError, RuntimeError) as error:  # a machine did not start
            log.exception("the emulator could not answer", extra={"path": call.record.path})
            response = text(f"{error}\n", 500)
        for fault in call.faults:
            if fault.kind == "drift":
                response = _drifted(response, fault)
        return response

    async def _route(self, call: Call) -> Response:
        path = call.record.path
        matching = [(route, parts) for route in self._routes if (parts := route.match(path)) is not None]
        for route, parts in matching:
            if route.method == call.record.method:
                call.parts = parts
                return await route.handler(call)
        if matching:
            allowed = ", ".join(route.method for route, _ in matching)
            call.violation(f"method {call.record.method}", allowed)
            return text("Method Not Allowed", 405, {"allow": allowed})
        call.violation("unknown path", f"a path that {self.name} has")
        return text("Not Found", 404)

    async def _hang(self, receive: Receive) -> None:
        """Wait until the client has gone or the emulator ends."""
        async with anyio.create_task_group() as tasks:

            async def until_closing() -> None:
                await self._closing.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(until_closing)
            await _until_gone(receive)
            tasks.cancel_scope.cancel()

    async def _drop(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self._connections.abort(tuple(scope["client"]))
        await _until_gone(receive)

    async def _cut(self, response: Response, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Send the head and half of the body, then reset the connection."""
        body = bytes(response.body)
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await self._drop(scope, receive)


async def _until_gone(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


def _drifted(response: Response, fault: Fault) -> Response:
    """Change a JSON answer; anything else stays as it is."""
    body = bytes(response.body)
    prefix = XSSI if body.startswith(XSSI) else b""
    try:
        document = json.loads(body[len(prefix) :])
    except ValueError:
        return response
    changed = prefix + json.dumps(drifted(document, fault)).encode()
    return Response(changed, response.status_code, media_type=response.media_type)


def text(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a plain answer."""
    return Response(body, status, headers=dict(headers or {}), media_type="text/plain")


def json_answer(value: Any, status: int = 200, *, xssi: bool = False) -> Response:
    """Return a JSON answer, behind the XSSI prefix where the service has it."""
    body = json.dumps(value).encode()
    return Response(XSSI + body if xssi else body, status, media_type="application/json")


def google_error(
    status: int, message: str, *, code: int | None = None, reason: str = "", domain: str = "googleapis.com"
) -> Response:
    """Return an error in the shape that all Google APIs share.

    Args:
        status: HTTP status.
        message: For people.
        code: Number of ``google.rpc.Code``; the usual one of the status when None.
        reason: ``ErrorInfo.reason``; no such detail when empty.
        domain: ``ErrorInfo.domain``.

    Source: the error model of Google's API design guide (AIP-193).
    """
    name = _STATUSES[_CODES[status] if code is None else code]
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    if reason:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": domain}]
    return json_answer({"error": error}, status)
