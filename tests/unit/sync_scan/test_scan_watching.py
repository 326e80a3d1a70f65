"""What the watcher tells, and that it never loses a change without saying so."""

from __future__ import annotations

import errno
import os
import select
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from colab_bridge.agent.sync.disk import platform_inotify
from colab_bridge.agent.sync.disk.platform_inotify import OVERFLOW, UNMOUNT, Inotify, RawEvent
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.disk.watch import Settled, Watcher, WatcherUnavailable
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.service_folder import SyncFolder
from colab_bridge.agent.sync.tree import entry_at
from scan_tools import KEY, file, seen_afresh

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watching needs inotify")

_WAIT_S = 30


@pytest.fixture
def root(tmp_path) -> Iterator[Root]:
    (tmp_path / "d").mkdir()
    with Root.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def watcher(root) -> Iterator[Watcher]:
    found = Watcher(root, IgnoreRules())
    found.start()
    yield found
    found.close()


def _dirty(watcher: Watcher) -> set[str]:
    settled = watcher.settle(_WAIT_S)
    assert settled.healthy, settled.reason
    return set(settled.dirty)


def test_nothing_changed_is_nothing(watcher):
    assert watcher.settle(_WAIT_S) == Settled(frozenset(), True)


def test_every_kind_of_change_is_told_before_the_answer(watcher, tmp_path):
    (tmp_path / "d" / "new").write_text("x")
    assert _dirty(watcher) == {"d/new"}
    with open(tmp_path / "d" / "new", "a") as out:
        out.write("y")
    assert _dirty(watcher) == {"d/new"}
    (tmp_path / "d" / "new").chmod(0o755)
    assert _dirty(watcher) == {"d/new"}
    os.utime(tmp_path / "d" / "new", (1, 1))
    assert _dirty(watcher) == {"d/new"}
    (tmp_path / "d" / "new").rename(tmp_path / "moved")
    assert _dirty(watcher) == {"d/new", "moved"}
    (tmp_path / "link").symlink_to("moved")
    os.link(tmp_path / "moved", tmp_path / "hard")
    assert _dirty(watcher) == {"link", "hard"}
    (tmp_path / "moved").unlink()
    assert _dirty(watcher) == {"moved"}
    assert _dirty(watcher) == set()


def test_a_write_through_a_descriptor_that_stays_open_is_told(watcher, tmp_path):
    with open(tmp_path / "log", "wb", buffering=0) as out:
        out.write(b"1")
        assert _dirty(watcher) == {"log"}
        out.write(b"2")
        assert _dirty(watcher) == {"log"}


def test_folders_made_and_filled_at_once_are_told_and_watched(watcher, tmp_path):
    for number in range(50):
        (tmp_path / f"n{number}" / "b" / "c").mkdir(parents=True)
        (tmp_path / f"n{number}" / "b" / "c" / "f").write_text("1")
    told = _dirty(watcher)
    assert {f"n{number}" for number in range(50)} <= told
    assert watcher.watched == 2 + 150
    (tmp_path / "n7" / "b" / "c" / "f").write_text("22")
    assert _dirty(watcher) == {"n7/b/c/f"}


def test_a_moved_folder_is_followed_under_its_new_name(watcher, tmp_path):
    (tmp_path / "d" / "e").mkdir()
    _dirty(watcher)
    (tmp_path / "d").rename(tmp_path / "z")
    (tmp_path / "z" / "e" / "f").write_text("1")
    assert {"d", "z"} <= _dirty(watcher)
    (tmp_path / "z" / "e" / "f").write_text("2")
    assert _dirty(watcher) == {"z/e/f"}
    (tmp_path / "z" / "e").rename(tmp_path / "e")
    _dirty(watcher)
    (tmp_path / "e" / "g").write_text("1")
    assert _dirty(watcher) == {"e/g"}


def test_a_folder_that_left_the_root_is_forgotten(watcher, tmp_path, tmp_path_factory):
    away = tmp_path_factory.mktemp("away") / "d"
    (tmp_path / "d").rename(away)
    assert _dirty(watcher) == {"d"}
    (away / "f").write_text("1")
    assert _dirty(watcher) == set()
    assert watcher.watched == 1
    away.rename(tmp_path / "back")
    assert _dirty(watcher) == {"back"}
    (tmp_path / "back" / "f").write_text("2")
    assert _dirty(watcher) == {"back/f"}


def test_a_removed_and_made_again_folder_is_watched(watcher, tmp_path):
    for _ in range(5):
        shutil.rmtree(tmp_path / "d")
        (tmp_path / "d" / "x").mkdir(parents=True)
    _dirty(watcher)
    assert watcher.watched == 3
    (tmp_path / "d" / "x" / "f").write_text("1")
    assert _dirty(watcher) == {"d/x/f"}


