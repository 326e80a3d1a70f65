"""What was written is durable when the call that is waited for returns: a few things one by one, many together."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apply_world import World, contents, digest, file_with, folder_like
from colab_bridge.agent.sync.disk.durable import LinuxSync
from colab_bridge.agent.sync.disk.failures import code_of
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Code
from colab_bridge.agent.sync.disk.place import Calls
from colab_bridge.agent.sync.disk.platform_folder import Folder


def test_a_fault_that_the_call_ahead_meets_counts_for_the_one_that_is_waited_for(tmp_path: Path) -> None:
    calls: list[int] = []

    def syncfs(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    fd = os.open(tmp_path, os.O_RDONLY)
    durable = LinuxSync(syncfs)
    durable.begin(fd)
    with pytest.raises(OSError, match="error") as told:
        durable.commit(fd)
    assert told.value.errno == errno.EIO
    assert len(calls) == 2
    durable.commit(fd)
    os.close(fd)


def test_a_commit_waits_for_the_call_ahead_and_then_makes_its_own(tmp_path: Path) -> None:
    order: list[str] = []
    begun, free = threading.Event(), threading.Event()

    def syncfs(fd: int) -> None:
        if not order:
            begun.set()
            assert free.wait(5)
            order.append("ahead")
        else:
            order.append("own")

    fd = os.open(tmp_path, os.O_RDONLY)
    durable = LinuxSync(syncfs)
    durable.begin(fd)
    assert begun.wait(5)
    durable.begin(fd)
    free.set()
    durable.commit(fd)
    assert order == ["ahead", "own"]
    os.close(fd)


class Recorded:
    """Flushes that are only written down; one of them may fail.

    Attributes:
        told: What was flushed: the inode of a file or folder, ``whole`` for the file system.
        fails_at: Number of the flush that fails with EIO, counted from 0; each flush after it succeeds.
    """

    def __init__(self) -> None:
        self.told: list[int | str] = []
        self.fails_at: int | None = None

    def _note(self, what: int | str) -> None:
        self.told.append(what)
        if self.fails_at == len(self.told) - 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def one(self, fd: int) -> None:
        self._note(os.fstat(fd).st_ino)

    def whole(self, fd: int) -> None:
        self._note("whole")


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def durable(recorded: Recorded, tmp_path: Path) -> Iterator[LinuxSync]:
    """After its first commit, which is for everything."""
    made = LinuxSync(recorded.whole, recorded.one, few=4)
    made.commit(-1)
    assert recorded.told == ["whole"]
    recorded.told.clear()
    yield made
    made.close()


def note_file(durable: LinuxSync, path: Path) -> int:
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    durable.file(fd)
    inode = os.fstat(fd).st_ino
    os.close(fd)
    return inode


def note_folder(durable: LinuxSync, path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    durable.folder(fd)
    os.close(fd)
    return path.stat().st_ino


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_a_few_files_are_flushed_by_themselves_and_then_each_folder_once(
    durable: LinuxSync, recorded: Recorded, tmp_path: Path
) -> None:
    folder = note_folder(durable, tmp_path)
    files = [note_file(durable, tmp_path / name) for name in ("one", "two")]
    note_folder(durable, tmp_path)
    durable.commit(-1)
    assert recorded.told == [*files, folder]
    durable.commit(-1)
    assert recorded.told == [*files, folder], "nothing is left to do"


def test_for_many_the_whole_file_system_is_asked_once(durable: LinuxSync, recorded: Recorded, tmp_path: Path) -> None:
    before = open_descriptors()
    for number in range(5):
        note_file(durable, tmp_path / str(number))
    assert open_descriptors() == before
    durable.commit(-1)
    assert recorded.told == ["whole"]
    one = note_file(durable, tmp_path / "later")
    durable.commit(-1)
    assert recorded.told == ["whole", one]


def test_a_flush_that_fails_is_told_and_the_next_commit_is_for_everything(
    durable: LinuxSync, recorded: Recorded, tmp_path: Path
) -> None:
    before = open_descriptors()
    note_file(durable, tmp_path / "one")
    note_file(durable, tmp_path / "two")
    recorded.fails_at = 0
    with pytest.raises(OSError, match="error") as told:
        durable.commit(-1)
    assert told.value.errno == errno.EIO
    assert open_descriptors() == before
    durable.commit(-1)
    assert recorded.told[1:] == ["whole"]


def test_where_a_folder_cannot_be_flushed_the_whole_file_system_is(recorded: Recorded, tmp_path: Path) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    durable = LinuxSync(recorded.whole, refuse)
    durable.commit(-1)
    note_folder(durable, tmp_path)
    durable.commit(-1)
    assert recorded.told == ["whole", "whole"]


class Watched(Calls):
    """Tells what was flushed before each move in the tree or into the trash.

    Attributes:
        moves: For each exchange, and each move to the trash, the inodes that had been flushed when it began.
    """

    def __init__(self, real: Calls, recorded: Recorded, stage: tuple[int, int]) -> None:
        super().__init__(real.exchange, LinuxSync(recorded.whole, recorded.one), scratch=stage)
        self._recorded = recorded
        self.moves: list[list[int | str]] = []

    def swap(self, one: Folder, name: str, two: Folder, other: str) -> None:
        self.moves.append(list(self._recorded.told))
        super().swap(one, name, two, other)


def open_watched(path: Path, recorded: Recorded) -> tuple[World, Watched]:
    made: list[Watched] = []

    def wrap(calls: Calls) -> Calls:
        seen = (path / ".colab-bridge" / "stage").stat()
        made.append(Watched(calls, recorded, (seen.st_dev, seen.st_ino)))
        return made[0]

    world = World.open(path, wrap)
    world.stage.calls.commit(world.root.top)
    recorded.told.clear()
    return world, made[0]


def test_content_and_its_place_in_the_trash_are_durable_before_a_file_is_replaced_and_names_after_it(
    tmp_path: Path, recorded: Recorded
) -> None:
    world, calls = open_watched(tmp_path / "root", recorded)
    (world.path / "in").mkdir()
    (world.path / "in" / "file").write_bytes(b"1")
    own = world.path / ".colab-bridge"
    op = world.write("in/file", b"2", file_with(b"1"))
    assert [result.code for result in world.applier.apply("txn", [op])] == [Code.APPLIED]
    box = own / "trash" / "txn"
    inode = {name: path.stat().st_ino for name, path in named(world, box).items()}
    assert len(calls.moves) == 1
    assert set(calls.moves[0]) == {inode["content"], inode["manifest"], inode["box"], inode["trash"]}
    assert recorded.told[len(calls.moves[0]) :] == [inode["folder"], inode["box"]]
    assert calls.moves[0][0] == inode["content"], "files before names"
    world.close()


def named(world: World, box: Path) -> dict[str, Path]:
    return {
        "content": world.path / "in" / "file",
        "folder": world.path / "in",
        "manifest": box / "manifest",
        "box": box,
        "trash": box.parent,
    }


def make_folders(world: World) -> list[ApplyOp]:
    return [ApplyOp(Action.MKDIR, "a"), ApplyOp(Action.MKDIR, "a/b"), world.write("a/b/file", b"2")]


def remove_file(world: World) -> list[ApplyOp]:
    (world.path / "a").mkdir()
    (world.path / "a" / "file").write_bytes(b"1")
    return [ApplyOp(Action.DELETE, "a/file", file_with(b"1"))]


def move_folder(world: World) -> list[ApplyOp]:
    (world.path / "a").mkdir()
    (world.path / "b").mkdir()
    (world.path / "a" / "old").mkdir()
    return [ApplyOp(Action.MOVE, "b/new", folder_like(world.path / "a" / "old"), old_path="a/old")]


def set_bit(world: World) -> list[ApplyOp]:
    (world.path / "file").write_bytes(b"1")
    return [ApplyOp(Action.EXEC, "file", file_with(b"1"), executable=True)]


@pytest.mark.parametrize(
    ("ops", "flushed"),
    [
        (make_folders, [".", "a", "a/b", "a/b/file"]),
        (remove_file, ["a", ".colab-bridge/trash/txn", ".colab-bridge/trash"]),
        (move_folder, ["a", "b"]),
        (set_bit, ["file"]),
    ],
)
def test_everything_that_an_operation_changes_is_durable_when_it_is_reported_done(
    tmp_path: Path, recorded: Recorded, ops: Callable[[World], list[ApplyOp]], flushed: list[str]
) -> None:
    world, _ = open_watched(tmp_path / "root", recorded)
    wanted = ops(world)
    assert [result.code for result in world.applier.apply("txn", wanted)] == [Code.APPLIED] * len(wanted)
    assert {(world.path / path).stat().st_ino for path in flushed} <= set(recorded.told)
    world.close()


def test_content_that_did_not_reach_the_disk_takes_no_name_and_has_to_come_again(
    tmp_path: Path, recorded: Recorded
) -> None:
    for number in range(4):
        world, calls = open_watched(tmp_path / str(number), recorded)
        (world.path / "file").write_bytes(b"1")
        ops = [world.write("file", b"2", file_with(b"1")), world.write("new", b"3")]
        kept = world.put(b"for another time")
        recorded.fails_at = number
        results = world.applier.apply("txn", ops)
        assert [result.code for result in results] == [code_of(OSError(errno.EIO, ""))] * 2
        assert contents(world.path) == {"file": b"1"}
        assert calls.moves == []
        assert world.stage.have([digest(b"2"), digest(b"3"), kept]) == set()
        assert world.staged() == []
        recorded.fails_at = None
        ops = [world.write("file", b"2", file_with(b"1")), world.write("new", b"3")]
        assert [result.code for result in world.applier.apply("txn", ops)] == [Code.APPLIED] * 2
        assert contents(world.path) == {"file": b"2", "new": b"3"}
        world.close()


def test_names_that_did_not_reach_the_disk_are_not_reported_done(tmp_path: Path, recorded: Recorded) -> None:
    world, calls = open_watched(tmp_path / "root", recorded)
    (world.path / "file").write_bytes(b"1")
    op = world.write("file", b"2", file_with(b"1"))
    recorded.fails_at = 4
    results = world.applier.apply("txn", [op])
    assert len(calls.moves[0]) == 4
    assert [result.code for result in results] == [code_of(OSError(errno.EIO, ""))]
    assert world.trashed() == {"file": b"1"}
    world.close()
