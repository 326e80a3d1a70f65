"""A large file both ways through a link that is cut five times: byte-equal, little sent twice, little memory.

``COLAB_BRIDGE_CAMPAIGN=1`` makes it 2 GiB (``make campaign-sync``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest

from colab_bridge.errors import TransientError
from sync_rig import SyncRig

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]

MIB = 1 << 20
CAMPAIGN = bool(os.environ.get("COLAB_BRIDGE_CAMPAIGN"))
SIZE = 2048 * MIB if CAMPAIGN else 160 * MIB
CUTS = 5
#: What a cut may cost at most: chunks that were under way and not yet acknowledged.
A_CUT = 20 * MIB
MEMORY = 200 * MIB


def write_noise(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def agent_pid(workspace: Path) -> int:
    """Return the process that holds the stage of the workspace open."""
    stage = str(workspace / ".colab-bridge" / "stage")
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if any(os.readlink(link) == stage for link in Path(f"/proc/{process.pid}/fd").iterdir()):
                return int(process.pid)
    raise AssertionError("no agent is running")


async def in_step(rig: SyncRig) -> None:
    """Sync until both sides agree; a cut may end a call, and what has arrived then is kept."""
    for _ in range(2 * CUTS + 5):
        try:
            report = await rig.call("post", "sync", {})
        except TransientError:
            continue
        if not report["deferred"] and not report["failed"]:
            assert report["holds"] == []
            return
    raise AssertionError("not in step")


async def carried(rig: SyncRig, counter: Callable[[], int], size: int, cuts: int) -> int:
    """Let the sync go on and bring both sides into step while the link is cut; returns the bytes that crossed it."""
    before, made = counter(), 0

    async def cut() -> None:
        nonlocal made
        while made < cuts:
            while counter() - before < size * (made + 1) // (cuts + 1):
                await anyio.sleep(0.01)  # nothing tells of bytes that pass; the sync that carries them ends this task
            rig.relay.reset()
            made += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cut)
        await rig.call("post", "sync/resume", {})
        await in_step(rig)
        tasks.cancel_scope.cancel()
    assert made == cuts
    return counter() - before


async def write_paused(rig: SyncRig, path: Path, size: int) -> None:
    """Write a file that does not travel before :func:`carried` counts what crosses the link."""
    await rig.call("post", "sync/pause", {})
    await anyio.to_thread.run_sync(write_noise, path, size)


async def test_a_large_file_crosses_a_link_that_is_cut_five_times_with_little_sent_twice(rig: SyncRig) -> None:
    up, down = (lambda: rig.relay.bytes_up), (lambda: rig.relay.bytes_down)
    (rig.project / "colab-bridge.toml").write_text("[sync]\nmax_file_mb = 4096\n")
    await write_paused(rig, rig.project / "uncut.bin", 16 * MIB)
    overhead = await carried(rig, up, 16 * MIB, 0) / (16 * MIB)
    here, there = rig.project / "huge.bin", rig.workspace / "huge.bin"
    if CAMPAIGN:
        # More than the limits that ask a person first: they said yes, of a file that was small then.
        here.write_bytes(b"small")
        await rig.call("post", "sync/include", {"path": "huge.bin"})
    await write_paused(rig, here, SIZE)
    sent = await carried(rig, up, SIZE, CUTS)
    assert digest_of(here) == digest_of(there)
    allowed = max(0.05 * SIZE, 0 if CAMPAIGN else CUTS * A_CUT)
    assert sent <= overhead * (SIZE + allowed)

    await write_paused(rig, there, SIZE)
    received = await carried(rig, down, SIZE, CUTS)
    assert digest_of(here) == digest_of(there)
    assert received <= overhead * (SIZE + allowed)
    peaks = [peak_bytes(agent_pid(rig.workspace)), peak_bytes(rig.home.pid)]
    again = [f"{crossed / overhead / SIZE - 1:.2%}" for crossed in (sent, received)]
    print(f"sent again: {again[0]} up, {again[1]} down; most memory: {[peak // 2**20 for peak in peaks]} MiB")
    assert max(peaks) <= MEMORY
