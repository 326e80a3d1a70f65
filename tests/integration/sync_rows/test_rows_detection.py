"""What changes are seen, however they were made, on both sides of a real pair."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from colab_bridge.agent.sync.disk import look, platform_inotify, watch
from colab_bridge.sync.failures import SyncFailure
from sync_pair import tree_of
from sync_words import edit

pytestmark = pytest.mark.anyio


def same_size_old_time(path: Path) -> None:
    seen = path.stat()
    path.write_text("2")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def other_inode(path: Path) -> None:
    seen = path.stat()
    path.unlink()
    path.write_text("2")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def mapped(path: Path) -> None:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 1) as view:
        view[0:1] = b"2"


def copied_with_old_time(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("2")
    os.utime(other, (1_000_000_000, 1_000_000_000))
    shutil.copy2(other, path)
    other.unlink()


def unpacked_with_old_time(path: Path) -> None:
    box = path.parent / "box"
    box.mkdir()
    (box / path.name).write_text("2")
    os.utime(box / path.name, (1_000_000_000, 1_000_000_000))
    subprocess.run(["tar", "cf", str(box) + ".tar", "-C", str(box), path.name], check=True)
    subprocess.run(["tar", "xf", str(box) + ".tar", "-C", str(path.parent)], check=True)
    shutil.rmtree(box)
    os.unlink(str(box) + ".tar")


def replaced(path: Path) -> None:
    other = path.with_name("4913")
    other.write_text("2")
    os.replace(other, path)


def in_place_by_sed(path: Path) -> None:
    subprocess.run(["sed", "-i", "s/1/2/", str(path)], check=True)


def as_vim_does(path: Path) -> None:
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_text("2")
    backup.unlink()


def as_emacs_does(path: Path) -> None:
    lock = path.with_name(f".#{path.name}")
    lock.symlink_to("user@host.1234:1700000000")
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    path.write_text("2")
    lock.unlink()
    backup.unlink()


def as_pycharm_does(path: Path) -> None:
    new, old = path.with_name(path.name + "___jb_tmp___"), path.with_name(path.name + "___jb_old___")
    new.write_text("2")
    path.rename(old)
    new.rename(path)
    old.unlink()


def checked_out_by_git(path: Path) -> None:
    before = path.read_text()
    git = ["git", "--git-dir", str(path.parent.parent / "repository"), "--work-tree", str(path.parent)]
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    path.write_text("2")
    subprocess.run([*git, "add", "-f", path.name], cwd=path.parent, check=True)
    subprocess.run([*git, *who, "commit", "-q", "--no-gpg-sign", "-m", "two"], cwd=path.parent, check=True)
    path.write_text(before)
    subprocess.run([*git, "checkout", "-q", "-f", "--", path.name], cwd=path.parent, check=True)


WAYS: list[tuple[str, Callable[[Path], None]]] = [
    ("I01", same_size_old_time),
    ("X09", same_size_old_time),
    ("I03", lambda path: path.write_text("2") and None),
    ("I11", mapped),
    ("I14", replaced),
    ("I14", in_place_by_sed),
    ("I14", as_vim_does),
    ("I14", as_emacs_does),
    ("I14", as_pycharm_does),
    ("I14", checked_out_by_git),
    ("I17", other_inode),
    ("I21", copied_with_old_time),
    ("I21", unpacked_with_old_time),
]


@pytest.mark.parametrize(
    ("row", "way"),
    [
        pytest.param(row, way, marks=pytest.mark.rows(row), id=f"{row} {number}")
        for number, (row, way) in enumerate(WAYS)
    ],
)
async def test_a_change_of_any_kind_is_seen_by_the_next_barrier(row, way, pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        way(pair.here / "f")
        await pair.sync.sync("sync" if row == "I11" else "pre")
        assert tree_of(pair.there) == {"f": "2", "g": "1"}
        way(pair.there / "g")
        await pair.sync.sync("post")
        assert tree_of(pair.here) == tree_of(pair.there) == {"f": "2", "g": "2"}


@pytest.mark.rows("I04")
async def test_two_saves_within_one_tick_are_both_seen(pairs):
    async with pairs() as pair:
        for number in range(30):
            (pair.here / "f").write_text(f"{number:04}")
            await pair.sync.sync("pre")
            assert (pair.there / "f").read_text() == f"{number:04}"


@pytest.mark.rows("I05", "I06", "I07", "I08")
async def test_no_file_of_a_burst_is_overlooked(pairs):
    async with pairs() as pair:
        edit(pair.here, " ".join(f"known{n}/x=1" for n in range(10)))
        await pair.sync.sync("sync")
        edit(pair.here, " ".join(f"known{n % 10}/f{n}=a" for n in range(1_000)))
        edit(pair.here, " ".join(f"new{n % 50}/f{n}=b" for n in range(1_000)))
        edit(pair.here, " ".join(f"deep{n}/a/b/c/d/f=c" for n in range(100)))
        await pair.sync.sync("pre")
        assert tree_of(pair.there) == tree_of(pair.here)
        assert len(tree_of(pair.there)) == 2_110


@pytest.mark.rows("I09")
async def test_where_the_limit_of_watches_is_reached_the_sync_walks_and_says_so(pairs, monkeypatch):
    def full(self, *arguments, **keywords):
        raise OSError(errno.ENOSPC, "no more watches")

    monkeypatch.setattr(platform_inotify.Inotify, "add", full)
    async with pairs() as pair:
        edit(pair.here, "f=1 d/g=1")
        await pair.sync.sync("sync")
        assert pair.local.folder.watch_number is None
        assert pair.local.folder.degraded != []
        edit(pair.here, "d/g=2")
        await pair.sync.sync("pre")
        assert tree_of(pair.there) == {"f": "1", "d/g": "2"}


@pytest.mark.rows("X22", "I22")
async def test_a_system_that_tells_of_no_changes_is_walked(pairs, monkeypatch):
    def nothing(self):
        raise watch.WatcherUnavailable("changes are not reported here")

    monkeypatch.setattr(watch.Watcher, "start", nothing)
    async with pairs() as pair:
        edit(pair.here, "f=1 d/g=1")
        await pair.sync.sync("sync")
        edit(pair.here, "d/g=2")
        edit(pair.there, "d/h=2")
        await pair.sync.sync("pre")
        assert tree_of(pair.there) == tree_of(pair.here) == {"f": "1", "d/g": "2", "d/h": "2"}
        assert pair.local.folder.degraded != []


@pytest.mark.rows("I10")
async def test_a_change_in_a_renamed_folder_is_seen_under_its_new_name(pairs):
    async with pairs() as pair:
        edit(pair.here, "d/e/f=1 g=1")
        await pair.sync.sync("sync")
        edit(pair.here, "d~x")
        (pair.here / "x" / "e" / "f").write_text("2")
        await pair.sync.sync("pre")
        assert tree_of(pair.there) == {"x/e/f": "2", "g": "1"}
        edit(pair.there, "x~y y/e/f=3")
        await pair.sync.sync("post")
        assert tree_of(pair.here) == {"y/e/f": "3", "g": "1"}


MAPPING = """
import mmap, sys
file = open(sys.argv[1], "r+b")
view = mmap.mmap(file.fileno(), 16)
for line in sys.stdin:
    view[0:4] = line.strip().encode()
    print("done", flush=True)
