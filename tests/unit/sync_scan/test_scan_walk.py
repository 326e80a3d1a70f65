"""What a walk sees: kinds, names, what is left out, and what could not be looked at."""

from __future__ import annotations

import errno
import os
import socket
import sys

import pytest

from colab_bridge.agent.sync.budget import Budget
from colab_bridge.agent.sync.disk import files, look
from colab_bridge.agent.sync.disk.platform_posix import DescriptorFolder
from colab_bridge.agent.sync.disk.root import RootFault
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.names import MAX_DEPTH
from colab_bridge.agent.sync.tree import Blocked, Directory, Link, Unknown, Why, build_tree, entry_at, is_tracked, walk
from scan_tools import digest, file, nobody, side

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the real disk of these tests is a POSIX one")


def test_files_folders_links_and_executable_bits_are_in_the_tree(tmp_path):
    with side(tmp_path) as here:
        here.write("a/b/f", b"one")
        here.write("run.sh", b"two").chmod(0o744)
        (tmp_path / "empty").mkdir()
        (tmp_path / "l").symlink_to("a/b/f")
        result = here.walk()
        assert result.tree == build_tree(
            {"a/b/f": file(b"one"), "run.sh": file(b"two", executable=True), "empty": Directory(), "l": Link("a/b/f")}
        )
        assert (result.files, result.bytes, result.hashed_bytes, result.walked) == (3, 6, 6, True)
        assert result.problems == ()
        assert result.left_out == ()


def test_our_own_folder_is_not_there(tmp_path):
    with side(tmp_path) as here:
        assert here.tree == Directory()
        assert is_tracked(here.tree)


def test_nothing_is_read_twice_and_what_did_not_change_is_shared(tmp_path):
    with side(tmp_path) as here:
        here.write("a/f")
        here.write("b/g")
        first = here.walk()
        here.age()
        second = here.walk()
        assert second.tree is first.tree
        assert second.hashed_bytes == 0
        here.write("b/h", b"new")
        third = here.walk()
        assert third.hashed_bytes == 3
        assert third.tree.children["a"] is first.tree.children["a"]


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path):
    with side(tmp_path) as here:
        path = here.write("f", b"one")
        here.walk()
        here.age()
        before = path.stat()
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert here.entry("f") == file(b"two")


def test_another_file_of_the_same_size_under_the_name_is_seen(tmp_path):
    with side(tmp_path) as here:
        here.write("f", b"one")
        here.walk()
        here.age()
        here.write("g", b"two")
        os.replace(tmp_path / "g", tmp_path / "f")
        assert here.entry("f") == file(b"two")


def test_a_folder_replaced_by_another_with_the_same_names_is_read_anew(tmp_path):
    with side(tmp_path) as here:
        for name in "abc":
            here.write(f"d/{name}", b"1" + name.encode())
            here.write(f"other/{name}", b"2" + name.encode())
        here.walk()
        here.age()
        os.rename(tmp_path / "d", tmp_path / "old")
        os.rename(tmp_path / "other", tmp_path / "d")
        tree = here.tree
        assert [entry_at(tree, f"d/{name}") for name in "abc"] == [file(b"2" + name.encode()) for name in "abc"]


def test_a_moved_folder_is_not_read_again(tmp_path):
    with side(tmp_path) as here:
        for number in range(50):
            here.write(f"d/x/{number}", str(number))
        here.walk()
        here.age()
        os.rename(tmp_path / "d", tmp_path / "e")
        result = here.walk()
        assert result.hashed_bytes == 0
        assert len(result.tree.children["e"].children["x"].children) == 50  # type: ignore[union-attr]


@pytest.mark.parametrize("old", [0, 1_000_000_000, 4_000_000_000])
def test_files_copied_with_old_or_future_times_are_seen_and_come_to_rest(tmp_path, old):
    with side(tmp_path) as here:
        here.write("f", b"one")
        os.utime(here.write("f", b"new"), (old, old))
        assert here.entry("f") == file(b"new")
        here.age()
        assert here.walk().hashed_bytes == 0


