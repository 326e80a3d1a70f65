"""Who may talk to the daemon."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from colab_bridge.api import security
from colab_bridge.api.security import LocalOnly
from colab_bridge.api.server import _http, _invalid, _problem, _unexpected
from colab_bridge.errors import ColabBridgeError, TransientError, UserError

TOKEN = "right-token"
GOOD = [(b"host", b"127.0.0.1:4711"), (b"authorization", b"Bearer right-token")]


def made() -> FastAPI:
    """A small API with the daemon's own error handling."""
    api = FastAPI()
    api.add_exception_handler(ColabBridgeError, _problem)
    api.add_exception_handler(Exception, _unexpected)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)

    @api.post("/size")
    async def size(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @api.post("/typed")
    async def typed(body: dict[str, int]) -> dict[str, int]:
        return body

    @api.get("/fails/{how}")
    async def fails(how: str) -> None:
        raise {
            "user": UserError("it is wrong", hint="mend it", code="CB-USER-1"),
            "transient": TransientError("not now", retry_after_s=2.5),
            "defect": ZeroDivisionError("secret-detail"),
            "half": UserError("half \ud800 a character"),
        }[how]

    return api


async def call(
    headers: list[tuple[bytes, bytes]],
    *,
    method: str = "GET",
    path: str = "/fails/none",
    kind: str = "http",
    body: tuple[bytes, ...] = (b"",),
    app: Any = None,
) -> tuple[int, dict[str, Any], int]:
    """Return status, decoded body, and how many parts of the request were read."""
    parts = list(body)
    sent: list[Any] = []
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 4711),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    with contextlib.suppress(ZeroDivisionError):  # the server's own log gets it, after the answer
        await LocalOnly(app or made(), token=TOKEN, port=4711)(scope, receive, send)
    if sent[0]["type"] == "websocket.close":
        return sent[0]["code"], {}, read
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(content), read


@pytest.mark.parametrize("host", [b"127.0.0.1:4711", b"localhost:4711", b"[::1]:4711"])
async def test_our_own_addresses_are_served(host: bytes) -> None:
    status, body, _ = await call([(b"Host", host), GOOD[1]], method="POST", path="/size", body=(b"abc",))
    assert (status, body) == (200, {"bytes": 3})


@pytest.mark.parametrize(
    "host",
    [None, b"", b"evil.example:4711", b"127.0.0.1", b"127.0.0.1:80", b"127.0.0.1:4711.evil", b"localhost:4711@evil"],
)
async def test_a_foreign_host_is_refused_even_with_the_token(host: bytes | None) -> None:
    headers = [GOOD[1]] if host is None else [(b"host", host), GOOD[1]]
    status, body, read = await call(headers)
    assert (status, body["code"], read) == (403, "CB-API-403", 0)


@pytest.mark.parametrize(
    "authorization",
    [None, b"", b"Bearer", b"Bearer ", b"Bearer wrong", b"right-token", b"Basic right-token", b"Bearer right-token2",
     b"Bearer right-toke", b"Bearer \xff\xfe"],
)  # fmt: skip
async def test_a_missing_or_wrong_token_is_refused(authorization: bytes | None) -> None:
    headers = GOOD[:1] if authorization is None else [GOOD[0], (b"authorization", authorization)]
    status, body, read = await call(headers)
    assert (status, body["title"], body["code"], read) == (401, "AuthError", "CB-API-401", 0)


@pytest.mark.parametrize(
    "origin", [b"http://evil.example", b"null", b"", b"https://127.0.0.1:4711", b"http://127.0.0.1"]
)
async def test_a_foreign_origin_is_refused_even_with_the_token(origin: bytes) -> None:
    status, body, _ = await call([*GOOD, (b"origin", origin)])
    assert (status, body["detail"]) == (403, "requests from this Origin are refused")


async def test_our_own_origin_is_served() -> None:
    headers = [*GOOD, (b"origin", b"http://127.0.0.1:4711")]
    assert (await call(headers, method="POST", path="/size"))[0] == 200


@pytest.mark.parametrize(
    ("repeated", "status"),
    [
        ((b"host", b"127.0.0.1:4711"), 403),
        ((b"Origin", b"http://127.0.0.1:4711"), 403),
        ((b"Authorization", b"Bearer right-token"), 401),
        ((b"Content-Length", b"1"), 413),
    ],
)
async def test_a_repeated_header_is_never_believed(repeated: tuple[bytes, bytes], status: int) -> None:
    once = [(name, value) for name, value in GOOD if name != repeated[0].lower()]
    assert (await call([*once, repeated, (repeated[0].lower(), repeated[1])]))[0] == status


@pytest.mark.parametrize("length", [b"67108865", b"-1", b"1e3", b"", b"9" * 5000, "٣".encode()])
async def test_an_announced_body_that_is_too_large_is_refused_unread(length: bytes) -> None:
    status, body, read = await call([*GOOD, (b"content-length", length)], method="POST", path="/size")
    assert (status, body["code"], read) == (413, "CB-API-413", 0)


@pytest.mark.parametrize("path", ["/size", "/typed"])
async def test_a_body_without_a_length_is_cut_off_at_the_limit(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MAX_BODY_BYTES", 10)
    parts = (b"[1, 2", b",3,4,", b"5]", b"never read")
    status, body, read = await call(
        [*GOOD, (b"content-type", b"application/json")], method="POST", path=path, body=parts
    )
    assert (status, body["code"], read) == (413, "CB-API-413", 3)


@pytest.mark.parametrize(
    ("headers", "code"),
    [(GOOD[1:], 4403), (GOOD[:1], 4401), ([*GOOD, (b"origin", b"http://evil.example")], 4403)],
)
async def test_a_websocket_is_refused_before_it_opens(headers: list[tuple[bytes, bytes]], code: int) -> None:
    assert (await call(headers, kind="websocket"))[0] == code


async def test_the_life_cycle_of_the_server_passes_unchecked() -> None:
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    await LocalOnly(app, token=TOKEN, port=1)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]  # not called
    assert seen == ["lifespan"]


# -- errors ----------------------------------------------------------------------------------------------------


async def test_an_error_of_ours_becomes_its_problem_document() -> None:
    status, body, _ = await call(GOOD, path="/fails/user")
    assert status == 422
    assert body == UserError("it is wrong", hint="mend it", code="CB-USER-1").to_problem()


async def test_the_time_to_wait_is_passed_on() -> None:
    status, body, _ = await call(GOOD, path="/fails/transient")
    assert (status, body["retry_after_s"]) == (503, 2.5)


async def test_a_defect_is_a_problem_document_without_its_details() -> None:
    status, body, _ = await call(GOOD, path="/fails/defect")
    assert (status, body["title"], body["detail"]) == (500, "InternalError", "ZeroDivisionError in the daemon")


async def test_half_a_character_in_a_message_is_no_defect() -> None:
    status, body, _ = await call(GOOD, path="/fails/half")
    assert (status, body["title"]) == (422, "UserError")


async def test_a_body_of_the_wrong_form_names_the_place() -> None:
    headers = [*GOOD, (b"content-type", b"application/json")]
    status, body, _ = await call(headers, method="POST", path="/typed", body=(b'{"a": "x"}',))
    assert (status, body["title"]) == (422, "UserError")
    assert body["detail"].startswith("body.a: ")


async def test_an_unknown_path_and_a_wrong_method_are_problem_documents() -> None:
    assert [(await call(GOOD, path="/no"))[0], (await call(GOOD, path="/size"))[0]] == [404, 405]
