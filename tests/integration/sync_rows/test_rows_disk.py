"""What a disk that refuses means: told by its reason, where it was and with what helps, on either side."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from colab_bridge.agent.sync.disk.place import Calls
from colab_bridge.agent.sync.disk.platform_folder import Folder
from colab_bridge.sync import conflicts
from colab_bridge.sync.failures import FailureKind, SyncFailure
from sync_pair import tree_of
from sync_tools import mounted
from sync_words import edit

pytestmark = pytest.mark.anyio

REASONS = {
    errno.ENOSPC: ("the disk of {} is full: f", "make room"),
    errno.EDQUOT: ("your share of the disk of {} is used up: f", "make room"),
    errno.EACCES: ("{} does not permit to change f", "the right to write"),
    errno.EROFS: ("{} does not permit to change f", "the right to write"),
    errno.EMFILE: ("on {} a program holds it, or too many files are open: f", "close what uses it"),
    errno.EFBIG: ("the disk of {} takes no file of this size: f", ".colabbridgeignore"),
    errno.EXDEV: ("on {} it lies on another disk than the rest of the folder: f", "move it"),
    errno.ENAMETOOLONG: ("the name is not possible on {}: f", "rename it"),
    errno.EIO: ("the disk of {} reported an error: f", "look at that disk"),
}
PLACES = {"here": "this machine", "there": "the runtime"}


def refusing(root: str, number: int, real: Any) -> Any:
    """Return a call that fails for names of one side's tree."""

    def call(self: Calls, folder: Folder, name: str, to: Folder, other: str) -> None:
        if to.full(other).startswith(f"{root}{os.sep}f"):
            raise OSError(number, os.strerror(number))
        real(self, folder, name, to, other)

    return call


@pytest.mark.rows("X04")
async def test_a_folder_that_refuses_to_be_read_while_a_sync_changes_it_is_told_and_the_next_sync_goes_on(channels):
    async with channels() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        edit(pair.there, "f=2 g=2")
        with pytest.MonkeyPatch.context() as patch:
            real = pair.local.folder.applier.apply

            def close_then(*args: Any, **more: Any) -> Any:
                results = real(*args, **more)
                patch.setattr(os, "stat", refused(os.stat))
                return results

            patch.setattr(pair.local.folder.applier, "apply", close_then)
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("sync")
        assert caught.value.kind is FailureKind.UNUSABLE
        assert str(pair.here) in caught.value.text
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == {"f": "2", "g": "2"}


def refused(real: Any) -> Any:
    """Return a call that may look at nothing by its name in a folder."""

    def call(*args: Any, **more: Any) -> Any:
        if more.get("dir_fd") is not None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(*args, **more)

    return call


@pytest.mark.rows("X04", "X05", "X12", "X13")
@pytest.mark.parametrize("side", ["here", "there"])
@pytest.mark.parametrize("number", REASONS, ids=lambda number: errno.errorcode[number])
async def test_a_refusal_of_the_disk_is_told_with_reason_place_and_advice(number, side, channels):
    async with channels() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        target, other = (pair.here, pair.there) if side == "here" else (pair.there, pair.here)
        edit(other, "f=2 g=2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Calls, "swap", refusing(str(target), number, Calls.swap))
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("sync")
        words, advice = REASONS[number]
        assert caught.value.kind is FailureKind.DISK
        assert caught.value.text == words.format(PLACES[side])
        assert caught.value.paths == ("f",)
        assert advice in caught.value.hint
        assert tree_of(target) == {"f": "1", "g": "2"}, "the rest was done"
        await pair.sync.sync("sync")
        assert tree_of(target) == {"f": "2", "g": "2"}


async def test_what_only_changes_all_the_time_is_no_fault_of_the_disk(channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.there, "f=2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Calls, "swap", refusing(str(pair.here), errno.EAGAIN, Calls.swap))
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("sync")
        assert caught.value.kind is FailureKind.UNSETTLED
        assert caught.value.text == "files kept changing: f"


@pytest.mark.rows("X04")
async def test_a_full_disk_of_the_runtime_is_told_and_what_had_room_is_there(channels, quick_root):
    with mounted("-t", "tmpfs", "-o", "size=3m", "none", at=quick_root / "runtime" / "workspace"):
        async with channels() as pair:
            edit(pair.here, "small=1")
            await pair.sync.sync("sync")
            edit(pair.here, "big=#5000000b")
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("sync")
            assert caught.value.kind is FailureKind.DISK
            assert caught.value.text == "the disk of the runtime is full: the workspace"
            assert "colab-bridge rm" in caught.value.hint
            edit(pair.here, "-big")
            await pair.sync.sync("sync")
            assert tree_of(pair.there) == {"small": "1"}


async def test_a_version_for_which_there_is_no_room_keeps_its_path_and_is_told(channels):
    async with channels() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2")
        edit(pair.there, "f=3 g=2")

        def full(self: Any, target: Any, pieces: Any) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conflicts.CopyStore, "_write", full)
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("sync")
        assert caught.value.kind is FailureKind.DISK
        assert "a version of 'f' cannot be kept" in caught.value.text
        assert "Make room on the disk of" in caught.value.hint
        assert (tree_of(pair.here), tree_of(pair.there)) == ({"f": "2", "g": "2"}, {"f": "3", "g": "2"})
        await pair.sync.sync("sync")
        assert (tree_of(pair.there), pair.kept()) == ({"f": "2", "g": "2"}, {"f": "3"})
