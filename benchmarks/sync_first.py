"""The engine of the file sync against rsync and tar: two processes and a pipe between them, no network.

What is measured are the parts that the product is made of: scan and digests on one side, batches of small files,
verified staging, two times ``syncfs``, moves that never overwrite. Content is sent while the scan goes on; the product
plans in between, and keeps an agreement: ``sync`` measures that. rsync and tar make nothing durable and check nothing;
they run in turn with the engine, in the same minute.
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
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from colab_bridge.agent.frames import Frame, FrameReader, FrameType, encode
from colab_bridge.agent.garbage import look_seldom
from colab_bridge.agent.sync.disk.apply import Applier
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, DisplacedFile
from colab_bridge.agent.sync.disk.place import make_calls
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.stage import Stage
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.disk.trash import Trash
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.service_wire import pack_envelope, unpack_envelope
from colab_bridge.agent.sync.transfer.batches import BATCH_BYTES, pack_batch, unpack_batch
from colab_bridge.agent.sync.transfer.compress import Codec
from colab_bridge.agent.sync.tree import Directory, File, walk

__all__ = ["make_tree", "measure", "remote_shell", "run_tool"]

_KEY = b"benchmark-key-of-32-bytes-length"
_HEAD = struct.Struct(">II")
_RSYNC_SHELL = '#!/bin/sh\nshift\nexec sh -c "$*"\n'


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure the first copy of 10,000 files; smaller when ``quick``."""
    look_seldom()  # as the daemon does, whose part this process has
    for tool in ("rsync", "tar"):
        if shutil.which(tool) is None:
            raise BenchmarkError(f"{tool} is not installed")
    with tempfile.TemporaryDirectory(prefix="colab-bridge-bench-") as folder:
        base = Path(folder)
        yield from _first_copy(base, files=2_000 if quick else 10_000, rounds=3 if quick else 7)


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
                run_tool(commands[name])
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


def run_tool(command: list[str]) -> None:
    """Run a tool to its end.

    Raises:
        BenchmarkError: it failed.
    """
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
        command = [sys.executable, "-m", "benchmarks.sync_first", str(target)]
        here = Path(__file__).parent.parent
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=BATCH_BYTES, cwd=here
        )
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
    """Sends what a scan reads, while it goes on: operations for the files of a batch, and their content.

    Batches are packed and sent in another thread than that which reads, as in the product.
    """

    def __init__(self, pipe: IO[bytes], allowed: tuple[Codec, ...], sender: ThreadPoolExecutor) -> None:
        self.sent = 0
        self._pipe = pipe
        self._allowed = allowed
        self._sender = sender
        self._under_way: deque[Future[None]] = deque()
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
        """Begin to send what is waiting; at most two batches are under way."""
        self._wait_for_all_but(1)
        self._under_way.append(self._sender.submit(self._send, self._ops, self._contents))
        self._ops, self._contents, self._size = [], {}, 0

    def finish(self) -> None:
        """Send what is waiting, and return when everything is sent."""
        self.flush()
        self._wait_for_all_but(0)

    def _wait_for_all_but(self, count: int) -> None:
        while len(self._under_way) > count:
            self._under_way.popleft().result()

    def _send(self, ops: list[ApplyOp], contents: dict[bytes, bytes]) -> None:
        batch = pack_batch(list(contents.items()), allowed=self._allowed)
        told = pack_envelope({"ops": [op.to_json() for op in ops]})
        # The product tells operations in a call, packed where the other side can unpack.
        operations = encode(Frame(FrameType.CALL, payload=told), compress=bool(self._allowed))
        self._pipe.write(_HEAD.pack(len(operations), len(batch)) + operations)
        self._pipe.write(batch)
        self._pipe.flush()
        self.sent += _HEAD.size + len(operations) + len(batch)


def _send_tree(source: Path, pipe: IO[bytes], allowed: tuple[Codec, ...]) -> int:
    with Root.open(source) as root, ThreadPoolExecutor(1) as sender:
        out = _Outgoing(pipe, allowed, sender)
        tree = Scanner(root, IgnoreRules(), _KEY, StatCache(), probe(root)).walk(on_content=out.offer).tree
        for path, entry in walk(tree):
            if isinstance(entry, Directory):
                out.folder(path)
        out.finish()
    return out.sent


def _messages(pipe: IO[bytes]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the operations of each batch, and the batch."""
    reader = FrameReader()
    while head := pipe.read(_HEAD.size):
        operations, batch = _HEAD.unpack(head)
        for frame in reader.feed(pipe.read(operations)):
            yield unpack_envelope(frame.payload)[0], pipe.read(batch)


def _receive(target: str) -> None:
    """The second process: stage what comes, apply it at the end."""
    look_seldom()  # as the agent does
    with Root.open(target) as root:
        calls = make_calls(root)
        with closing(Stage(root, _KEY, calls)) as stage, closing(Trash(root, _KEY, calls)) as trash:
            applier = Applier(root, stage, trash, on_displaced=_forget)
            print("ready", flush=True)
            ops: list[ApplyOp] = []
            for told, batch in _messages(sys.stdin.buffer):
                more = [ApplyOp.from_json(row) for row in told["ops"]]
                stage.expect("copy", more)
                for digest, data in unpack_batch(batch):
                    stage.put(digest, data)
                ops += more
            if not all(result.ok for result in applier.apply("copy", ops)):
                raise BenchmarkError("an operation failed")
    print("done", flush=True)


if __name__ == "__main__":
    _receive(sys.argv[1])
