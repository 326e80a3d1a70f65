"""Whole folders: many new files in one go, and a folder that only changes its path."""

from __future__ import annotations

import os

import pytest

from sync_pair import open_pair, tree_of

MANY = 40


def fill(folder, count=MANY, size=10):
    for number in range(count):
        path = folder / f"part{number % 3}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((b"%d " % number) * size)
    (folder / "empty").mkdir()


def inodes(folder):
    return {str(path.relative_to(folder)): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def trashed(root):
    return [path for path in (root / ".colab-bridge" / "trash").rglob("*") if path.name.isdigit()]


@pytest.mark.anyio
async def test_a_large_folder_that_was_renamed_here_is_moved_there_in_one_operation(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "d")
        await pair.sync.sync("sync")
        before = inodes(pair.there / "d")
        (pair.here / "deep").mkdir()
        (pair.here / "d").rename(pair.here / "deep" / "e")
        report = await pair.sync.sync("pre")
        assert (report.failed, report.sent, report.round_trips) == ({}, 0, 1)
        assert inodes(pair.there / "deep" / "e") == before
        assert tree_of(pair.there) == tree_of(pair.here)
        assert trashed(pair.there) == []
        assert (await pair.sync.sync("sync")).up == ()


@pytest.mark.anyio
async def test_a_large_folder_that_was_renamed_there_is_moved_here_in_one_operation(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "d")
        await pair.sync.sync("sync")
        before = inodes(pair.here / "d")
        (pair.there / "d").rename(pair.there / "e")
        pair.sync.run_happened()
        report = await pair.sync.sync("post")
        assert (report.failed, report.received) == ({}, 0)
        assert inodes(pair.here / "e") == before
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.anyio
@pytest.mark.parametrize("side", ["here", "there"])
async def test_continuous_mode_moves_a_large_folder_at_once_for_nothing_is_deleted(side, tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "d")
        await pair.sync.sync("sync")
        mine, other = (pair.here, pair.there) if side == "here" else (pair.there, pair.here)
        before = inodes(other / "d")
        (mine / "d").rename(mine / "e")
        await pair.sync.keep_up()
        assert inodes(other / "e") == before
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.anyio
async def test_a_folder_that_was_renamed_and_changed_too_arrives_as_it_is(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "d")
        await pair.sync.sync("sync")
        (pair.here / "d").rename(pair.here / "e")
        (pair.here / "e" / "part0" / "file0.txt").write_text("changed")
        (pair.here / "e" / "part1" / "more.txt").write_text("more")
        report = await pair.sync.sync("pre")
        assert (report.failed, report.sent) == ({}, len("changed") + len("more"))
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.rows("D03")
@pytest.mark.anyio
async def test_d03_a_file_that_was_changed_there_stays_when_its_large_folder_is_renamed_here(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "d")
        await pair.sync.sync("sync")
        (pair.here / "d").rename(pair.here / "e")
        (pair.there / "d" / "part0" / "file0.txt").write_text("changed there")
        await pair.sync.sync("sync")
        assert (pair.here / "d" / "part0" / "file0.txt").read_text() == "changed there"
        assert len(inodes(pair.here / "e")) == MANY
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.anyio
async def test_ignored_content_does_not_move_with_its_folder(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "d")
        await pair.sync.sync("sync")
        (pair.there / "d" / "__pycache__").mkdir()
        (pair.there / "d" / "__pycache__" / "x.pyc").write_text("x")
        (pair.here / "d").rename(pair.here / "e")
        assert (await pair.sync.sync("sync")).failed == {}
        assert (pair.there / "d" / "__pycache__" / "x.pyc").read_text() == "x"
        assert inodes(pair.there / "e").keys() == inodes(pair.here / "e").keys()


@pytest.mark.anyio
async def test_a_folder_whose_new_name_holds_ignored_content_there_is_filled_file_by_file(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "d")
        await pair.sync.sync("sync")
        (pair.there / "e" / "__pycache__").mkdir(parents=True)
        (pair.here / "d").rename(pair.here / "e")
        assert (await pair.sync.sync("sync")).failed == {}
        assert inodes(pair.there / "e").keys() == inodes(pair.here / "e").keys()
        assert not (pair.there / "d").exists()


@pytest.mark.anyio
async def test_more_new_files_than_a_call_carries_stand_there_as_they_are_here(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "new", 300, size=2_000)
        fill(pair.here / "twin", 300, size=2_000)
        script = pair.here / "new" / "run.sh"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
        (pair.here / "alone.txt").write_text("alone")
        (pair.there / "there").mkdir()
        (pair.here / "there").mkdir()
        (pair.here / "there" / "too.txt").write_text("alone")
        report = await pair.sync.sync("sync")
        assert report.failed == {}
        assert tree_of(pair.there) == tree_of(pair.here)
        assert (pair.there / "new" / "empty").is_dir()
        assert os.access(pair.there / "new" / "run.sh", os.X_OK)
        for name in inodes(pair.here / "new"):
            stamps = [(side / "new" / name).stat().st_mtime_ns for side in (pair.here, pair.there)]
            assert stamps[0] == stamps[1]
        assert sorted(os.listdir(pair.there / ".colab-bridge" / "stage")) == []
        again = await pair.sync.sync("sync")
        assert (again.up, again.down, again.sent) == ((), (), 0)


@pytest.mark.anyio
async def test_new_files_that_take_several_exchanges_all_arrive(tmp_path, monkeypatch):
    monkeypatch.setattr("colab_bridge.sync.doing._BULK_BYTES", 20_000)
    monkeypatch.setattr("colab_bridge.sync.doing._TELLING_BYTES", 5_000)
    async with open_pair(tmp_path) as pair:
        fill(pair.here / "new", 300, size=2_000)
        fill(pair.here / "twin", 300, size=2_000)
        assert (await pair.sync.sync("sync")).failed == {}
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.anyio
async def test_a_folder_that_appears_there_while_content_is_under_way_is_not_replaced(tmp_path):
    async with open_pair(tmp_path) as pair:
        await pair.sync.sync("sync")
        fill(pair.here / "new", 300, size=2_000)
        put, done = pair.remote.put, []

        async def put_and_save(batch):
            if not done:
                done.append(True)
                (pair.there / "new" / "part0").mkdir(parents=True)
                (pair.there / "new" / "part0" / "file0.txt").write_text("theirs")
            await put(batch)

        pair.remote.put = put_and_save
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == tree_of(pair.here)
        assert pair.kept() == {"new/part0/file0.txt": "theirs"}


@pytest.mark.anyio
async def test_very_many_new_results_stand_here_as_they_are_there(tmp_path):
    async with open_pair(tmp_path) as pair:
        await pair.sync.sync("sync")
        fill(pair.there / "new", 300, size=2_000)
        fill(pair.there / "twin", 300, size=2_000)
        pair.sync.run_happened()
        report = await pair.sync.sync("post", wait_all=True)
        assert (report.failed, report.holds) == ({}, ())
        assert tree_of(pair.there) == tree_of(pair.here)
        assert sorted(os.listdir(pair.here / ".colab-bridge" / "stage")) == []
        again = await pair.sync.sync("sync")
        assert (again.up, again.down, again.received) == ((), (), 0)


@pytest.mark.anyio
async def test_very_many_new_results_and_a_conflict_come_together(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "f").write_text("1")
        await pair.sync.sync("sync")
        fill(pair.there / "new", 300, size=2_000)
        shared = (pair.there / "new" / "part0" / "file0.txt").read_text()
        (pair.there / "f").write_text(shared)
        (pair.here / "f").write_text("2")
        pair.sync.run_happened()
        assert (await pair.sync.sync("post", wait_all=True)).failed == {}
        assert tree_of(pair.there) == tree_of(pair.here)
        assert pair.kept() == {"f": shared}
