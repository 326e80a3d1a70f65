"""What a change of a large file costs on the wire of a real Jupyter server, both ways together.

``COLAB_BRIDGE_CAMPAIGN=1`` makes the file 1 GiB (``make campaign-sync``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from sync_rig import SyncRig

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

MIB = 1 << 20
CAMPAIGN = bool(os.environ.get("COLAB_BRIDGE_CAMPAIGN"))
SIZE = 1024 * MIB if CAMPAIGN else 64 * MIB
CHANGED = 10**6
#: What is new, the blocks that it touches, signatures where they are needed, and frames around all that.
A_CHANGE = 1_450_000
AN_APPEND = 1_050_000


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(os.urandom(CHANGED))


def written_over(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, os.urandom(CHANGED), path.stat().st_size // 2)
    finally:
        os.close(fd)


def put_in_front(path: Path) -> None:
    other = path.with_name(".large.swp")
    with other.open("wb") as target, path.open("rb") as source:
        target.write(os.urandom(CHANGED))
        while piece := source.read(MIB):
            target.write(piece)
    other.replace(path)


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


async def in_step(rig: SyncRig) -> None:
    """Sync until both sides agree, large results too."""
    with anyio.fail_after(300):
        while True:
            report = await rig.call("post", "sync", {})
            if not report["deferred"] and not report["failed"]:
                assert report["holds"] == []
                return


async def test_a_change_of_a_large_file_crosses_a_real_line_for_little_more_than_itself(rig: SyncRig) -> None:
    (rig.project / ".colabbridgeignore").write_text("!large.bin\n")
    here = rig.project / "large.bin"
    whole = here.with_name(".large.swp")
    with whole.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    whole.replace(here)
    # A file above 512 MiB from the runtime asks a person first: they said yes.
    await rig.call("post", "sync/include", {"path": "large.bin"})
    await in_step(rig)
    there = rig.workspace / "large.bin"
    assert digest_of(there) == digest_of(here)
    changes: list[tuple[Callable[[Path], None], Path, int]] = [
        (grown, here, AN_APPEND),
        (written_over, here, A_CHANGE),
        (put_in_front, here, A_CHANGE),
        (grown, there, AN_APPEND),
        (written_over, there, A_CHANGE),
        (put_in_front, there, A_CHANGE),
    ]
    for change, path, most in changes:
        before = rig.relay.bytes_up + rig.relay.bytes_down
        change(path)
        await in_step(rig)
        crossed = rig.relay.bytes_up + rig.relay.bytes_down - before
        print(f"{change.__name__} {'here' if path == here else 'there'}: {crossed:,} bytes crossed")
        assert digest_of(there) == digest_of(here)
        assert crossed <= most
