"""A tunnel service with a real kernel, and a daemon's end of its streams that needs no link."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jupyter_client.connect import write_connection_file

from colab_bridge.agent.events import StreamData
from colab_bridge.agent.faults import BufferFull
from colab_bridge.agent.tunnel.service import TunnelService
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage

WAIT_S = 60.0
WINDOW_BYTES = 4 * 1024 * 1024


class FakePeer:
    """What the agent process gives its services, without the process."""

    def __init__(self, folder: Path, runtime_folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.loop = asyncio.get_running_loop()
        self._runtime_folder = runtime_folder
        self.is_linked = True
        self.early: list[RawMessage] = []
        self.on_early: Callable[[], None] = lambda: None
        self._thread = ThreadPoolExecutor(max_workers=1)

    def notify(self, method: str, params: Mapping[str, Any], payload: bytes = b"") -> bool:
        if method == "tunnel.early":
            self.early.append(decode_v1(payload))
            self.on_early()
        return True

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self.loop.run_in_executor(self._thread, function, *args)

    def hints(self) -> Mapping[str, str]:
        return {"jupyter_runtime_dir": str(self._runtime_folder)}

    def linked(self) -> bool:
        return self.is_linked

    def disk_room(self) -> int:
        return 1 << 40

    def close(self) -> None:
        self._thread.shutdown()


class DaemonEnd:
    """One stream ``tunnel.kernel``: stands for the channel and the daemon at once; consumes at once if told so."""

    def __init__(self, kernel: str, resume_from: int = 1, *, reading: bool = True) -> None:
        self.id = 2
        self.name = "tunnel.kernel"
        self.params = {"kernel": kernel}
        self.resume_from = resume_from
        self.entries: list[tuple[int, int, bytes]] = []
        self.closed_with: tuple[str, str] | None = None
        self.taken: list[int] = []
        self.handler: Any = None
        self.keep = True
        self.total_bytes = 0
        self._reading = reading
        self._used = 0
        self._blocked = False
        self._parts: list[bytes] = []
        self._kind = -1
        self._seq = 0
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # -- what the service calls

    def can_send(self, size_bytes: int = 0) -> bool:
        room = self._used + size_bytes <= WINDOW_BYTES and self.closed_with is None
        self._blocked |= not room
        return room

    def send(
        self, header: Any, payload: bytes = b"", *, number: int | None = None, final: bool = True, prompt: bool = False
    ) -> int:
        if self._used + len(payload) > WINDOW_BYTES:
            raise BufferFull
        assert number is not None
        assert not self.entries or number > self.entries[-1][0]
        self._used += len(payload)
        if header is not None:
            assert not self._parts
            self._kind = header["k"]
        self._parts.append(payload)
        self.total_bytes += len(payload)
        if final:
            if self.keep:
                self.entries.append((number, self._kind, b"".join(self._parts)))
            self._parts = []
            self._news.set()
        if self._reading:
            self._loop.call_soon(self._consume_all)
        return number

    @property
    def waiting_bytes(self) -> int:
        return self._used

    def consumed(self, seq: int) -> None:
        self.taken.append(seq)

    def close(self, code: str = "", message: str = "") -> None:
        self.closed_with = (code, message)
        self._news.set()

    # -- what a test does

    def _consume_all(self) -> None:
        self._used = 0
        if self._blocked and self.closed_with is None and self.handler is not None:
            self._blocked = False
            self.handler.writable()

    def stop_reading(self) -> None:
        self._reading = False

    def read_on(self) -> None:
        self._reading = True
        self._consume_all()

    def up(self, message: RawMessage, *, cut_at: int = 100_000) -> int:
        frame = encode_v1(message)
        pieces = [frame[at : at + cut_at] for at in range(0, len(frame), cut_at)]
        for index, piece in enumerate(pieces):
            self._seq += 1
            self.handler.data(
                StreamData(
                    stream=2,
                    seq=self._seq,
                    number=self._seq,
                    header={} if not index else None,
                    payload=piece,
                    final=index + 1 == len(pieces),
                )
            )
        return self._seq

    def execute(self, code: str, msg_id: str = "", **content: Any) -> str:
        msg_id = msg_id or uuid.uuid4().hex
        self.up(execute_request(code, msg_id, **content))
        return msg_id

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        async def wait() -> None:
            while not condition():
                self._news.clear()
                await self._news.wait()

        try:
            await asyncio.wait_for(wait(), WAIT_S)
        except TimeoutError:
            raise AssertionError(
                f"{what or 'condition'} not met; notes {self.notes()}, last {self.briefs()[-12:]}"
            ) from None

    async def until_done(self, msg_id: str) -> None:
        await self.until(lambda: self.is_done(msg_id), f"end of {msg_id}")

    def downs(self) -> list[RawMessage]:
        return [decode_v1(body) for _number, kind, body in self.entries if kind == 0]

    def ups(self) -> list[RawMessage]:
        return [decode_v1(body) for _number, kind, body in self.entries if kind == 1]

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _number, kind, body in self.entries if kind == 2]

    def briefs(self) -> list[str]:
        return [f"{m.channel}:{m.msg_type}" for m in self.downs()]

    def of(self, msg_id: str) -> list[RawMessage]:
        return [message for message in self.downs() if message.parent_id == msg_id]

    def is_done(self, msg_id: str) -> bool:
        # Looked at from the end, and cheaply: floods bring tens of thousands of entries.
        tag, replied, idle = msg_id.encode(), False, False
        for _number, kind, body in reversed(self.entries[-200:]):
            if kind == 0 and tag in body[:4096]:
                replied |= b"_reply" in body[:600]
                idle |= b'"idle"' in body
        return replied and idle

    def stdout(self, msg_id: str) -> str:
        return "".join(m.content_fields()["text"] for m in self.of(msg_id) if m.msg_type == "stream")


def execute_request(code: str, msg_id: str, **content: Any) -> RawMessage:
    fields = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True}
    return RawMessage.build(
        "shell", "execute_request", {**fields, "stop_on_error": True, **content}, msg_id=msg_id, session="daemon"
    )


class Kernel:
    """A real ipykernel with a connection file, as a server would start it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.id = str(uuid.uuid4())
        self.path = folder / f"kernel-{self.id}.json"
        options.setdefault("key", uuid.uuid4().hex.encode())
        write_connection_file(str(self.path), kernel_name="python3", **options)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Kernel:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ipykernel_launcher", "-f", str(self.path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "IPYTHONDIR": str(self.folder / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
            cwd=self.folder,
            start_new_session=True,
        )
        return self

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Scene:
    """A kernel, and a service that can be replaced by the next one."""

    def __init__(self, folder: Path, kernel: Kernel, **options: Any) -> None:
        self.folder = folder
        self.kernel = kernel
        self.options = options
        self.service: TunnelService
        self.peer: FakePeer
        self.begin()

    def begin(self) -> None:
        self.peer = FakePeer(self.folder / "tunnel", self.kernel.folder)
        self.service = TunnelService(**{"reserve_bytes": 0, **self.options})
        self.service.start(self.peer)

    async def end(self) -> None:
        await self.service.stop()
        self.peer.close()

    def open(self, resume_from: int = 1, **options: Any) -> DaemonEnd:
        end = DaemonEnd(self.kernel.id, resume_from, **options)
        end.handler = self.service.open(end)
        return end

    async def status(self) -> dict[str, Any]:
        reply = await self.service.call("kernels", {}, b"", 5.0)
        (status,) = reply.result["kernels"]
        return status

    async def until_state(self, state: str) -> dict[str, Any]:
        for _ in range(int(WAIT_S / 0.05)):
            status = await self.status()
            if status["state"] == state:
                return status
            await asyncio.sleep(0.05)  # the service has no event for this; the daemon does not need one
        raise AssertionError(f"never {state}: {status}")


@contextlib.asynccontextmanager
async def tunnelled(
    tmp_path: Path, *, start: bool = True, kernel: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[Scene]:
    made = Kernel(tmp_path / "runtime", **(kernel or {}))
    if start:
        made.start()
    scene = Scene(tmp_path, made, **options)
    try:
        yield scene
    finally:
        await scene.end()
        made.kill()
        shutil.rmtree(tmp_path / "tunnel", ignore_errors=True)