def test_left_out_folders_have_no_watch(root, tmp_path):
    (tmp_path / "node_modules" / "a").mkdir(parents=True)
    (tmp_path / "d" / ".git" / "objects").mkdir(parents=True)
    watcher = Watcher(root, IgnoreRules())
    watcher.start()
    try:
        assert watcher.watched == 2
        (tmp_path / "node_modules" / "a" / "f").write_text("1")
        assert _dirty(watcher) == set()
        (tmp_path / "venv").mkdir()
        assert _dirty(watcher) == {"venv"}
        assert watcher.watched == 2
    finally:
        watcher.close()


def test_links_to_folders_are_not_watched(watcher, tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (tmp_path / "l").symlink_to(outside)
    assert _dirty(watcher) == {"l"}
    (outside / "f").write_text("1")
    assert _dirty(watcher) == set()


def test_a_name_that_is_no_text_stops_nothing(watcher, tmp_path):
    with open(os.fsencode(tmp_path) + b"/d/x\xff", "wb"):
        pass
    os.mkdir(os.fsencode(tmp_path) + b"/y\xff")
    assert _dirty(watcher) == {"d/x\udcff", "y\udcff"}
    (tmp_path / "d" / "f").write_text("1")
    assert _dirty(watcher) == {"d/f"}


def test_the_descriptor_is_readable_exactly_while_something_waits(watcher, tmp_path):
    poll = select.poll()
    poll.register(watcher.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    (tmp_path / "f").write_text("1")
    assert poll.poll(_WAIT_S * 1000)
    _dirty(watcher)
    assert poll.poll(0) == []


def test_lost_events_are_said_once_and_then_all_is_well(root, tmp_path, monkeypatch):
    watcher = Watcher(root, IgnoreRules())
    watcher.start()
    try:
        before = watcher.fileno()
        real = Inotify.read
        lost = iter([[RawEvent(-1, OVERFLOW, "")]])
        monkeypatch.setattr(Inotify, "read", lambda self: next(lost, None) or real(self))
        (tmp_path / "unseen" / "deep").mkdir(parents=True)
        settled = watcher.settle(_WAIT_S)
        assert (settled.healthy, settled.dirty) == (False, frozenset())
        assert settled.reason == "more changed at once than the system reports"
        assert watcher.fileno() == before
        assert _dirty(watcher) == set()
        (tmp_path / "unseen" / "deep" / "f").write_text("1")
        assert _dirty(watcher) == {"unseen/deep/f"}
    finally:
        watcher.close()


def test_a_real_overflow_is_said(root, tmp_path):
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip("the queue is too long to fill")
    watcher = Watcher(root, IgnoreRules())
    watcher.start()
    try:
        one, two = tmp_path / "one", tmp_path / "two"
        one.touch()
        two.touch()
        for _ in range(limit // 2 + 10):
            # In turn, because equal events in a row are one.
            os.utime(one)
            os.utime(two)
        assert not watcher.settle(_WAIT_S).healthy
        assert watcher.settle(_WAIT_S).healthy
    finally:
        watcher.close()


@pytest.mark.parametrize("event", [RawEvent(1, UNMOUNT, ""), RawEvent(987_654, 2, "f")])
def test_an_unmount_and_an_unknown_event_are_a_loss(watcher, monkeypatch, event):
    real = Inotify.read
    strange = iter(
        [
            [
                RawEvent(
                    watcher._by_watch.copy().popitem()[0] if event.mask == UNMOUNT else 987_654, event.mask, event.name
                )
            ]
        ]
    )
    monkeypatch.setattr(Inotify, "read", lambda self: next(strange, None) or real(self))
    assert not watcher.settle(_WAIT_S).healthy
    assert watcher.settle(_WAIT_S).healthy


def test_a_moved_root_is_a_loss(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    with Root.open(path) as root:
        watcher = Watcher(root, IgnoreRules())
        watcher.start()
        path.rename(tmp_path / "elsewhere")
        assert watcher.settle(_WAIT_S).reason == "the folder itself was moved or removed"
        watcher.close()


def test_no_cookie_is_a_loss(watcher, monkeypatch):
    monkeypatch.setattr(Inotify, "read", lambda self: [])
    monkeypatch.setattr(Inotify, "wait", lambda self, deadline: False)
    settled = watcher.settle(0.01)
    assert (settled.healthy, settled.reason) == (False, "events did not come in time")


def test_a_full_disk_is_a_loss(watcher, monkeypatch):
    def full(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Watcher, "_write_cookie", full)
    assert watcher.settle(_WAIT_S).reason == "no cookie can be written: No space left on device"


def test_the_limit_of_watches_at_the_start_is_said(root, monkeypatch):
    real = Inotify.add
    count = iter(range(100))

    def add(self, *arguments, **keywords):
        if next(count) > 1:
            raise OSError(errno.ENOSPC, "no")
        return real(self, *arguments, **keywords)

    monkeypatch.setattr(Inotify, "add", add)
    watcher = Watcher(root, IgnoreRules())
    with pytest.raises(WatcherUnavailable, match="limit of watched folders"):
        watcher.start()
    settled = watcher.settle(_WAIT_S)
    assert not settled.healthy
    assert settled.reason


def test_the_limit_of_watches_reached_later_stays_a_loss(watcher, tmp_path, monkeypatch):
    def full(self, *arguments, **keywords):
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(Inotify, "add", full)
    (tmp_path / "e").mkdir()
    for _ in range(2):
        settled = watcher.settle(_WAIT_S)
        assert not settled.healthy
        assert "max_user_watches" in settled.reason


def test_a_system_without_inotify_says_so(root, monkeypatch):
    monkeypatch.setattr(platform_inotify.sys, "platform", "darwin")
    with pytest.raises(WatcherUnavailable, match="no inotify"):
        Watcher(root, IgnoreRules()).start()


def test_a_disk_that_reports_nothing_is_noticed_at_the_start(root, monkeypatch):
    monkeypatch.setattr(Inotify, "read", lambda self: [])
    monkeypatch.setattr(Inotify, "wait", lambda self, deadline: False)
    with pytest.raises(WatcherUnavailable, match="does not report"):
        Watcher(root, IgnoreRules()).start()


def test_watches_work_by_path_where_there_is_no_proc(root, tmp_path, monkeypatch):
    monkeypatch.setattr("colab_bridge.agent.sync.disk.watch._BY_DESCRIPTOR", "/nowhere")
    watcher = Watcher(root, IgnoreRules())
    watcher.start()
    try:
        (tmp_path / "d" / "e").mkdir()
        _dirty(watcher)
        (tmp_path / "d" / "e" / "f").write_text("1")
        assert _dirty(watcher) == {"d/e/f"}
    finally:
        watcher.close()


def test_a_leftover_cookie_is_removed(root):
    left = root.state / "ck" / "old-1"
    left.write_text("")
    watcher = Watcher(root, IgnoreRules())
    watcher.start()
    watcher.settle(_WAIT_S)
    watcher.close()
    assert list((root.state / "ck").iterdir()) == []


def test_a_closed_watcher_says_so(watcher):
    watcher.close()
    watcher.close()
    assert watcher.settle(_WAIT_S) == Settled(frozenset(), False, "the watcher is not started")


def test_a_change_through_another_name_of_a_file_is_seen(watcher, root, tmp_path):
    scanner = Scanner(root, IgnoreRules(), KEY, StatCache(), probe(root), sleep=lambda _: None)
    (tmp_path / "a").write_bytes(b"one")
    tree = scanner.walk().tree
    while scanner._restless:
        tree = scanner.walk().tree
    _dirty(watcher)
    os.link(tmp_path / "a", tmp_path / "d" / "b")
    tree = scanner.refresh(tree, _dirty(watcher)).tree
    (tmp_path / "d" / "b").write_bytes(b"two")
    assert _dirty(watcher) == {"d/b"}
    tree = scanner.refresh(tree, {"d/b"}).tree
    assert entry_at(tree, "a") == entry_at(tree, "d/b") == file(b"two")


def test_a_refresh_looks_only_at_what_is_dirty(root, tmp_path, monkeypatch):
    scanner = Scanner(root, IgnoreRules(), KEY, StatCache(), probe(root), sleep=lambda _: None)
    for name in "abc":
        (tmp_path / "d" / name).write_text(name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    tree = scanner.walk().tree
    while scanner._restless:
        tree = scanner.walk().tree
    assert scanner.refresh(tree, []).tree is tree
    (tmp_path / "d" / "a").write_text("new")
    result = scanner.refresh(tree, ["d/a", "d/missing", "nowhere/at/all"])
    assert not result.walked
    assert result.hashed_bytes == 3
    assert result.tree.children["a"] is tree.children["a"]
    assert entry_at(result.tree, "d/b") is entry_at(tree, "d/b")
    assert scanner.refresh(tree, []).walked
    assert scanner.refresh(scanner.walk().tree, [""]).walked
    assert result.tree == seen_afresh(root, IgnoreRules(), probe(root)).tree


def test_a_dirty_path_may_be_spelled_as_it_travels(root, tmp_path):
    scanner = Scanner(root, IgnoreRules(), KEY, StatCache(), probe(root), sleep=lambda _: None)
    (tmp_path / "e\u0301").mkdir()
    (tmp_path / "e\u0301" / "u\u0308").write_bytes(b"1")
    tree = scanner.walk().tree
    while scanner._restless:
        tree = scanner.walk().tree
    (tmp_path / "e\u0301" / "u\u0308").write_bytes(b"22")
    tree = scanner.refresh(tree, ["\u00e9/\u00fc"]).tree
    assert entry_at(tree, "\u00e9/\u00fc") == file(b"22")


def test_a_change_through_a_name_outside_is_seen_at_the_next_look_though_nothing_tells_of_it(tmp_path):
    project, outside = tmp_path / "project", tmp_path / "outside"
    project.mkdir()
    (project / "f").write_bytes(b"one")
    os.link(project / "f", outside)
    with closing(SyncFolder(project, key=KEY, on_displaced=pytest.fail)) as folder:
        assert entry_at(folder.settle().tree, "f") == file(b"one")
        assert folder.watch_number is not None
        outside.write_bytes(b"another")
        assert entry_at(folder.settle().tree, "f") == file(b"another")
