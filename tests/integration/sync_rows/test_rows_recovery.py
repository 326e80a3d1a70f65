"""What is lost and comes back: the memory of the sync, its process, its disk, the agent, the time."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent_versions import another_version
from colab_bridge.agent.sync.disk import exchange, place, stage
from colab_bridge.agent.sync.disk.exchange import LinkExchange
from colab_bridge.agent.sync.disk.transaction import Transaction
from colab_bridge.ports.clock import SystemClock
from colab_bridge.sync.failures import FailureKind, SyncFailure
from fs_faults import Killed
from sync_pair import Pair, open_pair, tree_of
from sync_tools import Liar
from sync_ways import ProcessWay, agent_process
from sync_words import edit

pytestmark = pytest.mark.anyio


def everything(pair: Pair) -> set[str]:
    found = set(pair.kept().values()) | set(tree_of(pair.here).values()) | set(tree_of(pair.there).values())
    return found | {text for side in (pair.here, pair.there) for _, text in pair.trashed(side)}


DAMAGE = {
    "N01": lambda db: [path.unlink() for path in db.parent.glob(db.name + "*")],
    "N02": lambda db: db.write_bytes(db.read_bytes()[:3000]),
    "N04": lambda db: db.write_bytes(b"garbage" * 1000),
}


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.rows(row), id=row) for row in DAMAGE])
async def test_a_lost_or_damaged_memory_unites_both_folders_and_deletes_nothing(row, agent, quick_root):
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        edit(pair.here, "a=1 b=1 c=1 d/e=1")
        await pair.sync.sync("sync")
        edit(pair.here, "-a b=here")
        edit(pair.there, "-c b=there new=1")
    DAMAGE[row](quick_root / "state" / "pair.db")
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        await pair.sync.sync("sync")
        wanted = {"a": "1", "b": "here", "c": "1", "d/e": "1", "new": "1"}
        assert tree_of(pair.here) == tree_of(pair.there) == wanted
        assert pair.kept() == {"b": "there"}


@pytest.mark.rows("N02", "N03")
async def test_an_older_backup_of_the_memory_loses_nothing(agent, quick_root):
    db = quick_root / "state" / "pair.db"
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        edit(pair.here, "a=1 b=1 c=1")
        await pair.sync.sync("sync")
    shutil.copy(db, quick_root / "state" / "backup")
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        edit(pair.here, "a=2 new=1 -c")
        edit(pair.there, "b=2")
        await pair.sync.sync("sync")
        before = everything(pair)
    for path in db.parent.glob(db.name + "*"):
        path.unlink()
    shutil.copy(quick_root / "state" / "backup", db)
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        report = await pair.sync.sync("sync")
        assert (report.sent, report.received) == (0, 0)
        assert tree_of(pair.here) == tree_of(pair.there) == {"a": "2", "b": "2", "new": "1"}
        assert pair.kept() == {}
        assert before <= everything(pair)


@pytest.mark.rows("N05")
async def test_an_agent_of_another_version_takes_over_and_costs_nothing(quick_root):
    folder = quick_root / "agent"
    async with agent_process(folder, stop=False) as link, open_pair(quick_root, way=ProcessWay(link)) as pair:
        edit(pair.here, "a=1 d/b=1")
        await pair.sync.sync("sync")
        before = await link.call("agent.hello")
        edit(pair.here, "a=2 -d/b")
        edit(pair.there, "new=1")
    newer = another_version()
    async with agent_process(folder, bundle=newer) as link, open_pair(quick_root, way=ProcessWay(link)) as pair:
        assert link.status.info["agent"] == newer.content_hash != before[0]["agent"]
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) == {"a": "2", "d/": "", "new": "1"}
        assert pair.kept() == {}


@pytest.mark.rows("N06", "X17")
async def test_an_agent_that_is_killed_or_started_anew_costs_nothing(quick_root):
    async with agent_process(quick_root / "agent") as link, open_pair(quick_root, way=ProcessWay(link)) as pair:
        edit(pair.here, "a=1 d/b=1")
        await pair.sync.sync("sync")
        pid = int((await link.call("agent.hello"))[0]["pid"])
        edit(pair.here, "a=2 -d/b")
        edit(pair.there, "new=1")
        os.kill(pid, signal.SIGKILL)
        for _ in range(10):
            try:
                await pair.sync.sync("post")
            except SyncFailure:
                continue
            break
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) == {"a": "2", "d/": "", "new": "1"}
        assert int((await link.call("agent.hello"))[0]["pid"]) != pid


@pytest.mark.rows("X17")
async def test_an_agent_that_is_stopped_for_a_while_is_offline_and_nothing_is_half_done(quick_root):
    async with agent_process(quick_root / "agent") as link, open_pair(quick_root, way=ProcessWay(link)) as pair:
        edit(pair.here, "a=1 b=1")
        await pair.sync.sync("sync")
        pid = int((await link.call("agent.hello"))[0]["pid"])
        edit(pair.here, "a=2 b=2")
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("pre")
            assert caught.value.kind is FailureKind.OFFLINE
            assert tree_of(pair.there) == {"a": "1", "b": "1"}
        finally:
            os.kill(pid, signal.SIGCONT)
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == {"a": "2", "b": "2"}
        assert pair.kept() == {}


class JumpingClock(SystemClock):
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def time(self) -> float:
        return super().time() + self.offset_s

    def monotonic(self) -> float:
        return super().monotonic() + max(0.0, self.offset_s)


@pytest.mark.rows("N07", "N08", "X08", "X18")
@pytest.mark.parametrize("hours", [8, -1, 24, -24])
async def test_a_clock_that_jumps_changes_nothing(hours, agent, quick_root):
    clock = JumpingClock()
    async with open_pair(quick_root, way=ProcessWay(agent), clock=clock) as pair:
        edit(pair.here, "a=1 b=1")
        await pair.sync.sync("sync")
        clock.offset_s = hours * 3600
        edit(pair.here, "a=2")
        edit(pair.there, "b=2 c=1")
        await pair.sync.sync("post")
        clock.offset_s = 0
        edit(pair.here, "c=2")
        await pair.sync.sync("pre")
        assert tree_of(pair.here) == tree_of(pair.there) == {"a": "2", "b": "2", "c": "2"}
        assert pair.kept() == {}


@pytest.mark.rows("X18", "X08")
@pytest.mark.parametrize("hours", [8, -24])
@pytest.mark.parametrize("verb", ["pre", "post", "put", "chunk", "get"])
async def test_a_machine_that_sleeps_in_the_middle_of_a_sync_goes_on_when_it_wakes(verb, hours, agent, quick_root):
    clock = JumpingClock()
    async with open_pair(quick_root, way=ProcessWay(agent), clock=clock) as pair:
        edit(pair.here, "a=1 b=1")
        await pair.sync.sync("sync")
        liar = pair.remote._caller = Liar(pair.caller)
        many = " ".join(f"n{number}=#20000x" for number in range(200))
        edit(pair.here, f"a=2 large=#3000000u {many}")
        edit(pair.there, "b=2 down=#3000000d")

        def sleep():
            clock.offset_s += hours * 3600

        liar.before[verb] = sleep
        for _ in range(2):
            await pair.sync.sync("post", wait_all=True)
        assert verb in liar.calls or verb == "pre"
        assert tree_of(pair.here) == tree_of(pair.there)
        assert tree_of(pair.here).items() >= {"a": "2", "b": "2"}.items()
        assert pair.kept() == {}


@pytest.mark.rows("N10", "D11")
async def test_what_was_deleted_or_replaced_comes_back_from_the_trash_on_both_sides(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        edit(pair.there, "-f g=2")
        await pair.sync.sync("post")
        trash = pair.local.folder.trash
        entries = {entry.path: entry.id for entry in trash.list()}
        trash.restore(entries["f"])
        (pair.here / "g").unlink()
        trash.restore(entries["g"])
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) == {"f": "1", "g": "1"}


@pytest.mark.rows("B13")
async def test_a_kept_version_that_is_put_back_goes_to_both_sides(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2")
        edit(pair.there, "f=3")
        await pair.sync.sync("post")
        (copy,) = pair.local.store.copies()
        (pair.here / "f").write_bytes(pair.local.copies.path_of(copy).read_bytes())
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there) == {"f": "3"}
        assert ("f", "2") in pair.trashed(pair.there)


@pytest.mark.rows("N13")
async def test_the_folder_of_the_sync_in_the_project_holds_no_secret_and_stays_out_of_git(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 secret.txt=x")
        await pair.sync.sync("sync")
        edit(pair.there, "f=2")
        await pair.sync.sync("post")
        ours = pair.here / ".colab-bridge"
        data = b"".join(path.read_bytes() for path in ours.rglob("*") if path.is_file())
        assert pair.local.key not in data
        assert pair.local.key.hex().encode() not in data
        assert (ours / ".gitignore").read_text() == "*\n"
        assert ours.stat().st_mode & 0o077 == 0


def busy(db: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def read_only(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA query_only = ON")


def full(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA max_page_count = 1")


@pytest.mark.rows("X16")
@pytest.mark.parametrize("trouble", [busy, read_only, full])
async def test_a_memory_that_cannot_be_written_stops_everything_before_it_begins(trouble, agent, quick_root):
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.here, "g=1")
        edit(pair.there, "f=2 " + " ".join(f"n{number}=1" for number in range(300)))
        other = trouble(pair.store._db, quick_root / "state" / "pair.db")
        with pytest.raises(SyncFailure) as caught:
            await pair.sync.sync("post")
        assert caught.value.kind is FailureKind.DISK
        assert "\n" not in caught.value.text
        if other is not None:
            other.close()
    async with open_pair(quick_root, way=ProcessWay(agent)) as pair:
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there)
        assert tree_of(pair.here).items() >= {"f": "2", "g": "1"}.items()
        assert pair.kept() == {}


@pytest.mark.rows("X20")
async def test_without_an_exchange_of_names_it_is_degraded_and_everything_works(channels, monkeypatch):
    monkeypatch.setattr(exchange, "system_exchange", LinkExchange)
    async with channels() as pair:
        edit(pair.here, "f=1 d/g=1 l>f gone=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2 -gone")
        edit(pair.there, "d/g=2 f=3 -l l>d")
        await pair.sync.sync("post")
        assert tree_of(pair.here) == tree_of(pair.there) == {"f": "2", "d/g": "2", "l": "-> d"}
        assert pair.kept() == {"f": "3"}
        assert any("exchange" in sentence for sentence in pair.local.folder.degraded)
        assert any("exchange" in sentence for sentence in pair.remote.info.degraded)


@pytest.mark.rows("X10", "P1", "T25")
@pytest.mark.parametrize("atomic", [True, False])
async def test_no_save_is_lost_while_results_come_down_onto_the_same_file(atomic, channels):
    saved: list[str] = []
    stop = threading.Event()

    def save(path: Path) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            text = f"save {number:06}"
            if atomic:
                other = path.with_name(".f.swp")
                other.write_text(text)
                os.replace(other, path)
            else:
                path.write_text(text)
            saved.append(text)

    async with channels() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        thread = threading.Thread(target=save, args=(pair.here / "f",))
        thread.start()
        theirs = []
        try:
            for number in range(30):
                theirs.append(f"result {number}")
                (pair.there / "f").write_text(theirs[-1])
                try:
                    await pair.sync.sync("post")
                except SyncFailure:
                    await asyncio.sleep(0)
        finally:
            stop.set()
            thread.join()
        last = (pair.here / "f").read_text()
        await pair.sync.sync("sync")
        assert tree_of(pair.here)["f"] == tree_of(pair.there)["f"]
        assert {last, theirs[-1]} <= everything(pair)
        # Whatever the sync took from the path is somewhere; nothing is torn.
        known = {*saved, *theirs, "1"}
        assert {text for text in everything(pair) if text.startswith(("save", "result"))} <= known


@pytest.mark.rows("X11", "T03")
async def test_a_folder_that_becomes_a_link_in_the_middle_is_not_followed(channels, quick_root, monkeypatch):
    outside = quick_root / "outside"
    outside.mkdir(parents=True)
    (outside / "f").write_text("untouched")
    real = Transaction._carry_out

    async with channels() as pair:
        edit(pair.here, "d/f=1 g=1")
        await pair.sync.sync("sync")

        def swap(self, op, index):
            if (pair.here / "d").is_dir() and not (pair.here / "d").is_symlink() and op.path == "d/f":
                (pair.here / "d").rename(pair.here / "moved")
                (pair.here / "d").symlink_to(outside)
            return real(self, op, index)

        edit(pair.there, "d/f=2")
        monkeypatch.setattr(Transaction, "_carry_out", swap)
        try:
            await pair.sync.sync("post")
        except SyncFailure:
            monkeypatch.undo()
        assert (outside / "f").read_text() == "untouched"
        assert os.listdir(outside) == ["f"]
        assert {"1", "2"} <= everything(pair)


@pytest.mark.rows("X13")
async def test_few_descriptors_make_it_slower_and_not_wrong(quick_root):
    code = f"""