"""


@pytest.mark.rows("I12", "I13")
async def test_what_a_program_stores_in_a_mapped_file_comes_down_after_each_run(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        (pair.here / "array").write_bytes(b"0000" + bytes(12))
        await pair.sync.sync("sync")
        command = [sys.executable, "-c", MAPPING, str(pair.there / "array")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            for value in ("1111", "2222", "3333"):
                program.stdin.write(value + "\n")
                program.stdin.flush()
                assert program.stdout.readline() == "done\n"
                await pair.sync.sync("post")
                assert (pair.here / "array").read_bytes()[:4].decode() == value
            program.stdin.close()


def saving(path: Path, stop: threading.Event, save: Callable[[Path, int], None]) -> threading.Thread:
    def run() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            save(path, number)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def gone_for_a_moment(path: Path, number: int) -> None:
    path.unlink()
    path.write_text(f"save {number}")


def saved_as_vim_does(path: Path, number: int) -> None:
    path.rename(str(path) + "~")
    path.write_text(f"save {number}")


def timed(save: Callable[[Path, int], None], gaps: list[float]) -> Callable[[Path, int], None]:
    """Note for how long a save took the file away: on a busy machine a saver may be stopped in between."""

    def run(path: Path, number: int) -> None:
        begun = time.monotonic()
        save(path, number)
        gaps.append(time.monotonic() - begun)

    return run


@pytest.mark.rows("I14", "I15")
@pytest.mark.parametrize("save", [gone_for_a_moment, saved_as_vim_does])
async def test_a_file_that_is_saved_again_and_again_is_never_deleted_on_the_other_side(save, pairs):
    async with pairs() as pair:
        edit(pair.here, "f=save g=1")
        await pair.sync.sync("sync")
        stop = threading.Event()
        gaps = [0.0]
        thread = saving(pair.here / "f", stop, timed(save, gaps))
        try:
            for _ in range(25):
                try:
                    await pair.sync.sync("pre")
                except SyncFailure as failure:
                    only(failure, "f")
                assert (pair.there / "f").exists() or max(gaps) > 0.02
        finally:
            stop.set()
            thread.join()
        await pair.sync.sync("sync")
        (pair.here / "f~").unlink(missing_ok=True)
        assert tree_of(pair.there) == tree_of(pair.here)


def only(failure: SyncFailure, path: str) -> None:
    assert set(failure.paths) <= {path}


@pytest.mark.rows("I18", "I19", "I20")
async def test_a_log_that_grows_there_comes_down_as_a_beginning_of_it(pairs):
    line = "a line of a log, always the same length\n"

    def grow(path: Path, number: int) -> None:
        with open(path, "a", encoding="utf-8") as log:
            log.write(line)

    async with pairs() as pair:
        edit(pair.here, "g=1")
        await pair.sync.sync("sync")
        stop = threading.Event()
        thread = saving(pair.there / "log", stop, grow)
        try:
            for _ in range(10):
                try:
                    await pair.sync.sync("post")
                except SyncFailure as failure:
                    only(failure, "log")
                here = (pair.here / "log").read_text() if (pair.here / "log").exists() else ""
                assert here == line * (len(here) // len(line)) + line[: len(here) % len(line)]
        finally:
            stop.set()
            thread.join()
        # How far it has come by now is the machine's speed; more than 8 MiB would be left for later.
        await pair.sync.sync("post", wait_all=True)
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.rows("I16", "H15")
async def test_what_is_left_out_is_not_watched_and_not_walked(pairs, monkeypatch):
    looked: list[str] = []
    real = look.Look.names

    def names(self, node, *args, **more):
        looked.append(node.path)
        return real(self, node, *args, **more)

    monkeypatch.setattr(look.Look, "names", names)
    async with pairs() as pair:
        edit(pair.here, "f=1 " + " ".join(f"node_modules/p{n}/x=1" for n in range(200)))
        await pair.sync.sync("sync")
        assert tree_of(pair.there) == {"f": "1"}
        assert not any(path.startswith("node_modules") for path in looked)


@pytest.mark.rows("X14", "X15")
async def test_lost_events_make_the_next_look_a_walk(pairs, monkeypatch):
    async with pairs() as pair:
        edit(pair.here, "f=1 d/g=1")
        await pair.sync.sync("sync")
        watcher = pair.local.folder._watcher
        assert watcher is not None
        real = watch.Watcher.settle
        lost = [True]

        def settle(self, timeout_s):
            found = real(self, timeout_s)
            if lost:
                lost.pop()
                return type(found)(frozenset(), False)
            return found

        monkeypatch.setattr(watch.Watcher, "settle", settle)
        edit(pair.here, "d/g=2")
        await pair.sync.sync("pre")
        assert tree_of(pair.there) == {"f": "1", "d/g": "2"}


@pytest.mark.rows("H13")
async def test_a_thousand_rules_leave_out_what_they_name(pairs):
    async with pairs() as pair:
        (pair.here / ".colabbridgeignore").write_text("\n".join(f"/x{n}/*.tmp{n}" for n in range(1000)))
        edit(pair.here, " ".join(f"x{n}/a.tmp{n}=1 x{n}/keep=1" for n in range(100)))
        await pair.sync.sync("sync")
        assert {path for path in tree_of(pair.there) if "tmp" in path} == set()
        assert len(tree_of(pair.there)) == 101
