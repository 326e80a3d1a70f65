"""A large file of which 1 MB is new, brought to a runtime, against rsync in the same minute.

What is measured is the product: the daemon's engine here, a real agent process there, the channel between them, from
the look at the folder until the agreement is written down. Everything is verified and durable then; plain rsync makes
nothing durable, so it runs with ``--fsync`` too. Without a network, wall time is processor and disk alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Figure, Measure, Row, Target, summarize
from benchmarks.sync_first import remote_shell, run_tool
from benchmarks.sync_pair import folder_pair

__all__ = ["measure_appended", "measure_changed", "measure_inserted"]

_CHANGE_BYTES = 10**6
_PIECE_BYTES = 2**20
_NAME = "large.bin"
_RSYNC: dict[str, Sequence[str]] = {"rsync": (), "rsync --fsync": ("--fsync",)}


def measure_changed(*, quick: bool) -> Iterator[Row]:
    """Measure 1 MB written over in the middle of 1 GiB; of 128 MiB when ``quick``."""
    yield from _measure("changed in the middle", _write_over, quick=quick, most_mb=1.45, most_ratio=1.3)


def measure_inserted(*, quick: bool) -> Iterator[Row]:
    """Measure 1 MB put in front of 1 GiB; of 128 MiB when ``quick``."""
    yield from _measure("put in front", _put_in_front, quick=quick, most_mb=1.45, most_ratio=1.3)


def measure_appended(*, quick: bool) -> Iterator[Row]:
    """Measure 1 MB appended to 1 GiB; to 128 MiB when ``quick``."""
    yield from _measure("appended", _append, quick=quick, most_mb=1.05, most_ratio=0.5, most_s=2.0)


def _measure(
    what: str,
    change: Callable[[Path, bytes], None],
    *,
    quick: bool,
    most_mb: float,
    most_ratio: float,
    most_s: float | None = None,
) -> Iterator[Row]:
    if shutil.which("rsync") is None:
        raise BenchmarkError("rsync is not installed")
    size, rounds = (2**27, 2) if quick else (2**30, 4)
    with tempfile.TemporaryDirectory(prefix="colab-bridge-bench-") as folder:
        times, sent, peak = asyncio.run(_rounds(Path(folder), change, size, rounds))
    ours = times.pop("engine")
    what = f"{size / 2**30:.3g} GiB, 1 MB {what}"
    wall = Target(measure=Measure.RATIO, limit=most_ratio)
    for name, seconds in times.items():
        figures = summarize(ours[1:]), summarize(seconds[1:])
        yield _row(f"{what}, durable and agreed", "s", *figures, against=name, target=wall)
        least = summarize([min(ours[1:])]), summarize([min(seconds[1:])])
        yield _row(f"{what}, the quickest of {rounds}", "s", *least, against=name)
    if most_s is not None:
        limit = Target(measure=Measure.VALUE, limit=most_s)
        yield _row(f"{what}, one read on each side", "s", summarize(ours[1:]), target=limit)
    yield _row(f"{what}, the first one after a start", "s", summarize(ours[:1]))
    wire = Target(measure=Measure.VALUE, limit=most_mb)
    yield _row(f"{what}, bytes both ways", "MB", summarize(sent), target=wire)
    memory = Target(measure=Measure.VALUE, limit=200.0)
    yield _row(f"{what}, most memory of the agent", "MB", summarize([peak]), target=memory)


def _row(
    what: str,
    unit: str,
    ours: Figure,
    other: Figure | None = None,
    *,
    against: str = "",
    target: Target | None = None,
) -> Row:
    return Row(item="delta", what=what, unit=unit, ours=ours, other=other, against=against, target=target)


async def _rounds(
    base: Path, change: Callable[[Path, bytes], None], size: int, rounds: int
) -> tuple[dict[str, list[float]], list[float], float]:
    """Change the file again and again.

    Returns:
        Seconds of the engine and of rsync by name, megabytes of the engine, and the most memory of the agent in MB. The
        first round counts apart: no version before was seen by the same processes.
    """
    chance, old = random.Random(7), base / "old"
    shell = remote_shell(base)
    times: dict[str, list[float]] = {name: [] for name in ("engine", *_RSYNC)}
    sent: list[float] = []
    async with folder_pair(base / "pair") as pair:
        file = pair.here / _NAME
        _write_random(file, size)
        (pair.here / ".colabbridgeignore").write_text(f"!{_NAME}\n", encoding="ascii")  # both sides lift their limits
        await pair.controller.sync("sync")
        for turn in range(rounds + 1):
            shutil.copyfile(file, old)
            os.utime(old, (1, 1))
            change(file, chance.randbytes(_CHANGE_BYTES))
            for name in list(times) if turn % 2 else list(times)[::-1]:
                os.sync()
                begun = time.perf_counter()
                if name == "engine":
                    report = await pair.controller.sync("sync")
                    sent.append((report.sent + report.received) / 1e6)
                else:
                    await asyncio.to_thread(_rsync, file, old, base / "there", shell, _RSYNC[name])
                times[name].append(time.perf_counter() - begun)
            _let_go(pair.there / ".colab-bridge" / "trash")
        _must_be_equal(file, pair.there / _NAME)
        return times, sent, _peak_mb(pair.agent.pid)


def _let_go(folder: Path) -> None:
    """Give the memory back that old versions take in the page cache, as the file system does for what rsync replaced.

    A virtual machine pays much for memory that it has never used; otherwise only one of the two would pay it.
    """
    if hasattr(os, "posix_fadvise"):
        for path in folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _write_random(path: Path, size: int) -> None:
    chance = random.Random(3)
    with path.open("wb") as file:
        for _ in range(size // _PIECE_BYTES):
            file.write(chance.randbytes(_PIECE_BYTES))


def _write_over(path: Path, piece: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(piece)


def _put_in_front(path: Path, piece: bytes) -> None:
    other = path.with_name(".made-new.swp")
    with other.open("wb") as target, path.open("rb") as source:
        target.write(piece)
        shutil.copyfileobj(source, target, _PIECE_BYTES)
    other.replace(path)


def _append(path: Path, piece: bytes) -> None:
    with path.open("ab") as file:
        file.write(piece)


def _rsync(new: Path, old: Path, target: Path, shell: Path, options: Sequence[str]) -> None:
    # rsync makes a file of its own and moves it into place, so the old version stays what it is.
    os.link(old, target)
    run_tool(["rsync", "-a", "--no-whole-file", *options, "-e", str(shell), str(new), f"there:{target}"])
    target.unlink()


def _must_be_equal(one: Path, two: Path) -> None:
    if subprocess.run(["cmp", "-s", str(one), str(two)], check=False).returncode:
        raise BenchmarkError("the copy differs from the original")


def _peak_mb(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchmarkError("the system does not tell how much memory was used")
