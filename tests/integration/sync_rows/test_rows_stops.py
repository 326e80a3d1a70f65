"""Safety stops, and who the other side is: what waits for a person, and what halts."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from colab_bridge.agent.sync.disk import root
from colab_bridge.errors import ConflictError, UserError
from colab_bridge.ports.clock import SystemClock
from colab_bridge.sync import planning
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.local import LocalOptions, LocalSide
from colab_bridge.sync_core.safety import Circumstances, Limits
from sync_pair import Pair, open_pair, tree_of
from sync_tools import mounted
from sync_ways import ProcessWay
from sync_words import edit

pytestmark = pytest.mark.anyio


def fill(pair: Pair, count: int, folders: int = 4) -> dict[str, str]:
    """Make files here; returns the tree."""
    edit(pair.here, " ".join(f"d{n % folders}/f{n}=content{n}" for n in range(count)))
    return tree_of(pair.here)


def empty(side) -> None:
    for path in side.iterdir():
        if path.name != ".colab-bridge":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


async def held(pair: Pair, reason: str = "sync") -> list[str]:
    return [hold.stop.value for hold in (await pair.sync.sync(reason)).holds]


@pytest.mark.rows("K01", "K04")
@pytest.mark.parametrize("side", ["here", "there"])
async def test_a_folder_that_is_suddenly_empty_holds_everything(side, pairs):
    async with pairs() as pair:
        before = fill(pair, 100)
        await pair.sync.sync("sync")
        emptied, other = (pair.here, pair.there) if side == "here" else (pair.there, pair.here)
        empty(emptied)
        for _ in range(2):
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("post")
            assert caught.value.kind is FailureKind.HELD
            assert "approve" in caught.value.hint
            assert tree_of(other) == before
        plan, _ = await pair.sync.plan()
        pair.store.decide(plan.holds[0].id, approved=True, now=1.0)
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) == {}
        assert len(pair.trashed(other)) == 100


@pytest.mark.rows("K02", "N06")
async def test_another_machine_with_an_empty_workspace_gets_everything_and_deletes_nothing(channels):
    async with channels() as pair:
        before = fill(pair, 60)
        await pair.sync.sync("sync")
        await pair.new_machine()
        await pair.sync.sync("pre")
        assert tree_of(pair.here) == tree_of(pair.there) == before
        assert pair.trashed(pair.here) == set()


@pytest.mark.rows("K03", "M30", "N06")
@pytest.mark.parametrize("forged", [False, True])
async def test_a_workspace_that_was_copied_or_forged_as_the_old_one_deletes_nothing_unseen(
    forged, channels, monkeypatch
):
    async with channels() as pair:
        before = fill(pair, 60)
        await pair.sync.sync("sync")
        empty(pair.there)
        (pair.there / "new").write_text("1")
        if not forged:
            # The same marker in the same folder, but the machine was started anew.
            monkeypatch.setattr(root, "boot_id", lambda: "another start")
        await pair.new_agent()
        assert await held(pair) == (["S3"] if forged else [])
        assert tree_of(pair.here) == {**before, "new": "1"}
        if not forged:
            assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.rows("K05")
async def test_most_files_deleted_here_wait_and_go_to_the_trash_there_when_approved(pairs):
    async with pairs() as pair:
        before = fill(pair, 200, folders=5)
        await pair.sync.sync("sync")
        for name in ("d0", "d1", "d2"):
            shutil.rmtree(pair.here / name)
        edit(pair.here, "more=1")
        report = await pair.sync.sync("sync")
        assert [(h.stop.value, len(h.paths)) for h in report.holds] == [("S3", 123)]
        assert tree_of(pair.there) == {**before, "more": "1"}
        pair.store.decide(report.holds[0].id, approved=True, now=1.0)
        assert await held(pair) == []
        assert tree_of(pair.there) == tree_of(pair.here)
        assert len(pair.trashed(pair.there)) == 120


@pytest.mark.rows("K08")
async def test_a_whole_folder_deleted_on_the_runtime_waits(pairs):
    async with pairs() as pair:
        edit(pair.here, " ".join([*(f"data/f{n}={n}" for n in range(20)), *(f"src/g{n}={n}" for n in range(400))]))
        before = tree_of(pair.here)
        await pair.sync.sync("sync")
        shutil.rmtree(pair.there / "data")
        assert await held(pair, "post") == ["S3"]
        assert tree_of(pair.here) == before


@pytest.mark.rows("K07")
async def test_an_empty_mount_point_in_the_place_of_the_project_halts(pairs, quick_root):
    async with pairs() as pair:
        before = fill(pair, 8)
        await pair.sync.sync("sync")
        with mounted("-t", "tmpfs", "none", at=pair.here):
            try:
                await pair.sync.sync("sync")
            except SyncFailure as failure:
                told = failure.kind
            else:
                # Another root: a new one, which gets everything and takes nothing away.
                told = None
                assert tree_of(pair.here) == before
            assert told in {None, FailureKind.HALTED, FailureKind.UNUSABLE, FailureKind.HELD}
            assert tree_of(pair.there) == before
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) == before


@pytest.mark.rows("K09")
async def test_very_many_changes_that_no_run_explains_wait(pairs):
    async with pairs() as pair:
        before = fill(pair, 120)
        await pair.sync.sync("sync")
        for path in list(before)[:60]:
            (pair.there / path).write_text("rewritten")
        assert await held(pair) == ["S4"]
        assert tree_of(pair.here) == before
        # What a run has changed after that is no explanation for what was held before it.
        plan, _ = await pair.sync.plan()
        pair.store.decide(plan.holds[0].id, approved=False, now=1.0)
        assert await held(pair) == []
        assert tree_of(pair.there) == tree_of(pair.here) == before


@pytest.mark.rows("K09")
async def test_very_many_changes_of_a_run_come_down(pairs):
    async with pairs() as pair:
        before = fill(pair, 120)
        await pair.sync.sync("sync")
        for path in list(before)[:60]:
            (pair.there / path).write_text("rewritten")
        pair.sync.run_happened()
        assert await held(pair, "post") == []
        assert tree_of(pair.here) == tree_of(pair.there) != before


@pytest.mark.rows("K10", "X04")
async def test_with_little_room_here_nothing_comes_down_and_the_rest_travels(pairs, monkeypatch):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        monkeypatch.setattr(pair.local, "disk", lambda: (500 << 20, 100 << 30))
        edit(pair.there, "result=#100000 -f")
        edit(pair.here, "up=1")
        assert await held(pair, "post") == ["S7"]
        assert tree_of(pair.here) == {"up": "1"}
        assert os.listdir(pair.here / ".colab-bridge" / "stage") == []
        monkeypatch.setattr(pair.local, "disk", lambda: (50 << 30, 100 << 30))
        assert await held(pair, "post") == []
        assert tree_of(pair.here) == tree_of(pair.there)


@pytest.mark.rows("K11")
async def test_very_many_new_files_of_the_runtime_wait(pairs, monkeypatch):
    assert Limits().down_new_files == 50_000
    monkeypatch.setattr(planning, "Circumstances", partial(Circumstances, limits=Limits(down_new_files=40)))
    async with pairs() as pair:
        edit(pair.there, " ".join(f"n{n}={n}" for n in range(41)))
        assert await held(pair) == ["S8"]
        assert tree_of(pair.here) == {}
        (pair.there / "n0").unlink()
        assert await held(pair) == ["S8"]  # a stop of quantity does not wear off
        plan, _ = await pair.sync.plan()
        pair.store.decide(plan.holds[0].id, approved=True, now=1.0)
        assert await held(pair) == []
        assert tree_of(pair.here) == tree_of(pair.there)


@pytest.mark.rows("B09")
async def test_a_file_of_the_runtime_beyond_the_budget_is_told_and_changes_neither_side(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2")
        with open(pair.there / "f", "wb") as file:
            file.truncate(600 << 20)
        report = await pair.sync.sync("post")
        assert [(n.path, n.kind) for n in report.notices] == [("f", "stays-there")]
        assert "larger than the limit" in report.notices[0].sentence
        assert tree_of(pair.here) == {"f": "2"}
        assert (pair.there / "f").stat().st_size == 600 << 20
        assert pair.kept() == {}
        (pair.there / "f").write_text("2")
        assert await held(pair, "post") == []


@pytest.mark.rows("K12", "B09")
async def test_one_file_of_more_than_the_limit_waits_also_as_the_loser_of_a_conflict(pairs, monkeypatch):
    assert Limits().down_file == 512 << 20
    monkeypatch.setattr(planning, "Circumstances", partial(Circumstances, limits=Limits(down_file=100)))
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2")
        edit(pair.there, "f=#101 new=#101 fits=#100")
        report = await pair.sync.sync("post")
        assert [(hold.stop.value, hold.paths) for hold in report.holds] == [("S8", ("f", "new"))]
        assert tree_of(pair.here).keys() == {"f", "fits"}
        assert tree_of(pair.here)["f"] == "2"
        assert tree_of(pair.there).keys() == {"f", "new", "fits"}
        assert pair.kept() == {}
        pair.store.decide(report.holds[0].id, approved=True, now=1.0)
        assert await held(pair) == []
        assert tree_of(pair.there) == tree_of(pair.here)
        # It was kept for the review already, once is enough.
        assert pair.kept(reviews=True)["f"] == tree_of(pair.here)["new"]


@pytest.mark.rows("K13")
async def test_a_project_that_was_copied_with_everything_is_another_one(agent, quick_root):
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        before = fill(pair, 30)
        await pair.sync.sync("sync")
    shutil.copytree(pair.here, quick_root / "home" / "copy")
    shutil.rmtree(quick_root / "home" / "copy" / "d0")
    copied = Pair(quick_root, way=ProcessWay(agent))
    copied.here = quick_root / "home" / "copy"
    await copied.start()
    try:
        await copied.sync.sync("sync")
        assert tree_of(copied.here) == tree_of(copied.there) == before
    finally:
        await copied.stop()


@pytest.mark.rows("K14")
@pytest.mark.parametrize("state", ["state", "the state of another home"])
async def test_a_second_client_of_one_project_is_refused_in_one_line(state, pairs):
    async with pairs() as pair:
        with pytest.raises(ConflictError, match="another process") as caught:
            LocalSide(pair.here, pair.tmp / state, SystemClock(), LocalOptions())
        assert "\n" not in caught.value.message
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == {"f": "1"}
    LocalSide(pair.here, pair.tmp / state, SystemClock(), LocalOptions())._let_go()


async def test_a_folder_that_cannot_be_synced_is_told_with_what_helps(quick_root, monkeypatch):
    home = quick_root / "home"
    (home / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for number, (folder, words) in enumerate(
        [(Path("/"), "mkdir PROJECT"), (home, "mkdir PROJECT"), (home / "none", "Put it back")]
    ):
        with pytest.raises(UserError, match="not synced") as caught:
            LocalSide(folder, quick_root / f"state{number}", SystemClock(), LocalOptions())
        assert words in caught.value.hint


@pytest.mark.rows("K15")
async def test_an_approval_is_for_what_was_seen_and_not_for_what_came_later(pairs):
    async with pairs() as pair:
        before = fill(pair, 80)
        await pair.sync.sync("sync")
        gone = list(before)[:40]
        for path in gone:
            (pair.there / path).unlink()
        first = (await pair.sync.sync("post")).holds[0]
        (pair.here / gone[0]).write_text("edited meanwhile")
        for path in list(before)[40:50]:
            (pair.there / path).unlink()
        pair.store.decide(first.id, approved=True, now=1.0)
        second = (await pair.sync.sync("sync")).holds[0]
        assert second.id != first.id
        assert len(tree_of(pair.here)) == 80
        pair.store.decide(second.id, approved=True, now=1.0)
        await pair.sync.sync("sync")
        assert tree_of(pair.here)[gone[0]] == "edited meanwhile"
        files = [path for path in tree_of(pair.here) if not path.endswith("/")]
        assert len(files) == 31
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.rows("K16")
async def test_rejected_deletions_come_back_on_the_side_that_made_them(pairs):
    async with pairs() as pair:
        before = fill(pair, 80)
        await pair.sync.sync("sync")
        for path in list(before)[:40]:
            (pair.there / path).unlink()
        report = await pair.sync.sync("post")
        pair.store.decide(report.holds[0].id, approved=False, now=1.0)
        assert await held(pair) == []
        assert tree_of(pair.here) == tree_of(pair.there) == before


@pytest.mark.rows("K17")
async def test_a_folder_inside_a_synced_one_is_no_project(pairs):
    async with pairs() as pair:
        (pair.here / "inner").mkdir()
        with pytest.raises(UserError, match="inside the synced folder"):
            LocalSide(pair.here / "inner", pair.tmp / "state2", SystemClock(), LocalOptions())


@pytest.mark.rows("X19")
async def test_a_trash_on_another_device_is_refused_at_the_start(pairs, quick_root):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
    trash = pair.here / ".colab-bridge" / "trash"
    with mounted("-t", "tmpfs", "none", at=trash), pytest.raises(UserError, match="not synced"):
        await Pair(quick_root).start()
    assert tree_of(pair.here) == {"f": "1"}


@pytest.mark.rows("K05", "C13")
@pytest.mark.parametrize(
    ("base", "edits"),
    [
        ("d=1", "-d d/x=2 d/y/z=3 f=2"),
        ("d/a=1 d/b=1", "-d d=2 f=2"),
        ("l>f", "-l l/x=2 f=2"),
        ("d/a=1", "-d/a d/a/x=2 f=2"),
    ],
)
@pytest.mark.parametrize("side", ["here", "there"])
async def test_between_barriers_what_needs_the_place_of_a_deletion_waits_with_it(side, base, edits, pairs):
    async with pairs() as pair:
        edit(pair.here, f"f=1 {base}")
        await pair.sync.sync("sync")
        changed, other = (pair.here, pair.there) if side == "here" else (pair.there, pair.here)
        before = tree_of(other)
        edit(changed, edits)
        await pair.sync.sync("watch")
        assert tree_of(other) == {**before, "f": "2"}
        await pair.sync.sync("post")
        assert tree_of(other) == tree_of(changed)
