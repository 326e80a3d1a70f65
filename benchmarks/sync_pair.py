"""Two folders kept in step: the daemon's engine here, a real agent process there, the channel between them.

Everything is as in the product but for the Jupyter server, which a local runtime does not need. Barriers are held
against the bare round trip and the bare walk, measured in turn with them; the first copy against rsync in the same
minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.sync_first import make_tree, remote_shell
from colab_bridge.agent.garbage import look_seldom
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.kernels.agent_link import AgentLink, AgentStatus
from colab_bridge.kernels.agent_local import LocalDialer
from colab_bridge.ports.clock import SystemClock
from colab_bridge.ports.upstream import LinkState
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.link import LinkCaller
from colab_bridge.sync.local import LocalOptions, LocalSide
from colab_bridge.sync.remote import RemoteFiles

__all__ = ["FolderPair", "folder_pair", "measure"]

_READY_S = 30.0
_CHANGE_BYTES = 4096
_VERY_MANY_ROUNDS = 30


class FolderPair:
    """One pair of folders with its agent.

    Args:
        folder: Where everything lies.
        link: To the agent.

    Attributes:
        here: This machine's folder.
        there: The runtime's folder.
        controller: Keeps them in step.
    """

    def __init__(self, folder: Path, link: AgentLink) -> None:
        clock = SystemClock()
        self.here, self.there = folder / "project", folder / "workspace"
        self.link = link
        self.here.mkdir(parents=True, exist_ok=True)
        self.local = LocalSide(self.here, folder / "state", clock, LocalOptions())
        self.store = SyncStore(folder / "state" / "pair.db", clock.time())
        remote = RemoteFiles(LinkCaller(link), root=str(self.there), key=self.local.key, packs=False)
        self.controller = SyncController("bench", self.local, remote, self.store, clock)

    @property
    def agent(self) -> psutil.Process:
        """The agent's process."""
        return psutil.Process(int(self.link.status.info["pid"]))

    async def close(self) -> None:
        """Let go of the folders."""
        await self.local.aclose()
        self.store.close()


