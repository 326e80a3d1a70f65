"""Changes of a large file in the engine of the file sync, against rsync."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.sync_first import remote_shell
from colab_bridge.agent.sync.disk.apply import Applier
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, DisplacedFile, Expected, Kind, signature_of
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.stage import Stage, make_calls
from colab_bridge.agent.sync.disk.trash import Trash
from colab_bridge.agent.sync.transfer.patch import Copy, copies_in_new, gaps, growth, pack_copies, unpack_copies
from colab_bridge.agent.sync.transfer.search import find_blocks
from colab_bridge.agent.sync.transfer.signatures import block_size_for, read_signatures, sign

__all__ = ["measure"]

_KEY = b"benchmark-key-of-32-bytes-length"
_CHUNK = 2**20
_CHANGE = 10**6


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure three changes of a file of 1 GiB; smaller when ``quick``."""
    for tool in ("rsync",):
        if shutil.which(tool) is None:
            raise BenchmarkError(f"{tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="colab-bridge-bench-") as folder:
        base = Path(folder)
        yield from _deltas(base, size=2**27 if quick else 2**30, rounds=1 if quick else 3)


def _forget(found: DisplacedFile) -> None:
    raise BenchmarkError(f"somebody else writes into {found.path}")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        raise BenchmarkError(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")


# -- the engine, deltas --------------------------------------------------------------------------------------------


def _deltas(base: Path, *, size: int, rounds: int) -> Iterator[Row]:
    old, new = base / "old", base / "new"
    _write_random(old, size)
    shell = remote_shell(base)
    half, more = size // 2, random.Random(7).randbytes(_CHANGE)
    changes: dict[str, list[tuple[int, int] | bytes]] = {
        "changed in the middle": [(0, half), more, (half + _CHANGE, size)],
        "put in front": [more, (0, size)],
        "appended": [(0, size), more],
    }
    for what, pieces in changes.items():
        _write_version(old, new, pieces)
        ours: list[float] = []
        others: dict[str, list[float]] = {"rsync --fsync": [], "rsync": []}
        sent = 0
        for _ in range(rounds):
            seconds, sent = _engine_delta(base, old, new)
            ours.append(seconds)
            for name, times in others.items():
                times.append(_rsync_delta(base, old, new, shell, fsync="fsync" in name))
        for name, times in others.items():
            yield Row(
                item="sync-delta",
                what=f"{size / 2**30:.3g} GiB, 1 MB {what}, durable",
                unit="s",
                ours=summarize(ours),
                other=summarize(times),
                against=name,
                target=Target(measure=Measure.RATIO, limit=0.5 if what == "appended" else 1.3),
            )
        limit = (1.05 if what == "appended" else 1.45) * 1e6
        yield Row(
            item="sync-delta",
            what=f"bytes for it, 1 MB {what}",
            unit="MB",
            ours=summarize([sent / 1e6]),
            target=Target(measure=Measure.VALUE, limit=limit / 1e6),
        )


def _write_random(path: Path, size: int) -> None:
    chance = random.Random(3)
    with path.open("wb") as file:
        for _ in range(size // _CHUNK):
            file.write(chance.randbytes(_CHUNK))


def _write_version(old: Path, new: Path, pieces: Sequence[tuple[int, int] | bytes]) -> None:
    with old.open("rb") as source, new.open("wb") as target:
        for piece in pieces:
            if isinstance(piece, bytes):
                target.write(piece)
                continue
            source.seek(piece[0])
            left = piece[1] - piece[0]
            while left and (data := source.read(min(left, _CHUNK))):
                target.write(data)
                left -= len(data)


def _engine_delta(base: Path, old: Path, new: Path) -> tuple[float, int]:
    """Bring ``new`` to a root that has ``old``; returns seconds and bytes, both ways together."""
    where = base / "remote"
    where.mkdir()
    shutil.copyfile(old, where / "file")
    with Root.open(where) as root:
        calls = make_calls(root)
        with closing(Stage(root, _KEY, calls)) as stage, closing(Trash(root, _KEY, calls)) as trash:
            # Both sides know the digest of the old version: it is in the ancestor.
            with old.open("rb") as source:
                old_digest = growth(source.fileno(), 0, b"", _KEY).digest
            stamps = signature_of((where / "file").stat())
            applier = Applier(root, stage, trash, on_displaced=_forget, known=lambda _: (stamps, old_digest))
            os.sync()
            started = time.perf_counter()
            sent = _bring(stage, where / "file", new, old_digest)
            digest, size = sent[1], new.stat().st_size
            op = ApplyOp(Action.WRITE, "file", Expected(Kind.FILE, old_digest), digest=digest, size=size)
            (result,) = applier.apply("delta", [op])
            seconds = time.perf_counter() - started
    if not result.ok:
        raise BenchmarkError(f"the delta was not applied: {result.sentence}")
    shutil.rmtree(where)
    return seconds, sent[0]


def _bring(stage: Stage, old: Path, new: Path, old_digest: bytes) -> tuple[int, bytes]:
    with old.open("rb") as there, new.open("rb") as here:
        old_size, new_size = old.stat().st_size, new.stat().st_size
        grown = growth(here.fileno(), old_size, old_digest, _KEY)
        sent = 0
        if grown.grew:
            copies = [Copy(0, 0, old_size)]
        else:
            signed = sign(there.fileno(), block_size_for(old_size))
            signatures = read_signatures(signed)
            copies = copies_in_new(find_blocks(here.fileno(), signatures), signatures)
            sent += len(signed)
        wire = pack_copies(copies)
        sent += len(wire)
        stage.begin_large(grown.digest, new_size)
        for offset, length in gaps(copies, new_size):
            for start in range(offset, offset + length, _CHUNK):
                here.seek(start)
                data = here.read(min(_CHUNK, offset + length - start))
                stage.put_chunk(grown.digest, start, data)
                sent += len(data)
        stage.fill(grown.digest, unpack_copies(wire, old_size, new_size), there.fileno())
        if not stage.finish(grown.digest):
            raise BenchmarkError("the rebuilt file is not the new file")
    return sent, grown.digest


def _rsync_delta(base: Path, old: Path, new: Path, shell: Path, *, fsync: bool) -> float:
    target = base / "there"
    shutil.copyfile(old, target)
    os.utime(target, (1, 1))
    os.sync()
    started = time.perf_counter()
    durable = ["--fsync"] if fsync else []
    _run(["rsync", "-a", "--no-whole-file", *durable, "-e", str(shell), str(new), f"there:{target}"])
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds
