"""What the sync does beside carrying changes: noise is held, torn files come back, late writes and audits."""

from __future__ import annotations

import os
import time

import pytest

from colab_bridge.agent.sync.budget import Budget
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.local import LocalOptions
from colab_bridge.sync.options import PairOptions
from sync_pair import open_pair, tree_of

TEXT = "line of a readable file\n" * 40


@pytest.mark.anyio
async def test_a_run_that_turns_every_file_into_noise_is_held_and_changes_nothing_here(tmp_path):
    async with open_pair(tmp_path) as pair:
        for number in range(8):
            (pair.here / f"f{number}.txt").write_text(f"{number}\n{TEXT}")
        await pair.sync.sync("sync")
        before = tree_of(pair.here)
        for number in range(8):
            (pair.there / f"f{number}.txt").write_bytes(os.urandom(4096))
        pair.sync.run_happened()
        report = await pair.sync.sync("post")
        assert [hold.stop.value for hold in report.holds] == ["S4"]
        assert len(report.holds[0].paths) == 8
        assert tree_of(pair.here) == before
        again = await pair.sync.sync("sync")
        assert [hold.id for hold in again.holds] == [report.holds[0].id]
        pair.store.decide(report.holds[0].id, approved=True, now=1.0)
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) != before


@pytest.mark.anyio
async def test_one_readable_file_among_noise_is_enough_to_let_a_run_replace_its_results(tmp_path):
    async with open_pair(tmp_path) as pair:
        for number in range(8):
            (pair.here / f"f{number}.txt").write_text(f"{number}\n{TEXT}")
        await pair.sync.sync("sync")
        for number in range(7):
            (pair.there / f"f{number}.txt").write_bytes(os.urandom(4096))
        (pair.there / "f7.txt").write_text("changed\n" + TEXT)
        pair.sync.run_happened()
        report = await pair.sync.sync("post")
        assert report.holds == ()
        assert tree_of(pair.here) == tree_of(pair.there)


@pytest.mark.rows("N11")
@pytest.mark.anyio
@pytest.mark.parametrize("left", [0, 100])
async def test_n11_a_file_that_lost_its_end_in_a_power_cut_comes_back_from_the_runtime(left, tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "results.csv").write_text(TEXT)
        await pair.sync.sync("sync")
    path = pair.here / "results.csv"
    stamp = path.stat().st_mtime_ns
    path.write_text(TEXT[:left])
    os.utime(path, ns=(stamp, stamp - 10**15))
    async with open_pair(tmp_path) as pair:
        # As after a start of the machine without a farewell of the program before it.
        pair.local._torn_before_ns = time.time_ns()
        report = await pair.sync.sync("sync")
        assert path.read_text() == (pair.there / "results.csv").read_text() == TEXT
        assert pair.kept() == {"results.csv": TEXT[:left]}
        assert [(notice.path, notice.kind) for notice in report.notices] == [("results.csv", "conflict")]


@pytest.mark.anyio
async def test_a_stop_without_a_farewell_is_noticed_at_the_next_start_of_the_machine(tmp_path):
    async with open_pair(tmp_path) as pair:
        assert pair.local._torn_before_ns == 0
    async with open_pair(tmp_path) as pair:
        pair.local.store.set_meta("clean", "")
        assert pair.local._begin(time.time()) == 0
        pair.local.store.set_meta("clean", "")
        pair.local.store.set_meta("boot", "another start")
        assert 0 < pair.local._begin(time.time()) <= time.time_ns()
        pair.local.store.set_meta("clean", "yes")
        pair.local.store.set_meta("boot", "another start")
        assert pair.local._begin(time.time()) == 0


@pytest.mark.anyio
async def test_what_a_program_writes_into_a_version_that_was_replaced_is_kept(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "notes.txt").write_text("old")
        await pair.sync.sync("sync")
        with (pair.here / "notes.txt").open("a") as editor:
            (pair.there / "notes.txt").write_text("from the run")
            await pair.sync.sync("post")
            editor.write(" and more")
        await pair.sync.sync("pre")
        assert (pair.here / "notes.txt").read_text() == "from the run"
        assert pair.kept() == {"notes.txt": "old and more"}
        await pair.sync.sync("pre")
        assert len(pair.local.store.copies()) == 1


@pytest.mark.anyio
async def test_what_a_program_there_writes_into_a_replaced_version_is_told_with_the_command(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "notes.txt").write_text("old")
        await pair.sync.sync("sync")
        with (pair.there / "notes.txt").open("a") as program:
            (pair.here / "notes.txt").write_text("from home")
            await pair.sync.sync("pre")
            program.write(" and more")
        report = await pair.sync.sync("post")
        (notice,) = report.notices
        assert (notice.path, notice.kind) == ("notes.txt", "late-write")
        assert notice.command.startswith("colab-bridge sync trash restore --remote txn-")


@pytest.mark.rows("N09")
@pytest.mark.anyio
async def test_the_trash_forgets_what_is_old_but_never_what_nobody_else_has(tmp_path):
    async with open_pair(tmp_path) as pair:
        for name in ("a", "b"):
            (pair.here / f"{name}.txt").write_text(name)
        await pair.sync.sync("sync")
        with (pair.here / "a.txt").open("a") as editor:
            for name in ("b", "a"):
                (pair.there / f"{name}.txt").write_text(f"{name} of the run")
                await pair.sync.sync("post")
            editor.write(" by an editor")
        folder = pair.local.folder
        assert len(folder.late_writes()) == 1
        assert folder.prune(max_bytes=0, max_age_s=0.0) == 0, "the last barriers have put these there"
        folder._young.clear()
        assert folder.prune(max_bytes=0, max_age_s=0.0) == 1
        assert [entry.path for entry in folder.trash.list()] == ["a.txt"]
        pair.local.folder.trash.note_kept(folder.trash.list()[0].id)
        folder.prune(max_bytes=0, max_age_s=0.0)
        assert folder.trash.list() == []


