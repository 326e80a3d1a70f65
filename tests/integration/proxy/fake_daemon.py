"""A daemon that follows docs/design/daemon-api.md for front-end kernels and has a scripted kernel behind it.

It runs in a thread of the test process, on a real port, and writes a real ``daemon.json``.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from colab_bridge import __version__
from colab_bridge._util.ids import new_id
from colab_bridge._util.process import identify
from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage

TOKEN = "t" * 43


class FakeKernel:
    """A record with numbers, and answers by the text of the code."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.id = new_id("kernel")
        self.entries: list[tuple[int, bytes]] = []
        self.requests: list[RawMessage] = []
        self.known: set[str] = set()
        self.changed = asyncio.Event()
        self.seq = 0
        self.state = "idle"

    def publish(self, message: RawMessage) -> None:
        self.seq += 1
        self.entries.append((self.seq, encode_v1(message)))
        self.changed.set()
        self.changed = asyncio.Event()

    def send(self, channel: str, msg_type: str, content: dict[str, Any], parent: RawMessage | None = None) -> None:
        header = parent.header_fields() if parent else {}
        self.publish(RawMessage.build(channel, msg_type, content, msg_id=new_id("k"), session="remote", parent=header))

    def take(self, message: RawMessage) -> None:
        if message.msg_id in self.known:
            return
        self.known.add(message.msg_id)
        self.requests.append(message)
        if message.msg_type == "execute_request":
            self._execute(message, message.content_fields()["code"])
        elif message.msg_type == "input_reply":
            asked = next(
                r for r in self.requests if r.msg_type == "execute_request" and r.content_fields()["code"] == "ask"
            )
            self.finish(asked, message.content_fields()["value"])
        elif message.msg_type.endswith("_request"):
            self.send("iopub", "status", {"execution_state": "busy"}, message)
            content = {"status": "ok", "echo": message.content_fields(), "protocol_version": "5.4"}
            self.send(message.channel, message.msg_type.replace("_request", "_reply"), content, message)
            self.send("iopub", "status", {"execution_state": "idle"}, message)
        else:
            header = message.header_fields()
            self.publish(
                RawMessage.build(
                    "iopub",
                    "echo",
                    message.content_fields(),
                    msg_id=new_id("k"),
                    session="remote",
                    parent=header,
                    buffers=message.buffers,
                )
            )

    def _execute(self, request: RawMessage, code: str) -> None:
        self.send("iopub", "status", {"execution_state": "busy"}, request)
        if code == "ask":
            self.send("stdin", "input_request", {"prompt": "?", "password": False}, request)
        elif code == "die":
            self.send("iopub", "status", {"execution_state": "restarting"})
        elif code != "hang":
            self.finish(request, code)

    def finish(self, request: RawMessage, text: str) -> None:
        self.send("iopub", "stream", {"name": "stdout", "text": text}, request)
        self.send("shell", "execute_reply", {"status": "ok", "execution_count": 1}, request)
        self.send("iopub", "status", {"execution_state": "idle"}, request)


