"""Looking at a folder: walks against the bare system calls and against rsync, and what a watcher costs.

A barrier waits for exactly this: a cookie where changes are reported, a walk where they are not.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISDIR

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.disk.watch import Watcher
from colab_bridge.agent.sync.ignore import IgnoreRules

__all__ = ["measure"]

_KEY = b"benchmark-key-of-32-bytes-length"
_FOLDERS = 221
_MEMORY_SCRIPT = """
import resource, sys
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.disk.watch import Watcher
from colab_bridge.agent.sync.ignore import IgnoreRules
with Root.open(sys.argv[1]) as root:
    watcher = Watcher(root, IgnoreRules())
    watcher.start()
    scanner = Scanner(root, IgnoreRules(), b"k" * 32, StatCache(), probe(root))
    tree = scanner.walk().tree
    tree = scanner.walk().tree
    tree.kept
    watcher.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure looks at 10,000 files in 221 folders, and the memory that 200,000 take; smaller when ``quick``."""
    files, rounds = (2_000, 5) if quick else (10_000, 25)
    with tempfile.TemporaryDirectory(prefix="colab-bridge-bench-") as folder:
        source = Path(folder) / "source"
        _make_tree(source, files)
        with Root.open(source) as root:
            yield from _walks(root, files, rounds)
            yield from _watching(root, rounds)
    yield _memory(20_000 if quick else 200_000)


def _walks(root: Root, files: int, rounds: int) -> Iterator[Row]:
    facts = probe(root)
    scanner = Scanner(root, IgnoreRules(), _KEY, StatCache(), facts)
    first = [_timed(Scanner(root, IgnoreRules(), _KEY, StatCache(), facts).walk) for _ in range(3)]
    tree = scanner.walk().tree
    if scanner.walk().tree is not tree:
        raise BenchmarkError("a walk without changes gave another tree")
    ways: dict[str, Callable[[], object]] = {"walk": scanner.walk, "bare": lambda: _bare(root), "rsync": _rsync(root)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(_timed(way))
    # Minima of a row: the machine does other things meanwhile, and what they take is no property of a walk.
    best = {name: summarize([min(values)]) for name, values in times.items()}
    what = f"walk, {files:,} files, nothing changed"
    for other, against, limit in (
        ("bare", "list and stat alone", 1.2),
        ("rsync", "rsync -a --dry-run", 0.6),
    ):
        target = Target(measure=Measure.RATIO, limit=limit)
        yield Row(
            item="sync-disk", what=what, unit="ms", ours=best["walk"], other=best[other], against=against, target=target
        )
    yield Row(
        item="sync-disk",
        what=f"first walk, {files:,} files read",
        unit="ms",
        ours=summarize(first),
        measure=Measure.VALUE,
    )


def _watching(root: Root, rounds: int) -> Iterator[Row]:
    watcher = Watcher(root, IgnoreRules())
    started = _timed(watcher.start)
    try:
        scanner = Scanner(root, IgnoreRules(), _KEY, StatCache(), probe(root))
        tree = scanner.walk().tree
        target = next(root.path.glob("*/*/*.py"))
        settles = [_timed(watcher.settle) for _ in range(rounds * 20)]
        looks = []
        for number in range(rounds * 4):
            with target.open("a") as out:
                out.write(f"# {number}\n")
            begun = time.perf_counter()
            settled = watcher.settle()
            if not settled.healthy:
                raise BenchmarkError(f"the watcher lost events: {settled.reason}")
            tree = scanner.refresh(tree, settled.dirty).tree
            looks.append((time.perf_counter() - begun) * 1000)
    finally:
        watcher.close()
    promise = Target(measure=Measure.VALUE, limit=0.2)
    yield Row(item="sync-disk", what="settle, nothing changed", unit="ms", ours=summarize(settles), target=promise)
    yield Row(item="sync-disk", what="settle and tree, one file changed", unit="ms", ours=summarize(looks))
    yield Row(item="sync-disk", what=f"start watching {_FOLDERS} folders", unit="ms", ours=summarize([started]))


def _memory(files: int) -> Row:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None, prefix="colab-bridge-bench-") as folder:
        source = Path(folder) / "source"
        for number in range(files):
            part = number % 2_000
            path = source / f"package_{part % 97}" / f"part_{part}"
            if number < 2_000:
                path.mkdir(parents=True)
            (path / f"a_module_with_a_name_{number}.py").write_bytes(b"%d" % number)
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY_SCRIPT, str(source)], check=False, capture_output=True, text=True
        )
    if done.returncode:
        raise BenchmarkError(f"the scan failed: {done.stderr.strip()[-200:]}")
    return Row(
        item="sync-disk",
        what=f"memory of a process that knows {files:,} files",
        unit="MB",
        ours=summarize([float(done.stdout)]),
        target=Target(measure=Measure.VALUE, limit=200.0),
    )


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def _bare(root: Root) -> int:
    """Do what no walk can do without: list every folder, stat every entry, both by descriptor."""
    assert root.fd is not None
    return _bare_folder(root.fd)


def _bare_folder(fd: int) -> int:
    count = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            seen = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
            count += 1
            if S_ISDIR(seen.st_mode):
                below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                try:
                    count += _bare_folder(below)
                finally:
                    os.close(below)
    return count


def _rsync(root: Root) -> Callable[[], object]:
    if shutil.which("rsync") is None:
        raise BenchmarkError("rsync is not installed")
    copy = root.path.parent / "copy"
    subprocess.run(["rsync", "-a", f"{root.path}/", str(copy)], check=True)
    command = ["rsync", "-a", "--dry-run", f"{root.path}/", str(copy)]
    return lambda: subprocess.run(command, check=True)


def _make_tree(source: Path, files: int) -> None:
    chance = random.Random(20_261_121)
    for number in range(files):
        folder = source / f"package_{number % 13}" / f"part_{number % _FOLDERS}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"module_{number}.py").write_bytes(chance.randbytes(chance.randrange(500, 7_300)))
