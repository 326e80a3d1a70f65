"""Roots: what may be one, what it is known by, and what is noticed about it."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root, RootFault, RootState
from scan_tools import nobody

_POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def _code(path) -> str:
    with pytest.raises(RootFault) as caught:
        Root.open(path)
    assert "\n" not in caught.value.sentence
    return caught.value.code


def test_a_root_has_our_folder_with_its_parts_and_nobody_else_may_read_it(tmp_path):
    with Root.open(tmp_path) as root:
        assert {"stage", "trash", "ck", "root-id"} <= set(os.listdir(root.state))
        assert (root.state / ".gitignore").read_text() == "*\n"
    assert os.name != "posix" or (tmp_path / ".colab-bridge").stat().st_mode & 0o077 == 0


def test_the_marker_stays_the_same_and_differs_from_root_to_root(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with Root.open(one) as first, Root.open(two) as other:
        assert len(first.marker) == 32
        assert first.marker != other.marker
    with Root.open(one, create_state=False) as again:
        assert again.marker == first.marker


def test_a_damaged_marker_gives_a_new_identity(tmp_path):
    with Root.open(tmp_path) as root:
        marker = root.marker
    (tmp_path / ".colab-bridge" / "root-id").write_text("../../etc/passwd")
    with Root.open(tmp_path) as root:
        assert root.marker not in {marker, ""}


def test_a_look_without_state_makes_nothing(tmp_path):
    with Root.open(tmp_path, create_state=False) as root:
        assert root.marker == ""
        assert root.check() is RootState.SAME
        assert root.now_ns() > 0
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_a_file_and_a_link_are_no_roots(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    assert _code(tmp_path / "nothing") == "missing"
    assert _code(tmp_path / "file") == "not_a_folder"
    assert _code(tmp_path / "link") == "link"
    assert _code(tmp_path / "file" / "below") == "missing"


def test_the_home_folder_what_holds_it_and_a_whole_file_system_are_no_roots(tmp_path, monkeypatch):
    home = tmp_path / "users" / "ada"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert _code(home) == "home"
    assert _code(tmp_path / "users") == "home"
    assert _code(os.path.abspath(os.sep)) == "slash"
    (home / "project").mkdir()
    Root.open(home / "project").close()


def test_a_root_inside_a_root_is_refused(tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    Root.open(tmp_path).close()
    assert _code(inside) == "nested"


@_POSIX
def test_a_folder_that_cannot_be_read_is_no_root():
    with nobody() as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0o300)
        assert _code(closed) == "unreadable"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_folder_of_another_user_is_refused_to_the_superuser(tmp_path):
    os.chown(tmp_path, 65534, 65534)
    assert _code(tmp_path) == "owner"
    Root.open(tmp_path, any_owner=True).close()


def test_our_folder_may_not_be_a_link_or_a_file(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    root = tmp_path / "root"
    elsewhere.mkdir()
    root.mkdir()
    (root / ".colab-bridge").symlink_to(elsewhere)
    assert _code(root) == "state"
    assert os.listdir(elsewhere) == []
    (root / ".colab-bridge").unlink()
    (root / ".colab-bridge").write_text("")
    assert _code(root) == "state"


def test_a_part_of_our_folder_may_not_be_a_link(tmp_path):
    Root.open(tmp_path).close()
    os.rmdir(tmp_path / ".colab-bridge" / "trash")
    (tmp_path / ".colab-bridge" / "trash").symlink_to("/tmp")
    assert _code(tmp_path) == "state"


def test_a_root_tells_what_became_of_it(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    with Root.open(path) as root:
        assert root.check() is RootState.SAME
        path.rename(tmp_path / "away")
        assert root.check() is RootState.MISSING
        path.mkdir()
        assert root.check() is RootState.REPLACED
        path.rmdir()
        path.symlink_to(tmp_path / "away")
        assert root.check() is RootState.LINK
        path.unlink()
        path.write_text("")
        assert root.check() is RootState.NOT_A_FOLDER
        path.unlink()
        (tmp_path / "away").rename(path)
        assert root.check() is RootState.SAME
        (path / ".colab-bridge" / "root-id").write_text("0" * 32)
        assert root.check() is RootState.UNMARKED
        shutil.rmtree(path / ".colab-bridge")
        assert root.check() is RootState.UNMARKED


@_POSIX
def test_a_way_through_a_link_is_not_taken(tmp_path):
    outside = tmp_path / "outside"
    path = tmp_path / "root"
    (outside / "b").mkdir(parents=True)
    path.mkdir()
    (path / "a").symlink_to(outside)
    with Root.open(path) as root:
        for way in ("a", "a/b"):
            with pytest.raises(NotADirectoryError):
                root.folder(way)


def test_a_way_out_of_the_root_is_no_path(tmp_path):
    with Root.open(tmp_path) as root:
        for way in ("..", "a/../..", "a//b", ".", "/etc"):
            with pytest.raises(ValueError):
                root.folder(way)


@_POSIX
def test_a_folder_that_was_replaced_is_noticed_when_it_is_opened_again(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "mine").write_text("")
    with Root.open(tmp_path) as root, root.folder("a/b") as folder:
        folder.release()
        assert folder.names() == ["mine"]
        folder.release()
        (tmp_path / "a" / "b").rename(tmp_path / "a" / "c")
        (tmp_path / "a" / "b").mkdir()
        with pytest.raises(OSError, match="another folder"):
            folder.names()


@pytest.mark.skipif(sys.platform == "darwin", reason="the disk knows one form only")
def test_a_name_is_found_in_the_form_in_which_it_lies_on_the_disk(tmp_path):
    (tmp_path / "e\u0301" / "u\u0308").mkdir(parents=True)
    with Root.open(tmp_path) as root, root.folder("\u00e9/\u00fc") as folder:
        assert folder.below == "e\u0301/u\u0308"
        assert folder.disk_name("missing-\u00e9") == "missing-\u00e9"


def test_the_clock_of_the_file_system_runs_with_its_stamps(tmp_path):
    with Root.open(tmp_path) as root:
        before = root.now_ns()
        (tmp_path / "f").write_text("")
        after = root.now_ns()
        assert before <= (tmp_path / "f").stat().st_mtime_ns <= after


def test_a_probe_leaves_nothing_behind_and_tells_of_this_disk(tmp_path):
    with Root.open(tmp_path) as root:
        before = sorted(os.listdir(root.state / "ck"))
        facts = probe(root)
        assert sorted(os.listdir(root.state / "ck")) == before
    assert facts.free_bytes > 0
    assert 0 < facts.granularity_ns <= 2_000_000_000
    if sys.platform.startswith("linux"):
        assert facts.has_exec
        assert facts.proc_maps
        assert facts.inotify
        assert not facts.folds_case
        assert facts.degraded == ()


def test_the_clock_is_later_than_every_stamp_before_it_where_stamps_are_fine(tmp_path):
    with Root.open(tmp_path) as root:
        if not probe(root).stamps_differ:
            pytest.skip("this disk stamps in ticks")
        for _ in range(20):
            with open(tmp_path / "f", "a") as out:
                out.write("x")
            assert (tmp_path / "f").stat().st_ctime_ns < root.now_ns()
