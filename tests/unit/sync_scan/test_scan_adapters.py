"""Systems that are not this one: folders by path, disks that fold names, disks without executable bits."""

from __future__ import annotations

import os
import stat as modes
from types import SimpleNamespace

import pytest

from colab_bridge.agent.sync.disk import platform_paths, platform_system, root
from colab_bridge.agent.sync.disk.platform_folder import FolderReplaced
from colab_bridge.agent.sync.disk.platform_paths import PathFolder, is_reparse_point, long_path
from colab_bridge.agent.sync.disk.platform_posix import DescriptorFolder
from colab_bridge.agent.sync.disk.probe import FsProbe, probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import carry_executable
from colab_bridge.agent.sync.tree import Blocked, Directory, File, Link, Why, build_tree, entry_at
from scan_tools import digest, file, side

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the real disk of these tests is a POSIX one")


@pytest.fixture
def by_path(monkeypatch):
    monkeypatch.setattr(root, "open_root", PathFolder.open_root)


@pytest.mark.usefixtures("by_path")
def test_a_scan_by_path_sees_the_same_tree(tmp_path):
    with side(tmp_path) as here:
        assert here.root.fd is None
        here.write("a/b/f", b"one")
        here.write("g", b"two").chmod(0o755)
        (tmp_path / "l").symlink_to("a")
        tree = build_tree({"a/b/f": file(b"one"), "g": file(b"two", executable=True), "l": Link("a")})
        first = here.walk()
        assert first.tree == tree
        here.age()
        again = here.walk()
        assert again.tree is first.tree
        assert again.hashed_bytes == 0
        here.write("a/b/f", b"new")
        assert entry_at(here.scanner.refresh(again.tree, ["a/b/f"]).tree, "a/b/f") == file(b"new")


@pytest.mark.parametrize("open_root", [DescriptorFolder.open_root, PathFolder.open_root])
def test_the_number_of_a_list_of_names_changes_with_each_of_them(tmp_path, open_root):
    names = {f"a rather long name to fill more than one buffer {number}" for number in range(1_500)}
    for name in names:
        (tmp_path / name).touch()
    with open_root(str(tmp_path)) as folder:
        before = folder.listing()
        assert folder.listing() == before
        assert {*folder.names()} == names
        (tmp_path / "one").touch()
        more = folder.listing()
        (tmp_path / "one").rename(tmp_path / "two")
        assert len({before, more, folder.listing()}) == 3
        (tmp_path / "two").unlink()
        assert {*folder.names()} == names


