"""A small change while another program writes a lot to the same disk, as a training run does that saves checkpoints.

A sync that waited for everything on that disk to be durable would wait for the other program's bytes: then the slowest
changes take seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, summarize
from benchmarks.sync_first import make_tree
from benchmarks.sync_pair import folder_pair

__all__ = ["measure"]

_CHANGE_BYTES = 4096
_PAUSE_S = 0.02
_WRITER = """
import sys
block = bytes(2**20)
with open(sys.argv[1], "wb") as out:
    for _ in range(int(sys.argv[2])):
        out.write(block)
"""


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure changes of 4 KB while 1.5 GB are written beside them; less when ``quick``."""
    with tempfile.TemporaryDirectory(prefix="colab-bridge-bench-") as folder:
        yield asyncio.run(_beside_a_writer(Path(folder), 256 if quick else 1_500))


@contextlib.contextmanager
def _writing(path: Path, mib: int) -> Iterator[subprocess.Popen[bytes]]:
    os.sync()
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(mib)])
    try:
        yield writer
    finally:
        writer.kill()
        writer.wait()
        path.unlink(missing_ok=True)


async def _beside_a_writer(folder: Path, mib: int) -> Row:
    ours: list[float] = []
    async with folder_pair(folder / "pair") as pair:
        make_tree(pair.here, 1_000)
        await pair.controller.sync("sync")
        target = next(pair.here.rglob("*.py"))
        with _writing(folder / "checkpoint", mib) as writer:
            while writer.poll() is None:
                target.write_bytes(os.urandom(_CHANGE_BYTES))
                begun = time.perf_counter()
                await pair.controller.sync("pre")
                ours.append((time.perf_counter() - begun) * 1000)
                await asyncio.sleep(_PAUSE_S)
        if writer.returncode:
            raise BenchmarkError("the other program could not write")
    return Row(
        item="sync-busy",
        what=f"barrier before a run, one 4 KB change, while another program writes {mib:,} MiB",
        unit="ms",
        ours=summarize(ours),
        measure=Measure.VALUE,
    )
