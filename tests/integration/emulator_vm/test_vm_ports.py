"""Forwarded ports of an emulated machine, and how much of a stream is held on the way."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from colab_bridge.testing.colab.vm.machine import Machine
from colab_bridge.testing.jupyter import free_port
from vm_support import TOKEN_HEADER, WAIT_S, client, kernel, token_for, ws_url

pytestmark = pytest.mark.anyio

SERVER = """
import http.server, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write((self.path + '|' + str(self.headers.get('X-Colab-Runtime-Proxy-Token'))).encode())
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', PORT), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
"""


async def test_a_server_in_a_kernel_is_reached_through_its_own_url_and_token(vm: Machine) -> None:
    port = free_port()
    async with kernel(vm) as cells, client(vm, port) as http:
        assert (await http.get("/")).status_code == 502
        await cells.run(SERVER.replace("PORT", str(port)))
        answer = await http.get("/page?a=1&token=x")
        assert (answer.status_code, answer.text) == (200, "/page?a=1|None")
        other = await http.get("/page", headers={TOKEN_HEADER: token_for(vm.spec.endpoint, 8080)})
        assert other.status_code == 404
        for name in ("Origin", "Referer"):
            foreign = await http.get("/page", headers={name: "http://localhost:3000/x"})
            assert foreign.status_code == 404
            own = await http.get("/page", headers={name: vm.url(port)})
            assert own.status_code == 200
        assert (await http.get("/page", headers={"Host": "localhost"})).status_code == 404


async def test_a_port_has_the_same_url_ever_after_and_each_port_its_own(vm: Machine) -> None:
    assert vm.url(7860) == vm.url(7860)
    assert len({vm.url(7860), vm.url(7861), vm.url()}) == 3


@contextlib.asynccontextmanager
async def echo(vm: Machine) -> AsyncIterator[str]:
    """A WebSocket server on the machine's network that sends back what it gets; yields the URL through the proxy."""

    async def serve_one(connection: ServerConnection) -> None:
        async for frame in connection:
            await connection.send(frame)

    async with serve(serve_one, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        token = token_for(vm.spec.endpoint, port)
        yield ws_url(vm, f"/?colab-runtime-proxy-token={token}", port)


@pytest.mark.parametrize("size_bytes", [0, 1, 70_000, 20_000_000])
async def test_frames_of_any_size_pass_a_forwarded_port_unchanged(vm: Machine, size_bytes: int) -> None:
    frame = hashlib.sha256(b"x").digest() * (size_bytes // 32) + bytes(size_bytes % 32)
    async with echo(vm) as url, connect(url, max_size=None, proxy=None) as socket, asyncio.timeout(WAIT_S):
        await socket.send(frame)
        assert await socket.recv() == frame


@contextlib.asynccontextmanager
async def raw_server(vm: Machine, serve_one) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_large_body_is_a_stream_in_both_directions(vm: Machine) -> None:
    size = 12_000_000
    digest = hashlib.sha256(bytes(size)).hexdigest()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield bytes(1_000_000)

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        body = b""
        while (length := int((await reader.readline()).strip(), 16)) > 0:
            body += await reader.readexactly(length)
            await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + hashlib.sha256(body).hexdigest().encode() + body)
        await writer.drain()
        writer.close()

    async with raw_server(vm, serve_one) as port, client(vm, port) as http:
        answer = await http.post("/up", content=pieces())
    assert answer.content[:64].decode() == digest
    assert hashlib.sha256(answer.content[64:]).hexdigest() == digest


async def test_a_client_that_does_not_read_holds_the_server_back(vm: Machine) -> None:
    written, stalled = 0, asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                writer.write(bytes(100_000))
                try:
                    async with asyncio.timeout(0.5):
                        await writer.drain()
                except TimeoutError:
                    stalled.set()
                    await writer.drain()
                written += 100_000
        writer.close()

    async with raw_server(vm, serve_one) as port, client(vm, port) as http:
        async with http.stream("GET", "/endless") as answer, asyncio.timeout(WAIT_S):
            await stalled.wait()
            assert answer.status_code == 200
        assert written < 50_000_000


async def test_what_is_no_http_gets_a_bad_request_and_an_end(vm: Machine) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(vm.url().rpartition(":")[2]))
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    async with asyncio.timeout(WAIT_S):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("path", ["/api/colab/resources", "/files/content/head.txt"])
@pytest.mark.parametrize("headers", [{}, {TOKEN_HEADER: "bad"}])
async def test_a_head_has_the_length_and_no_body_and_the_connection_goes_on(
    vm: Machine, path: str, headers: dict[str, str]
) -> None:
    async with client(vm) as http:
        await http.put("/api/contents/content/head.txt", json={"type": "file", "format": "text", "content": "abc"})
        whole = await http.get(path, headers=headers)
        head = await http.head(path, headers=headers)
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
        assert (await http.get("/api")).status_code == 200


async def test_one_connection_serves_many_requests(vm: Machine) -> None:
    async with client(vm) as http:
        before = vm.link.accepted
        for _ in range(5):
            assert (await http.get("/api")).status_code == 200
            assert (await http.post("/api/contents/content/none", json={"type": "no"})).status_code >= 400
        assert vm.link.accepted == before + 1
