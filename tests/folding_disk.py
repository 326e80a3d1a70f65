"""A shim of file systems that ignore case, or that keep names in another Unicode form, over an ordinary folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from colab_bridge.agent.sync.disk import exchange, place, root
from colab_bridge.agent.sync.disk.durable import PooledSync
from colab_bridge.agent.sync.disk.exchange import Exchange, WindowsExchange, system_exchange
from colab_bridge.agent.sync.disk.platform_folder import Folder, FolderReplaced
from colab_bridge.agent.sync.disk.platform_paths import PathFolder

Key = Callable[[str], str]


def ignores_case(name: str) -> str:
    """As NTFS and APFS compare names."""
    return name.casefold()


def keeps_nfd(name: str) -> str:
    """As HFS+ compares and keeps names."""
    return normalize("NFD", name)


class FoldingFolder(PathFolder):
    """A folder whose file system finds several spellings under one name."""

    key: Key = staticmethod(ignores_case)
    stores: Key = staticmethod(lambda name: name)

    def full(self, name: str) -> str:
        here = self.path
        there = os.listdir(here)
        if name in there:
            return os.path.join(here, name)
        same = [other for other in there if self.key(other) == self.key(name)]
        return os.path.join(here, same[0] if same else self.stores(name))

    def child(self, name: str, expected: tuple[int, int] | None = None) -> PathFolder:
        below = type(self)(self.full(name), f"{self.below}/{name}" if self.below else name, self)
        if expected is not None and (below.device, below.inode) != expected:
            raise FolderReplaced(errno.ESTALE, "another folder stands there", below.below)
        return below

    def again(self) -> PathFolder:
        self._check()
        return type(self)(self._full, self.below, self._above)


class NormalisingFolder(FoldingFolder):
    key = staticmethod(keeps_nfd)
    stores = staticmethod(keeps_nfd)


class _Moves:
    """``ReplaceFileW`` and ``MoveFileExW`` by calls of this system; like those, they move no file that is open."""

    def replace_file(self, replaced: str, replacement: str, backup: str) -> None:
        _must_be_closed(replaced, replacement)
        os.replace(replaced, backup)
        os.replace(replacement, replaced)

    def move_file(self, source: str, target: str) -> None:
        _must_be_closed(source)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", target)
        os.rename(source, target)


def _must_be_closed(*paths: str) -> None:
    """Refuse files that this process holds open, as Windows does."""
    held: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            held.add(os.readlink(f"/proc/self/fd/{fd}"))
    for path in paths:
        if os.path.isfile(path) and os.path.realpath(path) in held:
            raise PermissionError(errno.EACCES, "the file is in use by another process", path)


class _ByPathOrDescriptor:
    """Two kinds of folders in one process: each is moved in its own way."""

    degraded = False

    def __init__(self, real: Exchange) -> None:
        self._real = real
        self._by_path = WindowsExchange(_Moves())

    def _pick(self, folder: Folder) -> Exchange:
        return self._by_path if folder.fd is None else self._real

    def swap(self, one: Folder, name: str, two: Folder, other: str) -> None:
        self._pick(one).swap(one, name, two, other)

    def place(self, source: Folder, name: str, target: Folder, other: str) -> None:
        self._pick(source).place(source, name, target, other)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: type[FoldingFolder]) -> None:
    """Make one root, and everything in it, lie on a file system of that kind."""
    real_open, real_exchange = root.open_root, system_exchange()

    def open_root(path: str) -> Any:
        return kind.open_root(path) if Path(path) == folder else real_open(path)

    monkeypatch.setattr(root, "open_root", open_root)
    monkeypatch.setattr(place, "system_durability", partial(PooledSync, open_files_move=False))
    monkeypatch.setattr(exchange, "system_exchange", lambda: _ByPathOrDescriptor(real_exchange))