@pytest.mark.rows("I02")
@pytest.mark.anyio
async def test_i02_a_change_that_no_stamp_shows_is_found_by_the_audit(tmp_path):
    async with open_pair(tmp_path, watch=False) as pair:
        path = pair.here / "a.txt"
        path.write_text("one")
        await pair.sync.sync("sync")
        node = pair.local.folder._cache.top
        path.write_text("two")
        seen = path.stat()
        # As if the file system had told the old stamps.
        node.records["a.txt"] = (seen.st_ctime_ns, seen.st_mtime_ns, seen.st_ino, seen.st_mode, seen.st_size)
        await pair.sync.sync("sync")
        assert (pair.there / "a.txt").read_text() == "one"
        await pair.sync.keep_up(quiet=True)
        assert (pair.there / "a.txt").read_text() == "two"


@pytest.mark.anyio
async def test_new_settings_count_for_folders_that_are_kept_in_step_already(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "big.bin").write_bytes(b"x" * 5000)
        pair.local.use(LocalOptions(budget=Budget(file=1000)))
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == {}
        pair.local.use(LocalOptions())
        await pair.sync.sync("pre")
        assert list(tree_of(pair.there)) == ["big.bin"]
        pair.sync.options = PairOptions(barrier_bytes=10)
        (pair.there / "result.bin").write_bytes(b"y" * 5000)
        report = await pair.sync.sync("post")
        assert [item.path for item in report.deferred] == ["result.bin"]


@pytest.mark.anyio
async def test_g02_an_executable_bit_that_stays_there_is_told_once(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "tool.sh").write_text("echo")
        await pair.sync.sync("sync")
        (pair.there / "tool.sh").chmod(0o755)
        report = await pair.sync.sync("post")
        assert [(notice.path, notice.kind) for notice in report.notices] == [("tool.sh", "exec-dropped")]
        assert (await pair.sync.sync("post")).notices == ()
        assert list(tree_of(pair.here)) == ["tool.sh"]


@pytest.mark.anyio
async def test_what_was_rejected_once_is_asked_again_when_it_happens_again(tmp_path):
    async with open_pair(tmp_path) as pair:
        for number in range(60):
            (pair.here / f"f{number}.txt").write_text(str(number))
        await pair.sync.sync("sync")
        before = tree_of(pair.here)
        for _ in range(2):
            for number in range(40):
                (pair.there / f"f{number}.txt").unlink()
            report = await pair.sync.sync("post")
            (hold,) = report.holds
            assert (hold.stop.value, len(hold.paths)) == ("S3", 40)
            pair.store.decide(hold.id, approved=False, now=1.0)
            assert (await pair.sync.sync("sync")).holds == ()
            assert tree_of(pair.here) == tree_of(pair.there) == before


@pytest.mark.anyio
async def test_a_guarded_folder_that_is_rejected_goes_there_and_its_files_are_kept_once(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "a.txt").write_text("a")
        await pair.sync.sync("sync")
        (pair.there / ".vscode").mkdir()
        for name in ("tasks.json", "launch.json"):
            (pair.there / ".vscode" / name).write_text("{}")
        report = await pair.sync.sync("post")
        for hold in report.holds:
            pair.store.decide(hold.id, approved=False, now=1.0)
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == tree_of(pair.here) == {"a.txt": "a"}
        assert sorted(copy.path for copy in pair.local.store.copies()) == [".vscode/launch.json", ".vscode/tasks.json"]


@pytest.mark.anyio
async def test_more_files_than_can_be_kept_in_step_are_named_and_the_sync_goes_on_with_fewer(tmp_path, monkeypatch):
    monkeypatch.setattr("colab_bridge.sync.looking.MOST_FILES", 3)
    async with open_pair(tmp_path) as pair:
        for number in range(4):
            (pair.here / f"f{number}.txt").write_text("x")
        with pytest.raises(SyncFailure, match="4 files here are more than the 3") as caught:
            await pair.sync.sync("sync")
        assert caught.value.kind is FailureKind.TOO_BIG
        (pair.here / ".colabbridgeignore").write_text("f3.txt\nf2.txt\n")
        await pair.sync.sync("sync")
        assert sorted(tree_of(pair.there)) == [".colabbridgeignore", "f0.txt", "f1.txt"]


@pytest.mark.anyio
async def test_changes_that_no_single_call_can_carry_go_in_parts_whatever_content_they_share(tmp_path, monkeypatch):
    monkeypatch.setattr("colab_bridge.sync.doing._PART_BYTES", 2_000)
    monkeypatch.setattr("colab_bridge.sync.operations._WORTH_MOVING_FILES", 1_000)
    async with open_pair(tmp_path) as pair:
        for number in range(30):
            folder = pair.here / "package" / f"part{number}"
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text("")
            (folder / "code.py").write_text(str(number % 4))
        up = await pair.sync.sync("sync")
        assert up.failed == {}
        assert tree_of(pair.there) == tree_of(pair.here)
        (pair.here / "package").rename(pair.here / "renamed")
        moved = await pair.sync.sync("pre")
        assert (moved.failed, moved.holds, moved.sent) == ({}, (), 0)
        assert tree_of(pair.there) == tree_of(pair.here)
