"""The two moves, on this system and through shims of the others (X20)."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from colab_bridge.agent.sync.disk.durable import BarrierSync, LinuxSync, PooledSync, system_durability
from colab_bridge.agent.sync.disk.exchange import (
    AtomicExchange,
    Exchange,
    LinkExchange,
    WindowsExchange,
    pick_exchange,
    system_exchange,
)
from colab_bridge.agent.sync.disk.place import Calls
from colab_bridge.agent.sync.disk.platform_folder import Folder
from colab_bridge.agent.sync.disk.platform_system import open_root


class ShimOfWindows:
    """``ReplaceFileW`` and ``MoveFileExW`` as they behave, with calls of this system."""

    def __init__(self) -> None:
        self.fail_next = ""

    def _maybe_fail(self, name: str) -> None:
        if self.fail_next == name:
            self.fail_next = ""
            raise OSError(errno.EACCES, "sharing violation")

    def replace_file(self, replaced: str, replacement: str, backup: str) -> None:
        self._maybe_fail("replace_file")
        if not os.path.isfile(replaced) or not os.path.isfile(replacement):
            raise FileNotFoundError(errno.ENOENT, "not found", replaced)
        os.replace(replaced, backup)
        os.replace(replacement, replaced)

    def move_file(self, source: str, target: str) -> None:
        self._maybe_fail("move_file")
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "exists", target)
        os.rename(source, target)


def exchanges() -> list[tuple[str, Exchange]]:
    found: list[tuple[str, Exchange]] = [("links", LinkExchange()), ("windows", WindowsExchange(ShimOfWindows()))]
    return [("system", system_exchange()), *found]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with open_root(str(tmp_path)) as opened:
        yield opened


EACH = pytest.mark.parametrize("exchange", [one for _, one in exchanges()], ids=[name for name, _ in exchanges()])


def make(path: Path, kind: str, mark: str) -> None:
    if kind == "file":
        path.write_text(mark)
    elif kind == "link":
        os.symlink(mark, path)
    else:
        path.mkdir()
        (path / "in").write_text(mark)


def mark_of(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    return (path / "in").read_text() if path.is_dir() else path.read_text()


@EACH
@pytest.mark.parametrize("one", ["file", "link", "folder"])
@pytest.mark.parametrize("two", ["file", "link", "folder"])
def test_two_objects_of_any_kind_change_places(
    exchange: Exchange, one: str, two: str, folder: Folder, tmp_path: Path
) -> None:
    make(tmp_path / "a", one, "A")
    make(tmp_path / "b", two, "B")
    exchange.swap(folder, "a", folder, "b")
    assert (mark_of(tmp_path / "a"), mark_of(tmp_path / "b")) == ("B", "A")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@EACH
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
@pytest.mark.parametrize("other", ["file", "link", "folder"])
def test_a_name_that_is_taken_stays(exchange: Exchange, kind: str, other: str, folder: Folder, tmp_path: Path) -> None:
    make(tmp_path / "a", kind, "A")
    make(tmp_path / "b", other, "B")
    with pytest.raises(FileExistsError):
        exchange.place(folder, "a", folder, "b")
    assert (mark_of(tmp_path / "a"), mark_of(tmp_path / "b")) == ("A", "B")


@EACH
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_a_free_name_is_taken(exchange: Exchange, kind: str, folder: Folder, tmp_path: Path) -> None:
    make(tmp_path / "a", kind, "A")
    exchange.place(folder, "a", folder, "b")
    assert mark_of(tmp_path / "b") == "A"
    assert os.listdir(tmp_path) == ["b"]


@EACH
def test_a_missing_partner_changes_nothing(exchange: Exchange, folder: Folder, tmp_path: Path) -> None:
    make(tmp_path / "a", "file", "A")
    with pytest.raises(FileNotFoundError):
        exchange.swap(folder, "a", folder, "b")
    assert os.listdir(tmp_path) == ["a"]


@EACH
def test_a_name_of_255_bytes_changes_places(exchange: Exchange, folder: Folder, tmp_path: Path) -> None:
    make(tmp_path / "a", "file", "A")
    make(tmp_path / ("b" * 255), "file", "B")
    exchange.swap(folder, "a", folder, "b" * 255)
    assert mark_of(tmp_path / "a") == "B"


def test_without_hard_links_the_fallback_moves(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*args: object, **more: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", no_link)
    make(tmp_path / "a", "file", "A")
    make(tmp_path / "b", "file", "B")
    LinkExchange().swap(folder, "a", folder, "b")
    assert mark_of(tmp_path / "b") == "A"
    LinkExchange().place(folder, "a", folder, "c")
    assert mark_of(tmp_path / "c") == "B"
    with pytest.raises(FileExistsError):
        LinkExchange().place(folder, "c", folder, "b")


def test_the_fallback_notices_a_save_after_it_has_pinned_the_old_file(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link(*args: object, **more: object) -> None:
        real(*args, **more)  # type: ignore[arg-type]
        (tmp_path / "new").write_text("newer")
        os.replace(tmp_path / "new", tmp_path / "b")

    make(tmp_path / "a", "file", "A")
    make(tmp_path / "b", "file", "B")
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(BlockingIOError):
        LinkExchange().swap(folder, "a", folder, "b")
    assert (mark_of(tmp_path / "a"), mark_of(tmp_path / "b")) == ("A", "newer")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("call", ["replace_file", "move_file"])
def test_a_sharing_violation_on_windows_changes_nothing(call: str, folder: Folder, tmp_path: Path) -> None:
    shim = ShimOfWindows()
    kind = "file" if call == "replace_file" else "folder"
    make(tmp_path / "a", kind, "A")
    make(tmp_path / "b", kind, "B")
    shim.fail_next = call
    with pytest.raises(OSError, match="sharing"):
        WindowsExchange(shim).swap(folder, "a", folder, "b")
    assert (mark_of(tmp_path / "a"), mark_of(tmp_path / "b")) == ("A", "B")


def test_a_file_system_without_exchange_gets_the_fallback_and_says_so(folder: Folder, tmp_path: Path) -> None:
    def unsupported(*args: object) -> None:
        raise OSError(errno.EINVAL, "not supported here")

    picked = pick_exchange(folder, AtomicExchange(unsupported))
    assert picked.degraded
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_not_taken_for_a_missing_exchange(folder: Folder) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        pick_exchange(folder, AtomicExchange(full))


@pytest.mark.skipif(sys.platform not in {"linux", "darwin"}, reason="asks this system")
def test_this_system_exchanges_in_one_call(folder: Folder) -> None:
    assert not pick_exchange(folder).degraded


def test_every_system_makes_a_batch_durable_in_its_way(folder: Folder, tmp_path: Path) -> None:
    seen: list[tuple[object, ...]] = []
    files = [os.open(tmp_path / str(number), os.O_CREAT | os.O_WRONLY, 0o600) for number in range(3)]
    whole = LinuxSync(lambda fd: seen.append(("syncfs", fd)))
    barrier = BarrierSync(lambda fd, code: seen.append((code, fd)))
    pooled = PooledSync(lambda fd: seen.append(("flush", os.fstat(fd).st_ino)))
    for way in (whole, barrier, pooled):
        for fd in files:
            way.file(fd)
        way.commit(99)
    inodes = {os.fstat(fd).st_ino for fd in files}
    assert seen[0] == ("syncfs", 99)
    assert seen[1:5] == [*[(85, fd) for fd in files], (51, 99)]
    assert {inode for _, inode in seen[5:]} == inodes
    for fd in files:
        os.close(fd)
    assert folder.fd is not None
    system_durability().commit(folder.fd)


def test_where_open_files_do_not_move_what_was_noted_is_flushed_and_closed_before_a_move(folder: Folder) -> None:
    flushed: list[int] = []
    calls = Calls(LinkExchange(), PooledSync(lambda fd: flushed.append(os.fstat(fd).st_ino), open_files_move=False))
    fd = calls.create(folder, "half", os.O_WRONLY | os.O_EXCL)
    calls.written(fd, folder)
    os.close(fd)
    half = folder.stat("half").st_ino
    assert half in open_inodes()
    calls.rename(folder, "half", folder, "whole")
    assert half in flushed
    assert half not in open_inodes()


def open_inodes() -> set[int]:
    """Inodes of everything that this process holds open, a few descriptors are enough to look at."""
    found: set[int] = set()
    for fd in range(200):
        with suppress(OSError):
            found.add(os.fstat(fd).st_ino)
    return found


def test_a_flush_that_fails_is_told_and_leaves_no_descriptor_open(tmp_path: Path) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    fd = os.open(tmp_path / "f", os.O_CREAT | os.O_WRONLY, 0o600)
    pooled = PooledSync(broken)
    for _ in range(5):
        pooled.file(fd)
    with pytest.raises(OSError, match="broken"):
        pooled.commit(-1)
    os.close(fd)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
