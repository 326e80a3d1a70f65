"""Small helpers for the tests of scanning: a folder on the real disk with everything that looks at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

from colab_bridge.agent.sync.budget import Budget
from colab_bridge.agent.sync.disk.probe import FsProbe, probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner, ScanResult
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.tree import Directory, Entry, File, entry_at

KEY = b"a key of a pairing in the tests."


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=32, key=KEY).digest()


def file(content: bytes, *, executable: bool = False) -> File:
    return File(digest(content), len(content), executable)


@dataclass
class Side:
    """A root with a scanner; waits are counted, not slept."""

    root: Root
    scanner: Scanner
    cache: StatCache
    probe: FsProbe
    waits: list[float]

    @property
    def path(self) -> Path:
        return self.root.path

    def walk(self, **wishes: object) -> ScanResult:
        return self.scanner.walk(**wishes)  # type: ignore[arg-type]

    @property
    def tree(self) -> Directory:
        return self.scanner.walk().tree

    def entry(self, path: str) -> Entry | None:
        return entry_at(self.tree, path)

    def write(self, path: str, content: bytes | str = b"1") -> Path:
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def age(self) -> None:
        """Let a walk see everything as old enough to rest."""
        while self.scanner._restless:
            self.scanner.walk()


@contextmanager
def side(
    path: Path | str,
    *,
    rules: IgnoreRules | None = None,
    budget: Budget | None = None,
    facts: FsProbe | None = None,
    cache: StatCache | None = None,
) -> Iterator[Side]:
    with Root.open(path) as root:
        waits: list[float] = []
        found = facts or probe(root)
        memory = cache or StatCache()
        scanner = Scanner(root, rules or IgnoreRules(), KEY, memory, found, budget=budget, sleep=waits.append)
        yield Side(root, scanner, memory, found, waits)


def seen_afresh(root: Root, rules: IgnoreRules, facts: FsProbe, budget: Budget | None = None) -> ScanResult:
    """Return what a scanner without any memory sees."""
    return Scanner(root, rules, KEY, StatCache(), facts, budget=budget, sleep=lambda _: None).walk()


@contextmanager
def nobody() -> Iterator[Path]:
    """Give a folder in which we have no privilege, also where the tests run as root."""
    with TemporaryDirectory(prefix="cb-scan-") as folder:
        privileged = os.geteuid() == 0
        if privileged:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if privileged:
                os.seteuid(0)
            for here, folders, _ in os.walk(folder):
                for name in folders:
                    os.chmod(os.path.join(here, name), 0o700)
