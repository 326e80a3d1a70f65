"""The engine of the file sync against rsync and tar: two processes and a pipe between them, no network.

What is measured is what the product does: scan and digests on one side, batches of small files, verified staging, two
times ``syncfs``, moves that never overwrite. rsync and tar make nothing durable and check nothing; they run in turn
with the engine, in the same minute.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from colab_bridge.agent.sync.disk.apply import Applier
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, DisplacedFile, Expected, Kind, signature_of
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.stage import Stage, make_calls
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.disk.trash import Trash
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.service_wire import pack_envelope, unpack_envelope
from colab_bridge.agent.sync.transfer.batches import BATCH_BYTES, pack_batch, unpack_batch
from colab_bridge.agent.sync.transfer.compress import Codec
from colab_bridge.agent.sync.transfer.patch import Copy, copies_in_new, gaps, growth, pack_copies, unpack_copies
from colab_bridge.agent.sync.transfer.search import find_blocks
from colab_bridge.agent.sync.transfer.signatures import block_size_for, read_signatures, sign
from colab_bridge.agent.sync.tree import Directory, File, walk

__all__ = ["make_tree", "measure", "remote_shell"]

_KEY = b"benchmark-key-of-32-bytes-length"
_FRAME = struct.Struct(">I")
_CHUNK = 2**20
_CHANGE = 10**6
_RSYNC_SHELL = '#!/bin/sh\nshift\nexec sh -c "$*"\n'


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure the first copy of 10,000 files, and three changes of a file of 1 GiB; smaller when ``quick``."""
    for tool in ("rsync", "tar"):
        if shutil.which(tool) is None:
            raise BenchmarkError(f"{tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="colab-bridge-bench-") as folder:
        base = Path(folder)
        yield from _first_copy(base, files=2_000 if quick else 10_000, rounds=3 if quick else 7)
        yield from _deltas(base, size=2**27 if quick else 2**30, rounds=1 if quick else 3)


def _first_copy(base: Path, *, files: int, rounds: int) -> Iterator[Row]:
    source = base / "source"
    raw = make_tree(source, files)
    shell = remote_shell(base)
    target = base / "target"
    commands = {
        "rsync": ["rsync", "-a", "-e", str(shell), f"{source}/", f"there:{target}"],
        "tar": ["sh", "-c", f"tar -C {source} -cf - . | tar -C {target} -xf -"],
    }
    packed = {"engine": (), "engine, packed": (Codec.ZLIB,)}
    ways = [*packed, *commands]
    times: dict[str, list[float]] = {name: [] for name in ways}
    sent = raw
    for turn in range(rounds):
        for name in (*ways[turn % len(ways) :], *ways[: turn % len(ways)]):
            target.mkdir()
            receiver = _Receiver(target) if name in packed else None
            os.sync()
            started = time.perf_counter()
            if receiver is None:
                _run(commands[name])
            else:
                sent = min(sent, receiver.copy(source, packed[name]))
            times[name].append((time.perf_counter() - started) * 1000)
            if receiver is not None:
                receiver.close()
                _must_be_equal(source, target)
            shutil.rmtree(target)
    promise = Target(measure=Measure.RATIO, limit=1.2)
    for ours, other, target_ratio in (
        ("engine", "rsync", promise),
        ("engine", "tar", None),
        ("engine, packed", "rsync", None),
    ):
        yield Row(
            item="sync-copy",
            what=f"first copy of {files:,} files, durable{ours.removeprefix('engine')}",
            unit="ms",
            ours=summarize(times[ours]),
            other=summarize(times[other]),
            against=f"{other}, not durable",
            target=target_ratio,
        )
    yield Row(
        item="sync-copy",
        what=f"bytes sent for them, of {raw / 1e6:.1f} MB",
        unit="MB",
        ours=summarize([sent / 1e6]),
        other=summarize([raw / 1e6]),
        against="raw",
        target=Target(measure=Measure.RATIO, limit=0.30),
    )


def make_tree(source: Path, files: int) -> int:
    """Write files that look like source code: the standard library in pieces of 0.5 to 7.3 kB."""
    chance = random.Random(20_261_121)
    library = [path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py"))]
    text = b"".join(library)
    total = start = 0
    for number in range(files):
        folder = source / f"package_{number // 770}" / f"part_{number // 45}"
        folder.mkdir(parents=True, exist_ok=True)
        length = chance.randrange(500, 7_300)
        start = start + length if start + 2 * length < len(text) else 0
        data = b"# module %d\n" % number + text[start : start + length]
        (folder / f"module_{number}.py").write_bytes(data)
        total += len(data)
    return total


def remote_shell(base: Path) -> Path:
    """Return a program that rsync takes for its remote shell: both of its processes run here."""
    path = base / "shell"
    path.write_text(_RSYNC_SHELL, encoding="ascii")
    path.chmod(0o700)
    return path


def _forget(found: DisplacedFile) -> None:
    raise BenchmarkError(f"somebody else writes into {found.path}")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        raise BenchmarkError(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")


def _must_be_equal(one: Path, two: Path) -> None:
    command = ["diff", "-r", "-x", ".colab-bridge", str(one), str(two)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        raise BenchmarkError("the copy differs from the original")


# -- the engine, first copy ----------------------------------------------------------------------------------------


class _Receiver:
    """A second process that waits for a tree, as an agent does; starting it is not part of the measurement."""

    def __init__(self, target: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.sync_copy", str(target)]
        here = Path(__file__).parent.parent
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here)
        self._must_say(b"ready")

    def _must_say(self, word: bytes) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != word:
            self._process.kill()
            self._process.wait()
            raise BenchmarkError("the receiving side failed")

    def copy(self, source: Path, allowed: tuple[Codec, ...] = ()) -> int:
        """Send a tree; returns the bytes that went through the pipe, when everything is in place."""
        assert self._process.stdin is not None
        sent = _send_tree(source, self._process.stdin, allowed)
        self._process.stdin.close()
        self._must_say(b"done")
        return sent

    def close(self) -> None:
        """Wait for its end."""
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(30)


class _Outgoing:
    """Sends what a scan reads, while it goes on: operations for the files of a batch, and their content."""

    def __init__(self, pipe: IO[bytes], allowed: tuple[Codec, ...]) -> None:
        self.sent = 0
        self._pipe = pipe
        self._allowed = allowed
        self._ops: list[ApplyOp] = []
        self._contents: dict[bytes, bytes] = {}
        self._told: set[str] = {""}
        self._size = 0

    def offer(self, path: str, entry: File, data: bytes) -> None:
        """Take one file."""
        self.folder(path.rpartition("/")[0])
        op = ApplyOp(Action.WRITE, path, digest=entry.digest, size=entry.size, executable=entry.executable)
        self._ops.append(op)
        self._contents[entry.digest] = data
        self._size += len(data)
        if self._size >= BATCH_BYTES:
            self.flush()

    def folder(self, path: str) -> None:
        """Take a folder, after those around it."""
        if path not in self._told:
            self.folder(path.rpartition("/")[0])
            self._told.add(path)
            self._ops.append(ApplyOp(Action.MKDIR, path))

    def flush(self) -> None:
        """Send what is waiting."""
        batch = pack_batch(list(self._contents.items()), allowed=self._allowed)
        payload = pack_envelope({"ops": [op.to_json() for op in self._ops]}, batch)
        self._pipe.write(_FRAME.pack(len(payload)))
        self._pipe.write(payload)
        self._pipe.flush()
        self.sent += _FRAME.size + len(payload)
        self._ops, self._contents, self._size = [], {}, 0


def _send_tree(source: Path, pipe: IO[bytes], allowed: tuple[Codec, ...]) -> int:
    out = _Outgoing(pipe, allowed)
    with Root.open(source) as root:
        tree = Scanner(root, IgnoreRules(), _KEY, StatCache(), probe(root)).walk(on_content=out.offer).tree
        for path, entry in walk(tree):
            if isinstance(entry, Directory):
                out.folder(path)
        out.flush()
    return out.sent


def _receive(target: str) -> None:
    """The second process: stage what comes, apply it at the end."""
    with Root.open(target) as root:
        calls = make_calls(root)
        with closing(Stage(root, _KEY, calls)) as stage, closing(Trash(root, _KEY, calls)) as trash:
            applier = Applier(root, stage, trash, on_displaced=_forget)
            print("ready", flush=True)
            ops: list[ApplyOp] = []
            while head := sys.stdin.buffer.read(_FRAME.size):
                body, batch = unpack_envelope(sys.stdin.buffer.read(*_FRAME.unpack(head)))
                more = [ApplyOp.from_json(row) for row in body["ops"]]
                stage.expect("copy", more)
                for digest, data in unpack_batch(batch):
                    stage.put(digest, data)
                ops += more
            if not all(result.ok for result in applier.apply("copy", ops)):
                raise BenchmarkError("an operation failed")
    print("done", flush=True)


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
                item="sync-copy",
                what=f"{size / 2**30:.3g} GiB, 1 MB {what}, durable",
                unit="s",
                ours=summarize(ours),
                other=summarize(times),
                against=name,
                target=Target(measure=Measure.RATIO, limit=0.5 if what == "appended" else 1.3),
            )
        limit = (1.05 if what == "appended" else 1.45) * 1e6
        yield Row(
            item="sync-copy",
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


if __name__ == "__main__":
    _receive(sys.argv[1])