def test_what_is_written_in_the_tick_of_the_scan_is_read_again(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        path = here.write("f", b"one")
        stamp = path.stat().st_ctime_ns
        monkeypatch.setattr(here.root, "now_ns", lambda: stamp)
        assert here.walk().hashed_bytes == 3
        assert here.walk().hashed_bytes == 3
        monkeypatch.setattr(here.root, "now_ns", lambda: stamp + 10**10)
        assert here.walk().hashed_bytes == 3
        assert here.walk().hashed_bytes == 0


def test_special_files_are_blocked_and_never_opened(tmp_path):
    with side(tmp_path) as here:
        os.mkfifo(tmp_path / "pipe")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "s"))
            result = here.walk()
        assert entry_at(result.tree, "pipe") == Blocked(Why.SPECIAL)
        assert entry_at(result.tree, "s") == Blocked(Why.SPECIAL)
        assert {(problem.path, problem.why) for problem in result.problems} == {
            ("pipe", Why.SPECIAL),
            ("s", Why.SPECIAL),
        }


@pytest.mark.parametrize("text", ["/etc/passwd", "x" * 1025, "~/x", "a\\b", "\udcff"])
def test_a_link_that_cannot_travel_is_blocked(tmp_path, text):
    with side(tmp_path) as here:
        os.symlink(text, tmp_path / "l")
        assert here.entry("l") == Blocked(Why.LINK_OUTSIDE)


def test_links_are_never_followed_not_even_in_circles(tmp_path):
    with side(tmp_path) as here:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "up").symlink_to("..")
        (tmp_path / "x").symlink_to("y")
        (tmp_path / "y").symlink_to("x")
        assert here.tree == build_tree({"d/up": Link(".."), "x": Link("y"), "y": Link("x")})


def test_a_name_that_is_no_text_is_blocked_and_the_rest_goes_on(tmp_path):
    with side(tmp_path) as here:
        here.write("good")
        with open(os.fsencode(tmp_path) + b"/bad\xff", "wb"):
            pass
        os.mkdir(os.fsencode(tmp_path) + b"/dir\xff")
        result = here.walk()
        assert entry_at(result.tree, "good") == file(b"1")
        assert sorted(p.why for p in result.problems if p.why) == [Why.BAD_NAME, Why.BAD_NAME]
        assert {p.path for p in result.problems} == {"bad\\xff", "dir\\xff"}


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31m", "rtl\u202e", "zwnj\u200c", "back\\slash", "~home"])
def test_a_name_that_may_not_travel_is_blocked(tmp_path, name):
    with side(tmp_path) as here:
        here.write(name)
        assert here.entry(name) == Blocked(Why.BAD_NAME)


@pytest.mark.parametrize("name", ["a b", "\u00fc", "\u65e5\u672c", "\U0001f600", "'\"", "$();", "CON", "a:b"])
def test_a_name_that_may_exist_here_travels(tmp_path, name):
    with side(tmp_path) as here:
        here.write(name)
        assert here.entry(name) == file(b"1")


def test_a_decomposed_name_travels_in_composed_form(tmp_path):
    with side(tmp_path) as here:
        here.write("e\u0301/u\u0308.txt", b"x")
        assert here.tree == build_tree({"\u00e9/\u00fc.txt": file(b"x")})


def test_of_two_forms_of_one_name_the_composed_one_stays(tmp_path):
    with side(tmp_path) as here:
        here.write("\u00e9", b"nfc")
        here.write("e\u0301", b"nfd")
        result = here.walk()
        assert entry_at(result.tree, "\u00e9") == file(b"nfc")
        assert [problem.why for problem in result.problems] == [Why.COLLISION]
        os.unlink(tmp_path / "\u00e9")
        assert here.tree == build_tree({"\u00e9": file(b"nfd")})


def test_a_path_that_is_too_deep_or_too_long_is_blocked(tmp_path):
    with side(tmp_path) as here:
        deep = "/".join(["d"] * MAX_DEPTH)
        here.write(f"{deep}/f")
        long = "/".join(["x" * 200] * 5)
        here.write(f"{long}/{'y' * 100}")
        tree = here.tree
        assert entry_at(tree, f"{deep}/f") == Blocked(Why.TOO_DEEP)
        assert entry_at(tree, f"{long}/{'y' * 100}") == Blocked(Why.TOO_DEEP)


def test_a_name_of_255_bytes_travels(tmp_path):
    with side(tmp_path) as here:
        here.write("n" * 255)
        assert here.entry("n" * 255) == file(b"1")


def test_what_is_left_out_is_listed_with_its_rule_and_not_entered(tmp_path):
    with side(tmp_path) as here:
        here.write("node_modules/deep/f")
        here.write("src/m.py")
        here.write("src/__pycache__/m.pyc")
        here.write(".env", b"secret")
        result = here.walk()
        assert result.tree == Directory({"src": Directory({"m.py": file(b"1")}, has_ignored=True)}, has_ignored=True)
        told = {item.path: (item.is_folder, item.size, item.sentence) for item in result.left_out}
        assert told[".env"] == (False, 6, "it may hold a secret (.env*)")
        assert told["node_modules"] == (True, 0, "the built-in list leaves it out (node_modules/)")
        assert set(told) == {".env", "node_modules", "src/__pycache__"}


