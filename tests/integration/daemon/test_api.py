"""The daemon's HTTP API: who may use it, and that no request whatever makes it fail."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channels_client import front_end_kernel
from colab_bridge.api.security import MAX_BODY_BYTES
from colab_bridge.client.address import Address
from daemon_home import DaemonHome


@pytest.fixture
def address(shared_home: DaemonHome) -> Address:
    return shared_home.client().address


def ask(
    address: Address, method: str = "GET", path: str = "/v1/health", body: bytes | None = None, **headers: str | None
) -> tuple[int, dict[str, Any]]:
    """Send one request with exactly these headers; None leaves a default one out."""
    wanted: dict[str, str | None] = {"Host": address.host, "Authorization": f"Bearer {address.token}", **headers}
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in wanted.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read()
        problem = str(answer.getheader("Content-Type")).partition(";")[0].endswith("json")
        return answer.status, json.loads(text) if problem else {}
    finally:
        connection.close()


def test_a_request_with_the_token_is_answered(address: Address) -> None:
    status, answer = ask(address)
    assert (status, answer["status"], answer["pid"]) == (200, "ok", address.pid)


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer \xe9"])
def test_a_request_without_the_token_is_refused(address: Address, token: str | None) -> None:
    status, problem = ask(address, Authorization=token)
    assert status == 401
    assert problem["hint"]


def test_the_token_in_the_query_does_not_count(address: Address) -> None:
    status, _ = ask(address, path=f"/v1/health?token={address.token}", Authorization=None)
    assert status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", None])
def test_a_foreign_host_is_refused(address: Address, host: str | None) -> None:
    status, _ = ask(address, Host=host and host.format(port=address.port))
    assert status in (400, 403)


def test_localhost_is_a_host_of_ours(address: Address) -> None:
    assert ask(address, Host=f"localhost:{address.port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "file://"])
def test_a_foreign_origin_is_refused_even_with_the_token(address: Address, origin: str) -> None:
    assert ask(address, Origin=origin.format(port=address.port))[0] == 403


def test_a_body_that_says_it_is_too_large_is_refused_unread(address: Address) -> None:
    status, problem = ask(address, "POST", "/v1/runs", b"", Content_Length=str(MAX_BODY_BYTES + 1))
    assert status == 413
    assert "MiB" in problem["hint"]


def test_a_body_that_does_not_say_its_size_is_cut_off(address: Address) -> None:
    with socket.create_connection(("127.0.0.1", address.port), 10) as raw:
        head = f"POST /v1/runs HTTP/1.1\r\nHost: {address.host}\r\nAuthorization: Bearer {address.token}\r\n"
        raw.sendall(head.encode() + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        refused = threading.Event()

        def flood() -> None:
            try:
                for _ in range(MAX_BODY_BYTES // 0x100000 + 2):
                    raw.sendall(chunk)
            except OSError:
                refused.set()

        sender = threading.Thread(target=flood)
        sender.start()
        answer = raw.recv(4096)
        sender.join(20)
    assert b" 413 " in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Origin": "http://evil.example"}])
def test_the_websocket_is_behind_the_same_checks(shared_home: DaemonHome, headers: dict[str, str]) -> None:
    kernel = front_end_kernel(shared_home, "checked.ipynb")["id"]
    address = shared_home.client().address
    try:
        given = {"Authorization": f"Bearer {address.token}", **headers} if "Origin" in headers else headers
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://{address.host}/v1/kernels/{kernel}/channels", additional_headers=given, proxy=None)
        assert caught.value.response.status_code == 403
    finally:
        shared_home.client().delete(f"/v1/kernels/{kernel}")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/runs", b"{"),
        ("/v1/runs", b"[]"),
        ("/v1/runs", b'{"kind": "code"}'),
        ("/v1/runs", b'{"kind": "code", "project": "relative", "cwd": "/", "code": "1"}'),
        ("/v1/runs", b'{"kind": "code", "project": "/\\u0000", "cwd": "/", "code": "1"}'),
        ("/v1/runs", b'{"kind": "code", "project": "/\\ud800", "cwd": "/", "code": "1"}'),
        ("/v1/runs", b'{"kind": "notebook", "project": "/", "cwd": "/", "code": "1"}'),
        ("/v1/sessions", b'{"project": "/x", "name": "../../etc"}'),
        ("/v1/sessions", b'{"project": "/x", "provider": "nothing"}'),
        ("/v1/sessions", b'{"project": "/x", "runtime": "nothing"}'),
        ("/v1/kernels", b'{"project": "/x", "cwd": "/x", "identity": {"a": [[[]]]}, "session": "none"}'),
        ("/v1/runs/last/save", b'{"path": 7}'),
    ],
)
def test_a_request_that_makes_no_sense_is_the_caller_s_mistake(address: Address, path: str, body: bytes) -> None:
    length = str(len(body))
    status, problem = ask(address, "POST", path, body, Content_Type="application/json", Content_Length=length)
    assert 400 <= status < 500
    assert problem["detail"]
    assert "\n" not in problem["detail"] + problem["hint"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/sessions/none", "/v1/runs/none", "/v1/runs/none/events", "/"])
def test_what_does_not_exist_is_a_problem_document(address: Address, path: str) -> None:
    status, problem = ask(address, path=path)
    assert 400 <= status < 500
    assert problem["title"]


def test_the_openapi_document_describes_every_call_of_the_contract(address: Address) -> None:
    status, document = ask(address, path="/v1/openapi.json")
    assert status == 200
    contract = (Path(__file__).parents[3] / "docs" / "design" / "daemon-api.md").read_text(encoding="utf-8")
    promised = {
        (line.split("`")[1].split()[0].lower(), line.split("`")[1].split()[1])
        for line in contract.splitlines()
        if line.startswith(("| `GET", "| `POST", "| `DELETE")) and "," not in line.split("|")[1]
    }
    paths = {_shape(path): list(calls) for path, calls in document["paths"].items()}
    missing = [(verb, path) for verb, path in promised if verb not in paths.get(_shape(path), [])]
    assert len(promised) > 15
    assert missing == []


def _shape(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


# -- whatever comes --------------------------------------------------------------------------------------------


@pytest.fixture
def served(daemon_home: DaemonHome) -> Iterator[DaemonHome]:
    daemon_home.code("1")
    return daemon_home


def test_no_request_that_schemathesis_thinks_of_makes_the_daemon_fail(served: DaemonHome) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given, seed, settings  # beside its user: heavy, and optional

    address = served.client().address
    headers = {"Authorization": f"Bearer {address.token}"}
    base = f"http://{address.host}"
    document = httpx2.get(base + "/v1/openapi.json", headers=headers, trust_env=False).json()
    # It ends the daemon, as it should.
    del document["paths"]["/v1/shutdown"]
    schema = schemathesis.openapi.from_dict(document)
    failures: list[str] = []
    client = httpx2.Client(base_url=base, headers=headers, trust_env=False, timeout=20)

    def send(case: Any) -> None:
        request = case.as_transport_kwargs(base_url=base)
        # A stream that waits for a run is no finding.
        params = {**(request.get("params") or {}), **({"follow": "0"} if case.path.endswith("/events") else {})}
        given_headers = {k: v for k, v in dict(request.get("headers") or {}).items() if k.lower() != "authorization"}
        answer = client.request(
            request["method"], request["url"], params=params, json=request.get("json"), headers=given_headers
        )
        # That a server cannot be reached, or nobody is signed in with Google here, is no fault of the daemon.
        if answer.status_code >= 500 and answer.json().get("title") not in ("TransientError", "AuthError"):
            failures.append(f"{case.method} {case.path} {request.get('json')!r} -> {answer.text[:300]}")

    for found in schema.get_all_operations():
        operation = found.ok()

        @seed(20261121)
        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def every(case: Any) -> None:
            send(case)

        every()
    client.close()
    assert failures == []
    assert "Traceback" not in served.daemon_log()
    assert served.client().get("/v1/health")["pid"] == address.pid


async def test_many_followers_of_a_run_are_served_at_once(shared_home: DaemonHome) -> None:
    run = await anyio.to_thread.run_sync(
        lambda: shared_home.start("code", code="import time\nfor n in range(5):\n    print(n); time.sleep(0.1)")
    )
    texts: list[str] = []

    async def follow() -> None:
        seen = await anyio.to_thread.run_sync(shared_home.follow, run["id"])
        texts.append(seen.text())

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(follow)
    assert texts == ["0\n1\n2\n3\n4\n"] * 8