import asyncio, resource, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from sync_pair import open_pair, tree_of
from sync_words import edit

async def main():
    async with open_pair(Path({str(quick_root)!r})) as pair:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        deep = ["/".join([f"d{{n % 7}}"] * (n % 40 + 1)) for n in range(150)]
        edit(pair.here, " ".join(f"{{path}}/f{{n}}={{n}}" for n, path in enumerate(deep)))
        await pair.sync.sync("sync")
        edit(pair.there, "new/a=1")
        await pair.sync.sync("post")
        assert tree_of(pair.here) == tree_of(pair.there)
        print(len(tree_of(pair.here)))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("151\n", 0), done.stderr[-500:]


@pytest.mark.rows("X05")
async def test_no_inodes_left_is_told_and_loses_nothing(channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.there, " ".join(f"n{number}={number}" for number in range(10)))

        def full(self, digest, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage.Stage, "put", full)
            with pytest.raises(SyncFailure) as caught:
                await pair.sync.sync("post")
        assert caught.value.kind is FailureKind.DISK
        assert tree_of(pair.here) == {"f": "1"}
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there)


@pytest.mark.rows("X06")
async def test_a_link_that_is_cut_after_every_frame_loses_nothing(channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        for cut in range(12):
            edit(pair.here, f"f=here{cut} up{cut}=1")
            edit(pair.there, f"g=there{cut}")
            left = cut

            def tamper(direction, frame):
                nonlocal left
                left -= 1
                return [frame] if left != 0 else None

            pair.way.dialer.tamper = tamper
            await pair.way.dialer.cut()
            for _ in range(5):
                try:
                    await asyncio.wait_for(pair.sync.sync("post"), 30)
                except SyncFailure:
                    continue
                break
            assert tree_of(pair.here) == tree_of(pair.there)
        assert pair.kept() == {}


@pytest.mark.rows("X03")
@pytest.mark.parametrize("side", ["here", "there"])
@pytest.mark.parametrize("at", [1, 2])
async def test_what_a_power_cut_leaves_of_unsynced_content_never_gets_into_a_folder(side, at, quick_root, monkeypatch):
    real, count = place.Calls.commit, 0

    def cut(self, folder):
        nonlocal count
        if not folder.path.startswith(str(sides[side])):
            return real(self, folder)
        count += 1
        if count != at:
            return real(self, folder)
        # Names and lengths survive, bytes do not; what was made durable before stays.
        for path in (sides[side] / ".colab-bridge" / "stage").iterdir() if at == 1 else ():
            if path.is_file() and not path.is_symlink():
                os.truncate(path, 0 if path.stat().st_size % 2 else path.stat().st_size // 2)
        raise Killed

    async with open_pair(quick_root) as pair:
        sides = {"here": pair.here, "there": pair.there}
        edit(pair.here, "f=1 g=1 h=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=here2 new=here3")
        edit(pair.there, "g=there2 newer=there3 large=#1200000")
        before = everything(pair)
        monkeypatch.setattr(place.Calls, "commit", cut)
        with pytest.raises(Killed):
            await pair.sync.sync("post")
        monkeypatch.undo()
    async with open_pair(quick_root) as pair:
        await pair.sync.sync("sync")
        wanted = {"f": "here2", "new": "here3", "g": "there2", "newer": "there3", "h": "1"}
        assert {path: text for path, text in tree_of(pair.here).items() if path != "large"} == wanted
        assert len(tree_of(pair.here)["large"]) == 1_200_000
        assert tree_of(pair.there) == tree_of(pair.here)
        assert before <= everything(pair)
