"""Permissions, times, and objects that are neither files, folders nor links."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from colab_bridge.errors import UserError
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.missing import Missed, left_out_hint
from sync_pair import Pair, tree_of
from sync_tools import able, mounted, unprivileged
from sync_words import edit

pytestmark = pytest.mark.anyio


@pytest.mark.rows("G05")
@pytest.mark.parametrize("without", ["here", "there"])
async def test_a_disk_without_the_executable_bit_never_flips_it(without, channels, quick_root, monkeypatch):
    paths = {"here": quick_root / "home" / "project", "there": quick_root / "runtime" / "workspace"}
    able(monkeypatch, paths[without], has_exec=False)
    async with channels() as pair:
        # Such a disk shows one mode for everything.
        edit(paths["there" if without == "here" else "here"], "run!=1 plain=1")
        await pair.sync.sync("sync")
        other = tree_of(paths["there" if without == "here" else "here"])
        for side in paths.values():
            (side / "plain").write_text("2")
        (pair.here / "run").write_text("2")
        await pair.sync.sync("post")
        await pair.sync.sync("sync")
        assert other == {"run!": "1", "plain": "1"}
        assert tree_of(paths["there" if without == "here" else "here"]) == {"run!": "2", "plain": "2"}


@pytest.mark.rows("G06")
async def test_a_module_uploaded_twice_in_a_second_is_imported_in_its_second_version(pairs):
    def imported(pair: Pair) -> str:
        command = [sys.executable, "-c", "import module; print(module.VALUE)"]
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        return subprocess.run(command, cwd=pair.there, env=env, capture_output=True, text=True, check=True).stdout

    async with pairs() as pair:
        for value in (1, 2, 3):
            (pair.here / "module.py").write_text(f"VALUE = {value}\n")
            os.utime(pair.here / "module.py", (1_700_000_000, 1_700_000_000))
            await pair.sync.sync("pre")
            assert imported(pair) == f"{value}\n"


@pytest.mark.rows("G07", "G08")
async def test_a_result_has_the_time_at_which_it_came_and_an_upload_that_of_its_save(pairs):
    async with pairs() as pair:
        edit(pair.here, "up=1 both=1")
        os.utime(pair.here / "up", (1_600_000_000, 1_600_000_000))
        await pair.sync.sync("sync")
        assert (pair.there / "up").stat().st_mtime == 1_600_000_000
        before = time.time()
        edit(pair.there, "down=1 both=22")
        os.utime(pair.there / "down", (1_600_000_000, 1_600_000_000))
        await pair.sync.sync("post")
        assert all((pair.here / name).stat().st_mtime >= before - 1 for name in ("down", "both"))


@pytest.mark.rows("G09")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o027, 0o640)])
async def test_new_files_follow_the_umask(umask, mode, channels):
    before = os.umask(umask)
    try:
        async with channels() as pair:
            edit(pair.there, "down=1 d/x=1")
            await pair.sync.sync("sync")
            assert stat.S_IMODE((pair.here / "down").stat().st_mode) == mode
            assert stat.S_IMODE((pair.here / "d").stat().st_mode) == 0o777 & ~umask
    finally:
        os.umask(before)


@pytest.mark.rows("G10")
async def test_a_read_only_file_is_changed_and_stays_read_only(channels, quick_root):
    with unprivileged(quick_root):
        async with channels() as pair:
            edit(pair.here, "f=1")
            await pair.sync.sync("sync")
            edit(pair.here, "f%444")
            edit(pair.there, "f=2")
            await pair.sync.sync("post")
            assert (pair.here / "f").read_text() == "2"
            assert stat.S_IMODE((pair.here / "f").stat().st_mode) == 0o444


@pytest.mark.rows("G11", "X12")
@pytest.mark.parametrize("where", ["here", "there"])
async def test_in_a_read_only_folder_an_operation_fails_alone_and_is_named(where, channels, quick_root):
    with unprivileged(quick_root):
        async with channels() as pair:
            edit(pair.here, "ro/f=1 rw/f=1 g=1")
            await pair.sync.sync("sync")
            closed, other = (pair.here, pair.there) if where == "here" else (pair.there, pair.here)
            os.chmod(closed / "ro", 0o500)
            edit(other, "ro/f=2 rw/f=2 g=2")
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("sync")
            assert "ro/f" in caught.value.text
            assert "\n" not in caught.value.text
            assert tree_of(closed) == {"ro/f": "1", "rw/f": "2", "g": "2"}
            os.chmod(closed / "ro", 0o700)
            await pair.sync.sync("sync")
            assert tree_of(closed) == tree_of(other) == {"ro/f": "2", "rw/f": "2", "g": "2"}


@pytest.mark.rows("C20", "C21", "K06")
@pytest.mark.parametrize("closed", ["here", "there"])
async def test_below_a_folder_that_cannot_be_listed_nothing_is_deleted(closed, channels, quick_root):
    with unprivileged(quick_root):
        async with channels() as pair:
            edit(pair.here, "d/a=1 d/e/b=1 g=0")
            await pair.sync.sync("sync")
            side, other = (pair.here, pair.there) if closed == "here" else (pair.there, pair.here)
            os.chmod(side / "d", 0)
            edit(other, "g=2")
            report = await pair.sync.sync("sync")
            assert tree_of(other) == {"d/a": "1", "d/e/b": "1", "g": "2"}
            assert (side / "g").read_text() == "2"
            assert {notice.kind for notice in report.notices} == {"blocked"}
            # Deleted on the side that can be read: it must not be deleted where nobody can look.
            edit(other, "-d")
            await pair.sync.sync("sync")
            os.chmod(side / "d", 0o700)
            assert tree_of(side) == {"d/a": "1", "d/e/b": "1", "g": "2"}
            await pair.sync.sync("sync")
            assert tree_of(side) == tree_of(other) == {"g": "2"}


async def test_code_that_misses_a_file_which_cannot_be_read_is_told_why_it_stays_here(channels, quick_root):
    with unprivileged(quick_root):
        async with channels() as pair:
            edit(pair.here, "secret=1 closed/x=1")
            os.chmod(pair.here / "secret", 0)
            os.chmod(pair.here / "closed", 0)
            await pair.sync.sync("sync")
            told = [left_out_hint(pair.sync, "", path) for path in ("secret", "closed/x", "none")]
            assert told == [
                Missed("secret exists here but stays here: it cannot be read"),
                Missed("closed exists here but stays here: the folder could not be listed (no permission)"),
                None,
            ]


@pytest.mark.rows("F17")
async def test_a_root_that_is_a_link_is_no_root(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        pair.there.rename(pair.tmp / "runtime" / "real")
        pair.there.symlink_to("real")
        pair.sync.link_lost()
        with pytest.raises(SyncFailure) as caught:
            await pair.sync.sync("post")
        assert caught.value.kind is FailureKind.HALTED
        pair.here.rename(pair.tmp / "home" / "real")
        pair.here.symlink_to("real")
        with pytest.raises(SyncFailure) as caught:
            await pair.sync.sync("post")
        assert caught.value.kind in {FailureKind.HALTED, FailureKind.UNUSABLE}
        assert (pair.tmp / "home" / "real" / "f").read_text() == "1"
        assert (pair.tmp / "runtime" / "real" / "f").read_text() == "1"
    with pytest.raises(UserError, match="link"):
        await Pair(pair.tmp).start()


@pytest.mark.rows("F18")
@pytest.mark.parametrize("where", ["here", "there"])
async def test_a_folder_that_is_mounted_inside_stays_out_of_it(where, pairs):
    async with pairs() as pair:
        edit(pair.here, "d/f=1 m/old=1")
        await pair.sync.sync("sync")
        side, other = (pair.here, pair.there) if where == "here" else (pair.there, pair.here)
        with mounted("-t", "tmpfs", "none", at=side / "m"):
            (side / "m" / "foreign").write_text("x")
            edit(side, "d/f=2")
            report = await pair.sync.sync("sync")
            assert tree_of(other) == {"d/f": "2", "m/old": "1"}
            assert {(n.kind, n.path) for n in report.notices} == {("blocked", "m")}
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) == {"d/f": "2", "m/old": "1"}


@pytest.mark.rows("F22")
async def test_pipes_and_sockets_stay_where_they_are_and_hold_nobody_up(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        edit(pair.there, "g=1")
        for side in (pair.here, pair.there):
            os.mkfifo(side / "pipe")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(pair.here / "s"))
        try:
            report = await pair.sync.sync("sync")
        finally:
            listener.close()
        assert tree_of(pair.here).keys() == {"f", "g", "pipe", "s"}
        assert tree_of(pair.there).keys() == {"f", "g", "pipe"}
        assert {notice.kind for notice in report.notices} == {"blocked"}


@pytest.mark.rows("T15")
async def test_what_came_down_is_marked_before_it_takes_its_place_and_what_is_ours_is_not(channels):
    marked: dict[str, bool] = {}

    async with channels() as pair:
        edit(pair.here, "mine=1 both=1")
        await pair.sync.sync("sync")

        def mark(path: str) -> None:
            with open(path, encoding="utf-8") as file:
                marked[file.read()] = (pair.here / "new").exists()

        pair.local.mark = mark
        edit(pair.here, "mine=2")
        edit(pair.there, "both=3 new=4 large=#1200000x")
        await pair.sync.sync("post")
        assert marked == {"3": False, "4": False, (pair.there / "large").read_text(): False}
        assert tree_of(pair.here) == tree_of(pair.there)
