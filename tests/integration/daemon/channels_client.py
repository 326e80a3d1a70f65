"""A front end on the daemon's channels WebSocket, as the proxy kernel is one."""

from __future__ import annotations

import contextlib
import json
import struct
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from colab_bridge.client.daemon import DaemonClient
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage
from daemon_home import DaemonHome

_SEQ = struct.Struct("<Q")
_SEQ_AND_LENGTH = struct.Struct("<QQ")


class Channels:
    """One connection; everything that comes is kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session = uuid.uuid4().hex
        self.numbered: list[tuple[int, RawMessage]] = []
        # Asked for after each of thousands of messages.
        self._by_request: defaultdict[tuple[str, str], list[RawMessage]] = defaultdict(list)
        self.texts: list[dict[str, Any]] = []
        self.frames = 0
        self.close_code: int | None = None
        self._changed = anyio.Event()

    @property
    def messages(self) -> list[RawMessage]:
        return [message for _, message in self.numbered]

    @property
    def last_seq(self) -> int:
        return self.numbered[-1][0]

    async def read(self) -> None:
        """Take in what comes until the connection ends."""
        try:
            async for data in self.socket:
                if isinstance(data, str):
                    self.texts.append(json.loads(data))
                else:
                    self._take(data)
                self._wake()
        except ConnectionClosed:
            pass
        self.close_code = self.socket.close_code
        self._wake()

    def _take(self, data: bytes) -> None:
        self.frames += 1
        if not self.texts[0]["batch"]:
            self._keep(_SEQ.unpack_from(data)[0], data[_SEQ.size :])
            return
        position = 0
        while position < len(data):
            seq, length = _SEQ_AND_LENGTH.unpack_from(data, position)
            position += _SEQ_AND_LENGTH.size + length
            self._keep(seq, data[position - length : position])

    def _keep(self, seq: int, data: bytes) -> None:
        message = decode_v1(data)
        self.numbered.append((seq, message))
        self._by_request[message.parent_id, message.msg_type].append(message)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Callable[[], object], timeout_s: float = 15) -> None:
        with anyio.fail_after(timeout_s):
            while not condition():
                await self._changed.wait()

    async def send(
        self, channel: str, msg_type: str, content: dict[str, Any], *, msg_id: str | None = None, **more: Any
    ) -> str:
        msg_id = msg_id or uuid.uuid4().hex
        message = RawMessage.build(channel, msg_type, content, msg_id=msg_id, session=self.session, **more)
        await self.socket.send(encode_v1(message))
        return msg_id

    async def submit(self, code: str, *, allow_stdin: bool = False, msg_id: str | None = None) -> str:
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin,
            "stop_on_error": True,
        }
        return await self.send("shell", "execute_request", content, msg_id=msg_id)

    def of(self, msg_id: str, msg_type: str) -> list[RawMessage]:
        return self._by_request[msg_id, msg_type]

    def text(self, msg_id: str) -> str:
        return "".join(str(m.content_fields()["text"]) for m in self.of(msg_id, "stream"))

    def ended(self, msg_id: str) -> bool:
        idle = any(m.content_fields()["execution_state"] == "idle" for m in self.of(msg_id, "status"))
        return idle and bool(self.of(msg_id, "execute_reply"))

    async def execute(self, code: str, timeout_s: float = 20) -> str:
        msg_id = await self.submit(code)
        await self.until(lambda: self.ended(msg_id), timeout_s)
        return msg_id


@contextlib.asynccontextmanager
async def dial(
    client: DaemonClient, kernel: str, after: int = 0, *, batch: bool = False
) -> AsyncIterator[ClientConnection]:
    """Open the bare WebSocket; nothing is read from it."""
    address = client.address
    url = f"ws://{address.host}/v1/kernels/{kernel}/channels?after={after}&batch={int(batch)}"
    headers = {"Authorization": f"Bearer {address.token}"}
    async with connect(url, additional_headers=headers, max_size=None, ping_interval=None, proxy=None) as socket:
        yield socket


@contextlib.asynccontextmanager
async def channels(
    client: DaemonClient, kernel: str, after: int = 0, *, batch: bool = False
) -> AsyncIterator[Channels]:
    """Connect, and read in the background."""
    async with dial(client, kernel, after, batch=batch) as socket, anyio.create_task_group() as tasks:
        found = Channels(socket)
        tasks.start_soon(found.read)
        await found.until(lambda: found.texts)
        yield found
        await socket.close()


def front_end_kernel(home: DaemonHome, notebook: str = "n.ipynb", **members: Any) -> dict[str, Any]:
    """Ask for a kernel as the proxy kernel of a notebook does."""
    identity = {"front_end": "test", "notebook": str(home.project / notebook)}
    body = {"project": str(home.project), "cwd": str(home.project), "identity": identity, **members}
    return home.client().post("/v1/kernels", body)


def kernel_ids(home: DaemonHome) -> set[str]:
    """Return the kernels that the daemon holds."""
    return {str(kernel["id"]) for kernel in home.client().get("/v1/kernels")["kernels"]}
