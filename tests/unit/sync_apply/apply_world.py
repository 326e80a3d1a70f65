"""A root in a temporary folder with stage, trash and applier, and short words for operations."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from colab_bridge.agent.sync.disk.apply import Applier
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, DisplacedFile, Expected, Kind, expect, link_digest
from colab_bridge.agent.sync.disk.place import Calls, make_calls
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.stage import Stage
from colab_bridge.agent.sync.disk.trash import Trash
from colab_bridge.agent.sync.tree import Directory, Entry, File, Link

KEY = b"k" * 32


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32, key=KEY).digest()


def file_with(data: bytes) -> Expected:
    return Expected(Kind.FILE, digest(data))


def link_to(target: str) -> Expected:
    return Expected(Kind.LINK, link_digest(target))


def tree_of(path: Path) -> Directory:
    """The tree of a folder as a scan would see it."""
    children: dict[str, Entry] = {}
    for entry in os.scandir(path):
        if entry.is_symlink():
            children[entry.name] = Link(os.readlink(entry.path))
        elif entry.is_dir():
            children[entry.name] = tree_of(Path(entry.path))
        else:
            children[entry.name] = File(digest(Path(entry.path).read_bytes()))
    return Directory(children)


def folder_like(path: Path) -> Expected:
    found = expect(tree_of(path))
    assert found is not None
    return found


def contents(path: Path) -> dict[str, bytes]:
    """The files below a folder, without what is ours."""
    found: dict[str, bytes] = {}
    for here, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name != ".colab-bridge"]
        for name in files:
            full = Path(here) / name
            found[str(full.relative_to(path))] = full.read_bytes()
    return found


@dataclass
class World:
    """One side; use :func:`World.open`."""

    path: Path
    root: Root
    stage: Stage
    trash: Trash
    applier: Applier
    displaced: dict[str, bytes] = field(default_factory=dict)
    kept: list[bytes] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, wrap: Callable[[Calls], Calls] | None = None) -> World:
        path.mkdir(exist_ok=True)
        root = Root.open(path)
        calls = make_calls(root)
        calls = wrap(calls) if wrap else calls
        stage = Stage(root, KEY, calls)
        trash = Trash(root, KEY, calls)
        world = cls(path, root, stage, trash, None)  # type: ignore[arg-type]
        world.applier = Applier(root, stage, trash, on_displaced=world.keep)
        return world

    def keep(self, found: DisplacedFile) -> None:
        if found.kind is Kind.FILE:
            self.displaced[found.path] = found.location.read_bytes()
            self.kept.append(self.displaced[found.path])

    def put(self, data: bytes) -> bytes:
        self.stage.put(digest(data), data)
        return digest(data)

    def write(self, path: str, data: bytes, expected: Expected | None = None, **more: object) -> ApplyOp:
        return ApplyOp(
            Action.WRITE,
            path,
            expected=expected,
            digest=self.put(data),
            size=len(data),
            **more,  # type: ignore[arg-type]
        )

    def text(self, path: str) -> bytes:
        return (self.path / path).read_bytes()

    def staged(self) -> list[str]:
        return sorted(os.listdir(self.path / ".colab-bridge" / "stage"))

    def trashed(self) -> dict[str, bytes]:
        """Files in the trash by the path where they stood."""
        base = self.path / ".colab-bridge" / "trash"
        return {entry.path: (base / entry.id).read_bytes() for entry in self.trash.list() if entry.kind == "file"}

    def close(self) -> None:
        self.stage.close()
        self.trash.close()
        self.root.close()