@contextlib.asynccontextmanager
async def folder_pair(folder: Path) -> AsyncIterator[FolderPair]:
    """Start an agent, and make a pair of folders below ``folder`` for it; everything is closed at the end."""
    look_seldom()  # as the daemon does, whose part this process has
    (folder / "runtime").mkdir(parents=True)
    dialer = LocalDialer(sys.executable, folder / "bundles", [folder / "runtime"], "bench", "bench")
    link = AgentLink(dialer, "bench", "bench@here", backoff=lambda: itertools.repeat(0.1))
    told: list[AgentStatus] = []
    task = asyncio.create_task(link.run(told.append))
    try:
        if (status := await link.ready(_READY_S)).state is not LinkState.CONNECTED:
            raise BenchmarkError(f"the agent did not start: {status.text}")
        pair = FolderPair(folder, link)
        try:
            yield pair
        finally:
            await pair.close()
            await link.call("agent.stop")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure barriers, one change, a renamed folder and the first copy; smaller when ``quick``."""
    if shutil.which("rsync") is None:
        raise BenchmarkError("rsync is not installed")
    files, rounds = (2_000, 15) if quick else (10_000, 60)
    with tempfile.TemporaryDirectory(prefix="colab-bridge-bench-") as folder:
        yield from asyncio.run(_in_step(Path(folder), files=files, rounds=rounds))
        yield from asyncio.run(_first_copy(Path(folder) / "copy", files=files, rounds=2 if quick else 5))
    # Very many small files: a disk of a small machine may not have room for their names.
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="colab-bridge-bench-") as folder:
        yield from asyncio.run(_very_many(Path(folder), 20_000 if quick else 200_000))


async def _in_step(folder: Path, *, files: int, rounds: int) -> list[Row]:
    async with folder_pair(folder / "pair") as pair:
        make_tree(pair.here, files)
        await pair.controller.sync("sync")
        await pair.controller.watch_remote()
        with Root.open(pair.there) as root:
            scanner = Scanner(root, IgnoreRules(), b"k" * 32, StatCache(), probe(root))
            scanner.walk()
            times = await _barriers(pair, scanner.walk, rounds)
        trips = await _round_trips(pair)
        rename = await _rename(pair)
    what = f"{files:,} files"
    pre, trip, post, walk, change = (summarize(times[name]) for name in ("pre", "trip", "post", "walk", "change"))
    slower = walk if walk.median > trip.median else trip
    return [
        Row(
            item="sync",
            what=f"barrier before a run, {what}, nothing changed",
            unit="ms",
            ours=pre,
            other=trip,
            against="bare round trip",
            target=Target(measure=Measure.DIFFERENCE, limit=2.0),
        ),
        Row(
            item="sync",
            what=f"barrier after a run, {what}, nothing changed",
            unit="ms",
            ours=post,
            other=slower,
            against="bare walk" if slower is walk else "bare round trip",
            target=Target(measure=Measure.DIFFERENCE, limit=10.0),
        ),
        Row(
            item="sync",
            what="barrier before a run, one 4 KB change, durable there and remembered here",
            unit="ms",
            ours=change,
            other=trip,
            against="bare round trip",
            measure=Measure.DIFFERENCE,
        ),
        _value("round trips of a barrier with one 4 KB change", "", float(trips), 1.0),
        _value(f"content for a renamed folder with {what}", "bytes", rename[0], 0.0),
        _value(f"renamed folder with {what}", "s", rename[1], 1.0),
    ]


def _value(what: str, unit: str, value: float, limit: float) -> Row:
    target = Target(measure=Measure.VALUE, limit=limit)
    return Row(item="sync", what=what, unit=unit, ours=summarize([value]), target=target)


async def _barriers(pair: FolderPair, walk: Callable[[], object], rounds: int) -> dict[str, list[float]]:
    controller, times = pair.controller, dict[str, list[float]]()

    async def timed(name: str, work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        result = work()
        if asyncio.iscoroutine(result):
            await result
        times.setdefault(name, []).append((time.perf_counter() - begun) * 1000)

    target = next(pair.here.rglob("*.py"))
    for number in range(rounds):
        await timed("trip", lambda: pair.link.call("files.stat", {"path": "."}))
        await timed("pre", lambda: controller.sync("pre"))
        await timed("walk", walk)
        controller.run_happened()
        await timed("post", lambda: controller.sync("post"))
        target.write_bytes(b"%08d" % number + os.urandom(_CHANGE_BYTES - 8))
        await timed("change", lambda: controller.sync("pre"))
    return times


async def _round_trips(pair: FolderPair) -> int:
    (pair.here / "one_change.py").write_bytes(os.urandom(_CHANGE_BYTES))
    return (await pair.controller.sync("pre")).round_trips


async def _rename(pair: FolderPair) -> tuple[float, float]:
    for folder in list(pair.here.iterdir()):
        if folder.is_dir() and folder.name != ".colab-bridge":
            folder.rename(pair.here / f"renamed_{folder.name}")
    begun = time.perf_counter()
    report = await pair.controller.sync("pre")
    if report.holds:
        raise BenchmarkError("a renamed folder was held")
    return float(report.sent + report.received), time.perf_counter() - begun


async def _first_copy(folder: Path, *, files: int, rounds: int) -> list[Row]:
    source = folder / "source"
    make_tree(source, files)
    shell = remote_shell(folder)
    ours: list[float] = []
    others: list[float] = []
    for number in range(rounds):
        async with folder_pair(folder / str(number)) as pair:
            shutil.copytree(source, pair.here, dirs_exist_ok=True)
            os.sync()
            begun = time.perf_counter()
            await pair.controller.sync("sync")
            ours.append((time.perf_counter() - begun) * 1000)
        os.sync()
        target = folder / "target"
        begun = time.perf_counter()
        command = ["rsync", "-a", "-e", str(shell), f"{source}/", f"there:{target}"]
        await asyncio.to_thread(subprocess.run, command, check=True)
        others.append((time.perf_counter() - begun) * 1000)
        shutil.rmtree(target)
        shutil.rmtree(folder / str(number))
    return [
        Row(
            item="sync",
            what=f"first copy of {files:,} files, agreed and remembered, durable",
            unit="ms",
            ours=summarize(ours),
            other=summarize(others),
            against="rsync, not durable",
            target=Target(measure=Measure.RATIO, limit=1.2),
        )
    ]


async def _timed(work: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await work
    return (time.perf_counter() - begun) * 1000


async def _very_many(folder: Path, files: int) -> list[Row]:
    times: dict[str, list[float]] = {"trip": [], "pre": []}
    async with folder_pair(folder / "pair") as pair:
        for root in (pair.here, pair.there):
            for number in range(files):
                part = root / f"package_{number % 97}" / f"part_{number % 1_940}"
                if number < 1_940:
                    part.mkdir(parents=True)
                (part / f"a_module_with_a_name_{number}.py").write_bytes(b"%d" % number)
        await pair.controller.sync("sync")
        await pair.controller.sync("post")
        for _ in range(_VERY_MANY_ROUNDS):
            times["trip"].append(await _timed(pair.link.call("files.stat", {"path": "."})))
            times["pre"].append(await _timed(pair.controller.sync("pre")))
        size = pair.agent.memory_info().rss / 1e6
    return [
        Row(
            item="sync",
            what=f"barrier before a run, {files:,} files, nothing changed",
            unit="ms",
            ours=summarize(times["pre"]),
            other=summarize(times["trip"]),
            against="bare round trip",
            target=Target(measure=Measure.DIFFERENCE, limit=5.0),
        ),
        _value(f"memory (RSS) of an agent that keeps {files:,} files in step", "MB", size, 200.0),
    ]
