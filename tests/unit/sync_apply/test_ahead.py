"""A copy that is begun before anybody knows the new version: used where it is what it should be, and only there."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest

from apply_world import KEY, World, digest
from colab_bridge.agent.sync.disk.ahead import AHEAD_NAME
from colab_bridge.agent.sync.disk.ops import DisplacedFile
from colab_bridge.agent.sync.disk.place import Calls
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.service_folder import SyncFolder
from colab_bridge.agent.sync.transfer.patch import Copy
from colab_bridge.agent.sync.transfer.signatures import MIN_DELTA_BYTES

OLD = random.Random(1).randbytes(2**20 + 17)
NEW = OLD + b"more"
WRONG = b"?" * len(OLD)
WHOLE = Copy(0, 0, len(OLD))


class TellingCalls(Calls):
    """Tell when a range that was copied begins to be written out, which is the last step of a copy ahead."""

    def __init__(self, calls: Calls) -> None:
        self.__dict__.update(calls.__dict__)
        self.copied = Event()

    def start_writing_out(self, fd: int, offset: int, count: int) -> None:
        self.copied.set()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(World.open(tmp_path / "root", TellingCalls)) as opened:
        yield opened


def copy_ahead(world: World, content: bytes, copy: Copy = WHOLE) -> None:
    """Copy all of a range ahead, out of a file with some content."""
    source = world.path.parent / "ahead-of"
    source.write_bytes(content)
    calls = world.stage.calls
    assert isinstance(calls, TellingCalls)
    calls.copied.clear()
    with source.open("rb") as file:
        world.stage.copy_ahead(file.fileno(), copy)
    assert calls.copied.wait(10)


def fill(world: World, name: bytes, content: bytes, copies: list[Copy]) -> None:
    source = world.path.parent / "older"
    source.write_bytes(content)
    with source.open("rb") as file:
        world.stage.fill(name, copies, file.fileno())


def put_missing(world: World, name: bytes, data: bytes) -> None:
    for offset, length in world.stage.missing(name):
        world.stage.put_chunk(name, offset, data[offset : offset + length])


def read_staged(world: World, name: bytes) -> bytes:
    with os.fdopen(world.stage.open(name), "rb") as file:
        return file.read()


@pytest.mark.parametrize("moved", [0, 4], ids=["in its place", "moved"])
def test_what_was_copied_ahead_is_not_copied_again(moved: int, world: World) -> None:
    new = NEW[len(OLD) :] + OLD if moved else NEW
    name = digest(new)
    copy_ahead(world, OLD, Copy(0, moved, len(OLD)))
    assert world.stage.begin_large(name, len(new), take_ahead=True) == [(0, len(new))]
    fill(world, name, WRONG, [Copy(0, moved, len(OLD))])
    put_missing(world, name, new)
    assert world.stage.finish(name)
    assert read_staged(world, name) == new
    assert world.staged() == [name.hex()]


def test_a_part_that_was_copied_ahead_is_completed(world: World) -> None:
    name, half = digest(NEW), len(OLD) // 2
    copy_ahead(world, OLD, Copy(0, 0, half))
    world.stage.begin_large(name, len(NEW), take_ahead=True)
    fill(world, name, b"?" * half + OLD[half:], [WHOLE])
    put_missing(world, name, NEW)
    assert world.stage.finish(name)


def test_nothing_that_was_copied_ahead_counts_until_it_is_named(world: World) -> None:
    name = digest(NEW)
    copy_ahead(world, WRONG)
    world.stage.begin_large(name, len(NEW), take_ahead=True)
    fill(world, name, OLD, [Copy(100, 100, 1000)])
    assert world.stage.missing(name) == [(0, 100), (1100, len(NEW) - 1100)]
    put_missing(world, name, NEW)
    assert not world.stage.finish(name), "of what was named the bytes are wrong"
    put_missing(world, name, NEW)
    assert world.stage.finish(name)
    assert read_staged(world, name) == NEW


@pytest.mark.parametrize("doubt", ["it lies elsewhere", "it was forgotten", "a piece has come", "somebody has written"])
def test_what_was_copied_ahead_and_is_in_doubt_is_copied_again(doubt: str, world: World) -> None:
    name = digest(NEW)
    copy_ahead(world, WRONG, Copy(0, 1, len(OLD) - 1) if doubt == "it lies elsewhere" else WHOLE)
    if doubt == "somebody has written":
        with (world.path / ".colab-bridge" / "stage" / AHEAD_NAME).open("r+b") as file:
            file.write(b"!")
    world.stage.begin_large(name, len(NEW), take_ahead=True)
    if doubt == "it was forgotten":
        world.stage.forget_ahead(name)
    elif doubt == "a piece has come":
        world.stage.put_chunk(name, 5, NEW[5:6])
    fill(world, name, OLD, [WHOLE])
    put_missing(world, name, NEW)
    assert world.stage.finish(name)
    assert read_staged(world, name) == NEW


def test_a_new_version_that_is_shorter_than_what_was_copied_ahead_is_whole(world: World) -> None:
    new = OLD[:1000]
    copy_ahead(world, OLD)
    world.stage.begin_large(digest(new), len(new), take_ahead=True)
    fill(world, digest(new), OLD, [Copy(0, 0, 1000)])
    assert world.stage.finish(digest(new))
    assert read_staged(world, digest(new)) == new


def test_a_content_that_was_under_way_takes_nothing_that_was_copied_ahead(world: World) -> None:
    name = digest(NEW)
    world.stage.begin_large(name, len(NEW))
    world.stage.put_chunk(name, 0, NEW[:10])
    with closing(World.open(world.path, TellingCalls)) as again:
        copy_ahead(again, WRONG)
        assert again.stage.begin_large(name, len(NEW), take_ahead=True) == [(10, len(NEW) - 10)]
        fill(again, name, OLD, [Copy(10, 10, len(OLD) - 10)])
        put_missing(again, name, NEW)
        assert again.stage.finish(name)
        assert again.staged() == [name.hex()]


def test_what_nobody_takes_is_removed(world: World) -> None:
    copy_ahead(world, OLD)
    copy_ahead(world, OLD)
    assert world.staged() == [AHEAD_NAME]
    world.stage.end_ahead()
    assert world.staged() == []


def test_after_a_crash_what_was_copied_ahead_is_gone_and_nothing_of_it_counts(world: World) -> None:
    copy_ahead(world, OLD)
    world.stage.begin_large(digest(NEW), len(NEW), take_ahead=True)
    copy_ahead(world, OLD)
    with closing(World.open(world.path)) as again:
        again.stage.recover()
        assert AHEAD_NAME not in again.staged()
        assert again.stage.begin_large(digest(NEW), len(NEW)) == [(0, len(NEW))]


# -- of a file in the tree -------------------------------------------------------------------------------------------


def keep_nothing(displaced: DisplacedFile) -> None:
    raise AssertionError(displaced.path)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SyncFolder]:
    opened = SyncFolder(tmp_path, key=KEY, on_displaced=keep_nothing)
    opened.set_rules(IgnoreRules())
    yield opened
    opened.close()


def rebuilt(folder: SyncFolder, old: bytes, new: bytes) -> bytes:
    """Put a longer version of ``file`` together out of what stands there, after it was copied ahead."""
    folder.large.begin(digest(new), len(new), digest(old))
    folder.stage.put_chunk(digest(new), len(old), new[len(old) :])
    folder.large.fill(digest(new), [Copy(0, 0, len(old))], "file", digest(old))
    assert folder.stage.finish(digest(new))
    with os.fdopen(folder.stage.open(digest(new)), "rb") as file:
        return file.read()


def test_a_version_that_is_copied_ahead_while_it_is_another_one_is_copied_again(
    folder: SyncFolder, tmp_path: Path
) -> None:
    old = random.Random(2).randbytes(MIN_DELTA_BYTES)
    (tmp_path / "file").write_bytes(old)
    folder.settle()
    (tmp_path / "file").write_bytes(bytes(len(old)))
    folder.large.copy_ahead("file", digest(old), Copy(0, 0, len(old)))
    (tmp_path / "file").write_bytes(old)
    folder.settle()  # its stamps prove it to be the old version again, which was hashed
    assert rebuilt(folder, old, old + b"more") == old + b"more"


def test_a_version_that_changes_while_it_is_copied_ahead_is_hashed_as_a_whole(
    folder: SyncFolder, tmp_path: Path
) -> None:
    old = random.Random(2).randbytes(MIN_DELTA_BYTES)
    (tmp_path / "file").write_bytes(old)
    folder.settle()
    folder.large.copy_ahead("file", digest(old), Copy(0, 0, len(old)))
    with (tmp_path / "file").open("r+b") as file:
        file.write(b"changed")
    new = old + b"more"
    folder.large.begin(digest(new), len(new), digest(old))
    folder.stage.put_chunk(digest(new), len(old), b"more")
    folder.large.fill(digest(new), [Copy(0, 0, len(old))], "file", digest(old))
    assert not folder.stage.finish(digest(new))


def test_what_was_copied_ahead_of_another_version_is_not_used(folder: SyncFolder, tmp_path: Path) -> None:
    one, two = (random.Random(seed).randbytes(MIN_DELTA_BYTES) for seed in (1, 2))
    (tmp_path / "other").write_bytes(one)
    (tmp_path / "file").write_bytes(two)
    folder.settle()
    folder.large.copy_ahead("other", digest(one), Copy(0, 0, len(one)))
    assert rebuilt(folder, two, two + b"more") == two + b"more"


def test_what_is_old_and_was_not_used_is_removed(folder: SyncFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    folder.settle()
    folder.large.copy_ahead("file", digest(OLD), WHOLE)
    folder.large.end_ahead(older_than_s=3600)
    assert AHEAD_NAME in os.listdir(tmp_path / ".colab-bridge" / "stage")
    folder.large.end_ahead()
    assert AHEAD_NAME not in os.listdir(tmp_path / ".colab-bridge" / "stage")