class FakeDaemon:
    """Start it with :meth:`start`, and change its behaviour by its attributes from any thread."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.kernels: dict[str, FakeKernel] = {}
        self.refusal: ColabBridgeError | None = None
        self.acquire_delay_s = 0.0
        self.calls: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.answer_extra: dict[str, Any] = {}
        self.attached = 0
        self.sockets: set[WebSocket] = set()
        self.dropped_uploads = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life --

    def start(self) -> None:
        app = Starlette(
            routes=[
                Route("/v1/health", self._health),
                Route("/v1/status", self._health),
                Route("/v1/kernels", self._create, methods=["POST"]),
                Route("/v1/kernels/{id}/interrupt", self._interrupt, methods=["POST"]),
                Route("/v1/kernels/{id}", self._delete, methods=["DELETE"]),
                WebSocketRoute("/v1/kernels/{id}/channels", self._channels),
            ]
        )
        config = uvicorn.Config(
            app, port=0, log_level="critical", lifespan="off", ws="websockets-sansio", ws_max_size=1 << 30
        )
        self._server = uvicorn.Server(config)
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(self._server, ready))
        self._thread.start()
        port = ready.result(10)
        run = self.home / "run"
        run.mkdir(parents=True, exist_ok=True)
        me = identify(os.getpid())
        assert me is not None
        document = {
            "schema": 1,
            "pid": me.pid,
            "create_time": me.create_time,
            "port": port,
            "token": TOKEN,
            "version": __version__,
            "started_at": time.time(),
        }
        (run / "daemon.json").write_text(json.dumps(document), encoding="utf-8")

    def _run(self, server: uvicorn.Server, ready: Future[int]) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            ready.set_result(server.servers[0].sockets[0].getsockname()[1])
            await task

        asyncio.run(serve())

    def stop(self) -> None:
        """End it as a killed process ends: connections are cut, nothing is said."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._server.force_exit = True
        self.cut()
        self._thread.join(10)
        self._server = None
        (self.home / "run" / "daemon.json").unlink(missing_ok=True)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run something in the daemon's event loop and return its result."""
        assert self._loop is not None
        result: Future[Any] = Future()

        def work() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        self._loop.call_soon_threadsafe(work)
        return result.result(10)

    def cut(self) -> None:
        """Cut all WebSockets without a word."""

        def abort() -> None:
            for websocket in list(self.sockets):
                websocket.scope["cut"].set()

        self.call(abort)

    @property
    def kernel(self) -> FakeKernel:
        return list(self.kernels.values())[-1]

    def executions(self) -> list[RawMessage]:
        """Return what arrived to be executed, on any kernel."""
        kernels = list(self.kernels.values())
        return [r for kernel in kernels for r in list(kernel.requests) if r.msg_type == "execute_request"]

    # -- routes --

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "runs": []})

    async def _create(self, request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        self.bodies.append(await request.json())
        self.calls.append("create")
        await asyncio.sleep(self.acquire_delay_s)
        if self.refusal is not None:
            return JSONResponse(self.refusal.to_problem(), self.refusal.http_status)
        kernel = FakeKernel(self.bodies[-1])
        self.kernels[kernel.id] = kernel
        answer = {"id": kernel.id, "state": "idle", "reattached": False, "first_seq": 1, "next_seq": 1}
        return JSONResponse({**answer, **self.answer_extra}, 201)

    async def _interrupt(self, request: Request) -> Response:
        kernel = self.kernels[request.path_params["id"]]
        self.calls.append("interrupt")
        for hanging in [r for r in kernel.requests if r.msg_type == "execute_request"]:
            if hanging.content_fields()["code"] == "hang":
                kernel.finish(hanging, "interrupted")
        return Response(status_code=202)

    async def _delete(self, request: Request) -> Response:
        self.calls.append("delete" + ("?restart" if request.query_params.get("restart") == "1" else ""))
        self.kernels.pop(request.path_params["id"], None)
        return Response(status_code=204)

    async def _channels(self, websocket: WebSocket) -> None:
        assert websocket.headers["authorization"] == f"Bearer {TOKEN}"
        await websocket.accept()
        kernel = self.kernels.get(websocket.path_params["id"])
        if kernel is None:
            await websocket.close(4404, "no such kernel")
            return
        websocket.scope["cut"] = asyncio.Event()
        self.sockets.add(websocket)
        self.attached += 1
        try:
            await websocket.send_json({"type": "attached", "state": kernel.state, "next_seq": kernel.seq + 1})
            tasks = [
                asyncio.create_task(self._down(websocket, kernel, int(websocket.query_params["after"]))),
                asyncio.create_task(self._up(websocket, kernel)),
                asyncio.create_task(websocket.scope["cut"].wait()),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            if websocket.scope["cut"].is_set():
                await websocket.close(1011)
        finally:
            self.attached -= 1
            self.sockets.discard(websocket)

    async def _down(self, websocket: WebSocket, kernel: FakeKernel, after: int) -> None:
        while True:
            changed = kernel.changed
            for seq, body in [entry for entry in kernel.entries if entry[0] > after]:
                await websocket.send_bytes(seq.to_bytes(8, "little") + body)
                after = seq
            await changed.wait()

    async def _up(self, websocket: WebSocket, kernel: FakeKernel) -> None:
        try:
            while True:
                message = decode_v1(await websocket.receive_bytes())
                if self.dropped_uploads:
                    # As if the daemon had been killed with these bytes unread.
                    self.dropped_uploads -= 1
                else:
                    kernel.take(message)
        except WebSocketDisconnect:
            return

    def refuse(self) -> None:
        self.refusal = UserError("no kernelspec is called 'x'", hint="choose one with --kernel", code="CB-USER-030")
