"""What happens to the two folders when the runtime, the memory of the sync, or the folder itself is lost."""

from __future__ import annotations

import random
import shutil

import pytest

from colab_bridge.errors import ConflictError, UserError
from colab_bridge.ports.clock import SystemClock
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.local import LocalOptions, LocalSide
from sync_pair import Pair, open_pair, tree_of


def fill(pair: Pair, count: int = 40) -> None:
    for number in range(count):
        path = pair.here / f"d{number % 4}" / f"f{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content {number}")


@pytest.mark.anyio
async def test_a_runtime_replaced_by_an_empty_one_deletes_nothing_at_home(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair)
        await pair.sync.sync("sync")
        before = tree_of(pair.here)
        await pair.new_machine()
        await pair.sync.sync("pre")
        assert tree_of(pair.here) == before
        assert tree_of(pair.there) == before
        assert pair.local.folder.trash.list() == []


@pytest.mark.anyio
async def test_a_workspace_that_is_suddenly_empty_holds_everything_until_somebody_decides(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair)
        await pair.sync.sync("sync")
        before = tree_of(pair.here)
        for path in pair.there.iterdir():
            if path.name != ".colab-bridge":
                shutil.rmtree(path)
        with pytest.raises(SyncFailure) as caught:
            await pair.sync.sync("post")
        assert caught.value.kind is FailureKind.HELD
        assert tree_of(pair.here) == before
        plan, _ = await pair.sync.plan()
        pair.store.decide(plan.holds[0].id, approved=False, now=1.0)
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == tree_of(pair.here) == before


@pytest.mark.anyio
async def test_very_many_deletions_of_a_run_wait_for_approval_and_go_to_the_trash_then(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair, 80)
        await pair.sync.sync("sync")
        for number in range(40):
            (pair.there / f"d{number % 4}" / f"f{number}.txt").unlink()
        report = await pair.sync.sync("post")
        assert [hold.stop.value for hold in report.holds] == ["S3"]
        assert len(tree_of(pair.here)) == 80
        pair.store.decide(report.holds[0].id, approved=True, now=1.0)
        await pair.sync.sync("sync")
        assert len(tree_of(pair.here)) == 40
        assert len(pair.local.folder.trash.list()) == 40


@pytest.mark.anyio
async def test_a_lost_memory_unites_both_folders_and_deletes_nothing(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair, 8)
        await pair.sync.sync("sync")
        (pair.here / "d0" / "f0.txt").unlink()
        (pair.there / "d1" / "f1.txt").write_text("another")
    (tmp_path / "state" / "pair.db").write_bytes(b"garbage" * 1000)
    async with open_pair(tmp_path) as pair:
        assert "moved to" in pair.store.notices[0]
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there)
        assert len(tree_of(pair.here)) == 8
        assert pair.kept() == {"d1/f1.txt": "another"}


@pytest.mark.anyio
async def test_a_project_that_is_gone_halts_the_sync_and_nothing_is_deleted_there(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair, 8)
        await pair.sync.sync("sync")
        before = tree_of(pair.there)
        pair.here.rename(tmp_path / "moved")
        with pytest.raises(SyncFailure):
            await pair.sync.sync("pre")
        assert tree_of(pair.there) == before
        (tmp_path / "moved").rename(pair.here)
        await pair.sync.sync("pre")
        assert tree_of(pair.here) == tree_of(pair.there) == before


@pytest.mark.anyio
async def test_a_project_is_synced_by_one_process_only(tmp_path):
    async with open_pair(tmp_path) as pair:
        with pytest.raises(ConflictError, match="another process"):
            LocalSide(pair.here, tmp_path / "state", SystemClock(), LocalOptions())


@pytest.mark.anyio
@pytest.mark.parametrize("bad", ["/", "home", "missing"])
async def test_a_folder_that_cannot_be_a_project_is_refused_in_one_line(bad, tmp_path, monkeypatch):
    home = tmp_path / "me"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    path = {"/": "/", "home": home, "missing": tmp_path / "nothing"}[bad]
    with pytest.raises(UserError) as caught:
        LocalSide(
            path if bad != "/" else home.parent.parent.parent.parent, tmp_path / "state", SystemClock(), LocalOptions()
        )
    assert "\n" not in caught.value.message


