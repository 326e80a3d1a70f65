"""What each operation does when nobody else is at work (sync-design 2.3, 2.4)."""

from __future__ import annotations

import os
import stat

import pytest

from apply_world import World, digest, file_with, folder_like, link_to
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Code


def codes(world: World, *ops: ApplyOp, txn: str = "t1") -> list[Code]:
    return [result.code for result in world.applier.apply(txn, ops)]


def test_a_new_file_stands_at_its_path_and_the_stage_is_empty(world: World) -> None:
    assert codes(world, world.write("a.txt", b"one")) == [Code.APPLIED]
    assert world.text("a.txt") == b"one"
    assert world.staged() == []
    assert world.trash.list() == []


def test_a_changed_file_takes_the_place_and_the_old_one_is_in_the_trash(world: World) -> None:
    (world.path / "a.txt").write_bytes(b"one")
    assert codes(world, world.write("a.txt", b"two", file_with(b"one"))) == [Code.APPLIED]
    assert world.text("a.txt") == b"two"
    assert world.trashed() == {"a.txt": b"one"}


def test_a_file_that_is_not_what_was_expected_stays_as_it_is(world: World) -> None:
    (world.path / "a.txt").write_bytes(b"mine")
    before = (world.path / "a.txt").stat().st_ino
    assert codes(world, world.write("a.txt", b"two", file_with(b"one"))) == [Code.MOVED]
    assert world.text("a.txt") == b"mine"
    assert (world.path / "a.txt").stat().st_ino == before
    assert world.staged() == [digest(b"two").hex()], "the content stays for the next plan"


def test_a_file_that_came_meanwhile_is_not_overwritten(world: World) -> None:
    (world.path / "a.txt").write_bytes(b"mine")
    assert codes(world, world.write("a.txt", b"two")) == [Code.EXISTS]
    assert world.text("a.txt") == b"mine"


def test_a_transaction_that_is_repeated_finds_its_work_done(world: World) -> None:
    op = world.write("a.txt", b"one")
    gone = ApplyOp(Action.DELETE, "b.txt", file_with(b"b"))
    assert codes(world, op, gone) == [Code.APPLIED, Code.ALREADY]
    world.put(b"one")
    assert codes(world, op, gone) == [Code.ALREADY, Code.ALREADY]


def test_a_deleted_file_is_in_the_trash(world: World) -> None:
    (world.path / "a.txt").write_bytes(b"one")
    assert codes(world, ApplyOp(Action.DELETE, "a.txt", file_with(b"one"))) == [Code.APPLIED]
    assert not (world.path / "a.txt").exists()
    assert world.trashed() == {"a.txt": b"one"}


def test_a_file_that_was_edited_is_not_deleted(world: World) -> None:
    (world.path / "a.txt").write_bytes(b"edited")
    assert codes(world, ApplyOp(Action.DELETE, "a.txt", file_with(b"one"))) == [Code.MOVED]
    assert world.text("a.txt") == b"edited"
    assert world.trash.list() == []


def test_folders_are_made_top_down_and_removed_only_when_empty(world: World) -> None:
    made = codes(world, ApplyOp(Action.MKDIR, "d"), ApplyOp(Action.MKDIR, "d/e"), world.write("d/e/f", b"1"))
    assert made == [Code.APPLIED] * 3
    assert codes(world, ApplyOp(Action.RMDIR, "d/e"), txn="t2") == [Code.NOT_EMPTY]
    (world.path / "d/e/f").unlink()
    assert codes(world, ApplyOp(Action.RMDIR, "d/e"), ApplyOp(Action.RMDIR, "d"), txn="t3") == [Code.APPLIED] * 2


def test_a_folder_takes_the_place_of_a_file(world: World) -> None:
    (world.path / "d").write_bytes(b"file")
    done = codes(world, ApplyOp(Action.MKDIR, "d", file_with(b"file")), world.write("d/a", b"1"))
    assert done == [Code.APPLIED] * 2
    assert world.text("d/a") == b"1"
    assert world.trashed() == {"d": b"file"}


def test_a_file_takes_the_place_of_a_whole_folder(world: World) -> None:
    (world.path / "d" / "e").mkdir(parents=True)
    (world.path / "d" / "e" / "f").write_bytes(b"deep")
    assert codes(world, world.write("d", b"file", folder_like(world.path / "d"))) == [Code.APPLIED]
    assert world.text("d") == b"file"
    (entry,) = world.trash.list()
    assert (entry.kind, entry.path, entry.size) == ("folder", "d", 4)


def test_a_folder_with_something_new_inside_is_not_replaced(world: World) -> None:
    (world.path / "d").mkdir()
    (world.path / "d" / "f").write_bytes(b"1")
    expected = folder_like(world.path / "d")
    (world.path / "d" / "ignored.log").write_bytes(b"log")
    assert codes(world, world.write("d", b"file", expected)) == [Code.MOVED]
    assert world.text("d/ignored.log") == b"log"
    assert world.text("d/f") == b"1"