def test_a_folder_with_nothing_but_left_out_content_is_a_phantom(tmp_path):
    with side(tmp_path) as here:
        here.write("d/x.pyc")
        assert here.entry("d") == Directory(has_ignored=True)
        assert not is_tracked(here.entry("d"))
        os.unlink(tmp_path / "d" / "x.pyc")
        assert is_tracked(here.entry("d"))


def test_git_and_ours_are_left_out_at_every_depth_and_in_every_spelling(tmp_path):
    with side(tmp_path) as here:
        here.write("sub/.git/config")
        here.write("sub/.GIT/config")
        here.write("sub/.colab-bridge/x")
        assert here.entry("sub") == Directory(has_ignored=True)


def test_a_file_over_the_limit_stays_home_and_is_not_read(tmp_path):
    with side(tmp_path, budget=Budget(file=10)) as here:
        here.write("big", b"x" * 11)
        here.write("fits", b"x" * 10)
        result = here.walk()
        assert entry_at(result.tree, "big") == Blocked(Why.TOO_BIG)
        assert result.hashed_bytes == 10
        assert [(item.path, item.size, item.sentence) for item in result.left_out] == [
            ("big", 11, Why.TOO_BIG.sentence)
        ]
        assert result.problems == ()


def test_a_file_that_was_asked_for_knows_no_limit(tmp_path):
    rules = IgnoreRules(own={"": "!/big\n"})
    with side(tmp_path, budget=Budget(file=10), rules=rules) as here:
        here.write("big", b"x" * 11)
        assert here.entry("big") == file(b"x" * 11)


def test_what_git_ignores_travels_within_its_budget(tmp_path):
    rules = IgnoreRules(git={"": "data/\n*.bin\n"})
    with side(tmp_path, budget=Budget(git_file=8, git_total=12), rules=rules) as here:
        here.write("data/a", b"x" * 6)
        here.write("data/b", b"x" * 7)
        here.write("c.bin", b"x" * 9)
        here.write("plain", b"x" * 100)
        result = here.walk()
        assert entry_at(result.tree, "data/a") == file(b"x" * 6)
        assert entry_at(result.tree, "data/b") == Blocked(Why.OVER_BUDGET)
        assert entry_at(result.tree, "c.bin") == Blocked(Why.TOO_BIG)
        assert result.hashed_bytes == 106
        here.age()
        assert here.walk().hashed_bytes == 0
        os.unlink(tmp_path / "data" / "a")
        again = here.walk()
        assert entry_at(again.tree, "data/b") == file(b"x" * 7)
        assert again.hashed_bytes == 7


def test_strict_rules_leave_out_what_git_ignores(tmp_path):
    with side(tmp_path, rules=IgnoreRules(git={"": "*.bin\n"}, strict=True)) as here:
        here.write("a.bin")
        assert here.tree == Directory(has_ignored=True)


def test_new_rules_with_the_same_cache_read_nothing_again(tmp_path):
    with side(tmp_path) as here:
        here.write("a.log", b"log")
        here.write("b", b"b")
        here.walk()
        here.age()
        with side(tmp_path, rules=IgnoreRules(own={"": "*.log\n"}), cache=here.cache) as other:
            result = other.walk()
            assert result.tree == Directory({"b": file(b"b")}, has_ignored=True)
            assert result.hashed_bytes == 0


def test_names_of_one_file_are_files_of_their_own(tmp_path):
    with side(tmp_path) as here:
        here.write("a", b"one")
        os.link(tmp_path / "a", tmp_path / "b")
        assert here.tree == build_tree({"a": file(b"one"), "b": file(b"one")})


def test_a_file_with_holes_is_read_as_zeros(tmp_path):
    with side(tmp_path) as here:
        with open(tmp_path / "sparse", "wb") as out:
            out.truncate(5 << 20)
        assert here.entry("sparse") == file(bytes(5 << 20))


def test_a_file_that_is_written_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        path = here.write("f", b"first")
        reads = iter([b"second", None])
        real = os.read

        def read(fd: int, count: int) -> bytes:
            found = real(fd, count)
            if found == b"first" and (new := next(reads)) is not None:
                path.write_bytes(new)
            return found

        monkeypatch.setattr("colab_bridge.agent.sync.disk.content.os.read", read)
        assert here.entry("f") == file(b"second")
        assert here.waits == [0.01]