@pytest.mark.anyio
async def test_a_large_result_comes_after_the_barrier_and_is_whole(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "a").write_text("1")
        await pair.sync.sync("sync")
        content = bytes(range(256)) * 50_000
        (pair.there / "model.bin").write_bytes(content)
        (pair.there / "small.txt").write_text("s")
        report = await pair.sync.sync("post")
        assert [item.path for item in report.deferred] == ["model.bin"]
        assert (pair.here / "small.txt").read_text() == "s"
        assert not (pair.here / "model.bin").exists()
        await pair.sync.fetch_deferred()
        assert (pair.here / "model.bin").read_bytes() == content
        again = await pair.sync.sync("pre")
        assert (again.up, again.down, again.deferred) == ((), (), ())


@pytest.mark.anyio
async def test_a_change_in_the_middle_of_a_large_file_sends_little(tmp_path):
    async with open_pair(tmp_path) as pair:
        content = bytearray(random.Random(1).randbytes(24 << 20))
        (pair.here / "data.bin").write_bytes(content)
        await pair.sync.sync("sync")
        content[10_000_000:10_100_000] = random.Random(2).randbytes(100_000)
        (pair.here / "data.bin").write_bytes(content)
        up = await pair.sync.sync("pre")
        assert up.sent + up.received < 600_000
        assert (pair.there / "data.bin").read_bytes() == content
        content[5_000_000:5_000_000] = b"inserted"
        (pair.there / "data.bin").write_bytes(content)
        down = await pair.sync.sync("post", wait_all=True)
        assert down.sent + down.received < 600_000
        assert (pair.here / "data.bin").read_bytes() == content


@pytest.mark.anyio
async def test_a_renamed_folder_sends_no_content(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair, 60)
        await pair.sync.sync("sync")
        (pair.here / "d0").rename(pair.here / "renamed")
        report = await pair.sync.sync("pre")
        assert (report.sent, report.received) == (0, 0)
        assert tree_of(pair.here) == tree_of(pair.there)


@pytest.mark.anyio
async def test_nothing_changed_is_one_round_trip_without_content_and_so_is_one_change_on_either_side(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair)
        await pair.sync.sync("sync")
        quiet = await pair.sync.sync("pre")
        assert (quiet.round_trips, quiet.sent, quiet.received) == (1, 0, 0)
        (pair.here / "d0" / "new.py").write_text("x" * 4096)
        up = await pair.sync.sync("pre")
        assert (up.round_trips, up.up) == (1, ("d0/new.py",))
        (pair.there / "result.txt").write_text("y")
        down = await pair.sync.sync("post")
        assert (down.round_trips, down.down) == (1, ("result.txt",))
        (pair.there / "late.txt").write_text("z")
        other = await pair.sync.sync("pre")
        assert (other.round_trips, other.down) == (1, ("late.txt",))


@pytest.mark.anyio
async def test_a_rule_that_is_added_deletes_nothing_and_its_paths_leave_the_agreement(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "x.dat").write_text("1")
        (pair.here / "y.txt").write_text("1")
        await pair.sync.sync("sync")
        (pair.here / ".colabbridgeignore").write_text("*.dat\n")
        await pair.sync.sync("pre")
        assert (pair.here / "x.dat").exists()
        assert (pair.there / "x.dat").exists()
        (pair.here / "x.dat").unlink()
        await pair.sync.sync("pre")
        assert (pair.there / "x.dat").exists()
        assert sorted(pair.store.base().children) == [".colabbridgeignore", "y.txt"]


@pytest.mark.anyio
async def test_continuous_mode_carries_no_deletions_so_that_many_of_them_are_seen_together(tmp_path):
    async with open_pair(tmp_path) as pair:
        fill(pair, 80)
        await pair.sync.sync("sync")
        for number in range(40):
            (pair.there / f"d{number % 4}" / f"f{number}.txt").unlink()
            if number % 10 == 0:
                (pair.there / "news.txt").write_text(str(number))
                await pair.sync.keep_up()
        assert (pair.here / "news.txt").read_text() == "30"
        assert len(tree_of(pair.here)) == 81
        report = await pair.sync.sync("post")
        assert [(hold.stop.value, len(hold.paths)) for hold in report.holds] == [("S3", 40)]
        assert len(tree_of(pair.here)) == 81
