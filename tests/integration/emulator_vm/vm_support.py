"""A machine for tests, and a client that speaks to it as Google's own do."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from colab_bridge.testing.colab.vm.contracts import DataFault, MachineSpec, TokenVerdict
from colab_bridge.testing.colab.vm.machine import Machine

TOKEN_HEADER = "X-Colab-Runtime-Proxy-Token"
WAIT_S = 30.0


@dataclass
class ControlSide:
    """Stands for the control side: who may come in, what is propagated, which faults happen."""

    verdicts: dict[str, TokenVerdict] = field(default_factory=dict)
    assigned: bool = True
    propagated: dict[str, str] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    faults: dict[str, DataFault] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    on_release: Callable[[], Any] | None = None

    def check_token(self, endpoint: str, port: int, token: str) -> TokenVerdict:
        if not self.assigned:
            return TokenVerdict.UNASSIGNED
        if token == token_for(endpoint, port):
            return TokenVerdict.VALID
        return self.verdicts.get(token, TokenVerdict.WRONG)

    def match(
        self,
        plane: str,
        method: str,
        path: str,
        *,
        endpoint: str = "",
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> DataFault | None:
        assert plane == "data"
        self.seen.append((method, path))
        return self.faults.pop(path, None)

    def credentials(self, endpoint: str, authtype: str) -> str | None:
        return self.propagated.get(authtype)

    async def unassign(self, endpoint: str) -> None:
        self.released.append(endpoint)
        if self.on_release is not None:
            await self.on_release()


def token_for(endpoint: str, port: int) -> str:
    return f"good-{endpoint}-{port}"


@contextlib.asynccontextmanager
async def machine(folder: Path, control: ControlSide | None = None, **values: Any) -> AsyncIterator[Machine]:
    """Start a machine; nothing of it is left afterwards."""
    control = control or ControlSide()
    started = await start(folder, control, **values)
    try:
        yield started
    finally:
        await started.stop()
        assert not started.spec.folder.exists()


async def start(folder: Path, control: ControlSide, *, shared: bool = False, **values: Any) -> Machine:
    endpoint = values.pop("endpoint", "m-s-kkb-usc1f1-test")
    spec = MachineSpec(endpoint=endpoint, folder=folder / endpoint, **values)
    spec.folder.mkdir()
    return await Machine.start(
        spec,
        check_token=control.check_token,
        faults=control,
        credentials=control.credentials,
        unassign=control.unassign,
        shared=shared,
    )


def client(vm: Machine, port: int = 8080, **headers: str) -> httpx2.AsyncClient:
    """Return a client of one port with the token in the header."""
    own = {TOKEN_HEADER: token_for(vm.spec.endpoint, port)} | {k.replace("_", "-"): v for k, v in headers.items()}
    return httpx2.AsyncClient(base_url=vm.url(port), headers=own, trust_env=False, timeout=WAIT_S)


def ws_url(vm: Machine, path: str, port: int = 8080) -> str:
    return vm.url(port).replace("http://", "ws://") + path


def ws(vm: Machine, path: str, **more: Any) -> connect:
    """Return a WebSocket to be opened, with the token in the header."""
    headers = {TOKEN_HEADER: token_for(vm.spec.endpoint, 8080), **more.pop("headers", {})}
    return connect(ws_url(vm, path), additional_headers=headers, max_size=None, proxy=None, **more)


@dataclass
class Outcome:
    """What an execution gave."""

    text: str = ""
    error: str = ""
    reply: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


#: Gets the type and the fields of a side request; returns the reply's value without its number, or None for no reply
#: (but may have sent some itself).
Answer = Callable[[str, dict[str, Any]], dict[str, Any] | Awaitable[None] | None]


class KernelClient:
    """One WebSocket to one kernel, in the way of a client of Google's."""

    def __init__(self, socket: ClientConnection, session: str, style: str = "vs") -> None:
        self.socket = socket
        self.session = session
        self.style = style

    async def send(self, channel: str, kind: str, content: dict[str, Any], parent: dict[str, Any] | None = None) -> str:
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": self.session,
            "username": "username",
            "version": "5.0",
            "date": "2026-09-01T10:00:00.000Z",
        }
        message = {
            "channel": channel,
            "header": header,
            "parent_header": parent or {},
            "metadata": {},
            "content": content,
        }
        await self.socket.send(json.dumps(message))
        return str(header["msg_id"])

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT_S):
            frame = await self.socket.recv()
        return json.loads(frame) | {"frame": "text"} if isinstance(frame, str) else _binary(frame)

    async def run(self, code: str, answer: Answer | None = None, *, typed: str = "") -> Outcome:
        """Execute code to its end, answering side requests and (with what is typed) prompts."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True, "stop_on_error": True}
        msg_id = await self.send("shell", "execute_request", content)
        outcome = Outcome()
        idle = False
        while not (idle and outcome.reply):
            message = await self.receive()
            outcome.messages.append(message)
            kind, content = message["header"]["msg_type"], message["content"]
            mine = message["parent_header"].get("msg_id") == msg_id
            if kind == "stream":
                outcome.text += content["text"]
            elif kind == "error":
                outcome.error = f"{content['ename']}: {content['evalue']}"
            elif kind == "input_request":
                outcome.prompts.append(content["prompt"])
                await self.send("stdin", "input_reply", {"value": typed}, message["header"])
            elif kind == "colab_request":
                await self._answer(message, answer, outcome)
            elif kind == "execute_reply" and mine:
                outcome.reply = content
            elif kind == "status" and mine and content["execution_state"] == "idle":
                idle = True
        return outcome

    async def _answer(self, message: dict[str, Any], answer: Answer | None, outcome: Outcome) -> None:
        assert message["frame"] == "text"
        outcome.requests.append(message)
        number = message["metadata"].get("colab_msg_id")
        kind = message["metadata"]["colab_request_type"]
        value = answer(kind, message["content"]["request"]) if answer else None
        if inspect.isawaitable(value):
            await value
        elif value is not None:
            value = {"type": "colab_reply", "colab_msg_id": number} | value
            parent = {} if self.style == "vs" else message["header"]
            await self.send("stdin", "input_reply", {"value": value}, parent)


def _binary(frame: bytes) -> dict[str, Any]:
    """Decode a frame with buffers: a big-endian count, then as many offsets."""
    (count,) = struct.unpack_from(">I", frame)
    offsets = [*struct.unpack_from(f">{count}I", frame, 4), len(frame)]
    parts = [frame[start:end] for start, end in itertools.pairwise(offsets)]
    return json.loads(parts[0]) | {"buffers": parts[1:], "frame": "binary"}


@contextlib.asynccontextmanager
async def kernel(vm: Machine, style: str = "vs") -> AsyncIterator[KernelClient]:
    """Start a kernel, connect to it, and delete it afterwards."""
    async with client(vm) as http:
        started = await http.post("/api/kernels", json={"name": "python3", "path": None})
        assert started.status_code == 201, started.text
        kernel_id = started.json()["id"]
        try:
            async with attached(vm, kernel_id, style) as found:
                yield found
        finally:
            await http.delete(f"/api/kernels/{kernel_id}")


@contextlib.asynccontextmanager
async def attached(vm: Machine, kernel_id: str, style: str = "vs") -> AsyncIterator[KernelClient]:
    session = uuid.uuid4().hex
    async with ws(vm, f"/api/kernels/{kernel_id}/channels?session_id={session}") as socket:
        yield KernelClient(socket, session, style)