def test_a_link_is_made_and_changed_without_being_followed(world: World) -> None:
    (world.path / "f").write_bytes(b"1")
    assert codes(world, ApplyOp(Action.LINK, "l", target="f")) == [Code.APPLIED]
    assert codes(world, ApplyOp(Action.LINK, "l", link_to("f"), target="g"), txn="t2") == [Code.APPLIED]
    assert os.readlink(world.path / "l") == "g"
    assert codes(world, world.write("l", b"file", link_to("g")), txn="t3") == [Code.APPLIED]
    assert (world.path / "l").read_bytes() == b"file"
    assert world.text("f") == b"1"


def test_a_changed_file_keeps_its_permissions_and_follows_the_executable_bit(world: World) -> None:
    path = world.path / "a.sh"
    path.write_bytes(b"one")
    path.chmod(0o440)
    codes(world, world.write("a.sh", b"two", file_with(b"one")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    codes(world, ApplyOp(Action.EXEC, "a.sh", file_with(b"two"), executable=True), txn="t2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o550
    codes(world, world.write("a.sh", b"three", file_with(b"two")), txn="t3")
    assert stat.S_IMODE(path.stat().st_mode) == 0o440


def test_new_files_follow_the_umask_and_never_carry_more_than_the_executable_bit(world: World) -> None:
    world.applier.umask = 0o027
    codes(world, world.write("a", b"1"), world.write("b", b"2", executable=True))
    assert stat.S_IMODE((world.path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((world.path / "b").stat().st_mode) == 0o750


def test_a_file_of_equal_size_in_the_same_second_gets_a_later_second(world: World) -> None:
    second = 1_700_000_000 * 10**9
    codes(world, world.write("m.py", b"x = 1", mtime_ns=second + 100))
    for number, wanted in ((2, second + 200), (3, second), (4, second + 300)):
        before = (world.path / "m.py").stat().st_mtime_ns
        op = world.write("m.py", b"x = %d" % number, file_with(b"x = %d" % (number - 1)), mtime_ns=wanted)
        codes(world, op, txn=f"t{number}")
        assert (world.path / "m.py").stat().st_mtime_ns // 10**9 > before // 10**9


def test_the_time_of_a_change_travels(world: World) -> None:
    wanted = 1_600_000_000_123_456_789
    codes(world, world.write("a", b"1", mtime_ns=wanted))
    assert (world.path / "a").stat().st_mtime_ns == wanted


def test_one_content_goes_to_several_paths_as_separate_files(world: World) -> None:
    codes(world, *[world.write(name, b"same") for name in "abc"])
    assert len({(world.path / name).stat().st_ino for name in "abc"}) == 3
    assert {(world.path / name).stat().st_nlink for name in "abc"} == {1}
    assert world.staged() == []


def test_another_spelling_is_one_rename(world: World) -> None:
    (world.path / "d").mkdir()
    (world.path / "d" / "A.py").write_bytes(b"1")
    assert codes(world, ApplyOp(Action.RENAME, "d/a.py", file_with(b"1"), old_path="d/A.py")) == [Code.APPLIED]
    assert os.listdir(world.path / "d") == ["a.py"]


def test_a_failing_operation_leaves_the_others_valid(world: World) -> None:
    missing = ApplyOp(Action.WRITE, "x", digest=digest(b"never arrived"), size=1)
    done = codes(world, missing, world.write("no/such/folder", b"1"), world.write("ok", b"2"))
    assert done == [Code.NO_CONTENT, Code.NO_PARENT, Code.APPLIED]
    assert world.text("ok") == b"2"


def test_the_folder_of_the_engine_cannot_be_written(world: World) -> None:
    assert codes(world, world.write(".colab-bridge/root-id", b"x"), world.write(".Colab-Bridge/y", b"x")) == [
        Code.BAD_NAME,
        Code.BAD_NAME,
    ]


@pytest.mark.parametrize("path", ["../x", "/x", "a/../x", "a//x", "", "a/./x", "a\0b", "a\\b"])
def test_a_path_that_no_plan_contains_is_no_operation(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        ApplyOp(Action.DELETE, path, file_with(b""))


def test_the_stamps_of_the_placed_file_are_told(world: World) -> None:
    (result,) = world.applier.apply("t", [world.write("a", b"1")])
    seen = (world.path / "a").stat()
    assert result.signature is not None
    assert result.signature[:4] == (seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino)


def test_operations_survive_the_wire(world: World) -> None:
    ops = [
        world.write("a", b"1", file_with(b"0"), executable=True, mtime_ns=5),
        ApplyOp(Action.LINK, "l", link_to("x"), target="../y"),
        ApplyOp(Action.RENAME, "d/b", file_with(b""), old_path="d/B"),
        ApplyOp(Action.RMDIR, "d"),
    ]
    assert [ApplyOp.from_json(op.to_json()) for op in ops] == ops
