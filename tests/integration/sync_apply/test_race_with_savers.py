"""A program saves every 0.2 ms while the engine applies versions of its own: nothing is ever lost (X10, P1).

The program remembers what it has replaced itself. So every version must be one that it has replaced, or stand at the
path, or be known to the user as a conflict, or be in the trash because it is exactly what an operation expected.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from colab_bridge.agent.sync.disk.apply import Applier
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Code, DisplacedFile, Expected, Kind
from colab_bridge.agent.sync.disk.place import make_calls
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.stage import Stage
from colab_bridge.agent.sync.disk.trash import Trash

KEY = b"race" * 8
SAVES = 2000
PROGRAM = Path(__file__).with_name("saving_program.py")


class Engine:
    """Replaces one file as fast as it can, always expecting what it has just read."""

    def __init__(self, path: Path) -> None:
        self.path = path / "file"
        self.root = Root.open(path)
        calls = make_calls(self.root)
        self.stage = Stage(self.root, KEY, calls)
        self.trash = Trash(self.root, KEY, calls)
        self.conflicts: set[bytes] = set()
        self.applier = Applier(self.root, self.stage, self.trash, on_displaced=self.keep)
        self.codes: Counter[Code] = Counter()
        self.expected: set[bytes] = set()
        self.written: set[bytes] = set()

    def keep(self, found: DisplacedFile) -> None:
        self.conflicts.add(found.location.read_bytes())

    def digest(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=32, key=KEY).digest()

    def step(self, number: int) -> None:
        data, now = b"engine %d" % number, self.path.read_bytes()
        self.stage.put(self.digest(data), data)
        op = ApplyOp(Action.WRITE, "file", Expected(Kind.FILE, self.digest(now)), digest=self.digest(data), size=9)
        (result,) = self.applier.apply(f"t{number}", [op])
        self.codes[result.code] += 1
        if result.ok:
            self.expected.add(now)
            self.written.add(data)
        self.late(number - 1)

    def late(self, number: int) -> None:
        """The next barrier looks whether anybody has written into the trash."""
        for entry in self.trash.changed_since(f"t{number}"):
            self.conflicts.add((self.root.state / "trash" / entry.id).read_bytes())

    def trashed(self) -> set[bytes]:
        return {(self.root.state / "trash" / entry.id).read_bytes() for entry in self.trash.list()}

    def close(self) -> None:
        self.stage.close()
        self.trash.close()
        self.root.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as path:
        (Path(path) / "file").write_bytes(b"first")
        made = Engine(Path(path))
        yield made
        made.close()


@pytest.mark.parametrize("how", ["atomic", "in-place"])
def test_no_version_is_lost_while_a_program_saves_all_the_time(how: str, engine: Engine, tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    arguments = [str(engine.path.parent), "file", how, str(SAVES), "0.0002", str(memory)]
    number = 0
    with subprocess.Popen([sys.executable, str(PROGRAM), *arguments]) as program:
        try:
            while program.poll() is None:
                number += 1
                engine.step(number)
            assert program.wait() == 0
        finally:
            program.kill()
    for earlier in range(1, number + 1):
        # A program that was not scheduled between opening and writing can be later than one short barrier.
        engine.late(earlier)
    replaced = {text.encode() for text in json.loads(memory.read_text())}
    here, trashed = engine.path.read_bytes(), engine.trashed()
    versions = {b"first", *(b"save %d" % n for n in range(SAVES)), *engine.written}
    lost = {
        version
        for version in versions
        if version not in replaced
        and version != here
        and version not in engine.conflicts
        and not (version in trashed and version in engine.expected)
    }
    assert lost == set(), [(data, data in trashed, data in engine.expected) for data in lost]
    assert engine.codes[Code.APPLIED] > 5, engine.codes
    assert set(engine.codes) <= {Code.APPLIED, Code.MOVED, Code.ALREADY}, engine.codes
    assert [left for left in engine.stage.calls.names(engine.stage.folder) if "~" in left] == []
