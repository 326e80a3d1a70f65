"""Files that programs have mapped or open, and databases that are written while they are looked at."""

from __future__ import annotations

import mmap
import os
import sqlite3
import sys
from contextlib import closing

import pytest

from colab_bridge.agent.sync.disk import mapped, sqlite_files
from colab_bridge.agent.sync.disk.mapped import (
    MappedUnavailable,
    MappedWatch,
    fsync_mapped,
    mapped_files,
    open_for_writing,
)
from colab_bridge.agent.sync.disk.sqlite_files import main_name
from colab_bridge.agent.sync.tree import Blocked, File, Why, entry_at
from scan_tools import digest, side

_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the real disk of these tests is a POSIX one")


@_LINUX
def test_stores_through_a_map_are_seen_at_every_look(tmp_path):
    with side(tmp_path) as here:
        path = here.write("a b/m\u00e9", bytes(8192))
        seen = {here.entry("a b/m\u00e9")}
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8192) as memory:
            for value in range(1, 6):
                memory[0] = value
                found = mapped_files(here.root)
                assert found == ["a b/m\u00e9"]
                assert fsync_mapped(here.root, found) == []
                seen.add(entry_at(here.walk(mapped=found).tree, "a b/m\u00e9"))
        assert len(seen) == 6
        assert mapped_files(here.root) == []


@_LINUX
def test_private_and_read_only_maps_removed_files_and_ours_do_not_count(tmp_path):
    with side(tmp_path) as here:
        path = here.write("m", bytes(4096))
        gone = here.write("gone", bytes(4096))
        ours = here.write(".colab-bridge/x", bytes(4096))
        with open(path, "r+b") as one, open(gone, "r+b") as two, open(ours, "r+b") as three:
            maps = [
                mmap.mmap(one.fileno(), 4096, access=mmap.ACCESS_COPY),
                mmap.mmap(one.fileno(), 4096, access=mmap.ACCESS_READ),
                mmap.mmap(two.fileno(), 4096),
                mmap.mmap(three.fileno(), 4096),
            ]
            gone.unlink()
            assert mapped_files(here.root) == []
            for one_map in maps:
                one_map.close()


@_LINUX
def test_a_map_that_is_made_and_given_back_between_looks_is_seen(tmp_path):
    with side(tmp_path) as here:
        path = here.write("m", bytes(1 << 20))
        watch = MappedWatch(here.root)
        assert watch.look() == []
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 1 << 20):
            assert watch.look() == ["m"]
            assert watch.look() == ["m"]
        assert watch.look() == []


@_LINUX
def test_a_process_that_kept_its_size_is_looked_at_again_in_time(tmp_path, monkeypatch):
    now = [0.0]
    with side(tmp_path) as here:
        path = here.write("m", bytes(4096))
        watch = MappedWatch(here.root, clock=lambda: now[0])
        monkeypatch.setattr(mapped, "_start_and_size", lambda process: b"always the same")
        assert watch.look() == []
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 4096):
            assert watch.look() == []
            now[0] = 10.0
            assert watch.look() == ["m"]


def test_a_mapped_file_that_is_gone_by_now_is_told(tmp_path):
    with side(tmp_path) as here:
        here.write("there")
        assert fsync_mapped(here.root, ["missing", "d/x", "there", "../up"]) == ["missing", "d/x", "../up"]


@_LINUX
def test_files_that_are_open_for_writing_are_told(tmp_path):
    with side(tmp_path) as here:
        with open(here.write("w"), "ab"), open(here.write("r"), "rb"), open(here.write("d/rw"), "r+b"):
            assert open_for_writing(here.root) == ["d/rw", "w"]
        assert open_for_writing(here.root) == []


def test_a_system_that_does_not_tell_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "_PROC", str(tmp_path / "nothing"))
    with side(tmp_path) as here:
        for ask in (mapped_files, open_for_writing):
            with pytest.raises(MappedUnavailable):
                ask(here.root)


def test_the_names_beside_a_database_are_known():
    assert [main_name(name) for name in ("x.db-wal", "x.db-shm", "x-journal", "x.db", "-wal")] == [
        "x.db",
        "x.db",
        "x",
        None,
        None,
    ]


def _rows(path) -> list[tuple[int]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select n from t order by n").fetchall()


def test_an_open_database_travels_as_a_consistent_copy(tmp_path):
    with side(tmp_path) as here, closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table t(n)")
        database.execute("insert into t values (1)")
        result = here.walk()
        assert sorted(result.tree.children) == ["x.db"]
        entry = result.tree.children["x.db"]
        copy = here.scanner.databases.source("x.db")
        assert copy is not None
        content = copy.read_bytes()
        assert entry == File(digest(content), len(content))
        assert _rows(copy) == [(1,)]
        assert {item.path for item in result.left_out} == {"x.db-shm", "x.db-wal"}
        same = here.walk()
        assert same.tree == result.tree
        database.execute("insert into t values (2)")
        changed = here.scanner.refresh(same.tree, ["x.db-wal"])
        assert changed.tree != result.tree
        assert _rows(here.scanner.databases.source("x.db")) == [(1,), (2,)]
    with side(tmp_path) as here:
        closed = here.walk()
        assert sorted(closed.tree.children) == ["x.db"]
        assert here.scanner.databases.source("x.db") is None
        assert closed.tree.children["x.db"] == File(
            digest((tmp_path / "x.db").read_bytes()), (tmp_path / "x.db").stat().st_size
        )


def test_a_database_that_is_closed_is_an_ordinary_file_again(tmp_path):
    with side(tmp_path) as here:
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as database:
            database.execute("pragma journal_mode=wal")
            database.execute("create table t(n)")
            here.walk()
            copy = here.scanner.databases.source("x.db")
            assert copy is not None
        tree = here.tree
        content = (tmp_path / "x.db").read_bytes()
        assert tree.children == {"x.db": File(digest(content), len(content))}
        assert not copy.exists()
        assert not tree.has_ignored


def test_names_that_only_look_like_parts_of_a_database_travel(tmp_path):
    with side(tmp_path) as here:
        here.write("notes", b"no database")
        here.write("notes-journal", b"mine")
        here.write("china-wal", b"mine")
        assert sorted(here.tree.children) == ["china-wal", "notes", "notes-journal"]


@pytest.mark.parametrize("why", ["too large", "no sqlite", "damaged"])
def test_an_open_database_that_cannot_be_copied_is_unstable(tmp_path, monkeypatch, why):
    with side(tmp_path) as here, closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table t(n)")
        if why == "too large":
            monkeypatch.setattr(sqlite_files, "_LIMIT_BYTES", 10)
        elif why == "no sqlite":
            monkeypatch.setitem(sys.modules, "sqlite3", None)
        else:
            monkeypatch.setattr(sqlite_files, "_back_up", lambda *arguments: False)
        assert here.entry("x.db") == Blocked(Why.UNSTABLE)
        monkeypatch.undo()
        assert isinstance(here.entry("x.db"), File)