@pytest.mark.usefixtures("by_path")
def test_a_folder_by_path_that_was_replaced_is_not_used(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    (outside / "b" / "secret").write_text("x")
    with Root.open(tmp_path) as opened, opened.folder("a/b") as folder:
        (tmp_path / "a").rename(tmp_path / "old")
        (tmp_path / "a").symlink_to(outside)
        for use in (folder.names, lambda: folder.stat("secret"), lambda: folder.open_file("secret")):
            with pytest.raises((FolderReplaced, NotADirectoryError)):
                use()


@pytest.mark.usefixtures("by_path")
def test_a_link_is_not_opened_by_path(tmp_path):
    (tmp_path / "l").symlink_to("/etc/passwd")
    with Root.open(tmp_path) as opened, pytest.raises(OSError, match="a link stands there"):
        opened.top.open_file("l")


@pytest.mark.usefixtures("by_path")
def test_a_root_by_path_makes_and_probes_its_state(tmp_path):
    with Root.open(tmp_path) as opened:
        assert len(opened.marker) == 32
        assert probe(opened).free_bytes > 0
        with opened.folder("") as again:
            assert again.path == str(tmp_path)


def _windows(mode: int, attributes: int, tag: int) -> os.stat_result:
    return SimpleNamespace(st_mode=mode, st_file_attributes=attributes, st_reparse_tag=tag)  # type: ignore[return-value]


def test_junctions_are_links_of_a_kind_and_cloud_files_are_files():
    assert is_reparse_point(_windows(modes.S_IFDIR, 0x410, 0xA000_0003))
    assert not is_reparse_point(_windows(modes.S_IFLNK, 0x400, 0xA000_000C))
    assert not is_reparse_point(_windows(modes.S_IFREG, 0x400, 0x9000_001A))
    assert not is_reparse_point(_windows(modes.S_IFDIR, 0x10, 0))


def test_a_junction_is_blocked_and_not_entered(tmp_path, monkeypatch):
    with side(tmp_path) as here:
        here.write("j/inside")
        monkeypatch.setattr(
            "colab_bridge.agent.sync.disk.look.is_reparse_point", lambda seen: modes.S_ISDIR(seen.st_mode)
        )
        assert here.tree == Directory({"j": Blocked(Why.LINK_OUTSIDE)})


def test_a_junction_is_no_folder_by_path(tmp_path, monkeypatch):
    (tmp_path / "j").mkdir()
    monkeypatch.setattr(platform_paths, "is_reparse_point", lambda seen: True)
    with pytest.raises(NotADirectoryError):
        PathFolder.open_root(str(tmp_path / "j"))


_FOLDING = FsProbe(folds_case=True, granularity_ns=1, stamps_differ=True)


def test_on_a_folding_disk_one_of_two_names_stays_and_nothing_is_overwritten(tmp_path):
    with side(tmp_path, facts=_FOLDING) as here:
        here.write("A.py", b"upper")
        here.write("a.py", b"lower")
        result = here.walk()
        assert entry_at(result.tree, "A.py") == file(b"upper")
        assert [(problem.why, problem.path.startswith("a.py\\")) for problem in result.problems] == [
            (Why.COLLISION, True)
        ]
        assert here.walk().tree is result.tree


def test_of_two_names_on_a_folding_disk_the_one_in_the_ancestor_stays(tmp_path):
    known = build_tree({"d/a": file(b"lower")})
    with side(tmp_path, facts=_FOLDING) as here:
        here.write("d/A", b"upper")
        here.write("d/a", b"lower")
        assert entry_at(here.walk().tree, "d/A") == file(b"upper")
        tree = here.walk(known=known).tree
        assert entry_at(tree, "d/a") == file(b"lower")
        assert entry_at(tree, "d/A") is None
        os.unlink(tmp_path / "d" / "a")
        assert entry_at(here.walk(known=known).tree, "d/A") == file(b"upper")


def test_two_folders_that_meet_are_one_folder_and_one_blocked_name(tmp_path):
    with side(tmp_path, facts=_FOLDING) as here:
        here.write("D/f", b"1")
        here.write("d/g", b"2")
        tree = here.tree
        assert entry_at(tree, "D/f") == file(b"1")
        assert Blocked(Why.COLLISION) in tree.children.values()
        result = here.scanner.refresh(tree, ["d/g"])
        assert result.tree == tree
        os.rename(tmp_path / "D", tmp_path / "other")
        assert entry_at(here.scanner.refresh(result.tree, ["D", "other"]).tree, "d/g") == file(b"2")


def test_on_a_sensitive_disk_similar_names_are_names_of_their_own(tmp_path):
    with side(tmp_path) as here:
        for name in ["\u0130", "\u0131", "\u00df", "\u1e9e", "\ufb01", "fi", "A", "a"]:
            here.write(name)
        assert len(here.tree.children) == 8


def test_without_executable_bits_those_of_the_ancestor_are_carried(tmp_path):
    facts = FsProbe(has_exec=False, granularity_ns=1, stamps_differ=True)
    known = build_tree({"d/run": file(b"1", executable=True), "d/plain": file(b"2"), "gone": file(b"3")})
    with side(tmp_path, facts=facts) as here:
        here.write("d/run", b"1")
        here.write("d/plain", b"2").chmod(0o755)
        here.write("d/new", b"4").chmod(0o755)
        tree = here.walk(known=known).tree
        assert entry_at(tree, "d/run") == file(b"1", executable=True)
        assert entry_at(tree, "d/plain") == file(b"2")
        assert entry_at(tree, "d/new") == file(b"4")
        here.write("d/run", b"changed")
        changed = here.scanner.refresh(tree, ["d/run"], known=known)
        assert not changed.walked
        assert entry_at(changed.tree, "d/run") == file(b"changed", executable=True)
        assert entry_at(here.walk().tree, "d/run") == file(b"changed")


def test_carrying_bits_shares_what_is_equal():
    tree = build_tree({"a/f": file(b"1"), "b/g": file(b"2")})
    assert carry_executable(tree, None) is tree
    assert carry_executable(tree, build_tree({"a/f": file(b"1")})) is tree
    carried = carry_executable(tree, build_tree({"a/f": File(digest(b"0"), 1, True)}))
    assert carried.children["b"] is tree.children["b"]
    assert entry_at(carried, "a/f") == file(b"1", executable=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("C:\\a", "\\\\?\\C:\\a"),
        ("\\\\server\\share", "\\\\?\\UNC\\server\\share"),
        ("\\\\?\\C:\\a", "\\\\?\\C:\\a"),
    ],
)
def test_a_windows_path_has_a_form_without_limit(path, expected):
    assert long_path(path) == expected


def test_where_no_mount_points_are_told_the_device_number_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("colab_bridge.agent.sync.disk.scan.mount_points", lambda folder: None)
    with side(tmp_path) as here:
        here.write("d/f")
        here.root.dev += 1
        assert here.tree == Directory({"d": Blocked(Why.OTHER_DEVICE)})


def test_the_boot_id_stays_the_same():
    assert platform_system.boot_id() == platform_system.boot_id()


def test_a_machine_without_proc_has_an_empty_boot_id_and_no_mount_points(tmp_path, monkeypatch):
    monkeypatch.setattr(platform_system, "_BOOT_ID", str(tmp_path / "nothing"))
    monkeypatch.setattr(platform_system, "_MOUNTS", str(tmp_path / "nothing"))
    monkeypatch.setattr(platform_system.sys, "platform", "other")
    assert platform_system.boot_id() == ""
    top = DescriptorFolder.open_root(str(tmp_path))
    assert platform_system.mount_points(top) is None
    top.close()


def test_a_system_whose_windows_interface_is_missing_tells_no_boot(monkeypatch):
    monkeypatch.delattr("ctypes.windll", raising=False)
    assert platform_system._windows_boot() == ""


def test_the_start_of_windows_is_cut_to_minutes(monkeypatch):
    class Ntdll:
        ticks = 1_000_000_000_123

        def NtQuerySystemInformation(self, what, room, size, length):
            assert what == 3
            room[0:8] = self.ticks.to_bytes(8, "little")
            return 0

    monkeypatch.setattr("ctypes.windll", SimpleNamespace(ntdll=Ntdll()), raising=False)
    first = platform_system._windows_boot()
    Ntdll.ticks += 10
    assert first == platform_system._windows_boot()
    assert first.startswith("boot-")
