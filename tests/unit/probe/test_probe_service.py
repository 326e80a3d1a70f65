"""The probe as the agent's daemon calls it, on this machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from colab_bridge.agent.probe.processes import read_processes
from colab_bridge.agent.probe.service import ProbeService, make
from colab_bridge.agent.process.service import CallFailure

T = TypeVar("T")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows processes as files"),
]


class FakePeer:
    """The agent's process, as far as a probe sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = asyncio.get_running_loop()

    def notify(
        self, method: str, params: Mapping[str, Any] | None = None, payload: bytes = b"", *, bulk: bool = False
    ) -> bool:
        return True

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(function, *args)

    def hints(self) -> Mapping[str, str]:
        return {}

    def disk_room(self) -> int:
        return 1 << 30


class FakeStream:
    """Takes what the probe sends."""

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        self.id = 2
        self.name = name
        self.params = params
        self.resume_from = 1
        self.sent: list[Mapping[str, Any]] = []
        self.news = asyncio.Event()

    def can_send(self, size_bytes: int = 0) -> bool:
        return True

    def send(
        self,
        header: Mapping[str, Any] | None,
        payload: bytes = b"",
        *,
        number: int | None = None,
        final: bool = True,
        prompt: bool = False,
    ) -> int:
        self.sent.append(header or {})
        self.news.set()
        return len(self.sent)

    def consumed(self, seq: int) -> None:
        """Nothing is sent to a probe."""

    def close(self, code: str = "", message: str = "") -> None:
        """A probe does not close."""


@pytest.fixture
async def probe(tmp_path: Path) -> ProbeService:
    service = make()
    service.start(FakePeer(tmp_path))
    return service


@pytest.fixture
def kernel() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A process that looks like a kernel's, and has started another one."""
    name = uuid.uuid4().hex
    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'import sys; sys.stdin.read()'])"
    argv = [sys.executable, "-S", "-c", code, "-f", f"/run/kernel-{name}.json"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        try:
            yield name, process
        finally:
            for child in read_processes().values():
                if child.parent == process.pid:
                    subprocess.run(["kill", "-9", str(child.pid)], check=False)
            process.kill()


async def call(probe: ProbeService, verb: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    return (await probe.call(verb, params or {}, b"", 5.0)).result


async def test_it_tells_about_the_machine(probe: ProbeService) -> None:
    found = await call(probe, "machine")
    assert found["machine"]["memory_total"] > found["machine"]["memory_used"] > 0
    assert found["processes_visible"] is True


async def test_it_finds_a_kernel_its_child_and_what_it_waits_for(probe: ProbeService, kernel: Any) -> None:
    name, process = kernel
    with anyio.fail_after(20):
        while (found := await call(probe, "kernel", {"kernel": name}))["verdict"]["code"] != "child":
            await anyio.sleep(0.05)
    assert found["pid"] == process.pid
    assert [member["parent"] for member in found["family"][1:]] == [process.pid]


async def test_a_kernel_that_is_not_here_is_said_to_be_invisible(probe: ProbeService) -> None:
    with pytest.raises(CallFailure) as failure:
        await call(probe, "kernel", {"kernel": uuid.uuid4().hex})
    assert failure.value.code == "not_found"


@pytest.mark.parametrize(
    ("verb", "params", "code"),
    [
        ("nothing", {}, "unknown"),
        ("kernel", {}, "bad_request"),
        ("kernel", {"kernel": "x" * 101}, "bad_request"),
    ],
)
async def test_odd_calls_are_refused(probe: ProbeService, verb: str, params: dict[str, Any], code: str) -> None:
    with pytest.raises(CallFailure) as failure:
        await call(probe, verb, params)
    assert failure.value.code == code


async def test_a_stream_is_refused(probe: ProbeService) -> None:
    with pytest.raises(CallFailure):
        probe.open(FakeStream("probe.live", {}))
