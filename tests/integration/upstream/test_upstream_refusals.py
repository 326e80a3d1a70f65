"""Servers that refuse, that are none, or that speak the older framing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.asyncio.server import ServerConnection, serve

from colab_bridge.errors import AuthError, ColabBridgeError, RuntimeLostError, TransientError, UserError
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.kernels.upstream_ws import WebSocketUpstream
from colab_bridge.model.runtime import Endpoint, Secret
from colab_bridge.ports.upstream import LinkState, UpstreamEvents
from colab_bridge.testing.jupyter import JupyterChild, start_jupyter_server
from colab_bridge.wire.message import RawMessage
from tls_server import answering, self_signed

TOKEN = "very-secret-token"


def endpoint(port: int, *, scheme: str = "http", token: str = TOKEN, **more: Any) -> Endpoint:
    return Endpoint(
        base_url=f"{scheme}://127.0.0.1:{port}", headers={"Authorization": Secret(f"token {token}")}, **more
    )


async def failure(way_in: Endpoint, call: Callable[[JupyterServer], Coroutine[Any, Any, Any]]) -> ColabBridgeError:
    """Return the error of a call; it must be one line with a hint, and hold no token."""
    server = JupyterServer(way_in)
    try:
        with pytest.raises(ColabBridgeError) as caught:
            await call(server)
    finally:
        await server.aclose()
    error = caught.value
    assert error.hint
    assert "\n" not in error.message + error.hint
    assert TOKEN not in error.message + error.hint + repr(error.__cause__)
    return error


def page(status: str, body: str = "", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


@pytest.fixture(scope="module")
async def own_server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JupyterChild]:
    async with start_jupyter_server(tmp_path_factory.mktemp("root"), TOKEN) as child:
        yield child


@pytest.mark.anyio
async def test_a_kernel_lives_through_rest(own_server: JupyterChild) -> None:
    server = JupyterServer(endpoint(own_server.port))
    await server.check()
    assert "python3" in (await server.kernelspecs()).specs
    kernel_id = await server.start_kernel("python3")
    assert kernel_id in [kernel.id for kernel in await server.list_kernels()]
    await server.interrupt_kernel(kernel_id)
    await server.restart_kernel(kernel_id)
    await server.delete_kernel(kernel_id)
    await server.delete_kernel(kernel_id)
    assert await server.kernel(kernel_id) is None
    with pytest.raises(RuntimeLostError):
        await server.interrupt_kernel(kernel_id)
    await server.aclose()


@pytest.mark.anyio
async def test_a_server_without_a_token_accepts_kernels(tmp_path: Path) -> None:
    async with start_jupyter_server(tmp_path, "") as child:
        server = JupyterServer(child.endpoint())
        await server.delete_kernel(await server.start_kernel())
        await server.aclose()


@pytest.mark.anyio
async def test_a_wrong_token_is_an_auth_error(own_server: JupyterChild) -> None:
    error = await failure(endpoint(own_server.port, token="wrong"), JupyterServer.check)
    assert isinstance(error, AuthError)


@pytest.mark.anyio
async def test_an_unknown_kernelspec_names_those_that_exist(own_server: JupyterChild) -> None:
    error = await failure(endpoint(own_server.port), lambda server: server.start_kernel("cobol"))
    assert isinstance(error, UserError)
    assert "cobol" in error.message
    assert "python3" in error.hint


@pytest.mark.anyio
async def test_an_unreachable_server_is_named_with_host_and_port(free_tcp_port: int) -> None:
    error = await failure(endpoint(free_tcp_port), JupyterServer.check)
    assert isinstance(error, TransientError)
    assert f"127.0.0.1:{free_tcp_port}" in error.message


@pytest.mark.anyio
async def test_plain_http_behind_an_https_url_is_explained(
    own_server: JupyterChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colab_bridge.kernels.rest.CONNECT_TIMEOUT_S", 0.5)
    error = await failure(endpoint(own_server.port, scheme="https"), JupyterServer.check)
    assert isinstance(error, TransientError)
    assert "http://" in error.hint


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (page("200 OK", "<html>hello</html>"), UserError),
        (page("404 Not Found", "nothing here"), UserError),
        (page("302 Found", "", "Location: /hub/login?next=%2F"), AuthError),
        (page("302 Found", "", "Location: https://elsewhere.example/x"), UserError),
        (page("503 Service Unavailable", "down"), TransientError),
        (page("424 Failed Dependency", '{"message": "server not running"}'), TransientError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"[" * 17 * 2**20, UserError),
        (b"not http at all\r\n\r\n", TransientError),
    ],
    ids=["page", "404", "login", "elsewhere", "503", "424", "huge", "noise"],
)
async def test_what_is_no_jupyter_server_is_told_apart(response: bytes, kind: type[ColabBridgeError]) -> None:
    async with answering(response) as port:
        assert type(await failure(endpoint(port), JupyterServer.check)) is kind


@pytest.mark.anyio
async def test_a_self_signed_certificate_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    async with answering(page("200 OK", "{}"), self_signed(tmp_path)) as port:
        error = await failure(endpoint(port, scheme="https"), JupyterServer.check)
        assert isinstance(error, UserError)
        assert "SSL_CERT_FILE" in error.hint
        assert "verify_tls" in error.hint


@pytest.mark.anyio
async def test_ssl_cert_file_makes_a_self_signed_certificate_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(page("200 OK", '{"kernelspecs": {}}'), self_signed(tmp_path)) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        server = JupyterServer(endpoint(port, scheme="https"))
        await server.check()
        await server.aclose()


@pytest.mark.anyio
async def test_verify_tls_false_accepts_any_certificate(tmp_path: Path) -> None:
    async with answering(page("200 OK", '{"kernelspecs": {}}'), self_signed(tmp_path)) as port:
        server = JupyterServer(endpoint(port, scheme="https", verify_tls=False))
        await server.check()
        await server.aclose()


class States:
    """Collects what an upstream reports, and can be waited for."""

    def __init__(self) -> None:
        self.messages: list[RawMessage] = []
        self.states: list[tuple[LinkState, str]] = []
        self._wake = anyio.Event()

    @property
    def events(self) -> UpstreamEvents:
        return UpstreamEvents(message=self._message, state=self._state, gap=lambda reason: None)

    def _message(self, message: RawMessage) -> None:
        self.messages.append(message)
        self._wake.set()

    def _state(self, state: LinkState, text: str) -> None:
        self.states.append((state, text))
        self._wake.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        with anyio.fail_after(5):
            while not condition():
                self._wake = anyio.Event()
                await self._wake.wait()


@pytest.mark.anyio
async def test_a_refused_token_is_asked_for_once_more_before_it_is_reported(own_server: JupyterChild) -> None:
    asked: list[str] = []

    async def get_endpoint() -> Endpoint:
        asked.append("expired" if not asked else TOKEN)
        return endpoint(own_server.port, token=asked[-1])

    server = JupyterServer(endpoint(own_server.port))
    kernel_id = await server.start_kernel()
    seen = States()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(WebSocketUpstream(get_endpoint, kernel_id, "s").run, seen.events)
        await seen.until(lambda: seen.states[-1:] == [(LinkState.CONNECTED, "")])
        tasks.cancel_scope.cancel()
    await server.delete_kernel(kernel_id)
    await server.aclose()
    assert asked == ["expired", TOKEN]
    assert [state for state, _ in seen.states] == [LinkState.CONNECTING, LinkState.CONNECTED]


@pytest.mark.anyio
async def test_a_token_that_stays_refused_is_a_reason_to_reconnect(own_server: JupyterChild) -> None:
    async def get_endpoint() -> Endpoint:
        return endpoint(own_server.port, token="wrong")

    seen = States()
    async with anyio.create_task_group() as tasks:
        upstream = WebSocketUpstream(get_endpoint, "00000000-0000-0000-0000-000000000000", "s")
        tasks.start_soon(upstream.run, seen.events)
        await seen.until(lambda: [state for state, _ in seen.states[1:]] == [LinkState.RECONNECTING])
        tasks.cancel_scope.cancel()
    assert "token" in seen.states[-1][1]
    assert "wrong" not in seen.states[-1][1]


@pytest.mark.anyio
async def test_a_server_without_the_v1_subprotocol_is_spoken_to_in_json() -> None:
    received: list[dict[str, Any]] = []

    async def old_server(connection: ServerConnection) -> None:
        async for data in connection:
            assert isinstance(data, str)
            request = json.loads(data)
            received.append(request)
            answer = {
                "channel": "shell",
                "header": {"msg_id": "a", "msg_type": "kernel_info_reply"},
                "parent_header": request["header"],
                "metadata": {},
                "content": {"status": "ok"},
                "buffers": [],
            }
            await connection.send(json.dumps(answer))

    async with serve(old_server, "127.0.0.1", 0) as server:
        port = int(next(iter(server.sockets)).getsockname()[1])

        async def get_endpoint() -> Endpoint:
            return endpoint(port)

        upstream = WebSocketUpstream(get_endpoint, "k", "s")
        upstream.send(RawMessage.build("shell", "kernel_info_request", {}, msg_id="q", session="s"))
        seen = States()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upstream.run, seen.events)
            await seen.until(lambda: bool(seen.messages))
            tasks.cancel_scope.cancel()
    assert received[0]["channel"] == "shell"
    assert received[0]["header"]["msg_id"] == "q"
    assert seen.messages[0].parent_id == "q"
    assert seen.messages[0].msg_type == "kernel_info_reply"