def test_a_file_that_is_written_all_the_time_is_unstable_and_looked_at_again(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        path = here.write("f", b"x")
        real = os.read

        def read(fd: int, count: int) -> bytes:
            found = real(fd, count)
            if found:
                with open(path, "ab") as out:
                    out.write(b"x")
            return found

        monkeypatch.setattr("colab_bridge.agent.sync.disk.content.os.read", read)
        first = here.walk()
        assert entry_at(first.tree, "f") == Blocked(Why.UNSTABLE)
        assert here.waits == [0.01, 0.04, 0.16]
        monkeypatch.undo()
        again = here.scanner.refresh(first.tree, [])
        assert entry_at(again.tree, "f") == file(path.read_bytes())


def test_waiting_for_writers_has_an_end_for_all_files_together(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        for number in range(30):
            here.write(f"f{number}", b"x")
        monkeypatch.setattr("colab_bridge.agent.sync.disk.content._is_same", lambda before, after: False)
        here.walk()
        assert sum(here.waits) <= 1.0


def test_a_folder_without_permission_is_unknown_and_nothing_in_it_is_deleted():
    with nobody() as folder, side(folder) as here:
        here.write("d/f")
        here.write("e/g")
        here.walk()
        (folder / "d").chmod(0)
        result = here.walk()
        assert entry_at(result.tree, "d") == Unknown("EACCES")
        assert entry_at(result.tree, "e/g") == file(b"1")
        assert [(problem.path, problem.why) for problem in result.problems] == [("d", None)]
        (folder / "d").chmod(0o700)
        assert entry_at(here.scanner.refresh(result.tree, []).tree, "d/f") == file(b"1")


def test_a_folder_that_may_be_listed_but_not_searched_is_unknown():
    with nobody() as folder, side(folder) as here:
        here.write("d/f")
        (folder / "d").chmod(0o400)
        assert here.entry("d") == Unknown("EACCES")


def test_a_file_without_permission_is_blocked():
    with nobody() as folder, side(folder) as here:
        here.write("f").chmod(0)
        result = here.walk()
        assert entry_at(result.tree, "f") == Blocked(Why.UNREADABLE)
        (folder / "f").chmod(0o600)
        assert entry_at(here.scanner.refresh(result.tree, []).tree, "f") == file(b"1")


def _failing(monkeypatch, method: str, code: int, when) -> None:
    real = getattr(DescriptorFolder, method)

    def fail(self, *arguments):
        if when(self, *arguments):
            raise OSError(code, os.strerror(code))
        return real(self, *arguments)

    monkeypatch.setattr(DescriptorFolder, method, fail)


def test_a_folder_whose_listing_fails_is_unknown(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("d/f")
        here.write("e/f")
        here.walk()
        _failing(monkeypatch, "listing", errno.EIO, lambda self: self.below == "d")
        result = here.walk()
        assert entry_at(result.tree, "d") == Unknown("EIO")
        assert entry_at(result.tree, "e/f") == file(b"1")
        monkeypatch.undo()
        assert entry_at(here.scanner.refresh(result.tree, []).tree, "d/f") == file(b"1")


def test_a_walk_misses_no_name_where_a_folder_seems_to_list_what_it_listed_before(tmp_path, monkeypatch):
    monkeypatch.setattr(DescriptorFolder, "listing", lambda self: 1)
    with side(tmp_path) as here:
        for path in ("d/f", "d/g", "d/h/i"):
            here.write(path)
        here.walk()
        (tmp_path / "d" / "f").rename(tmp_path / "d" / "new")
        assert {path for path, _ in walk(here.walk().tree)} == {"d", "d/g", "d/h", "d/h/i", "d/new"}
        (tmp_path / "d" / "h").rename(tmp_path / "d" / "folder")
        assert {path for path, _ in walk(here.walk().tree)} == {"d", "d/g", "d/folder", "d/folder/i", "d/new"}


def test_an_entry_that_cannot_be_looked_at_is_unknown_alone(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("d/f")
        here.write("d/g")
        _failing(monkeypatch, "differing", errno.EIO, lambda self, known: self.below == "d")
        _failing(monkeypatch, "stat", errno.EIO, lambda self, name: name == "f")
        tree = here.tree
        assert entry_at(tree, "d/f") == Unknown("EIO")
        assert entry_at(tree, "d/g") == file(b"1")


def test_a_file_that_cannot_be_read_through_is_blocked(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("f")
        _failing(monkeypatch, "open_file", errno.EIO, lambda self, name: name == "f")
        assert here.entry("f") == Blocked(Why.UNREADABLE)


def test_a_root_that_cannot_be_listed_is_a_fault_and_no_empty_tree(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("f")
        here.walk()
        _failing(monkeypatch, "listing", errno.EIO, lambda self: self.below == "")
        with pytest.raises(RootFault, match="cannot be read"):
            here.walk()
        monkeypatch.undo()
        assert here.entry("f") == file(b"1")


def test_a_root_that_was_removed_is_a_fault(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    with side(path) as here:
        here.walk()
        os.rename(path, tmp_path / "x")
        for name in os.listdir(tmp_path / "x" / ".colab-bridge"):
            inside = tmp_path / "x" / ".colab-bridge" / name
            inside.rmdir() if inside.is_dir() else inside.unlink()
        (tmp_path / "x" / ".colab-bridge").rmdir()
        (tmp_path / "x").rmdir()
        with pytest.raises(RootFault) as caught:
            here.walk()
        assert caught.value.code == "missing"


def test_a_folder_for_which_no_descriptor_is_left_is_unknown_and_the_rest_is_seen(tmp_path):
    resource = pytest.importorskip("resource")
    with side(tmp_path) as here:
        deep = "/".join(["d"] * 40)
        here.write(f"{deep}/f")
        here.write("d/d/g")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = {int(name) for name in os.listdir("/dev/fd")}
        free_below = [os.open(os.devnull, os.O_RDONLY) for number in range(max(used)) if number not in used]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 13, hard))
        try:
            result = here.walk()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in free_below:
                os.close(number)
        (problem,) = result.problems
        assert "EMFILE" in problem.sentence
        assert isinstance(entry_at(result.tree, problem.path), Unknown)
        assert entry_at(result.tree, "d/d/g") == file(b"1")
        assert entry_at(here.walk().tree, f"{deep}/f") == file(b"1")


def test_a_file_that_vanishes_between_list_and_look_is_simply_not_there(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("a")
        path = here.write("b")
        real = DescriptorFolder.names

        def names(self):
            found = real(self)
            path.unlink(missing_ok=True)
            return found

        monkeypatch.setattr(DescriptorFolder, "names", names)
        assert here.tree == build_tree({"a": file(b"1")})


def test_a_folder_that_becomes_a_link_between_look_and_entry_is_not_entered(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    path = tmp_path / "root"
    (path / "d").mkdir(parents=True)
    with side(path) as here:
        real = DescriptorFolder.child

        def child(self, name, expected=None):
            if name == "d" and not (path / "d").is_symlink():
                (path / "d").rmdir()
                (path / "d").symlink_to(outside)
            return real(self, name, expected)

        monkeypatch.setattr(DescriptorFolder, "child", child)
        assert here.tree == Directory({"d": Blocked(Why.LINK_OUTSIDE)})


def test_a_file_that_becomes_a_pipe_does_not_hold_the_scan(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        path = here.write("f")
        real = DescriptorFolder.open_file

        def open_file(self, name):
            if name == "f" and path.is_file():
                path.unlink()
                os.mkfifo(path)
            return real(self, name)

        monkeypatch.setattr(DescriptorFolder, "open_file", open_file)
        assert here.entry("f") == Blocked(Why.SPECIAL)


def test_a_file_that_comes_back_at_once_was_never_deleted(tmp_path):
    with side(tmp_path) as here:
        path = here.write("f", b"old")
        here.write("g")
        here.walk()
        path.unlink()

        def come_back(pause: float) -> None:
            here.waits.append(pause)
            if len(here.waits) == 2:
                path.write_bytes(b"new")

        object.__setattr__(here.scanner._setting, "sleep", come_back)
        assert here.entry("f") == file(b"new")
        assert here.waits == [0.02, 0.02]


def test_a_deletion_of_a_moment_ago_counts_after_a_fifth_of_a_second_at_the_latest(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        path = here.write("f")
        here.walk()
        path.unlink()
        stamp = tmp_path.stat().st_mtime_ns
        monkeypatch.setattr(here.root, "now_ns", lambda: stamp)
        assert here.tree == Directory()
        assert here.waits == [0.02] * 10


def test_an_old_deletion_and_our_own_count_at_once(tmp_path):
    with side(tmp_path) as here:
        path = here.write("d/f")
        ours = here.write("ours")
        here.walk()
        path.unlink()
        os.utime(tmp_path / "d", (1, 1))
        ours.unlink()
        os.utime(tmp_path)
        assert here.walk(gone=["ours"]).tree == build_tree({"d": Directory()})
        assert here.waits == []


def test_a_place_where_something_is_mounted_is_blocked(tmp_path, monkeypatch):
    monkeypatch.setattr("colab_bridge.agent.sync.disk.scan.mount_points", lambda folder: frozenset({"m", "d/f"}))
    with side(tmp_path) as here:
        here.write("m/inside")
        here.write("d/f")
        here.write("d/g")
        tree = here.tree
        assert entry_at(tree, "m") == Blocked(Why.OTHER_DEVICE)
        assert entry_at(tree, "d/f") == Blocked(Why.OTHER_DEVICE)
        assert entry_at(tree, "d/g") == file(b"1")


def test_a_mount_that_appears_over_a_known_folder_is_blocked(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("m/inside")
        here.walk()
        monkeypatch.setattr("colab_bridge.agent.sync.disk.scan.mount_points", lambda folder: frozenset({"m"}))
        assert here.entry("m") == Blocked(Why.OTHER_DEVICE)


def test_another_device_is_not_entered(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("d/f")
        monkeypatch.setattr(look.Look, "_is_foreign", lambda self, node, name, seen: name == "d")
        assert here.entry("d") == Blocked(Why.OTHER_DEVICE)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_mount_points_below_a_folder_are_told_relative_to_it(tmp_path, monkeypatch):
    from colab_bridge.agent.sync.disk import platform_system

    lines = f"1 0 0:1 / / rw - x x rw\n2 1 0:2 / {tmp_path}/a\\040b/c rw - x x rw\n3 1 0:3 / {tmp_path}x rw - x x rw\n"
    (tmp_path / "mountinfo").write_text(lines)
    monkeypatch.setattr(platform_system, "_MOUNTS", str(tmp_path / "mountinfo"))
    with side(tmp_path) as here:
        assert platform_system.mount_points(here.root.top) == {"a b/c"}


def test_a_rehash_finds_what_no_stamp_tells(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        path = here.write("d/f", b"one")
        here.write("g", b"two")
        before = here.walk().tree
        here.age()
        node = here.cache.top.folders["d"]
        path.write_bytes(b"ONE")
        seen = path.stat()
        # A disk that tells no change: the signature of the new content is taken for that of the old one.
        node.records["f"] = (seen.st_ctime_ns, seen.st_mtime_ns, seen.st_ino, seen.st_mode, seen.st_size)
        assert here.walk().tree is before
        assert entry_at(here.walk(again=["d/f"]).tree, "d/f") == file(b"ONE")
        result = here.walk(rehash=True)
        assert result.hashed_bytes == 6
        assert entry_at(result.tree, "g") is entry_at(before, "g")


def test_the_audit_comes_round_to_every_file(tmp_path):
    with side(tmp_path) as here:
        for number in range(10):
            here.write(f"f{number}")
        here.walk()
        here.age()
        seen = [path for _ in range(5) for path in here.scanner.sample(0.2)]
        assert sorted(seen) == [f"f{number}" for number in range(10)]
        assert len(here.scanner.sample(0.2)) == 2


def test_a_mapped_file_is_read_at_every_look_and_a_large_one_is_blocked(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("m", b"12345")
        here.write("other", b"x")
        here.walk()
        here.age()
        assert [here.walk(mapped=["m"]).hashed_bytes for _ in range(2)] == [5, 5]
        assert here.walk().hashed_bytes == 5
        assert here.walk().hashed_bytes == 0
        monkeypatch.setattr(files, "MAPPED_LIMIT_BYTES", 4)
        result = here.walk(mapped=["m"])
        assert entry_at(result.tree, "m") == Blocked(Why.MAPPED)
        assert here.entry("m") == file(b"12345")


def test_a_large_file_is_hashed_piece_by_piece(tmp_path):
    with side(tmp_path) as here:
        content = os.urandom((2 << 20) + 17)
        here.write("big", content)
        entry = here.entry("big")
        assert entry == file(content)
        assert entry.digest == digest(content)  # type: ignore[union-attr]


def test_a_folder_with_very_many_names_is_listed_completely(tmp_path):
    with side(tmp_path) as here:
        for number in range(2_500):
            (tmp_path / f"n{number}").touch()
        assert here.walk().files == 2_500
