"""The cache: what it saves, and that a damaged, forged or foreign one is an empty one."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.disk.probe import FsProbe
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.tree import entry_at
from scan_tools import KEY, digest, file, side

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the real disk of these tests is a POSIX one")


def test_a_saved_cache_saves_all_reading(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    with side(path) as here:
        here.write("a/\u00e9", b"one")
        here.write("b", b"two")
        before = here.walk().tree
        here.age()
        here.cache.save(tmp_path / "cache", KEY, here.root)
    assert [name for name in os.listdir(tmp_path) if name != "root"] == ["cache"]
    with side(path) as here:
        cache = StatCache.load(tmp_path / "cache", KEY, here.root)
        with side(path, cache=cache) as again:
            result = again.walk()
            assert result.tree == before
            assert result.hashed_bytes == 0
            assert cache.noted == {}


def test_what_may_still_change_unseen_is_not_saved(tmp_path, monkeypatch):
    path = tmp_path / "root"
    path.mkdir()
    with side(path) as here:
        stamp = here.write("f").stat().st_ctime_ns
        monkeypatch.setattr(here.root, "now_ns", lambda: stamp)
        here.walk()
        here.cache.save(tmp_path / "cache", KEY, here.root)
        assert StatCache.load(tmp_path / "cache", KEY, here.root).noted == {}


def test_a_changed_file_is_read_although_a_cache_knew_it(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    with side(path) as here:
        target = here.write("f", b"one")
        here.walk()
        here.age()
        here.cache.save(tmp_path / "cache", KEY, here.root)
        target.write_bytes(b"two")
        with side(path, cache=StatCache.load(tmp_path / "cache", KEY, here.root)) as again:
            assert again.entry("f") == file(b"two")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 5_000), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_cache_is_empty(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.mktemp("root")
    with side(path) as here:
        here.write("a/f")
        here.walk()
        here.age()
        saved = path / ".colab-bridge" / "cache"
        here.cache.save(saved, KEY, here.root)
        content = bytearray(saved.read_bytes())
        place %= len(content)
        if cut:
            del content[place:]
        elif content[place] == value:
            return
        else:
            content[place] = value
        saved.write_bytes(content)
        assert StatCache.load(saved, KEY, here.root).noted == {}


def test_a_cache_of_another_key_or_root_and_a_missing_one_are_empty(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with side(one) as here, side(two) as other:
        here.write("f")
        here.walk()
        here.age()
        here.cache.save(tmp_path / "cache", KEY, here.root)
        assert StatCache.load(tmp_path / "cache", b"x" * 16, here.root).noted == {}
        assert StatCache.load(tmp_path / "cache", KEY, other.root).noted == {}
        assert StatCache.load(tmp_path / "nothing", KEY, here.root).noted == {}
        assert StatCache.load(tmp_path / "cache", KEY, here.root).noted != {}


def test_what_was_placed_need_not_be_read_where_stamps_differ(tmp_path):
    with side(tmp_path, facts=FsProbe(stamps_differ=True, granularity_ns=1)) as here:
        here.walk()
        staged = here.write("staged", b"one").stat()
        os.rename(tmp_path / "staged", tmp_path / "f")
        here.cache.note("f", staged, (tmp_path / "f").stat(), digest(b"one"))
        result = here.walk()
        assert entry_at(result.tree, "f") == file(b"one")
        assert result.hashed_bytes == 0


def test_what_was_placed_is_read_where_stamps_are_coarse(tmp_path):
    with side(tmp_path, facts=FsProbe(stamps_differ=False, granularity_ns=10_000_000)) as here:
        here.walk()
        placed = here.write("f", b"one").stat()
        here.cache.note("f", placed, placed, digest(b"lie"))
        assert here.entry("f") == file(b"one")


def test_what_was_saved_over_before_it_was_noted_is_read(tmp_path):
    with side(tmp_path) as here:
        staged = here.write("f", b"one").stat()
        (tmp_path / "f").write_bytes(b"two")
        here.cache.note("f", staged, (tmp_path / "f").stat(), digest(b"one"))
        assert here.entry("f") == file(b"two")
