"""A fault at every file-system call of one transaction, then a new start: nothing is lost (X01, X04, X12, P1, P8)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from apply_world import World, digest, file_with, folder_like, link_to
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Code, OpResult
from faulty_calls import FaultyCalls, Killed, fail, kill, open_faulty

OLD = {"change": b"change 1", "gone": b"gone 1", "typed": b"typed 1", "tree/in/deep": b"deep 1", "tree/x": b"x 1"}
NEW = {"change": b"change 2", "fresh": b"fresh 2", "tree": b"tree 2", "typed/in": b"in 2", "twin": b"fresh 2"}


def plant(path: Path) -> None:
    for name, data in OLD.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    (path / "empty").mkdir()
    (path / "Name").write_bytes(b"name")
    (path / "run.sh").write_bytes(b"run")
    os.symlink("change", path / "link")


def transaction(world: World) -> list[ApplyOp]:
    """One operation of every kind, as they stand in the state after :func:`plant`, whatever is there now."""
    model = world.path.parent / "model"
    if not model.exists():
        model.mkdir()
        plant(model)
    return [
        ApplyOp(Action.RENAME, "name", file_with(b"name"), old_path="Name"),
        ApplyOp(Action.MKDIR, "typed", file_with(OLD["typed"])),
        ApplyOp(Action.MKDIR, "made"),
        world.write("change", NEW["change"], file_with(OLD["change"])),
        world.write("fresh", NEW["fresh"]),
        world.write("tree", NEW["tree"], folder_like(model / "tree")),
        world.write("twin", NEW["twin"]),
        world.write("typed/in", NEW["typed/in"]),
        ApplyOp(Action.LINK, "link", link_to("change"), target="fresh"),
        ApplyOp(Action.LINK, "link2", target="fresh"),
        ApplyOp(Action.EXEC, "run.sh", file_with(b"run"), executable=True),
        ApplyOp(Action.DELETE, "gone", file_with(OLD["gone"])),
        ApplyOp(Action.RMDIR, "empty"),
    ]


def shape(path: Path) -> dict[str, str]:
    """Everything below a folder but the engine's own folder, as text."""
    found: dict[str, str] = {}
    for here, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name != ".colab-bridge"]
        for name in [*folders, *files]:
            full = Path(here) / name
            key = str(full.relative_to(path))
            if full.is_symlink():
                found[key] = "-> " + os.readlink(full)
            elif full.is_dir():
                found[key] = "folder"
            else:
                bit = "!" if full.stat().st_mode & 0o100 else "="
                found[key] = bit + full.read_bytes().decode()
    return found


def everything_kept(world: World) -> set[bytes]:
    """All contents in the tree, in the trash and in the conflict store."""
    found = set(world.kept)
    for here, folders, files in os.walk(world.path):
        if here.endswith(".colab-bridge"):
            folders[:] = ["trash"]
        found |= {Path(here, name).read_bytes() for name in files if not Path(here, name).is_symlink()}
    return found


def run_with_fault(
    base: Path, at: int | None, arm: Callable[[FaultyCalls], None]
) -> tuple[list[OpResult] | None, FaultyCalls]:
    base.mkdir(parents=True)
    (base / "root").mkdir()
    plant(base / "root")
    world, calls = open_faulty(base / "root")
    ops = transaction(world)
    calls.count, calls.at = 0, at
    arm(calls)
    results = None
    try:
        results = world.applier.apply("txn", ops)
    except Killed:
        pass
    finally:
        calls.at, calls.dead = None, False
        world.close()
    return results, calls


def calls_of_one_transaction(base: Path) -> int:
    results, calls = run_with_fault(base, None, lambda calls: None)
    assert results is not None
    assert [result.code for result in results] == [Code.APPLIED] * len(results)
    return calls.count


def check_after_restart(base: Path, outside: dict[str, str]) -> None:
    world = World.open(base / "root")
    try:
        world.applier.recover()
        assert world.staged() == []
        assert set(OLD.values()) <= everything_kept(world), "no content was lost"
        assert world.kept == [], "nobody has saved anything, so there is no conflict"
        found = shape(world.path)
        for path, (before, after) in both_states(base).items():
            assert found.get(path) in {before, after}, path
        again = world.applier.apply("again", transaction(world))
        assert [result.ok for result in again] == [True] * len(again), [r.code for r in again]
        assert shape(world.path) == shape(base.parent / "done" / "root")
        assert world.staged() == [] or set(world.staged()) <= {digest(data).hex() for data in NEW.values()}
    finally:
        world.close()
    assert shape(base / "outside") == outside


def both_states(base: Path) -> dict[str, tuple[str | None, str | None]]:
    before, after = shape(base / "model"), shape(base.parent / "done" / "root")
    return {path: (before.get(path), after.get(path)) for path in {*before, *after}}


FAULTS: dict[str, Callable[[FaultyCalls], None]] = {
    "EIO": lambda calls: setattr(calls, "before", fail(errno.EIO)),
    "ENOSPC": lambda calls: setattr(calls, "before", fail(errno.ENOSPC)),
    "EACCES": lambda calls: setattr(calls, "before", fail(errno.EACCES)),
    "EMFILE": lambda calls: setattr(calls, "before", fail(errno.EMFILE)),
    "killed before": lambda calls: setattr(calls, "before", kill(calls)),
    "killed after": lambda calls: setattr(calls, "after", kill(calls)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_call_loses_nothing_and_the_next_start_tidies_up(fault: str, quick_path: Path) -> None:
    total = calls_of_one_transaction(quick_path / "done")
    assert total > 60
    for at in range(total):
        base = quick_path / str(at)
        (base / "outside").mkdir(parents=True)
        (base / "outside" / "canary").write_bytes(b"untouched")
        outside = shape(base / "outside")
        results, calls = run_with_fault_in(base, at, FAULTS[fault])
        note = f"{fault} at call {at} ({calls.log[at] if at < len(calls.log) else '-'})"
        try:
            if results is not None:
                after = shape(base.parent / "done" / "root")
                failed_at_end = at >= total - 12
                found = shape(base / "root")
                for result in results:
                    if result.ok and not failed_at_end:
                        assert found.get(result.path) == after.get(result.path), result.path
            check_after_restart(base, outside)
        except AssertionError as error:
            raise AssertionError(f"{note}: {error}") from error


def run_with_fault_in(
    base: Path, at: int, arm: Callable[[FaultyCalls], None]
) -> tuple[list[OpResult] | None, FaultyCalls]:
    inner = base / "inner"
    found = run_with_fault(inner, at, arm)
    for name in ("root", "model"):
        os.rename(inner / name, base / name)
    return found
