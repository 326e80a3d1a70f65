"""New folders grow in the stage and take their place by one move; where they cannot, nothing is replaced or lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from apply_world import World, contents, digest
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Code, OpResult
from faulty_calls import FaultyCalls, Killed, fail, kill, open_faulty

FILES = {
    "new/one": b"content one",
    "new/in/two": b"content two",
    "new/in/twin": b"content one",
    "old/three": b"content three",
    "four": b"content one",
}
OPS = [
    *(ApplyOp(Action.MKDIR, path) for path in ("new", "new/empty", "new/in")),
    *(
        ApplyOp(Action.WRITE, path, digest=digest(data), size=len(data), executable=path == "new/one")
        for path, data in FILES.items()
    ),
]


def send(world: World, txn: str = "txn") -> None:
    """Tell the operations, then the content, each once."""
    world.stage.expect(txn, OPS)
    for data in sorted({*FILES.values()}):
        world.put(data)


def watched(base: Path) -> tuple[World, FaultyCalls]:
    base.mkdir(parents=True)
    (base / "root").mkdir()
    (base / "root" / "old").mkdir()
    return open_faulty(base / "root")


def all_applied(results: list[OpResult]) -> bool:
    return [result.code for result in results] == [Code.APPLIED] * len(OPS)


def test_a_new_folder_takes_its_place_by_one_move(tmp_path: Path) -> None:
    world, calls = watched(tmp_path / "side")
    send(world)
    calls.log.clear()
    assert all_applied(world.applier.apply("txn", OPS))
    assert contents(world.path) == FILES
    assert (world.path / "new" / "empty").is_dir()
    assert (world.path / "new" / "one").stat().st_mode & 0o111
    assert not (world.path / "new" / "in" / "two").stat().st_mode & 0o111
    assert calls.log.count("place") == 3, "the folder, and the two files outside of it"
    assert world.staged() == []
    world.close()


def test_files_of_a_new_folder_are_told_to_the_scan_as_they_look(world: World) -> None:
    told: dict[str, tuple[int, bytes]] = {}
    world.applier.placed = lambda path, staged, placed, content: told.update({path: (placed.st_ino, content)})
    (world.path / "old").mkdir()
    send(world)
    results = {result.path: result for result in world.applier.apply("txn", OPS)}
    assert told == {path: ((world.path / path).stat().st_ino, digest(data)) for path, data in FILES.items()}
    seen = (world.path / "new" / "one").stat()
    assert results["new/one"].signature is not None
    assert results["new/one"].signature[:2] == (seen.st_mtime_ns, seen.st_ctime_ns)


def test_a_folder_that_somebody_made_meanwhile_is_not_replaced(world: World) -> None:
    (world.path / "old").mkdir()
    send(world)
    (world.path / "new" / "in").mkdir(parents=True)
    (world.path / "new" / "one").write_bytes(b"theirs")
    results = {result.path: result.code for result in world.applier.apply("txn", OPS)}
    assert results["new"] is results["new/in"] is Code.ALREADY
    assert results["new/one"] is Code.EXISTS
    assert contents(world.path) == {**FILES, "new/one": b"theirs"}
    assert world.staged() == [digest(b"content one").hex()], "what was not placed waits for another try"


def test_a_link_in_the_place_of_a_new_folder_is_not_followed(world: World, tmp_path: Path) -> None:
    (world.path / "old").mkdir()
    (tmp_path / "elsewhere").mkdir()
    send(world)
    os.symlink(tmp_path / "elsewhere", world.path / "new")
    results = {result.path: result.code for result in world.applier.apply("txn", OPS)}
    assert results["new"] is Code.EXISTS
    assert results["new/one"] is Code.IN_THE_WAY
    assert contents(tmp_path / "elsewhere") == {}


def test_content_of_a_transaction_that_never_comes_serves_another_one(world: World) -> None:
    (world.path / "old").mkdir()
    send(world, "lost")
    assert world.stage.have([digest(data) for data in FILES.values()]) == {digest(data) for data in FILES.values()}
    world.stage.expect("txn", OPS)
    assert world.stage.have([digest(b"content two")]) == {digest(b"content two")}
    assert all_applied(world.applier.apply("txn", OPS))
    assert contents(world.path) == FILES


def test_operations_that_became_others_take_the_content_as_it_is(world: World) -> None:
    (world.path / "old").mkdir()
    send(world)
    fewer = [op for op in OPS if op.path != "new/in/two"]
    assert all(result.ok for result in world.applier.apply("txn", fewer))
    assert contents(world.path) == {path: data for path, data in FILES.items() if path != "new/in/two"}


def test_content_that_came_before_its_other_places_were_told_reaches_them(world: World) -> None:
    (world.path / "old").mkdir()
    world.stage.expect("txn", OPS[:4])
    world.put(b"content one")
    world.stage.expect("txn", OPS[4:])
    for data in (b"content two", b"content three"):
        world.put(data)
    assert all_applied(world.applier.apply("txn", OPS))
    assert contents(world.path) == FILES


def test_content_that_an_earlier_try_has_left_in_the_stage_goes_when_it_comes_again(world: World) -> None:
    (world.path / "old").mkdir()
    for data in FILES.values():
        world.put(data)
    send(world)
    assert all_applied(world.applier.apply("txn", OPS))
    assert contents(world.path) == FILES
    assert world.staged() == []


def test_nothing_grows_in_the_place_of_our_own_folder(world: World) -> None:
    ops = [ApplyOp(Action.MKDIR, ".Colab-Bridge"), ApplyOp(Action.MKDIR, ".Colab-Bridge/x")]
    world.stage.expect("txn", ops)
    assert [result.code for result in world.applier.apply("txn", ops)] == [Code.BAD_NAME] * 2


def with_fault(base: Path, at: int | None, arm: Callable[[FaultyCalls], None]) -> FaultyCalls:
    world, calls = watched(base)
    calls.count, calls.at = 0, at
    arm(calls)
    try:
        send(world)
        world.applier.apply("txn", OPS)
    except (Killed, OSError):
        pass
    finally:
        calls.at, calls.dead = None, False
        world.close()
    return calls


def check_after(base: Path) -> None:
    world = World.open(base / "root")
    try:
        world.applier.recover()
        assert world.staged() == []
        found = contents(world.path)
        assert found.items() <= FILES.items(), "whole files only, and none that nobody sent"
        send(world, "again")
        assert all(result.ok for result in world.applier.apply("again", OPS))
        assert contents(world.path) == FILES
    finally:
        world.close()


@pytest.mark.parametrize("what", ["killed before", "killed after", "an error", "a full disk"])
def test_a_fault_at_any_call_loses_nothing_and_is_made_good(quick_path: Path, what: str) -> None:
    count = with_fault(quick_path / "none", None, lambda calls: None).count
    assert count > 40
    for at in range(count):

        def arm(calls: FaultyCalls) -> None:
            if what == "killed after":
                calls.after = kill(calls)
            else:
                code = errno.ENOSPC if what == "a full disk" else errno.EIO
                calls.before = kill(calls) if what == "killed before" else fail(code)

        with_fault(quick_path / str(at), at, arm)
        check_after(quick_path / str(at))


def test_a_fault_without_a_new_start_leaves_content_for_a_second_try(quick_path: Path) -> None:
    count = with_fault(quick_path / "none", None, lambda calls: None).count
    for at in range(count):
        world, calls = watched(quick_path / str(at))
        calls.count, calls.at, calls.before = 0, at, fail(errno.EIO)
        try:
            send(world)
            world.applier.apply("txn", OPS)
        except OSError:
            pass
        calls.at = None
        send(world, "again")
        results = world.applier.apply("again", OPS)
        assert all(result.ok for result in results), (at, calls.log[at], [result.code for result in results])
        assert contents(world.path) == FILES
        world.close()
