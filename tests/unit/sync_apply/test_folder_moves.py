"""A whole folder moves in one step, and only if it is what the plan has seen."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from apply_world import World, contents, folder_like
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Code, Expected, Kind
from faulty_calls import FaultyCalls, Killed, fail, kill, open_faulty

OLD = {"d/one": b"1", "d/in/two": b"2", "d/in/three": b"3"}


def plant(path: Path) -> None:
    for name, data in OLD.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    (path / "d" / "empty").mkdir()
    (path / "to").mkdir()


def move(world: World) -> ApplyOp:
    return ApplyOp(Action.MOVE, "to/e", folder_like(world.path / "d"), old_path="d")


MOVED = {name.replace("d/", "to/e/", 1): data for name, data in OLD.items()}


def test_a_folder_moves_with_all_in_it_and_leaves_nothing_in_the_trash(world: World) -> None:
    plant(world.path)
    op = move(world)
    assert [r.code for r in world.applier.apply("txn", [op])] == [Code.APPLIED]
    assert contents(world.path) == MOVED
    assert (world.path / "to" / "e" / "empty").is_dir()
    assert world.trashed() == {}
    assert [r.code for r in world.applier.apply("again", [op])] == [Code.ALREADY]


def test_a_folder_in_which_something_was_saved_goes_back(world: World) -> None:
    plant(world.path)
    op = move(world)
    (world.path / "d" / "in" / "two").write_bytes(b"newer")
    assert [r.code for r in world.applier.apply("txn", [op])] == [Code.MOVED]
    assert contents(world.path) == {**OLD, "d/in/two": b"newer"}


def watched(base: Path) -> tuple[World, FaultyCalls]:
    base.mkdir(parents=True)
    world, calls = open_faulty(base / "root")
    plant(world.path)
    calls.count, calls.log = 0, []
    return world, calls


def log_of_one_move(base: Path) -> list[str]:
    world, calls = watched(base)
    assert [r.code for r in world.applier.apply("txn", [move(world)])] == [Code.APPLIED]
    world.close()
    return calls.log


def test_a_folder_in_which_something_was_saved_stays_where_its_old_name_was_taken(tmp_path: Path) -> None:
    at = log_of_one_move(tmp_path / "log").index("place")
    world, calls = watched(tmp_path / "side")

    def save() -> None:
        (world.path / "to" / "e" / "one").write_bytes(b"newer")
        (world.path / "d").mkdir()
        (world.path / "d" / "new").write_bytes(b"theirs")

    calls.at, calls.after = at, save
    assert [r.code for r in world.applier.apply("txn", [move(world)])] == [Code.MOVED]
    assert contents(world.path) == {**MOVED, "to/e/one": b"newer", "d/new": b"theirs"}
    world.close()


def test_a_folder_does_not_take_the_place_of_another(world: World) -> None:
    plant(world.path)
    op = move(world)
    (world.path / "to" / "e").mkdir()
    assert [r.code for r in world.applier.apply("txn", [op])] == [Code.EXISTS]
    assert contents(world.path) == OLD


def test_neither_a_link_nor_a_missing_folder_is_moved(world: World, tmp_path: Path) -> None:
    plant(world.path)
    op = move(world)
    (world.path / "d").rename(tmp_path / "away")
    assert [r.code for r in world.applier.apply("txn", [op])] == [Code.MISSING]
    os.symlink(tmp_path / "away", world.path / "d")
    assert [r.code for r in world.applier.apply("again", [op])] == [Code.MOVED]
    assert (world.path / "d").is_symlink()


@pytest.mark.parametrize(
    ("path", "old_path"), [("x", ".colab-bridge"), ("x", ".Colab-Bridge/stage"), (".colab-bridge/x", "d")]
)
def test_our_own_folder_takes_no_part(world: World, path: str, old_path: str) -> None:
    plant(world.path)
    op = ApplyOp(Action.MOVE, path, Expected(Kind.FOLDER, bytes(32)), old_path=old_path)
    assert [r.code for r in world.applier.apply("txn", [op])] == [Code.BAD_NAME]


@pytest.mark.parametrize(("path", "old_path"), [("d/x", "d"), ("d", "d/in"), ("d", "d"), ("x", "../d"), ("x", "")])
def test_a_folder_is_moved_neither_into_itself_nor_out_of_the_root(path: str, old_path: str) -> None:
    with pytest.raises(ValueError, match=r"path|moved into itself"):
        ApplyOp(Action.MOVE, path, Expected(Kind.FOLDER, bytes(32)), old_path=old_path)


@pytest.mark.parametrize("what", ["killed before", "killed after", "an error"])
def test_a_fault_at_any_call_leaves_the_folder_whole(quick_path: Path, what: str) -> None:
    for at in range(len(log_of_one_move(quick_path / "none"))):
        world, calls = watched(quick_path / str(at))
        op = move(world)
        calls.at = at
        if what == "killed after":
            calls.after = kill(calls)
        else:
            calls.before = kill(calls) if what == "killed before" else fail(errno.EIO)
        try:
            world.applier.apply("txn", [op])
        except Killed:
            pass
        calls.at, calls.dead = None, False
        world.close()
        world = World.open(quick_path / str(at) / "root")
        world.applier.recover()
        assert contents(world.path) in (OLD, MOVED)
        assert [r.ok for r in world.applier.apply("again", [op])] == [True]
        assert contents(world.path) == MOVED
        assert world.staged() == []
        world.close()
